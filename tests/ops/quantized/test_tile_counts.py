"""The time of a product grows with what is read, and few tokens take both cores."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.quantized import QuantizedFFN, quantized_matmul, sparse_quantized_ffn

COLUMNS, NEURONS = 2048, 2048
FEW, MORE = 24, 48


@pytest.mark.parametrize("name", ["q8_0", "q4_k"])
def test_half_of_the_tiles_takes_less_time(matrix, name):
    """Sums of few tiles were once made in one loop with the products, which took four times as long."""
    rows, columns = matrix(name, NEURONS, COLUMNS), matrix(name, COLUMNS, NEURONS, order="columns")
    weights, inputs = QuantizedFFN(rows, columns, rows), jnp.ones((1, COLUMNS))
    run = jax.jit(sparse_quantized_ffn)
    calls = {count: np.arange(count, dtype=np.int32) for count in (FEW, MORE)}
    best = dict.fromkeys(calls, np.inf)
    for _ in range(30):
        for count, tiles in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(run(inputs, weights, tiles))
            best[count] = min(best[count], time.perf_counter() - start)
    assert best[FEW] < 1.25 * best[MORE]


def test_few_tokens_are_multiplied_side_by_side(matrix):
    """A loop over tokens keeps to one core: 2 tokens took twenty times as long as one."""
    rows, columns = matrix("q8_0", 64, 64), matrix("q8_0", 64, 64, order="columns")
    weights, inputs, own = QuantizedFFN(rows, columns, rows), jnp.ones((8, 64)), jnp.zeros((8, 1), jnp.int32)
    programs = [
        jax.make_jaxpr(quantized_matmul)(inputs, rows),
        *(jax.make_jaxpr(sparse_quantized_ffn)(inputs, weights, tiles) for tiles in (own[0], own)),
    ]
    assert not any("scan" in str(program) or "while" in str(program) for program in programs)
