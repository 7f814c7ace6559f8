"""A run of gradient steps from begin to end: logged, validated, saved, resumable to the bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from sparsejax.training.errors import RunError
from sparsejax.training.gradient_step import GradientState
from sparsejax.training.job_log import Log, job_log
from sparsejax.training.loop import run_rounds
from sparsejax.training.metric_log import METRICS_FILE, MetricLog, read_metrics
from sparsejax.training.processes import agreed, connect, gathered, is_first_process, told_losses
from sparsejax.training.progress import Style, Update, shown_progress
from sparsejax.training.run_folder import BEST, STATE_FOLDER, mark_finished, opened_run
from sparsejax.training.sharding import Rule, shardings
from sparsejax.training.state import Saved, restore_state, save_state
from sparsejax.typing import Params

FINAL = "final"

_VALIDATION = "validation_"


class Score(Protocol):
    """What a validation finds, such as `sparsejax.training.perplexity.Score`."""

    @property
    def loss(self) -> float:
        """What is to be small: the network with the smallest is the best."""
        ...

    @property
    def words(self) -> str:
        """A few words for the progress shown."""
        ...

    def told(self) -> Mapping[str, float]:
        """All of it as numbers by name, ``loss`` among them, for the metrics."""
        ...


class Validated(NamedTuple):
    """A validation.

    Attributes:
      step: steps done.
      score: of the held-out data.
    """

    step: int
    score: Any


@dataclass(frozen=True)
class Trained:
    """What a finished run gives.

    Attributes:
      best: the best validation, whose network is in ``best``.
      final: the validation after the last step, whose network is in ``final``.
      seconds: of training, compilation included.
    """

    best: Validated
    final: Validated
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a recipe puts together for `carry_out`.

    Attributes:
      family: short name, for the progress shown.
      folder: where everything goes.
      identity: everything that the result depends on; plain JSON.
      facts: what else ``run.json`` tells; plain JSON.
      steps: optimiser steps in all.
      validate_every: steps between two validations.
      save_every: steps between two saves of what a resumption needs.
      steps_per_call: a divisor of both.
      style: how progress is shown.
      begin: gives the last saved state, or the one before the first step; see `begun`.
      advance: ``Saved`` -> (state, count) -> (state, records), as `run_rounds` takes it.
      of_step: what to log of a step beside its record, by its number from 0.
      evaluate: score of the held-out data.
      read_score: the score that its `Score.told` came from.
      write: writes a network: (name, parameters, validation); the first process alone calls it.
      finish: what is left to do at the end, such as plots; the first process alone does it.
      log_every: steps between two lines of metrics; those of saves and of the last step are always told.
      network: parameters to write, from the state; those of the last step if not given.
      enough: looks at the losses of all validations and tells whether to stop here; never if not given.
    """

    family: str
    folder: Path
    identity: Mapping[str, Any]
    facts: Mapping[str, Any]
    steps: int
    validate_every: int
    save_every: int
    steps_per_call: int
    style: Style
    begin: Callable[[], Saved]
    advance: Callable[[Saved], Callable[[GradientState, int], tuple[GradientState, Any]]]
    of_step: Callable[[int], Mapping[str, float]]
    evaluate: Callable[[GradientState], Score]
    read_score: Callable[[Mapping[str, float]], Score]
    write: Callable[[str, Params, Validated], None]
    finish: Callable[[], None]
    log_every: int = 1
    network: Callable[[GradientState], Params] = attrgetter("params")
    enough: Callable[[Sequence[float]], bool] | None = None


def carry_out(plan: Plan) -> Trained:
    """Train, or continue where a killed run was saved last; all processes of a job call it.

    Args:
      plan: of a recipe; its folder is new or holds this run unfinished.

    Returns:
      `Trained`. In the folder: ``metrics.jsonl`` (steps and validations), ``best`` and ``final``.

    Raises:
      RunError: another job is at work in the folder, its metrics do not fit its saved state, the loss is no
        longer finite, or another process of this job is gone.
      CheckpointError: a saved state is damaged, or the disk refuses.
      OSError: the folder cannot be written.
    """
    with told_losses(), opened_run(plan.folder, plan.identity, plan.facts):
        before = plan.begin()
        began = time.monotonic() - before.seconds
        with (
            job_log(lambda: MetricLog(plan.folder / METRICS_FILE, before.rounds)) as log,
            shown_progress(
                plan.family, start=before.rounds, stop=plan.steps, style=plan.style, unit="step"
            ) as update,
        ):
            session = _Session(plan, log, update, began)
            state = session.run(before)
        final = session.validations[-1]
        _write(plan, FINAL, state, final)
        best = min(session.validations, key=lambda validated: validated.score.loss)
        seconds = time.monotonic() - began
        if is_first_process():
            plan.finish()
        found = {"validation_loss": final.score.loss, "best_step": best.step}
        mark_finished(plan.folder, {**found, "seconds": round(seconds, 3)})
    return Trained(best, final, seconds)


def begun(
    folder: Path,
    first: Callable[[jax.Array], GradientState],
    *,
    seed: int,
    rules: Sequence[Rule],
    mesh: Mesh,
    steps: int,
) -> Saved:
    """The last saved state of a run, or the one before the first step, each part on its devices.

    Args:
      folder: of the run.
      first: the state before the first step, from a key; pure.
      seed: of that key.
      rules: where parameters and their moments live.
      mesh: devices.
      steps: of the run in all.

    Raises:
      RunError: the state was saved after more steps.
      CheckpointError: it is damaged.
    """
    key = jax.random.key(seed)
    connect(mesh)
    place = shardings(jax.eval_shape(first, key), rules, mesh)
    state = jax.jit(first, out_shardings=place)(key)
    folder = folder / STATE_FOLDER
    if not folder.exists():
        return Saved(state, 0, 0.0)
    saved = restore_state(folder, state)
    if not 0 <= saved.rounds <= steps:
        raise RunError(f"{folder}: was saved after {saved.rounds} steps of {steps}")
    return saved


class _Session:
    """What the loop calls back: metrics, validations and saves of one process."""

    def __init__(self, plan: Plan, log: Log, update: Update, began: float):
        self._plan, self._log, self._update, self._began = plan, log, update, began
        self.validations = list(_validations(plan))
        self._words = ""

    def run(self, before: Saved) -> GradientState:
        """All steps that are left; none if a kill came between the stop and the end."""
        plan = self._plan
        saved: GradientState = before.states
        if before.rounds and self._enough():
            return saved
        trained: GradientState = run_rounds(
            saved,
            plan.advance(before),
            start=before.rounds,
            stop=plan.steps,
            at_most=plan.steps_per_call,
            on_records=self.record,
            save=self.save,
            save_rounds=plan.save_every,
            on_states=self.validate,
        )
        return trained

    def record(self, done: int, records: Mapping[str, np.ndarray]) -> None:
        """Write the metrics of a call's steps."""
        for number, row in enumerate(zip(*records.values(), strict=True)):
            values = {name: float(value) for name, value in zip(records, row, strict=True)}
            step = done + number + 1
            _check_finite("loss", values["loss"], step)
            if self._told(step):
                also = self._plan.of_step(step - 1)
                self._log.append(step, {**values, **also, "seconds": self._seconds()})
        self._update(done + len(records["loss"]), f"loss {records['loss'][-1]:.4g}{self._words}")

    def validate(self, done: int, state: GradientState) -> bool:
        """Score the held-out data, when it is time, and keep the best network; whether to stop here."""
        if done % self._plan.validate_every and done != self._plan.steps:
            return False
        score = self._plan.evaluate(state)
        _check_finite("validation loss", score.loss, done)
        found = Validated(done, score)
        if agreed(all(score.loss < earlier.score.loss for earlier in self.validations)):
            _write(self._plan, BEST, state, found)
        self.validations.append(found)
        self._words = f", {score.words}"
        row = {f"{_VALIDATION}{name}": value for name, value in score.told().items()}
        self._log.append(done, {**row, "seconds": self._seconds()})
        return self._enough()

    def save(self, done: int, state: GradientState) -> None:
        """Write what a resumption needs."""
        self._log.sync()
        save_state(self._plan.folder / STATE_FOLDER, state, rounds=done, seconds=self._seconds())

    def _enough(self) -> bool:
        losses = [validated.score.loss for validated in self.validations]
        return self._plan.enough is not None and agreed(self._plan.enough(losses))

    def _told(self, step: int) -> bool:
        plan = self._plan
        return step in {1, plan.steps} or not step % plan.log_every or not step % plan.save_every

    def _seconds(self) -> float:
        return round(time.monotonic() - self._began, 3)


def _write(plan: Plan, name: str, state: GradientState, found: Validated) -> None:
    """Write a network from the first process; the others bring their parts."""
    params = gathered(plan.network(state))
    if is_first_process():
        plan.write(name, params, found)


def _check_finite(what: str, loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise RunError(
            f"the {what} is {loss} at step {step}: start again elsewhere with a smaller learning rate, a "
            "shorter clip or a longer warm-up"
        )


def _validations(plan: Plan) -> Iterator[Validated]:
    """Those of the steps done, as the resumed log has them."""
    for row in read_metrics(plan.folder / METRICS_FILE):
        if f"{_VALIDATION}loss" not in row:
            continue
        of = {name.removeprefix(_VALIDATION): row[name] for name in row if name.startswith(_VALIDATION)}
        yield Validated(row["step"], plan.read_score(of))


def placement(state: GradientState) -> Any:
    """Where each part of a state lives."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)
