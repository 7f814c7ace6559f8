"""What sparse inference is told: how many neurons are computed, sizes, and what the store keeps near."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sparsejax.ops.counts import check_count
from sparsejax.ops.sparse_ffn import ACTIVATIONS, GATED_ACTIVATIONS

CacheStrategy = Literal["lru", "lfu", "fifo", "none"]
"""Who makes room: the least recently used unit; the least often used since it came, of equals the least
recent; the one that came first; or, with "none", every unit after the call it came for."""

QUANTIZATIONS = tuple("f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k int8 int4".split())
"""What the weights of a model may be stored as."""


def check_strategy(strategy: Any) -> None:
    """Refuse what is no cache strategy.

    Raises:
      ValueError: names it, and those that are.

    Example:
      >>> check_strategy("lfu")
    """
    if strategy not in get_args(CacheStrategy):
        raise ValueError(f"no cache strategy {strategy!r}; choose one of {get_args(CacheStrategy)}")


def _check_share(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be 0 to 1, not {value!r}")


@dataclass(frozen=True)
class SparsityConfig:
    """Which neurons scores select: a number of them, or those above a threshold.

    Of several fields the first of ``top_k``, ``threshold``, ``target_sparsity`` decides. A sparsity is the
    share of neurons that are left out, an active fraction the share that is computed: 1 minus it.

    Attributes:
      threshold: neurons with a score above it, not equal to it, are selected; at least 0, unless it was
        calibrated (``adaptive_threshold``), as the scores of many predictors may be negative.
      top_k: so many neurons with the largest scores, at least 1.
      target_sparsity: 0 to 1. Without a threshold it is a number of neurons, the same for every token: all
        but this share, rounded, at least 1.
      adaptive_threshold: `calibrate` makes the threshold a quantile of the scores that it sees, so that the
        number of neurons differs between tokens and their mean share is 1 minus ``target_sparsity``.

    Raises:
      ValueError: nothing that decides, or a number out of range.

    Example:
      >>> SparsityConfig()
      SparsityConfig(threshold=0.01, top_k=None, target_sparsity=None, adaptive_threshold=False)
      >>> SparsityConfig.with_target_sparsity(0.9).count(11008)
      1101

    Source: specs/sparse_inference.md section 1. The original selects nothing when only ``target_sparsity``
    is given and never reads ``adaptive_threshold``.
    """

    threshold: float | None = 0.01
    top_k: int | None = None
    target_sparsity: float | None = None
    adaptive_threshold: bool = False

    def __post_init__(self):
        """Refuse what selects nothing or cannot be."""
        if self.threshold is None and self.top_k is None and self.target_sparsity is None:
            raise ValueError("nothing says which neurons: give threshold, top_k or target_sparsity")
        if self.top_k is not None:
            check_count("top_k", self.top_k, 1)
        if self.target_sparsity is not None:
            _check_share("target_sparsity", self.target_sparsity)
        if self.threshold is None:
            return
        if not isinstance(self.threshold, int | float) or not math.isfinite(self.threshold):
            raise ValueError(f"threshold must be a finite number, not {self.threshold!r}")
        if self.threshold < 0 and not self.adaptive_threshold:
            raise ValueError(
                f"threshold must be at least 0, not {self.threshold}; only calibrated ones "
                "(adaptive_threshold=True) may be negative"
            )

    @classmethod
    def with_top_k(cls, top_k: int) -> SparsityConfig:
        """So many neurons for every token.

        Args:
          top_k: at least 1.
        """
        return cls(threshold=None, top_k=top_k)

    @classmethod
    def with_threshold(cls, threshold: float) -> SparsityConfig:
        """The neurons with a score above ``threshold``.

        Args:
          threshold: at least 0.
        """
        return cls(threshold=threshold)

    @classmethod
    def with_target_sparsity(cls, target_sparsity: float) -> SparsityConfig:
        """All but this share of the neurons; after `calibrate` on average over tokens, before for each.

        Args:
          target_sparsity: 0 to 1.
        """
        return cls(threshold=None, target_sparsity=target_sparsity, adaptive_threshold=True)

    @classmethod
    def with_active_fraction(cls, active_fraction: float) -> SparsityConfig:
        """This share of the neurons, for every token: a target sparsity that calibration leaves a number.

        Args:
          active_fraction: 0 to 1.

        Example:
          >>> SparsityConfig.with_active_fraction(0.25).count(40)
          10
        """
        _check_share("active_fraction", active_fraction)
        return cls(threshold=None, target_sparsity=1 - active_fraction)

    def calibrated(self, threshold: float) -> SparsityConfig:
        """The same with a threshold that was found from scores, for one layer.

        Args:
          threshold: any finite number.

        Example:
          >>> SparsityConfig.with_target_sparsity(0.9).calibrated(-0.5).count(100) is None
          True
        """
        return dataclasses.replace(self, threshold=float(threshold), top_k=None, adaptive_threshold=True)

    def count(self, neurons: int) -> int | None:
        """How many of so many neurons each token computes; None where a threshold decides.

        Args:
          neurons: of the layer.

        Raises:
          ValueError: ``top_k`` is more than the neurons.
        """
        if self.top_k is not None:
            if self.top_k > neurons:
                raise ValueError(f"top_k {self.top_k} is more than the {neurons} neurons")
            return self.top_k
        if self.threshold is not None or self.target_sparsity is None:
            return None
        return max(1, math.floor((1 - self.target_sparsity) * neurons + 0.5))

    def to_json(self) -> dict[str, Any]:
        """Plain values, under the published names."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SparsityConfig:
        """The inverse of `to_json`."""
        return cls(**document)


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of one feed-forward part with its predictor.

    Attributes:
      input_dim: width of the inputs.
      hidden_dim: neurons.
      output_dim: width of the outputs.
      rank: of the predictor; an FFN has none.
      activation: a name in `ops.sparse_ffn.ACTIVATIONS` or, of gated ones, `GATED_ACTIVATIONS`.
      sparsity: which neurons are computed.
      quantization: what the weights are stored as, a name in `QUANTIZATIONS`; None is what they are. It is
        kept for whoever reads the config: nothing here quantises, and `SparseFFN.of_config` refuses it.

    Raises:
      ValueError: sizes below 1, a rank above the narrower side, or names that are not known.

    Example:
      >>> ModelConfig(8, 32, 4, rank=2).activation
      'gelu_tanh'

    Source: specs/sparse_inference.md section 1.
    """

    input_dim: int
    hidden_dim: int
    output_dim: int
    rank: int
    activation: str = "gelu_tanh"
    sparsity: SparsityConfig = SparsityConfig()
    quantization: str | None = None

    def __post_init__(self):
        """Refuse what no such part can be."""
        for name in ("input_dim", "hidden_dim", "output_dim"):
            check_count(name, getattr(self, name), 1)
        check_rank(self.rank, self.input_dim, self.hidden_dim)
        if self.activation not in (known := (*ACTIVATIONS, *GATED_ACTIVATIONS)):
            raise ValueError(f"no activation {self.activation!r}; choose one of {known}")
        if self.quantization is not None and self.quantization not in QUANTIZATIONS:
            raise ValueError(f"no quantization {self.quantization!r}; choose one of {QUANTIZATIONS}")
        self.sparsity.count(self.hidden_dim)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelConfig:
        """The inverse of `to_json`."""
        return cls(**{**document, "sparsity": SparsityConfig.from_json(document["sparsity"])})


@dataclass(frozen=True)
class CacheConfig:
    """What a store of neurons keeps near; see `NeuronStore` for how each number is used.

    Attributes:
      hot_neuron_fraction: share of the calls, of one token or several, from which on a neuron is hot.
      max_cold_cache_size: cold neurons of a layer that are kept, of the strategies "lfu", "fifo", "none".
      cache_strategy: who makes room: "lru" the one used longest ago, "lfu" the one used least often, "fifo"
        the one that came first; "none" keeps none for the next token.
      hot_neuron_count: most hot neurons of a layer.
      lru_cache_size: cold neurons of a layer that "lru" keeps.
      use_mmap: neurons are read from a file rather than held in host memory.
      hot_threshold: share of the calls from which on a neuron becomes hot while the store runs.

    Raises:
      ValueError: a number out of range, or an unknown strategy.

    Example:
      >>> CacheConfig(cache_strategy="lfu").lru_cache_size
      4096

    Source: specs/sparse_inference.md section 1.
    """

    hot_neuron_fraction: float = 0.2
    max_cold_cache_size: int = 1000
    cache_strategy: CacheStrategy = "lru"
    hot_neuron_count: int = 1024
    lru_cache_size: int = 4096
    use_mmap: bool = False
    hot_threshold: float = 0.5

    def __post_init__(self):
        """Refuse what cannot be; the published spelling of strategies, "Lru", is understood."""
        name = self.cache_strategy.lower() if isinstance(self.cache_strategy, str) else self.cache_strategy
        check_strategy(name)
        object.__setattr__(self, "cache_strategy", name)
        for name in ("hot_neuron_fraction", "hot_threshold"):
            _check_share(name, getattr(self, name))
        for name in ("max_cold_cache_size", "hot_neuron_count", "lru_cache_size"):
            check_count(name, getattr(self, name), 0)

    def to_json(self) -> dict[str, Any]:
        """Plain values, under the published names."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CacheConfig:
        """The inverse of `to_json`."""
        return cls(**document)


def check_rank(rank: Any, inputs: int, neurons: int) -> None:
    """Refuse a rank that no product of two matrices needs.

    Raises:
      ValueError: names the most.

    Example:
      >>> check_rank(9, 8, 32)
      Traceback (most recent call last):
      ValueError: rank must be 1 to 8, the narrower of 8 inputs and 32 neurons, not 9
    """
    most = min(inputs, neurons)
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= most:
        raise ValueError(
            f"rank must be 1 to {most}, the narrower of {inputs} inputs and {neurons} neurons, not {rank!r}"
        )
