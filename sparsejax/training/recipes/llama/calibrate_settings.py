"""What ``sparsejax calibrate`` is told; light, so that other commands import no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class LlamaCalibrateSettings:
    """Fit predictors that say which neurons of a Llama a token needs, and measure what they are worth.

    Attributes:
      model: .gguf file, or sparsejax directory of one.
      data: text file, or folder of text files, in UTF-8, like what the model will read.
      out: directory for the predictors; an earlier one is replaced in one step.
      predictor: low-rank is fitted in closed form; mlp, the two-layer one of PowerInfer, by gradients.
      rank: width of the predictor; a quarter of the model's if not given.
      fine_tune: steps of gradient descent on which neurons are the best ones, after the closed form; of mlp
        all its steps, 400 if not given.
      active_fraction: of the neurons: what thresholds are fitted to, and what the table tells of.
      recall: fit thresholds to find this part of the best neurons instead; generate takes them with
        --select-by threshold.
      tokens: of the text to read at most.
      context: tokens read together; what the model was trained for, at most 512, if not given.
      held_out: part of the text that is only measured on.
      perplexity: measure the perplexity of the held-out text for fewer and fewer neurons.
      pattern: names of a folder's files.
      separator: text between the documents of a file; a file is one document if there is none.
      plots: draw the perplexities (needs matplotlib).
      seed: of what is drawn.
      quiet: print nothing but errors.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    data: Path
    out: Path
    predictor: Literal["low-rank", "mlp"] = "low-rank"
    rank: int | None = None
    fine_tune: int | None = None
    active_fraction: float = 0.25
    recall: float | None = None
    tokens: int = 65536
    context: int | None = None
    held_out: float = 0.2
    perplexity: bool = True
    pattern: str = "*.txt"
    separator: str = ""
    plots: bool = False
    seed: int = 0
    quiet: bool = False
