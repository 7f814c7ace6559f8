"""What a search minimises: the error of a net on one batch, held features first."""

from __future__ import annotations

from typing import Any, Literal, get_args

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.features import as_real
from sparsejax.models.ultra_sparse.model import forward
from sparsejax.models.ultra_sparse.problems.checks import check_finite
from sparsejax.typing import Params

Loss = Literal["mse", "cross_entropy"]


@flax.struct.dataclass
class Objective:
    """A training batch and the loss on it; `objective` builds and checks one.

    Attributes:
      features: (i, b), features first: a neuron then reads whole contiguous lines.
      targets: (o, b); one-hot columns under cross entropy.
      row_weights: (b,) non-negative with sum 1; 1/b each unless told. Padded rows have 0.
      loss: "mse", the mean over rows and outputs of the squared error, or "cross_entropy" of the outputs
        taken as logits.
    """

    features: jax.Array
    targets: jax.Array
    row_weights: jax.Array
    loss: Loss = flax.struct.field(pytree_node=False, default="mse")


def objective(features: Any, targets: Any, *, loss: Loss = "mse", row_weights: Any = None) -> Objective:
    """Check a batch and lay it out for the searches.

    Args:
      features: (b, i), finite.
      targets: (b, o), or (b,) for one output; finite. Under cross entropy integer labels (b,) or one-hot
        rows (b, o).
      loss: see `Objective`.
      row_weights: (b,) non-negative, not all zero; scaled to sum 1 here. None weighs rows alike.

    Returns:
      an `Objective`.

    Raises:
      ValueError: shapes disagree, no rows, a value that is not finite (names the row), or an unknown loss.

    Example:
      >>> objective(np.ones((4, 3)), np.zeros(4)).targets.shape
      (1, 4)
    """
    if loss not in get_args(Loss):
        raise ValueError(f"loss {loss!r} is not one of {get_args(Loss)}")
    features = as_real(features)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features of shape {features.shape}: rows and columns (b, i) are needed")
    targets = _one_hot(targets) if loss == "cross_entropy" else as_real(targets)
    targets = targets[:, None] if targets.ndim == 1 else targets
    if targets.ndim != 2 or len(targets) != len(features):
        raise ValueError(f"targets of shape {targets.shape} do not fit {len(features)} rows of features")
    check_finite("features", np.asarray(features))
    check_finite("targets", np.asarray(targets))
    weights = jnp.ones(len(features)) if row_weights is None else as_real(row_weights)
    if weights.shape != (len(features),) or not bool((weights >= 0).all() & (weights.sum() > 0)):
        raise ValueError(f"row_weights need {len(features)} non-negative values, not all zero")
    weights = (weights / weights.sum()).astype(features.dtype)
    return Objective(features.T, targets.T.astype(features.dtype), weights, loss)


def evaluate(config: UltraSparseConfig, params: Params, goal: Objective) -> jax.Array:
    """() loss of a net; pure and differentiable in the weights.

    Args:
      config: the stack.
      params: its parameters.
      goal: batch and loss.
    """
    return loss_of(forward(config, params, goal.features, features_first=True), goal)


def loss_of(outputs: jax.Array, goal: Objective) -> jax.Array:
    """() loss of outputs (o, b) against the targets of ``goal``."""
    if goal.loss == "cross_entropy":
        per_row = -jnp.sum(goal.targets * jax.nn.log_softmax(outputs, axis=0), axis=0)
    else:
        per_row = jnp.mean((outputs - goal.targets) ** 2, axis=0)
    return jnp.sum(per_row * goal.row_weights)


def _one_hot(labels: Any) -> jax.Array:
    labels = np.asarray(labels)
    if labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels) and labels.min() >= 0:
        return jax.nn.one_hot(labels, int(labels.max()) + 1)
    if labels.ndim != 2:
        raise ValueError("cross entropy needs integer labels from 0 (b,) or one-hot rows (b, o)")
    return as_real(labels)
