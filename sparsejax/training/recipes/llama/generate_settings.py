"""What ``sparsejax generate MODEL`` is told of a Llama; light, so that other commands import no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sparsejax.training.repeated import Texts


@dataclass(frozen=True)
class LlamaGenerateSettings:
    """Continue a text with a Llama in a GGUF file, computing all of its neurons or some.

    Attributes:
      model: .gguf file, or sparsejax directory of one.
      prompt: text to go on from.
      predictors: directory that ``sparsejax calibrate`` wrote.
      active_fraction: of the neurons that a token computes; with --predictors, by whose own share it is
        otherwise.
      select_by: a count of neurons, the same for every token, or the thresholds that ``sparsejax calibrate``
        found, for its --recall if it was given one: then tokens compute as many as they need.
      select: neurons one by one, or whole blocks of them, as quantised matrices hold them; auto takes single
        ones where their matrices fit into 4 GiB without quantisation.
      device_budget: most memory of the device that neurons take, such as 500MB or 2GB; the others stay in
        host memory and come when a token needs them. The end of the text is followed, on standard error, by
        how many were there.
      max_new_tokens: at most.
      temperature: 0 takes the most probable token each time.
      top_k: draw among the k most probable tokens only.
      top_p: draw among the most probable tokens only, as few as reach this probability together.
      repetition_penalty: above 1 makes tokens that have occurred less likely.
      seed: of the draws.
      stop: end before this text; repeat it for several.
      echo: print the prompt, too.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    prompt: str
    predictors: Path | None = None
    active_fraction: float | None = None
    select_by: Literal["count", "threshold"] = "count"
    select: Literal["auto", "neurons", "blocks"] = "auto"
    device_budget: Annotated[str | None, tyro.conf.arg(metavar="BYTES")] = None
    max_new_tokens: int = 128
    temperature: float = 0.7
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: Texts = ()
    echo: bool = True
