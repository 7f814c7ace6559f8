"""What a Temporal Eigenstate Network is made of: the published arguments, and the layer of every family."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sparsejax.ops.counts import check_count

Variant = Literal["paper", "seed", "modern"]
PositionKind = Literal["learned", "sinusoidal", "none"]
Init = Literal["ring", "legacy"]
Projection = Literal["linear", "eigenvectors"]
Coupling = Literal["blocks", "full", "none", "scaled"]
Activation = Literal["silu", "gelu"]
Stack = Literal["short", "long", "both"]


def _check_choice(name: str, value: Any, known: Any) -> None:
    if value not in get_args(known):
        raise ValueError(f"{name} {value!r} is not one of {get_args(known)}")


@dataclass(frozen=True)
class EigenstateLayer:
    """One pre-norm layer of the ``modern`` variant; by its fields it is every published family.

    Attributes:
      projection: "linear" projects into and out of the eigenstates by two matrices; "eigenvectors" by one
        complex matrix and its transpose, with a further output matrix.
      selective: decay and frequency depend on the token.
      coupling: real mixing of the eigenstates that are read out, not fed back: per head ("blocks"), over all
        ("full"), none, or identity plus a learned multiple of a matrix ("scaled").
      gate: the mixer's output is multiplied by a sigmoid of the normalised input.
      band_gates: outputs of a dead matrix that imported checkpoints carry; never computed.
      memory: every layer but the first also reads the coupled eigenstates of the layer below.
      short_conv: taps of a causal convolution with SiLU over what drives the eigenstates; 0 for none.
      attention_layers: layers with sliding attention after the mixer.
      attention_window: a token sees itself and this many before it.
      activation: of the feed-forward part; "gelu" is the exact one.
      normalize_input: the drive is multiplied by sqrt(1 - |lambda|^2), so that states keep its size.
      anticausal_chunk: chunk length of the published evolution that mixed up past and future inside a chunk;
        0 computes the recurrence. Such a model cannot be streamed.
    """

    projection: Projection = "linear"
    selective: bool = False
    coupling: Coupling = "blocks"
    gate: bool = True
    band_gates: int = 0
    memory: bool = False
    short_conv: int = 0
    attention_layers: tuple[int, ...] = ()
    attention_window: int = 128
    activation: Activation = "silu"
    normalize_input: bool = False
    anticausal_chunk: int = 0

    def __post_init__(self):
        """Refuse what no layer can be."""
        for name, known in (("projection", Projection), ("coupling", Coupling), ("activation", Activation)):
            _check_choice(name, getattr(self, name), known)
        for name in ("band_gates", "short_conv", "anticausal_chunk"):
            check_count(name, getattr(self, name), 0)
        check_count("attention_window", self.attention_window, 1)
        if (self.projection == "eigenvectors") != (self.coupling == "scaled"):
            raise ValueError("projection 'eigenvectors' goes with coupling 'scaled', and only with it")
        if self.projection == "eigenvectors" and (self.selective or self.short_conv or self.memory):
            raise ValueError("projection 'eigenvectors' has no selection, convolution or memory")
        if self.anticausal_chunk and (self.selective or self.projection == "eigenvectors"):
            raise ValueError("anticausal chunks go with constant eigenvalues and linear projections")


@dataclass(frozen=True)
class TemporalEigenstateConfig:
    """Sizes and kind of a network. The defaults are the published ones; `modern` suits new models.

    Attributes:
      vocab_size: token ids are below it.
      dim: width of the residual stream.
      n_layers: layers, or published blocks.
      num_eigenstates: complex states per layer (per cell in ``paper`` and ``seed``).
      num_cells: cells per block, averaged; ``paper`` and ``seed`` only.
      max_seq_len: rows of the position table; no limit where ``pos_emb_type`` is "none".
      dropout: probability in training.
      tie_weights: the vocabulary head is the token table.
      chunk_size: steps per chunk where ``truncate_at_chunks`` cuts gradients; never changes a value.
      use_gradient_checkpointing: recompute each layer in the backward pass.
      use_resonance: mix the states of a cell at every step; ``paper`` and ``seed`` only.
      ffn_multiplier: hidden width of the feed-forward part over ``dim``.
      pos_emb_type: absolute positions, counted from the start of each document.
      resonance_epsilon: size of the resonance beside the identity.
      eigenvalue_clip: largest magnitude of an eigenvalue in ``paper`` and ``seed``.
      energy_reg_weight: of the regularisation in the loss; ``paper`` and ``seed`` only.
      variant: "paper" feeds the resonance back and normalises after each part; "seed" is the same with the
        resonance applied once more on read-out and the tanh GELU, an accident that its checkpoints need;
        "modern" has the layers that ``layer`` describes.
      n_heads: blocks of the coupling and heads of the attention; ``modern`` only.
      layer: ``modern`` only.
      long_layer: a second, disjoint stack for long inputs (two published families have it).
      context_threshold: inputs longer than this go through the second stack.
      init: "ring" starts eigenvalues at magnitudes from 0.9 to 0.999, "legacy" as published, which forgets
        within a few tokens.
      truncate_at_chunks: stop gradients at chunk boundaries in training, as the published trainer did.
      diagonal_blocks: blocks of ``paper`` or ``seed`` that `diagonalise` gave their inference form.

    Example:
      >>> TemporalEigenstateConfig(dim=512, n_layers=4).num_eigenstates
      64
      >>> TemporalEigenstateConfig.modern(vocab_size=256, dim=64).pos_emb_type
      'none'

    Source: specs/ten.md sections 2 and 3.
    """

    vocab_size: int = 50257
    dim: int = 512
    n_layers: int = 6
    num_eigenstates: int = 64
    num_cells: int = 2
    max_seq_len: int = 2048
    dropout: float = 0.1
    tie_weights: bool = True
    chunk_size: int = 64
    use_gradient_checkpointing: bool = True
    use_resonance: bool = True
    ffn_multiplier: float = 4.0
    pos_emb_type: PositionKind = "learned"
    resonance_epsilon: float = 0.01
    eigenvalue_clip: float = 0.99
    energy_reg_weight: float = 0.0
    variant: Variant = "paper"
    n_heads: int = 4
    layer: EigenstateLayer = EigenstateLayer()
    long_layer: EigenstateLayer | None = None
    context_threshold: int = 1024
    init: Init = "ring"
    truncate_at_chunks: bool = False
    diagonal_blocks: tuple[int, ...] = ()

    def __post_init__(self):
        """Refuse what no network can be, by name."""
        for name, known in (("variant", Variant), ("pos_emb_type", PositionKind), ("init", Init)):
            _check_choice(name, getattr(self, name), known)
        for name in _COUNTS:
            check_count(name, getattr(self, name), 1)
        if not (math.isfinite(self.ffn_multiplier) and self.ffn_size >= 1):
            raise ValueError(f"ffn_multiplier must give at least one hidden unit, not {self.ffn_multiplier}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout}")
        if not 0 < self.eigenvalue_clip <= 1:
            raise ValueError(f"eigenvalue_clip must be above 0 and at most 1, not {self.eigenvalue_clip}")
        if not 0 <= self.resonance_epsilon < 1:
            raise ValueError(
                f"resonance_epsilon must be at least 0 and below 1, not {self.resonance_epsilon}"
            )
        if not (math.isfinite(self.energy_reg_weight) and self.energy_reg_weight >= 0):
            raise ValueError(f"energy_reg_weight must be at least 0, not {self.energy_reg_weight}")
        if self.long_layer is not None and self.variant != "modern":
            raise ValueError("long_layer, a second stack, belongs to the variant 'modern'")
        if self.variant == "modern":
            for layer in self.stacks:
                self._check_layer(layer)

    def _check_layer(self, layer: EigenstateLayer) -> None:
        if layer.coupling == "blocks" and self.num_eigenstates % self.n_heads:
            raise ValueError(
                f"num_eigenstates={self.num_eigenstates} does not divide among n_heads={self.n_heads}"
            )
        if layer.attention_layers and self.dim % self.n_heads:
            raise ValueError(f"dim={self.dim} does not divide among n_heads={self.n_heads}")
        if beyond := [number for number in layer.attention_layers if not 0 <= number < self.n_layers]:
            raise ValueError(f"attention_layers has {beyond[0]}; there are {self.n_layers} layers")

    @classmethod
    def modern(cls, **fields: Any) -> TemporalEigenstateConfig:
        """The recommended network for new models: no position limit, slow eigenvalues, normalised input.

        Args:
          fields: any of the attributes, over these defaults.
        """
        defaults: dict[str, Any] = {
            "variant": "modern",
            "pos_emb_type": "none",
            "dropout": 0.0,
            "layer": EigenstateLayer(memory=True, short_conv=4, normalize_input=True),
        }
        return cls(**{**defaults, **fields})

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> TemporalEigenstateConfig:
        """The config that `to_json` wrote."""
        stacks = {name: _layer_from_json(fields[name]) for name in ("layer", "long_layer")}
        return cls(**{**fields, **stacks, "diagonal_blocks": tuple(fields["diagonal_blocks"])})

    def to_json(self) -> dict[str, Any]:
        """Plain nested dict."""
        return dataclasses.asdict(self)

    @property
    def stacks(self) -> tuple[EigenstateLayer, ...]:
        """Layers of the short stack, and of the long one if there is one."""
        return (self.layer,) if self.long_layer is None else (self.layer, self.long_layer)

    @property
    def ffn_size(self) -> int:
        """Hidden units of the feed-forward part."""
        return int(self.dim * self.ffn_multiplier)

    @property
    def streams(self) -> bool:
        """Whether outputs depend on the past alone, through a state of constant size."""
        return self.variant != "modern" or not any(layer.anticausal_chunk for layer in self.stacks)

    @property
    def truncated_steps(self) -> int | None:
        """Steps between the points where training stops gradients; None for nowhere."""
        return self.chunk_size if self.truncate_at_chunks else None

    @property
    def num_parameters(self) -> int:
        """Trained values; a tied head counts once, a sinusoidal table not at all."""
        table = self.max_seq_len * self.dim if self.pos_emb_type == "learned" else 0
        embeddings = self.vocab_size * self.dim * (1 if self.tie_weights else 2) + table
        if self.variant != "modern":
            blocks = sum(map(self._block_parameters, range(self.n_layers)))
            return embeddings + blocks + 2 * self.dim
        layers = sum(
            self._layer_parameters(layer, number) for layer in self.stacks for number in range(self.n_layers)
        )
        return embeddings + layers + 2 * self.dim

    def _block_parameters(self, number: int) -> int:
        k = self.num_eigenstates
        if number in self.diagonal_blocks:
            return self.num_cells * (2 * k + 4 * k * self.dim) + self._ffn_and_norms()
        resonance = k * k if self.use_resonance else 0
        return self.num_cells * (2 * k + resonance + 2 * k * self.dim) + self._ffn_and_norms()

    def _ffn_and_norms(self) -> int:
        return 2 * self.dim * self.ffn_size + self.ffn_size + self.dim + 4 * self.dim

    def _layer_parameters(self, layer: EigenstateLayer, number: int) -> int:
        d, k = self.dim, self.num_eigenstates
        couplings = {"blocks": k * k // self.n_heads, "full": k * k, "none": 0, "scaled": k * k + 1}
        total = 2 * k + couplings[layer.coupling] + self._ffn_and_norms()
        total += 4 * d * k if layer.projection == "linear" else 2 * d * k + d * d + d
        total += (d + 1) * (2 * k * layer.selective + d * layer.gate + layer.band_gates)
        total += 2 * k * (layer.short_conv + 1) if layer.short_conv else 0
        total += 4 * k * k + 1 if layer.memory and number else 0
        total += 4 * d * (d + 1) + 2 * d if number in layer.attention_layers else 0
        return total


_COUNTS = (
    "vocab_size",
    "dim",
    "n_layers",
    "num_eigenstates",
    "num_cells",
    "max_seq_len",
    "chunk_size",
    "n_heads",
    "context_threshold",
)


def _layer_from_json(fields: Mapping[str, Any] | None) -> EigenstateLayer | None:
    if fields is None:
        return None
    return EigenstateLayer(**{**fields, "attention_layers": tuple(fields["attention_layers"])})
