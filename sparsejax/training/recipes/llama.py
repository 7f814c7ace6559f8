"""A small Llama trained on local text and written as GGUF: logged, validated, resumable to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax

from sparsejax.training.cross_entropy import TokenLoss
from sparsejax.training.gradient_run import BEST, Plan, Trained, Validated, carry_out, placement, restored
from sparsejax.training.gradient_step import GradientState, compiled_steps, start_state
from sparsejax.training.metric_log import METRICS_FILE
from sparsejax.training.perplexity import Score, token_weighted_score
from sparsejax.training.recipes import llama_parts
from sparsejax.training.recipes.llama_file import write_llama
from sparsejax.training.recipes.llama_prepared import Prepared, prepare
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
      `Trained`. In the folder: ``metrics.jsonl`` (a line per step and per validation), ``best.gguf`` and
      ``final.gguf`` with the tokenizer in them, ``plots``.

    Raises:
      RunError: another process is at work in the folder, its metrics do not fit its saved state, or the loss
        is no longer finite.
      CheckpointError: a saved state is damaged, or the disk refuses.
      OSError: the folder cannot be written.
    """
    settings = run.settings
    rate = jax.jit(llama_parts.schedule(settings))
    plan = Plan(
        family="llama",
        folder=run.folder,
        identity=run.identity,
        facts={"parameters": num_parameters(run), "training_windows": len(run.windows)},
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


def num_parameters(run: Prepared) -> int:
    """Numbers that are trained."""
    shapes = jax.eval_shape(partial(llama_parts.initial_params, run.config), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _advance(run: Prepared, before: Saved) -> Any:
    step = llama_parts.training_step(run.settings, run.config, run.dtype)
    return compiled_steps(step, _batches(run, before.rounds), placement(before.states))


def _evaluation(run: Prepared) -> Callable[[GradientState], Score]:
    evaluate = jax.jit(llama_parts.next_token_loss(run.config, dtype=run.dtype))

    def score(state: GradientState) -> Score:
        def loss(batch: Any) -> TokenLoss:
            found = evaluate(state.params, batch, state.key)
            metrics = {**(found.metrics or {})}
            del metrics[llama_parts.LANGUAGE_LOSS]  # the loss itself here
            return found._replace(metrics=metrics)

        rows = run.settings.batch_size // run.settings.accumulate
        return token_weighted_score(loss, whole_batches(run.held_out, batch_size=rows, sharding=run.rows))

    return score


def _draw(run: Prepared) -> None:
    if run.settings.plots:
        from sparsejax.plots.sparse_inference import draw_folder

        draw_folder(run.folder)


def _saved(run: Prepared) -> Saved:
    """The last saved state, or the one before the first step, each part on its devices."""

    def begin(key: jax.Array) -> GradientState:
        of_params, of_run = jax.random.split(key)
        params = llama_parts.initial_params(run.config, of_params)
        return start_state(of_run, params, llama_parts.optimizer(run.settings))

    key = jax.random.key(run.settings.seed)
    rules = llama_parts.sharding_rules(run.config, run.settings.model_devices)
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
    also = {
        "general.name": f"{run.folder.name} {name}",
        **run.vocabulary,
        "sparsejax.step": found.step,
        "sparsejax.validation_loss": found.score.loss,
        "sparsejax.seed": run.settings.seed,
    }
    path = run.folder / f"{name}.gguf"
    write_llama(path, run.config, params, kept_format=run.settings.format, also=also)
