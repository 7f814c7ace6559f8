"""Peers compute what we compute: expansions column by column, networks on every layout."""

from __future__ import annotations

import importlib.util

import jax
import numpy as np
import pytest

from sparsejax.bench.peers import numba_net, numpy_net, torch_net
from sparsejax.bench.peers import numpy_expansion as expansion
from sparsejax.bench.peers.weights import dense_weights, sparse_weights
from sparsejax.models.ultra_sparse import DenseNet, UltraSparseNet, expand_input

X = np.random.default_rng(0).uniform(-6, 6, 300).astype(np.float32)
FEATURES = np.random.default_rng(1).uniform(-1, 1, (300, 256)).astype(np.float32)
needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")


@pytest.fixture(scope="module")
def sparse():
    net = UltraSparseNet()
    params = jax.jit(net.init)(jax.random.key(0), FEATURES[0])["params"]
    expected = np.asarray(net.apply({"params": params}, FEATURES))[:, 0]
    return sparse_weights(params), expected


@pytest.fixture(scope="module")
def dense():
    net = DenseNet()
    params = jax.jit(net.init)(jax.random.key(0), FEATURES[0])["params"]
    expected = np.asarray(net.apply({"params": params}, FEATURES))[:, 0]
    return dense_weights(params), expected


@pytest.mark.parametrize("batch", [1, 300])
@pytest.mark.parametrize("form", ["by_column", "by_group", "fast"])
def test_full_expansions_equal_ours(form, batch):
    function = {
        "by_column": expansion.expand_by_column,
        "by_group": expansion.expand_by_group,
        "fast": expansion.expand_fast(),
    }[form]
    # float32 arguments up to 60 leave 4e-6; the peers round as NumPy does, ours as the compiler likes.
    np.testing.assert_allclose(function(X[:batch]), expand_input(X[:batch]), atol=5e-6)


@pytest.mark.parametrize("batch", [1, 300])
@pytest.mark.parametrize(
    "columns", [range(256), (4, 15, 117), (146, 250, 60, 250)], ids=["all", "three", "mixed"]
)
def test_chosen_columns_equal_ours(columns, batch):
    expand, order = expansion.expand_columns(list(columns))
    assert sorted(order) == sorted(columns)
    expected = expand_input(X[:batch], columns=order.tolist()).T
    np.testing.assert_allclose(expand(X[:batch]), expected, atol=5e-6)


def test_float64_expansion_is_that_of_float64_constants():
    x = X.astype(np.float64)
    one = 3.7
    assert expansion.expand_by_group(x).dtype == np.float64
    f, p = expansion.constants("float64").f, expansion.constants("float64").p
    assert expansion.expand_by_group(np.array([one]))[0, 20] == pytest.approx(
        np.sin(one * f[4] + p[4]), abs=1e-15
    )


@pytest.mark.parametrize("name", ["sparse_rows", "sparse_rows_plain", "sparse_rows_blocked"])
def test_numpy_rows_first(sparse, name):
    net, expected = sparse
    forward = getattr(numpy_net, name)(net)
    np.testing.assert_allclose(forward(FEATURES)[:, 0], expected, atol=2e-6)
    np.testing.assert_array_equal(forward(FEATURES), forward(FEATURES))


@pytest.mark.parametrize("name", ["sparse_features_first", "sparse_features_first_plain"])
def test_numpy_features_first(sparse, name):
    net, expected = sparse
    forward = getattr(numpy_net, name)(net)
    np.testing.assert_allclose(forward(np.ascontiguousarray(FEATURES.T))[0], expected, atol=2e-6)


def test_numpy_on_chosen_columns(sparse):
    net, expected = sparse
    columns = np.unique(net.indices)[::-1]
    forward = numpy_net.sparse_features_first(net.on_columns(columns))
    np.testing.assert_allclose(forward(FEATURES.T[columns])[0], expected, atol=2e-6)


def test_numpy_dense(dense):
    net, expected = dense
    np.testing.assert_allclose(numpy_net.dense_rows(net)(FEATURES)[:, 0], expected, atol=2e-6)


@needs_numba
@pytest.mark.filterwarnings("ignore::Warning")
def test_numba_loops(sparse, dense):
    net, expected = sparse
    np.testing.assert_allclose(numba_net.sparse_rows(net)(FEATURES), expected, atol=2e-6)
    lines = np.ascontiguousarray(FEATURES.T)
    np.testing.assert_allclose(numba_net.sparse_features_first(net)(lines), expected, atol=2e-6)
    net, expected = dense
    np.testing.assert_allclose(numba_net.dense_rows(net)(FEATURES), expected, atol=5e-6)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::Warning")
def test_torch_forward_and_expansion(sparse, dense):
    net, expected = sparse
    features, lines = torch_net.tensor(FEATURES), torch_net.tensor(np.ascontiguousarray(FEATURES.T))
    rows = torch_net.eager(torch_net.sparse_rows(net))(features).numpy()[:, 0]
    np.testing.assert_allclose(rows, expected, atol=2e-6)
    first = torch_net.eager(torch_net.sparse_features_first(net))(lines).numpy()[0]
    np.testing.assert_allclose(first, expected, atol=2e-6)
    expanded = torch_net.eager(torch_net.expansion())(torch_net.tensor(X)).numpy()
    np.testing.assert_allclose(expanded, expand_input(X), atol=5e-6)
    net, expected = dense
    result = torch_net.eager(torch_net.dense_rows(net))(features).numpy()[:, 0]
    np.testing.assert_allclose(result, expected, atol=2e-6)
