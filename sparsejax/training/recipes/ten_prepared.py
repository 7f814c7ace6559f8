"""What a training of a Temporal Eigenstate Network is made from: settings, network and text, all checked."""

from __future__ import annotations

import dataclasses
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

from sparsejax.models.ten import TemporalEigenstateConfig
from sparsejax.models.ten.presets import preset
from sparsejax.training.options import check_options, parse_options
from sparsejax.training.progress import Style
from sparsejax.training.recipes import ten_parts
from sparsejax.training.recipes.ten_settings import TenSettings
from sparsejax.training.run_folder import Standing, standing
from sparsejax.training.sharding import batch_sharding, training_mesh
from sparsejax.training.text.corpus import Corpus, read_corpus, split
from sparsejax.training.text.packing import Windows
from sparsejax.training.text.tokenizer import Tokenizer, read_tokenizer

_STEPS_PER_CALL = 10
_RULING = (
    "steps",
    "batch_size",
    "seq_len",
    "learning_rate",
    "schedule",
    "warmup",
    "weight_decay",
    "decay",
    "eigenvalue_rate",
    "clip",
    "accumulate",
    "bf16",
    "seed",
    "validate_every",
)
"""Settings that the result depends on, beside the text and the network; devices only round otherwise."""


@dataclass(frozen=True)
class Prepared:
    """A run that has passed every check; nothing is written yet.

    Attributes:
      settings: what was asked for.
      config: the network.
      tokenizer: of the text.
      windows: of the training part.
      held_out: of the validation part.
      tokens: in the training part, and in the validation part.
      mesh: devices.
      rows: where a batch goes.
      identity: everything that the result depends on; plain JSON.
      standing: what --out holds: nothing, or this run unfinished or finished.
    """

    settings: TenSettings
    config: TemporalEigenstateConfig
    tokenizer: Tokenizer
    windows: Windows
    held_out: Windows
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


def prepare(settings: TenSettings) -> Prepared:
    """Check everything that can be checked before training, and read the text; writes nothing.

    Args:
      settings: what is asked for.

    Returns:
      `Prepared`, for `train`.

    Raises:
      ValueError: impossible numbers, missing or unsuitable text, or a folder that holds something else; one
        line.
      ModuleNotFoundError: grain or tokenizers, the extra ``text``, is missing.
    """
    _check_numbers(settings)
    if importlib.util.find_spec("grain") is None:
        raise ModuleNotFoundError("training on text needs grain", name="grain")
    if settings.plots and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plots needs matplotlib: pip install 'sparsejax[plots]', or give --no-plots")
    mesh = training_mesh(settings.devices, settings.model_devices)
    rows = batch_sharding(mesh, settings.batch_size // settings.accumulate)
    tokenizer = read_tokenizer(settings.tokenizer)
    config = _config(settings, tokenizer)
    ten_parts.optimizer(settings, config)
    training, held_out = _texts(settings, tokenizer)
    identity = {
        "family": "ten",
        "text checksum": _checksum(training, held_out),
        "tokenizer checksum": f"{zlib.crc32(tokenizer.name.encode()):08x}",
        "network": config.to_json(),
        **{name.replace("_", " "): getattr(settings, name) for name in _RULING},
    }
    return Prepared(
        settings,
        config,
        tokenizer,
        Windows(training, settings.seq_len),
        Windows(held_out, settings.seq_len, keep_rest=True),
        (len(training.tokens), len(held_out.tokens)),
        mesh,
        rows,
        identity,
        standing(settings.out, identity, resume=settings.resume),
    )


def _config(settings: TenSettings, tokenizer: Tokenizer) -> TemporalEigenstateConfig:
    options = parse_options(settings.model_option, "--model-option")
    if "vocab_size" in options:
        raise ValueError("the vocabulary is the tokenizer's: leave vocab_size away")
    defaults = preset(settings.preset, vocab_size=tokenizer.vocab_size)
    plain = {name: value for name, value in defaults.to_json().items() if name not in ("layer", "long_layer")}
    layer = dataclasses.asdict(defaults.layer)
    check_options(options, {**plain, **layer}, f"preset {settings.preset!r}")
    of_layer = {name: options.pop(name) for name in list(options) if name in layer}
    config = dataclasses.replace(defaults, **options, layer=dataclasses.replace(defaults.layer, **of_layer))
    if config.pos_emb_type != "none" and settings.seq_len > config.max_seq_len:
        raise ValueError(
            f"--seq-len {settings.seq_len} is longer than the position table of {config.max_seq_len} rows: "
            f"give a smaller one, --model-option max_seq_len={settings.seq_len}, or pos_emb_type=none"
        )
    if not config.streams:
        raise ValueError("anticausal chunks look ahead: such a network cannot be trained on the next token")
    return config


def _texts(settings: TenSettings, tokenizer: Tokenizer) -> tuple[Corpus, Corpus]:
    read = partial(read_corpus, tokenizer=tokenizer, pattern=settings.pattern, separator=settings.separator)
    corpus = read(settings.data)
    if settings.validation_data is not None:
        return corpus, read(settings.validation_data)
    return split(corpus, settings.validation_fraction, seed=settings.seed)


def _check_numbers(settings: TenSettings) -> None:
    counts = ("steps", "batch_size", "seq_len", "accumulate", "validate_every", "save_every")
    for name in counts:
        if getattr(settings, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(settings, name)}")
    for name in ("learning_rate", "weight_decay", "eigenvalue_rate", "clip"):
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
