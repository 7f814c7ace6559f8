"""A Temporal Eigenstate Network trained on local text: logged, validated, resumable to the bit."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.save import save
from sparsejax.training.gradient_run import Trained, Validated
from sparsejax.training.gradient_step import gradient_step
from sparsejax.training.metric_log import METRICS_FILE
from sparsejax.training.recipes.ten import parts as ten_parts
from sparsejax.training.recipes.ten.prepared import Prepared, prepare
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
      `Trained`. In the folder: ``metrics.jsonl`` (a line per step and per validation), ``best`` and
      ``final`` (`sparsejax.load` reads them), ``plots``.

    Raises:
      RunError: another process is at work in the folder, its metrics do not fit its saved state, or the loss
        is no longer finite.
      CheckpointError: a saved state is damaged, or the disk refuses.
      OSError: the folder cannot be written.
    """
    settings, config = run.settings, run.config
    optimizer = ten_parts.optimizer(settings, config)
    recipe = TextRecipe(
        name="ten",
        parameters=config.num_parameters,
        rate=ten_parts.schedule(settings),
        init=partial(ten_parts.initial_params, config),
        optimizer=optimizer,
        rules=ten_parts.sharding_rules(config, settings.model_devices),
        step=gradient_step(
            ten_parts.next_token_loss(config, dtype=run.dtype, train=True),
            optimizer,
            accumulate=settings.accumulate,
            penalty=ten_parts.penalty(config),
        ),
        loss=ten_parts.next_token_loss(config, dtype=run.dtype, train=False),
        write=partial(_write, run),
        draw=_draw,
    )
    return train_on_text(run, recipe)


def _draw(folder: Path) -> None:
    from sparsejax.plots.ten import draw_folder

    draw_folder(folder)


def _write(run: Prepared, name: str, params: Params, found: Validated) -> None:
    metadata = {
        "tokenizer": run.tokenizer.name,
        "step": found.step,
        "validation_loss": found.score.loss,
        "seed": run.settings.seed,
    }
    save(Checkpoint("ten", run.config.variant, run.config, params, metadata), run.folder / name)
