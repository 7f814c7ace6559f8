"""A small Llama trained on local text and written as GGUF: logged, validated, resumable to the bit."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax

from sparsejax.training.gradient_run import Trained, Validated
from sparsejax.training.metric_log import METRICS_FILE
from sparsejax.training.recipes.llama import parts as llama_parts
from sparsejax.training.recipes.llama.file import write_llama
from sparsejax.training.recipes.llama.prepared import Prepared, prepare
from sparsejax.training.run_folder import BEST
from sparsejax.training.text_run import TextRecipe, train_on_text
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
    settings, config = run.settings, run.config
    recipe = TextRecipe(
        name="llama",
        parameters=num_parameters(run),
        rate=llama_parts.schedule(settings),
        init=partial(llama_parts.initial_params, config),
        optimizer=llama_parts.optimizer(settings),
        rules=llama_parts.sharding_rules(config, settings.model_devices),
        step=llama_parts.training_step(settings, config, run.dtype),
        loss=llama_parts.validation_loss(config, run.dtype),
        write=partial(_write, run),
        draw=_draw,
    )
    return train_on_text(run, recipe)


def num_parameters(run: Prepared) -> int:
    """Numbers that are trained."""
    shapes = jax.eval_shape(partial(llama_parts.initial_params, run.config), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _draw(folder: Path) -> None:
    from sparsejax.plots.sparse_inference import draw_folder

    draw_folder(folder)


def _write(run: Prepared, name: str, params: Params, found: Validated) -> None:
    also = {
        "general.name": f"{run.folder.name} {name}",
        **run.tokenizer.metadata,
        "sparsejax.step": found.step,
        "sparsejax.validation_loss": found.score.loss,
        "sparsejax.seed": run.settings.seed,
    }
    path = run.folder / f"{name}.gguf"
    write_llama(path, run.config, params, kept_format=run.settings.format, also=also)
