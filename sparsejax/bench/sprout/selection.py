"""What a selection of neurons keeps, in float64: the exact output, the best selection, the angle to dense."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sparsejax.bench.sprout.layers import Layer

_CLEAR = 1e-5
"""Least distance, over the largest score, between the last score chosen and the first that is not: below it
float32 sums in another order may choose otherwise, and a token says nothing about the error."""


@dataclass(frozen=True)
class Exact:
    """One layer on some inputs, in float64.

    Attributes:
      layer: its weights.
      inputs: (n, d).
    """

    layer: Layer
    inputs: np.ndarray

    @cached_property
    def activations(self) -> np.ndarray:
        """(n, f) of all neurons."""
        from scipy.special import erf

        sums = np.asarray(self.inputs, np.float64) @ np.asarray(self.layer.w_in, np.float64).T
        return 0.5 * sums * (1 + erf(sums / np.sqrt(2.0)))

    @cached_property
    def dense(self) -> np.ndarray:
        """(n, d) of all neurons."""
        return self.outputs(None)

    def outputs(self, chosen: np.ndarray | None) -> np.ndarray:
        """(n, d) of the chosen neurons (n, f)."""
        kept = self.activations if chosen is None else np.where(chosen, self.activations, 0.0)
        return kept @ np.asarray(self.layer.w_out, np.float64)

    def best_scores(self, block_size: int) -> np.ndarray:
        """(n, f / block_size) sums of the neurons' absolute activations: what the oracle chooses by."""
        sizes = np.abs(self.activations)
        return sizes.reshape(len(sizes), -1, block_size).sum(axis=-1)


@dataclass(frozen=True)
class Found:
    """What one contestant gave for the inputs of an `Exact`.

    Attributes:
      exact: of the same layer and inputs.
      outputs: (n, d).
      scores: (n, f) of neurons or (n, blocks) of blocks; None for a dense contestant.
      count: of the scores, chosen per token.
    """

    exact: Exact
    outputs: np.ndarray
    scores: np.ndarray | None = None
    count: int = 0

    @property
    def error(self) -> float:
        """Largest difference to the exact output of the same choice, over that output's largest value."""
        if self.scores is None:
            wanted, clear = self.exact.dense, np.ones(len(self.outputs), bool)
        else:
            wanted, clear = self.exact.outputs(self._neurons(self.scores)), is_clear(self.scores, self.count)
        if not clear.any():
            return float("nan")
        difference = np.abs(np.asarray(self.outputs, np.float64) - wanted)[clear].max()
        return float(difference / np.abs(wanted).max())

    def recall(self) -> float:
        """Part of the oracle's choice that is chosen."""
        assert self.scores is not None
        best = choose(self.exact.best_scores(self._block_size), self.count)
        return float((choose(self.scores, self.count) & best).sum() / best.sum())

    def cosine(self) -> float:
        """Mean over tokens of the cosine between the output of the choice and the dense output."""
        assert self.scores is not None
        return self._cosine(self.scores)

    def best_cosine(self) -> float:
        """The same of the oracle's choice."""
        return self._cosine(self.exact.best_scores(self._block_size))

    def _cosine(self, scores: np.ndarray) -> float:
        return mean_cosine(self.exact.outputs(self._neurons(scores)), self.exact.dense)

    @property
    def _block_size(self) -> int:
        assert self.scores is not None
        return int(self.exact.activations.shape[1] // self.scores.shape[1])

    def _neurons(self, scores: np.ndarray) -> np.ndarray:
        return np.repeat(choose(scores, self.count), self._block_size, axis=1)


def choose(scores: np.ndarray, count: int) -> np.ndarray:
    """True (n, c) at the largest of the scores (n, c); of equal ones the lowest index wins.

    Example:
      >>> choose(np.array([[1.0, 3.0, 3.0]]), 1).tolist()
      [[False, True, False]]
    """
    chosen = np.zeros(scores.shape, bool)
    np.put_along_axis(chosen, np.argsort(-scores, axis=1, kind="stable")[:, :count], True, axis=1)
    return chosen


def is_clear(scores: np.ndarray, count: int) -> np.ndarray:
    """(n,) whether rounding cannot change which scores (n, c) are the largest."""
    if not 0 < count < scores.shape[1]:
        return np.ones(len(scores), bool)
    ranked = np.sort(scores, axis=1)
    margin = ranked[:, -count] - ranked[:, -count - 1]
    return margin > _CLEAR * np.abs(scores).max(axis=1)


def mean_cosine(outputs: np.ndarray, dense: np.ndarray) -> float:
    """Mean over the rows (n, d) of two arrays."""
    lengths = np.linalg.norm(outputs, axis=1) * np.linalg.norm(dense, axis=1)
    tiny = np.finfo(np.float64).tiny
    return float(((outputs * dense).sum(axis=1) / np.maximum(lengths, tiny)).mean())


def summary(found: list[Found]) -> dict[str, Any]:
    """Quality columns of a row over the inputs that were looked at."""
    assert found[0].scores is not None
    share = found[0].count / found[0].scores.shape[1]
    recall, cosine, best = (
        float(np.mean([getattr(one, name)() for one in found]))
        for name in ("recall", "cosine", "best_cosine")
    )
    return {
        "router recall of the oracle's choice": f"{recall:.2f} (chance {share:.2f})",
        "cosine to the dense output": f"{cosine:.3f} (oracle {best:.3f}, chance {share**0.5:.3f})",
    }
