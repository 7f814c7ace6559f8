"""How predictors are calibrated, and what they are to guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from sparsejax.models.sparse_inference.calibration.solve import Formula
from sparsejax.models.sparse_inference.calibration.strength import Strength, check_strength
from sparsejax.models.sparse_inference.config import SparsityConfig, check_rank
from sparsejax.ops.counts import check_count
from sparsejax.ops.sparse_ffn import GATED_ACTIVATIONS

Kind = Literal["low-rank", "mlp", "gate"]
Target = Literal["auto", "sums", "strength"]

MONOTONE = ("relu", "relu_squared", "gelu", "gelu_tanh", "silu")
"""Activations of which a neuron with a larger sum does more."""

MLP_STEPS = 400
RANK = 256


@dataclass(frozen=True)
class FitOptions:
    """How a predictor is calibrated.

    Attributes:
      kind: "low-rank" is solved in closed form; "mlp", the two-layer one, starts from half that rank and is
        trained; "gate" computes the FFN's gates and needs but a threshold.
      rank: 1 to min(d, f), of "mlp" the hidden width; None is a quarter of the narrower side, at most 256.
      target: what the closed form fits: "sums", before the activation (of the gate, where there is one), are
        linear in the inputs and need no pass through the FFN; "strength" is what each neuron does, see
        ``by``. "auto" is sums where a larger one means more, which is never so with gates.
      by: how strong neurons are measured: "activation" or "contribution"; None is activation, with gates
        contribution. Sums by contribution are scaled by the neurons' output norms.
      ridge: weight of the coefficients' squares.
      formula: "centred", with a ridge relative to the inputs' mean variance; "published" as specified.
      fine_tune: steps of gradient descent on which neurons are the strongest; None is 0, of "mlp" 400.
      learning_rate: of it, relative to the size of each array.
      batch_size: samples of a step.
      target_recall: the threshold finds this share of the wanted neurons, instead of a share of all: those of
        the strongest that ``sparsity`` asks for, or where a threshold decides those that are not 0.
      kept_rows: samples that are kept, a uniform choice of all, for thresholds and gradient descent.
      lag: layers that the predictor looks ahead; samples are then pairs.
      seed: of every draw.

    Raises:
      ValueError: a number out of range or an unknown name.

    Example:
      >>> FitOptions(rank=64, fine_tune=200).steps
      200
    """

    kind: Kind = "low-rank"
    rank: int | None = None
    target: Target = "auto"
    by: Strength | None = None
    ridge: float = 1e-3
    formula: Formula = "centred"
    fine_tune: int | None = None
    learning_rate: float = 0.02
    batch_size: int = 128
    target_recall: float | None = None
    kept_rows: int = 4096
    lag: int = 0
    seed: int = 0

    def __post_init__(self):
        """Refuse what cannot be."""
        for name, names in (("kind", Kind), ("target", Target), ("formula", Formula)):
            if getattr(self, name) not in get_args(names):
                raise ValueError(f"no {name} {getattr(self, name)!r}; choose one of {get_args(names)}")
        if self.by is not None:
            check_strength(self.by)
        for name, value in (("ridge", self.ridge), ("learning_rate", self.learning_rate)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        least = {"fine_tune": 0, "batch_size": 1, "kept_rows": 2, "lag": 0}
        for name, lowest in least.items():
            if (value := getattr(self, name)) is not None:
                check_count(name, value, lowest)
        if self.target_recall is not None and not 0 < self.target_recall <= 1:
            raise ValueError(f"target_recall must be above 0 and at most 1, not {self.target_recall}")
        if self.kind == "gate" and (self.lag or self.fine_tune):
            raise ValueError(
                "gates are computed from the FFN's own inputs and cannot be trained or look ahead"
            )

    @property
    def steps(self) -> int:
        """Of gradient descent."""
        if self.fine_tune is not None:
            return self.fine_tune
        return MLP_STEPS if self.kind == "mlp" else 0

    def strength(self, *, gated: bool) -> Strength:
        """How strong neurons are measured, of an FFN with or without gates."""
        if self.by is not None:
            return self.by
        return "contribution" if gated else "activation"

    def fits_sums(self, activation: str, *, gated: bool) -> bool:
        """Whether the closed form fits sums."""
        if self.target != "auto":
            return self.target == "sums"
        return not gated and activation in MONOTONE

    def linear_rank(self, inputs: int, neurons: int) -> int:
        """Rank of the closed form; `mlp_of_low_rank` doubles it.

        Raises:
          ValueError: the rank is out of range.
        """
        narrow = min(inputs, neurons)
        rank = self.rank if self.rank is not None else min(RANK, max(1, narrow // 4))
        if self.kind != "mlp":
            check_rank(rank, inputs, neurons)
            return rank
        if not isinstance(rank, int) or not 2 <= rank <= 2 * narrow:
            raise ValueError(f"rank, the hidden width, must be 2 to {2 * narrow}, not {rank!r}")
        return rank // 2


def wanted_count(sparsity: SparsityConfig, neurons: int) -> int | None:
    """Neurons of a sample that are wanted; None where a threshold decides and those that are not 0 are.

    A calibrated threshold is one of a target sparsity, which still says how many.

    Example:
      >>> wanted_count(SparsityConfig.with_target_sparsity(0.9).calibrated(1.0), 100)
      10
    """
    if sparsity.top_k is None and sparsity.target_sparsity is not None:
        return SparsityConfig(None, None, sparsity.target_sparsity).count(neurons)
    return sparsity.count(neurons)


def check_wanted(wanted: Any, activation: str, *, gated: bool) -> None:
    """Refuse to look for neurons that are not 0 where none is.

    Args:
      wanted: from `wanted_count`.
      activation: of the FFN.
      gated: it has gates.

    Raises:
      ValueError: says what to give.

    Example:
      >>> check_wanted(None, "relu", gated=False)
    """
    of_gate = GATED_ACTIVATIONS.get(activation, (activation,))[0] if gated else activation
    if wanted is None and not of_gate.startswith("relu"):
        raise ValueError(
            f"neurons of {activation!r} are never 0, so that a threshold does not say which are wanted; give "
            "a sparsity with top_k or target_sparsity"
        )
