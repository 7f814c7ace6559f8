"""Constant temperature by friction and noise: the BAOAB splitting of Langevin's equation."""

from __future__ import annotations

from dataclasses import replace

import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.models.force_field.md.state import (
    MDState,
    accelerations,
    doubled_kinetic,
    kinetic_energy,
)
from sparsejax.models.force_field.md.system import System


@flax.struct.dataclass
class Langevin:
    """Kick, half the way, friction and noise, half the way, kick.

    All 3 b degrees of freedom are coupled, those of the centre of mass, too. The noise of a step depends on
    the key and the number of the step alone, so that a run that was stopped goes on as if it had not been.

    Attributes:
      timestep: () units of time.
      thermal: () Boltzmann's constant times the temperature, eV.
      friction: () per unit of time.
      key: PRNG key of the run.

    Source: B. Leimkuhler and C. Matthews, J. Chem. Phys. 138, 174102 (2013).
    """

    timestep: jax.Array
    thermal: jax.Array
    friction: jax.Array
    key: jax.Array

    def memory(self, state: MDState, system: System) -> jax.Array:
        """Heat that the bath has given so far (g,), eV: none."""
        return jnp.zeros_like(state.energy)

    def move(self, state: MDState, system: System) -> MDState:
        """Half a kick, half the way, the bath, the other half of the way."""
        half = self.timestep / 2
        before = state.velocities + half * accelerations(state, system)
        positions = state.positions + half * before
        noise = jax.random.normal(jax.random.fold_in(self.key, state.step), before.shape, before.dtype)
        kept = jnp.exp(-self.friction * self.timestep)
        spread = jnp.sqrt(-jnp.expm1(-2 * self.friction * self.timestep) * self.thermal / system.masses)
        after = kept * before + spread * noise
        gained = doubled_kinetic(after, system.masses) - doubled_kinetic(before, system.masses)
        return replace(
            state, positions=positions + half * after, velocities=after, memory=state.memory + gained / 2
        )

    def finish(self, state: MDState, system: System) -> MDState:
        """The other half of the kick."""
        return replace(state, velocities=state.velocities + self.timestep / 2 * accelerations(state, system))

    def conserved(self, state: MDState, system: System) -> jax.Array:
        """Total energies less the heat from the bath (g,), eV."""
        return state.energy + kinetic_energy(state, system) - state.memory

    def finished(self, state: MDState) -> jax.Array:
        """Never by itself."""
        return jnp.zeros((), bool)
