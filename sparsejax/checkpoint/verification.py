"""`verify`: does a checkpoint survive the round trip, and does it compute what it should?"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparsejax.checkpoint import npz_file, registry
from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.errors import MissingKeyError, NotReadableError, ShapeError, shown
from sparsejax.checkpoint.load import load
from sparsejax.checkpoint.packed import is_packed
from sparsejax.checkpoint.readable import check_readable, located
from sparsejax.checkpoint.save import export_pt, save
from sparsejax.checkpoint.source_file import open_source
from sparsejax.checkpoint.tree import flatten

DEFAULT_TOLERANCE = 3e-5
_OF_TORCH = ("zip", "legacy", "onnx")  # read from one of these, a checkpoint is written as a torch file


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    detail: str


def verify(
    path: str | os.PathLike[str],
    reference: str | os.PathLike[str] | None = None,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    family_report: bool = True,
    **options: Any,
) -> list[Check]:
    """Load a checkpoint, write it and read it again, and compare its outputs with stored ones.

    Args:
      path: as for `load`.
      reference: ``.npz`` with ``outputs`` and the inputs by name (see the family: ``x`` or ``features`` for
        ultra-sparse nets, ``ids`` for language models, whose outputs may be called ``logits``; ``z`` and
        ``pos`` for force fields, whose outputs are ``energy`` and ``forces``).
      tolerance: largest absolute difference of the outputs; where they are named, relative to the largest
        value of each that is above one.
      family_report: run the checks of the family's own too, where it has any.
      options: kind, variant, overrides, dtype of `load`.

    Returns:
      the checks in order; all passed means the file is sound.

    Raises:
      CheckpointError: the file or the reference cannot be used at all.
    """
    ck = load(path, **options)
    checks = [Check("read", True, f"{ck.kind}/{ck.variant}, {ck.num_values} values, all finite")]
    checks.append(_round_trip_native(ck))
    if not Path(path).is_dir():
        checks.append(_round_trip_original(ck, path, options))
    if reference is not None:
        checks.append(compare_outputs(ck, reference, tolerance))
    if family_report:
        checks += registry.find(ck.kind).report(ck)
    return checks


def compare_outputs(
    ck: Checkpoint, reference: str | os.PathLike[str], tolerance: float = DEFAULT_TOLERANCE
) -> Check:
    """Outputs of ``ck`` on the inputs of a reference file against the outputs stored there.

    Raises:
      CheckpointError: the reference has no outputs, no inputs that the family knows, or other shapes.
    """
    check_readable(Path(reference))
    with located(reference):
        if not npz_file.is_npz(reference):
            raise NotReadableError("a reference is an .npz file with outputs and inputs by name")
        arrays = npz_file.read_headers(reference)
        family = registry.find(ck.kind)
        names = [name for name in family.outputs if name in arrays]
        if not names:
            raise MissingKeyError(
                f"a reference needs an array named {family.outputs[0]!r}; found {shown(arrays)}"
            )
        expected = {name: arrays[name].view() for name in names}
        inputs = {key: array.view() for key, array in arrays.items() if key not in names}
        try:
            found = family.evaluate(ck, inputs)
        except ValueError as error:
            raise ShapeError(f"the model cannot take its inputs: {error}") from error
        if isinstance(found, Mapping):
            return _compare_named(expected, found, tolerance)
        worst = _difference(names[0], np.asarray(found), expected[names[0]])
    return Check(
        "reference",
        worst <= tolerance,
        f"largest difference {worst:.3g} of {expected[names[0]].size} outputs (limit {tolerance:g})",
    )


def _compare_named(expected: Mapping[str, np.ndarray], found: Mapping[str, Any], tolerance: float) -> Check:
    """Several outputs of different units, each on the scale of its own largest value."""
    worst: dict[str, float] = {}
    for name, wanted in expected.items():
        if name not in found:
            raise ShapeError(f"the model gives no {name!r} for these inputs; it gives {shown(found)}")
        scale = max(1.0, float(np.max(np.abs(wanted), initial=0.0)))
        worst[name] = _difference(name, np.asarray(found[name]), wanted) / scale
    told = ", ".join(f"{name} {value:.3g}" for name, value in worst.items())
    passed = all(value <= tolerance for value in worst.values())
    detail = f"largest difference over the largest value: {told} (limit {tolerance:g})"
    return Check("reference", passed, detail)


def _difference(name: str, found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        raise ShapeError(f"{name!r} has shape {expected.shape}, the model gives {found.shape}")
    return float(np.max(np.abs(found - expected), initial=0.0))


def _round_trip_native(ck: Checkpoint) -> Check:
    with tempfile.TemporaryDirectory() as folder:
        save(ck, Path(folder) / "model")
        again = load(Path(folder) / "model")
    return _same_arrays("sparsejax directory", flatten(ck.params), flatten(again.params))


def _round_trip_original(ck: Checkpoint, path: str | os.PathLike[str], options: Mapping[str, Any]) -> Check:
    if options.get("dtype") is not None:
        return Check("original layout", True, "not compared: dtype was changed on request")
    with tempfile.TemporaryDirectory() as folder:
        file_format = ck.layout.file_format
        copy = Path(folder) / f"copy{'.pt' if file_format in _OF_TORCH else '.' + file_format}"
        export_pt(ck, copy)
        before, after = open_source(path), open_source(copy)
        tensors = registry.completed(registry.find(ck.kind), before.tensors, file_format)
        return _same_arrays(
            "original layout",
            {key: _as_read(array.view()) for key, array in tensors.items()},
            {key: array.view() for key, array in after.tensors.items()},
        )


def _as_read(array: Any) -> Any:
    """The array in the type that JAX holds it in: float64 is float32 unless x64 is on."""
    if is_packed(array) or array.dtype.kind not in "fc":
        return array
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)


def _same_arrays(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Check:
    different = [key for key in before if key not in after or not _identical(before[key], after[key])]
    different += [key for key in after if key not in before]
    if different:
        return Check(name, False, f"{shown(different)} changed on the round trip")
    return Check(name, True, f"{len(before)} tensors written and read again, bit for bit")


def _identical(a: Any, b: Any) -> bool:
    if is_packed(a) or is_packed(b):
        same_kind = is_packed(a) and is_packed(b) and (a.format, a.shape) == (b.format, b.shape)
        return same_kind and np.array_equal(a.to_bytes(), b.to_bytes())
    one, other = np.asarray(a), np.asarray(b)
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
