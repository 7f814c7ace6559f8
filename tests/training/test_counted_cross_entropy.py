"""Cross entropy of the counted tokens alone: equal to that of all, however many count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.token_ids import IGNORED
from sparsejax.training.counted_cross_entropy import counted_cross_entropy, expected_count

SIZE = (3, 5, 4, 7)  # b, t, d, v


def _inputs(counted):
    b, t, d, v = SIZE
    keys = jax.random.split(jax.random.key(0), 4)
    hidden, kernel = jax.random.normal(keys[0], (b, t, d)), jax.random.normal(keys[1], (d, v))
    targets = np.asarray(jax.random.randint(keys[3], (b, t), 0, v)).copy()
    targets.flat[np.random.default_rng(0).permutation(b * t)[counted:]] = IGNORED
    return hidden, kernel, jax.random.normal(keys[2], (v,)), jnp.asarray(targets)


def _whole(hidden, kernel, bias, targets):
    logits = hidden @ kernel + bias
    counted = targets != IGNORED
    of_target = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(targets, 0)[..., None], -1)[
        ..., 0
    ]
    return -jnp.where(counted, of_target, 0).sum(), (counted & (logits.argmax(-1) == targets)).sum()


def _found(hidden, kernel, bias, targets):
    loss = counted_cross_entropy(hidden, kernel, bias, targets, room=4, chunk_tokens=3)
    return loss.total, (loss.metrics["accuracy"], loss.weight)


GRADIENTS = jax.jit(jax.value_and_grad(_found, (0, 1, 2), has_aux=True))


@pytest.mark.parametrize("counted", [0, 3, 4, 11, 15])  # none, some, all that there is room for, more, all
def test_values_and_gradients_are_those_of_all_logits(counted):
    arrays = _inputs(counted)
    (total, (correct, weight)), found = GRADIENTS(*arrays)
    (expected, right), wanted = jax.value_and_grad(_whole, (0, 1, 2), has_aux=True)(*arrays)
    assert float(weight) == counted
    assert float(correct) == float(right)
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted)


def test_of_equal_logits_the_first_is_the_guess():
    targets = jnp.asarray([[0, 1, 2]])
    loss = counted_cross_entropy(jnp.ones((1, 3, 2)), jnp.zeros((2, 4)), jnp.zeros(4), targets, room=3)
    assert float(loss.metrics["accuracy"]) == 1


def test_bfloat16_states_keep_float32_sums():
    hidden, *head, targets = _inputs(6)
    loss = counted_cross_entropy(hidden.astype(jnp.bfloat16), *head, targets, room=8)
    assert loss.total.dtype == jnp.float32
    assert float(loss.total) == pytest.approx(float(_whole(hidden, *head, targets)[0]), rel=0.02)


def test_room_is_six_deviations_above_the_mean():
    assert expected_count(4096, 0.15) == 752
    assert expected_count(20, 0.15) == 16
    assert expected_count(3, 0.5) == 3
    with pytest.raises(ValueError, match="room must be at least 1"):
        counted_cross_entropy(
            jnp.ones((1, 1, 1)), jnp.ones((1, 1)), jnp.ones(1), jnp.zeros((1, 1), int), room=0
        )
