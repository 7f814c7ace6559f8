"""The compiled parts of generation: reading a prompt, and the loop over new tokens."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.ten.config import Stack
from sparsejax.models.ten.model import TemporalEigenstateNetwork, head_kernel, vocabulary_logits
from sparsejax.models.ten.state import TenState, initial_state
from sparsejax.ops.prompts import Prompts, Segment, cut
from sparsejax.ops.sampling import Rules, sample
from sparsejax.typing import Logits, Params, RowTokens, SeenTokens

_LEAST_ROOM = 64

_start = partial(jax.jit, static_argnames=("config", "batch", "stack", "dtype"))(initial_state)


class Progress(NamedTuple):
    """What one step hands to the next.

    Attributes:
      step: tokens generated per row.
      logits: (b, v) of the next token.
      is_nan: whether any of them is NaN.
      state: of the model.
      seen: (b, v) tokens that the repetition penalty falls on; None without one.
      stopped: (b,) rows that have ended.
      lengths: (b,) tokens of each row until its end.
      last: (b,) newest token.
      tokens: (b, room).
      log_probabilities: (b, room).
    """

    step: jax.Array
    logits: Logits
    is_nan: jax.Array
    state: TenState
    seen: SeenTokens | None
    stopped: jax.Array
    lengths: jax.Array
    last: RowTokens
    tokens: jax.Array
    log_probabilities: jax.Array


def prefill(
    model: TemporalEigenstateNetwork, params: Params, prompts: Prompts, *, stack: Stack, segment: int
) -> tuple[Logits, TenState]:
    """Read prompts in segments with carried state.

    Args:
      model: the network.
      params: its parameters.
      prompts: of a batch.
      stack: stacks to carry.
      segment: tokens per call at most; no more than the position table has.

    Returns:
      logits (b, v) of the first new token, and the state.
    """
    dtype = params["token_embedding"]["embedding"].dtype if model.dtype is None else model.dtype
    state = _start(config=model.config, batch=len(prompts.tokens), stack=stack, dtype=dtype)
    for part in cut(prompts, segment):
        logits, state = _read(model, params, state, part)
    return logits, state


def begin(logits: Logits, state: TenState, seen: SeenTokens | None, max_new_tokens: int) -> Progress:
    """Before the first new token; room for the tokens is made in powers of two."""
    room = max(_LEAST_ROOM, 1 << (max_new_tokens - 1).bit_length())
    return _with_room(logits, state, seen, room)


@partial(jax.jit, static_argnums=3)
def _with_room(logits: Logits, state: TenState, seen: SeenTokens | None, room: int) -> Progress:
    rows = logits.shape[0]
    return Progress(
        jnp.int32(0),
        logits,
        jnp.isnan(logits).any(),
        state,
        seen,
        jnp.zeros((rows,), bool),
        jnp.zeros((rows,), jnp.int32),
        jnp.zeros((rows,), jnp.int32),
        jnp.zeros((rows, room), jnp.int32),
        jnp.zeros((rows, room), jnp.float32),
    )


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def advance(
    model: TemporalEigenstateNetwork, params: Params, progress: Progress, rules: Rules, until: jax.Array
) -> Progress:
    """Generate until ``until`` tokens are there, all rows have ended, or logits are NaN.

    One compiled loop for any number of tokens: called for one at a time it streams.
    """

    def goes_on(progress: Progress) -> jax.Array:
        return (progress.step < until) & ~progress.stopped.all() & ~progress.is_nan

    return jax.lax.while_loop(goes_on, partial(_one_token, model, params, rules), progress)


def _one_token(model: TemporalEigenstateNetwork, params: Params, rules: Rules, before: Progress) -> Progress:
    step, rows = before.step, jnp.arange(before.last.shape[0])
    options = {"temperature": 0, "seen": before.seen, **rules.sampling}
    token = sample(jax.random.fold_in(rules.key, step), before.logits, **options)
    log_probability = jax.nn.log_softmax(before.logits)[rows, token].astype(jnp.float32)
    logits, state = _next_logits(model, params, token[:, None], before.state)
    stopped = before.stopped
    if rules.stop_tokens is not None:
        state = jax.tree.map(partial(_keep_rows, stopped), before.state, state)
        token = jnp.where(stopped, rules.pad_token, token)
        log_probability = jnp.where(stopped, 0, log_probability)
        stopped |= (token[:, None] == rules.stop_tokens).any(axis=1)
    return Progress(
        step + 1,
        logits,
        jnp.isnan(logits).any(),
        state,
        None if before.seen is None else before.seen.at[rows, token].set(True),
        stopped,
        before.lengths + ~before.stopped,
        token,
        before.tokens.at[:, step].set(token),
        before.log_probabilities.at[:, step].set(log_probability),
    )


@partial(jax.jit, static_argnums=0)
def _read(
    model: TemporalEigenstateNetwork, params: Params, state: TenState, part: Segment
) -> tuple[Logits, TenState]:
    # A prompt that begins with the segment would go on from the state of the padding before.
    state = jax.tree.map(lambda old: _keep_rows(part.is_new, jnp.zeros_like(old), old), state)
    return _next_logits(model, params, part.tokens, state, part.segment_ids)


def _next_logits(
    model: TemporalEigenstateNetwork,
    params: Params,
    tokens: jax.Array | np.ndarray,
    state: TenState,
    segment_ids: jax.Array | np.ndarray | None = None,
) -> tuple[Logits, TenState]:
    """Logits (b, v) after the last token alone: a prompt's other ones would fill memory."""
    outputs = model.apply({"params": params}, tokens, state, segment_ids, method="hidden")
    hidden, after = cast(tuple[jax.Array, TenState], outputs)
    return vocabulary_logits(hidden[:, -1], head_kernel(model.config, params), model.dtype), after


def _keep_rows(kept: jax.Array | np.ndarray, old: jax.Array, new: jax.Array) -> jax.Array:
    """Rows of the old array where ``kept`` (b,), else of the new one."""
    return jnp.where(kept.reshape(-1, *(1,) * (new.ndim - 1)), old, new)
