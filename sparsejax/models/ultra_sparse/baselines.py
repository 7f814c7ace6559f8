"""Plain models that stand beside every ultra-sparse result: Lasso or L1-logistic, ridge, and a dense net.

All read centred inputs (mean 0 and deviation 1 on the training part), are fitted on the training part, and
make their choices on the validation part, or by cross validation inside the training part.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.objective import evaluate, objective
from sparsejax.models.ultra_sparse.metrics import storage_bits
from sparsejax.models.ultra_sparse.model import UltraSparseNet, forward
from sparsejax.models.ultra_sparse.problems.problem import Problem, Split
from sparsejax.models.ultra_sparse.problems.scoring import score

L1_STRENGTHS = tuple(np.geomspace(1e-3, 3.16, 15))
L2_STRENGTHS = tuple(np.geomspace(1e-4, 10.0, 11))
RIDGE_PENALTIES = tuple(np.geomspace(1e-4, 1e4, 33))
LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
LASSO_SOLVER = {"tol": 1e-5, "max_iter": 20_000}
"""scikit-learn's default tolerance, 1e-4, leaves six times the error on the collinear sine columns."""

VALIDATION_EVERY = 10
"""Adam steps between two looks at the validation part."""


@dataclass(frozen=True)
class Baseline:
    """What a plain model reaches on a problem.

    Attributes:
      name: of the model.
      metric: "mse" (of normalised targets, smaller is better) or "accuracy" (larger is better).
      train: score on the training part.
      validation: score on the validation part.
      test: score on the test part.
      nonzeros: weights and biases that are not zero.
      storage_bits: to store them, with what says which they are.
      inputs: distinct inputs read.
      setting: the choice made, and how.
      converged: False if a solver stopped at its limit of steps.
    """

    name: str
    metric: str
    train: float
    validation: float
    test: float
    nonzeros: int
    storage_bits: int
    inputs: int
    setting: str
    converged: bool = True


def baselines(
    key: jax.Array,
    problem: Problem,
    *,
    hidden_size: int = 8,
    max_nonzeros: int | None = None,
    adam_steps: int = 1000,
) -> tuple[Baseline, ...]:
    """All plain models on a problem: sparse linear, ridge-penalised linear, dense net.

    Args:
      key: PRNG key of the dense net's starts.
      problem: the data.
      hidden_size: of the dense net.
      max_nonzeros: also report the best sparse linear model with at most so many non-zeros.
      adam_steps: of the dense net.

    Returns:
      one `Baseline` each.

    Raises:
      ModuleNotFoundError: scikit-learn is not installed.

    Source: specs/ultra_sparse.md sections 9 and 12.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ModuleNotFoundError("the baselines need scikit-learn", name="sklearn")
    regression = problem.task == "regression"
    sparse = lasso(problem, max_nonzeros) if regression else sparse_logistic(problem, max_nonzeros)
    ridge = ridge_regression(problem) if regression else ridge_logistic(problem)
    return (*sparse, ridge, dense_adam(key, problem, hidden_size=hidden_size, steps=adam_steps))


def lasso(problem: Problem, max_nonzeros: int | None = None) -> tuple[Baseline, ...]:
    """`LassoCV` (5 shuffled folds of the training part); also the best of its path within a size.

    Args:
      problem: a regression.
      max_nonzeros: if given, a second model: the penalty with the least validation error among those with
        at most so many non-zero weights and biases.

    Returns:
      one or two `Baseline`.
    """
    from sklearn.linear_model import LassoCV, lasso_path
    from sklearn.model_selection import KFold

    train, validation, _ = _centred(problem)
    targets = train.targets.astype(np.float64)
    folds = KFold(5, shuffle=True, random_state=0)
    model, converged = _converged(lambda: LassoCV(cv=folds, **LASSO_SOLVER).fit(train.features, targets))
    chosen = _linear("lasso", problem, model.coef_, model.intercept_, f"alpha={model.alpha_:.3g}, 5 folds")
    chosen = replace(chosen, converged=converged)
    if max_nonzeros is None:
        return (chosen,)
    centre = targets.mean()
    (penalties, path, _), converged = _converged(
        lambda: lasso_path(train.features, targets - centre, **LASSO_SOLVER)
    )
    errors = np.mean((validation.features @ path + centre - validation.targets[:, None]) ** 2, axis=0)
    errors[np.count_nonzero(path, axis=0) + 1 > max_nonzeros] = np.inf
    best = int(errors.argmin())
    setting = f"alpha={penalties[best]:.3g}, validation"
    small = _linear(f"lasso, at most {max_nonzeros}", problem, path[:, best], centre, setting)
    return chosen, replace(small, converged=converged)


def ridge_regression(problem: Problem) -> Baseline:
    """`RidgeCV`, leave-one-out on the training part."""
    from sklearn.linear_model import RidgeCV

    train, _, _ = _centred(problem)
    model = RidgeCV(alphas=RIDGE_PENALTIES).fit(train.features, train.targets)
    return _linear("ridge", problem, model.coef_, model.intercept_, f"alpha={model.alpha_:.3g}, one out")


def sparse_logistic(problem: Problem, max_nonzeros: int | None = None) -> tuple[Baseline, ...]:
    """L1-penalised logistic regression, its strength C chosen on the validation part.

    Args:
      problem: a classification.
      max_nonzeros: if given, a second model: the best C with at most so many non-zero weights and biases.

    Returns:
      one or two `Baseline`: one if no C gives a model so small. Of equal validation accuracies the sparser
      model wins.
    """
    fits = _logistic_fits("L1 logistic", problem, L1_STRENGTHS, l1_ratio=1.0, solver="saga", tol=1e-3)
    best = max(fits, key=lambda fit: (fit.validation, -fit.nonzeros))
    small = [fit for fit in fits if max_nonzeros is not None and fit.nonzeros <= max_nonzeros]
    if not small:
        return (best,)
    second = max(small, key=lambda fit: (fit.validation, -fit.nonzeros))
    return best, replace(second, name=f"L1 logistic, at most {max_nonzeros}")


def ridge_logistic(problem: Problem) -> Baseline:
    """L2-penalised logistic regression, its strength C chosen on the validation part."""
    fits = _logistic_fits("L2 logistic", problem, L2_STRENGTHS, l1_ratio=0.0, solver="lbfgs", tol=1e-4)
    return max(fits, key=lambda fit: fit.validation)


def dense_adam(
    key: jax.Array,
    problem: Problem,
    *,
    hidden_size: int = 8,
    learning_rates: Sequence[float] = LEARNING_RATES,
    starts: int = 2,
    steps: int = 1000,
) -> Baseline:
    """A dense tanh net with a linear output under full-batch Adam, all rates and starts in one program.

    A run keeps the parameters with the least validation loss. The rate with the least validation loss in
    the mean over its starts is reported, with mean scores over these starts.

    Args:
      key: PRNG key of the starts.
      problem: the data.
      hidden_size: neurons.
      learning_rates: of the sweep; each falls to 0 along a cosine.
      starts: runs per rate.
      steps: Adam steps.

    Returns:
      `Baseline`.

    Example:
      >>> from sparsejax.models.ultra_sparse.problems import make_problem
      >>> net = dense_adam(jax.random.key(0), make_problem("friedman1"), steps=300)
      >>> net.nonzeros, net.test < 0.2
      (177, True)
    """
    parts = _centred(problem)
    config = UltraSparseConfig.dense(
        problem.num_features, hidden_size, problem.output_size, output_activation="linear"
    )
    loss = "mse" if problem.task == "regression" else "cross_entropy"
    goal, held_out = (_objective(part, loss, problem.output_size) for part in parts[:2])
    keys = jax.random.split(key, starts)

    @jax.jit
    def sweep(keys: jax.Array, rates: jax.Array, goal: Any, held_out: Any) -> Any:
        def run(key: jax.Array, rate: jax.Array) -> Any:
            return _adam(key, config, rate, goal=goal, held_out=held_out, steps=steps)

        return jax.vmap(jax.vmap(run, (0, None)), (None, 0))(keys, rates)

    params, losses = sweep(keys, jnp.asarray(learning_rates), goal, held_out)
    best = int(jnp.nanargmin(jnp.mean(losses, axis=1)))
    chosen = [jax.tree.map(lambda leaf, start=start: leaf[best, start], params) for start in range(starts)]
    scores = [
        [
            score(problem.task, np.asarray(forward(config, net, jnp.asarray(part.features))), part)
            for part in parts
        ]
        for net in chosen
    ]
    train, validation, test = np.mean(scores, axis=0).tolist()
    return Baseline(
        name="dense Adam",
        metric=_metric(problem),
        train=train,
        validation=validation,
        test=test,
        nonzeros=config.num_parameters,
        storage_bits=storage_bits(config),
        inputs=problem.num_features,
        setting=f"learning rate {learning_rates[best]:.3g}, mean of {starts} starts",
    )


def _adam(
    key: jax.Array, config: UltraSparseConfig, rate: jax.Array, *, goal: Any, held_out: Any, steps: int
) -> tuple[Any, jax.Array]:
    """Parameters with the least validation loss of one run, and that loss."""
    blocks = max(1, steps // VALIDATION_EVERY)
    total = blocks * VALIDATION_EVERY
    optimiser = optax.scale_by_adam()
    params = UltraSparseNet(config).init(key, jnp.zeros(config.input_size))["params"]
    # A zero output layer starts from the mean prediction: random outputs overfit before they come down to it.
    params = {**params, "layer_1": jax.tree.map(jnp.zeros_like, params["layer_1"])}

    def step(carry: tuple, number: jax.Array) -> tuple[tuple, None]:
        params, state = carry
        gradient = jax.grad(lambda p: evaluate(config, p, goal))(params)
        updates, state = optimiser.update(gradient, state)
        current = rate * (0.5 + 0.5 * jnp.cos(jnp.pi * number / total))
        return (jax.tree.map(lambda p, u: p - current * u, params, updates), state), None

    def block(carry: tuple, number: jax.Array) -> tuple[tuple, None]:
        inner, best, best_loss = carry
        inner, _ = jax.lax.scan(step, inner, number * VALIDATION_EVERY + jnp.arange(VALIDATION_EVERY))
        found = evaluate(config, inner[0], held_out)
        better = found < best_loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), inner[0], best)
        return (inner, best, jnp.minimum(found, best_loss)), None

    start = ((params, optimiser.init(params)), params, evaluate(config, params, held_out))
    (_, best, best_loss), _ = jax.lax.scan(block, start, jnp.arange(blocks))
    return best, best_loss


def _objective(part: Split, loss: Any, outputs: int) -> Any:
    targets = part.targets if loss == "mse" else np.eye(outputs, dtype=np.float32)[part.targets]
    return objective(part.features, targets, loss=loss)


def _logistic_fits(name: str, problem: Problem, strengths: Sequence[float], **options: Any) -> list[Baseline]:
    from sklearn.linear_model import LogisticRegression

    train, _, _ = _centred(problem)
    model = LogisticRegression(max_iter=1000, warm_start=True, random_state=0, **options)
    fits = []
    for strength in strengths:
        model.set_params(C=strength)
        _, converged = _converged(lambda: model.fit(train.features, train.targets))
        setting = f"C={strength:.3g}, validation"
        fit = _linear(name, problem, model.coef_.copy(), model.intercept_.copy(), setting)
        fits.append(replace(fit, converged=converged))
    return fits


def _linear(name: str, problem: Problem, weights: Any, biases: Any, setting: str) -> Baseline:
    weights, biases = np.atleast_2d(weights), np.atleast_1d(biases)
    parts = _centred(problem)
    scores = [score(problem.task, part.features @ weights.T + biases, part) for part in parts]
    kept, size = np.count_nonzero(weights), weights.size
    # The cheaper of a list of positions and a bitmap says which weights are kept; nothing if all are.
    index_bits = 0 if kept == size else min(kept * math.ceil(math.log2(max(2, size))), size)
    nonzeros = int(kept + np.count_nonzero(biases))
    return Baseline(
        name=name,
        metric=_metric(problem),
        train=scores[0],
        validation=scores[1],
        test=scores[2],
        nonzeros=nonzeros,
        storage_bits=int(32 * nonzeros + index_bits),
        inputs=int(np.any(weights != 0, axis=0).sum()),
        setting=setting,
    )


def _metric(problem: Problem) -> str:
    return "mse" if problem.task == "regression" else "accuracy"


def _centred(problem: Problem) -> tuple[Split, Split, Split]:
    mean = problem.train.features.mean(axis=0, dtype=np.float64)
    deviation = problem.train.features.std(axis=0, dtype=np.float64)
    # A column that is constant but for rounding would be blown up to noise.
    deviation[deviation <= 1e-7 * np.maximum(1, np.abs(mean))] = 1.0

    def centred(part: Split) -> Split:
        targets = part.targets.reshape(-1) if problem.task == "regression" else part.targets
        return Split((part.features - mean) / deviation, targets)

    return centred(problem.train), centred(problem.validation), centred(problem.test)


def _converged(fit: Callable[[], Any]) -> tuple[Any, bool]:
    """The result of a fit, and whether its solver was content; its warning becomes a field."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        result = fit()
    return result, not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
