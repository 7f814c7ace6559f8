"""The compiled loop: many steps in one call, neighbour lists and records kept on the device."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.models.force_field import neighbors_jit
from sparsejax.models.force_field.md.observers import Observers, observe
from sparsejax.models.force_field.md.state import Integrator, MDState
from sparsejax.models.force_field.md.system import System, evaluate
from sparsejax.models.force_field.neighbors_jit import NeighborState


def guarded_step(
    state: MDState, lists: NeighborState, system: System, integrator: Integrator
) -> tuple[MDState, NeighborState]:
    """One step; nothing happens to the state if the neighbour list overflows.

    The first call, at step -1, moves nothing: it finds the forces at the start, by the same compiled
    evaluation as all others.

    Args:
      state: before the step.
      lists: of these or earlier positions.
      system: of g copies of b atoms.
      integrator: what a step is.

    Returns:
      the state after the step, or the same one if ``lists.overflow``; the lists.
    """
    fresh = state.step < 0
    moved = _chosen(fresh, state, integrator.move(state, system))
    lists = neighbors_jit.update(lists, moved.positions.reshape(-1, 3), moved.cell)
    energy, forces, virial = evaluate(system, moved.positions, moved.cell, lists.neighbors)
    known = replace(moved, energy=energy, forces=forces, virial=virial)
    done = _chosen(fresh, known, integrator.finish(known, system))
    return _chosen(lists.overflow, state, replace(done, step=state.step + 1)), lists


@partial(jax.jit, static_argnames=("room", "observers"), donate_argnames=("state", "lists"))
def advance(
    state: MDState,
    lists: NeighborState,
    system: System,
    integrator: Integrator,
    *,
    until: jax.Array,
    every: jax.Array,
    room: int,
    observers: Observers,
) -> tuple[MDState, NeighborState, dict[str, Any], jax.Array]:
    """Steps until a given one, or until all is done, a list overflows or an energy is not finite.

    One program serves any number of steps, so that where a run is cut into calls does not change its numbers.

    Args:
      state: donated.
      lists: donated.
      system: of g copies of b atoms.
      integrator: what a step is.
      until: () int32, step to reach.
      every: () int32, steps between two records.
      room: records that there may be; ``(until - step) // every + 2`` or more.
      observers: names and functions, beside what is recorded in any case.

    Returns:
      state; lists; records with a leading axis of ``room``; how many of them there are.
    """

    def look(state: MDState) -> dict[str, Any]:
        return observe(state, system, integrator, observers)

    def going(carry: tuple) -> jax.Array:
        state, lists, _, _ = carry
        sound = jnp.isfinite(state.energy).all()
        return (state.step < until) & ~lists.overflow & sound & ~integrator.finished(state)

    def body(carry: tuple) -> tuple:
        before, lists, records, count = carry
        state, lists = guarded_step(before, lists, system, integrator)
        due = (state.step > before.step) & ((state.step % every == 0) | integrator.finished(state))
        record = jax.lax.cond(due, look, lambda _: empty, state)
        records = jax.tree.map(lambda rows, row: rows.at[count].set(row), records, record)
        return state, lists, records, count + due

    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(look, state))
    # Rows that are not due are written, too, over each other: the last row is never counted.
    records = jax.tree.map(lambda leaf: jnp.zeros((room, *leaf.shape), leaf.dtype), empty)
    count = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(going, body, (state, lists, records, count))


def _chosen(condition: jax.Array, yes: MDState, no: MDState) -> MDState:
    return jax.tree.map(partial(jnp.where, condition), yes, no)
