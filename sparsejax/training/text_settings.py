"""What trainings on the next token of local text are told; light, as other settings are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsejax.training.job_settings import JobSettings


@dataclass(frozen=True)
class TextSettings(JobSettings):
    """Settings that do not depend on the network.

    Attributes:
      data: text file, or folder of text files.
      out: folder for metrics, the best and the final network and what --resume needs.
      pattern: names of a folder's files.
      separator: text between the documents of a file, such as <|endoftext|>; a file is one document if
        there is none.
      validation_data: held-out file or folder; a part of --data if there is none.
      validation_fraction: of --data to hold out: whole documents, or the end of the text if they are few.
      steps: optimiser steps.
      batch_size: windows per step, over all devices and accumulated parts.
      seq_len: tokens per window.
      learning_rate: highest one.
      warmup: steps in which the learning rate rises from 0; a tenth of the run, at most 2000, if not given.
      weight_decay: per step, times the learning rate.
      clip: longest gradient; 0 for any.
      accumulate: parts that a batch is computed in, one after another, to save memory.
      bf16: compute in bfloat16; parameters and states stay float32.
      seed: of the first parameters, the order of windows and dropout.
      devices: parts that a batch is spread over.
      model_devices: parts that large matrices are cut into.
      validate_every: steps between two validations.
      save_every: steps between two saves of what --resume needs.
      plots: draw PNGs at the end (needs matplotlib).
      resume: continue the unfinished run in --out, or begin if there is none.
      quiet: print nothing but errors.
      plain: lines instead of a progress bar.
    """

    data: Path
    out: Path
    pattern: str = "*.txt"
    separator: str = ""
    validation_data: Path | None = None
    validation_fraction: float = 0.05
    steps: int = 1000
    batch_size: int = 8
    seq_len: int = 256
    learning_rate: float = 1e-3
    warmup: int | None = None
    weight_decay: float = 0.1
    clip: float = 1.0
    accumulate: int = 1
    bf16: bool = False
    seed: int = 0
    devices: int = 1
    model_devices: int = 1
    validate_every: int = 200
    save_every: int = 200
    plots: bool = True
    resume: bool = False
    quiet: bool = False
    plain: bool = False
