"""The compiled parts of generation: reading a prompt, and the loop over new tokens."""

from __future__ import annotations

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.ten.config import Stack
from sparsejax.models.ten.model import TemporalEigenstateNetwork, head_kernel, vocabulary_logits
from sparsejax.models.ten.state import TenState, initial_state
from sparsejax.ops.decoding import Progress, one_token
from sparsejax.ops.prompts import Prompts, Segment, cut
from sparsejax.ops.sampling import Rules
from sparsejax.typing import Logits, Params, RowTokens

_start = partial(jax.jit, static_argnames=("config", "batch", "stack", "dtype"))(initial_state)


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
    def read(token: RowTokens) -> tuple[Logits, TenState]:
        logits, state = _next_logits(model, params, token[:, None], before.state)
        if rules.stop_tokens is not None:
            state = jax.tree.map(partial(_keep_rows, before.stopped), before.state, state)
        return logits, state

    return one_token(rules, before, read)


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
