"""Scikit-learn estimators: nets of a few neurons that find the columns they read.

scikit-learn's base classes are needed at import, so this is the one module of the package that imports it
there; `sparsejax.models.ultra_sparse` loads the module when an estimator is first asked for.
"""

from __future__ import annotations

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.models.ultra_sparse.config import Activation
from sparsejax.models.ultra_sparse.evolve.objective import Loss
from sparsejax.models.ultra_sparse.problems.checks import check_table
from sparsejax.models.ultra_sparse.table_fit import Recipe, fit_table, predict_net
from sparsejax.models.ultra_sparse.watched_run import Progress


class TableWarning(UserWarning):
    """A table can be fitted, but something about it is odd (see `problems.check_table`)."""


class _UltraSparseEstimator(BaseEstimator):
    """What both estimators share: parameters, the fit, and what a fitted net can tell."""

    def __init__(
        self,
        hidden_size: int = 8,
        inputs_per_neuron: int | None = None,
        *,
        trainer: str = "sparse_fit",
        rounds: int | None = None,
        steps: int | None = None,
        ridge: float | None = None,
        chains: int = 4,
        validation_fraction: float | None = None,
        random_state: Any = None,
        callback: Progress | None = None,
    ):
        self.hidden_size = hidden_size
        self.inputs_per_neuron = inputs_per_neuron
        self.trainer = trainer
        self.rounds = rounds
        self.steps = steps
        self.ridge = ridge
        self.chains = chains
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.callback = callback

    def get_support(self, indices: bool = False) -> np.ndarray:
        """The columns that the net reads.

        Args:
          indices: give their numbers in ascending order instead of a mask.

        Returns:
          (i,) bool, or integers.
        """
        check_is_fitted(self)
        hidden = self.params_["layer_0"]
        used = np.zeros(self.n_features_in_, bool)
        used[hidden["indices"][hidden["weights"] != 0]] = True
        return np.flatnonzero(used) if indices else used

    def to_checkpoint(self) -> Checkpoint:
        """The net over raw columns, in float32, for `sparsejax.save`, `export_c` and the like.

        Scaling of inputs and targets is part of its weights; a column whose mean is many deviations from 0
        loses digits that way. A tanh head cannot absorb the scaling of targets: its net gives
        ``(y - mean) / scale`` with both in the metadata as target_mean and target_scale. A classifier's net
        gives logits in the order of the metadata's classes.
        """
        check_is_fitted(self)
        metadata: dict[str, Any] = {"loss": self.loss_}
        if hasattr(self, "feature_names_in_"):
            metadata["feature_names"] = [str(name) for name in self.feature_names_in_]
        if hasattr(self, "classes_"):
            metadata["classes"] = self.classes_.tolist()
        if self._target is not None:
            metadata |= {"target_mean": self._target.mean, "target_scale": self._target.scale}
        layers = {
            layer: {
                name: jnp.asarray(value, jnp.int32 if name == "indices" else jnp.float32)
                for name, value in own.items()
            }
            for layer, own in self.params_.items()
        }
        return Checkpoint("ultra_sparse", "sparse", self.config_, layers, metadata)

    def _fit(
        self,
        features: np.ndarray,
        targets: np.ndarray,
        sample_weight: Any,
        *,
        loss: Loss,
        output_activation: Activation = "linear",
    ) -> None:
        given = {"rounds": self.rounds, "steps": self.steps, "ridge": self.ridge}
        recipe = Recipe(
            hidden_size=self.hidden_size,
            inputs_per_neuron=self.inputs_per_neuron,
            output_activation=output_activation,
            trainer=self.trainer,
            options={name: value for name, value in given.items() if value is not None},
            chains=self.chains,
            validation_fraction=self.validation_fraction,
        )
        row_weights = _row_weights(sample_weight, len(features))
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        fit = fit_table(seed, recipe, features, targets, row_weights, loss=loss, callback=self.callback)
        self._warn(features, targets, row_weights, fit.config.num_parameters)
        self.config_ = fit.config
        self.params_ = fit.params
        self._target = fit.target
        self.loss_ = fit.loss
        self.chain_scores_ = fit.chain_scores
        self.history_ = fit.history
        self.n_iter_ = len(fit.history)

    def _warn(self, features: Any, targets: Any, row_weights: Any, num_parameters: int) -> None:
        used = row_weights > 0
        lines = check_table(
            features[used],
            targets[used],
            "regression",
            num_parameters=num_parameters,
            feature_names=getattr(self, "feature_names_in_", None),
        )
        for line in lines:
            warnings.warn(line, TableWarning, stacklevel=4)

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        features = validate_data(self, X, reset=False, dtype=np.float64)
        return predict_net(self.config_, self.params_, features)


def _row_weights(sample_weight: Any, rows: int) -> np.ndarray:
    """(rows,) float64, all 1 unless told.

    Raises:
      ValueError: another shape, a negative or infinite weight, or none above 0.
    """
    if sample_weight is None:
        return np.ones(rows)
    weights = np.asarray(sample_weight, np.float64)
    if weights.shape != (rows,):
        raise ValueError(f"sample_weight has shape {weights.shape}, {rows} rows need ({rows},)")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("sample_weight holds a negative or infinite number, or NaN")
    if not weights.any():
        raise ValueError("sample_weight is zero everywhere; at least one row must count")
    return weights


class UltraSparseRegressor(RegressorMixin, _UltraSparseEstimator):
    """A regressor of a few tanh neurons, each reading the few columns that the fit chooses for it.

    Columns and targets are standardised inside, with statistics of the training rows. Constant columns are
    never read. Rows may come in any order and a ``sample_weight`` of 2 equals the row twice. The result is
    the same for the same ``random_state`` on one machine.

    Args:
      hidden_size: neurons.
      inputs_per_neuron: columns that a neuron reads. None is 2, or 1 where only one column varies; a number
        above the count of varying columns is an error.
      output_activation: "linear", or "tanh" as in the published nets. A tanh head cannot reach beyond
        one deviation from the mean of the targets.
      trainer: "sparse_fit" (weights and inputs in turn; the most accurate), or a gradient-free search:
        "anneal", "gsa", "genetic", "hill_climb", "tempering".
      rounds: input proposals of "sparse_fit", generations of "gsa" and "genetic". None is the trainer's
        own default, here and below; a number that it does not take is an error.
      steps: weight refinements per round of "sparse_fit", proposals per generation of "gsa", proposals of
        the other searches.
      ridge: price of squared weights on standardised columns ("sparse_fit"); None is 1e-5 for regression
        and 1e-3 for classification.
      chains: independent runs side by side. The one with the least training loss is kept; "sparse_fit" adds
        a price for each column that is read.
      validation_fraction: share of the rows to set aside; the chain with the least loss there is kept.
      random_state: seed of everything random.
      callback: ``callback(blocks_done, best_loss)``, called after each block of the fit (50 rounds of
        "sparse_fit", a generation, 500 proposals of "anneal" and "hill_climb", 100 of "tempering") with the
        training loss of the best chain; a true result ends the fit.

    Attributes:
      config_: `UltraSparseConfig` over all columns.
      params_: the net over raw columns, float64 NumPy.
      loss_: training loss of the kept chain, on standardised targets.
      chain_scores_: (chains,) what the chains were compared by; lower is better.
      history_: (n_iter_,) loss of the kept chain's best net after each block.
      n_iter_: blocks run.
      n_features_in_: columns of the table.
      feature_names_in_: their names, if the table had names.

    Raises:
      ValueError: from ``fit``: NaN or infinity, a sparse matrix, no column that varies, too few for
        ``inputs_per_neuron``, an unknown trainer, or settings out of range.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(200, 20))
      >>> model = UltraSparseRegressor(4, trainer="hill_climb", steps=2000, chains=1, random_state=0)
      >>> model.fit(x, x[:, 3]).predict(x[:5]).shape
      (5,)

    Source: specs/ultra_sparse.md section 12.
    """

    def __init__(
        self,
        hidden_size: int = 8,
        inputs_per_neuron: int | None = None,
        *,
        output_activation: Activation = "linear",
        trainer: str = "sparse_fit",
        rounds: int | None = None,
        steps: int | None = None,
        ridge: float | None = None,
        chains: int = 4,
        validation_fraction: float | None = None,
        random_state: Any = None,
        callback: Progress | None = None,
    ):
        super().__init__(
            hidden_size,
            inputs_per_neuron,
            trainer=trainer,
            rounds=rounds,
            steps=steps,
            ridge=ridge,
            chains=chains,
            validation_fraction=validation_fraction,
            random_state=random_state,
            callback=callback,
        )
        self.output_activation = output_activation

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> UltraSparseRegressor:
        """Fit the net.

        Args:
          X: (b, i) numbers.
          y: (b,) or (b, o) numbers.
          sample_weight: (b,) non-negative.

        Returns:
          the estimator.
        """
        X, y = validate_data(
            self, X, y, dtype=np.float64, y_numeric=True, multi_output=True, ensure_min_samples=2
        )
        self._single = y.ndim == 1
        targets = y.astype(np.float64).reshape(len(y), -1)
        self._fit(X, targets, sample_weight, loss="mse", output_activation=self.output_activation)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Targets (b,) or (b, o), as ``y`` was, in its units."""
        outputs = self._outputs(X)
        if self._target is not None:
            outputs = outputs * self._target.scale + self._target.mean
        return outputs[:, 0] if self._single else outputs

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class UltraSparseClassifier(ClassifierMixin, _UltraSparseEstimator):
    """A classifier of a few tanh neurons, each reading the few columns that the fit chooses for it.

    The head is linear with one logit per class, trained with cross entropy. Everything else is as in
    `UltraSparseRegressor`.

    Args:
      hidden_size: neurons.
      inputs_per_neuron: see `UltraSparseRegressor`.
      trainer: see `UltraSparseRegressor`.
      rounds: see `UltraSparseRegressor`.
      steps: see `UltraSparseRegressor`.
      ridge: see `UltraSparseRegressor`; separable classes let weights grow without bound where it is 0.
      chains: see `UltraSparseRegressor`.
      validation_fraction: see `UltraSparseRegressor`.
      random_state: seed of everything random.
      callback: see `UltraSparseRegressor`.

    Attributes:
      classes_: labels in the order of the outputs.
      config_: see `UltraSparseRegressor`, as for all further ones.

    Raises:
      ValueError: from ``fit``: labels of one class, and all that `UltraSparseRegressor` refuses.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(200, 20))
      >>> model = UltraSparseClassifier(4, trainer="hill_climb", steps=2000, chains=1, random_state=0)
      >>> model.fit(x, x[:, 3] > 0).predict_proba(x[:5]).shape
      (5, 2)

    Source: specs/ultra_sparse.md section 12.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> UltraSparseClassifier:
        """Fit the net.

        Args:
          X: (b, i) numbers.
          y: (b,) labels of any sortable type, at least two of them.
          sample_weight: (b,) non-negative.

        Returns:
          the estimator.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only, {self.classes_[0]!r}; at least two are needed")
        self._fit(X, np.eye(len(self.classes_))[labels], sample_weight, loss="cross_entropy")
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits (b, o); for two classes (b,) the second minus the first."""
        logits = self._outputs(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of `predict_proba`."""
        return log_softmax(self._outputs(X), axis=1)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (b, o) in the order of ``classes_``."""
        return softmax(self._outputs(X), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Labels (b,)."""
        chosen = np.argmax(self._outputs(X), axis=1)
        return self.classes_[chosen]
