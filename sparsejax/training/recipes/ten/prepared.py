"""What a training of a Temporal Eigenstate Network is made from: settings, network and text, all checked."""

from __future__ import annotations

import dataclasses

from sparsejax.models.ten import TemporalEigenstateConfig
from sparsejax.models.ten.presets import preset
from sparsejax.training.options import check_options, parse_options
from sparsejax.training.recipes.ten import parts as ten_parts
from sparsejax.training.recipes.ten.settings import TenSettings
from sparsejax.training.text.tokenizer import Tokenizer, read_tokenizer
from sparsejax.training.text_run import TextRun, check_text_settings, prepared_run

Prepared = TextRun[TenSettings, TemporalEigenstateConfig, Tokenizer]
"""A run that has passed every check; nothing is written yet."""


def prepare(settings: TenSettings) -> Prepared:
    """Check everything that can be checked before training, and read the text; writes nothing.

    Args:
      settings: what is asked for.

    Returns:
      `Prepared`, for `sparsejax.training.recipes.ten.recipe.train`.

    Raises:
      ValueError: impossible numbers, missing or unsuitable text, or a folder that holds something else; one
        line.
      ModuleNotFoundError: grain or tokenizers, the extra ``text``, is missing.
    """
    check_text_settings(settings, amounts=("eigenvalue_rate",))
    tokenizer = read_tokenizer(settings.tokenizer)
    config = _config(settings, tokenizer)
    ten_parts.optimizer(settings, config)
    ruling = ("schedule", "decay", "eigenvalue_rate")
    return prepared_run(settings, config, tokenizer, family="ten", ruling=ruling)


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
