"""The C loop and the numba loop run the same net over the same rows."""

from __future__ import annotations

import importlib.util
import shutil

import jax
import numpy as np
import pytest

from sparsejax.bench.peers import c_loop, numba_net
from sparsejax.bench.peers.weights import sparse_weights
from sparsejax.models.ultra_sparse import UltraSparseNet
from sparsejax.models.ultra_sparse.export_c import export_c
from tests.models.ultra_sparse import nets

ROWS = np.random.default_rng(1).uniform(-1, 1, (7, 256)).astype(np.float32)
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler called cc")
needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")


@pytest.fixture(scope="module")
def net():
    model = UltraSparseNet()
    return nets.trained(model.config, jax.jit(model.init)(jax.random.key(0), ROWS[0])["params"])


@needs_cc
def test_the_c_loop_calls_the_net_on_every_row(tmp_path, net):
    library = c_loop.compiled_header(export_c(net, tmp_path / "net.h"), c_loop.PLAIN)
    outputs = c_loop.c_outputs(library, ROWS)[:, 0]
    total = library.loop(ROWS.ctypes.data, len(ROWS), 17)
    assert total == pytest.approx(2 * outputs.sum() + outputs[:3].sum(), abs=1e-5)
    assert 0.1 < c_loop.c_nanoseconds(library, ROWS, 10_000) < 1e5


@needs_numba
def test_the_numba_loop_calls_the_published_net_on_every_row(net):
    weights = sparse_weights(net.params)
    outputs = numba_net.sparse_rows(weights)(ROWS)
    arrays = (weights.indices, weights.w1, weights.b1, weights.w2[0].copy(), weights.b2[0])
    total = c_loop._numba_loop()(ROWS, 17, *arrays)
    assert total == pytest.approx(2 * outputs.sum() + outputs[:3].sum(), abs=1e-5)
    assert 0.1 < c_loop.numba_nanoseconds(weights, ROWS, 10_000) < 1e5


@needs_cc
def test_sums_that_are_not_finite_are_refused(tmp_path, net):
    library = c_loop.compiled_header(export_c(net, tmp_path / "net.h"), c_loop.PLAIN)
    with pytest.raises(ValueError, match="the sum of the outputs is not finite"):
        c_loop.c_nanoseconds(library, np.full((1, 256), np.nan), 10)
