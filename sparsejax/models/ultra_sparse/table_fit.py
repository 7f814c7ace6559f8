"""A net fitted to a table of raw columns: scaled and padded for the trainer, folded back afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.ultra_sparse.config import Activation, UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.objective import Loss, Objective, objective
from sparsejax.models.ultra_sparse.trainers import SPARSE_FIT, build_search, trainer_options
from sparsejax.models.ultra_sparse.watched_run import Progress, run_rounds
from sparsejax.ops.counts import check_count
from sparsejax.typing import Params

_ROUNDS, _LAST_POLISH = 300, 1000
_RIDGE: Mapping[Loss, float] = {"mse": 1e-5, "cross_entropy": 1e-3}
_TAKES: Mapping[str, Mapping[str, str]] = {
    SPARSE_FIT: {"rounds": "rounds", "steps": "steps", "ridge": "ridge"},
    "anneal": {"steps": "steps"},
    "gsa": {"rounds": "generations", "steps": "steps"},
    "genetic": {"rounds": "generations"},
    "hill_climb": {"steps": "steps"},
    "tempering": {"steps": "steps"},
}
"""Which of rounds, steps and ridge a trainer takes, and what it calls them."""

_FEWEST_ROWS, _FEWEST_COLUMNS = 512, 32
"""Tables are padded to these or to a power of two above, so that one program serves many shapes."""


@dataclass(frozen=True)
class Recipe:
    """How to fit a table.

    Attributes:
      hidden_size: neurons.
      inputs_per_neuron: columns that a neuron reads; None is 2, or 1 where one column varies.
      output_activation: of the head.
      trainer: a name of `trainers.TRAINERS`.
      options: rounds, steps and ridge where they are given; the trainer's own defaults otherwise.
      chains: independent runs, of which the best is kept.
      validation_fraction: share of the rows that picks the chain instead of the training loss.
    """

    hidden_size: int
    inputs_per_neuron: int | None
    output_activation: Activation
    trainer: str
    options: Mapping[str, Any]
    chains: int
    validation_fraction: float | None

    def __post_init__(self):
        """Refuse what cannot be run."""
        trainer_options(self.trainer)
        takes = _TAKES[self.trainer]
        if unknown := [name for name in self.options if name not in takes]:
            raise ValueError(
                f"trainer {self.trainer!r} has no {' and '.join(unknown)}: leave that at None; "
                f"it takes {' and '.join(takes)}"
            )
        if self.chains < 1:
            raise ValueError(f"chains must be at least 1, not {self.chains}")
        if self.validation_fraction is not None and not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must be between 0 and 1, not {self.validation_fraction}")

    def search_options(self, loss: Loss, columns: int, width: int) -> dict[str, Any]:
        """What `build_search` is told, for so many columns padded to ``width``."""
        named = {_TAKES[self.trainer][name]: value for name, value in self.options.items()}
        if self.trainer != SPARSE_FIT:
            return named
        options = {"rounds": _ROUNDS, "ridge": _RIDGE[loss], **named}
        polish = options["rounds"] * options.get("steps", trainer_options(SPARSE_FIT)["steps"])
        # A column's price follows from how many there are to choose from, and padding is none.
        price = float(np.log(columns) / np.log(width)) if width > 1 else 1.0
        return {**options, "final_steps": min(_LAST_POLISH, polish), "column_price": price}

    def config(self, columns: int, outputs: int) -> UltraSparseConfig:
        """The net over so many columns.

        Raises:
          ValueError: a neuron cannot read as many.
        """
        fan_in = min(2, columns) if self.inputs_per_neuron is None else self.inputs_per_neuron
        if fan_in > columns:
            raise ValueError(
                f"inputs_per_neuron={fan_in}, but only {columns} columns vary; leave it at None or lower it"
            )
        hidden, fan_in = (
            size.item() if isinstance(size, np.integer) else size for size in (self.hidden_size, fan_in)
        )
        check_count("hidden_size", hidden, 1)
        check_count("inputs_per_neuron", fan_in, 1)
        return UltraSparseConfig.fixed_k(columns, hidden, outputs, fan_in, self.output_activation)


class Scaling(NamedTuple):
    """Mean and deviation of every column, or of every target.

    Attributes:
      mean: (i,).
      scale: (i,), 1 where nothing varies.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, weights: np.ndarray) -> Scaling:
        """The weighted moments of values (b, i)."""
        with np.errstate(over="ignore", invalid="ignore"):
            mean = weights @ values / weights.sum()
            scale = np.sqrt(weights @ (values - mean) ** 2 / weights.sum())
        if not np.isfinite(scale).all():
            raise ValueError("the values are too large: their squares overflow; rescale them")
        return cls(mean, np.where(_varies(values, weights) & (scale > 0), scale, 1))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Values (b, i) with mean 0 and deviation 1."""
        return (values - self.mean) / self.scale


class TableFit(NamedTuple):
    """A net that takes raw columns.

    Attributes:
      config: of the net over all columns of the table.
      params: float64 NumPy; input scaling is folded into the first layer, target scaling into a linear
        head. Constant columns are never read.
      target: scaling of the targets that a tanh head leaves to the caller; None if there is none.
      loss: training loss of the chain that is kept, on scaled targets.
      chain_scores: (chains,) what the chains were compared by.
      history: (blocks,) loss of the kept chain's best net after each round of the search.
    """

    config: UltraSparseConfig
    params: Params
    target: Scaling | None
    loss: float
    chain_scores: np.ndarray
    history: np.ndarray


def fit_table(
    seed: int,
    recipe: Recipe,
    features: np.ndarray,
    targets: np.ndarray,
    row_weights: np.ndarray,
    *,
    loss: Loss,
    callback: Progress | None = None,
) -> TableFit:
    """Fit a net to a table; the order of its rows does not matter, and a weight of 2 is the row twice.

    Tables of similar size share compiled programs: rows of weight 0 are added, and constant columns where
    the trainer passes over them.

    Args:
      seed: of everything random.
      recipe: net and trainer.
      features: (b, i) finite float64.
      targets: (b, o) numbers, or one-hot rows under cross entropy.
      row_weights: (b,) non-negative, not all zero.
      loss: "mse" (of standardised targets) or "cross_entropy".
      callback: see `Progress`.

    Returns:
      `TableFit`.

    Raises:
      ValueError: no column varies, too few for a neuron, or values whose squares overflow.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(100, 3))
      >>> recipe = Recipe(4, 1, "linear", "hill_climb", {"steps": 200}, 1, None)
      >>> fit = fit_table(0, recipe, x, x[:, :1], np.ones(100), loss="mse")
      >>> predict_net(fit.config, fit.params, x).shape
      (100, 1)
    """
    features, targets, row_weights = merge_rows(features, targets, row_weights)
    held = _held_rows(seed, recipe.validation_fraction, len(features))
    weights = np.where(held, 0, row_weights)
    columns = np.flatnonzero(_varies(features, weights))
    if not len(columns):
        raise ValueError(f"all {features.shape[1]} columns are constant: there is nothing to learn from")
    inputs = Scaling.of(features[:, columns], weights)
    outputs = Scaling.of(targets, weights) if loss == "mse" else None
    fitted = recipe.config(len(columns), targets.shape[1])
    # The other searches would propose columns of padding.
    pads = recipe.trainer == SPARSE_FIT
    width = _bucket(len(columns), _FEWEST_COLUMNS) if pads else len(columns)
    goal = _padded_goal(
        inputs.apply(features[:, columns]),
        targets if outputs is None else outputs.apply(targets),
        weights,
        width,
        loss,
    )
    padded = UltraSparseConfig(width, fitted.layers)
    chosen = build_search(recipe.trainer, recipe.search_options(loss, len(columns), width), padded)
    run = run_rounds(
        jax.random.key(seed),
        chosen.search,
        goal,
        chosen.hyper,
        chains=recipe.chains,
        judge=_judge(goal, row_weights, held),
        callback=callback,
    )
    best = int(np.argmin(run.scores))
    params = jax.tree.map(lambda leaf: np.asarray(leaf[best]), run.params)
    folds_targets = outputs is not None and recipe.output_activation == "linear"
    return TableFit(
        config=UltraSparseConfig(features.shape[1], fitted.layers),
        params=_folded(params, columns, inputs, outputs if folds_targets else None),
        target=None if folds_targets else outputs,
        loss=float(run.losses[best]),
        chain_scores=run.scores,
        history=run.history[best],
    )


def merge_rows(
    features: np.ndarray, targets: np.ndarray, row_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct rows of weight above 0 in a fixed order, with their summed weights."""
    present = row_weights > 0
    table = np.hstack([features, targets])[present]
    rows, place = np.unique(table, axis=0, return_inverse=True)
    weights = np.bincount(place.ravel(), row_weights[present])
    return rows[:, : features.shape[1]], rows[:, features.shape[1] :], weights


def predict_net(config: UltraSparseConfig, params: Params, features: np.ndarray) -> np.ndarray:
    """Outputs (b, o) in NumPy and float64: every new number of rows would be a compilation in JAX.

    Args:
      config: one sparse tanh layer and a dense head.
      params: of a `TableFit`.
      features: (b, i).
    """
    hidden, head = params["layer_0"], params["layer_1"]
    sums = np.einsum("bhk,hk->bh", features[:, hidden["indices"]], hidden["weights"])
    outputs = np.tanh(sums + hidden["bias"]) @ head["kernel"] + head["bias"]
    return np.tanh(outputs) if config.layers[1].activation == "tanh" else outputs


def _held_rows(seed: int, fraction: float | None, rows: int) -> np.ndarray:
    """(rows,) bool, True for the rows set aside: at least one, and not all."""
    if fraction is None:
        return np.zeros(rows, bool)
    count = min(max(round(fraction * rows), 1), rows - 1)
    return np.random.default_rng(seed).permutation(rows) < count


def _judge(goal: Objective, row_weights: np.ndarray, held: np.ndarray) -> Objective | None:
    """The objective on the rows held out, if any."""
    if not held.any():
        return None
    weights = np.zeros(goal.row_weights.shape, np.float32)
    weights[: len(held)] = np.where(held, row_weights, 0) / row_weights[held].sum()
    return dataclasses.replace(goal, row_weights=jnp.asarray(weights))


def _padded_goal(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, width: int, loss: Loss
) -> Objective:
    """The objective over the table with rows of weight 0 and columns of zeros added."""
    rows = _bucket(len(features), _FEWEST_ROWS)
    padded = np.zeros((rows, width), np.float32)
    padded[: len(features), : features.shape[1]] = features
    extra = ((0, rows - len(features)), (0, 0))
    return objective(
        padded,
        np.pad(targets, extra).astype(np.float32),
        loss=loss,
        row_weights=np.pad(weights / weights.sum(), extra[0]).astype(np.float32),
    )


def _bucket(size: int, smallest: int) -> int:
    return max(smallest, 1 << (size - 1).bit_length())


def _varies(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(i,) bool, whether a column takes more than one value in rows of weight above 0."""
    return np.ptp(values[weights > 0], axis=0) > 0


def _folded(params: Params, columns: np.ndarray, inputs: Scaling, outputs: Scaling | None) -> Params:
    """The net over raw columns: scaled inputs and outputs become part of weights and biases."""
    hidden, head = params["layer_0"], params["layer_1"]
    indices = hidden["indices"]
    weights = hidden["weights"] / inputs.scale[indices]
    bias = hidden["bias"] - np.sum(weights * inputs.mean[indices], axis=1)
    kernel, head_bias = head["kernel"].astype(np.float64), head["bias"].astype(np.float64)
    if outputs is not None:
        kernel, head_bias = kernel * outputs.scale, head_bias * outputs.scale + outputs.mean
    return {
        "layer_0": {"indices": columns[indices].astype(np.int32), "weights": weights, "bias": bias},
        "layer_1": {"kernel": kernel, "bias": head_bias},
    }
