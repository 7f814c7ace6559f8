"""Predictors for all blocks of a Llama, fitted to what its FFNs read of a text, and what they are worth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparsejax.checkpoint.errors import UnknownFormatError, file_name
from sparsejax.checkpoint.native import durable
from sparsejax.checkpoint.native.header import HEADER_FILE
from sparsejax.models.sparse_inference.calibration.calibrate import Calibrator
from sparsejax.models.sparse_inference.calibration.statistics import RunningStatistics
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.llama.observe import collect_ffn_inputs, ffn_weights
from sparsejax.models.sparse_inference.llama.source import model_and_params, tokenizer_of
from sparsejax.training.recipes.llama.calibrate_settings import LlamaCalibrateSettings
from sparsejax.training.recipes.llama.generate import load_llama
from sparsejax.training.recipes.llama.predictors import PredictorSet, write_predictors
from sparsejax.training.recipes.llama.quality import Way, curves
from sparsejax.training.recipes.llama.text import FileTokenizer
from sparsejax.training.run_checks import check_libraries
from sparsejax.training.text.corpus import documents

REPORT = "report.json"
"""In the directory of the predictors: the numbers of the table."""

_LONGEST = 512  # tokens of a row, unless more are asked for
_KEPT_ROWS = 16384
_CHARACTERS = 32  # of a document that are encoded per token that is still wanted


@dataclass(frozen=True)
class Fit:
    """How predictors are fitted.

    Attributes:
      rank: of each; None is a quarter of the width.
      active_fraction: of the neurons.
      kind: see `sparsejax.models.sparse_inference.calibration.options.FitOptions`, likewise the rest.
      fine_tune: steps of gradient descent; None is what the kind needs.
      recall: of the best neurons, that thresholds are to find.
      seed: of what is drawn.
      context: tokens of a row at most.
    """

    rank: int | None = None
    active_fraction: float = 0.25
    kind: Literal["low-rank", "mlp"] = "low-rank"
    fine_tune: int | None = None
    recall: float | None = None
    seed: int = 0
    context: int | None = None


@dataclass(frozen=True)
class LayerReport:
    """What the predictor of a block is worth on text that it was not fitted to.

    Attributes:
      recall: of as many neurons with the largest contributions, those computed; where fewer than these are
        active, which others are found does not matter.
      recall_of_active: of the neurons that give anything, those computed.
      energy_kept: of the squares of all neurons' values.
      output_error: norm of what the outputs lose, over that of the outputs.
      threshold: of the scores.
      active_at_threshold: share of the neurons above it.
      recall_at_threshold: of the best neurons, those above it.
    """

    recall: float
    recall_of_active: float
    energy_kept: float
    output_error: float
    threshold: float
    active_at_threshold: float
    recall_at_threshold: float


@dataclass(frozen=True)
class Fitted:
    """Predictors and their worth.

    Attributes:
      predictors: of all blocks.
      layers: one per block.
    """

    predictors: PredictorSet
    layers: tuple[LayerReport, ...]


@dataclass(frozen=True)
class Calibrated:
    """What ``sparsejax calibrate`` found.

    Attributes:
      directory: of the predictors.
      active_fraction: of the neurons.
      layers: one per block.
      perplexities: of held-out text, by how neurons are chosen and by active fraction; or none.
      tokens: read.
      seconds: of all.
    """

    directory: Path
    active_fraction: float
    layers: tuple[LayerReport, ...]
    perplexities: Mapping[Way, Mapping[float, float]]
    tokens: int
    seconds: float


def calibrate_network(source: Any, seen: Sequence[Any], unseen: Sequence[Any], fit: Fit) -> Fitted:
    """Fit a predictor to every block, in one pass over the text, and measure them in another.

    Samples stream by: a few thousand are kept per block, for thresholds and gradient descent.

    Args:
      source: a checkpoint of a Llama, or ``(model, params)``.
      seen: rows of ids to fit to.
      unseen: rows of ids to measure on.
      fit: how.

    Raises:
      ValueError: rows or numbers that cannot be right.
    """
    if not 0 < fit.active_fraction <= 1:
        raise ValueError(f"active_fraction must be above 0 and at most 1, not {fit.active_fraction}")
    model, params = model_and_params(source)
    config, layers = model.config, range(model.config.n_layers)
    weights = [ffn_weights(params, layer) for layer in layers]
    wanted = SparsityConfig.with_target_sparsity(1 - fit.active_fraction)
    # Gates of ReGLU are linear in the inputs, and closed ones give nothing; those of SwiGLU say less.
    sums = {"target": "sums", "by": "activation"} if config.activation == "relu" else {}
    options: dict[str, Any] = {"kind": fit.kind, "rank": fit.rank, "fine_tune": fit.fine_tune, **sums}
    calibrators = [
        Calibrator(
            of_layer,
            wanted,
            activation=config.activation,
            target_recall=fit.recall,
            seed=fit.seed,
            kept_rows=_KEPT_ROWS,
            **options,
        )
        for of_layer in weights
    ]
    for batch in collect_ffn_inputs(source, [*seen], context=fit.context):
        for calibrator, inputs in zip(calibrators, batch, strict=True):
            calibrator.add(inputs)
    found = [calibrator.finish() for calibrator in calibrators]
    counted = SparsityConfig.with_active_fraction(fit.active_fraction)
    running = [
        [
            RunningStatistics(each.predictor, of_layer, sparsity, activation=config.activation)
            for sparsity in (counted, each.sparsity)
        ]
        for each, of_layer in zip(found, weights, strict=True)
    ]
    for batch in collect_ffn_inputs(source, [*unseen], context=fit.context):
        for of_layer_running, inputs in zip(running, batch, strict=True):
            for statistics in of_layer_running:
                statistics.add(inputs)
    thresholds = tuple(_threshold(each.sparsity) for each in found)
    reports = tuple(_report(pair, threshold) for pair, threshold in zip(running, thresholds, strict=True))
    each = tuple(calibration.predictor for calibration in found)
    # A calibrator promises any `Predictor`, and makes no others than a set holds.
    return Fitted(PredictorSet(each, thresholds, fit.active_fraction), reports)  # type: ignore[arg-type]


def calibrate_file(settings: LlamaCalibrateSettings) -> Calibrated:
    """Fit predictors to a model in a file, and write them and their report.

    Args:
      settings: of the command.

    Returns:
      `Calibrated`; in the directory also ``report.json``, and with ``plots`` ``plots/perplexity.png``.

    Raises:
      CheckpointError: the model cannot be read, has no tokenizer, or the directory is something else.
      ValueError: unsuitable text or numbers; one line.
      OSError: the directory cannot be written.
    """
    began = time.monotonic()
    check_libraries("calibration", plots=settings.plots)
    _check_numbers(settings)
    _check_target(settings.out)
    ck = load_llama(settings.model)
    context = min(ck.config.context_length, settings.context or _LONGEST)
    seen, unseen = _rows(settings, ck, context)
    fit = Fit(
        rank=settings.rank,
        active_fraction=settings.active_fraction,
        kind=settings.predictor,
        fine_tune=settings.fine_tune,
        recall=settings.recall,
        seed=settings.seed,
        context=context,
    )
    found = calibrate_network(ck, seen, unseen, fit)
    write_predictors(settings.out, found.predictors, ck)
    perplexities = curves(ck, unseen, found.predictors.each) if settings.perplexity else {}
    done = Calibrated(
        settings.out,
        settings.active_fraction,
        found.layers,
        perplexities,
        sum(map(len, (*seen, *unseen))),
        time.monotonic() - began,
    )
    _write_report(done, settings)
    return done


def _check_numbers(settings: LlamaCalibrateSettings) -> None:
    if not 0 < settings.active_fraction <= 1:
        raise ValueError(f"--active-fraction must be above 0 and at most 1, not {settings.active_fraction}")
    if settings.recall is not None and not 0 < settings.recall <= 1:
        raise ValueError(f"--recall must be above 0 and at most 1, not {settings.recall}")
    if not 0 < settings.held_out < 1:
        raise ValueError(f"--held-out must be between 0 and 1, not {settings.held_out}")
    for name, least in (("tokens", 2), ("context", 2), ("rank", 1), ("fine_tune", 0)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")


def _check_target(directory: Path) -> None:
    """Refuse before the work what the writer would refuse after it."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory}: is a file; give a directory for the predictors")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / HEADER_FILE).exists():
        raise ValueError(
            f"{directory}: is not empty and not a sparsejax checkpoint; choose another directory"
        )


def _rows(
    settings: LlamaCalibrateSettings, ck: Any, context: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rows of ids to fit to, and others from the end of the text to measure on."""
    if tokenizer_of(ck) is None:
        raise UnknownFormatError(f"{file_name(settings.model)}: has no tokenizer, so it takes no text")
    ids = _ids(settings, FileTokenizer(ck.metadata))
    held_out = max(1, round(settings.held_out * len(ids)))
    if len(ids) - held_out < 2 or held_out < 2:
        raise ValueError(
            f"{settings.data}: its {len(ids)} tokens are too few to fit to some and measure on others: "
            "give more text"
        )
    return _cut(ids[:-held_out], context), _cut(ids[-held_out:], context)


def _ids(settings: LlamaCalibrateSettings, tokenizer: FileTokenizer) -> np.ndarray:
    """The first tokens of the text; files behind them are not read."""
    parts: list[np.ndarray] = []
    left = settings.tokens
    for document in documents(settings.data, pattern=settings.pattern, separator=settings.separator):
        parts.append(tokenizer.encode(document.text()[: left * _CHARACTERS].encode())[:left])
        left -= len(parts[-1])
        if left < 1:
            break
    if not parts:
        raise ValueError(f"{settings.data}: holds no text")
    return np.concatenate(parts)


def _cut(ids: np.ndarray, context: int) -> list[np.ndarray]:
    return [ids[start : start + context] for start in range(0, len(ids), context)]


def _threshold(sparsity: SparsityConfig) -> float:
    assert sparsity.threshold is not None
    return sparsity.threshold


def _report(running: Sequence[RunningStatistics], threshold: float) -> LayerReport:
    counted, at_threshold = (each.result() for each in running)
    return LayerReport(
        recall=counted.recall_by_contribution,
        recall_of_active=counted.recall_of_active,
        energy_kept=counted.energy_kept,
        output_error=counted.output_error,
        threshold=threshold,
        active_at_threshold=at_threshold.active_fraction,
        recall_at_threshold=at_threshold.recall_by_contribution,
    )


def _write_report(done: Calibrated, settings: LlamaCalibrateSettings) -> None:
    document = {
        "model": settings.model.name,
        "active_fraction": done.active_fraction,
        "layers": [asdict(layer) for layer in done.layers],
        "perplexities": {
            way: {f"{share:g}": value for share, value in curve.items()}
            for way, curve in done.perplexities.items()
        },
        "tokens": done.tokens,
        "seconds": round(done.seconds, 3),
    }
    durable.replace_json(done.directory / REPORT, document)
    if settings.plots and done.perplexities:
        from sparsejax.plots.sparse_inference import perplexity_curves
        from sparsejax.plots.style import write_figures

        # Mappings are invariant in their keys: those of text do not take the ways, which are text.
        figure = perplexity_curves({settings.model.stem: done.perplexities})  # type: ignore[dict-item]
        write_figures(done.directory / "plots", {"perplexity": figure})
