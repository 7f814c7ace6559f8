"""What a training of a Llama is made from: settings, network, tokenizer and text, all checked."""

from __future__ import annotations

import importlib.util
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from sparsejax.checkpoint.gguf import read_gguf
from sparsejax.models.sparse_inference.llama_config import LlamaConfig
from sparsejax.training.progress import Style
from sparsejax.training.recipes import llama_parts
from sparsejax.training.recipes.llama_file import check_format
from sparsejax.training.recipes.llama_settings import LlamaSettings
from sparsejax.training.recipes.llama_text import FileTokenizer, documents
from sparsejax.training.recipes.llama_vocabulary import vocabulary
from sparsejax.training.run_folder import Standing, standing
from sparsejax.training.sharding import batch_sharding, training_mesh
from sparsejax.training.text.corpus import Corpus, read_corpus, split
from sparsejax.training.text.packing import Windows

_STEPS_PER_CALL = 10
_COUNTS = (
    "d_model",
    "d_ff",
    "n_layers",
    "n_heads",
    "steps",
    "batch_size",
    "seq_len",
    "accumulate",
    "validate_every",
    "save_every",
)
_RULING = (
    "steps",
    "batch_size",
    "seq_len",
    "learning_rate",
    "schedule",
    "warmup",
    "weight_decay",
    "clip",
    "sparsity_weight",
    "accumulate",
    "bf16",
    "seed",
    "validate_every",
    "format",
)
"""Settings that the result depends on, beside the text and the network; devices only round otherwise."""


@dataclass(frozen=True)
class Prepared:
    """A run that has passed every check; nothing is written yet.

    Attributes:
      settings: what was asked for.
      config: the network.
      tokenizer: of the text.
      vocabulary: metadata of a GGUF file that make the tokenizer.
      windows: of the training part.
      held_out: of the validation part.
      tokens: in the training part, and in the validation part.
      mesh: devices.
      rows: where a batch goes.
      identity: everything that the result depends on; plain JSON.
      standing: what --out holds: nothing, or this run unfinished or finished.
    """

    settings: LlamaSettings
    config: LlamaConfig
    tokenizer: FileTokenizer
    vocabulary: Mapping[str, Any]
    windows: TokenWindows
    held_out: TokenWindows
    tokens: tuple[int, int]
    mesh: Mesh
    rows: NamedSharding
    identity: Mapping[str, Any]
    standing: Standing

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.settings.out

    @property
    def steps_per_call(self) -> int:
        """A divisor of the steps between two validations and between two saves."""
        return math.gcd(self.settings.validate_every, self.settings.save_every, _STEPS_PER_CALL)

    @property
    def style(self) -> Style:
        """How progress is shown."""
        return "quiet" if self.settings.quiet else "plain" if self.settings.plain else "auto"

    @property
    def dtype(self) -> Any:
        """Of the computation; None is that of the parameters."""
        return jnp.bfloat16 if self.settings.bf16 else None


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
      `Prepared`, for `sparsejax.training.recipes.llama.train`.

    Raises:
      ValueError: impossible numbers, missing or unsuitable text, or a folder that holds something else; one
        line.
      CheckpointError: the file of --tokenizer-from has no tokenizer that is known.
      ModuleNotFoundError: grain or tokenizers, the extra ``text``, is missing.
    """
    _check_numbers(settings)
    if importlib.util.find_spec("grain") is None:
        raise ModuleNotFoundError("training on text needs grain", name="grain")
    if settings.plots and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plots needs matplotlib: pip install 'sparsejax[plots]', or give --no-plots")
    mesh = training_mesh(settings.devices, settings.model_devices)
    rows = batch_sharding(mesh, settings.batch_size // settings.accumulate)
    llama_parts.optimizer(settings)
    words = _vocabulary(settings)
    tokenizer = FileTokenizer(words)
    config = llama_parts.network_config(settings, tokenizer.vocab_size)
    check_format(config, settings.format)
    training, held_out = _texts(settings, tokenizer)
    identity = {
        "family": "sparse_inference",
        "text checksum": _checksum(training, held_out),
        "tokenizer checksum": f"{zlib.crc32(tokenizer.name.encode()):08x}",
        "network": config.to_json(),
        **{name.replace("_", " "): getattr(settings, name) for name in _RULING},
    }
    return Prepared(
        settings,
        config,
        tokenizer,
        words,
        TokenWindows(training, settings.seq_len),
        TokenWindows(held_out, settings.seq_len, keep_rest=True),
        (len(training.tokens), len(held_out.tokens)),
        mesh,
        rows,
        identity,
        standing(settings.out, identity, resume=settings.resume),
    )


def _vocabulary(settings: LlamaSettings) -> dict[str, Any]:
    if settings.tokenizer_from is not None:
        metadata = read_gguf(settings.tokenizer_from).metadata
        return {key: metadata[key] for key in metadata if key.startswith("tokenizer.")}
    texts = documents(settings.data, pattern=settings.pattern, separator=settings.separator)
    return vocabulary(settings.tokenizer, texts, settings.vocab_size)


def _texts(settings: LlamaSettings, tokenizer: FileTokenizer) -> tuple[Corpus, Corpus]:
    read = partial(read_corpus, tokenizer=tokenizer, pattern=settings.pattern, separator=settings.separator)
    corpus = read(settings.data)
    if settings.validation_data is not None:
        return corpus, read(settings.validation_data)
    return split(corpus, settings.validation_fraction, seed=settings.seed)


def _check_numbers(settings: LlamaSettings) -> None:
    for name in _COUNTS:
        if getattr(settings, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(settings, name)}")
    for name in ("learning_rate", "weight_decay", "clip", "sparsity_weight"):
        value = getattr(settings, name)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"--{name.replace('_', '-')} must be at least 0, not {value}")
    if settings.batch_size % settings.accumulate:
        raise ValueError(
            f"--batch-size {settings.batch_size} does not divide into the {settings.accumulate} parts "
            "of --accumulate"
        )
    if not 0 <= settings.seed < 2**32:
        raise ValueError(f"--seed must be between 0 and 2^32, not {settings.seed}")


def _checksum(*parts: Corpus) -> str:
    checksum = 0
    for part in parts:
        for array in part:
            checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
    return f"{checksum:08x}"
