"""What ``sparsejax train llama`` is told; light, so that other commands import no training code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FileFormat = Literal["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q6_k"]
"""What matrices can be written in; norms and biases stay float32."""


@dataclass(frozen=True)
class LlamaSettings:
    """Train a small Llama on local text and write it as GGUF, tokenizer included.

    Attributes:
      data: text file, or folder of text files, in UTF-8.
      out: folder for metrics, best.gguf, final.gguf and what --resume needs.
      d_model: width of the residual stream.
      d_ff: neurons per layer.
      n_layers: blocks.
      n_heads: query heads.
      n_kv_heads: key and value heads; as many as query heads if not given.
      activation: of the gates; silu makes SwiGLU, as every reader of GGUF computes it; relu makes ReGLU, most
        of whose neurons can be left out, but llama.cpp would compute it as SwiGLU.
      tied_output: read tokens and guess them with one matrix.
      sparsity_weight: how much the loss minds the share of neurons that act.
      tokenizer: bytes; or pieces of words trained from the text, kept in the file as llama (by score) or gpt2
        (merges).
      vocab_size: tokens of a trained vocabulary, at most.
      tokenizer_from: GGUF file whose tokenizer is taken instead.
      format: of the matrices in the GGUF files.
      pattern: names of a folder's files.
      separator: text between the documents of a file, such as <|endoftext|>; a file is one document if
        there is none.
      validation_data: held-out file or folder; a part of --data if there is none.
      validation_fraction: of --data to hold out: whole documents, or the end of the text if they are few.
      steps: optimiser steps.
      batch_size: windows per step, over all devices and accumulated parts.
      seq_len: tokens per window, and the context length in the file.
      learning_rate: highest one.
      schedule: of the learning rate after the warm-up.
      warmup: steps in which the learning rate rises from 0; a tenth of the run, at most 2000, if not given.
      weight_decay: of matrices, per step, times the learning rate.
      clip: longest gradient; 0 for any.
      accumulate: parts that a batch is computed in, one after another, to save memory.
      bf16: compute in bfloat16; parameters stay float32.
      seed: of the first parameters and the order of windows.
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
    d_model: int = 128
    d_ff: int = 512
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int | None = None
    activation: Literal["silu", "relu"] = "silu"
    tied_output: bool = True
    sparsity_weight: float = 0.0
    tokenizer: Literal["bytes", "llama", "gpt2"] = "bytes"
    vocab_size: int = 1024
    tokenizer_from: Path | None = None
    format: FileFormat = "q8_0"
    pattern: str = "*.txt"
    separator: str = ""
    validation_data: Path | None = None
    validation_fraction: float = 0.05
    steps: int = 1000
    batch_size: int = 8
    seq_len: int = 256
    learning_rate: float = 2e-3
    schedule: Literal["cosine", "constant"] = "cosine"
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
