"""What callers give as a network: a checkpoint, or a module with its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsejax.checkpoint import network_source
from sparsejax.checkpoint.errors import CheckpointError
from sparsejax.models.sparse_inference.llama.model import LlamaLM
from sparsejax.models.sparse_inference.tokenizer.tokenizer import Tokenizer, read_tokenizer
from sparsejax.typing import Params


def model_and_params(source: Any) -> tuple[LlamaLM, Params]:
    """The module and its parameters.

    Args:
      source: a checkpoint, or ``(model, params)``.

    Raises:
      ValueError: it is neither, or of another family.
    """
    return network_source.model_and_params(source, LlamaLM)


def tokenizer_of(source: Any, *, needed: bool = True) -> Tokenizer | None:
    """The tokenizer in a checkpoint's metadata.

    Args:
      source: a checkpoint, or ``(model, params)``, which has none.
      needed: raise where there is a tokenizer that cannot be read; else it is as if there were none.

    Raises:
      CheckpointError: see `read_tokenizer`.
      ModuleNotFoundError: see `read_tokenizer`.
    """
    metadata = getattr(source, "metadata", None)
    if not isinstance(metadata, Mapping) or "tokenizer.ggml.model" not in metadata:
        return None
    try:
        return read_tokenizer(metadata)
    except (CheckpointError, ModuleNotFoundError):
        if needed:
            raise
        return None
