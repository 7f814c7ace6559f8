"""Annotations of the library are checked at every call of a test run, but not in commands it starts."""

from __future__ import annotations

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from sparsejax.checkpoint.accepted_names import check_options
from sparsejax.models.ultra_sparse.layers import dense_layer
from sparsejax.ops.sampling import keep_top_k, penalize_repetition, sample
from sparsejax.training.cross_entropy import chunked_cross_entropy


def test_an_array_of_another_rank_is_refused():
    with pytest.raises(TypeCheckError, match="keep_top_k"):
        keep_top_k(jnp.zeros(3), 1)


def test_arrays_whose_shapes_do_not_belong_together_are_refused():
    with pytest.raises(TypeCheckError, match="penalize_repetition"):
        penalize_repetition(jnp.zeros((2, 3)), jnp.zeros((2, 1), bool), 2.0)


def test_another_dtype_is_refused():
    with pytest.raises(TypeCheckError, match="penalize_repetition"):
        penalize_repetition(jnp.zeros((2, 3)), jnp.zeros((2, 3), int), 2.0)


def test_an_array_of_numpy_stands_for_one_of_jax():
    assert keep_top_k(np.zeros((1, 3), np.float32), 1).shape == (1, 3)


def test_checkpoint_is_checked():
    with pytest.raises(TypeCheckError, match="check_options"):
        check_options(["path"], {"path"})


def test_training_is_checked():
    hidden, kernel, targets = jnp.zeros((2, 3, 4)), jnp.ones((4, 8)), jnp.zeros((2, 3), int)
    with pytest.raises(TypeCheckError, match="chunked_cross_entropy"):
        chunked_cross_entropy(hidden, kernel, targets, jnp.ones((2, 1)))


def test_models_are_checked():
    with pytest.raises(TypeCheckError, match="dense_layer"):
        dense_layer(jnp.zeros((2, 3)), jnp.zeros((3, 4)), jnp.zeros(1))


def test_what_a_function_refuses_ends_in_its_own_error():
    with pytest.raises(ValueError, match="needs a key"):
        sample(None, jnp.zeros(3), temperature=1.0)


def test_users_run_without_the_checks():
    program = (
        "import jax.numpy as jnp\n"
        "from sparsejax.ops.sampling import keep_top_k\n"
        "print(keep_top_k(jnp.arange(3.0), 1).shape)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "(3,)\n"
