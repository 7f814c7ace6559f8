"""What the published files of parts hold: an FFN, a predictor, or one quantised matrix."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparsejax.models.sparse_inference.config import SparsityConfig


@dataclass(frozen=True)
class FFNConfig:
    """A two-matrix FFN with biases.

    Attributes:
      d_model: width of the inputs.
      d_ff: neurons.
      d_out: width of the outputs.
      activation: a name in `ops.sparse_ffn.ACTIVATIONS`.

    Example:
      >>> FFNConfig.from_json(FFNConfig(8, 32, 4).to_json())
      FFNConfig(d_model=8, d_ff=32, d_out=4, activation='gelu_tanh')
    """

    d_model: int
    d_ff: int
    d_out: int
    activation: str = "gelu_tanh"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FFNConfig:
        """The inverse of `to_json`."""
        return cls(**document)


@dataclass(frozen=True)
class ScorerConfig:
    """A predictor of which neurons are active.

    Attributes:
      d_model: width of the inputs.
      d_ff: neurons that get a score.
      rank: width between its two matrices.
      hidden_activation: None of the linear predictor, "relu" of PowerInfer's.
      bias: each neuron has an offset, and so has each hidden one where there is an activation; published
        predictors have none.
      sparsity: how scores choose neurons.

    Example:
      >>> config = ScorerConfig(8, 32, 4, sparsity=SparsityConfig.with_top_k(5))
      >>> ScorerConfig.from_json(config.to_json()) == config
      True
    """

    d_model: int
    d_ff: int
    rank: int
    hidden_activation: str | None = None
    bias: bool = False
    sparsity: SparsityConfig = SparsityConfig()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ScorerConfig:
        """The inverse of `to_json`."""
        return cls(**{**document, "sparsity": SparsityConfig.from_json(document["sparsity"])})


@dataclass(frozen=True)
class WeightsConfig:
    """A matrix of affine codes in groups.

    Attributes:
      shape: (outputs, inputs).
      bits: of a code, 4 or 8.
      group_size: elements that share a scale and a zero point.

    Example:
      >>> WeightsConfig((4, 16), 4, 32).count, WeightsConfig((4, 16), 4, 32).groups
      (32, 2)
    """

    shape: tuple[int, int]
    bits: int
    group_size: int

    @property
    def count(self) -> int:
        """Bytes of codes."""
        return -(-self.shape[0] * self.shape[1] * self.bits // 8)

    @property
    def groups(self) -> int:
        """Scales."""
        return -(-self.shape[0] * self.shape[1] // self.group_size)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> WeightsConfig:
        """The inverse of `to_json`, also after JSON has turned tuples into lists."""
        rows, columns = document["shape"]
        return cls((rows, columns), document["bits"], document["group_size"])
