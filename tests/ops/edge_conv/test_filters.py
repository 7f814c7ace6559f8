"""Filters by formula and by table; slopes are exact, and cost nothing on the way back."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.edge_conv import MLPFilter, TableFilter, edge_conv, evaluate, table_error, tabulate
from sparsejax.ops.edge_conv.filters import cosine_envelope, slopes
from tests.ops.edge_conv import problems

# Channels, radial functions, and where the envelope is.
SIZES = {
    "original": (128, 20, "filter"),
    "tiny": (64, 12, "radial"),
    "ultra-tiny": (32, 10, "filter"),
}
DISTANCES = np.linspace(0.3, 4.4, 9, dtype=np.float32)  # the last ones beyond the cutoff


@pytest.mark.parametrize("envelope", ["radial", "filter"])
def test_a_perceptron_is_its_formula(envelope):
    radial_filter = problems.perceptron(3, envelope=envelope)
    found = jax.jit(MLPFilter.values)(radial_filter, DISTANCES)
    problems.assert_close(found, problems.values(radial_filter, DISTANCES.astype(np.float64)), 1e-6)
    for part, (_, bias) in zip(found, radial_filter.outputs, strict=True):
        beyond = part[DISTANCES > problems.CUTOFF]
        if envelope == "filter":
            assert not beyond.any()
        else:  # published: what the perceptron makes of nothing
            assert jnp.ptp(beyond, 0).max() == 0 and jnp.abs(beyond - bias).max() > 0.01


def test_the_envelope_falls_from_one_to_zero():
    found = cosine_envelope(jnp.array([0.0, 1.0, 2.0, 3.0, 4.0, 9.0]), 4.0)
    np.testing.assert_allclose(found, [1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 0, 0], atol=1e-7)


@pytest.mark.parametrize("size", SIZES)
def test_tables_of_the_published_sizes_are_exact_enough(size):
    channels, radial, envelope = SIZES[size]
    for seed in range(2):
        radial_filter = problems.perceptron(
            3, channels=channels, radial=radial, cutoff=5.0, seed=seed, envelope=envelope
        )
        error = table_error(tabulate(radial_filter), radial_filter)
        assert error.values < 1e-6 and error.slopes < 1e-5


def test_a_bad_table_is_noticed():
    radial_filter = problems.perceptron(3)
    table = tabulate(radial_filter, 512)
    constant, *rest = table.coefficients[1]
    bent = constant.at[300, 2].add(1e-4 * jnp.abs(constant).max())
    broken = TableFilter((table.coefficients[0], (bent, *rest), table.coefficients[2]), table.cutoff)
    assert table_error(broken, radial_filter).values == pytest.approx(1e-4, rel=0.1)
    coarse = table_error(tabulate(radial_filter, 16), radial_filter)
    assert coarse.values > 1e-5 and coarse.slopes > 1e-3


def test_coefficients_do_not_depend_on_what_jax_is_set_to():
    radial_filter = problems.perceptron(2, channels=32, radial=10, cutoff=5.0)
    narrow = tabulate(radial_filter, 64)
    with jax.enable_x64(True):
        wide = tabulate(radial_filter, 64)
    for mine, its in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        assert mine.dtype == its.dtype == jnp.float32
        np.testing.assert_array_equal(mine, its)


def test_intervals_of_a_table_meet_in_value_slope_and_curvature():
    table = tabulate(problems.perceptron(3), 32)
    for a, b, c, d in jax.tree.map(np.asarray, table.coefficients):
        scale = 1e-6 * np.abs(a).max()
        np.testing.assert_allclose((a + b + c + d)[:-1], a[1:], rtol=0, atol=scale)
        np.testing.assert_allclose((b + 2 * c + 3 * d)[:-1], b[1:], rtol=0, atol=scale)
        np.testing.assert_allclose((c + 3 * d)[:-1], c[1:], rtol=0, atol=scale)


@pytest.mark.parametrize("kind", ["mlp", "table"])
def test_slopes_are_differences_of_values(kind):
    with jax.enable_x64(True):
        radial_filter = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), problems.perceptron(3))
        radial_filter = tabulate(radial_filter, 32) if kind == "table" else radial_filter
        places = jnp.asarray(DISTANCES, jnp.float64)
        found = problems.compiled(slopes, radial_filter, places)(radial_filter, places)
        run = problems.compiled(type(radial_filter).values, radial_filter, places)
        above, below = (run(radial_filter, places + step) for step in (1e-6, -1e-6))
    differences = [
        (np.asarray(more) - np.asarray(less)) / 2e-6 for more, less in zip(above, below, strict=True)
    ]
    problems.assert_close(found, differences, 1e-8)


def test_the_gradient_is_that_of_the_values_for_weights_and_for_distances():
    radial_filter, mask = problems.perceptron(3), jnp.arange(len(DISTANCES)) % 3 > 0

    def gradients(parts_of, radial_filter, distances):
        def loss(radial_filter, distances):
            parts = parts_of(radial_filter, distances)
            return sum((jnp.cos(number + part) * part).sum() for number, part in enumerate(parts))

        return [jax.grad(loss, which)(radial_filter, distances) for which in (0, 1)]

    def plain(radial_filter, distances):
        return [jnp.where(mask[:, None], part, 0) for part in radial_filter.values(distances)]

    def both(*given):
        return gradients(partial(evaluate, mask=mask), *given), gradients(plain, *given)

    found, wanted = problems.compiled(both, radial_filter, DISTANCES)(radial_filter, DISTANCES)
    problems.assert_close(found, wanted, 1e-6)
    assert not found[1][~mask].any()


def _products_over_edges(equations):
    """Rows of all products of an array by a matrix of weights."""
    products = [equation for equation in equations if equation.primitive.name == "dot_general"]
    plain = [product for product in products if not product.params["dimension_numbers"][1][0]]
    return [product.invars[0].aval.shape[0] for product in plain]


@pytest.mark.parametrize(
    ("backend", "rows", "forward", "backward"),
    [
        # The reference computes the hidden layer and three parts both ways, and as many products going back.
        ("reference", 2, 4, 4),
        # The others compute slopes beside values, and go back with nothing.
        ("xla", 1, 8, 0),
        ("pallas_gpu", 1, 8, 0),
    ],
)
def test_filters_are_computed_once_per_pair_and_need_no_product_on_the_way_back(
    backend, rows, forward, backward
):
    given, layout, of_back = problems.inputs("mlp"), problems.layout_of(), []

    def energy_and_way_back(positions):
        def energy(positions):
            convolve = partial(edge_conv, backend=backend)
            return problems.energy(given._replace(positions=positions), layout, convolve)[0]

        value, back = jax.vjp(energy, positions)
        of_back.extend(_products_over_edges(problems.equations(back, jnp.ones(()))))
        return value

    found = _products_over_edges(problems.equations(energy_and_way_back, given.positions))
    assert found == [rows * len(layout.first)] * forward
    assert of_back == [rows * len(layout.first)] * backward


def test_a_table_goes_on_beyond_its_end():
    powers = tuple(jnp.full((2, 1), value) for value in (1.0, 2.0, 0.0, 0.0))
    assert TableFilter((powers,), cutoff=4.0).values(jnp.array([3.0, 6.0]))[0].tolist() == [[2.0], [5.0]]
