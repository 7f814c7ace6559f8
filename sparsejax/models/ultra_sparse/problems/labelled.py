"""Two-class tables with a known rule behind the labels.

The originals name these three tasks (2000 rows of 64 columns, a tenth of the XOR labels flipped) without
their formulas: `formulas` defines them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sparsejax.models.ultra_sparse.problems import formulas
from sparsejax.models.ultra_sparse.problems.drawn import draw_problem, normal
from sparsejax.models.ultra_sparse.problems.problem import Problem


def threshold_labels(
    *,
    seed: int = 0,
    columns: int = 64,
    true_features: Sequence[int] = (3, 17, 42),
    samples: int = 1000,
    flips: float = 0.0,
    standardize: bool = True,
) -> Problem:
    """Two classes: is the sum of the true columns positive?

    Args:
      seed: of the rows and the flips.
      columns: of the table, normal.
      true_features: that decide the class.
      samples: training rows.
      flips: share of the labels, in every part, that are turned around.
      standardize: give columns mean 0 and deviation 1.

    Returns:
      a `Problem`.

    Raises:
      ValueError: a true feature that does not exist, or no rows.

    Example:
      >>> threshold_labels().num_classes
      2
    """
    options = dict(locals())
    formulas.check_true_features(true_features, at_least=1)
    formula = partial(formulas.threshold_labels, true_features=true_features)
    return draw_problem("threshold_labels", formula, normal(columns), true_features, options)


def interaction_labels(
    *,
    seed: int = 0,
    columns: int = 64,
    true_features: Sequence[int] = (3, 17, 42),
    samples: int = 1000,
    flips: float = 0.0,
    standardize: bool = True,
) -> Problem:
    """Two classes: is the product of two columns plus the others positive? Options of `threshold_labels`.

    Example:
      >>> interaction_labels().task
      'classification'
    """
    options = dict(locals())
    formulas.check_true_features(true_features, at_least=2)
    formula = partial(formulas.interaction_labels, true_features=true_features)
    return draw_problem("interaction_labels", formula, normal(columns), true_features, options)


def xor_labels(
    *,
    seed: int = 0,
    columns: int = 64,
    true_features: Sequence[int] = (5, 23),
    samples: int = 1000,
    flips: float = 0.1,
    standardize: bool = True,
) -> Problem:
    """Two classes: is exactly one of two columns positive? A tenth of the labels is flipped.

    The options are those of `threshold_labels`, with exactly two true features.

    Example:
      >>> xor_labels().true_features
      (5, 23)
    """
    options = dict(locals())
    formulas.check_true_features(true_features, at_least=2, at_most=2)
    formula = partial(formulas.xor_labels, true_features=true_features)
    return draw_problem("xor_labels", formula, normal(columns), true_features, options)
