"""What ``sparsejax train llama`` is told; light, so that other commands import no training code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparsejax.training.text_settings import TextSettings

FileFormat = Literal["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q6_k"]
"""What matrices can be written in; norms and biases stay float32."""


@dataclass(frozen=True)
class LlamaSettings(TextSettings):
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
      seq_len: tokens per window, and the context length in the file.
      schedule: of the learning rate after the warm-up.
      weight_decay: of matrices, per step, times the learning rate.
      seed: of the first parameters and the order of windows.
    """

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
    learning_rate: float = 2e-3
    schedule: Literal["cosine", "constant"] = "cosine"
