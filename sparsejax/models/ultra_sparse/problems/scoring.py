"""How well outputs answer one part of a problem: one rule for the nets and the models beside them."""

from __future__ import annotations

import numpy as np

from sparsejax.models.ultra_sparse.problems.problem import Split, Task


def score(task: Task, outputs: np.ndarray, part: Split) -> float:
    """Mean squared error of a regression, or the share of right classes.

    Args:
      task: "regression" or "classification".
      outputs: (b, o). Of a classification the largest output wins; a single one says class 1 above 0, as
        the logit of two classes does.
      part: the rows answered, with targets (b,) or (b, 1).

    Example:
      >>> score("classification", np.array([[-2.0], [3.0]]), Split(np.zeros((2, 1)), np.array([0, 1])))
      1.0
    """
    if task == "regression":
        errors = outputs.astype(np.float64).reshape(-1) - part.targets.reshape(-1)
        return float(np.mean(errors**2))
    classes = outputs.argmax(axis=1) if outputs.shape[1] > 1 else outputs[:, 0] > 0
    return float(np.mean(classes == part.targets))
