"""The problems by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from sparsejax.models.ultra_sparse.problems import generated, labelled, shift, sine, tables
from sparsejax.models.ultra_sparse.problems.problem import Problem

PROBLEMS: Mapping[str, Callable[..., Problem]] = MappingProxyType(
    {
        "sine": sine.sine,
        "multi_frequency": sine.multi_frequency,
        "friedman1": generated.friedman1,
        "friedman2": generated.friedman2,
        "friedman3": generated.friedman3,
        "high_dimensional": generated.high_dimensional,
        "synthetic": generated.synthetic,
        "xor": generated.xor,
        "time_series": generated.time_series,
        "threshold_labels": labelled.threshold_labels,
        "interaction_labels": labelled.interaction_labels,
        "xor_labels": labelled.xor_labels,
        "digits": tables.digits,
        "wine": tables.wine,
        "breast_cancer": tables.breast_cancer,
        "shift_gaussians": shift.shift_gaussians,
    }
)
"""What makes each problem; its keyword arguments are the options."""


def make_problem(name: str, *, seed: int = 0, **options: Any) -> Problem:
    """The problem of this name.

    Args:
      name: a key of `PROBLEMS`.
      seed: of all random draws: rows, noise, splits.
      options: keyword arguments of ``PROBLEMS[name]``.

    Returns:
      a `Problem`.

    Raises:
      ValueError: unknown name or option, or an option that the problem refuses.

    Example:
      >>> make_problem("friedman1", samples=200)
      Problem(friedman1, regression, 20 features, 200 + 100 + 1000 rows)
    """
    if name not in PROBLEMS:
        near = difflib.get_close_matches(name, PROBLEMS, n=3, cutoff=0.4) or list(PROBLEMS)
        raise ValueError(f"no problem is called {name!r}; near it: {', '.join(near)}")
    known = problem_options(name)
    if unknown := [option for option in options if option not in known]:
        raise ValueError(f"problem {name!r} has no option {unknown[0]!r}; it has {', '.join(known)}")
    return PROBLEMS[name](seed=seed, **options)


def problem_options(name: str) -> dict[str, Any]:
    """Options of a problem with their defaults, without the seed.

    Example:
      >>> problem_options("wine")
      {'validation': 0.15, 'test': 0.2}
    """
    parameters = inspect.signature(PROBLEMS[name]).parameters
    return {option: parameter.default for option, parameter in parameters.items() if option != "seed"}
