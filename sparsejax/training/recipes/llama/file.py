"""A trained Llama as a complete GGUF file: network, tokenizer, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsejax.checkpoint.gguf import write_gguf
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.metadata import llama_metadata
from sparsejax.models.sparse_inference.llama.names import tensor_places
from sparsejax.models.sparse_inference.llama.weights import llama_tensors, quantize_llama
from sparsejax.ops.quantized import FORMATS
from sparsejax.typing import Params

_FILE_TYPES = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q8_0": 7,
    "q5_0": 8,
    "q5_1": 9,
    "q4_k": 14,
    "q6_k": 18,
    "bf16": 32,
}
"""general.file_type by format. Source: the GGUF specification."""

_QUANTIZATION_VERSION = 2


def write_llama(
    path: Path,
    config: LlamaConfig,
    params: Params,
    *,
    kept_format: str = "q8_0",
    also: Mapping[str, Any] | None = None,
) -> None:
    """Write a GGUF file; matrices in a format, norms and biases in float32.

    Args:
      path: file to write, whole or not at all.
      config: of the network.
      params: its parameters, plain arrays.
      kept_format: of the matrices; see `check_format`.
      also: further metadata, such as the tokenizer's and ``general.name``.

    Raises:
      ValueError: the format does not fit the sizes.
      CheckpointError: the file cannot be written, or a value is not finite.

    Source: the GGUF specification; specs/sparse_inference.md sections 6 and 13.
    """
    check_format(config, kept_format)
    metadata = {
        **llama_metadata(config),
        "general.file_type": _FILE_TYPES[kept_format],
        "general.quantization_version": _QUANTIZATION_VERSION,
        **(also or {}),
    }
    if kept_format != "f32":
        config, params = quantize_llama(config, params, kept_format)
    write_gguf(path, metadata, llama_tensors(config, params))


def check_format(config: LlamaConfig, kept_format: str) -> None:
    """Refuse a format whose blocks do not fit the rows of the matrices.

    Raises:
      ValueError: names the matrix, and formats that fit.

    Example:
      >>> check_format(LlamaConfig(vocab_size=9, d_model=24, d_ff=32, n_layers=1, n_heads=2), "q8_0")
      Traceback (most recent call last):
      ValueError: token_embd.weight has rows of 24 numbers, no blocks of 32 as q8_0 needs; give f16 or f32
    """
    if kept_format not in _FILE_TYPES:
        raise ValueError(f"format {kept_format!r} is not one of {tuple(_FILE_TYPES)}")
    block = FORMATS[kept_format].block
    for place in tensor_places(config):
        if len(place.shape) > 1 and place.shape[-1] % block:
            raise ValueError(
                f"{place.name} has rows of {place.shape[-1]} numbers, no blocks of {block} as "
                f"{kept_format} needs; give f16 or f32"
            )
