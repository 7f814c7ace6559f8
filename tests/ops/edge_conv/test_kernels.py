"""The kernels lower for hardware that this machine need not have, and put no filter into memory."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import ShapeDtypeStruct

from sparsejax.ops.edge_conv import Edges, edge_conv, kernel, pairs_of_rows
from tests.ops.edge_conv import problems
from tests.ops.lowering import TARGETS, kernels_in


def _arguments(nodes, slots, channels, kind, vectors):
    """Shapes of what the op takes."""
    rows = (ShapeDtypeStruct((nodes, slots), dtype) for dtype in (jnp.int32, jnp.int32, jnp.bool_))
    layout = jax.eval_shape(pairs_of_rows, *rows)
    pairs = layout.first.shape
    edges = Edges(*(ShapeDtypeStruct((*pairs, *more), jnp.float32) for more in ((), (3,))), layout.real)
    radial_filter = problems.perceptron(3 if vectors else 2, channels=channels)
    if kind == "table":
        radial_filter = problems.tabulate(radial_filter, 16)
    radial_filter = jax.tree.map(lambda leaf: ShapeDtypeStruct(leaf.shape, leaf.dtype), radial_filter)
    features = [ShapeDtypeStruct((nodes, *more, channels), jnp.float32) for more in ((), (3,))]
    return features[0], features[1] if vectors else None, edges, radial_filter, layout


def _loss(scalars, rest, backend="pallas"):
    return sum((part**2).sum() for part in edge_conv(scalars, *rest, backend=backend))


# nodes, slots, channels, filter, whether vectors come in
CASES = [(21, 20, 128, "table", True), (5, 7, 64, "mlp", False), (40, 3, 32, "mlp", True)]


@pytest.mark.parametrize("platform", TARGETS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradient_hold_a_kernel_each(platform, case):
    scalars, *rest = _arguments(*case)
    assert kernels_in(platform, jax.grad(_loss, 0), scalars, rest) == 2


@pytest.mark.parametrize(
    ("backend", "in_memory"), [("pallas_gpu", False), ("pallas_tpu", False), ("xla", True)]
)
def test_a_table_is_looked_up_inside_the_kernels(backend, in_memory):
    scalars, *rest = _arguments(21, 20, 32, "table", True)
    of_pairs = (*rest[-1].first.shape, 32)
    results = [
        variable
        for equation in problems.equations(partial(_loss, backend=backend), scalars, rest)
        for variable in equation.outvars
        if variable.aval.shape == of_pairs
    ]
    assert bool(results) == in_memory


def test_the_interval_of_a_distance_is_that_of_the_table():
    distances = jnp.array([0.0, 0.9, 1.0, 3.99, 4.0, 7.0])
    number, place = kernel.in_table(distances, 8, 4.0)
    assert number.tolist() == [0, 1, 2, 7, 7, 7]
    assert place.tolist() == pytest.approx([0, 0.8, 0, 0.98, 1, 7], abs=1e-6)
