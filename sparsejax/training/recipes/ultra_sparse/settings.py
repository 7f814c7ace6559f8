"""What ``sparsejax train ultra-sparse`` is told; light, so that other commands import no training code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparsejax.training.job_settings import JobSettings
from sparsejax.training.repeated import Options


@dataclass(frozen=True)
class UltraSparseSettings(JobSettings):
    """Train ultra-sparse nets on a problem, several seeds side by side in one compiled program.

    Attributes:
      out: folder for logs, report, plots, the best net and what --resume needs.
      problem: name of the problem, such as friedman1, sine, high_dimensional, digits.
      trainer: anneal, gsa, genetic, hill_climb, tempering or sparse_fit.
      seeds: how many nets are trained from different random starts.
      seed: first seed; the others follow it.
      steps: proposals of a chain (anneal, hill_climb, tempering; in one generation under gsa), or polish
        steps after each proposal under sparse_fit.
      generations: of gsa and genetic.
      rounds: proposals of sparse_fit.
      hidden_size: hidden neurons.
      inputs_per_neuron: inputs that each of them reads, K.
      output_activation: linear, or tanh for the published protocol (class targets are -0.8 and 0.8 then).
      rule: mutation rule, such as core, numpy, sparse_touch or, under anneal, one_neuron.
      restarts: further cycles from fresh nets (anneal, hill_climb).
      trainer_option: any other setting of the trainer, such as initial_temperature=0.05; repeat it for
        several.
      problem_option: options of the problem, such as leak_free=true or samples=200; repeat it for several.
      problem_seed: of the problem's random rows and splits.
      devices: accelerators or hosts' devices to spread the seeds over.
      baselines: fit Lasso or L1-logistic, ridge and a dense net beside (needs scikit-learn).
      plots: draw PNGs at the end (needs matplotlib).
      resume: continue the unfinished run in --out, or begin if there is none.
      save_seconds: least time between two saves of what --resume needs.
      quiet: print nothing but errors.
      plain: lines instead of a progress bar.
    """

    out: Path
    problem: str = "friedman1"
    trainer: str = "anneal"
    seeds: int = 20
    seed: int = 0
    steps: int | None = None
    generations: int | None = None
    rounds: int | None = None
    hidden_size: int = 8
    inputs_per_neuron: int = 2
    output_activation: Literal["linear", "tanh"] = "linear"
    rule: str | None = None
    restarts: int | None = None
    trainer_option: Options = ()
    problem_option: Options = ()
    problem_seed: int = 0
    devices: int = 1
    baselines: bool = True
    plots: bool = True
    resume: bool = False
    save_seconds: float = 15.0
    quiet: bool = False
    plain: bool = False
