"""Constant temperature and pressure: the isotropic barostat of Martyna, Tobias and Klein."""

from __future__ import annotations

from dataclasses import replace

import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.models.force_field.md.nose_hoover import (
    Chain,
    chain_energy,
    chain_masses,
    propagated,
    resting_chain,
)
from sparsejax.models.force_field.md.state import (
    MDState,
    accelerations,
    doubled_kinetic,
    kinetic_energy,
    volume,
)
from sparsejax.models.force_field.md.system import System


@flax.struct.dataclass
class Piston:
    """The size of the cell as a particle.

    Attributes:
      momentum: (1,) of the logarithm of the cell's edge, eV times units of time.
      thermostat: chain that holds the temperature of the atoms.
      barostat: chain that holds that of the piston.
    """

    momentum: jax.Array
    thermostat: Chain
    barostat: Chain


@flax.struct.dataclass
class NosePressure:
    """Atoms and the size of their cell, each with a Nose-Hoover chain; the shape of the cell stays.

    Attributes:
      timestep: () units of time.
      thermal: () Boltzmann's constant times the temperature, eV.
      period: () units of time, of the thermostat; about a hundred steps.
      pressure: () eV/A^3, from outside.
      pressure_period: () units of time, of the piston; about a thousand steps.

    Source: G. J. Martyna, D. J. Tobias and M. L. Klein, J. Chem. Phys. 101, 4177 (1994); the order of the
    steps is that of M. E. Tuckerman et al., J. Phys. A 39, 5629 (2006).
    """

    timestep: jax.Array
    thermal: jax.Array
    period: jax.Array
    pressure: jax.Array
    pressure_period: jax.Array

    def memory(self, state: MDState, system: System) -> Piston:
        """A piston at rest."""
        dtype = state.energy.dtype
        return Piston(jnp.zeros(1, dtype), resting_chain(1, dtype), resting_chain(1, dtype))

    def move(self, state: MDState, system: System) -> MDState:
        """Chains, piston and atoms up to the new positions and cell."""
        state = self._thermostated(self._piston_held(state, system), system)
        state = self._kicked(self._piston_pushed(state, system), system)
        growth = self.timestep * self._rate(state, system)
        way = self.timestep * state.velocities * _mean_exp(growth)
        assert state.cell is not None
        return replace(
            state, positions=state.positions * jnp.exp(growth) + way, cell=state.cell * jnp.exp(growth)
        )

    def finish(self, state: MDState, system: System) -> MDState:
        """The same in reverse order, with the new forces."""
        state = self._piston_pushed(self._kicked(state, system), system)
        return self._piston_held(self._thermostated(state, system), system)

    def conserved(self, state: MDState, system: System) -> jax.Array:
        """Energies of atoms, piston, chains and volume (1,), eV."""
        piston: Piston = state.memory
        chains = chain_energy(piston.thermostat, self._masses(system), system.freedom, self.thermal)
        chains += chain_energy(piston.barostat, self._piston_masses(), 1, self.thermal)
        own = piston.momentum**2 / (2 * self._inertia(system)) + self.pressure * _volume(state)
        return state.energy + kinetic_energy(state, system) + chains + own

    def finished(self, state: MDState) -> jax.Array:
        """Never by itself."""
        return jnp.zeros((), bool)

    def _inertia(self, system: System) -> jax.Array:
        return (system.freedom + 3) * self.thermal * self.pressure_period**2

    def _rate(self, state: MDState, system: System) -> jax.Array:
        return state.memory.momentum[0] / self._inertia(system)

    def _masses(self, system: System) -> list[jax.Array]:
        return chain_masses(system.freedom, self.thermal, self.period)

    def _piston_masses(self) -> list[jax.Array]:
        return chain_masses(9, self.thermal, self.pressure_period)

    def _piston_held(self, state: MDState, system: System) -> MDState:
        piston: Piston = state.memory
        doubled, masses = piston.momentum**2 / self._inertia(system), self._piston_masses()
        scale, chain = propagated(piston.barostat, doubled, masses, 1, self.thermal, time=self.timestep / 2)
        return replace(state, memory=replace(piston, momentum=piston.momentum * scale, barostat=chain))

    def _thermostated(self, state: MDState, system: System) -> MDState:
        piston: Piston = state.memory
        doubled, masses = doubled_kinetic(state.velocities, system.masses), self._masses(system)
        time = self.timestep / 2
        scale, chain = propagated(piston.thermostat, doubled, masses, system.freedom, self.thermal, time=time)
        return replace(
            state,
            velocities=state.velocities * scale[:, None, None],
            memory=replace(piston, thermostat=chain),
        )

    def _piston_pushed(self, state: MDState, system: System) -> MDState:
        assert state.virial is not None
        doubled = doubled_kinetic(state.velocities, system.masses)
        inside = (1 + 3 / system.freedom) * doubled - jnp.trace(state.virial)
        push = inside - 3 * self.pressure * _volume(state)
        momentum = state.memory.momentum + self.timestep / 2 * push
        return replace(state, memory=replace(state.memory, momentum=momentum))

    def _kicked(self, state: MDState, system: System) -> MDState:
        slowing = (1 + 3 / system.freedom) * self._rate(state, system) * self.timestep / 2
        kick = self.timestep / 2 * accelerations(state, system) * _mean_exp(-slowing)
        return replace(state, velocities=state.velocities * jnp.exp(-slowing) + kick)


def _volume(state: MDState) -> jax.Array:
    assert state.cell is not None  # the driver refuses molecules
    return volume(state.cell)


def _mean_exp(x: jax.Array) -> jax.Array:
    """``(exp(x) - 1) / x``, and 1 at 0."""
    safe = jnp.where(x == 0, 1, x)
    return jnp.where(x == 0, 1, jnp.expm1(safe) / safe)
