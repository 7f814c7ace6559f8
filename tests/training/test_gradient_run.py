"""What a training by gradients goes on from."""

from __future__ import annotations

import jax.numpy as jnp
import optax
import pytest

from sparsejax.training.errors import RunError
from sparsejax.training.gradient_run import STATE_FOLDER, begun
from sparsejax.training.gradient_step import start_state
from sparsejax.training.sharding import training_mesh
from sparsejax.training.state import save_state


def _first(key):
    return start_state(key, {"w": jnp.zeros(2)}, optax.sgd(0.5))


def test_a_state_of_more_steps_than_the_run_has_is_refused(tmp_path):
    given = {"seed": 0, "rules": (), "mesh": training_mesh()}
    saved = begun(tmp_path, _first, steps=3, **given)
    assert (saved.rounds, saved.seconds) == (0, 0.0)
    save_state(tmp_path / STATE_FOLDER, saved.states, rounds=5, seconds=1.5)
    with pytest.raises(RunError, match="state: was saved after 5 steps of 3$"):
        begun(tmp_path, _first, steps=3, **given)
    assert begun(tmp_path, _first, steps=5, **given)[1:] == (5, 1.5)
