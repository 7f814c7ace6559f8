"""An FFN of quantised matrices: all neurons, or the chosen ones, of which only whole tiles are read."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.models.sparse_inference.calibration.compensation import Compensation, compensated
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.plan import (
    FFNPlan,
    check_scores,
    check_strictly,
    choice_mask,
    chosen,
)
from sparsejax.models.sparse_inference.llama.layers import linear
from sparsejax.ops.quantized import ROW_TILE, QuantizedFFN, QuantizedTensor, sparse_quantized_ffn
from sparsejax.ops.sparse_ffn import activated, block_neurons, mask_indices

FEW_TOKENS = 8
"""Most tokens whose own tiles of quantised matrices are read one after the other."""

MOST_TILES = 0.75
"""Largest part of the neurons for which few tokens read tiles: more are all computed and masked."""

MOST_SHARED_TILES = 0.5
"""Likewise of more tokens, which choose together. 16 tokens, 2,048 x 5,632, gated, 2 cores, in ms: Q8_0 52 /
61 / 117 at 0.5 / 0.6 / 0.75 of the neurons, and 65 all; Q4_K 65 / 80 / 130, and 97 all."""


def whole_quantized_ffn(
    inputs: jax.Array, weights: QuantizedFFN, *, activation: str = "swiglu", mask: jax.Array | None = None
) -> jax.Array:
    """All neurons of an FFN of which some or all matrices are quantised.

    Args:
      inputs: (*b, d).
      weights: of f neurons; ``w_out`` is (o, f) quantised and (f, o) plain.
      activation: a name in `ops.sparse_ffn.ACTIVATIONS` or, of gated FFNs, `GATED_ACTIVATIONS`.
      mask: bool (*b, f); neurons outside of it give nothing. None takes all.

    Returns:
      (*b, o) in the dtype of ``inputs``.

    Example:
      >>> w_in = QuantizedTensor.quantize(jnp.ones((64, 32)), "q8_0")
      >>> w_out = QuantizedTensor.quantize(jnp.ones((32, 64)), "q8_0", order="columns")
      >>> whole_quantized_ffn(jnp.ones(32), QuantizedFFN(w_in, w_out), activation="relu")[0].round().tolist()
      2048.0
    """
    sums = linear(inputs, weights.w_in, weights.b_in, wide=True)
    gate = None if weights.w_gate is None else linear(inputs, weights.w_gate, weights.b_gate, wide=True)
    hidden = activated(activation, sums, gate)
    if mask is not None:
        hidden = jnp.where(mask, hidden, 0)
    down = weights.w_out if isinstance(weights.w_out, QuantizedTensor) else weights.w_out.T
    return linear(hidden.astype(inputs.dtype), down, weights.b_out)


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

    Few tokens, and any number of tokens that choose together, read only the tiles that they chose. Where
    that is most of them, where blocks are no whole tiles, and where many tokens choose for themselves, all
    neurons are computed and masked.

    Args:
      inputs: (*b, d).
      weights: of f neurons; ``w_out`` is (o, f), its blocks along the neurons. Tiles are read where all
        matrices are quantised; see `whole_quantized_ffn` for those that are not.
      scores: (*b, f).
      sparsity: how many neurons; a threshold is right, but saves nothing.
      activation: a name in `ops.sparse_ffn.ACTIVATIONS` or, of gated FFNs, `GATED_ACTIVATIONS`.
      plan: blocks of 32 neurons, or a multiple, are whole tiles; `FFNPlan` of one tile if None.
      fitted: added to the outputs of tokens that compute some neurons, not of those that compute all.
      strict: refuse a token that chooses none; only outside of jit.

    Returns:
      (*b, o) in the dtype of ``inputs``.

    Raises:
      ValueError: shapes that do not fit, an unknown activation, or NaN scores (outside of jit); in strict
        mode a token without neurons.

    Source: specs/sparse_inference.md section 13.
    """
    plan = FFNPlan(block_size=ROW_TILE) if plan is None else plan
    neurons = weights.w_in.shape[0]
    if scores.shape != (*inputs.shape[:-1], neurons):
        raise ValueError(f"scores must have shape {(*inputs.shape[:-1], neurons)}, not {scores.shape}")
    marks = scores.reshape(-1, neurons)
    check_scores(marks)
    if strict:
        check_strictly(marks, sparsity, plan)
    top_k = sparsity.count(neurons)
    is_all = top_k is not None and plan.count(top_k, neurons) == plan.blocks(neurons)
    if plan.path == "dense" or is_all:
        return whole_quantized_ffn(inputs, weights, activation=activation)
    if top_k is None or not _reads_tiles(weights, len(marks), top_k, plan):
        mask = chosen(marks, sparsity, plan).reshape(scores.shape)
        outputs = whole_quantized_ffn(inputs, weights, activation=activation, mask=mask)
        return outputs if fitted is None else compensated(outputs, inputs, fitted, mask)
    tiles = _tiles(choice_mask(marks, sparsity, plan), len(marks), plan.count(top_k, neurons), plan)
    tiles = tiles[0] if len(tiles) == 1 else tiles.reshape(*inputs.shape[:-1], tiles.shape[-1])
    outputs = sparse_quantized_ffn(inputs, weights, tiles, activation=activation)
    return outputs if fitted is None else compensated(outputs, inputs, fitted)


def _reads_tiles(weights: QuantizedFFN, tokens: int, top_k: int, plan: FFNPlan) -> bool:
    neurons = weights.w_in.shape[0]
    quantised = all(isinstance(part, QuantizedTensor) for part in weights[:3] if part is not None)
    together = plan.groups(tokens) == 1
    most = MOST_TILES if tokens <= FEW_TOKENS else MOST_SHARED_TILES if together else 0
    part = plan.count(top_k, neurons) * plan.block_size / neurons
    return quantised and plan.block_size % ROW_TILE == 0 and part <= most


def _tiles(mask: jax.Array, tokens: int, count: int, plan: FFNPlan) -> jax.Array:
    """(1, k) for all tokens, or (n, k)."""
    tiles = block_neurons(mask_indices(mask, count), plan.block_size // ROW_TILE)
    if len(tiles) in (1, tokens):
        return tiles
    return jnp.repeat(tiles, plan.group, axis=0)[:tokens]
