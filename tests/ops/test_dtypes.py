"""Sums of 16-bit numbers are float32, those of float64 stay what they are."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.flat_matmul import flat_dot_general, wide_matmul


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (("bfloat16",), "float32"),
        (("bfloat16", "float16"), "float32"),
        (("float16", "float64"), "float64"),
        (("int8", "float32"), "float32"),
    ],
)
def test_sums_have_float32_at_least(dtypes, expected):
    assert accumulator(*map(jnp.dtype, dtypes)) == expected


def test_products_of_16_bits_are_summed_and_given_in_float32():
    inputs = jnp.full((2, 1, 300), 1.0, jnp.bfloat16)
    kernel = jnp.ones((300, 1), jnp.bfloat16)
    assert wide_matmul(inputs, kernel).tolist() == [[[300.0]], [[300.0]]]  # bfloat16 would count to 256
    assert wide_matmul(inputs, kernel).dtype == jnp.float32
    uneven = wide_matmul(inputs + 0.001, kernel.astype(jnp.float32), dtype=jnp.bfloat16)
    assert uneven.tolist() == [[[300.0]], [[300.0]]] and uneven.dtype == jnp.float32


def test_other_products_than_those_of_layers_are_refused():
    inputs, kernel = jnp.ones((2, 3)), jnp.ones((2, 5))
    with pytest.raises(ValueError, match="only a product over the last axis can be flattened, not"):
        flat_dot_general(inputs, kernel, (((0,), (0,)), ((), ())))
