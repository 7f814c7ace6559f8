"""Bad arguments are refused in one line; the path follows the measurements."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from sparsejax.ops.backends import target_platform
from sparsejax.ops.sparse_ffn import choose_path, sparse_ffn


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_k": -1}, "top_k must be at least 0, not -1"),
        ({"inputs": jnp.ones((2, 5))}, "do not fit neurons"),
        ({"scores": jnp.ones((2, 8))}, r"scores must have shape \(2, 16\)"),
        ({"scores": None}, "scores must have shape"),
        ({"activation": "sine"}, "no activation 'sine'"),
        ({"path": "dens"}, "no path 'dens'"),
        ({"backend": "cuda"}, "sparse_ffn has no backend 'cuda'"),
        ({"backend": "pallas"}, "takes whole blocks"),
        ({"block_size": 0}, "block_size must be at least 1"),
        ({"backend": "cuda", "top_k": None}, "sparse_ffn has no backend 'cuda'"),
        ({"backend": "cuda", "path": "dense"}, "sparse_ffn has no backend 'cuda'"),
        ({"inputs": jnp.ones((2, 4), jnp.int32)}, "inputs must be floating point, not int32"),
        ({"inputs": jnp.ones((2, 4), bool), "top_k": None}, "inputs must be floating point, not bool"),
    ],
)
def test_refused(ffn, change, message):
    weights = ffn(16, 4)
    given = {"inputs": jnp.ones((2, 4)), "weights": weights, "scores": jnp.ones((2, 16)), "top_k": 4}
    with pytest.raises(ValueError, match=message):
        sparse_ffn(**(given | change))


def test_weights_of_another_size_are_refused(ffn):
    weights = ffn(16, 4)._replace(b_out=jnp.ones(16))
    with pytest.raises(ValueError, match=r"b_out must have shape \(4,\)"):
        sparse_ffn(jnp.ones((2, 4)), weights, jnp.ones((2, 16)), 4)
    weights = ffn(16, 4)._replace(w_out=jnp.ones((16, 3)))
    with pytest.raises(ValueError, match="'pallas' of sparse_ffn has outputs as wide as its inputs; use"):
        sparse_ffn(jnp.ones((2, 4)), weights, jnp.ones((2, 2)), 8, block_size=8, backend="pallas")


def test_paths_by_size():
    assert choose_path(1, 2048, None) == choose_path(1, 2048, 2048, 64) == "dense"
    assert [choose_path(1, 2048, top_k, 64) for top_k in (1024, 512, 205)] == ["gather"] * 3
    assert [choose_path(4096, 2048, top_k, 64) for top_k in (1024, 205)] == ["block"] * 2
    assert [choose_path(128, 2048, top_k, 64) for top_k in (1024, 512)] == ["masked", "block"]
    assert [choose_path(64, 2048, top_k, 64) for top_k in (1024, 512)] == ["masked", "block"]
    assert choose_path(128, 2048, 205) == choose_path(128, 2048, jnp.asarray(205), 64) == "masked"
    with target_platform("gpu"):
        assert choose_path(1, 2048, 205, 64) == "masked"
