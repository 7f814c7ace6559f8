"""What a SPROUT network is made of: the published arguments, the kinds of router, and the FFN on its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sparsejax.ops.counts import check_count
from sparsejax.ops.sparse_ffn import ACTIVATIONS

RouterKind = Literal["linear", "mlp", "low_rank", "block", "mlp_block"]
RouterInit = Literal["w_in", "random"]
Mixer = Literal["published", "off", "always"]
Path = Literal["auto", "masked", "gather", "block"]


@dataclass(frozen=True)
class DeepSets:
    """An FFN that sums a learned function of every selected neuron (the published v4).

    Attributes:
      d_neuron: width of a neuron's learned vector.
      d_hidden: width of the summed features.
      use_context: the function also reads the token and the mean vector of the selected neurons.
      normalize_sum: the sum is normalised before it is read out.
    """

    d_neuron: int = 128
    d_hidden: int = 256
    use_context: bool = False
    normalize_sum: bool = True

    def __post_init__(self):
        """Refuse sizes below one."""
        check_count("d_neuron", self.d_neuron, 1)
        check_count("d_hidden", self.d_hidden, 1)


@dataclass(frozen=True)
class SproutFFNConfig:
    """One feed-forward part whose neurons are picked per token at run time.

    Attributes:
      d_model: width of inputs and outputs.
      d_ff: neurons.
      router: what scores neurons: "linear" one matrix; "mlp" the published two-layer one; "low_rank" two
        matrices with ``router_rank`` between; "block" one matrix that scores blocks of neurons; "mlp_block"
        the two-layer one that does so.
      router_rank: of "low_rank".
      block_size: neurons per block, contiguous: of routers of blocks and of ``path="block"``.
      router_init: "w_in" starts the router's last matrix from the input weights, "random" as in the first
        published version.
      mixer_hidden: width of the manifold mixer; None has none.
      deep_sets: replaces the output matrix by a learned function of the selected neurons; None does not.
      sparse_k: ``top_k`` of calls that give none; None computes all neurons.
      dropout: inside the mixer and the DeepSets read-out, in training.
      activation: of the neurons, a name in `sparsejax.ops.sparse_ffn.ACTIVATIONS`; "gelu" is the exact one.
      use_bias: neurons and output have biases, as those of other dense FFNs do.

    Example:
      >>> SproutFFNConfig(512, 2048).num_blocks
      32
    """

    d_model: int = 512
    d_ff: int = 2048
    router: RouterKind = "linear"
    router_rank: int = 64
    block_size: int = 64
    router_init: RouterInit = "w_in"
    mixer_hidden: int | None = None
    deep_sets: DeepSets | None = None
    sparse_k: int | None = None
    dropout: float = 0.1
    activation: str = "gelu"
    use_bias: bool = False

    def __post_init__(self):
        """Refuse what no FFN can be."""
        for name in ("d_model", "d_ff", "router_rank", "block_size"):
            check_count(name, getattr(self, name), 1)
        if self.router not in get_args(RouterKind):
            raise ValueError(f"router {self.router!r} is not one of {get_args(RouterKind)}")
        if self.router_init not in get_args(RouterInit):
            raise ValueError(f"router_init {self.router_init!r} is not one of {get_args(RouterInit)}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is not one of {tuple(ACTIVATIONS)}")
        if self.selects_blocks and self.d_ff % self.block_size:
            raise ValueError(f"{self.d_ff} neurons do not divide into blocks of {self.block_size}")
        if self.mixer_hidden is not None:
            check_count("mixer_hidden", self.mixer_hidden, 2)
        if self.deep_sets is not None and (self.mixer_hidden is not None or self.use_bias):
            raise ValueError("a DeepSets FFN has neither a mixer nor biases of neurons")
        if self.sparse_k is not None:
            check_count("sparse_k", self.sparse_k, 0)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")

    @property
    def selects_blocks(self) -> bool:
        """Whether the router scores whole blocks, whatever the path."""
        return self.router in ("block", "mlp_block")

    @property
    def num_blocks(self) -> int:
        """Blocks of neurons; the last one may be shorter."""
        return -(-self.d_ff // self.block_size)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SproutFFNConfig:
        """The inverse of `to_json`."""
        return cls(**_fields(document))


@dataclass(frozen=True)
class SproutConfig:
    """Sizes and kind of a masked language model. The defaults are the published ones.

    Attributes:
      vocab_size: token ids are below it.
      d_model: width of the residual stream.
      d_ff: neurons per layer.
      n_heads: attention heads.
      n_layers: layers.
      max_len: rows of the position table.
      dropout: probability in training.
      sparse_k: see `SproutFFNConfig`; so are the fields that follow.
      router: see `SproutFFNConfig`.
      router_rank: see `SproutFFNConfig`.
      block_size: see `SproutFFNConfig`.
      router_init: see `SproutFFNConfig`.
      mixer_hidden: see `SproutFFNConfig`.
      deep_sets: see `SproutFFNConfig`.
      activation: see `SproutFFNConfig`.
      use_bias: see `SproutFFNConfig`.
      gradient_checkpointing: recompute each layer in the backward pass.

    Example:
      >>> SproutConfig(vocab_size=1000, d_model=64, d_ff=256).ffn.d_ff
      256

    Source: specs/sprout.md sections 1 and 3.
    """

    vocab_size: int = 30000
    d_model: int = 512
    d_ff: int = 2048
    n_heads: int = 8
    n_layers: int = 6
    max_len: int = 512
    dropout: float = 0.1
    sparse_k: int | None = None
    router: RouterKind = "linear"
    router_rank: int = 64
    block_size: int = 64
    router_init: RouterInit = "w_in"
    mixer_hidden: int | None = None
    deep_sets: DeepSets | None = None
    activation: str = "gelu"
    use_bias: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self):
        """Refuse what no network can be."""
        for name in ("vocab_size", "n_heads", "n_layers", "max_len"):
            check_count(name, getattr(self, name), 1)
        _ = self.ffn  # checks the rest
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} does not divide into n_heads={self.n_heads} heads")

    @property
    def ffn(self) -> SproutFFNConfig:
        """Of every layer."""
        names = [field.name for field in dataclasses.fields(SproutFFNConfig)]
        return SproutFFNConfig(**{name: getattr(self, name) for name in names})

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SproutConfig:
        """The inverse of `to_json`."""
        return cls(**_fields(document))


def _fields(document: Mapping[str, Any]) -> dict[str, Any]:
    deep_sets = document.get("deep_sets")
    return {**document, "deep_sets": None if deep_sets is None else DeepSets(**deep_sets)}
