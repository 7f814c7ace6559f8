"""What several seeds reached on one problem: means with intervals, chosen inputs, baselines beside."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.json_values import plain_values
from sparsejax.models.ultra_sparse.baselines import Baseline
from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.metrics import saturated_share, selection_stats, storage_bits
from sparsejax.models.ultra_sparse.model import activations
from sparsejax.models.ultra_sparse.problems.problem import Problem, Split
from sparsejax.models.ultra_sparse.problems.scoring import score
from sparsejax.typing import Params

CONFIDENCE = 0.95
LISTED_INPUTS = 20
"""Inputs in the selection table of `Report.to_markdown`; `Report.to_json` has them all."""


@dataclass(frozen=True)
class Summary:
    """A number over seeds.

    Attributes:
      mean: over the seeds.
      low: lower end of the 95 % interval of the mean (Student's t); None for one seed.
      high: upper end.
      median: over the seeds.
      smallest: over the seeds.
      largest: over the seeds.
    """

    mean: float
    low: float | None
    high: float | None
    median: float
    smallest: float
    largest: float


@dataclass(frozen=True)
class SeedResult:
    """One trained net on the three parts of a problem.

    Attributes:
      seed: of its training run.
      train: score on the training part (mse of normalised targets, or accuracy).
      validation: score on the validation part.
      test: score on the test part.
      saturation: share of hidden activations on the test part with |h| > 0.95.
      max_weight: largest |weight or bias|: huge ones cancel each other and break in float32 or int8.
      selected: distinct inputs that the first layer reads; None if it reads all.
      precision: true share of them; None if the true features are not known.
      recall: share of the true features read; None likewise.
    """

    seed: int
    train: float
    validation: float
    test: float
    saturation: float
    max_weight: float
    selected: tuple[int, ...] | None = None
    precision: float | None = None
    recall: float | None = None


@dataclass(frozen=True)
class Report:
    """Several seeds on one problem; `evaluate_seeds` makes one.

    Attributes:
      problem: its name.
      options: what the problem was made with.
      metric: "mse" (of normalised targets, smaller is better) or "accuracy".
      config: of the nets, as `UltraSparseConfig.to_json` writes it.
      parameters: weights and biases of a net.
      storage_bits: of a net, with its index table.
      seeds: one result each.
      train: summary of the training scores.
      test: summary of the test scores.
      chosen: the seed with the best validation score.
      selection: share of the seeds that read an input, by feature name, most frequent first.
      tanh_floor: error that no net with a tanh output can go below on the test part; None for other
        outputs and for classifications.
      baselines: plain models on the same parts.
    """

    problem: str
    options: Mapping[str, Any]
    metric: str
    config: Mapping[str, Any]
    parameters: int
    storage_bits: int
    seeds: tuple[SeedResult, ...]
    train: Summary
    test: Summary
    chosen: int
    selection: Mapping[str, float]
    tanh_floor: float | None
    baselines: tuple[Baseline, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain nested dict that `json.dumps` takes; numbers that are not finite become None."""
        return plain_values(dataclasses.asdict(self))

    def to_markdown(self) -> str:
        """Tables of the scores, the seeds and the selected inputs."""
        return "\n\n".join((self._headline(), self._scores(), self._seed_table(), *self._selection_table()))

    def _headline(self) -> str:
        unit = "MSE of normalised targets, smaller is better" if self.metric == "mse" else "accuracy"
        lines = [
            f"# {self.problem}: {len(self.seeds)} seeds",
            f"Scores are {unit}. The net of seed {self.chosen} is best on the validation part.",
        ]
        if self.tanh_floor is not None:
            lines.append(f"A tanh output cannot go below {self.tanh_floor:.4g} on the test part.")
        return "\n\n".join(lines)

    def _scores(self) -> str:
        own = ["ultra-sparse", _number(self.train.mean), _interval(self.test), self.parameters]
        rows = [[*own, self.storage_bits, f"{len(self.seeds)} seeds"]]
        for model in self.baselines:
            setting = model.setting if model.converged else f"{model.setting}; not converged"
            scores = [_number(model.train), _number(model.test)]
            rows.append([model.name, *scores, model.nonzeros, model.storage_bits, setting])
        return _table(["model", "train", "test", "non-zeros", "bits with indices", "setting"], rows)

    def _seed_table(self) -> str:
        rows = [
            [
                result.seed,
                *(_number(score) for score in (result.train, result.validation, result.test)),
                f"{result.saturation:.1%}",
                _number(result.max_weight),
                "" if result.precision is None else f"{result.precision:.2f}",
                "" if result.recall is None else f"{result.recall:.2f}",
            ]
            for result in self.seeds
        ]
        head = ["seed", "train", "validation", "test", "saturation", "max weight", "precision", "recall"]
        return _table(head, rows)

    def _selection_table(self) -> tuple[str, ...]:
        listed = list(self.selection.items())[:LISTED_INPUTS]
        if not listed:
            return ()
        return (_table(["input", "read by"], [[name, f"{share:.0%}"] for name, share in listed]),)


def evaluate_seeds(
    problem: Problem,
    config: UltraSparseConfig,
    nets: Mapping[int, Params],
    baselines: Sequence[Baseline] = (),
) -> Report:
    """Measure trained nets, one per seed, on all parts of a problem.

    Args:
      problem: the data; its test part is looked at here and nowhere else.
      config: of the nets.
      nets: parameters by seed.
      baselines: of `baselines.baselines`, to stand beside.

    Returns:
      a `Report`.

    Raises:
      ValueError: no nets, or a config that does not fit the problem's features and outputs.

    Example:
      >>> from sparsejax.models.ultra_sparse import UltraSparseNet
      >>> from sparsejax.models.ultra_sparse.problems import make_problem
      >>> config = UltraSparseConfig.fixed_k(20, 4, 1, 2, "linear")
      >>> init = UltraSparseNet(config).init
      >>> nets = {seed: init(jax.random.key(seed), jnp.zeros(20))["params"] for seed in range(3)}
      >>> report = evaluate_seeds(make_problem("friedman1"), config, nets)
      >>> report.parameters, report.test.low < report.test.mean < report.test.high
      (17, True)

    Source: specs/ultra_sparse.md sections 7 and 12.
    """
    if not nets:
        raise ValueError("no nets to report on")
    if (config.input_size, config.output_size) != (problem.num_features, problem.output_size):
        raise ValueError(
            f"a net of {config.input_size} inputs and {config.output_size} outputs does not fit problem "
            f"{problem.name!r} with {problem.num_features} features and {problem.output_size} outputs"
        )
    results = tuple(_measure(seed, problem, config, params) for seed, params in nets.items())
    sign = 1 if problem.task == "regression" else -1
    tanh_head = config.layers[-1].activation == "tanh" and problem.task == "regression"
    return Report(
        problem=problem.name,
        options=dict(problem.options),
        metric="mse" if problem.task == "regression" else "accuracy",
        config=config.to_json(),
        parameters=config.num_parameters,
        storage_bits=storage_bits(config),
        seeds=results,
        train=summarise([result.train for result in results]),
        test=summarise([result.test for result in results]),
        chosen=min(results, key=lambda result: sign * _nan_last(result.validation, sign)).seed,
        selection=_selection(problem, results),
        tanh_floor=tanh_head_floor(problem.test.targets) if tanh_head else None,
        baselines=tuple(baselines),
    )


def summarise(values: Sequence[float] | np.ndarray) -> Summary:
    """Mean of numbers with the 95 % interval that Student's t gives it.

    Args:
      values: at least one.

    Returns:
      `Summary`.

    Raises:
      ValueError: no values.

    Example:
      >>> summary = summarise([1.0, 2.0, 3.0])
      >>> round(summary.low, 3), round(summary.high, 3)
      (-0.484, 4.484)
    """
    if not len(values):
        raise ValueError("no values to summarise")
    found = np.asarray(values, np.float64)
    low, high = None, None
    if len(found) > 1:
        half = _student(len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
        low, high = float(found.mean() - half), float(found.mean() + half)
    return Summary(
        float(found.mean()), low, high, float(np.median(found)), float(found.min()), float(found.max())
    )


def tanh_head_floor(targets: Any) -> float:
    """Mean squared error that outputs within [-1, 1] cannot go below: the mean of max(|t| - 1, 0)^2.

    Args:
      targets: (b,) or (b, o), normalised.

    Example:
      >>> tanh_head_floor([0.5, -2.0])
      0.5

    Source: specs/ultra_sparse.md section 17: 0.0526 on the high-dimensional problem.
    """
    return float(np.mean(np.maximum(np.abs(np.asarray(targets, np.float64)) - 1, 0) ** 2))


def _measure(seed: int, problem: Problem, config: UltraSparseConfig, params: Params) -> SeedResult:
    layers = [activations(config, params, jnp.asarray(part.features)) for part in _parts(problem)]
    train, validation, test = (
        score(problem.task, np.asarray(outputs), part)
        for (*_, outputs), part in zip(layers, _parts(problem), strict=True)
    )
    result = SeedResult(
        seed=seed,
        train=train,
        validation=validation,
        test=test,
        saturation=float(saturated_share(layers[2][:-1])),
        max_weight=_max_weight(params),
    )
    if config.layers[0].kind != "sparse":
        return result
    chosen = selection_stats(config, params, problem.true_features or ())
    result = dataclasses.replace(result, selected=chosen.selected)
    if problem.true_features is None:
        return result
    return dataclasses.replace(result, precision=chosen.precision, recall=chosen.recall)


def _parts(problem: Problem) -> tuple[Split, Split, Split]:
    return problem.train, problem.validation, problem.test


def _max_weight(params: Params) -> float:
    arrays = [
        np.asarray(array)
        for layer in params.values()
        for name, array in layer.items()
        if name in ("weights", "kernel", "bias")
    ]
    return float(max(np.abs(array).max(initial=0.0) for array in arrays))


def _selection(problem: Problem, results: Sequence[SeedResult]) -> dict[str, float]:
    counts = Counter(column for result in results for column in result.selected or ())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {problem.feature_names[column]: count / len(results) for column, count in ordered}


def _nan_last(score: float, sign: int) -> float:
    return sign * math.inf if math.isnan(score) else score


def _student(degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + CONFIDENCE / 2, degrees))


def _number(value: float) -> str:
    return f"{value:.4g}"


def _interval(summary: Summary) -> str:
    if summary.low is None or summary.high is None:
        return _number(summary.mean)
    return f"{_number(summary.mean)} [{_number(summary.low)}, {_number(summary.high)}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
