"""What is wrong with a table before anything is fitted to it, one line per fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from sparsejax.models.ultra_sparse.problems.problem import Task

NAMED = 5
"""Columns or rows that a line names before it says how many more there are."""


def check_table(
    features: Any,
    targets: Any,
    task: Task,
    *,
    num_parameters: int | None = None,
    feature_names: Sequence[str] | np.ndarray | None = None,
) -> tuple[str, ...]:
    """Refuse a table that nothing can be fitted to; say what is odd about one that can.

    Args:
      features: (b, i).
      targets: (b,), or (b, o) for regression; labels of any sortable type for classification.
      task: "regression" or "classification".
      num_parameters: of the net to be fitted; None skips that check.
      feature_names: to name columns with; numbers unless told.

    Returns:
      one line each for constant columns and for fewer rows than parameters; empty for a clean table.

    Raises:
      ValueError: unknown task, shapes that disagree, no rows, values that are no real numbers, NaN or
        infinity, or labels of one class.

    Example:
      >>> check_table([[1, 2], [1, 3]], [0.0, 1.0], "regression", num_parameters=5)
      ('1 of 2 columns is constant and carries no information: 0', '2 rows for 5 parameters: ...')
    """
    if task not in get_args(Task):
        raise ValueError(f"task {task!r} is not one of {get_args(Task)}")
    features, targets = np.asarray(features), np.asarray(targets)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features of shape {features.shape}: rows and columns (b, i) are needed")
    if targets.ndim not in (1, 2) or len(targets) != len(features):
        raise ValueError(f"targets of shape {targets.shape} do not fit {len(features)} rows of features")
    check_finite("features", features)
    if task == "regression" or targets.dtype.kind == "f":
        check_finite("targets", targets)
    if task == "classification" and len(classes := np.unique(targets)) < 2:
        raise ValueError(f"all {len(targets)} labels are {classes[0]!s}: at least two classes are needed")
    return (*_constant_columns(features, feature_names), *_few_rows(len(features), num_parameters))


def check_finite(name: str, values: np.ndarray) -> None:
    """Refuse rows that are no finite numbers.

    Args:
      name: what they are, in the plural.
      values: (b, ...).

    Raises:
      ValueError: they are no real numbers, or NaN or infinity is among them; names the first such rows.

    Example:
      >>> check_finite("targets", np.zeros((4, 2)))
    """
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} are {values.dtype} where real numbers are needed")
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{name} hold NaN or infinity in {len(bad)} of {len(values)} rows ({_listed(bad)}); "
            "drop or impute them"
        )


def _constant_columns(features: np.ndarray, names: Sequence[str] | np.ndarray | None) -> tuple[str, ...]:
    constant = np.flatnonzero((features == features[:1]).all(axis=0))
    if not len(constant):
        return ()
    named = [str(column) if names is None else names[int(column)] for column in constant]
    verb = "is constant and carries" if len(named) == 1 else "are constant and carry"
    return (f"{len(named)} of {features.shape[1]} columns {verb} no information: {_listed(named)}",)


def _few_rows(rows: int, num_parameters: int | None) -> tuple[str, ...]:
    if num_parameters is None or rows >= num_parameters:
        return ()
    return (f"{rows} rows for {num_parameters} parameters: only held-out rows tell what a net learnt",)


def _listed(values: Sequence[Any] | np.ndarray) -> str:
    more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
    return ", ".join(str(value) for value in values[:NAMED]) + more
