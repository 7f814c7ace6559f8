"""What a masked language model takes the masked tokens of a sequence to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.checkpoint.checkpoint import Checkpoint


class Candidates(NamedTuple):
    """The most probable tokens at each mask.

    Attributes:
      places: (m,) positions of the masks.
      ids: (m, k) token ids, the most probable first.
      probabilities: (m, k) of all tokens of the vocabulary.
    """

    places: np.ndarray
    ids: np.ndarray
    probabilities: np.ndarray


def fill_mask(
    ck: Checkpoint, ids: Sequence[int], *, mask_id: int, k: int = 5, top_k: int | None = None, **options: Any
) -> Candidates:
    """The ``k`` most probable tokens at every mask of a sequence.

    Args:
      ck: of a SPROUT model.
      ids: the sequence, marks at its ends included.
      mask_id: id of the mask.
      k: candidates per mask.
      top_k: neurons per token; None is all, or the checkpoint's own ``sparse_k``.
      options: of the model's call.

    Raises:
      ValueError: there is no mask, the model is none of language, or a number does not fit.

    Example:
      >>> import sparsejax as sj
      >>> from sparsejax.models.sprout import SproutConfig, SproutLM
      >>> config = SproutConfig(vocab_size=9, d_model=4, d_ff=8, n_heads=1, n_layers=1, max_len=4)
      >>> params = jax.jit(SproutLM(config).init)(jax.random.key(0), np.zeros((1, 2), int))["params"]
      >>> found = fill_mask(sj.Checkpoint("sprout", "v1", config, params), [5, 3, 6], mask_id=3, k=2)
      >>> found.places.tolist(), found.ids.shape
      ([1], (1, 2))
    """
    vocabulary = getattr(ck.config, "vocab_size", None)
    if vocabulary is None:
        raise ValueError("a feed-forward part on its own guesses no words: give the file of a whole model")
    if not 1 <= k <= vocabulary:
        raise ValueError(f"k must be between 1 and the vocabulary's {vocabulary} tokens, not {k}")
    row = np.asarray(ids, np.int32)
    places = np.flatnonzero(row == mask_id)
    if not len(places):
        raise ValueError("there is no mask in the text")
    logits = ck.apply(row[None], top_k=top_k, **options).logits[0, places]
    probabilities, found = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), k)
    return Candidates(places, np.asarray(found), np.asarray(probabilities))
