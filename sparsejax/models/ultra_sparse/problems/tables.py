"""Measured tables that come with scikit-learn: digits, wine, breast cancer."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from sparsejax.models.ultra_sparse.problems.problem import Problem, RawSplit, build_problem

Table = Literal["digits", "wine", "breast_cancer"]

VALIDATION_FRACTION = 0.15
TEST_FRACTION = 0.2


class PublishedSplit(NamedTuple):
    """The originals' two parts: features (b, i) float64, labels (b,)."""

    train_features: np.ndarray
    train_labels: np.ndarray
    test_features: np.ndarray
    test_labels: np.ndarray


def digits(*, seed: int = 0, validation: float = VALIDATION_FRACTION, test: float = TEST_FRACTION) -> Problem:
    """Handwritten digits: 1797 images of 8 x 8 pixels, ten classes.

    Rows are split at random with equal class shares: 65 % train, 15 % validation, 20 % test. Columns get
    mean 0 and deviation 1 on the training part; border pixels that are constant there stay, as zeros on
    that part, so that rows remain images.

    Args:
      seed: of the split.
      validation: share of the rows.
      test: share of the rows.

    Returns:
      a `Problem`; which features are true is not known.

    Raises:
      ValueError: shares that leave a part empty.
      ModuleNotFoundError: scikit-learn is not installed.

    Example:
      >>> digits()
      Problem(digits, classification, 64 features, 1167 + 270 + 360 rows)

    Source: specs/ultra_sparse.md section 8; the originals scale by all rows and select on the test part.
    """
    return _table("digits", dict(locals()))


def wine(*, seed: int = 0, validation: float = VALIDATION_FRACTION, test: float = TEST_FRACTION) -> Problem:
    """Wines: 178 rows, 13 measurements, three classes; split as `digits`.

    Example:
      >>> wine().num_classes
      3
    """
    return _table("wine", dict(locals()))


def breast_cancer(
    *, seed: int = 0, validation: float = VALIDATION_FRACTION, test: float = TEST_FRACTION
) -> Problem:
    """Breast cancer: 569 rows, 30 measurements, two classes; split as `digits`.

    Example:
      >>> breast_cancer().feature_names[0]
      'mean radius'
    """
    return _table("breast_cancer", dict(locals()))


def published_split(table: Table, *, stratified: bool = False) -> PublishedSplit:
    """The originals' split, to repeat their numbers: 80/20, no validation part, scaled by **all** rows.

    Args:
      table: one of `Table`.
      stratified: with equal class shares, as their library does; their scripts do not.

    Returns:
      `PublishedSplit`.

    Example:
      >>> published_split("digits").test_labels.shape
      (360,)
    """
    features, labels, _ = _load(table)
    from sklearn.model_selection import train_test_split

    deviation = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(deviation == 0, 1.0, deviation)
    parts = train_test_split(
        scaled, labels, test_size=TEST_FRACTION, random_state=42, stratify=labels if stratified else None
    )
    return PublishedSplit(parts[0], parts[2], parts[1], parts[3])


def _table(table: Table, options: dict[str, Any]) -> Problem:
    features, labels, names = _load(table)
    from sklearn.model_selection import train_test_split

    validation, test, seed = options["validation"], options["test"], options["seed"]
    if min(validation, test) <= 0 or validation + test >= 1:
        raise ValueError(f"{table}: shares {validation} and {test} leave no rows for a part")
    held_out = math.ceil(validation * len(labels)), math.ceil(test * len(labels))
    rows = np.arange(len(labels))
    rest, test_rows = train_test_split(rows, test_size=held_out[1], random_state=seed, stratify=labels)
    train_rows, validation_rows = train_test_split(
        rest, test_size=held_out[0], random_state=seed, stratify=labels[rest]
    )
    return build_problem(
        table,
        "classification",
        [RawSplit(features[part], labels[part]) for part in (train_rows, validation_rows, test_rows)],
        feature_names=names,
        options=options,
    )


def _load(table: Table) -> tuple[np.ndarray, np.ndarray, list[str]]:
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"the problem {table!r} needs scikit-learn", name="sklearn") from error
    data = getattr(datasets, f"load_{table}")()
    return data.data.astype(np.float64), data.target, [str(name) for name in data.feature_names]
