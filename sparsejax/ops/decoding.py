"""Generation token by token, whatever the network: a step, what it hands to the next, and an iterator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.ops.counts import check_count
from sparsejax.ops.prompts import Prompts
from sparsejax.ops.sampling import Rules, sample
from sparsejax.typing import Logits, RowTokens, SeenTokens

_LEAST_ROOM = 64

Reader = Callable[[RowTokens], tuple[Logits, Any]]
"""What a network makes of the newest tokens (b,): logits (b, v) of the next ones, and its state."""

Advance = Callable[["Progress", int], "Progress"]
"""Generates at least one token more, and not beyond so many in all."""


class Progress(NamedTuple):
    """What one step hands to the next.

    Attributes:
      step: tokens generated per row.
      logits: (b, v) of the next token.
      is_nan: whether any of them is NaN.
      state: of the network.
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
    state: Any
    seen: SeenTokens | None
    stopped: jax.Array
    lengths: jax.Array
    last: RowTokens
    tokens: jax.Array
    log_probabilities: jax.Array


def check_counts(**counts: Any) -> None:
    """Refuse numbers of tokens that are no whole numbers of at least 1.

    Args:
      counts: by the names that callers know them by.

    Raises:
      ValueError: names the number.

    Example:
      >>> check_counts(max_new_tokens=5)
    """
    for name, count in counts.items():
        check_count(name, count.item() if isinstance(count, np.integer) else count, 1)


def begin(logits: Logits, state: Any, prompts: Prompts, rules: Rules, max_new_tokens: int) -> Progress:
    """Before the first new token; room for the tokens is made in powers of two.

    Args:
      logits: (b, v) of the first new token; their memory is used again.
      state: of the network after the prompts; its memory is used again.
      prompts: that were read.
      rules: of the draws.
      max_new_tokens: per row.

    Example:
      >>> from sparsejax.ops.prompts import read_prompts
      >>> from sparsejax.ops.sampling import sampling_rules
      >>> prompts = read_prompts([[1, 2]], 4)
      >>> begin(jnp.zeros((1, 4)), jnp.zeros(1), prompts, sampling_rules(4), 100).tokens.shape
      (1, 128)
    """
    seen = jnp.asarray(prompts.seen(logits.shape[-1])) if "repetition_penalty" in rules.sampling else None
    room = max(_LEAST_ROOM, 1 << (max_new_tokens - 1).bit_length())
    progress: Progress = _with_room(logits, state, seen, room)
    return progress


@partial(jax.jit, static_argnums=3, donate_argnums=(0, 1))
def _with_room(logits: Logits, state: Any, seen: SeenTokens | None, room: int) -> Progress:
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


def one_token(rules: Rules, before: Progress, read: Reader) -> Progress:
    """Draw a token per row and read it; pure.

    A row that has ended reads on, but what it reads is not told: its network keeps the state that it had.

    Args:
      rules: of the draws.
      before: what is there.
      read: of the network. For rows that have ended it gives their old state; their logits do not matter.

    Example:
      >>> from sparsejax.ops.prompts import read_prompts
      >>> from sparsejax.ops.sampling import sampling_rules
      >>> rules = sampling_rules(4, temperature=0)
      >>> start = begin(jnp.eye(4)[2:3], jnp.zeros(()), read_prompts([[1]], 4), rules, 2)
      >>> after = one_token(rules, start, lambda token: (jnp.eye(4)[token - 1], jnp.ones(())))
      >>> after.last.tolist(), one_token(rules, after, lambda token: (after.logits, 0)).last.tolist()
      ([2], [1])
    """
    token, log_probability = draw(rules, before)
    return record(rules, before, (token, log_probability), read(token))


def draw(rules: Rules, before: Progress) -> tuple[RowTokens, jax.Array]:
    """The first half of `one_token`: a token per row (b,), and its log probability (b,).

    Args:
      rules: of the draws.
      before: what is there.
    """
    rows = jnp.arange(before.last.shape[0])
    options = {"temperature": 0, "seen": before.seen, **rules.sampling}
    token = sample(jax.random.fold_in(rules.key, before.step), before.logits, **options)
    return token, jax.nn.log_softmax(before.logits)[rows, token].astype(jnp.float32)


def record(
    rules: Rules, before: Progress, drawn: tuple[RowTokens, jax.Array], found: tuple[Logits, Any]
) -> Progress:
    """The second half: what is there once the network has read the tokens.

    Args:
      rules: of the draws.
      before: what was there.
      drawn: of `draw`.
      found: logits (b, v) and state that the network makes of the tokens, as `one_token` has them.
    """
    step, rows = before.step, jnp.arange(before.last.shape[0])
    (token, log_probability), (logits, state), stopped = drawn, found, before.stopped
    if rules.stop_tokens is not None:
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


class TokenStream:
    """An iterator over the tokens (b,) of each step; the ``stream`` of a family makes it.

    Compiled code is called for one token after another here. A callback from within a compiled loop would
    also stream, but could not raise, stop or be interrupted as any Python does.

    Args:
      advance: of the network.
      progress: before the first new token.
      max_new_tokens: per row.
      pad_token: what a row gives after its end.

    Raises:
      ValueError: logits are NaN; later, too.
    """

    def __init__(self, advance: Advance, progress: Progress, max_new_tokens: int, pad_token: int):
        self._advance, self._progress = advance, progress
        self._max_new_tokens, self._pad_token = max_new_tokens, pad_token
        self._step, self._ended = 0, False
        self._look()

    def __iter__(self) -> Iterator[np.ndarray]:
        """The iterator itself."""
        return self

    def __next__(self) -> np.ndarray:
        """The next tokens (b,) int32."""
        if self._ended:
            raise StopIteration
        self._go_on(self._step + 1)
        return np.array(self._progress.last)

    @property
    def stopped(self) -> np.ndarray:
        """(b,) whether each row has ended."""
        return np.array(self._progress.stopped)

    def _rest(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
        """Generate what is left: all tokens (b, n), lengths (b,), log probabilities (b, n), and the state."""
        self._go_on(self._max_new_tokens)
        progress, count = self._progress, self._max_new_tokens
        tokens = np.array(progress.tokens)[:, :count]
        tokens[:, self._step :] = self._pad_token
        log_probabilities = np.array(progress.log_probabilities)[:, :count]
        # A copy: the next step would reuse the memory if somebody went on.
        state = jax.tree.map(jnp.copy, progress.state)
        return tokens, np.array(progress.lengths), log_probabilities, state

    def _go_on(self, until: int) -> None:
        """Towards ``until`` tokens, unless all rows end before."""
        while not self._ended and self._step < until:
            self._progress = self._advance(self._progress, until)
            self._look()

    def _look(self) -> None:
        progress = self._progress
        step, stopped, is_nan = jax.device_get((progress.step, progress.stopped, progress.is_nan))
        self._step = int(step)
        if is_nan:
            self._ended = True
            raise ValueError(
                f"logits are NaN after {self._step} new tokens: the parameters hold NaN, or the computation "
                "overflows in their dtype"
            )
        self._ended = bool(stopped.all()) or self._step >= self._max_new_tokens
