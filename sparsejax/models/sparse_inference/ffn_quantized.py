"""The chosen neurons of an FFN whose matrices are quantised: only whole tiles of them are read."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.models.sparse_inference.compensation import Compensation, compensated
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn_plan import (
    FFNPlan,
    check_scores,
    check_strictly,
    choice_mask,
    chosen,
)
from sparsejax.ops.quantized import ROW_TILE, QuantizedFFN, sparse_quantized_ffn
from sparsejax.ops.sparse_ffn import GATED_ACTIVATIONS, block_neurons, mask_indices


def predicted_quantized_ffn(
    inputs: jax.Array,
    weights: QuantizedFFN,
    scores: jax.Array,
    sparsity: SparsityConfig,
    *,
    activation: str = "swiglu",
    plan: FFNPlan | None = None,
    fitted: Compensation | None = None,
    strict: bool = False,
) -> jax.Array:
    """`predicted_ffn` of quantised matrices, as a GGUF file holds them.

    Args:
      inputs: (*b, d).
      weights: of f neurons; ``w_out`` is (o, f), its blocks along the neurons.
      scores: (*b, f).
      sparsity: how many neurons; a threshold is right, but saves nothing.
      activation: a name in `ops.sparse_ffn.ACTIVATIONS`, or in `GATED_ACTIVATIONS` but for "drelu".
      plan: its blocks must be whole tiles of 32 neurons; `FFNPlan` of one tile if None.
      fitted: added to the outputs of tokens that compute some neurons, not of those that compute all.
      strict: refuse a token that chooses none; only outside of jit.

    Returns:
      (*b, o) in the dtype of ``inputs``.

    Raises:
      ValueError: blocks that are no whole tiles, shapes that do not fit, an unknown activation, or NaN scores
        (outside of jit); in strict mode a token without neurons.

    Source: specs/sparse_inference.md section 13.
    """
    plan = FFNPlan(block_size=ROW_TILE) if plan is None else plan
    neurons = weights.w_in.shape[0]
    if plan.block_size % ROW_TILE:
        raise ValueError(
            f"quantised neurons are chosen in whole tiles of {ROW_TILE}; block_size {plan.block_size} is none"
        )
    if scores.shape != (*inputs.shape[:-1], neurons):
        raise ValueError(f"scores must have shape {(*inputs.shape[:-1], neurons)}, not {scores.shape}")
    marks = scores.reshape(-1, neurons)
    check_scores(marks)
    if strict:
        check_strictly(marks, sparsity, plan)
    top_k = sparsity.count(neurons)
    is_all = top_k is not None and plan.count(top_k, neurons) == plan.blocks(neurons)
    if plan.path == "dense" or is_all:
        return sparse_quantized_ffn(inputs, weights, None, activation=of_gate(activation))
    tiles = _tiles(marks, sparsity, plan)
    tiles = tiles[0] if len(tiles) == 1 else tiles.reshape(*inputs.shape[:-1], tiles.shape[-1])
    outputs = sparse_quantized_ffn(inputs, weights, tiles, activation=of_gate(activation))
    if fitted is None:
        return outputs
    mask = chosen(marks, sparsity, plan).reshape(scores.shape) if top_k is None else None
    return compensated(outputs, inputs, fitted, mask)


def of_gate(activation: str) -> str:
    """The name in `ops.sparse_ffn.ACTIVATIONS` of what acts on a gate, or on the sums of an FFN without.

    Raises:
      ValueError: both sums are acted on, which quantised FFNs do not have.

    Example:
      >>> of_gate("swiglu"), of_gate("relu")
      ('silu', 'relu')
    """
    of_gate, of_sums = GATED_ACTIVATIONS.get(activation, (activation, "identity"))
    if of_sums != "identity":
        raise ValueError(f"activation {activation!r} is not there for quantised weights; dequantise them")
    return of_gate


def _tiles(scores: jax.Array, sparsity: SparsityConfig, plan: FFNPlan) -> jax.Array:
    """(1, k) for all tokens, or (n, k)."""
    tokens, neurons = scores.shape
    mask, top_k = choice_mask(scores, sparsity, plan), sparsity.count(neurons)
    count = plan.blocks(neurons) if top_k is None else plan.count(top_k, neurons)
    tiles = block_neurons(mask_indices(mask, count), plan.block_size // ROW_TILE)
    if len(tiles) in (1, tokens):
        return tiles
    return jnp.repeat(tiles, plan.group, axis=0)[:tokens]
