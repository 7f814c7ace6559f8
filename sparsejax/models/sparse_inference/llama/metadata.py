"""From the metadata of a GGUF file to the config of a network, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast, get_args

import numpy as np

from sparsejax.checkpoint.errors import (
    CorruptFileError,
    MissingKeyError,
    ShapeError,
    UnknownFormatError,
    shown,
)
from sparsejax.checkpoint.gguf import StringArray
from sparsejax.models.sparse_inference.llama.config import BIASES, Architecture, LlamaConfig
from sparsejax.models.sparse_inference.llama.names import check_tensors
from sparsejax.models.sparse_inference.llama.rope import RopeConfig, RopeScaling
from sparsejax.ops.sparse_ffn import check_activation

_KEPT = ("f16", "bf16")
"""Formats of plain arrays that are no float32."""


def llama_config(metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> LlamaConfig:
    """The config of a network in a GGUF file.

    Args:
      metadata: of the file.
      tensors: by name; of each only ``shape``, in NumPy order, and ``format`` are read.

    Returns:
      a config whose `llama.names.tensor_places` are exactly the tensors of the file.

    Raises:
      UnknownFormatError: an architecture, a kind of RoPE or an activation that this network does not have.
      MissingKeyError: metadata or tensors are missing; names them.
      UnexpectedKeyError: tensors that the network has no use for.
      ShapeError: shapes and metadata contradict each other.
      CorruptFileError: metadata that no network can have.

    Source: specs/sparse_inference.md sections 6 and 13.
    """
    architecture = _architecture(metadata)
    read = _Reader(metadata, architecture)
    if read.integer("expert_count", 0):
        raise UnknownFormatError(
            f"the file holds a mixture of {read.integer('expert_count')} experts; only networks with one "
            "FFN per block are supported"
        )
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise MissingKeyError("the file lacks 'token_embd.weight'; it holds no whole network")
    heads = read.integer("attention.head_count")
    width = read.integer("embedding_length")
    if heads < 1 or width < 1:
        raise CorruptFileError(f"the metadata give {heads} heads of a network of width {width}")
    head_dim = read.integer("attention.key_length", width // heads)
    if (value_dim := read.integer("attention.value_length", head_dim)) != head_dim:
        raise UnknownFormatError(
            f"keys of {head_dim} channels and values of {value_dim}: only equal ones work"
        )
    layers = read.integer("block_count")
    if layers > len(tensors):  # before names are made for so many blocks
        raise CorruptFileError(
            f"{architecture}.block_count is {layers}; the {len(tensors)} tensors of the file cannot be so "
            "many blocks"
        )
    activation = read.text("hidden_activation", "silu")
    try:
        check_activation(activation, gated=True)
    except ValueError as error:
        raise UnknownFormatError(f"{architecture}.hidden_activation: {error}") from error
    try:
        config = LlamaConfig(
            vocab_size=int(embedding.shape[0]),
            d_model=width,
            d_ff=read.integer("feed_forward_length"),
            n_layers=layers,
            n_heads=heads,
            n_kv_heads=read.integer("attention.head_count_kv", heads),
            head_dim=head_dim,
            rope=_rope(read, architecture, head_dim),
            context_length=read.integer("context_length", 2048),
            norm_eps=read.number("attention.layer_norm_rms_epsilon"),
            activation=activation,
            sliding_window=read.integer("attention.sliding_window", 0) or None,
            architecture=architecture,
            biases=tuple(name for name in BIASES if f"blk.0.{name}.bias" in tensors),
            rope_factors="rope_freqs.weight" in tensors,
            tied_output="output.weight" not in tensors,
            formats=tuple((name, tensor.format) for name, tensor in tensors.items() if _is_kept(tensor)),
        )
    except ValueError as error:
        raise CorruptFileError(f"the metadata give no network: {error}") from error
    check_tensors(config, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    if not isinstance(tokens, StringArray | list | tuple):
        raise CorruptFileError(f"tokenizer.ggml.tokens is {_told(tokens)}; a list of strings is needed")
    if len(tokens) > config.vocab_size:
        raise ShapeError(
            f"the tokenizer has {len(tokens)} tokens, 'token_embd.weight' has {config.vocab_size} rows"
        )
    return config


def llama_metadata(config: LlamaConfig) -> dict[str, Any]:
    """The metadata that a GGUF file of this network needs; `llama_config` reads them back.

    Args:
      config: of the network.

    Returns:
      by key; the tokenizer's are not among them.

    Example:
      >>> config = LlamaConfig(vocab_size=9, d_model=4, d_ff=8, n_layers=1, n_heads=2, activation="relu")
      >>> llama_metadata(config)["llama.hidden_activation"]
      'relu'
    """
    arch, rope = config.architecture, config.rotary
    found: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "embedding_length": config.d_model,
        "block_count": config.n_layers,
        "feed_forward_length": config.d_ff,
        "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.dimension_count": rope.dimension,
        "rope.freq_base": rope.base,
    }
    if config.sliding_window is not None:
        found["attention.sliding_window"] = config.sliding_window
    if config.activation != "silu":
        found["hidden_activation"] = config.activation
    if rope.scaling != "none":
        found |= {"rope.scaling.type": rope.scaling, "rope.scaling.factor": rope.factor}
    if rope.scaling == "yarn":
        found |= {
            "rope.scaling.original_context_length": rope.original_context,
            "rope.scaling.attn_factor": rope.attention_factor,
            "rope.scaling.yarn_beta_fast": rope.beta_fast,
            "rope.scaling.yarn_beta_slow": rope.beta_slow,
        }
    if rope.interleaved != (arch != "qwen2"):
        raise ValueError(f"files of the architecture {arch!r} cannot say interleaved={rope.interleaved}")
    return {"general.architecture": arch} | {f"{arch}.{name}": value for name, value in found.items()}


class _Reader:
    """Typed access to the metadata of one architecture."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str):
        self._metadata = metadata
        self._prefix = architecture

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._value(name, default)
        if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
            distinct = {self._finite(name, entry, "a whole number") for entry in value}
            if len(distinct) > 1:
                raise UnknownFormatError(
                    f"{self._prefix}.{name} differs between blocks; only equal blocks are supported"
                )
            value = distinct.pop() if distinct else value
        number = self._finite(name, value, "a whole number")
        if int(number) != number:
            raise CorruptFileError(f"{self._prefix}.{name} is {number!r}; a whole number is needed")
        return int(number)

    def number(self, name: str, default: float | None = None) -> float:
        return float(self._finite(name, self._value(name, default), "a number"))

    def text(self, name: str, default: str) -> str:
        value = self._value(name, default)
        if not isinstance(value, str):
            raise CorruptFileError(f"{self._prefix}.{name} is {_told(value)}; a string is needed")
        return value

    def has(self, name: str) -> bool:
        return f"{self._prefix}.{name}" in self._metadata

    def _finite(self, name: str, value: Any, needed: str) -> int | float:
        number = value.item() if getattr(value, "ndim", None) == 0 else value
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise CorruptFileError(f"{self._prefix}.{name} is {_told(number)}; {needed} is needed")
        return number

    def _value(self, name: str, default: Any) -> Any:
        value = self._metadata.get(f"{self._prefix}.{name}", default)
        if value is None:
            raise MissingKeyError(
                f"the metadata lack {self._prefix + '.' + name!r}; the file is no whole model"
            )
        return value


def _told(value: Any) -> str:
    """A value for an error's line, whatever it is and however long."""
    if isinstance(value, StringArray | list | tuple | np.ndarray):
        return f"a list of {len(value)}"
    return shown([value])


def _architecture(metadata: Mapping[str, Any]) -> Architecture:
    name = metadata.get("general.architecture")
    if name is None:
        raise MissingKeyError("the metadata lack 'general.architecture'; the file does not say what it holds")
    if not isinstance(name, str) or name not in get_args(Architecture):
        raise UnknownFormatError(
            f"the architecture {_told(name)} is not supported; those that are: "
            f"{shown(get_args(Architecture))}"
        )
    return cast(Architecture, name)


def _rope(read: _Reader, architecture: Architecture, head_dim: int) -> RopeConfig:
    scaling = read.text("rope.scaling.type", "linear" if read.has("rope.scale_linear") else "none")
    if scaling not in get_args(RopeScaling):
        raise UnknownFormatError(
            f"the RoPE scaling {scaling!r} is not supported; those that are: {shown(get_args(RopeScaling))}"
        )
    factor = read.number("rope.scaling.factor", read.number("rope.scale_linear", 1.0))
    more: dict[str, Any] = {}
    if scaling == "yarn":
        more = {
            "original_context": read.integer(
                "rope.scaling.original_context_length", read.integer("context_length", 2048)
            ),
            "attention_factor": read.number(
                "rope.scaling.attn_factor", read.number("rope.scaling.yarn_attn_factor", 1.0)
            ),
            "beta_fast": read.number("rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": read.number("rope.scaling.yarn_beta_slow", 1.0),
        }
    return RopeConfig(
        dimension=read.integer("rope.dimension_count", head_dim),
        base=read.number("rope.freq_base", 10000.0),
        interleaved=architecture != "qwen2",
        scaling=cast(RopeScaling, scaling),
        factor=factor or 1.0,  # 0 is what some writers put for none
        **more,
    )


def _is_kept(tensor: Any) -> bool:
    return tensor.format != "f32" and (len(tensor.shape) > 1 or tensor.format in _KEPT)
