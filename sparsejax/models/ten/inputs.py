"""What a call may look like: inputs that cannot be right are refused before anything is compiled."""

from __future__ import annotations

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.accepted_names import check_dropout_key, check_options
from sparsejax.checkpoint.errors import shown
from sparsejax.models.ten.config import Stack, TemporalEigenstateConfig
from sparsejax.models.ten.state import check_state
from sparsejax.ops.token_ids import check_token_ids

_INPUTS = ("tokens", "state", "segment_ids")
_OPTIONS = ("state", "segment_ids", "train", "stack", "backend", "method")


def check_inputs(config: TemporalEigenstateConfig, *inputs: Any, **options: Any) -> None:
    """Refuse tokens, states and options that this network cannot take.

    Values are looked at only where they are there: inside another ``jit`` shapes alone are checked.

    Args:
      config: of the network.
      inputs: tokens (b, t) of integers or embedded inputs (b, t, d) of floats; then ``state`` and
        ``segment_ids``, unless they are given by name.
      options: as the network takes them.

    Raises:
      ValueError: says what is needed.

    Example:
      >>> check_inputs(TemporalEigenstateConfig(vocab_size=5), np.array([[0, 4]]))
    """
    if not 1 <= len(inputs) <= len(_INPUTS):
        raise ValueError(
            f"one array of tokens is needed, then perhaps {shown(_INPUTS[1:])}, not {len(inputs)}"
        )
    given = dict(zip(_INPUTS, inputs, strict=False))
    if twice := given.keys() & options.keys():
        raise ValueError(f"{shown(sorted(twice))} is given twice")
    check_options(options, _OPTIONS)
    check_dropout_key(options.get("train") and config.dropout)
    given |= options
    check_call(
        config, given["tokens"], given.get("state"), given.get("segment_ids"), stack=given.get("stack")
    )


def check_call(
    config: TemporalEigenstateConfig,
    tokens: Any,
    state: Any = None,
    segment_ids: Any = None,
    *,
    stack: Any = None,
) -> None:
    """Refuse what the network cannot compute; it asks so itself, whoever calls it.

    Args:
      config: of the network.
      tokens: (b, t) of integers or embedded inputs (b, t, d) of floats.
      state: of the call before, or None.
      segment_ids: (b, t) of integers, or None.
      stack: of a network with two, or None.

    Raises:
      ValueError: says what is needed.

    Example:
      >>> check_call(TemporalEigenstateConfig(vocab_size=5), np.array([[0, 4]]))
    """
    _check_tokens(config, tokens)
    batch, steps = tokens.shape[:2]
    if segment_ids is not None:
        _check_segments(segment_ids, (batch, steps))
    _check_stack(config, stack)
    if not config.streams and (state is not None or segment_ids is not None):
        raise ValueError(
            "this network cannot be streamed or packed: inside a chunk it looks ahead (a published bug); "
            "give whole sequences, or load the file without variant= for the causal network"
        )
    if state is not None:
        check_state(config, state, batch)
        if config.long_layer is not None and stack not in (None, state.stack):
            raise ValueError(f"the state carries stack {state.stack!r}, not {stack!r}; start with state=None")
    if config.pos_emb_type != "none":
        _check_positions(config, steps, state, segment_ids)


def _check_tokens(config: TemporalEigenstateConfig, tokens: Any) -> None:
    if not isinstance(tokens, np.ndarray | jax.Array) or not jnp.issubdtype(tokens.dtype, jnp.floating):
        check_token_ids(tokens, config.vocab_size)
        return
    if tokens.ndim != 3 or tokens.shape[2] != config.dim:
        raise ValueError(
            f"embedded inputs of shape {tokens.shape} do not fit: (b, t, {config.dim}) is needed"
        )
    if tokens.shape[1] == 0:
        raise ValueError("an empty sequence: at least one token is needed")


def _check_segments(segment_ids: Any, shape: tuple[int, int]) -> None:
    if not isinstance(segment_ids, np.ndarray | jax.Array) or segment_ids.dtype.kind not in "iu":
        raise ValueError("segment_ids must be an array of integers, one per token")
    if segment_ids.shape != shape:
        raise ValueError(f"segment_ids of shape {segment_ids.shape} do not fit tokens of shape {shape}")


def _check_stack(config: TemporalEigenstateConfig, stack: Any) -> None:
    if stack is not None and stack not in get_args(Stack):
        raise ValueError(f"stack={stack!r} is not known; give one of {shown(get_args(Stack))}, or None")
    if stack in ("long", "both") and config.long_layer is None:
        raise ValueError(f"stack={stack!r} needs a network with two stacks; this one has one")


def _check_positions(config: TemporalEigenstateConfig, steps: int, state: Any, segment_ids: Any) -> None:
    """Positions count from the start of each document, what the state has read of it included."""
    before = None if state is None else state.position
    if isinstance(before, jax.core.Tracer) or isinstance(segment_ids, jax.core.Tracer):
        return
    read = 0 if before is None else np.asarray(before)[:, None]
    needed = int(np.max(read + steps, initial=0))
    if segment_ids is not None:
        needed = _longest(np.asarray(segment_ids), read)
    if needed > config.max_seq_len:
        raise ValueError(
            f"{needed} positions are needed, the table has max_seq_len={config.max_seq_len}; shorten the "
            'input, or train a network with pos_emb_type="none", which has no limit'
        )


def _longest(segment_ids: np.ndarray, read: Any) -> int:
    """Tokens of the longest document of a packed batch; the first of each row goes on from the state."""
    begins = np.ones(segment_ids.shape, bool)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    number = np.cumsum(begins, axis=1)
    steps = np.arange(segment_ids.shape[1])
    age = steps - np.maximum.accumulate(np.where(begins, steps, 0), axis=1)
    return int(np.max(age + 1 + np.where(number == 1, read, 0), initial=0))
