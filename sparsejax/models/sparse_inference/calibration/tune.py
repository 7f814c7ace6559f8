"""Predictors by gradient descent: which neurons are the wanted ones, as so many yes-or-no questions."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor, MLPPredictor
from sparsejax.ops.counts import check_count
from sparsejax.ops.quantized import QuantizedTensor
from sparsejax.ops.sparse_ffn import top_k_mask

Trained = TypeVar("Trained", LowRankPredictor, MLPPredictor)

_CERTAIN = 4.0  # logits of a score that is one standard deviation above the threshold
_HELD_OUT = 8  # one row of so many is not trained on
_MEASURED = 1 << 24  # most scores, rows times neurons, that the result is judged by


class Tuned(NamedTuple):
    """What gradient descent found.

    Attributes:
      predictor: the one with the better recall on rows that were held out: the new one, or the old.
      recall_before: of the wanted neurons, as many being selected for each sample as are wanted.
      recall_after: likewise.
      losses: (steps,) binary cross entropy per neuron, nats.
    """

    predictor: Any
    recall_before: float
    recall_after: float
    losses: np.ndarray


def mlp_of_low_rank(predictor: LowRankPredictor) -> MLPPredictor:
    """The two-layer network of twice the rank that computes the same scores.

    Args:
      predictor: of rank r, not quantised.

    Raises:
      ValueError: quantised matrices.

    Example:
      >>> mlp_of_low_rank(LowRankPredictor(jnp.ones((1, 2)), jnp.ones((3, 1)))).scores(-jnp.ones(2)).tolist()
      [-2.0, -2.0, -2.0]

    Source: ``x = relu(x) - relu(-x)``.
    """
    p, q = predictor.p, predictor.q
    if isinstance(p, QuantizedTensor) or isinstance(q, QuantizedTensor):
        raise ValueError("the predictor is quantised; make the network of two layers before that")
    bias2 = jnp.zeros(len(q), q.dtype) if predictor.bias is None else predictor.bias
    return MLPPredictor(
        jnp.concatenate([p, -p]), jnp.concatenate([q, -q], axis=1), jnp.zeros(2 * len(p), p.dtype), bias2
    )


def tune(
    predictor: Trained,
    inputs: Any,
    wanted: Any,
    *,
    steps: int,
    batch_size: int = 128,
    learning_rate: float = 0.02,
    seed: int = 0,
) -> Tuned:
    """Train a predictor to tell the wanted neurons from the others.

    Scores keep their meaning: a logit is a fixed multiple of what a score exceeds the threshold by that
    selects as many neurons as are wanted.

    Args:
      predictor: to start from.
      inputs: (n, d) samples of what it reads.
      wanted: bool (n, f), which neurons it is to select.
      steps: of Adam, whose rate falls to 0 as a cosine.
      batch_size: samples of a step.
      learning_rate: relative to the size of each array.
      seed: of the order of the samples.

    Raises:
      ValueError: fewer than two samples, shapes that do not fit, numbers out of range, or a loss that is not
        finite.

    Example:
      >>> draws = np.random.default_rng(0)
      >>> x = draws.normal(size=(256, 4)).astype(np.float32)
      >>> start = LowRankPredictor(jnp.eye(4), jnp.ones((4, 4)), jnp.zeros(4))
      >>> found = tune(start, x, x > 0.5, steps=50)
      >>> found.recall_before < 0.6 < 0.9 < found.recall_after
      True

    Source: Deja Vu (Liu et al. 2023) and PowerInfer train with this loss; optax.
    """
    x, labels = np.asarray(inputs, np.float32), np.asarray(wanted, bool)
    if x.ndim != 2 or labels.ndim != 2 or len(x) != len(labels) or len(x) < 2:
        raise ValueError(
            f"inputs {x.shape} and wanted {labels.shape} must be rows of the same samples, two or more"
        )
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        check_count(name, value, 1)
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be above 0, not {learning_rate}")
    held = np.zeros(len(x), bool)
    held[:: min(_HELD_OUT, len(x))] = True
    judged = np.flatnonzero(held)[: max(1, _MEASURED // labels.shape[1])]
    judge = jnp.asarray(x[judged]), jnp.asarray(labels[judged])
    before = float(_recall(predictor, *judge))
    scale = _logit_scale(predictor, x[~held][:batch_size], labels[~held][:batch_size])
    order = _order(np.flatnonzero(~held), steps, min(batch_size, int((~held).sum())), seed)
    new, losses = _trained(predictor, (x, labels), order, scale=scale, learning_rate=learning_rate)
    if not np.isfinite(losses).all():
        raise ValueError(f"the loss is not finite; lower the learning rate, now {learning_rate}")
    after = float(_recall(new, *judge))
    return Tuned(new if after > before else predictor, before, after, losses)


def _logit_scale(predictor: Any, x: np.ndarray, labels: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """What is taken from a score, and what the rest is multiplied by, to make a logit."""
    scores = np.asarray(_scores(predictor, x))
    threshold = np.quantile(scores, 1 - labels.mean())
    spread = float(scores.std())
    return jnp.float32(threshold), jnp.float32(_CERTAIN / spread if spread > 0 else 1.0)


def _order(rows: np.ndarray, steps: int, size: int, seed: int) -> np.ndarray:
    """(steps, size) rows, each epoch in an order of its own."""
    draws = np.random.default_rng(seed)
    epochs = -(-steps * size // len(rows))
    return np.concatenate([draws.permutation(rows) for _ in range(epochs)])[: steps * size].reshape(
        steps, size
    )


def _trained(
    predictor: Any,
    samples: tuple[np.ndarray, np.ndarray],
    order: np.ndarray,
    *,
    scale: tuple[jax.Array, jax.Array],
    learning_rate: float,
) -> tuple[Any, np.ndarray]:
    """The predictor after a step for each row of ``order``, and the losses."""
    import optax

    sizes = jax.tree.map(_size_of, predictor)
    sizes = _biases_like_scores(predictor, sizes, scale)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, len(order)))

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(relative: Any, state: Any, rows: jax.Array, truth: jax.Array) -> tuple[Any, Any, jax.Array]:
        def loss(relative: Any) -> jax.Array:
            scores = jax.tree.map(jnp.multiply, relative, sizes).scores(rows)
            return optax.sigmoid_binary_cross_entropy((scores - scale[0]) * scale[1], truth).mean()

        value, gradient = jax.value_and_grad(loss)(relative)
        updates, state = optimizer.update(gradient, state, relative)
        return optax.apply_updates(relative, updates), state, value

    (x, labels), relative = samples, jax.tree.map(jnp.divide, predictor, sizes)
    state, losses = optimizer.init(relative), []
    for rows in order:
        relative, state, value = step(relative, state, x[rows], labels[rows].astype(np.float32))
        losses.append(value)
    return jax.tree.map(jnp.multiply, relative, sizes), np.asarray(jax.device_get(losses))


def _size_of(leaf: jax.Array) -> jax.Array:
    size = jnp.sqrt(jnp.mean(jnp.square(leaf)))
    return jnp.where(size > 0, size, 1)


def _biases_like_scores(predictor: Any, sizes: Any, scale: tuple[jax.Array, jax.Array]) -> Any:
    """Sizes whose biases are those of what they are added to: one that is 0 must not move by 1."""
    of_scores = 1 / scale[1]
    if isinstance(predictor, LowRankPredictor):
        return sizes if predictor.bias is None else sizes.replace(bias=of_scores)
    if predictor.bias1 is not None:
        sizes = sizes.replace(bias1=sizes.fc1 * predictor.fc1.shape[1] ** 0.5)
    return sizes if predictor.bias2 is None else sizes.replace(bias2=of_scores)


@jax.jit
def _scores(predictor: Any, rows: jax.Array) -> jax.Array:
    return predictor.scores(rows)


@jax.jit
def _recall(predictor: Any, rows: jax.Array, wanted: jax.Array) -> jax.Array:
    """Of the wanted neurons, those among as many with the largest scores."""
    found = jax.vmap(top_k_mask)(predictor.scores(rows), wanted.sum(axis=-1))
    return (found & wanted).sum() / jnp.maximum(1, wanted.sum())
