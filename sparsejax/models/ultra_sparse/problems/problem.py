"""A learning problem: three disjoint parts, scaled with what the training part alone tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

Task = Literal["regression", "classification"]

TARGET_DEVIATION = 0.8
"""Standard deviation that normalised regression targets have on the training part."""


class Split(NamedTuple):
    """Rows of one part.

    Attributes:
      features: (b, i) float32.
      targets: (b, 1) float32 for regression, (b,) int32 labels from 0 for classification.
    """

    features: np.ndarray
    targets: np.ndarray


class RawSplit(NamedTuple):
    """Rows before scaling: features (b, i), targets or labels (b,)."""

    features: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True, eq=False)
class Problem:
    """Data with everything that is known about it; `make_problem` builds one.

    Attributes:
      name: its name in `PROBLEMS`.
      task: "regression" or "classification".
      train: what is fitted.
      validation: what choices are made on.
      test: looked at once, for the report.
      feature_names: one per column.
      true_features: columns, counted in this problem, that the target depends on; None if nobody knows.
      columns: number of each column in the unreduced table: they differ once columns are dropped.
      feature_mean: (i,) that was subtracted from the features; training part.
      feature_scale: (i,) that they were divided by then; training part, 1 for constant columns.
      target_mean: original target = ``target_mean + target_scale * target``; training part.
      target_scale: see `target_mean`.
      num_classes: 0 for regression.
      options: what it was made with, seed included.
    """

    name: str
    task: Task
    train: Split
    validation: Split
    test: Split
    feature_names: tuple[str, ...]
    true_features: tuple[int, ...] | None
    columns: tuple[int, ...]
    feature_mean: np.ndarray
    feature_scale: np.ndarray
    target_mean: float = 0.0
    target_scale: float = 1.0
    num_classes: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_features(self) -> int:
        """Columns of the table."""
        return len(self.feature_names)

    @property
    def output_size(self) -> int:
        """Outputs that a net for it has: one, or one per class."""
        return self.num_classes or 1

    def original_targets(self, targets: Any) -> Any:
        """Normalised targets or outputs in their original unit."""
        return targets * self.target_scale + self.target_mean

    def __repr__(self) -> str:
        """Short: ``Problem(friedman1, regression, 20 features, 500 + 250 + 1000 rows)``."""
        rows = " + ".join(str(len(part.features)) for part in (self.train, self.validation, self.test))
        return f"Problem({self.name}, {self.task}, {self.num_features} features, {rows} rows)"


def build_problem(
    name: str,
    task: Task,
    parts: Sequence[RawSplit],
    *,
    feature_names: Sequence[str] | None = None,
    true_features: Sequence[int] | None = None,
    columns: Sequence[int] | None = None,
    standardize: bool = True,
    normalize: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Problem:
    """Scale the three parts by the first one and put them together.

    Args:
      name: of the problem.
      task: "regression" or "classification".
      parts: training, validation and test rows.
      feature_names: one per column; ``x0, x1, ...`` unless told.
      true_features: columns that matter.
      columns: numbers in the unreduced table; 0, 1, ... unless told.
      standardize: columns get mean 0 and deviation 1 on the training part.
      normalize: regression targets get mean 0 and deviation 0.8 on the training part. The deviation is the
        population's; some of the originals' scripts take the sample's (they differ by 1 / 2b).
      options: to record.

    Returns:
      a `Problem`.

    Example:
      >>> parts = [RawSplit(np.eye(3) + shift, np.arange(3.0)) for shift in (0, 1, 2)]
      >>> build_problem("mine", "regression", parts).train.features.mean().round(6)
      np.float32(0.0)
    """
    train = RawSplit(*(np.asarray(values) for values in parts[0]))
    width = train.features.shape[1]
    mean, scale = np.zeros(width), np.ones(width)
    if standardize:
        mean, scale = _moments(train.features)
    target_mean, target_scale = 0.0, 1.0
    if task == "regression" and normalize:
        target_mean = float(np.mean(train.targets, dtype=np.float64))
        target_scale = (float(np.std(train.targets, dtype=np.float64)) + 1e-8) / TARGET_DEVIATION

    def scaled(part: RawSplit) -> Split:
        features = ((np.asarray(part.features, np.float64) - mean) / scale).astype(np.float32)
        if task == "classification":
            return Split(features, np.asarray(part.targets, np.int32))
        targets = (np.asarray(part.targets, np.float64) - target_mean) / target_scale
        return Split(features, targets.astype(np.float32)[:, None])

    return Problem(
        name=name,
        task=task,
        train=scaled(train),
        validation=scaled(parts[1]),
        test=scaled(parts[2]),
        feature_names=tuple(feature_names or (f"x{number}" for number in range(width))),
        true_features=None if true_features is None else tuple(sorted(int(t) for t in true_features)),
        columns=tuple(range(width)) if columns is None else tuple(int(column) for column in columns),
        feature_mean=mean,
        feature_scale=scale,
        target_mean=target_mean,
        target_scale=target_scale,
        num_classes=int(train.targets.max()) + 1 if task == "classification" else 0,
        options=dict(options or {}),
    )


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features = np.asarray(features, np.float64)
    deviation = features.std(axis=0)
    constant = features.max(axis=0) == features.min(axis=0)
    return features.mean(axis=0), np.where(constant, 1.0, deviation)
