"""What ``sparsejax generate ten`` is told; light, so that other commands import no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparsejax.training.override import Override
from sparsejax.training.repeated import Texts


@dataclass(frozen=True)
class TenGenerateSettings:
    """Continue a text with a Temporal Eigenstate Network, printed as it is written.

    Attributes:
      checkpoint: folder of a run (its best network is taken), sparsejax directory, or .pt file.
      prompt: text to go on from.
      max_new_tokens: at most.
      temperature: 0 takes the most probable token each time.
      top_k: draw among the k most probable tokens only.
      top_p: draw among the most probable tokens only, as few as reach this probability together.
      repetition_penalty: above 1 makes tokens that have occurred less likely.
      seed: of the draws.
      stop: end before this text; repeat it for several.
      tokenizer: tokenizer.json of the tokenizers library; if there is none, the one that the checkpoint was
        trained with, or bytes.
      stack: of a network with two, by total length if not given.
      variant: layout of a .pt file where its keys do not tell.
      override: config values that the file does not tell, NAME=VALUE; repeat it for several.
      echo: print the prompt, too.
    """

    checkpoint: Path
    prompt: str
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: Texts = ()
    tokenizer: Path | None = None
    stack: Literal["short", "long", "both"] | None = None
    variant: str | None = None
    override: Override = ()
    echo: bool = True
