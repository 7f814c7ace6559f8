"""Loss over many batches in which every token weighs alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from sparsejax.training.cross_entropy import TokenLoss


class Score(NamedTuple):
    """What a held-out text costs.

    Attributes:
      loss: mean over tokens, in nats.
      tokens: that were counted.
      metrics: means over tokens of what else the loss tells, by name; None is nothing.
    """

    loss: float
    tokens: int
    metrics: Mapping[str, float] | None = None

    @property
    def perplexity(self) -> float:
        """Exponential of the loss; infinite where that overflows."""
        return math.exp(self.loss) if self.loss < math.log(1e300) else math.inf

    @property
    def words(self) -> str:
        """The perplexity, for the progress shown."""
        return f"validation perplexity {self.perplexity:.4g}"

    def told(self) -> dict[str, float]:
        """All of it as numbers by name."""
        found = {"loss": self.loss, "perplexity": self.perplexity, "tokens": self.tokens}
        return {**found, **(self.metrics or {})}

    @classmethod
    def read(cls, told: Mapping[str, float]) -> Score:
        """The inverse of `told`.

        Example:
          >>> score = Score(1.5, 4, {"accuracy": 0.5})
          >>> Score.read(score.told()) == score
          True
        """
        metrics = {name: told[name] for name in told if name not in ("loss", "perplexity", "tokens")}
        return cls(told["loss"], int(told["tokens"]), metrics or None)


def token_weighted_score(evaluate: Callable[[Any], TokenLoss], batches: Iterable[Any]) -> Score:
    """Mean loss over all tokens of all batches, whatever the number in each.

    Args:
      evaluate: loss of a batch; compiled.
      batches: of the held-out text.

    Returns:
      `Score`; its loss is NaN where nothing was counted.

    Example:
      >>> parts = [TokenLoss(6.0, 2.0), TokenLoss(1.0, 2.0)]
      >>> token_weighted_score(parts.__getitem__, [0, 1])
      Score(loss=1.75, tokens=4, metrics=None)
    """
    losses = [evaluate(batch) for batch in batches]
    count = math.fsum(float(part.weight) for part in losses)

    def mean(values: Iterable[Any]) -> float:
        return math.fsum(map(float, values)) / count if count else math.nan

    rows = [part.metrics for part in losses if part.metrics]
    metrics = {name: mean(row[name] for row in rows) for name in (rows[0] if rows else ())}
    return Score(mean(part.total for part in losses), round(count), metrics or None)
