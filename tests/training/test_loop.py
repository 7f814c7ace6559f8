"""Rounds in compiled calls: what is computed, compiled, logged and saved."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.training import loop

GAIN = jnp.asarray(3.0)


def _advance(state, gain):
    key, total = state
    total = total + gain * jax.random.uniform(jax.random.fold_in(key, 1))
    return (jax.random.fold_in(key, 2), total), {"total": total}


def _start(seeds=4):
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    return loop.start_states(lambda key, gain: (key, 0 * gain), keys, GAIN)


def _run(at_most, start=0, stop=7, states=None, save_seconds=1e9):
    step = loop.compiled_rounds(_advance, at_most=at_most)
    rows, saved = [], []
    states = loop.run_rounds(
        _start() if states is None else states,
        lambda states, count: step(states, GAIN, count),
        start=start,
        stop=stop,
        at_most=at_most,
        on_records=lambda done, records: rows.append((done, records["total"])),
        save=lambda done, states: saved.append(done),
        save_seconds=save_seconds,
    )
    return states, rows, saved, step


def test_any_number_of_rounds_per_call_gives_the_same_bits():
    one, rows_of_one, _, _ = _run(1)
    three, rows_of_three, _, _ = _run(3)
    assert np.array_equal(one[1], three[1])
    assert [done for done, _ in rows_of_three] == [0, 3, 6]
    assert [len(rows) for _, rows in rows_of_three] == [3, 3, 1]
    assert np.array_equal(
        *(np.concatenate([row for _, row in rows]) for rows in (rows_of_one, rows_of_three))
    )


def test_a_shorter_last_call_compiles_nothing():
    assert _run(3)[3]._cache_size() == 1


def test_seeds_do_not_depend_on_their_number():
    many = _run(2)[0][1]
    few = _run(2, states=_start(2))[0][1]
    assert np.array_equal(many[:2], few)


def test_run_is_saved_when_the_time_has_come_and_at_the_end():
    assert _run(2)[2] == [7]
    assert _run(2, save_seconds=0)[2] == [2, 4, 6, 7]


def test_what_looks_at_the_states_can_end_the_run():
    saved = []
    ended = loop.run_rounds(
        jnp.zeros(()),
        lambda states, count: (states + count, jnp.zeros(count)),
        start=0,
        stop=9,
        at_most=2,
        on_records=lambda done, records: None,
        save=lambda done, states: saved.append(done),
        on_states=lambda done, states: done == 4,
    )
    assert (float(ended), saved) == (4, [4])


def test_stopping_and_going_on_gives_the_same_bits():
    states, rows, _, _ = _run(2, stop=4)
    states, later, _, _ = _run(2, start=4, states=states)
    whole, all_rows, _, _ = _run(2)
    assert np.array_equal(states[1], whole[1])
    assert np.array_equal(*(np.concatenate([row for _, row in found]) for found in (rows + later, all_rows)))


def test_mesh_of_more_devices_than_there_are_is_refused():
    assert loop.seed_mesh(1) is None
    with pytest.raises(ValueError, match="99 devices are asked for"):
        loop.seed_mesh(99)
    with pytest.raises(ValueError, match="^0 devices are asked for; at least 1 is needed$"):
        loop.seed_mesh(0)


def test_seeds_on_a_mesh_are_those_of_one_device():
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), (loop.SEED_AXIS,))
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    states = loop.start_states(lambda key, gain: (key, 0 * gain), keys, GAIN, mesh)
    states, records = loop.compiled_rounds(_advance, at_most=7, mesh=mesh)(states, GAIN, 7)
    assert np.array_equal(states[1], _run(7)[0][1])
    assert records["total"].shape == (7, 4)


def test_seeds_on_two_devices_are_those_of_one():
    program = (
        "import jax, jax.numpy as jnp, numpy as np\n"
        "from tests.training.test_loop import GAIN, _advance, loop\n"
        "found = []\n"
        "for devices in (1, 2):\n"
        "    mesh = loop.seed_mesh(devices)\n"
        "    keys = jax.vmap(jax.random.key)(jnp.arange(4))\n"
        "    states = loop.start_states(lambda key, gain: (key, 0 * gain), keys, GAIN, mesh)\n"
        "    states, records = loop.compiled_rounds(_advance, at_most=3, mesh=mesh)(states, GAIN, 3)\n"
        "    assert len(states[1].devices()) == devices\n"
        "    found.append(np.asarray(records['total']))\n"
        "assert found[0].shape == (3, 4) and np.array_equal(*found)\n"
        "try:\n"
        "    loop.start_states(lambda key, gain: (key, gain), keys[:3], GAIN, mesh)\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert ran.stdout.strip() == "3 seeds do not divide among 2 devices"
