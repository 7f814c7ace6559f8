"""What stays as it is while atoms move: the energy function, its parameters, species and masses."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.models.force_field.config import ForceFieldConfig

if TYPE_CHECKING:
    from sparsejax.models.force_field.neighbors import Neighbors
    from sparsejax.models.force_field.potential import ForceField

EnergyFunction = Callable[..., jax.Array]
"""``energy(parameters, species, positions, cell, neighbors, *, strain)``: of each atom (n,), in eV; pure.

Species are (n,), positions (n, 3), cell and strain (3, 3) or None."""


@flax.struct.dataclass
class Potential:
    """An energy function for molecular dynamics.

    Attributes:
      parameters: pytree of arrays, handed to ``energy``.
      energy: see `EnergyFunction`. Compiled loops are kept per function, so that it should be one object for
        all runs and take what differs between them from ``parameters``.
      cutoff: A, up to which atoms see each other.
      turns: whether the energy stays the same when all atoms are turned together.
    """

    parameters: Any
    energy: EnergyFunction = flax.struct.field(pytree_node=False)
    cutoff: float = flax.struct.field(pytree_node=False)
    turns: bool = flax.struct.field(pytree_node=False, default=True)


@flax.struct.dataclass
class System:
    """A potential with the atoms that it acts on: g copies of b atoms.

    Attributes:
      potential: the energy.
      species: (g b,) atomic numbers.
      masses: (b, 1) amu.
      freedom: () degrees of freedom of a copy, for its temperature.
      periodic: whether all three directions repeat, so that there is a volume and a stress.
    """

    potential: Potential
    species: jax.Array
    masses: jax.Array
    freedom: jax.Array
    periodic: bool = flax.struct.field(pytree_node=False)


def potential_of(force_field: ForceField | Potential) -> Potential:
    """The energy function of a force field; a `Potential` as it is."""
    if isinstance(force_field, Potential):
        return force_field
    config = force_field.config
    parameters = {"params": force_field.params, "filters": force_field.filters}
    return Potential(parameters, _energy_of(config), config.cutoff, turns=config.variant == "equivariant")


@lru_cache(maxsize=64)
def _energy_of(config: ForceFieldConfig) -> EnergyFunction:
    """One function object per config, so that its compiled loops are found again."""
    from sparsejax.models.force_field.potential import energy_of_rows

    def energy(
        parameters: Any,
        species: jax.Array,
        positions: jax.Array,
        cell: jax.Array | None,
        neighbors: Neighbors,
        *,
        strain: jax.Array | None,
    ) -> jax.Array:
        params, filters = parameters["params"], parameters["filters"]
        dtype = params["embedding"]["embedding"].dtype
        positions, cell, strain = jax.tree.map(lambda leaf: leaf.astype(dtype), (positions, cell, strain))
        return energy_of_rows(
            config, params, species, positions, neighbors, cell=cell, strain=strain, filters=filters
        )

    return energy


def evaluate(
    system: System, positions: jax.Array, cell: jax.Array | None, neighbors: Neighbors
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Energies, forces and, of a periodic system, the strain derivative, by one gradient.

    Args:
      system: of g copies of b atoms.
      positions: (g, b, 3) A.
      cell: (3, 3) A.
      neighbors: of all g b atoms.

    Returns:
      energies (g,) eV; forces (g, b, 3) eV/A; dE/dstrain (3, 3) eV, symmetrised, or None.
    """
    potential, dtype = system.potential, positions.dtype
    copies, atoms = positions.shape[:2]
    strain = jnp.zeros((3, 3), dtype) if system.periodic else None

    def total(flat: jax.Array, strain: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        of_atoms = potential.energy(
            potential.parameters, system.species, flat, cell, neighbors, strain=strain
        )
        return of_atoms.sum(), of_atoms

    wanted = (0, 1) if system.periodic else (0,)
    (_, of_atoms), slopes = jax.value_and_grad(total, wanted, has_aux=True)(positions.reshape(-1, 3), strain)
    energy = of_atoms.reshape(copies, atoms).sum(axis=1).astype(dtype)
    forces = -slopes[0].reshape(positions.shape).astype(dtype)
    virial = (slopes[1] + slopes[1].T).astype(dtype) / 2 if system.periodic else None
    return energy, forces, virial
