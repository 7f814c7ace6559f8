"""What a training of a SPROUT network is made from: settings, network, tokenizer and text, all checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from sparsejax.models.sprout import SproutConfig
from sparsejax.models.sprout.mlm import MaskingRule
from sparsejax.ops import backends
from sparsejax.training.checksums import checksum
from sparsejax.training.job_settings import JOB_OPTIONS
from sparsejax.training.recipes.sprout import parts as sprout_parts
from sparsejax.training.recipes.sprout.losses import Objective
from sparsejax.training.recipes.sprout.settings import SproutSettings
from sparsejax.training.run_checks import check_at_least, check_libraries, check_seed
from sparsejax.training.run_folder import RUN_FILE, Standing, standing
from sparsejax.training.sharding import batch_sharding, training_mesh
from sparsejax.training.text.lines import TokenRows, read_lines, split_lines
from sparsejax.training.text.special import SpecialIds, special_ids
from sparsejax.training.text.tokenizer import Tokenizer, read_tokenizer, tokenizer_named
from sparsejax.training.text.wordpiece import trained_wordpiece

TOKENIZER_FILE = "tokenizer.json"

_STEPS_PER_CALL = 10
_NOT_RULING = {"data", "out", "pattern", "validation_data", "tokenizer", "steps", "num_epochs", "devices"}
_NOT_RULING |= {"mixed_precision", "save_interval", "log_interval", "plots", "resume", "quiet", "plain"}
_NOT_RULING |= JOB_OPTIONS
_COUNTS = (
    "batch_size",
    "log_interval",
    "eval_interval",
    "save_interval",
    "num_epochs",
    "devices",
    "steps",
    "max_samples",
)
_AMOUNTS = (
    "learning_rate",
    "router_lr_multiplier",
    "weight_decay",
    "gradient_clip",
    "router_loss_weight",
    "load_balance_weight",
    "z_loss_weight",
    "final_top_k",
    "sparsity_warmup_steps",
    "warmup_steps",
)


@dataclass(frozen=True)
class Prepared:
    """A run that has passed every check; nothing is written yet.

    Attributes:
      settings: what was asked for.
      config: the network.
      tokenizer: of the text.
      special: ids of its special tokens.
      rows: of the training part.
      held_out: of the validation part.
      steps: optimiser steps in all.
      mesh: devices.
      placed: where a batch goes.
      dtype: of the computation; None is that of the parameters.
      identity: everything that the result depends on; plain JSON.
      standing: what --out holds: nothing, or this run unfinished or finished.
    """

    settings: SproutSettings
    config: SproutConfig
    tokenizer: Tokenizer
    special: SpecialIds
    rows: TokenRows
    held_out: TokenRows
    steps: int
    mesh: Mesh
    placed: NamedSharding
    dtype: Any
    identity: Mapping[str, Any]
    standing: Standing

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.settings.out

    @property
    def steps_per_call(self) -> int:
        """A divisor of the steps between two validations and between two saves."""
        return math.gcd(self.settings.eval_interval, self.settings.save_interval, _STEPS_PER_CALL)

    @property
    def num_parameters(self) -> int:
        """Of the network."""
        shapes = jax.eval_shape(partial(sprout_parts.initial_params, self.config), jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        rule = MaskingRule(self.config.vocab_size, self.special.mask, self.special.all)
        return Objective(self.config, self.settings, rule, pad=self.special.pad, dtype=self.dtype)


def prepare(settings: SproutSettings) -> Prepared:
    """Check everything that can be checked before training, and read the text; writes nothing.

    Args:
      settings: what is asked for.

    Returns:
      `Prepared`, for `sparsejax.training.recipes.sprout.recipe.train`.

    Raises:
      ValueError: impossible numbers, missing or unsuitable text, or a folder that holds something else; one
        line.
      ModuleNotFoundError: grain or tokenizers, the extra ``text``, is missing.
    """
    _check_numbers(settings)
    check_libraries("training on text", "grain", "tokenizers", plots=settings.plots)
    mesh = training_mesh(settings.devices)
    placed = batch_sharding(mesh, settings.batch_size)
    training, held_out = _lines(settings)
    tokenizer = _tokenizer(settings, training)
    special = special_ids(tokenizer)
    config = sprout_parts.network_config(settings, tokenizer.vocab_size)
    rows, others = (
        TokenRows(lines, tokenizer, special, seq_len=settings.max_seq_len, cut=settings.recipe == "compat")
        for lines in (training, held_out)
    )
    steps = _steps(settings, rows)
    dtype = jnp.bfloat16 if settings.mixed_precision and backends.platform() != "cpu" else None
    identity = {
        "family": "sprout",
        "text checksum": checksum(*rows.arrays, *others.arrays),
        "tokenizer checksum": checksum(tokenizer.name),
        "network": config.to_json(),
        "steps": steps,
        "compute type": "float32" if dtype is None else "bfloat16",
        **{
            name.replace("_", " "): value
            for name, value in vars(settings).items()
            if name not in _NOT_RULING and not hasattr(config, name)
        },
    }
    return Prepared(
        settings,
        config,
        tokenizer,
        special,
        rows,
        others,
        steps,
        mesh,
        placed,
        dtype,
        identity,
        standing(settings.out, identity, resume=settings.resume),
    )


def _lines(settings: SproutSettings) -> tuple[Sequence[str], Sequence[str]]:
    lines = read_lines(settings.data, pattern=settings.pattern)[: settings.max_samples]
    if settings.validation_data is not None:
        return lines, read_lines(settings.validation_data, pattern=settings.pattern)
    return split_lines(lines, settings.validation_fraction, seed=settings.seed)


def _tokenizer(settings: SproutSettings, lines: Sequence[str]) -> Tokenizer:
    """The one given, that of the run to be continued, or one trained from the lines."""
    if settings.tokenizer is not None:
        return read_tokenizer(settings.tokenizer)
    kept = settings.out / TOKENIZER_FILE
    if settings.resume and kept.exists() and (settings.out / RUN_FILE).exists():
        return read_tokenizer(kept)
    return tokenizer_named(trained_wordpiece(lines, settings.vocab_size))


def _steps(settings: SproutSettings, rows: TokenRows) -> int:
    per_epoch = -(-len(rows) // settings.batch_size)
    steps = settings.num_epochs * per_epoch if settings.steps is None else settings.steps
    how = f"{len(rows):,} rows, {per_epoch:,} steps per epoch" if settings.steps is None else "--steps"
    for name, what in (
        ("warmup_steps", "the learning rate would never reach its peak"),
        ("sparsity_warmup_steps", "the network would never be trained with --final-top-k neurons"),
    ):
        if getattr(settings, name) > steps:
            raise ValueError(
                f"--{name.replace('_', '-')} {getattr(settings, name)} is longer than the training "
                f"of {steps} steps ({how}): {what}; give fewer, more --num-epochs, or --steps"
            )
    return steps


def _check_numbers(settings: SproutSettings) -> None:
    check_at_least(settings, 1, *_COUNTS)
    check_at_least(settings, 0, *_AMOUNTS)
    for name in ("initial_top_k", "final_top_k"):
        value = getattr(settings, name)
        if value is not None and not 0 <= value <= settings.d_ff:
            raise ValueError(
                f"--{name.replace('_', '-')} must be between 0 and the {settings.d_ff} neurons of --d-ff, "
                f"not {value}"
            )
    check_seed(settings.seed)
    if settings.recipe == "compat" and settings.selection == "block":
        raise ValueError("--recipe compat selects single neurons: leave --selection away")
    if settings.balanced and (settings.recipe == "compat" or settings.taught in {"all", "first10"}):
        raise ValueError(
            "--load-balance-weight and --z-loss-weight go with --recipe default and --router-loss "
            "distillation or none, not with the published losses"
        )
