"""A Temporal Eigenstate Network trained on local text: logged, validated, resumable to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.save import save
from sparsejax.training.cross_entropy import TokenLoss
from sparsejax.training.gradient_run import BEST, Plan, Trained, Validated, carry_out, placement, restored
from sparsejax.training.gradient_step import GradientState, compiled_steps, gradient_step, start_state
from sparsejax.training.metric_log import METRICS_FILE
from sparsejax.training.perplexity import Score, token_weighted_score
from sparsejax.training.recipes import ten_parts
from sparsejax.training.recipes.ten_prepared import Prepared, prepare
from sparsejax.training.sharding import shardings
from sparsejax.training.state import Saved
from sparsejax.training.text.batches import training_batches, whole_batches
from sparsejax.typing import Params

__all__ = ["BEST", "Prepared", "Trained", "prepare", "train"]

OUTCOME = METRICS_FILE
"""What to read of a finished run."""


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
    settings = run.settings
    rate = jax.jit(ten_parts.schedule(settings))
    plan = Plan(
        family="ten",
        folder=run.folder,
        identity=run.identity,
        facts={"parameters": run.config.num_parameters, "training_windows": len(run.windows)},
        steps=settings.steps,
        validate_every=settings.validate_every,
        save_every=settings.save_every,
        steps_per_call=run.steps_per_call,
        style=run.style,
        begin=partial(_saved, run),
        advance=partial(_advance, run),
        of_step=lambda step: {"learning_rate": float(rate(step))},
        evaluate=_evaluation(run),
        read_score=Score.read,
        write=partial(_write, run),
        finish=partial(_draw, run),
    )
    return carry_out(plan)


def _advance(run: Prepared, before: Saved) -> Any:
    settings = run.settings
    step = gradient_step(
        ten_parts.next_token_loss(run.config, dtype=run.dtype, train=True),
        ten_parts.optimizer(settings, run.config),
        accumulate=settings.accumulate,
        penalty=ten_parts.penalty(run.config),
    )
    return compiled_steps(step, _batches(run, before.rounds), placement(before.states))


def _evaluation(run: Prepared) -> Callable[[GradientState], Score]:
    evaluate = jax.jit(ten_parts.next_token_loss(run.config, dtype=run.dtype, train=False))

    def score(state: GradientState) -> Score:
        def loss(batch: Any) -> TokenLoss:
            return evaluate(state.params, batch, state.key)

        rows = run.settings.batch_size // run.settings.accumulate
        return token_weighted_score(loss, whole_batches(run.held_out, batch_size=rows, sharding=run.rows))

    return score


def _draw(run: Prepared) -> None:
    if run.settings.plots:
        from sparsejax.plots.ten import draw_folder

        draw_folder(run.folder)


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
    return restored(run.folder, state, run.settings.steps)


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
