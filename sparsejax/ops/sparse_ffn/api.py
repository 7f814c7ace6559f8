"""The op: scores in, the outputs of the selected neurons out, by the path that suits the size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeGuard, get_args

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops import backends
from sparsejax.ops.sparse_ffn.batched import batched_ffn, fits
from sparsejax.ops.sparse_ffn.block import Plan, block_ffn
from sparsejax.ops.sparse_ffn.choose import choose_path
from sparsejax.ops.sparse_ffn.listed import own_outputs
from sparsejax.ops.sparse_ffn.reference import dense_ffn, masked_ffn, with_bias
from sparsejax.ops.sparse_ffn.selection import block_count, block_neurons, top_k_indices, top_k_mask
from sparsejax.ops.sparse_ffn.weights import FFNWeights, check_activation, check_floating

Path = Literal["auto", "dense", "masked", "gather", "block"]


def sparse_ffn(
    inputs: Array,
    weights: FFNWeights,
    scores: Array | None,
    top_k: int | Array | None,
    *,
    block_size: int = 1,
    activation: str = "gelu",
    path: Path = "auto",
    backend: str = "auto",
) -> Array:
    """The outputs of each token's ``top_k`` neurons with the largest scores.

    Args:
      inputs: (*b, d).
      weights: of f neurons.
      scores: (*b, f), or with blocks (*b, ceil(f / block_size)); unused where all neurons are.
      top_k: neurons per token, static or a traced integer array (); None, or a static f or more, takes all.
      block_size: above 1, whole blocks of so many neurons are selected, as many as `block_count` says.
      activation: a name in `ACTIVATIONS` or, of gated FFNs, `GATED_ACTIVATIONS`.
      path: how, never what. "masked" multiplies all neurons and keeps the selected; "gather" reads only
        selected rows, token by token; "block" multiplies each selected block with its tokens; "auto" is
        `choose_path`. Without blocks, "block" computes as "masked", and so does "gather" with a traced
        ``top_k``, whose rows have no static number. Only "dense" computes something else: all neurons.
      backend: "auto", "xla", "reference" (masked, whatever the path) or "pallas" (blocks only).

    Returns:
      (*b, o) in the dtype of ``inputs``; 16-bit products are summed in float32. Scores get no gradient.
      Forward-mode and second derivatives are those of "masked" alone.

    Raises:
      ValueError: shapes that do not fit, inputs that are no floating point numbers, a negative ``top_k``, or
        an unknown activation, path or backend.

    Example:
      >>> weights = FFNWeights(jnp.ones((4, 2)), jnp.ones((4, 2)))
      >>> scores = jnp.array([[0.1, 0.9, 0.2, 0.8]])
      >>> sparse_ffn(jnp.ones((1, 2)), weights, scores, 2, activation="relu")
      Array([[4., 4.]], dtype=float32)

    Source: specs/sprout.md sections 1.2, 1.6 and 7.
    """
    neurons = weights.w_in.shape[0]
    _check(inputs, weights, activation, path, block_size)
    if _is_static(top_k) and top_k < 0:
        raise ValueError(f"top_k must be at least 0, not {top_k}")
    chosen = backends.resolve(backend, backends.SPARSE_FFN, dtype=inputs.dtype)
    if path == "dense" or top_k is None or (_is_static(top_k) and top_k >= neurons):
        return dense_ffn(inputs, weights, activation=activation)
    tokens = inputs.size // inputs.shape[-1]
    blocks = -(-neurons // block_size)
    if scores is None or scores.shape != (*inputs.shape[:-1], blocks):
        raise ValueError(
            f"scores must have shape {(*inputs.shape[:-1], blocks)} for {neurons} neurons in blocks of "
            f"{block_size}, not {None if scores is None else scores.shape}"
        )
    if tokens == 0 or (_is_static(top_k) and top_k == 0):
        nothing = jnp.zeros((*inputs.shape[:-1], weights.w_out.shape[1]), inputs.dtype)
        return with_bias(nothing, weights, inputs)
    if path == "auto":
        path = choose_path(tokens, neurons, top_k, block_size)
    scores = scores.reshape(tokens, blocks)
    count = selected_blocks(top_k, neurons, block_size)
    flat, plan = inputs.reshape(tokens, -1), Plan(block_size, activation)
    if chosen.startswith("pallas"):
        if weights.w_out.shape[1] != weights.w_in.shape[1]:
            raise ValueError("backend 'pallas' of sparse_ffn has outputs as wide as its inputs; use 'xla'")
        outputs = _kernel(chosen, block_size)(flat, weights, *_assignment(scores, count), plan)
    elif chosen == "reference" or path == "masked" or not _can(path, count, block_size):
        mask = top_k_mask(scores, count)
        mask = jnp.repeat(mask, block_size, axis=-1)[:, :neurons] if block_size > 1 else mask
        return masked_ffn(inputs, weights, mask.reshape(*inputs.shape[:-1], neurons), activation=activation)
    elif _is_static(count) and (path == "gather" or block_size == 1):
        indices = block_neurons(top_k_indices(scores, count), block_size)
        outputs = own_outputs(flat, weights, indices, activation)
    else:
        mask, most = _assignment(scores, count)
        form = batched_ffn if _is_static(count) and fits(flat, mask, most, plan) else block_ffn
        outputs = form(flat, weights, mask, most, plan)
    return with_bias(outputs, weights, inputs)


def selected_blocks(top_k: int | Array, neurons: int, block_size: int) -> int | Array:
    """Blocks, of 1 neuron or more, that ``top_k`` of all ``neurons`` select; all of them for all neurons.

    Example:
      >>> selected_blocks(99, 100, 64), selected_blocks(100, 100, 64), selected_blocks(7, 100, 1)
      (1, 2, 7)
    """
    if block_size == 1:
        return top_k
    count, blocks = block_count(top_k, block_size), -(-neurons // block_size)
    if _is_static(top_k):
        return blocks if top_k >= neurons else count
    return jnp.where(top_k >= neurons, blocks, count)


def _assignment(scores: Array, count: int | Array) -> tuple[Array, int]:
    """The blocks (n, blocks) of each token, and how many it has at most."""
    return top_k_mask(scores, count), count if _is_static(count) else scores.shape[-1]


def _kernel(name: str, block_size: int) -> Callable[..., Array]:
    """A Pallas backend, whose compilers take a second to import."""
    if block_size == 1:
        raise ValueError("backend 'pallas' of sparse_ffn takes whole blocks; give a block_size, or use 'xla'")
    if name == "pallas_gpu":
        from sparsejax.ops.sparse_ffn import pallas_gpu

        return pallas_gpu.block_ffn
    from sparsejax.ops.sparse_ffn import pallas_tpu

    return pallas_tpu.block_ffn


def _can(path: str, count: int | Array, block_size: int) -> bool:
    """Whether a sparse path has a form of its own here."""
    return block_size > 1 or (path == "gather" and _is_static(count))


def _is_static(top_k: int | Array | None) -> TypeGuard[int]:
    return top_k is not None and not isinstance(top_k, jax.Array)


def check_weights(weights: FFNWeights) -> None:
    """Refuse matrices and biases whose shapes do not fit each other.

    Raises:
      ValueError: names the part, its shape and the one that is needed.

    Example:
      >>> check_weights(FFNWeights(jnp.ones((8, 4)), jnp.ones((8, 2)), b_out=jnp.ones(2)))
    """
    neurons, width = weights.w_in.shape
    outputs = weights.w_out.shape[-1]
    wanted = ((neurons, width), (neurons, outputs), (neurons, width), (neurons,), (neurons,), (outputs,))
    for name, part, shape in zip(FFNWeights._fields, weights, wanted, strict=True):
        if part is not None and part.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, not {part.shape}")


def _check(inputs: Array, weights: FFNWeights, activation: str, path: str, block_size: int) -> None:
    if inputs.ndim == 0 or weights.w_in.ndim != 2 or inputs.shape[-1] != weights.w_in.shape[1]:
        raise ValueError(f"inputs {inputs.shape} do not fit neurons with weights {weights.w_in.shape}")
    check_floating(inputs)
    check_weights(weights)
    check_activation(activation, gated=weights.w_gate is not None)
    if path not in get_args(Path):
        raise ValueError(f"no path {path!r}; choose one of {get_args(Path)}")
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, not {block_size}")
