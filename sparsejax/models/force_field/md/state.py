"""The state of a run, and what is read off it: kinetic energy, temperature, pressure."""

from __future__ import annotations

from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.models.force_field.md.system import System
from sparsejax.models.force_field.md.units import BOLTZMANN


@flax.struct.dataclass
class MDState:
    """Everything that changes in a run of g copies of b atoms, but its neighbour list.

    Attributes:
      step: () int32 steps done; -1 before the forces at the start are known.
      positions: (g, b, 3) A, never folded back into the cell.
      velocities: (g, b, 3) A per unit of time (`units.FEMTOSECOND`).
      forces: (g, b, 3) eV/A.
      energy: (g,) potential energies, eV.
      virial: (3, 3) strain derivative of the energy, eV; None without a volume.
      cell: (3, 3) A; None of molecules.
      memory: what else the integrator carries from step to step.
    """

    step: jax.Array
    positions: jax.Array
    velocities: jax.Array
    forces: jax.Array
    energy: jax.Array
    virial: jax.Array | None
    cell: jax.Array | None
    memory: Any


class Integrator(Protocol):
    """The two halves of a step around the one evaluation of energy and forces at its end.

    An integrator is a flax dataclass: its numbers are arrays, so that another temperature or time step
    compiles nothing.
    """

    def memory(self, state: MDState, system: System) -> Any:
        """What `MDState.memory` is before the first step."""

    def move(self, state: MDState, system: System) -> MDState:
        """Everything up to the new positions and cell; forces and energy are still the old ones."""

    def finish(self, state: MDState, system: System) -> MDState:
        """The rest of the step, with forces and energy of the new positions."""

    def conserved(self, state: MDState, system: System) -> jax.Array:
        """(g,) eV, constant but for the error of the time step."""

    def finished(self, state: MDState) -> jax.Array:
        """() bool: whether there is nothing left to do."""


def doubled_kinetic(velocities: jax.Array, masses: jax.Array) -> jax.Array:
    """Twice the kinetic energies (g,), eV."""
    return (masses * velocities**2).sum(axis=(1, 2))


def kinetic_energy(state: MDState, system: System) -> jax.Array:
    """(g,) eV."""
    return doubled_kinetic(state.velocities, system.masses) / 2


def temperature(state: MDState, system: System) -> jax.Array:
    """(g,) K, over the degrees of freedom of the system."""
    return doubled_kinetic(state.velocities, system.masses) / (system.freedom * BOLTZMANN)


def volume(cell: jax.Array) -> jax.Array:
    """() A^3."""
    return jnp.abs(jnp.linalg.det(cell))


def stress(state: MDState, system: System) -> jax.Array:
    """(3, 3) eV/A^3, tension positive, with what the motion of the atoms adds.

    Raises:
      ValueError: the system has no volume.
    """
    if state.virial is None or state.cell is None:
        raise ValueError("the stress needs a cell that is periodic in all three directions")
    flow = jnp.einsum("gai,gaj,ak->ij", state.velocities, state.velocities, system.masses)
    return (state.virial - flow) / volume(state.cell)


def pressure(state: MDState, system: System) -> jax.Array:
    """() eV/A^3, with what the motion of the atoms adds."""
    return -jnp.trace(stress(state, system)) / 3


def accelerations(state: MDState, system: System) -> jax.Array:
    """(g, b, 3) A per unit of time squared."""
    return state.forces / system.masses
