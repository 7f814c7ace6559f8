"""Which path is the fastest, as measured."""

from __future__ import annotations

from typing import Literal

from jax import Array

from sparsejax.ops import backends


def choose_path(
    tokens: int, neurons: int, top_k: int | Array | None, block_size: int = 1
) -> Literal["dense", "masked", "gather", "block"]:
    """The path that "auto" takes: a sparse one where it was measured to be faster than all neurons.

    Args:
      tokens: rows of the inputs.
      neurons: of the FFN.
      top_k: neurons per token, static or traced; None is all.
      block_size: neurons that are selected together; 1 is each on its own.

    Returns:
      "dense" where all neurons are taken, "masked" where no sparse path was measured to win, as on GPU.

    Example:
      >>> [choose_path(tokens, 2048, 205, 64) for tokens in (1, 128, 4096)]
      ['gather', 'block', 'block']
    """
    if top_k is None or (not isinstance(top_k, Array) and top_k >= neurons):
        return "dense"
    if isinstance(top_k, Array) or backends.platform() != "cpu":
        return "masked"
    if block_size < backends.SPARSE_FFN_BLOCK:
        few = tokens == 1 and top_k <= backends.SPARSE_FFN_GATHER_NEURONS * neurons
        return "gather" if few else "masked"
    part = top_k / neurons
    if tokens <= backends.SPARSE_FFN_GATHER_TOKENS:
        return "gather" if part * tokens <= backends.SPARSE_FFN_GATHER_PART else "masked"
    for least, largest in backends.SPARSE_FFN_BLOCK_PART:
        if tokens >= least and part <= largest:
            return "block"
    return "masked"
