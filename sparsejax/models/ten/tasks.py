"""Two synthetic tasks of memory: say again what was shown long ago, and look up what was paired with what."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.ops.token_ids import IGNORED
from sparsejax.typing import Tokens


class Examples(NamedTuple):
    """A batch of sequences with what is to be said after each token.

    Attributes:
      tokens: (b, t) int32.
      targets: (b, t) int32, the answer at the position that asks for it; `IGNORED` elsewhere.
    """

    tokens: Tokens
    targets: Tokens


def delayed_copy(
    key: jax.Array, batch: int, *, delay: int, num_symbols: int, num_shown: int = 1, num_fillers: int = 1
) -> Examples:
    """Show some symbols, pass the time, then ask for them in the order shown.

    The ids 0 to ``num_symbols - 1`` are the symbols, the next ``num_fillers`` pass the time, and the last
    one, ``num_symbols + num_fillers``, asks. A guess is right once in ``num_symbols``.

    Args:
      key: PRNG key.
      batch: sequences.
      delay: fillers between the last symbol and the first question.
      num_symbols: different symbols.
      num_shown: symbols per sequence.
      num_fillers: different fillers, drawn at random: one is silence, several are noise.

    Returns:
      `Examples` of ``t = delay + 2 * num_shown``.

    Raises:
      ValueError: a count is below 1, or the delay below 0.

    Example:
      >>> tokens, targets = delayed_copy(jax.random.key(0), 1, delay=3, num_symbols=8, num_shown=2)
      >>> tokens.tolist(), targets.tolist()
      ([[7, 1, 8, 8, 8, 9, 9]], [[-100, -100, -100, -100, -100, 7, 1]])

    Source: Arjovsky, Shah, Bengio 2016, section 5.1 (there 10 of 8 symbols, and silence).
    """
    if delay < 0 or min(batch, num_symbols, num_shown, num_fillers) < 1:
        raise ValueError("delayed_copy needs a delay of at least 0 and at least 1 of everything else")
    of_symbols, of_fillers = jax.random.split(key)
    shown = jax.random.randint(of_symbols, (batch, num_shown), 0, num_symbols)
    fillers = jax.random.randint(of_fillers, (batch, delay), num_symbols, num_symbols + num_fillers)
    questions = jnp.full_like(shown, num_symbols + num_fillers)
    before = jnp.full((batch, num_shown + delay), IGNORED, shown.dtype)
    return Examples(
        jnp.concatenate([shown, fillers, questions], axis=1), jnp.concatenate([before, shown], axis=1)
    )


def mqar(
    key: jax.Array,
    batch: int,
    *,
    length: int,
    num_pairs: int,
    vocabulary: int,
    power: float | jax.Array = 0.01,
) -> Examples:
    """Multi-query associative recall: pairs of a key and a value, then every key once more, in any order.

    Keys are ids of the lower half of the vocabulary, values of the upper one; neither repeats among the pairs
    of a sequence. After the pairs, each key returns at a place of its own, near ones being likelier, and its
    value is to be said there. Random ids, which ask for nothing, fill the other places. A guess among the
    values is right twice in ``vocabulary``; one among those that were shown, once in ``num_pairs``.

    Args:
      key: PRNG key.
      batch: sequences.
      length: tokens per sequence.
      num_pairs: to remember.
      vocabulary: ids, even.
      power: the n-th place after the pairs is drawn with a weight of n ** (power - 1); 1 makes all alike.

    Returns:
      `Examples` of ``t = length``.

    Raises:
      ValueError: a count is below 1, the pairs do not fit the length, or the vocabulary has too few keys.

    Example:
      >>> tokens, targets = mqar(jax.random.key(0), 1, length=8, num_pairs=2, vocabulary=8)
      >>> tokens.tolist(), targets.tolist()
      ([[0, 7, 1, 5, 1, 0, 2, 6]], [[-100, -100, -100, -100, 5, 7, -100, -100]])

    Source: Arora et al. 2023 (Zoology), section 3 and its generator, whose questions stand two places apart.
    """
    if min(batch, num_pairs) < 1 or length < 3 * num_pairs:
        raise ValueError(f"{num_pairs} pairs and their keys again do not fit into {length} tokens")
    if vocabulary % 2 or vocabulary < 2 * num_pairs:
        raise ValueError(f"a vocabulary of {vocabulary} does not have {num_pairs} keys and as many values")
    make = jax.vmap(lambda own: _lookup(own, length, num_pairs, vocabulary, power))
    return make(jax.random.split(key, batch))


def _lookup(
    key: jax.Array, length: int, num_pairs: int, vocabulary: int, power: float | jax.Array
) -> Examples:
    """One sequence of `mqar`: (t,)."""
    of_keys, of_values, of_places, of_fillers = jax.random.split(key, 4)
    half, rest = vocabulary // 2, length - 2 * num_pairs
    keys = jax.random.permutation(of_keys, half)[:num_pairs]
    values = half + jax.random.permutation(of_values, half)[:num_pairs]
    weights = jnp.arange(1, rest + 1) ** (power - 1.0)
    places = jax.random.choice(of_places, rest, (num_pairs,), replace=False, p=weights / weights.sum())
    fillers = jax.random.randint(of_fillers, (rest,), 0, vocabulary)
    pairs = jnp.stack([keys, values], axis=1).ravel()
    return Examples(
        jnp.concatenate([pairs, fillers.at[places].set(keys)]),
        jnp.full(length, IGNORED).at[2 * num_pairs + places].set(values),
    )
