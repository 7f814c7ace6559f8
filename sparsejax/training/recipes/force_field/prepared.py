"""What a training of a force field is made from: settings, network and structures, all checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh, NamedSharding

from sparsejax.models.force_field import ForceFieldConfig
from sparsejax.models.force_field.batches import BucketedBatches
from sparsejax.models.force_field.reference_energies import ReferenceEnergies, fit_reference_energies
from sparsejax.models.force_field.structure import SYMBOLS
from sparsejax.training.job_settings import JOB_OPTIONS
from sparsejax.training.processes import own_rows
from sparsejax.training.recipes.force_field import parts
from sparsejax.training.recipes.force_field.data import Samples, read_parts
from sparsejax.training.recipes.force_field.settings import ForceFieldSettings
from sparsejax.training.run_checks import check_at_least, check_libraries, check_seed
from sparsejax.training.run_folder import Standing, standing
from sparsejax.training.sharding import batch_sharding, training_mesh

_STEPS_PER_CALL = 20
_NOT_RULING = {"data", "checkpoint_dir", "validation_data", "devices", "save_interval", "log_interval"}
_NOT_RULING |= {"plots", "resume", "quiet", "plain"}
_NOT_RULING |= JOB_OPTIONS
_COUNTS = (
    "epochs",
    "batch_size",
    "accumulate",
    "val_interval",
    "save_interval",
    "log_interval",
    "devices",
    "buckets",
    "max_atoms",
)
_AMOUNTS = ("weight_decay", "grad_clip", "early_stopping_patience")


@dataclass(frozen=True)
class Prepared:
    """A run that has passed every check; nothing is written yet.

    Attributes:
      settings: what was asked for.
      config: the network that is trained.
      training: batches by step.
      held_out: batches of the validation.
      sizes: structures of the training part, and of the validation part.
      references: energies of single atoms that are taken off the labels; None in compat.
      stress: whether there are labels of it.
      mesh: devices.
      placed: where a batch goes; None is the default device.
      identity: everything that the result depends on; plain JSON.
      standing: what --checkpoint-dir holds: nothing, or this run unfinished or finished.
    """

    settings: ForceFieldSettings
    config: ForceFieldConfig
    training: BucketedBatches
    held_out: BucketedBatches
    sizes: tuple[int, int]
    references: ReferenceEnergies | None
    stress: bool
    mesh: Mesh
    placed: NamedSharding | None
    identity: Mapping[str, Any]
    standing: Standing

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.settings.checkpoint_dir

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols of those of the training part."""
        return tuple(SYMBOLS[number] for number in self.config.species or ())

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self.training)

    @property
    def steps(self) -> int:
        """Optimiser steps in all, if nothing stops them early."""
        return self.settings.epochs * self.steps_per_epoch

    @property
    def steps_per_call(self) -> int:
        """A divisor of the steps between two validations and between two saves."""
        epochs = math.gcd(self.settings.val_interval, self.settings.save_interval)
        most = epochs * self.steps_per_epoch
        return max(count for count in range(1, _STEPS_PER_CALL + 1) if most % count == 0)


def prepare(settings: ForceFieldSettings) -> Prepared:
    """Check everything that can be checked before training, and read the structures; writes nothing.

    Args:
      settings: what is asked for.

    Returns:
      `Prepared`, for `sparsejax.training.recipes.force_field.recipe.train`.

    Raises:
      ValueError: impossible numbers, missing, damaged or unsuitable data, or a folder that holds something
        else; one line.
      ModuleNotFoundError: h5py or vesin, the extra ``force-field``, is missing.
    """
    _check_numbers(settings)
    check_libraries("training a force field", "h5py", plots=settings.plots)
    mesh, loss = training_mesh(settings.devices), parts.loss_settings(settings)
    data = read_parts(
        settings.data, settings.validation_data, train_ratio=settings.train_ratio, seed=settings.seed
    )
    fit = _fit(data.training, settings)
    config = parts.network_config(settings, fit.elements)
    _check_elements(data.held_out, config)
    references = None if settings.recipe == "compat" else fit
    batches = partial(
        BucketedBatches,
        cutoff=settings.cutoff,
        batch_size=settings.batch_size,
        max_atoms=settings.max_atoms,
        reference_energies=None if references is None else references.energies,
    )
    shards = settings.devices * settings.accumulate
    placed = batch_sharding(mesh, shards) if settings.devices > 1 else None
    buckets = settings.buckets or (1 if settings.recipe == "compat" else 4)
    training = batches(
        data.training, seed=settings.seed, buckets=buckets, shards=shards, own=_own(placed, shards)
    )
    validation = batches(
        data.held_out,
        shuffle=False,
        buckets=buckets,
        shards=settings.devices,
        own=_own(placed, settings.devices),
    )
    rates = parts.rates(settings, len(training))
    parts.optimizer(settings, config, rates.schedule)
    identity = {
        "family": "force_field",
        "data checksum": data.checksum,
        "network": config.to_json(),
        **{
            name.replace("_", " "): value
            for name, value in vars(settings).items()
            if name not in _NOT_RULING and not hasattr(config, name)
        },
    }
    return Prepared(
        settings,
        config,
        training,
        validation,
        (len(data.training), len(data.held_out)),
        references,
        bool(loss.stress_weight) and any(sample.stress is not None for sample in data.training),
        mesh,
        placed,
        identity,
        standing(settings.checkpoint_dir, identity, resume=settings.resume),
    )


def _own(placed: NamedSharding | None, shards: int) -> slice:
    """The shards of a batch that this process makes."""
    return slice(0, shards) if placed is None else own_rows(placed, shards)


def _fit(samples: Samples, settings: ForceFieldSettings) -> ReferenceEnergies:
    species = [sample.structure.species for sample in samples]
    energies = np.array([sample.energy for sample in samples])
    try:
        return fit_reference_energies(species, energies, settings.max_z)
    except ValueError as error:
        raise ValueError(f"{settings.data}: {error}") from error


def _check_elements(samples: Samples, config: ForceFieldConfig) -> None:
    """Refuse to validate on elements that are never trained."""
    known = set(config.species or ())
    for number, sample in enumerate(samples):
        if new := sorted({*sample.structure.species.tolist()} - known):
            raise ValueError(
                f"held-out structure {number} holds {SYMBOLS[new[0]]}, which no training structure does; "
                "give another --seed, --train-ratio or --validation-data"
            )


def _check_numbers(settings: ForceFieldSettings) -> None:
    check_at_least(settings, 1, *_COUNTS)
    check_at_least(settings, 0, *_AMOUNTS)
    if not (math.isfinite(settings.lr) and settings.lr > 0):
        raise ValueError(f"--lr must be above 0, not {settings.lr}")
    if settings.batch_size < settings.accumulate * settings.devices:
        raise ValueError(
            f"--batch-size {settings.batch_size} is too small for {settings.accumulate} parts on "
            f"{settings.devices} devices"
        )
    check_seed(settings.seed)
