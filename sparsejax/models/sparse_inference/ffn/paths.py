"""The outputs of the neurons that scores choose, by the path that suits the size."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.models.sparse_inference.calibration.compensation import Compensation, compensated
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.crossover import ROWS, UNION, choose_path
from sparsejax.models.sparse_inference.ffn.plan import (
    FFNPlan,
    check_scores,
    check_strictly,
    choice_mask,
    chosen,
)
from sparsejax.ops.sparse_ffn import (
    FFNWeights,
    block_neurons,
    check_activation,
    check_floating,
    check_weights,
    dense_ffn,
    mask_indices,
    masked_ffn,
    own_outputs,
    shared_outputs,
    with_bias,
)

STEPS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Parts of the largest list; a list of unknown length is as long as the first of them that holds it."""


def predicted_ffn(
    inputs: jax.Array,
    weights: FFNWeights,
    scores: jax.Array,
    sparsity: SparsityConfig,
    *,
    activation: str = "gelu_tanh",
    plan: FFNPlan | None = None,
    fitted: Compensation | None = None,
    strict: bool = False,
) -> jax.Array:
    """The outputs of each token's best-scored neurons.

    Args:
      inputs: (*b, d).
      weights: of f neurons.
      scores: (*b, f), as a predictor gives them.
      sparsity: how many neurons, or from which score on.
      activation: a name in `ops.sparse_ffn.ACTIVATIONS` or, of gated FFNs, `GATED_ACTIVATIONS`.
      plan: blocks, groups of tokens, hot neurons and path; `FFNPlan` of single neurons if None.
      fitted: added to the outputs of tokens that compute some neurons, not of those that compute all.
      strict: refuse a token that chooses none; only outside of jit.

    Returns:
      (*b, o) in the dtype of ``inputs``. A token that chooses none gets ``b_out``. Scores get no gradient.

    Raises:
      ValueError: shapes that do not fit, inputs that are no floating point numbers, an unknown activation, a
        top_k above f, NaN scores (outside of jit); in strict mode a token without neurons.

    Example:
      >>> weights = FFNWeights(jnp.ones((4, 2)), jnp.ones((4, 2)))
      >>> scores = jnp.array([0.1, 0.9, 0.2, 0.8])
      >>> predicted_ffn(jnp.ones(2), weights, scores, SparsityConfig.with_top_k(2), activation="relu")
      Array([4., 4.], dtype=float32)

    Source: specs/sparse_inference.md sections 3 and 12.
    """
    plan = FFNPlan() if plan is None else plan
    neurons = weights.w_in.shape[0]
    _check(inputs, weights, scores, activation)
    flat, marks = inputs.reshape(-1, inputs.shape[-1]), scores.reshape(-1, neurons)
    if len(flat) == 0:
        return jnp.zeros((*inputs.shape[:-1], weights.w_out.shape[1]), inputs.dtype)
    check_scores(marks)
    if strict:
        check_strictly(marks, sparsity, plan)
    call = Call(flat, weights, marks, sparsity, activation, plan)
    part = None if call.quota is None else call.quota / plan.blocks(neurons)
    shared = len(flat) > 1 and plan.groups(len(flat)) < len(flat)
    path = choose_path(len(flat), part, shared=shared) if plan.path == "auto" else plan.path
    if path == "dense" or part == 1:
        return dense_ffn(inputs, weights, activation=activation)
    run = _PATHS.get(path, _masked)
    if (path == "shared" and not shared) or (path == "rows" and call.quota is None and len(flat) > 1):
        run = _masked  # there is no list that would serve
    outputs = run(call)
    if fitted is not None:
        mask = chosen(marks, sparsity, plan) if call.quota is None else None
        outputs = compensated(outputs, flat, fitted, mask)
    return with_bias(outputs, weights, inputs)


class Call(NamedTuple):
    """What a path is given.

    Attributes:
      flat: (n, d) inputs.
      weights: of f neurons.
      scores: (n, f).
      sparsity: how many neurons, or from which score on.
      activation: its name.
      plan: of the choice.
    """

    flat: jax.Array
    weights: FFNWeights
    scores: jax.Array
    sparsity: SparsityConfig
    activation: str
    plan: FFNPlan

    @property
    def neurons(self) -> int:
        """Of the FFN."""
        return self.weights.w_in.shape[0]

    @property
    def quota(self) -> int | None:
        """Blocks per choice; None where a threshold decides."""
        top_k = self.sparsity.count(self.neurons)
        return None if top_k is None else self.plan.count(top_k, self.neurons)

    def masked(self, mask: jax.Array) -> jax.Array:
        """All neurons, those outside of a mask (n, f) set to zero; without the output's bias."""
        bare = self.weights._replace(b_out=None)
        return masked_ffn(self.flat, bare, mask, activation=self.activation)


def _masked(call: Call) -> jax.Array:
    """All neurons, those that are not chosen set to zero."""
    return call.masked(chosen(call.scores, call.sparsity, call.plan))


def _rows(call: Call) -> jax.Array:
    """Each token's neurons, read row by row."""
    flat, plan, count = call.flat, call.plan, call.quota
    mask = choice_mask(call.scores, call.sparsity, plan)

    def compute(blocks: jax.Array) -> jax.Array:
        return own_outputs(flat, call.weights, block_neurons(blocks, plan.block_size), call.activation)

    if count is not None:
        blocks = mask_indices(mask, count)
        return compute(jnp.repeat(blocks, plan.group or len(flat), axis=0)[: len(flat)])
    most = max(1, int(ROWS * plan.blocks(call.neurons)))
    return _by_length(mask[0], most, lambda blocks: compute(blocks[None]), lambda: _masked(call))


def _union(call: Call) -> jax.Array:
    """The neurons that any token chose, read once; each token keeps its own."""
    own, mask = (pick(call.scores, call.sparsity, call.plan) for pick in (chosen, choice_mask))
    most = max(1, int(UNION * call.plan.blocks(call.neurons)))
    if call.quota is not None:
        most = min(most, len(mask) * call.quota)

    def compute(listed: jax.Array) -> jax.Array:
        indices = block_neurons(listed, call.plan.block_size)
        gates = own.at[:, indices].get(mode="fill", fill_value=False)
        return shared_outputs(call.flat, call.weights, indices, call.activation, gates=gates)

    return _by_length(mask.any(axis=0), most, compute, lambda: call.masked(own))


def _shared(call: Call) -> jax.Array:
    """The neurons that a group of tokens has in common, as matrix products; group by group."""
    if call.quota is None:
        return _masked(call)
    blocks = mask_indices(choice_mask(call.scores, call.sparsity, call.plan), call.quota)
    size = call.plan.group or len(call.flat)
    parts = [
        shared_outputs(call.flat[number * size :][:size], call.weights, listed, call.activation)
        for number, listed in enumerate(block_neurons(blocks, call.plan.block_size))
    ]
    return jnp.concatenate(parts)


_PATHS: dict[str, Callable[[Call], jax.Array]] = {"rows": _rows, "union": _union, "shared": _shared}


def _by_length(
    mask: jax.Array,
    most: int,
    compute: Callable[[jax.Array], jax.Array],
    otherwise: Callable[[], jax.Array],
) -> jax.Array:
    """``compute`` of the list of what a mask (blocks,) holds, filled up to one of a few lengths."""
    sizes = sorted({max(1, int(most * step)) for step in STEPS} | {most})
    number = (mask.sum() > jnp.asarray(sizes)).sum()
    lists = [lambda size=size: compute(mask_indices(mask, size)) for size in sizes]
    return jax.lax.switch(number, [*lists, otherwise])


def _check(inputs: jax.Array, weights: FFNWeights, scores: jax.Array, activation: str) -> None:
    neurons, width = weights.w_in.shape
    if inputs.ndim == 0 or inputs.shape[-1] != width:
        raise ValueError(f"inputs of shape {inputs.shape} do not fit: (..., {width}) is needed")
    if scores.shape != (*inputs.shape[:-1], neurons):
        raise ValueError(f"scores must have shape {(*inputs.shape[:-1], neurons)}, not {scores.shape}")
    check_floating(inputs)
    check_weights(weights)
    check_activation(activation, gated=weights.w_gate is not None)
