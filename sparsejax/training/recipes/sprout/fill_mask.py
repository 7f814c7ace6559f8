"""Masked words guessed: checkpoint, tokenizer and model put together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.load import load
from sparsejax.models.sprout.fill_mask import fill_mask as fill_ids
from sparsejax.training.recipes.sprout.fill_mask_settings import FillMaskSettings
from sparsejax.training.run_folder import best_of
from sparsejax.training.text.checkpoint_tokenizer import check_vocabulary, tokenizer_of
from sparsejax.training.text.special import special_ids
from sparsejax.training.text.tokenizer import JsonTokenizer, Tokenizer, read_tokenizer


class Guess(NamedTuple):
    """What may stand at a mask.

    Attributes:
      token: as the vocabulary has it; "##" goes on with the word before.
      id: of the token.
      probability: that the model gives it.
      text: with the token at this mask; other masks stay.
    """

    token: str
    id: int
    probability: float
    text: str


def fill_mask(
    ck: Checkpoint,
    text: str,
    k: int = 5,
    *,
    top_k: int | None = None,
    tokenizer: Tokenizer | None = None,
    **options: Any,
) -> list[list[Guess]]:
    """The ``k`` most probable tokens at every mask of a text.

    Args:
      ck: of a SPROUT model.
      text: with masks.
      k: guesses per mask.
      top_k: neurons per token; None is all, or the checkpoint's own ``sparse_k``.
      tokenizer: of the text; the one that the checkpoint names if not given.
      options: of the model's call.

    Returns:
      for every mask its guesses, the most probable first.

    Raises:
      ValueError: the text has no mask or is too long, there is no tokenizer, or it does not fit the model.

    Source: specs/sprout.md section 5, analyze_checkpoint.py, whose sentences are fixed.
    """
    if tokenizer is None:
        tokenizer = tokenizer_of(ck)
    special = special_ids(tokenizer)
    assert isinstance(tokenizer, JsonTokenizer)  # others have no mask
    check_vocabulary(tokenizer, ck)
    mask = tokenizer.token(special.mask)
    if mask not in text:
        raise ValueError(f"there is no {mask} in the text: put it where a word is to be guessed")
    ids = [special.cls, *map(int, tokenizer.encode(text.encode("utf-8", "replace"))), special.sep]
    found = fill_ids(ck, ids, mask_id=special.mask, k=k, top_k=top_k, **options)
    return [
        [
            Guess(
                token := tokenizer.token(number),
                int(number),
                float(chance),
                _filled(text, mask, place, token),
            )
            for number, chance in zip(*of_mask, strict=True)
        ]
        for place, of_mask in enumerate(zip(found.ids, found.probabilities, strict=True))
    ]


def guesses(settings: FillMaskSettings, overrides: Mapping[str, Any] | None = None) -> list[list[Guess]]:
    """What ``sparsejax fill-mask`` prints.

    Args:
      settings: of the command.
      overrides: ``settings.override`` as values.

    Raises:
      CheckpointError: the checkpoint cannot be read.
      ValueError: the text, a number or the tokenizer does not fit.
    """
    path = best_of(settings.checkpoint)
    ck = load(path, kind="sprout", variant=settings.variant, overrides=overrides)
    tokenizer = None if settings.tokenizer is None else read_tokenizer(settings.tokenizer)
    return fill_mask(ck, settings.text, settings.k, top_k=settings.top_k, tokenizer=tokenizer)


def _filled(text: str, mask: str, place: int, token: str) -> str:
    """The text with a token at one of its masks; a continuation is joined to the word before."""
    start = [found.start() for found in re.finditer(re.escape(mask), text)][place]
    before, after = text[:start], text[start + len(mask) :]
    return before.rstrip() + token[2:] + after if token.startswith("##") else before + token + after
