"""Minimisation by the fast inertial relaxation engine."""

from __future__ import annotations

from dataclasses import replace

import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.models.force_field.md.state import MDState
from sparsejax.models.force_field.md.system import System

FIRST_STEP, LONGEST_STEP = 0.1, 1.0
PATIENCE, FASTER, SLOWER = 5, 1.1, 0.5
MIXING, LESS_MIXING = 0.1, 0.99


@flax.struct.dataclass
class Pace:
    """How fast each copy runs downhill.

    Attributes:
      velocities: (g, b, 3), of atoms of unit mass; those of the state stay zero, so that atoms rest.
      timestep: (g,).
      mixing: (g,) share of the velocity that is turned into the direction of the force.
      downhill: (g,) int32 steps since the copy last ran uphill.
    """

    velocities: jax.Array
    timestep: jax.Array
    mixing: jax.Array
    downhill: jax.Array


@flax.struct.dataclass
class Fire:
    """Atoms of unit mass that run downhill, are turned towards the force, and stop where it goes uphill.

    The constants are those of ASE's FIRE, and so are the steps. Copies are relaxed each at its own pace; one
    that has arrived rests.

    Attributes:
      fmax: () eV/A, largest force on an atom at which a copy has arrived.
      longest_move: () A, of all atoms of a copy together.

    Source: E. Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006).
    """

    fmax: jax.Array
    longest_move: jax.Array

    def memory(self, state: MDState, system: System) -> Pace:
        """The first pace."""
        like = state.energy
        return Pace(
            jnp.zeros_like(state.positions),
            jnp.full_like(like, FIRST_STEP),
            jnp.full_like(like, MIXING),
            jnp.zeros(like.shape, jnp.int32),
        )

    def move(self, state: MDState, system: System) -> MDState:
        """Adapt the pace, turn the velocities, go."""
        pace = _adapted(state)
        velocities = pace.velocities + _wide(pace.timestep) * state.forces
        way = _wide(pace.timestep) * velocities
        length = _norm(way)
        way = way * _wide(jnp.minimum(1, self.longest_move / jnp.where(length > 0, length, 1)))
        resting = _wide(largest_force(state) <= self.fmax)
        return replace(
            state,
            positions=jnp.where(resting, state.positions, state.positions + way),
            memory=replace(pace, velocities=jnp.where(resting, 0, velocities)),
        )

    def finish(self, state: MDState, system: System) -> MDState:
        """Nothing is left to do."""
        return state

    def conserved(self, state: MDState, system: System) -> jax.Array:
        """Nothing is conserved: the potential energies (g,), eV."""
        return state.energy

    def finished(self, state: MDState) -> jax.Array:
        """Whether all copies have arrived."""
        return (state.step >= 0) & (largest_force(state) <= self.fmax).all()


def largest_force(state: MDState) -> jax.Array:
    """(g,) eV/A, of the atom that is pulled most."""
    return jnp.sqrt((state.forces**2).sum(axis=-1).max(axis=-1))


def _adapted(state: MDState) -> Pace:
    """The pace after a look at whether the velocities point downhill."""
    pace: Pace = state.memory
    first = (pace.velocities == 0).all(axis=(1, 2))
    down = (state.forces * pace.velocities).sum(axis=(1, 2)) > 0
    force, speed = _norm(state.forces), _norm(pace.velocities)
    along = state.forces * _wide(speed / jnp.where(force > 0, force, 1))
    turned = (1 - _wide(pace.mixing)) * pace.velocities + _wide(pace.mixing) * along
    trusted = pace.downhill > PATIENCE
    faster = jnp.where(trusted, jnp.minimum(pace.timestep * FASTER, LONGEST_STEP), pace.timestep)
    return Pace(
        jnp.where(_wide(down), turned, 0),
        jnp.where(down, faster, jnp.where(first, pace.timestep, pace.timestep * SLOWER)),
        jnp.where(down, jnp.where(trusted, pace.mixing * LESS_MIXING, pace.mixing), MIXING),
        jnp.where(down, pace.downhill + 1, 0),
    )


def _norm(vectors: jax.Array) -> jax.Array:
    return jnp.sqrt((vectors**2).sum(axis=(1, 2)))


def _wide(of_copies: jax.Array) -> jax.Array:
    return of_copies[:, None, None]
