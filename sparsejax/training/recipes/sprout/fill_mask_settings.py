"""What ``sparsejax fill-mask`` is told; light, so that other commands import no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sparsejax.training.override import Override


@dataclass(frozen=True)
class FillMaskSettings:
    """Guess the masked words of a text with a masked language model.

    Attributes:
      checkpoint: folder of a run (its best network is taken), sparsejax directory, or .pt file.
      text: with at least one mask, [MASK] for most tokenizers.
      k: guesses per mask.
      top_k: neurons per token; all if not given.
      tokenizer: WordPiece vocab.txt or tokenizer.json; if there is none, the one that the checkpoint was
        trained with.
      variant: layout of a .pt file where its keys do not tell.
      override: config values that the file does not tell, NAME=VALUE; repeat it for several.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
    k: int = 5
    top_k: int | None = None
    tokenizer: Path | None = None
    variant: str | None = None
    override: Override = ()
