"""Generation: the prompt is read once, then every token costs the same, however many came before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import jax
import numpy as np

from sparsejax.checkpoint.network_source import model_and_params
from sparsejax.models.ten.config import Stack, TemporalEigenstateConfig
from sparsejax.models.ten.decoding import advance, prefill
from sparsejax.models.ten.model import TemporalEigenstateNetwork
from sparsejax.models.ten.state import TenState
from sparsejax.ops import decoding
from sparsejax.ops.prompts import read_prompts
from sparsejax.ops.sampling import sampling_rules

PREFILL_SEGMENT = 1024
"""Prompt tokens per call: bounds memory, and is enough to fill the matrix units of any device."""


class Generated(NamedTuple):
    """What was generated.

    Attributes:
      tokens: (b, n) int32 for n = ``max_new_tokens``; ``pad_token`` after the end of a row.
      lengths: (b,) int32 tokens of each row, its stop token included.
      log_probabilities: (b, n) float32 of each token under the model itself, before penalty, temperature and
        filters; 0 after the end of a row.
      state: of the model after each row's last token; ``model.apply`` goes on from there.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    log_probabilities: np.ndarray
    state: TenState


def generate(
    source: Any,
    prompts: Any,
    *,
    max_new_tokens: int,
    on_token: Callable[[int, np.ndarray], Any] | None = None,
    **options: Any,
) -> Generated:
    """Continue prompts token by token, until all rows have ended or ``max_new_tokens`` are there.

    Logits equal those of the full forward pass over the same tokens. Rows do not see each other: each gets
    what it would get as the same row of a batch of any other prompts.

    Args:
      source: a checkpoint as `sparsejax.load` gives it, or ``(model, params)``.
      prompts: (b, t) integers, or a list of token sequences of any lengths; no row is empty.
      max_new_tokens: per row.
      on_token: takes the number of the step, from 0, and its tokens (b,), as they come.
      options: of `stream`: key, temperature, top_k, top_p, repetition_penalty, stop_tokens, pad_token, stack,
        prefill_segment.

    Returns:
      `Generated`.

    Raises:
      ValueError: see `stream`.

    Example:
      >>> from sparsejax.models.ten.config import TemporalEigenstateConfig
      >>> config = TemporalEigenstateConfig.modern(vocab_size=7, dim=8, n_layers=1, num_eigenstates=4)
      >>> model = TemporalEigenstateNetwork(config)
      >>> params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
      >>> found = generate((model, params), [[1, 2, 3], [4]], max_new_tokens=5, temperature=0)
      >>> found.tokens.shape, found.lengths.tolist()
      ((2, 5), [5, 5])

    Source: specs/ten.md section 9.5.
    """
    tokens = stream(source, prompts, max_new_tokens=max_new_tokens, **options)
    if on_token is not None:
        for step, newest in enumerate(tokens):
            on_token(step, newest)
    return tokens.finish()


def stream(
    source: Any,
    prompts: Any,
    *,
    max_new_tokens: int,
    key: jax.Array | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop_tokens: Sequence[int] = (),
    pad_token: int = 0,
    stack: Stack | None = None,
    prefill_segment: int = PREFILL_SEGMENT,
) -> TokenStream:
    """The tokens of `generate` as an iterator, one step at a time as they are computed.

    Args:
      source: a checkpoint as `sparsejax.load` gives it, or ``(model, params)``.
      prompts: (b, t) integers, or a list of token sequences of any lengths; no row is empty.
      max_new_tokens: per row.
      key: of the draws; None is ``jax.random.key(0)``, the same each time.
      temperature: logits are divided by it; 0 takes the most probable token.
      top_k: only the k most probable tokens can be drawn.
      top_p: only the most probable tokens can be drawn, as few as reach this probability together.
      repetition_penalty: above 1 makes tokens of the prompt and those generated less likely.
      stop_tokens: a row ends with any of them.
      pad_token: what a row gives after its end.
      stack: of a network with two: "short", "long", or "both", which carries both and takes at every length
        the one that the full forward pass would. None takes, from the first token on, the one for the longest
        prompt plus ``max_new_tokens``.
      prefill_segment: prompt tokens per call. The first call is filled up to a power of two, so that prompts
        of all lengths share a few compiled programs.

    Returns:
      `TokenStream`; the prompts are read when this returns.

    Raises:
      ValueError: prompts or options that cannot be right, more positions than the table has, a network that
        cannot be streamed, or logits that are NaN.
    """
    model, params = model_and_params(source, TemporalEigenstateNetwork)
    config = model.config
    if not config.streams:
        raise ValueError(
            "this network cannot generate: inside a chunk it looks ahead (a published bug); load the file "
            "without its legacy variant"
        )
    rules = sampling_rules(
        config.vocab_size,
        key=key,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        stop_tokens=stop_tokens,
        pad_token=pad_token,
    )
    decoding.check_counts(max_new_tokens=max_new_tokens, prefill_segment=prefill_segment)
    batch = read_prompts(prompts, config.vocab_size)
    total = batch.tokens.shape[1] + max_new_tokens
    if config.pos_emb_type != "none":
        _check_positions(config, total, max_new_tokens)
        prefill_segment = min(prefill_segment, config.max_seq_len)
    logits, state = prefill(model, params, batch, stack=_stack(config, stack, total), segment=prefill_segment)
    progress = decoding.begin(logits, state, batch, rules, max_new_tokens)

    def towards(progress: decoding.Progress, until: int) -> decoding.Progress:
        return advance(model, params, progress, rules, until)

    return TokenStream(towards, progress, max_new_tokens, pad_token)


class TokenStream(decoding.TokenStream):
    """An iterator over the tokens (b,) of each step; `stream` makes it.

    The compiled loop that generates all tokens at once is called for one at a time here.
    """

    def finish(self) -> Generated:
        """Generate what is left, at once; all tokens, those iterated over included."""
        return Generated(*self._rest())


def _check_positions(config: TemporalEigenstateConfig, total: int, new: int) -> None:
    if total > config.max_seq_len:
        raise ValueError(
            f"the longest prompt ({total - new} tokens) and max_new_tokens={new} need {total} positions, the "
            f"table has max_seq_len={config.max_seq_len}; shorten one of them, or train a network with "
            'pos_emb_type="none", which has no limit'
        )


def _stack(config: TemporalEigenstateConfig, stack: Stack | None, total: int) -> Stack:
    if stack is not None and stack not in get_args(Stack):
        raise ValueError(f"stack={stack!r} is not one of {get_args(Stack)}, or None")
    if config.long_layer is None or stack is not None:
        return stack or "short"
    return "long" if total > config.context_threshold else "short"
