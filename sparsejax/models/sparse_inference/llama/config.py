"""What a Llama-architecture network is made of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sparsejax.models.sparse_inference.llama.rope import RopeConfig
from sparsejax.ops.counts import check_count
from sparsejax.ops.sparse_ffn import check_activation

Architecture = Literal["llama", "mistral", "qwen2"]

BIASES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
"""Matrices of a block that may have a bias, by their names in GGUF files."""


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes and kind of a decoder.

    Attributes:
      vocab_size: token ids are below it.
      d_model: width of the residual stream.
      d_ff: neurons per layer.
      n_layers: blocks.
      n_heads: query heads.
      n_kv_heads: key and value heads; head h reads number h // (n_heads / n_kv_heads).
      head_dim: channels of a head.
      rope: rotary positions.
      context_length: positions that the network was trained for.
      norm_eps: of the RMS norms.
      activation: of the gates, a name in `ACTIVATIONS` or `GATED_ACTIVATIONS` of `sparsejax.ops.sparse_ffn`:
        "silu" is SwiGLU, "relu" ReGLU.
      sliding_window: a token sees itself and so many positions less one before it; None sees all.
      architecture: name under which files are written; it decides no computation.
      biases: which of `BIASES` have one.
      rope_factors: there is a tensor of divisors of the frequencies.
      tied_output: the token embedding is the output matrix too.
      formats: (tensor name, format) of tensors that are kept quantised, as
        `sparsejax.ops.quantized.QuantizedTensor`; all others are plain arrays.

    Example:
      >>> config = LlamaConfig(vocab_size=256, d_model=64, d_ff=128, n_layers=2, n_heads=4, n_kv_heads=2)
      >>> config.head_dim, config.rope.dimension
      (16, 16)

    Source: specs/sparse_inference.md section 13.
    """

    vocab_size: int
    d_model: int
    d_ff: int
    n_layers: int
    n_heads: int
    n_kv_heads: int = 0
    head_dim: int = 0
    rope: RopeConfig | None = None
    context_length: int = 2048
    norm_eps: float = 1e-5
    activation: str = "silu"
    sliding_window: int | None = None
    architecture: Architecture = "llama"
    biases: tuple[str, ...] = ()
    rope_factors: bool = False
    tied_output: bool = False
    formats: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        """Fill in what follows from the rest, and refuse what no network can be."""
        for name in ("vocab_size", "d_model", "d_ff", "n_layers", "n_heads", "context_length"):
            check_count(name, getattr(self, name), 1)
        for name, value in (("n_kv_heads", self.n_heads), ("head_dim", self.d_model // self.n_heads)):
            if getattr(self, name) == 0:
                object.__setattr__(self, name, value)
            check_count(name, getattr(self, name), 1)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads {self.n_heads} does not divide into n_kv_heads={self.n_kv_heads} groups"
            )
        if self.rope is None:
            object.__setattr__(
                self, "rope", RopeConfig(self.head_dim, interleaved=self.architecture != "qwen2")
            )
        if self.rotary.dimension > self.head_dim:
            raise ValueError(f"rope.dimension {self.rotary.dimension} is more than head_dim {self.head_dim}")
        if not (math.isfinite(self.norm_eps) and self.norm_eps > 0):
            raise ValueError(f"norm_eps must be above 0, not {self.norm_eps}")
        check_activation(self.activation, gated=True)
        if self.architecture not in get_args(Architecture):
            raise ValueError(f"architecture {self.architecture!r} is not one of {get_args(Architecture)}")
        if unknown := set(self.biases) - set(BIASES):
            raise ValueError(f"biases {sorted(unknown)} are not among {BIASES}")
        if self.sliding_window is not None:
            check_count("sliding_window", self.sliding_window, 1)

    @property
    def rotary(self) -> RopeConfig:
        """``rope``, which is always there once the config is made."""
        assert self.rope is not None
        return self.rope

    def format_of(self, name: str) -> str | None:
        """The format that a tensor is kept quantised in; None for a plain array.

        Args:
          name: of the tensor in GGUF files, such as "blk.0.ffn_up.weight".
        """
        return dict(self.formats).get(name)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LlamaConfig:
        """The inverse of `to_json`, also after JSON has turned tuples into lists."""
        fields = dict(document)
        rope = fields.get("rope")
        fields["rope"] = None if rope is None else RopeConfig.from_json(rope)
        fields["biases"] = tuple(fields.get("biases", ()))
        fields["formats"] = tuple((name, kind) for name, kind in fields.get("formats", ()))
        return cls(**fields)
