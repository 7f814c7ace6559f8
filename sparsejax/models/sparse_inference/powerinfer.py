"""PowerInfer's predictors and activation counts: one ``.pt`` file per layer, in one folder."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.checkpoint.errors import CorruptFileError, MissingKeyError, NotReadableError, ShapeError
from sparsejax.checkpoint.load import load
from sparsejax.checkpoint.readable import check_readable, located
from sparsejax.models.sparse_inference.predictor.learned import MLPPredictor
from sparsejax.models.sparse_inference.store.placement import read_activation_counts

_LAYER = re.compile(r"model_(0|[1-9][0-9]{0,5})\.pt")


@dataclass(frozen=True)
class PowerInferPredictors:
    """What a folder holds, by layer.

    Attributes:
      predictors: scores of each layer's neurons.
      threshold: neurons with a score of at least this are computed.
      counts: float64 (f,) of each layer, how often each neuron was active; None where there are none.
    """

    predictors: tuple[MLPPredictor, ...]
    threshold: float
    counts: tuple[np.ndarray, ...] | None


def read_powerinfer(folder: str | os.PathLike[str]) -> PowerInferPredictors:
    """The predictors of a network, without torch.

    Args:
      folder: ``model_0.pt``, ``model_1.pt``, ... each with ``fc1.weight`` (r, d) and ``fc2.weight`` (f, r);
        ``config.json`` with ``sparse_threshold``, 0 if there is none; ``activation_0.pt``, ... with counts
        (f,), for all layers or for none.

    Raises:
      CheckpointError: a subclass that names the file and what is wrong with it.

    Example:
      >>> import os, tempfile
      >>> from sparsejax.checkpoint import torch_file
      >>> folder = tempfile.mkdtemp()
      >>> state = {"fc1.weight": np.ones((2, 4), np.float32), "fc2.weight": np.ones((8, 2), np.float32)}
      >>> torch_file.write(state, os.path.join(folder, "model_0.pt"))
      >>> found = read_powerinfer(folder)
      >>> len(found.predictors), found.threshold, found.counts is None
      (1, 0.0, True)

    Source: specs/sparse_inference.md section 11.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise NotReadableError(f"{folder}: no such folder; give the one with model_0.pt")
    layers = {int(found[1]) for entry in folder.iterdir() if (found := _LAYER.fullmatch(entry.name))}
    absent = next(number for number in range(len(layers) + 1) if number not in layers)
    if not layers or absent < len(layers):
        raise MissingKeyError(f"{folder}: model_{absent}.pt is missing; one file per layer is needed")
    predictors = tuple(_predictor(folder / f"model_{number}.pt") for number in range(len(layers)))
    threshold = _threshold(folder / "config.json")
    if not any(folder.glob("activation_*.pt")):
        return PowerInferPredictors(predictors, threshold, None)
    counts = read_activation_counts(folder)
    if len(counts) != len(predictors):
        raise MissingKeyError(
            f"{folder}: has counts of {len(counts)} layers, and predictors of {len(predictors)}"
        )
    for number, (own, predictor) in enumerate(zip(counts, predictors, strict=True)):
        if own.size != predictor.shape[0]:
            sizes = f"counts of {own.size} neurons, the predictor is of {predictor.shape[0]}"
            raise ShapeError(f"{folder}: activation_{number}.pt holds {sizes}")
    return PowerInferPredictors(predictors, threshold, counts)


def _predictor(path: Path) -> MLPPredictor:
    ck = load(path, kind="sparse_inference", variant="powerinfer")
    return MLPPredictor(ck.params["fc1"], ck.params["fc2"])


def _threshold(path: Path) -> float:
    if not path.exists():
        return 0.0
    check_readable(path)
    with located(path):
        try:
            document: Any = json.loads(path.read_bytes())
            value = document.get("sparse_threshold", 0.0)
            if isinstance(value, bool) or not np.isfinite(float(value)):
                raise ValueError(f"sparse_threshold is {value!r}")
            return float(value)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptFileError(f"tells no threshold: {str(error)[:100]}") from error
