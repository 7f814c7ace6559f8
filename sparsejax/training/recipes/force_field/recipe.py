"""A force field trained on labelled structures: logged, validated, resumable to the bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.save import export_pt, save
from sparsejax.models.force_field.batches import BucketedBatches
from sparsejax.training.early_stopping import exhausted
from sparsejax.training.gradient_run import Plan, Trained, Validated, begun, carry_out, placement
from sparsejax.training.gradient_step import GradientState, compiled_steps
from sparsejax.training.metric_log import METRICS_FILE
from sparsejax.training.processes import from_own_rows
from sparsejax.training.progress import style_of
from sparsejax.training.recipes.force_field import parts
from sparsejax.training.recipes.force_field.prepared import Prepared, prepare
from sparsejax.training.recipes.force_field.scores import ForceFieldScore, scorer
from sparsejax.training.run_folder import BEST
from sparsejax.training.state import Saved
from sparsejax.typing import Params

__all__ = ["BEST", "Prepared", "Trained", "prepare", "train"]

OUTCOME = METRICS_FILE
"""What to read of a finished run."""


def train(run: Prepared) -> Trained:
    """Train, or continue where a killed run was saved last.

    Args:
      run: from `prepare`.

    Returns:
      `Trained`; its scores are `ForceFieldScore`. In the folder: ``metrics.jsonl``, ``best`` and ``final``
      (`sparsejax.load` reads them), both as ``.pt`` in the published layout, and ``plots``.

    Raises:
      RunError: another process is at work in the folder, its metrics do not fit its saved state, or the loss
        is no longer finite.
      CheckpointError: a saved state is damaged, or the disk refuses.
      OSError: the folder cannot be written.
    """
    settings, epoch = run.settings, run.steps_per_epoch
    rates = parts.rates(settings, epoch)
    plan = Plan(
        family="force_field",
        folder=run.folder,
        identity=run.identity,
        facts={"parameters": run.config.num_parameters, "training_structures": run.sizes[0]},
        steps=run.steps,
        validate_every=settings.val_interval * epoch,
        save_every=settings.save_interval * epoch,
        steps_per_call=run.steps_per_call,
        style=style_of(settings),
        begin=partial(_saved, run, rates),
        advance=partial(_advance, run, rates),
        of_step=lambda step: {"learning_rate": rates.at(step)},
        evaluate=_evaluation(run),
        read_score=ForceFieldScore.read,
        write=partial(_write, run),
        finish=partial(_draw, run),
        log_every=settings.log_interval,
        network=partial(parts.network_of, settings),
        enough=partial(exhausted, patience=settings.early_stopping_patience),
    )
    return carry_out(plan)


def _advance(run: Prepared, rates: parts.Rates, before: Saved) -> Any:
    step = parts.training_step(
        run.config,
        parts.loss_settings(run.settings),
        parts.optimizer(run.settings, run.config, rates.schedule),
        stress=run.stress,
        accumulate=run.settings.accumulate,
    )
    batches = _batches(run, run.training, before.rounds, run.steps)
    return compiled_steps(step, batches, placement(before.states))


def _evaluation(run: Prepared) -> Callable[[GradientState], ForceFieldScore]:
    loss, pooled = parts.loss_settings(run.settings), run.settings.recipe != "compat"
    score = scorer(run.config, loss, stress=run.stress, pooled=pooled)

    def of_state(state: GradientState) -> ForceFieldScore:
        params = parts.network_of(run.settings, state)
        return score(params, _batches(run, run.held_out, 0, len(run.held_out)))

    return of_state


def _batches(run: Prepared, batches: BucketedBatches, start: int, stop: int) -> Iterator[Any]:
    for batch in batches.steps(start, stop):
        yield (
            jax.device_put(batch) if run.placed is None else from_own_rows(run.placed, batches.shards, batch)
        )


def _draw(run: Prepared) -> None:
    if run.settings.plots:
        from sparsejax.plots.force_field import draw_folder

        draw_folder(run.folder)


def _saved(run: Prepared, rates: parts.Rates) -> Saved:
    """The last saved state, or the one before the first step, each part on its devices."""
    chain = parts.optimizer(run.settings, run.config, rates.schedule)
    first = partial(parts.first_state, run.config, chain)
    return begun(run.folder, first, seed=run.settings.seed, rules=(), mesh=run.mesh, steps=run.steps)


def _write(run: Prepared, name: str, params: Params, found: Validated) -> None:
    config = run.config
    if run.references is not None:
        config = dataclasses.replace(config, reference_energies=True)
        params = {**params, "reference_energies": jnp.asarray(run.references.energies, jnp.float32)}
    metadata = {"step": found.step, "seed": run.settings.seed, **found.score.told()}
    ck = Checkpoint("force_field", config.variant, config, params, metadata)
    save(ck, run.folder / name)
    export_pt(ck, run.folder / f"{name}.pt")
