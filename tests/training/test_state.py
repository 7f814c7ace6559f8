"""Training states on disk: every leaf comes back, and nothing else is taken for one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.checkpoint.errors import CheckpointError
from sparsejax.models.ultra_sparse.evolve import AnnealState
from sparsejax.models.ultra_sparse.evolve.chain import start_chain
from sparsejax.training.state import restore_state, save_state


def _state(value=0.25):
    params = {"layer_0": {"indices": jnp.arange(4).reshape(2, 2), "weights": jnp.full((2, 2), value)}}
    return AnnealState(jax.random.key(5), jnp.asarray(3), start_chain(params, jnp.asarray(jnp.inf)))


def test_state_comes_back_in_every_bit(tmp_path):
    save_state(tmp_path / "state", _state(), rounds=4, seconds=2.5)
    saved = restore_state(tmp_path / "state", _state(0.0))
    assert (saved.rounds, saved.seconds) == (4, 2.5)
    assert isinstance(saved.states, AnnealState)
    assert jnp.issubdtype(saved.states.key.dtype, jax.dtypes.prng_key)
    expected, found = (
        jax.tree.leaves(jax.tree.map(lambda x: x, (s.round, s.chain))) for s in (_state(), saved.states)
    )
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(expected, found, strict=True))
    draws = (jax.random.uniform(s.key, (3,)) for s in (_state(), saved.states))
    assert np.array_equal(*draws)


def test_later_save_replaces_the_earlier_one(tmp_path):
    save_state(tmp_path / "state", _state(), rounds=1, seconds=0.0)
    save_state(tmp_path / "state", _state(0.5), rounds=2, seconds=0.0)
    saved = restore_state(tmp_path / "state", _state())
    assert saved.rounds == 2
    assert saved.states.chain.params["layer_0"]["weights"][0, 0] == 0.5
    assert len(list((tmp_path / "state").iterdir())) == 2


def test_state_of_another_shape_is_refused(tmp_path):
    save_state(tmp_path / "state", {"x": jnp.zeros(3)}, rounds=1, seconds=0.0)
    with pytest.raises(CheckpointError, match=r"'x' is float32\[3\], the model needs float32\[4\]"):
        restore_state(tmp_path / "state", {"x": jnp.zeros(4)})


def test_damaged_state_is_refused(tmp_path):
    save_state(tmp_path / "state", _state(), rounds=1, seconds=0.0)
    (tmp_path / "state" / "sparsejax.json").write_text("{")
    with pytest.raises(CheckpointError):
        restore_state(tmp_path / "state", _state())
