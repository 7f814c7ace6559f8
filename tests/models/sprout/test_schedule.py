"""Neurons per token by step: the published numbers, buckets, arrays."""

from __future__ import annotations

import jax
import pytest

from sparsejax.models.sprout.schedule import bucketed_sparsity_schedule, sparsity_schedule, traced_top_k
from tests import golden

NAMES = ("d_ff", "initial_top_k", "final_top_k", "sparsity_warmup_steps")


@pytest.mark.golden("schedule")
def test_steps_are_those_published():
    arrays = golden.arrays("sprout", "schedule")
    for number, config in enumerate(golden.manifest("sprout")["schedule"]["config"]):
        top_k = sparsity_schedule(*(config[name] for name in NAMES))
        found = [top_k(int(step)) for step in arrays[f"c{number}_steps"]]
        assert [-1 if k is None else k for k in found] == arrays[f"c{number}_topk"].tolist()


@pytest.mark.parametrize(
    "arguments", [(2048, None, 512, 500), (64, 10, 48, 99), (64, 80, 16, 30), (64, 9, 9, 5)]
)
@pytest.mark.parametrize("buckets", [2, 5, 12])
def test_buckets_are_few_never_below_the_schedule_and_end_with_it(arguments, buckets):
    exact, rounded = sparsity_schedule(*arguments), bucketed_sparsity_schedule(*arguments, buckets=buckets)
    d_ff, _, final, steps = arguments
    found = [rounded(step) for step in range(steps + 2)]
    assert len(set(found)) <= buckets
    assert all((k or d_ff) >= (exact(step) or d_ff) for step, k in enumerate(found))
    if arguments[1] is None or arguments[1] > final:
        assert found[-1] == final
    room = (max(d_ff, final) - 1) // (buckets - 1) + 1
    assert all((k or d_ff) - (exact(step) or d_ff) <= room for step, k in enumerate(found))


def test_arrays_compile_once():
    top_k = traced_top_k(sparsity_schedule(64, None, 16, 20), 64)
    traces = []

    @jax.jit
    def step(k):
        traces.append(k)
        return k + 1

    assert [int(step(top_k(n))) for n in (0, 1, 10, 20, 99)] == [65, 62, 41, 17, 17]
    assert len(traces) == 1


def test_negative_numbers_are_refused():
    for place in range(4):
        arguments = [64, 32, 16, 10]
        arguments[place] = -1
        with pytest.raises(ValueError, match="must be at least 0"):
            sparsity_schedule(*arguments)
    with pytest.raises(ValueError, match="at least 1 bucket, not 0"):
        bucketed_sparsity_schedule(64, None, 16, 10, buckets=0)
    assert sparsity_schedule(64, None, 16, 0)(0) == 16
