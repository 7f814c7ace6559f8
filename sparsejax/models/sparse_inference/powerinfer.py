"""PowerInfer's predictors and activation counts: one ``.pt`` file per layer, in one folder."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.checkpoint import torch_file
from sparsejax.checkpoint.errors import CorruptFileError, MissingKeyError, NotReadableError, ShapeError
from sparsejax.checkpoint.load import load
from sparsejax.checkpoint.readable import check_readable, located
from sparsejax.models.sparse_inference.predictor import MLPPredictor

_LAYER = re.compile(r"(model|activation)_(0|[1-9][0-9]{0,5})\.pt")


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
    layers: dict[str, set[int]] = {"model": set(), "activation": set()}
    for entry in folder.iterdir():
        if found := _LAYER.fullmatch(entry.name):
            layers[found[1]].add(int(found[2]))
    count = len(layers["model"])
    if layers["model"] != set(range(count)) or not count:
        absent = next(number for number in range(count + 1) if number not in layers["model"])
        raise MissingKeyError(f"{folder}: model_{absent}.pt is missing; one file per layer is needed")
    predictors = tuple(_predictor(folder / f"model_{number}.pt") for number in range(count))
    if not layers["activation"]:
        return PowerInferPredictors(predictors, _threshold(folder / "config.json"), None)
    if layers["activation"] != set(range(count)):
        raise MissingKeyError(
            f"{folder}: activation_*.pt are not there for all of the {count} layers, or too many"
        )
    counts = tuple(
        read_counts(folder / f"activation_{number}.pt", predictor.shape[0])
        for number, predictor in enumerate(predictors)
    )
    return PowerInferPredictors(predictors, _threshold(folder / "config.json"), counts)


def read_counts(path: str | os.PathLike[str], neurons: int | None = None) -> np.ndarray:
    """How often each neuron of a layer was active.

    Args:
      path: an ``activation_<i>.pt``: one tensor (f,).
      neurons: that it must have.

    Returns:
      float64 (f,).

    Raises:
      CheckpointError: a subclass that names the file and what is wrong with it.
    """
    with located(path):
        found = torch_file.read(path)
        if not isinstance(found, np.ndarray) or found.ndim != 1 or found.dtype.kind not in "iuf":
            what = f"shape {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
            raise CorruptFileError(f"holds no row of counts but {what}")
        if neurons is not None and found.size != neurons:
            raise ShapeError(f"holds counts of {found.size} neurons, the predictor is of {neurons}")
        counts = found.astype(np.float64)
        if not np.isfinite(counts).all() or counts.min(initial=0) < 0:
            raise CorruptFileError("holds counts that are negative, NaN or infinite")
        return counts


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
