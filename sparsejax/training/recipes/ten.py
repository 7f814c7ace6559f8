"""A Temporal Eigenstate Network trained on local text: logged, validated, resumable to the bit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.save import save
from sparsejax.training.errors import RunError
from sparsejax.training.gradient_step import GradientState, compiled_steps, gradient_step, start_state
from sparsejax.training.loop import run_rounds
from sparsejax.training.metric_log import METRICS_FILE, MetricLog, read_metrics
from sparsejax.training.perplexity import Score, token_weighted_score
from sparsejax.training.progress import shown_progress
from sparsejax.training.recipes import ten_parts
from sparsejax.training.recipes.ten_prepared import Prepared, prepare
from sparsejax.training.run_folder import STATE_FOLDER, mark_finished, opened_run
from sparsejax.training.sharding import shardings
from sparsejax.training.state import Saved, restore_state, save_state
from sparsejax.training.text.batches import training_batches, whole_batches
from sparsejax.typing import Params

__all__ = ["Prepared", "Trained", "prepare", "train"]

BEST = "best"
FINAL = "final"
OUTCOME = METRICS_FILE
"""What to read of a finished run."""


class Validated(NamedTuple):
    """A validation.

    Attributes:
      step: steps done.
      score: of the held-out text.
    """

    step: int
    score: Score


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


def train(run: Prepared) -> Trained:
    """Train, or continue where a killed run was saved last.

    Args:
      run: from `prepare`.

    Returns:
      `Trained`. In the folder: ``metrics.jsonl`` (a line per step and per validation), ``best`` and
      ``final`` (`sparsejax.load` reads them), ``plots``.

    Raises:
      RunError: another process is at work in the folder, its metrics do not fit its saved state, or the loss
        is no longer finite.
      CheckpointError: a saved state is damaged, or the disk refuses.
      OSError: the folder cannot be written.
    """
    facts = {"parameters": run.config.num_parameters, "training_windows": len(run.windows)}
    with opened_run(run.folder, run.identity, facts):
        before = _saved(run)
        began = time.monotonic() - before.seconds
        with (
            MetricLog(run.folder / METRICS_FILE, before.rounds) as log,
            shown_progress(
                "ten", start=before.rounds, stop=run.settings.steps, style=run.style, unit="step"
            ) as update,
        ):
            session = _Session(run, log, update, began)
            state = session.run(before)
        final = session.validations[-1]
        _write(run, FINAL, state.params, final)
        best = min(session.validations, key=lambda validated: validated.score.loss)
        seconds = time.monotonic() - began
        if run.settings.plots:
            from sparsejax.plots.ten import draw_folder

            draw_folder(run.folder)
        found = {"validation_loss": final.score.loss, "best_step": best.step}
        mark_finished(run.folder, {**found, "seconds": round(seconds, 3)})
    return Trained(best, final, seconds)


class _Session:
    """What the loop calls back: metrics, validations and saves of one process."""

    def __init__(self, run: Prepared, log: MetricLog, update: Any, began: float):
        self._run, self._log, self._update, self._began = run, log, update, began
        self._rate = jax.jit(ten_parts.schedule(run.settings))
        loss = ten_parts.next_token_loss(run.config, dtype=run.dtype, train=False)
        self._evaluate = jax.jit(loss)
        self.validations = list(_validations(run))
        self._words = ""

    def run(self, before: Saved) -> GradientState:
        """All steps that are left."""
        run, settings = self._run, self._run.settings
        loss = ten_parts.next_token_loss(run.config, dtype=run.dtype, train=True)
        step = gradient_step(
            loss,
            ten_parts.optimizer(settings, run.config),
            accumulate=settings.accumulate,
            penalty=ten_parts.penalty(run.config),
        )
        placement = jax.tree.map(lambda leaf: leaf.sharding, before.states)
        return run_rounds(
            before.states,
            compiled_steps(step, _batches(run, before.rounds), placement),
            start=before.rounds,
            stop=settings.steps,
            at_most=run.steps_per_call,
            on_records=self.record,
            save=self.save,
            save_rounds=settings.save_every,
            on_states=self.validate,
        )

    def record(self, done: int, records: Mapping[str, np.ndarray]) -> None:
        """Write the metrics of a call's steps."""
        for number, row in enumerate(zip(*records.values(), strict=True)):
            values = {name: float(value) for name, value in zip(records, row, strict=True)}
            _check_finite("loss", values["loss"], done + number + 1)
            rate = float(self._rate(done + number))
            self._log.append(done + number + 1, {**values, "learning_rate": rate, "seconds": self._seconds()})
        self._update(done + len(records["loss"]), f"loss {records['loss'][-1]:.4g}{self._words}")

    def validate(self, done: int, state: GradientState) -> None:
        """Score the held-out text, when it is time, and keep the best network."""
        run = self._run
        if done % run.settings.validate_every and done != run.settings.steps:
            return
        batches = whole_batches(
            run.held_out, batch_size=run.settings.batch_size // run.settings.accumulate, sharding=run.rows
        )
        score = token_weighted_score(partial(self._loss_of, state), batches)
        _check_finite("validation loss", score.loss, done)
        found = Validated(done, score)
        if all(score.loss < earlier.score.loss for earlier in self.validations):
            _write(run, BEST, state.params, found)
        self.validations.append(found)
        self._words = f", validation perplexity {score.perplexity:.4g}"
        self._log.append(
            done,
            {
                "validation_loss": score.loss,
                "validation_perplexity": score.perplexity,
                "validation_tokens": score.tokens,
                "seconds": self._seconds(),
            },
        )

    def save(self, done: int, state: GradientState) -> None:
        """Write what a resumption needs."""
        self._log.sync()
        save_state(self._run.folder / STATE_FOLDER, state, rounds=done, seconds=self._seconds())

    def _loss_of(self, state: GradientState, batch: Any) -> Any:
        return self._evaluate(state.params, batch, state.key)

    def _seconds(self) -> float:
        return round(time.monotonic() - self._began, 3)


def _check_finite(what: str, loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise RunError(
            f"the {what} is {loss} at step {step}: start again elsewhere with a smaller --learning-rate, a "
            "--clip or a longer --warmup"
        )


def _saved(run: Prepared) -> Saved:
    """The last saved state, or the one before the first step, each part on its devices."""

    def begin(key: jax.Array) -> GradientState:
        of_params, of_run = jax.random.split(key)
        params = ten_parts.initial_params(run.config, of_params)
        return start_state(of_run, params, ten_parts.optimizer(run.settings, run.config))

    key = jax.random.key(run.settings.seed)
    rules = ten_parts.sharding_rules(run.config, run.settings.model_devices)
    place = shardings(jax.eval_shape(begin, key), rules, run.mesh)
    state = jax.jit(begin, out_shardings=place)(key)
    folder = run.folder / STATE_FOLDER
    if not folder.exists():
        return Saved(state, 0, 0.0)
    saved = restore_state(folder, state)
    if not 0 <= saved.rounds <= run.settings.steps:
        raise RunError(f"{folder}: was saved after {saved.rounds} steps of {run.settings.steps}")
    return saved


def _validations(run: Prepared) -> Iterator[Validated]:
    """Those of the steps done, as the resumed log has them."""
    for row in read_metrics(run.folder / METRICS_FILE):
        if "validation_loss" in row:
            yield Validated(row["step"], Score(row["validation_loss"], int(row["validation_tokens"])))


def _batches(run: Prepared, done: int) -> Iterator[Any]:
    settings = run.settings
    return training_batches(
        run.windows,
        batch_size=settings.batch_size,
        seed=settings.seed,
        start=done,
        stop=settings.steps,
        sharding=run.rows,
    )


def _write(run: Prepared, name: str, params: Params, found: Validated) -> None:
    metadata = {
        "tokenizer": run.tokenizer.name,
        "step": found.step,
        "validation_loss": found.score.loss,
        "seed": run.settings.seed,
    }
    save(Checkpoint("ten", run.config.variant, run.config, params, metadata), run.folder / name)
