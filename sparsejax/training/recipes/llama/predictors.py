"""Predictors of all blocks of a Llama as one directory, which knows the model that they were fitted to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.checkpoint import store
from sparsejax.checkpoint.errors import (
    CheckpointError,
    CorruptFileError,
    NotReadableError,
    UnknownFormatError,
    file_name,
)
from sparsejax.models.sparse_inference.llama.source import model_and_params
from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor, MLPPredictor
from sparsejax.ops.quantized import QuantizedTensor
from sparsejax.version import __version__

KIND = "llama_predictors"

_CLASSES: Mapping[str, type[LowRankPredictor] | type[MLPPredictor]] = {
    "low-rank": LowRankPredictor,
    "mlp": MLPPredictor,
}
_SIZES = ("n_layers", "d_model", "d_ff", "activation")


@dataclass(frozen=True)
class PredictorSet:
    """Predictors of a network.

    Attributes:
      each: one per block, all of one kind.
      thresholds: of the scores, one per block: above it a neuron is computed.
      active_fraction: of the neurons, that the thresholds were fitted to.
    """

    each: tuple[LowRankPredictor | MLPPredictor, ...]
    thresholds: tuple[float, ...]
    active_fraction: float


def write_predictors(directory: str | os.PathLike[str], found: PredictorSet, source: Any) -> None:
    """Write a directory, or replace the one that is there in one step.

    Args:
      directory: new, empty, or of earlier predictors.
      found: what to write.
      source: checkpoint of the network, or ``(model, params)``.

    Raises:
      CheckpointError: the target is something else, or cannot be written.
      ValueError: quantised predictors.
    """
    kind = next(name for name, made in _CLASSES.items() if isinstance(found.each[0], made))
    header = {
        "kind": KIND,
        "variant": kind,
        "model": fingerprint(source),
        "thresholds": list(found.thresholds),
        "active_fraction": found.active_fraction,
        "library_version": __version__,
    }
    params = {f"blk_{number}": _arrays(predictor) for number, predictor in enumerate(found.each)}
    store.write_directory(Path(directory), header, params)


def read_predictors(directory: str | os.PathLike[str], source: Any) -> PredictorSet:
    """The predictors of a directory, if they are of this network.

    Args:
      directory: that `write_predictors` wrote.
      source: checkpoint of the network, or ``(model, params)``.

    Raises:
      CheckpointError: it holds no predictors, is damaged, or they were fitted to another network.
    """
    directory, name = Path(directory), file_name(directory)
    if not directory.exists():
        raise NotReadableError(f"{name}: no such directory; sparsejax calibrate writes one")
    header = store.read_header(directory)
    fields = header.fields
    if fields.get("kind") != KIND:
        raise UnknownFormatError(f"{name}: holds no predictors; sparsejax calibrate writes such a directory")
    _check_model(name, fields.get("model"), fingerprint(source))
    arrays = store.read_arrays(header, store.array_shapes(header))
    try:
        made = _CLASSES[fields["variant"]]
        each = tuple(made.from_matrices(**arrays[f"blk_{number}"]) for number in range(len(arrays)))
        thresholds = tuple(float(value) for value in fields["thresholds"])
        found = PredictorSet(each, thresholds, float(fields["active_fraction"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{name}: its predictors are damaged: {error}; calibrate again") from error
    sizes = fields["model"]
    shapes = {predictor.shape for predictor in found.each}
    wanted = {(sizes["d_ff"], sizes["d_model"])}
    if len(found.each) != sizes["n_layers"] or len(found.thresholds) != len(found.each) or shapes != wanted:
        raise CorruptFileError(
            f"{name}: predictors and the model they are for differ in size; calibrate again"
        )
    return found


def fingerprint(source: Any) -> dict[str, Any]:
    """What tells a network from another, in whatever format its matrices are: sizes, and its norms.

    Args:
      source: checkpoint of the network, or ``(model, params)``.
    """
    model, params = model_and_params(source)
    config, digest = model.config, hashlib.sha256()
    for number in range(config.n_layers):
        for norm in ("attn_norm", "ffn_norm"):
            # Files that keep norms in 16 bits have the same ones.
            digest.update(np.asarray(params[f"blk_{number}"][norm]["weight"], "<f2").tobytes())
    return {**{name: getattr(config, name) for name in _SIZES}, "norms": digest.hexdigest()}


def _check_model(name: str, told: Any, here: Mapping[str, Any]) -> None:
    told = told if isinstance(told, Mapping) else {}
    for field in _SIZES:
        if told.get(field) != here[field]:
            raise CheckpointError(
                f"{name}: predictors of another model: {field} is {told.get(field)!r} there and "
                f"{here[field]!r} in this one; run sparsejax calibrate for it"
            )
    if told.get("norms") != here["norms"]:
        raise CheckpointError(
            f"{name}: predictors of another model of the same sizes; run sparsejax calibrate for this one"
        )


def _arrays(predictor: LowRankPredictor | MLPPredictor) -> dict[str, Any]:
    if any(isinstance(value, QuantizedTensor) for value in vars(predictor).values()):
        raise ValueError("predictors are written in float32; quantise them after they are read")
    return {name: value for name, value in vars(predictor).items() if value is not None}
