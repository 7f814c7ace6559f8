"""One optimiser step: parts of a batch, keys, bits after a restart; with a small linen network."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.ops.token_ids import IGNORED
from sparsejax.training.cross_entropy import chunked_cross_entropy
from sparsejax.training.gradient_step import compiled_steps, gradient_step, start_state
from sparsejax.training.loop import run_rounds
from sparsejax.training.optimizer import adamw
from sparsejax.training.state import restore_state, save_state

VOCABULARY, WIDTH, ROWS, STEPS = 7, 6, 4, 5


class Toy(nn.Module):
    """Next-token scores from the token and the one before."""

    dtype: object = None

    @nn.compact
    def __call__(self, tokens, *, train=False):
        hidden = nn.Embed(VOCABULARY, WIDTH, dtype=self.dtype)(tokens)
        hidden = hidden + jnp.pad(hidden, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        hidden = nn.Dropout(0.2, deterministic=not train)(hidden)
        return nn.LayerNorm(dtype=self.dtype)(nn.Dense(WIDTH, dtype=self.dtype)(hidden))


def toy_loss(dtype=None, train=False):
    model = Toy(dtype)

    def loss(params, batch, key):
        rngs = {"dropout": key}
        hidden = model.apply({"params": params}, batch["inputs"], train=train, rngs=rngs)
        return chunked_cross_entropy(hidden, params["Embed_0"]["embedding"].T, batch["targets"])

    return loss


def toy_start(optimizer):
    tokens = jnp.zeros((1, 1), jnp.int32)
    return start_state(jax.random.key(1), jax.jit(Toy().init)(jax.random.key(0), tokens)["params"], optimizer)


def toy_batch(step):
    tokens = np.random.default_rng(step).integers(0, VOCABULARY, (ROWS, 9)).astype(np.int32)
    targets = tokens[:, 1:].copy()
    targets[0, :6] = IGNORED  # so that parts have unequal numbers of counted tokens
    return {"inputs": tokens[:, :-1], "targets": targets}


OPTIMIZER = adamw(optax.constant_schedule(0.05), max_norm=1.0)


def _losses(step, state, numbers):
    losses, steps = [], compiled_steps(step, map(toy_batch, numbers))
    state = run_rounds(
        state,
        steps,
        start=numbers[0],
        stop=numbers[-1] + 1,
        at_most=2,
        on_records=lambda done, records: losses.extend(records["loss"].tolist()),
        save=lambda done, state: None,
    )
    return losses, state


def test_parts_give_the_step_of_the_whole_batch():
    whole, of_whole = _losses(gradient_step(toy_loss(), OPTIMIZER), toy_start(OPTIMIZER), range(STEPS))
    for parts in (4,):
        step = gradient_step(toy_loss(), OPTIMIZER, accumulate=parts)
        losses, state = _losses(step, toy_start(OPTIMIZER), range(STEPS))
        np.testing.assert_allclose(losses, whole, rtol=2e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), state.params, of_whole.params)
    with pytest.raises(ValueError, match="4 rows does not divide into 3 parts"):
        _losses(gradient_step(toy_loss(), OPTIMIZER, accumulate=3), toy_start(OPTIMIZER), range(1))


def test_a_restored_state_goes_on_with_the_same_bits(tmp_path):
    """Dropout included: its key depends on the step alone."""
    step = gradient_step(toy_loss(train=True), OPTIMIZER, accumulate=2)
    whole, _ = _losses(step, toy_start(OPTIMIZER), range(STEPS))
    first, state = _losses(step, toy_start(OPTIMIZER), range(2))
    save_state(tmp_path / "state", state, rounds=2, seconds=1.0)
    saved = restore_state(tmp_path / "state", toy_start(OPTIMIZER))
    later, _ = _losses(step, saved.states, range(saved.rounds, STEPS))
    assert first + later == whole
    assert len(set(whole)) == STEPS


def test_penalty_is_added_once_per_step():
    def shrink(params):
        return 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    sgd = optax.sgd(0.1)
    state = toy_start(sgd)
    batch = toy_batch(0)
    plain, _ = jax.jit(gradient_step(toy_loss(), sgd))(state, batch)
    step = gradient_step(toy_loss(), sgd, accumulate=2, penalty=shrink)
    shrunk, record = jax.jit(step)(state, batch)
    expected = jax.tree.map(lambda moved, old: moved - 0.1 * old, plain.params, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), shrunk.params, expected)
    assert float(record["penalty"]) == pytest.approx(float(shrink(state.params)))


def test_bfloat16_computes_finite_steps_on_float32_parameters():
    step = gradient_step(toy_loss(jnp.bfloat16), OPTIMIZER)
    losses, state = _losses(step, toy_start(OPTIMIZER), range(STEPS))
    exact, _ = _losses(gradient_step(toy_loss(), OPTIMIZER), toy_start(OPTIMIZER), range(STEPS))
    np.testing.assert_allclose(losses, exact, rtol=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}
