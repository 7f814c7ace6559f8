"""Constant energy: velocity Verlet."""

from __future__ import annotations

from dataclasses import replace

import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.models.force_field.md.state import MDState, accelerations, kinetic_energy
from sparsejax.models.force_field.md.system import System


@flax.struct.dataclass
class VelocityVerlet:
    """Newton's equations; conserves energy to the square of the time step and never drifts.

    Attributes:
      timestep: () units of time.

    Source: W. C. Swope et al., J. Chem. Phys. 76, 637 (1982).
    """

    timestep: jax.Array

    def memory(self, state: MDState, system: System) -> None:
        """None is needed."""

    def move(self, state: MDState, system: System) -> MDState:
        """Half a kick, then the way."""
        velocities = state.velocities + self.timestep / 2 * accelerations(state, system)
        return replace(state, velocities=velocities, positions=state.positions + self.timestep * velocities)

    def finish(self, state: MDState, system: System) -> MDState:
        """The other half of the kick."""
        return replace(state, velocities=state.velocities + self.timestep / 2 * accelerations(state, system))

    def conserved(self, state: MDState, system: System) -> jax.Array:
        """The total energies (g,), eV."""
        return state.energy + kinetic_energy(state, system)

    def finished(self, state: MDState) -> jax.Array:
        """Never by itself."""
        return jnp.zeros((), bool)
