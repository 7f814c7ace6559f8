"""Constant temperature without noise: a chain of Nose-Hoover thermostats.

The chain is our own forty lines: jax-md's steps take forces from positions alone, so that neither neighbour
list nor energy nor stress can be handed on, count the momentum that was removed as a degree of freedom, and
round the time step to float32.
"""

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

LINKS = 3
"""Thermostats in a chain: each after the first holds the one before it."""

_CUBE_ROOT = 2 ** (1 / 3)
_WEIGHTS = (1 / (2 - _CUBE_ROOT), -_CUBE_ROOT / (2 - _CUBE_ROOT), 1 / (2 - _CUBE_ROOT))
"""Yoshida's three steps of fourth order."""


@flax.struct.dataclass
class Chain:
    """A chain per copy.

    Attributes:
      position: (LINKS, g).
      momentum: (LINKS, g) eV times units of time.
    """

    position: jax.Array
    momentum: jax.Array


def resting_chain(copies: int, dtype: jnp.dtype) -> Chain:
    """A chain that has not acted yet."""
    return Chain(jnp.zeros((LINKS, copies), dtype), jnp.zeros((LINKS, copies), dtype))


def propagated(
    chain: Chain,
    doubled: jax.Array,
    masses: list[jax.Array],
    freedom: jax.Array | int,
    thermal: jax.Array,
    *,
    time: jax.Array,
) -> tuple[jax.Array, Chain]:
    """Let a chain act for a while.

    Args:
      chain: as it is.
      doubled: (g,) twice the kinetic energy of what it is coupled to, eV.
      masses: of the links, eV times units of time squared.
      freedom: degrees of freedom that it is coupled to.
      thermal: () Boltzmann's constant times the temperature, eV.
      time: () units of time.

    Returns:
      (g,) factor of the velocities; the chain afterwards.

    Source: M. E. Tuckerman et al., J. Phys. A 39, 5629 (2006), section 3.
    """

    def kicked(link: int, momentum: list[jax.Array], scale: jax.Array, time: jax.Array) -> jax.Array:
        push = doubled * scale**2 - freedom * thermal
        if link > 0:
            push = momentum[link - 1] ** 2 / masses[link - 1] - thermal
        if link + 1 == LINKS:
            return momentum[link] + time / 2 * push
        held = jnp.exp(-time / 4 * momentum[link + 1] / masses[link + 1])
        return (momentum[link] * held + time / 2 * push) * held

    def part(carry: tuple[jax.Array, Chain], time: jax.Array) -> tuple[tuple[jax.Array, Chain], None]:
        (scale, chain), momentum = carry, list(carry[1].momentum)
        for link in reversed(range(LINKS)):
            momentum[link] = kicked(link, momentum, scale, time)
        scale = scale * jnp.exp(-time * momentum[0] / masses[0])
        way = [time * p / q for p, q in zip(momentum, masses, strict=True)]
        for link in range(LINKS):
            momentum[link] = kicked(link, momentum, scale, time)
        return (scale, Chain(chain.position + jnp.stack(way), jnp.stack(momentum))), None

    # A loop of three: unrolled, it is hardly faster and takes seconds to compile.
    shares = time * jnp.asarray(_WEIGHTS, doubled.dtype)
    (scale, chain), _ = jax.lax.scan(part, (jnp.ones_like(doubled), chain), shares)
    return scale, chain


def chain_masses(freedom: jax.Array | int, thermal: jax.Array, period: jax.Array) -> list[jax.Array]:
    """Masses of a chain's links, eV times units of time squared; the first holds all degrees of freedom.

    Args:
      freedom: degrees of freedom that the chain is coupled to; (g,) or the same for all.
      thermal: () Boltzmann's constant times the temperature, eV.
      period: () units of time, of the chain's own swing.
    """
    other = thermal * period**2
    return [freedom * other] + [other] * (LINKS - 1)


def chain_energy(
    chain: Chain, masses: list[jax.Array], freedom: jax.Array | int, thermal: jax.Array
) -> jax.Array:
    """(g,) eV, what a chain adds to the conserved energy."""
    kinetic = sum(p**2 / (2 * q) for p, q in zip(chain.momentum, masses, strict=True))
    return kinetic + thermal * (freedom * chain.position[0] + chain.position[1:].sum(axis=0))


@flax.struct.dataclass
class NoseHoover:
    """Velocity Verlet between two half steps of a chain.

    Attributes:
      timestep: () units of time.
      thermal: () Boltzmann's constant times the temperature, eV.
      period: () units of time, of the thermostat's own swing; about a hundred steps.

    Source: G. J. Martyna, M. L. Klein and M. E. Tuckerman, J. Chem. Phys. 97, 2635 (1992).
    """

    timestep: jax.Array
    thermal: jax.Array
    period: jax.Array

    def memory(self, state: MDState, system: System) -> Chain:
        """A chain per copy, at rest."""
        return resting_chain(len(state.energy), state.energy.dtype)

    def move(self, state: MDState, system: System) -> MDState:
        """Half a step of the chain, half a kick, the way."""
        state = self._thermostated(state, system)
        velocities = state.velocities + self.timestep / 2 * accelerations(state, system)
        return replace(state, velocities=velocities, positions=state.positions + self.timestep * velocities)

    def finish(self, state: MDState, system: System) -> MDState:
        """The other half of the kick, half a step of the chain."""
        velocities = state.velocities + self.timestep / 2 * accelerations(state, system)
        return self._thermostated(replace(state, velocities=velocities), system)

    def conserved(self, state: MDState, system: System) -> jax.Array:
        """Energies of atoms and chains (g,), eV."""
        of_chain = chain_energy(state.memory, self._masses(system), system.freedom, self.thermal)
        return state.energy + kinetic_energy(state, system) + of_chain

    def finished(self, state: MDState) -> jax.Array:
        """Never by itself."""
        return jnp.zeros((), bool)

    def _masses(self, system: System) -> list[jax.Array]:
        return chain_masses(system.freedom, self.thermal, self.period)

    def _thermostated(self, state: MDState, system: System) -> MDState:
        doubled = doubled_kinetic(state.velocities, system.masses)
        masses, half = self._masses(system), self.timestep / 2
        scale, chain = propagated(state.memory, doubled, masses, system.freedom, self.thermal, time=half)
        return replace(state, velocities=state.velocities * scale[:, None, None], memory=chain)
