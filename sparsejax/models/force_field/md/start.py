"""The state that a run starts from: structures checked, velocities drawn, neighbour lists made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.force_field.md.state import Integrator, MDState
from sparsejax.models.force_field.md.system import Potential, System
from sparsejax.models.force_field.md.units import BOLTZMANN
from sparsejax.models.force_field.structure import Structure, as_structure


class Start(NamedTuple):
    """Copies of one molecule or crystal.

    Attributes:
      structure: of the first copy.
      positions: (g, b, 3) A, float64.
      velocities: (g, b, 3), of the atoms as they were given, in ASE's unit; None if they carry none.
      masses: (b,) amu.
    """

    structure: Structure
    positions: np.ndarray
    velocities: np.ndarray | None
    masses: np.ndarray

    @property
    def periodic(self) -> bool:
        """Whether all three directions repeat."""
        return self.structure.cell is not None and bool(np.all(self.structure.pbc))


def read_start(atoms: Any, replicas: int | None) -> Start:
    """The structures of a run.

    Args:
      atoms: `ase.Atoms`, a `Structure`, or a sequence of them with the same species in the same order.
      replicas: copies of one structure; None for one, or for as many as are given.

    Raises:
      ValueError: the structures do not go together, several of them are periodic, or atoms are constrained.
    """
    given = list(atoms) if isinstance(atoms, Sequence) and not isinstance(atoms, Structure) else [atoms]
    if not given:
        raise ValueError("there are no structures; give at least one")
    if replicas is not None and (len(given) > 1 or replicas < 1):
        raise ValueError(f"replicas={replicas} copies of {len(given)} structures: give one, and 1 or more")
    if any(getattr(one, "constraints", None) for one in given):
        raise ValueError("constraints of atoms are not kept to; take them off with atoms.set_constraint()")
    given = given * (replicas or 1)
    structures = [as_structure(one) for one in given]
    first = structures[0]
    for place, other in enumerate(structures):
        if not np.array_equal(first.species, other.species):
            raise ValueError(
                f"structure {place} has other atoms than structure 0; replicas are of one molecule"
            )
    if len(structures) > 1 and any(np.any(one.pbc) for one in structures):
        raise ValueError("replicas are for molecules without periodic directions; run crystals one by one")
    positions = np.stack([np.asarray(one.positions, np.float64) for one in structures])
    return Start(first, positions, _carried(given, positions.shape), _masses(given[0], first))


def initial_state(
    start: Start, system: System, integrator: Integrator, velocities: np.ndarray | None, dtype: Any
) -> MDState:
    """A state at step -1: nothing is known yet of its forces."""
    positions = jnp.asarray(start.positions, dtype)
    copies, structure = len(positions), start.structure
    cell = jnp.asarray(structure.cell, dtype) if structure.periodic else None
    state = MDState(
        step=jnp.asarray(-1, jnp.int32),
        positions=positions,
        velocities=jnp.zeros_like(positions) if velocities is None else jnp.asarray(velocities, dtype),
        forces=jnp.zeros_like(positions),
        energy=jnp.zeros(copies, dtype),
        virial=jnp.zeros((3, 3), dtype) if system.periodic else None,
        cell=cell,
        memory=None,
    )
    return replace(state, memory=integrator.memory(state, system))


def system_of(potential: Potential, start: Start, freedom: int, dtype: Any) -> System:
    """The atoms of a run with their potential."""
    species = np.tile(np.asarray(start.structure.species, np.int32), len(start.positions))
    masses = jnp.asarray(start.masses[:, None], dtype)
    return System(potential, jnp.asarray(species), masses, jnp.asarray(freedom, dtype), start.periodic)


def boltzmann_velocities(
    key: jax.Array,
    masses: np.ndarray,
    temperature: float,
    positions: np.ndarray,
    *,
    remove_rotation: bool = False,
) -> np.ndarray:
    """Velocities of Maxwell and Boltzmann, without the momentum of the whole.

    Args:
      key: PRNG key; copy i takes ``fold_in(key, i)``, so that it does not depend on how many there are.
      masses: (b,) amu.
      temperature: K.
      positions: (g, b, 3) A.
      remove_rotation: remove the angular momentum, too.

    Returns:
      (g, b, 3) A per unit of time (ASE's unit of velocity), float64.

    Example:
      >>> velocities = boltzmann_velocities(jax.random.key(0), np.full(50, 12.0), 300.0, np.zeros((1, 50, 3)))
      >>> bool(abs(velocities.mean(axis=1)).max() < 1e-12)
      True
    """
    copies, atoms = positions.shape[:2]
    drawn = np.stack([_drawn(key, copy, atoms) for copy in range(copies)]).astype(np.float64)
    velocities = drawn * np.sqrt(BOLTZMANN * temperature / masses)[:, None]
    if atoms == 1:
        return velocities
    weights = masses / masses.sum()
    velocities -= np.einsum("a,gai->gi", weights, velocities)[:, None]
    return _without_rotation(velocities, masses, positions) if remove_rotation else velocities


@partial(jax.jit, static_argnums=2)
def _drawn(key: jax.Array, copy: int | jax.Array, atoms: int) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(key, copy), (atoms, 3))


def rotational_freedoms(masses: np.ndarray, positions: np.ndarray) -> int:
    """Ways in which a molecule (b, 3) can be turned: 3, of a straight one 2, of an atom none."""
    return int(np.linalg.matrix_rank(_inertia(masses, _centred(masses, positions)), tol=1e-6))


def _without_rotation(velocities: np.ndarray, masses: np.ndarray, positions: np.ndarray) -> np.ndarray:
    still = []
    for moving, places in zip(velocities, positions, strict=True):
        arms = _centred(masses, places)
        momentum = (masses[:, None] * np.cross(arms, moving)).sum(axis=0)
        turning = np.linalg.pinv(_inertia(masses, arms), rcond=1e-9, hermitian=True) @ momentum
        still.append(moving - np.cross(turning, arms))
    return np.stack(still)


def _centred(masses: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return positions - masses @ positions / masses.sum()


def _inertia(masses: np.ndarray, arms: np.ndarray) -> np.ndarray:
    return np.eye(3) * (masses @ (arms**2).sum(axis=1)) - np.einsum("a,ai,aj->ij", masses, arms, arms)


def _carried(given: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray | None:
    found = [one.get_velocities() if hasattr(one, "get_velocities") else np.zeros(shape[1:]) for one in given]
    velocities = np.stack(found).astype(np.float64)
    return velocities if velocities.any() else None


def _masses(atoms: Any, structure: Structure) -> np.ndarray:
    if hasattr(atoms, "get_masses"):
        return np.asarray(atoms.get_masses(), np.float64)
    from ase.data import atomic_masses

    return np.asarray(atomic_masses[np.asarray(structure.species)], np.float64)
