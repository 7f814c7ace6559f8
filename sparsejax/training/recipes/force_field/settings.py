"""What ``sparsejax train force-field`` is told; light, so that other commands import no training code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sparsejax.training.job_settings import JobSettings

Variant = Literal["cartesian", "equivariant"]


@dataclass(frozen=True)
class ForceFieldSettings(JobSettings):
    """Train a force field on labelled structures: energies, forces and, where there are labels, stress.

    Names and defaults are those of the published trainer where it has them.

    Attributes:
      data: HDF5 data set, as ``sparsejax label`` writes it, or any file with results that ASE reads, such as
        .extxyz.
      checkpoint_dir: folder for metrics, the best and the final network and what --resume needs.
      recipe: default learns energies per atom beyond those of the elements, spares all but kernels from
        weight decay, lowers the learning rate step by step and averages the network over steps; compat is
        the published recipe, which does none of that.
      variant: of the network; equivariant by default, cartesian (published) in compat.
      hidden_dim: channels.
      num_interactions: message and update steps.
      num_rbf: radial functions.
      cutoff: A, up to which atoms see each other.
      max_z: largest atomic number that the table of elements has a row for.
      learnable_rbf: train the radial functions, too.
      validation_data: held-out data set; a part of --data if there is none.
      train_ratio: of --data to train on, drawn at random; the rest is held out.
      epochs: passes over the training structures.
      batch_size: structures per step, over all devices and accumulated parts.
      max_atoms: of a batch; large structures then come in smaller batches.
      buckets: sorts structures into at most so many groups of like sizes, of which batches are made, so that
        little is padded; 4 by default, 1 in compat.
      lr: highest learning rate.
      warmup_steps: in which the learning rate rises; by default a tenth of the run and at most 1000, in
        compat 1000.
      weight_decay: per step, times the learning rate.
      grad_clip: longest gradient; 0 for any.
      accumulate: parts that a batch is computed in, one after another, to save memory.
      ema: how much of the averaged network a step keeps; 0 for no average; 0.999 by default, 0 in compat.
      energy_weight: of the energy term; 1000 by default (errors per atom), 1 in compat (of structures).
      force_weight: of the force term.
      stress_weight: of the stress term.
      angular_weight: of one minus the cosine between predicted and true forces.
      loss_type: of errors of energies, forces and stress.
      huber_delta: where huber turns from a parabola into a line.
      early_stopping_patience: validations without improvement after which to stop; 0 for never.
      val_interval: epochs between two validations.
      save_interval: epochs between two saves of what --resume needs.
      log_interval: steps between two lines of metrics.
      seed: of the first parameters, the held-out part and the order of structures.
      devices: parts that a batch is spread over.
      plots: draw PNGs at the end (needs matplotlib).
      resume: continue the unfinished run in --checkpoint-dir, or begin if there is none.
      quiet: print nothing but errors.
      plain: lines instead of a progress bar.
    """

    data: Annotated[Path, tyro.conf.arg(aliases=["--dataset"])]
    checkpoint_dir: Annotated[Path, tyro.conf.arg(aliases=["--out"])]
    recipe: Literal["default", "compat"] = "default"
    variant: Variant | None = None
    hidden_dim: int = 128
    num_interactions: int = 3
    num_rbf: int = 20
    cutoff: float = 5.0
    max_z: int = 100
    learnable_rbf: bool = False
    validation_data: Path | None = None
    train_ratio: float = 0.9
    epochs: int = 100
    batch_size: int = 32
    max_atoms: int | None = None
    buckets: int | None = None
    lr: Annotated[float, tyro.conf.arg(aliases=["--learning-rate"])] = 1e-3
    warmup_steps: int | None = None
    weight_decay: float = 1e-5
    grad_clip: float = 1.0
    accumulate: int = 1
    ema: float | None = None
    energy_weight: float | None = None
    force_weight: float = 100.0
    stress_weight: float = 0.1
    angular_weight: float = 10.0
    loss_type: Literal["mse", "mae", "huber"] = "mse"
    huber_delta: float = 1.0
    early_stopping_patience: Annotated[int, tyro.conf.arg(aliases=["--patience"])] = 20
    val_interval: int = 1
    save_interval: int = 1
    log_interval: int = 10
    seed: int = 42
    devices: int = 1
    plots: bool = True
    resume: bool = False
    quiet: bool = False
    plain: bool = False
