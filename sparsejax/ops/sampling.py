"""Choosing the next token from logits: a penalty, filters and a draw, exact and without a sort."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.typing import Logits, RowTokens, SeenTokens

_KEY_BITS = 32


class Rules(NamedTuple):
    """How tokens are chosen; all are arguments of the compiled step, so that other values compile nothing.

    Attributes:
      key: of the draws.
      sampling: numbers of `sample`; without "temperature" the most probable token is taken.
      stop_tokens: (s,) a row ends with any of them; None for none.
      pad_token: what a row gives after its end.

    Example:
      >>> Rules(jax.random.key(0), {"temperature": 0.7}, None, 0).sampling
      {'temperature': 0.7}
    """

    key: jax.Array
    sampling: dict[str, Any]
    stop_tokens: jax.Array | None
    pad_token: int


def sampling_rules(
    vocab_size: int,
    *,
    key: jax.Array | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop_tokens: Sequence[int] = (),
    pad_token: int = 0,
) -> Rules:
    """Rules from the options of a call, checked.

    Args:
      vocab_size: ids are below it.
      key: of the draws; None is ``jax.random.key(0)``, the same each time.
      temperature: see `sample`.
      top_k: see `sample`.
      top_p: see `sample`.
      repetition_penalty: see `sample`.
      stop_tokens: a row ends with any of them.
      pad_token: what a row gives after its end.

    Raises:
      ValueError: a number is out of its range, or a stop token is not of the vocabulary.

    Example:
      >>> sampling_rules(9, temperature=0, top_k=3, stop_tokens=[8]).sampling
      {}
    """
    numbers = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    check_sampling(**numbers, repetition_penalty=repetition_penalty)
    for token in stop_tokens:
        if not isinstance(token, int | np.integer) or not 0 <= token < vocab_size:
            raise ValueError(f"stop_tokens has {token!r}; this vocabulary has the ids 0 to {vocab_size - 1}")
    # A penalty of 1 and filters at temperature 0 change nothing: compiled code does without them.
    chosen = {name: value for name, value in numbers.items() if temperature > 0 and value is not None}
    if repetition_penalty != 1:
        chosen["repetition_penalty"] = repetition_penalty
    stops = jnp.asarray(stop_tokens, jnp.int32) if len(stop_tokens) else None
    return Rules(jax.random.key(0) if key is None else key, chosen, stops, pad_token)


def sample(
    key: jax.Array | None,
    logits: Logits,
    *,
    temperature: float | jax.Array = 1.0,
    top_k: int | jax.Array | None = None,
    top_p: float | jax.Array | None = None,
    repetition_penalty: float | jax.Array = 1.0,
    seen: SeenTokens | None = None,
) -> RowTokens:
    """One token per row; of equal logits the lowest index counts as the larger one.

    The penalty comes first, then the temperature, then ``top_k``, then ``top_p`` of what is left. A row's
    draw depends on the key, its number and its logits, and not on how many rows there are. Numbers may be
    traced under ``jax.jit``, but for a temperature of 0.

    Args:
      key: of the draw; not read at temperature 0.
      logits: (b, v) floats.
      temperature: logits are divided by it; 0 takes the largest one.
      top_k: only the k largest logits can be drawn; more than v are all of them.
      top_p: only the most probable tokens can be drawn, as few as reach this probability together.
      repetition_penalty: logits of seen tokens are divided by it where positive, multiplied where negative.
      seen: (b, v) whether the penalty falls on a token.

    Returns:
      (b,) int32.

    Raises:
      ValueError: a number is out of its range, or what it needs is missing.

    Example:
      >>> logits = jnp.array([[1.0, 3.0, 2.0], [5.0, 5.0, -5.0]])
      >>> sample(None, logits, temperature=0).tolist()
      [1, 0]
      >>> sample(jax.random.key(0), logits, top_k=1).tolist()
      [1, 0]
      >>> seen = jnp.array([[False, True, False], [True, False, False]])
      >>> sample(None, logits, temperature=0, repetition_penalty=2.0, seen=seen).tolist()
      [2, 1]
    """
    check_sampling(temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty)
    if not (_is_known(repetition_penalty) and repetition_penalty == 1):
        if seen is None:
            raise ValueError("a repetition_penalty needs seen, (b, v) whether a token has occurred")
        logits = penalize_repetition(logits, seen, repetition_penalty)
    if _is_known(temperature) and temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if key is None:
        raise ValueError("drawing tokens needs a key; temperature=0 takes the most probable one without")
    # Beside the largest: a tiny temperature would divide to infinity.
    logits = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    rows = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(logits.shape[0]))
    return jax.vmap(jax.random.categorical)(rows, logits).astype(jnp.int32)


def check_sampling(
    *, temperature: Any = 1.0, top_k: Any = None, top_p: Any = None, repetition_penalty: Any = 1.0
) -> None:
    """Refuse numbers that no draw can be made with; traced ones pass.

    Raises:
      ValueError: names the number.
    """
    if _is_known(temperature) and not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature must be 0 (the most probable token) or more, not {temperature}")
    if top_k is not None and _is_known(top_k) and (top_k != int(top_k) or top_k < 1):
        raise ValueError(f"top_k must be a whole number of at least 1, or None for all tokens, not {top_k}")
    if top_p is not None and _is_known(top_p) and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, or None for all tokens, not {top_p}")
    if _is_known(repetition_penalty) and not (math.isfinite(repetition_penalty) and repetition_penalty > 0):
        raise ValueError(f"repetition_penalty must be above 0 (1 is none), not {repetition_penalty}")


def penalize_repetition(logits: Logits, seen: SeenTokens, penalty: float | jax.Array) -> Logits:
    """Seen tokens made less likely: positive logits are divided by the penalty, negative ones multiplied.

    Args:
      logits: (b, v).
      seen: (b, v).
      penalty: above 1 against repetition, below 1 for it.

    Example:
      >>> penalize_repetition(jnp.array([[4.0, -4.0, 1.0]]), jnp.array([[True, True, False]]), 2.0).tolist()
      [[2.0, -8.0, 1.0]]

    Source: Keskar et al. 2019, CTRL, section 4.1; the sign rule is that of its later implementations.
    """
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def keep_top_k(logits: Logits, k: int | jax.Array) -> Logits:
    """The k largest logits of every row; minus infinity for the others.

    Args:
      logits: (b, v).
      k: at least 1; more than v keep all. May be traced.

    Example:
      >>> keep_top_k(jnp.array([[1.0, 2.0, 2.0, 2.0]]), 2).tolist()
      [[-inf, 2.0, 2.0, -inf]]
    """
    ranks = _ordered(logits)
    k = jnp.minimum(k, logits.shape[-1])
    threshold = _largest(lambda least: (ranks >= least).sum(axis=-1, keepdims=True) >= k, ranks)
    above, equal = ranks > threshold, ranks == threshold
    room = k - above.sum(axis=-1, keepdims=True)
    return jnp.where(above | (equal & (jnp.cumsum(equal, axis=-1) <= room)), logits, -jnp.inf)


def keep_top_p(logits: Logits, p: float | jax.Array) -> Logits:
    """The most probable tokens of every row, as few as reach probability p; minus infinity for the others.

    Args:
      logits: (b, v).
      p: above 0, at most 1; 1 keeps all. May be traced.

    Example:
      >>> jnp.isfinite(keep_top_p(jnp.log(jnp.array([[0.2, 0.5, 0.2, 0.1]])), 0.6)).tolist()
      [[True, True, False, False]]

    Source: Holtzman et al. 2020, nucleus sampling.
    """
    ranks = _ordered(logits)
    probabilities = jax.nn.softmax(logits, axis=-1)

    def mass(mask: jax.Array) -> jax.Array:
        return jnp.where(mask, probabilities, 0).sum(axis=-1, keepdims=True)

    threshold = _largest(lambda least: mass(ranks >= least) >= p, ranks)
    above, equal = ranks > threshold, ranks == threshold
    # Equal logits have equal probabilities: of those the first few complete the mass.
    earlier = jnp.cumsum(equal, axis=-1) - 1
    kept = above | (equal & (mass(above) + earlier * probabilities < p))
    # Rounding may leave the sum of all below p.
    return jnp.where(kept | (p >= 1), logits, -jnp.inf)


def _is_known(number: Any) -> bool:
    return not isinstance(number, jax.core.Tracer)


def _ordered(logits: jax.Array) -> jax.Array:
    """Unsigned integers in the order of the float32 logits."""
    values = logits.astype(jnp.float32)
    values = jnp.where(values == 0, 0.0, values)  # -0 equals 0
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _largest(holds: Callable[[jax.Array], jax.Array], ranks: jax.Array) -> jax.Array:
    """The largest threshold (b, 1) that a falling condition holds for, bit by bit.

    A reduction per bit costs less than sorting a vocabulary, and needs no fixed k.
    """

    def with_bit(number: int | jax.Array, threshold: jax.Array) -> jax.Array:
        candidate = threshold | (jnp.uint32(1 << (_KEY_BITS - 1)) >> jnp.uint32(number))
        return jnp.where(holds(candidate), candidate, threshold)

    lowest = jnp.zeros((*ranks.shape[:-1], 1), jnp.uint32)
    largest: jax.Array = jax.lax.fori_loop(0, _KEY_BITS, with_bit, lowest)
    return largest
