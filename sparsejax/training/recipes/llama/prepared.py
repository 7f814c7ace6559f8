"""What a training of a Llama is made from: settings, network, tokenizer and text, all checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsejax.checkpoint.gguf import read_gguf
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.training.recipes.llama import parts as llama_parts
from sparsejax.training.recipes.llama.file import check_format
from sparsejax.training.recipes.llama.settings import LlamaSettings
from sparsejax.training.recipes.llama.text import FileTokenizer
from sparsejax.training.recipes.llama.vocabulary import vocabulary
from sparsejax.training.text.corpus import documents
from sparsejax.training.text.packing import Windows
from sparsejax.training.text_run import TextRun, check_text_settings, prepared_run

Prepared = TextRun[LlamaSettings, LlamaConfig, FileTokenizer]
"""A run that has passed every check; nothing is written yet."""


class TokenWindows(Windows):
    """Windows of ``inputs`` and ``targets`` alone: the network sees documents packed before its own."""

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        """A window; `IndexError` ends an iteration."""
        window = super().__getitem__(number)
        return {"inputs": window["inputs"], "targets": window["targets"]}


def prepare(settings: LlamaSettings) -> Prepared:
    """Check everything that can be checked before training, and read the text; writes nothing.

    Args:
      settings: what is asked for.

    Returns:
      `Prepared`, for `sparsejax.training.recipes.llama.recipe.train`.

    Raises:
      ValueError: impossible numbers, missing or unsuitable text, or a folder that holds something else; one
        line.
      CheckpointError: the file of --tokenizer-from has no tokenizer that is known.
      ModuleNotFoundError: grain or tokenizers, the extra ``text``, is missing.
    """
    sizes = ("d_model", "d_ff", "n_layers", "n_heads")
    check_text_settings(settings, counts=sizes, amounts=("sparsity_weight",))
    llama_parts.optimizer(settings)
    tokenizer = FileTokenizer(_vocabulary(settings))
    config = llama_parts.network_config(settings, tokenizer.vocab_size)
    check_format(config, settings.format)
    ruling = ("schedule", "sparsity_weight", "format")
    return prepared_run(
        settings, config, tokenizer, family="sparse_inference", ruling=ruling, windows=TokenWindows
    )


def _vocabulary(settings: LlamaSettings) -> dict[str, Any]:
    if settings.tokenizer_from is not None:
        metadata = read_gguf(settings.tokenizer_from).metadata
        return {key: metadata[key] for key in metadata if key.startswith("tokenizer.")}
    found = documents(settings.data, pattern=settings.pattern, separator=settings.separator)
    return vocabulary(settings.tokenizer, (document.text() for document in found), settings.vocab_size)
