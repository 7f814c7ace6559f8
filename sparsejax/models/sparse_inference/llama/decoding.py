"""The compiled parts of generation: reading prompts into a cache, and the step from token to token."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.llama.ffn import SparseOptions
from sparsejax.models.sparse_inference.llama.model import LlamaLM
from sparsejax.models.sparse_inference.llama.state import LlamaState, grow_state, initial_state
from sparsejax.ops.decoding import Progress, one_token
from sparsejax.ops.prompts import Prompts
from sparsejax.ops.sampling import Rules
from sparsejax.ops.vectors import jit_with_wide_vectors
from sparsejax.typing import Logits, Params, RowTokens

_LEAST_SEGMENT = 16

begin_state = partial(jax.jit, static_argnums=(0, 1, 2, 3))(initial_state)
grow = partial(jax.jit, static_argnums=1)(grow_state)


class Network(NamedTuple):
    """What computes logits.

    Attributes:
      model: the module; static.
      options: how neurons are selected; static.
      params: of the model.
      predictors: of its blocks, or None.
      fitted: compensations of its blocks, or None.
    """

    model: LlamaLM
    options: SparseOptions
    params: Params
    predictors: Any
    fitted: Any


def segments(prompts: Prompts, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Calls that read prompts: tokens (b, s), and how many (b,) of each row are no padding.

    All calls have ``size`` tokens but the last, which is filled to a power of two.

    Args:
      prompts: of a batch.
      size: tokens per call at most.

    Example:
      >>> from sparsejax.ops.prompts import read_prompts
      >>> parts = list(segments(read_prompts([range(40), range(3)], 50), 32))
      >>> [(tokens.shape, counts.tolist()) for tokens, counts in parts]
      [((2, 32), [32, 3]), ((2, 16), [8, 0])]
    """
    lengths = prompts.tokens.shape[1] - prompts.starts
    longest = int(lengths.max())
    tokens = np.zeros((len(lengths), longest + size), np.int32)
    for row, (start, length) in enumerate(zip(prompts.starts, lengths, strict=True)):
        tokens[row, :length] = prompts.tokens[row, start:]
    for begin in range(0, longest, size):
        rest = longest - begin
        steps = size if rest >= size else min(size, max(_LEAST_SEGMENT, 1 << (rest - 1).bit_length()))
        yield tokens[:, begin : begin + steps], np.clip(lengths - begin, 0, steps).astype(np.int32)


def slots_read(longest: int, size: int) -> int:
    """Slots that `segments` of ``size`` write for prompts of this length, padding included.

    Example:
      >>> slots_read(40, 32)
      48
    """
    whole, rest = divmod(longest, size)
    last = min(size, max(_LEAST_SEGMENT, 1 << (rest - 1).bit_length())) if rest else 0
    return whole * size + last


def prefill(
    network: Network, prompts: Prompts, state: LlamaState, *, segment: int
) -> tuple[Logits, LlamaState]:
    """Read prompts.

    Args:
      network: what reads.
      prompts: of a batch.
      state: empty, with room for `slots_read`; its memory is used again.
      segment: tokens per call at most.

    Returns:
      logits (b, v) of the first new token, and the state.
    """
    logits = jnp.zeros((len(prompts.tokens), network.model.config.vocab_size), jnp.float32)
    for tokens, counts in segments(prompts, segment):
        logits, state = _read(
            *network[:2], network[2:], (logits, state), (jnp.asarray(tokens), jnp.asarray(counts))
        )
    return logits, state


def advance(network: Network, progress: Progress, rules: Rules) -> Progress:
    """One more token per row; the memory of ``progress``, its cache included, is used again.

    Whoever wants many tokens calls it as often. One compiled loop over them would be slower: XLA takes the
    numbers of quantised weights out of it, as they do not change, and so makes all of them dense.
    """
    return _advance(*network[:2], network[2:], progress, rules)


@partial(jit_with_wide_vectors, static_argnums=(0, 1), donate_argnums=3)
def _advance(
    model: LlamaLM, options: SparseOptions, arrays: tuple[Any, ...], progress: Progress, rules: Rules
) -> Progress:
    return _one_token(Network(model, options, *arrays), rules, progress)


def _one_token(network: Network, rules: Rules, before: Progress) -> Progress:
    def read(token: RowTokens) -> tuple[Logits, LlamaState]:
        # Rows that have ended do not count what they read.
        goes_on = (~before.stopped).astype(jnp.int32)
        logits, state = _logits(network, token[:, None], before.state, goes_on)
        return jnp.where(before.stopped[:, None], before.logits, logits), state

    return one_token(rules, before, read)


@partial(jit_with_wide_vectors, static_argnums=(0, 1), donate_argnums=3)
def _read(
    model: LlamaLM,
    options: SparseOptions,
    arrays: tuple[Any, ...],
    before: tuple[Logits, LlamaState],
    read: tuple[jax.Array, jax.Array],
) -> tuple[Logits, LlamaState]:
    tokens, counts = read
    logits, state = _logits(Network(model, options, *arrays), tokens, before[1], counts)
    return jnp.where(counts[:, None] > 0, logits, before[0]), state


def _logits(
    network: Network, tokens: jax.Array, state: LlamaState, counts: jax.Array
) -> tuple[Logits, LlamaState]:
    """Logits (b, v) after each row's last token alone: a prompt's other ones would fill memory."""
    model, variables = network.model, {"params": network.params}
    options = {
        "counts": counts,
        "predictors": network.predictors,
        "fitted": network.fitted,
        **network.options.as_options(),
    }
    found = model.apply(variables, tokens, state, method="hidden", **options)
    hidden, after = cast(tuple[jax.Array, LlamaState], found)
    last = jnp.take_along_axis(hidden, jnp.maximum(counts - 1, 0)[:, None, None], axis=1)[:, 0]
    return cast(jax.Array, model.apply(variables, last, method="logits")), after
