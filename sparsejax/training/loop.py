"""Rounds of several seeds in one compiled call, and the Python loop over such calls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparsejax.training.processes import agreed, connect, gathered
from sparsejax.training.sharding import first_devices

Advance = Callable[[Any, Any], tuple[Any, Any]]
"""One round of one seed: (state, data) -> (state, record); pure."""

SEED_AXIS = "seeds"


def start_states(
    init: Callable[[jax.Array, Any], Any], keys: jax.Array, data: Any, mesh: Mesh | None = None
) -> Any:
    """The states before the first round, in one compiled call.

    Args:
      init: state of one seed from its key and the data; pure.
      keys: (seeds,) PRNG keys.
      data: what every seed learns from; a pytree of arrays.
      mesh: devices to spread the seeds over; None keeps them on the default device.

    Returns:
      the states, the seeds as the leading axis of every array.

    Raises:
      ValueError: the seeds do not divide among the devices of the mesh.
    """
    states = jax.jit(jax.vmap(init, (0, None)))(keys, data)
    # Placed as a restored state is, and no longer weakly typed: else the loop would be compiled twice.
    states = jax.tree.map(_strong, states)
    if mesh is None:
        return jax.device_put(states, jax.devices()[0])
    connect(mesh)
    return jax.jit(lambda same: same, out_shardings=seed_sharding(mesh, len(keys)))(states)


def seed_mesh(devices: int) -> Mesh | None:
    """A mesh of the first ``devices`` devices; None for one.

    Raises:
      ValueError: there are not so many, or a process of the job has none of them.
    """
    if devices < 1:
        raise ValueError(f"{devices} devices are asked for; at least 1 is needed")
    chosen = first_devices(devices, str(devices))
    return None if devices == 1 else Mesh(np.asarray(chosen), (SEED_AXIS,))


def seed_sharding(mesh: Mesh, seeds: int) -> NamedSharding:
    """Seeds, the leading axis, spread over a mesh.

    Raises:
      ValueError: they do not divide among the devices.
    """
    if seeds % mesh.size:
        raise ValueError(f"{seeds} seeds do not divide among {mesh.size} devices")
    return NamedSharding(mesh, PartitionSpec(SEED_AXIS))


def compiled_rounds(advance: Advance, *, at_most: int, mesh: Mesh | None = None) -> Callable[..., Any]:
    """One program for any number of rounds up to ``at_most``, all seeds side by side.

    Several rounds per call keep the cost of a call small beside that of its rounds. The number is a traced
    argument, so that the last, shorter call compiles nothing and computes what a longer one would.

    Args:
      advance: one round of one seed.
      at_most: rounds that a call's records have room for.
      mesh: devices that the seeds are spread over.

    Returns:
      ``step(states, data, count) -> (states, records)``; the states given are donated, their memory is
      reused. Records have the axes (at_most, seeds, ...); rows from ``count`` on are zero.

    Example:
      >>> step = compiled_rounds(lambda state, gain: (state + gain, state), at_most=3)
      >>> states, records = step(jnp.zeros(2), jnp.asarray(0.5), 2)
      >>> states.tolist(), records[:, 0].tolist()
      ([1.0, 1.0], [0.0, 0.5, 0.0])
    """
    side_by_side = jax.vmap(advance, (0, None))

    def rounds(states: Any, data: Any, count: jax.Array) -> tuple[Any, Any]:
        like = jax.eval_shape(side_by_side, states, data)[1]
        room = jax.tree.map(lambda leaf: jnp.zeros((at_most, *leaf.shape), leaf.dtype), like)

        def body(number: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            states, records = carry
            states, record = side_by_side(states, data)
            return states, jax.tree.map(lambda rows, row: rows.at[number].set(row), records, record)

        carried: tuple[Any, Any] = jax.lax.fori_loop(0, count, body, (states, room))
        return carried

    if mesh is not None:
        spread, whole = PartitionSpec(SEED_AXIS), PartitionSpec()
        rounds = jax.shard_map(
            rounds,
            mesh=mesh,
            in_specs=(spread, whole, whole),
            out_specs=(spread, PartitionSpec(None, SEED_AXIS)),
            check_vma=False,
        )
    return jax.jit(rounds, donate_argnums=0)


def run_rounds(
    states: Any,
    step: Callable[[Any, int], tuple[Any, Any]],
    *,
    start: int,
    stop: int,
    at_most: int,
    on_records: Callable[[int, Any], None],
    save: Callable[[int, Any], None],
    save_seconds: float = math.inf,
    save_rounds: float = math.inf,
    on_states: Callable[[int, Any], bool | None] | None = None,
) -> Any:
    """Call a compiled step until all rounds are done; log after every call, save now and then.

    Args:
      states: after ``start`` rounds.
      step: (states, count) -> (states, records): `compiled_rounds` with its data, or
        `sparsejax.training.gradient_step.compiled_steps` with its batches.
      start: rounds done.
      stop: rounds in all.
      at_most: rounds per call.
      on_records: takes the rounds done before the call and its records, as NumPy arrays (count, seeds, ...).
      save: takes the rounds done and the states; called when ``save_seconds`` have passed or
        ``save_rounds`` been done since the last time, and at the end.
      save_seconds: 0 saves after every call.
      save_rounds: a multiple of ``at_most``, else a save comes after the call that completes them.
      on_states: takes the rounds done and the states after every call, before they are saved; True ends the
        run there.

    Returns:
      the states after ``stop`` rounds, or those of the end.
    """
    done, saved, saved_at = start, start, time.monotonic()
    while done < stop:
        count = min(at_most, stop - done)
        states, records = step(states, count)
        on_records(done, jax.tree.map(partial(_rows, count=count), jax.device_get(gathered(records))))
        done += count
        if on_states is not None and on_states(done, states):
            stop = done
        late = save_seconds < math.inf and agreed(time.monotonic() - saved_at >= save_seconds)
        if done == stop or done - saved >= save_rounds or late:
            save(done, states)
            saved, saved_at = done, time.monotonic()
    return states


def _rows(record: np.ndarray, count: int) -> np.ndarray:
    return record[:count]


def _strong(leaf: jax.Array) -> jax.Array:
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.astype(leaf.dtype)
