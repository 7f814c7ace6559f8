"""What teaches a router: published losses, distillation of an oracle, even use, small scores."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.sparse_ffn import top_k_mask
from sparsejax.typing import Scalar

RouterLossVersion = Literal["cross_entropy", "three_terms"]

_RANKING, _USAGE = 0.1, 0.01  # published weights of the second and the third term
_STD_EPSILON = 1e-6


def router_loss(
    scores: Array, activations: Array, top_k: int | Array, *, version: RouterLossVersion = "cross_entropy"
) -> Scalar:
    """A published router loss: the oracle selects each token's largest absolute activations.

    Args:
      scores: (*b, f) of the router.
      activations: (*b, f) of all neurons; no gradient goes through them.
      top_k: neurons that oracle and router select per token; maybe traced.
      version: "cross_entropy" between the oracle's neurons and the softmax of the scores; "three_terms" adds
        0.1 times the squared distance of normalised scores and activations at the oracle's neurons, and 0.01
        times the variance of how often each neuron is selected. That last term is a count: it has no
        gradient, and hundreds of it are no sign of trouble.

    Returns:
      loss ().

    Example:
      >>> scores = jnp.asarray([[4.0, 0.0, 0.0]])
      >>> float(router_loss(scores, jnp.asarray([[-3.0, 1.0, 0.0]]), 1)) < 0.1
      True

    Source: specs/sprout.md section 3.1, the versions f7979e0 and fe5444d.
    """
    strengths = jax.lax.stop_gradient(jnp.abs(activations)).astype(scores.dtype)
    chosen = top_k_mask(strengths, top_k).astype(scores.dtype)
    total = jnp.maximum(chosen.sum(), 1)
    loss = -(chosen * jax.nn.log_softmax(scores, axis=-1)).sum() / total
    if version == "cross_entropy":
        return loss
    distances = (_standardised(strengths) - _standardised(scores)) ** 2
    counts = top_k_mask(scores, top_k).reshape(-1, scores.shape[-1]).sum(axis=0).astype(scores.dtype)
    uneven = ((counts - counts.mean()) ** 2).mean()
    return loss + _RANKING * (distances * chosen).sum() / total + _USAGE * uneven


def distillation_loss(
    scores: Array, activations: Array, weights: Array | None = None, *, block_size: int = 1
) -> Scalar:
    """How far the softmax of the scores is from each token's shares of activation energy.

    The shares are the squared activations, of neurons or summed over blocks, divided by their sum. Their
    order is the oracle's, whatever ``top_k`` will be asked for, and large ones, whose loss would hurt most,
    weigh most. At the best scores the loss is 0: it is a Kullback-Leibler divergence.

    Args:
      scores: (*b, f) of neurons, or (*b, blocks).
      activations: (*b, f) of all neurons; no gradient goes through them.
      weights: (*b) of the tokens; 1 if not given.
      block_size: neurons that a score stands for; the last block may be shorter.

    Returns:
      loss (), the mean over tokens; 0 where their weights are.

    Example:
      >>> activations = jnp.asarray([[2.0, 1.0, 0.0, 0.0]])
      >>> float(distillation_loss(jnp.log(jnp.asarray([[5.0, 1e-9]])), activations, block_size=2)) < 1e-6
      True
    """
    energies = jax.lax.stop_gradient(activations).astype(scores.dtype) ** 2
    if block_size > 1:
        energies = _block_sums(energies, block_size)
    total = energies.sum(axis=-1, keepdims=True)
    shares = energies / jnp.where(total > 0, total, 1)
    logs = jnp.log(jnp.where(shares > 0, shares, 1))
    losses = (shares * (logs - jax.nn.log_softmax(scores, axis=-1))).sum(axis=-1)
    return _mean(losses, weights)


def load_balance_loss(scores: Array, selected: Array, weights: Array | None = None) -> Scalar:
    """The balance loss of Switch Transformers: 1 where all are used alike, more where some are used most.

    ``n * sum_i f_i p_i`` with the share f of all selections that fall on neuron, or block, i, and the mean
    probability p of it, through which the gradient goes.

    Args:
      scores: (*b, n).
      selected: (*b, n) True at the selected ones.
      weights: (*b) of the tokens; 1 if not given.

    Example:
      >>> float(load_balance_loss(jnp.zeros((2, 4)), jnp.eye(4, dtype=bool)[:2]))
      1.0

    Source: Fedus, Zoph and Shazeer, "Switch Transformers" (2021), equation 4.
    """
    weights = jnp.ones(scores.shape[:-1], scores.dtype) if weights is None else weights.astype(scores.dtype)
    axes = tuple(range(scores.ndim - 1))
    counts = (selected * weights[..., None]).sum(axis=axes)
    chances = (jax.nn.softmax(scores, axis=-1) * weights[..., None]).sum(axis=axes)
    shares = jax.lax.stop_gradient(counts / jnp.maximum(counts.sum(), 1))
    return scores.shape[-1] * (shares * chances).sum() / jnp.maximum(weights.sum(), 1)


def z_loss(scores: Array, weights: Array | None = None) -> Scalar:
    """Mean square of the log of the softmax's denominator: keeps scores small enough for every float type.

    Args:
      scores: (*b, n).
      weights: (*b) of the tokens; 1 if not given.

    Example:
      >>> round(float(z_loss(jnp.zeros((3, 4)))), 3)  # log(4) ** 2
      1.922

    Source: Zoph et al., "ST-MoE" (2022), equation 5.
    """
    return _mean(jax.nn.logsumexp(scores, axis=-1) ** 2, weights)


def _mean(values: Array, weights: Array | None) -> Array:
    if weights is None:
        return values.mean()
    weights = weights.astype(values.dtype)
    return (values * weights).sum() / jnp.maximum(weights.sum(), 1)


def _standardised(values: Array) -> Array:
    """Rows of mean 0; the standard deviation is torch's, over n - 1."""
    centred = values - values.mean(axis=-1, keepdims=True)
    return centred / (values.std(axis=-1, ddof=1, keepdims=True) + _STD_EPSILON)


def _block_sums(values: Array, block_size: int) -> Array:
    missing = -values.shape[-1] % block_size
    padded = jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
    return padded.reshape(*values.shape[:-1], padded.shape[-1] // block_size, block_size).sum(axis=-1)
