"""A SPROUT network trained on local text: logged, validated, resumable to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.native import durable
from sparsejax.checkpoint.save import save
from sparsejax.training.cross_entropy import TokenLoss
from sparsejax.training.gradient_run import Plan, Trained, Validated, begun, carry_out, placement
from sparsejax.training.gradient_step import GradientState
from sparsejax.training.metric_log import METRICS_FILE
from sparsejax.training.perplexity import Score, token_weighted_score
from sparsejax.training.processes import is_first_process
from sparsejax.training.progress import style_of
from sparsejax.training.recipes.sprout import parts as sprout_parts
from sparsejax.training.recipes.sprout.prepared import TOKENIZER_FILE, Prepared, prepare
from sparsejax.training.run_folder import BEST
from sparsejax.training.state import Saved
from sparsejax.training.text.batches import training_batches, whole_batches
from sparsejax.typing import Params

__all__ = ["BEST", "Prepared", "Trained", "prepare", "train"]

_LAYOUTS = {"linear": "v1", "mlp": "v2", "low_rank": "low_rank", "block": "block", "mlp_block": "block"}
OUTCOME = METRICS_FILE
"""What to read of a finished run."""


def train(run: Prepared) -> Trained:
    """Train, or continue where a killed run was saved last.

    Validations are those of ``final_top_k`` neurons, from the first one on, so that they can be compared.

    Args:
      run: from `prepare`.

    Returns:
      `Trained`. In the folder: ``metrics.jsonl``, ``tokenizer.json``, ``best`` and ``final``
      (`sparsejax.load` reads them), ``plots``.

    Raises:
      RunError: another process is at work in the folder, its metrics do not fit its saved state, or the loss
        is no longer finite.
      CheckpointError: a saved state is damaged, or the disk refuses.
      OSError: the folder cannot be written.
    """
    settings = run.settings
    rates, top_k = jax.jit(sprout_parts.rates(settings, run.steps)), sprout_parts.top_k_schedule(settings)

    def of_step(step: int) -> dict[str, float]:
        neurons = top_k(step)
        told = {name: float(value) for name, value in rates(step).items()}
        return {**told, "top_k": settings.d_ff if neurons is None else neurons}

    plan = Plan(
        family="sprout",
        folder=run.folder,
        identity=run.identity,
        facts={"parameters": run.num_parameters, "training_rows": len(run.rows)},
        steps=run.steps,
        validate_every=settings.eval_interval,
        save_every=settings.save_interval,
        steps_per_call=run.steps_per_call,
        style=style_of(settings),
        begin=partial(_saved, run),
        advance=partial(_advance, run),
        of_step=of_step,
        evaluate=_evaluation(run),
        read_score=Score.read,
        write=partial(_write, run),
        finish=partial(_draw, run),
        log_every=settings.log_interval,
    )
    return carry_out(plan)


def _advance(run: Prepared, before: Saved) -> Any:
    batches, place = _batches(run, before.rounds), placement(before.states)
    return sprout_parts.compiled_training_steps(
        run.objective, batches, place, start=before.rounds, steps=run.steps
    )


def _evaluation(run: Prepared) -> Callable[[GradientState], Score]:
    evaluate = jax.jit(run.objective.validation_loss)

    def score(state: GradientState) -> Score:
        def loss(batch: Any) -> TokenLoss:
            loss: TokenLoss = evaluate(state.params, batch)
            return loss

        batches = whole_batches(
            run.held_out, batch_size=run.settings.batch_size, blank=run.held_out.blank, sharding=run.placed
        )
        return token_weighted_score(loss, batches)

    return score


def _draw(run: Prepared) -> None:
    if run.settings.plots:
        from sparsejax.plots.sprout import draw_folder

        draw_folder(run.folder)


def _saved(run: Prepared) -> Saved:
    """The last saved state, or the one before the first step; the tokenizer is written before either."""
    if is_first_process() and not (run.folder / TOKENIZER_FILE).exists():
        durable.replace_text(run.folder / TOKENIZER_FILE, run.tokenizer.name)

    first = partial(sprout_parts.first_state, run.config, run.settings, run.steps)
    return begun(run.folder, first, seed=run.settings.seed, rules=(), mesh=run.mesh, steps=run.steps)


def _batches(run: Prepared, done: int) -> Iterator[Any]:
    settings = run.settings
    return training_batches(
        run.rows,
        batch_size=settings.batch_size,
        seed=settings.seed,
        start=done,
        stop=run.steps,
        sharding=run.placed,
    )


def _write(run: Prepared, name: str, params: Params, found: Validated) -> None:
    metadata = {
        "tokenizer": run.tokenizer.name,
        "step": found.step,
        "validation_loss": found.score.loss,
        "top_k": run.settings.final_top_k,
        "selection": run.settings.selection,
        "seed": run.settings.seed,
    }
    save(Checkpoint("sprout", _LAYOUTS[run.config.router], run.config, params, metadata), run.folder / name)
