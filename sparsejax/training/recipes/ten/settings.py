"""What ``sparsejax train ten`` is told; light, so that other commands import no training code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparsejax.training.repeated import Options
from sparsejax.training.text_settings import TextSettings


@dataclass(frozen=True)
class TenSettings(TextSettings):
    """Train a Temporal Eigenstate Network to predict the next token of local text.

    Attributes:
      preset: network by name: tiny and mini suit a CPU; the published ones are nano, micro, small, medium,
        large, xlarge, small_32k, medium_32k, large_32k.
      model_option: any field of the network's config, such as dim=256 or init=legacy; repeat it for several.
      tokenizer: tokenizer.json of the tokenizers library; bytes are read if there is none.
      schedule: of the learning rate after the warm-up; torch_cosine is torch's CosineAnnealingLR, which has
        no warm-up.
      decay: all decays every parameter as the published trainers did; weights spares eigenvalues, norms,
        biases and positions.
      eigenvalue_rate: factor of the learning rate for decays and frequencies of the eigenstates.
    """

    preset: str = "tiny"
    model_option: Options = ()
    tokenizer: Path | None = None
    schedule: Literal["cosine", "constant", "torch_cosine"] = "cosine"
    decay: Literal["weights", "all"] = "weights"
    eigenvalue_rate: float = 1.0
