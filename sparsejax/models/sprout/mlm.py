"""Masked language modelling: which tokens are hidden, and what guessing them costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from sparsejax.ops.token_ids import IGNORED
from sparsejax.typing import Scalar, TokenDraws, TokenLogits, Tokens

_UNUSED_BITS = 8  # float32 holds 24


@dataclass(frozen=True)
class MaskingRule:
    """What `mask_tokens` hides.

    Attributes:
      vocab_size: random words are below it.
      mask_id: id of the mask token.
      special_ids: never hidden: those of padding, unknown words, marks and the mask itself.
      probability: of a token to be hidden.
    """

    vocab_size: int
    mask_id: int
    special_ids: tuple[int, ...]
    probability: float = 0.15


def mlm_apply(  # noqa: PLR0917 - the draws of the published rule, in its order
    ids: Tokens,
    bern_mask: TokenDraws,
    bern_80: TokenDraws,
    bern_50: TokenDraws,
    random_words: Tokens,
    special_ids: Sequence[int],
    mask_id: int,
) -> tuple[Tokens, Tokens]:
    """The published rule, from its random draws: of the hidden tokens 80 % masked, 10 % random, 10 % kept.

    Args:
      ids: (*b, t) tokens.
      bern_mask: (*b, t) 1 where a token is drawn to be hidden.
      bern_80: (*b, t) 1 where a hidden token becomes the mask.
      bern_50: (*b, t) 1 where one that does not becomes a random word.
      random_words: (*b, t) those words.
      special_ids: ids that are never hidden.
      mask_id: id of the mask.

    Returns:
      what the network reads (*b, t), and the labels (*b, t): the ids at hidden tokens, else `IGNORED`.

    Example:
      >>> draws = [jnp.asarray(row) for row in ([1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 0], [5, 6, 7, 8])]
      >>> read, labels = mlm_apply(jnp.asarray([2, 11, 12, 13]), *draws, special_ids=[2], mask_id=4)
      >>> read.tolist(), labels.tolist()
      ([2, 4, 7, 13], [-100, 11, 12, 13])

    Source: specs/sprout.md section 4.
    """
    special = jnp.isin(ids, jnp.asarray(special_ids))
    hidden = jnp.asarray(bern_mask, bool) & ~special
    masked = hidden & jnp.asarray(bern_80, bool)
    replaced = hidden & ~masked & jnp.asarray(bern_50, bool)
    read = jnp.where(masked, mask_id, jnp.where(replaced, random_words, ids))
    return read, jnp.where(hidden, ids, IGNORED)


def mask_tokens(key: jax.Array, ids: Tokens, rule: MaskingRule) -> tuple[Tokens, Tokens]:
    """Hide tokens at random by the published rule; pure.

    Args:
      key: PRNG key.
      ids: (*b, t) tokens.
      rule: what to hide.

    Returns:
      what the network reads (*b, t), and the labels (*b, t).

    Example:
      >>> rule = MaskingRule(vocab_size=50, mask_id=4, special_ids=(0, 4), probability=0.5)
      >>> read, labels = mask_tokens(jax.random.key(0), jnp.full((1, 8), 9), rule)
      >>> bool(((labels == 9) | (labels == IGNORED)).all())
      True
    """
    chance, word = jax.random.bits(key, (2, *ids.shape), jnp.uint32)
    # One number decides all three: of those below the probability, the lowest 80 % and so on.
    chance = (chance >> _UNUSED_BITS).astype(jnp.float32) / (1 << (32 - _UNUSED_BITS))
    hidden, masked, changed = (chance < rule.probability * part for part in (1, 0.8, 0.9))
    random_words = (word % rule.vocab_size).astype(ids.dtype)
    return mlm_apply(ids, hidden, masked, changed, random_words, rule.special_ids, rule.mask_id)


def mlm_loss(logits: TokenLogits, labels: Tokens) -> tuple[Scalar, Scalar]:
    """Mean cross entropy of the tokens to be guessed.

    Args:
      logits: (*b, t, v).
      labels: (*b, t); `IGNORED` ones do not count.

    Returns:
      loss () in nats, 0 where nothing counts; count ().

    Example:
      >>> loss, count = mlm_loss(jnp.zeros((1, 2, 8)), jnp.asarray([[3, IGNORED]]))
      >>> round(float(loss), 4), int(count)
      (2.0794, 1)
      >>> [float(part) for part in mlm_loss(jnp.zeros((1, 2, 8)), jnp.full((1, 2), IGNORED))]
      [0.0, 0.0]

    Source: specs/sprout.md section 1.5; there the loss of nothing is NaN.
    """
    counted = labels != IGNORED
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    of_label = jnp.take_along_axis(logits, jnp.where(counted, labels, 0)[..., None], axis=-1)[..., 0]
    losses = jnp.where(counted, jax.nn.logsumexp(logits, axis=-1) - of_label, 0)
    count = counted.sum()
    return losses.sum() / jnp.maximum(count, 1), count.astype(losses.dtype)


def mlm_accuracy(logits: TokenLogits, labels: Tokens) -> Scalar:
    """The part () of the tokens to be guessed whose label has the largest logit; 0 where there are none.

    Example:
      >>> float(mlm_accuracy(jnp.eye(3)[None], jnp.asarray([[0, 2, IGNORED]])))
      0.5
    """
    counted = labels != IGNORED
    correct = counted & (logits.argmax(axis=-1) == labels)
    return correct.sum() / jnp.maximum(counted.sum(), 1)
