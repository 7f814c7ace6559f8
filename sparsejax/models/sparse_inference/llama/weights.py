"""What the tensors of a GGUF file say of parameters, and tensors from parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.names import TensorPlace, at_path, nested, tensor_places
from sparsejax.ops.quantized import QuantizedTensor

PLAIN_FORMATS = {"f32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16}
"""Formats of plain arrays."""


def llama_shapes(config: LlamaConfig) -> dict[str, Any]:
    """Shapes and dtypes of a network's parameters, which tracing its initialisation would tell slowly.

    Args:
      config: of the network.

    Example:
      >>> config = LlamaConfig(vocab_size=9, d_model=4, d_ff=8, n_layers=1, n_heads=2, tied_output=True)
      >>> llama_shapes(config)["blk_0"]["ffn_down"]["weight"].shape
      (8, 4)
    """
    return nested({place.path: _described(config, place) for place in tensor_places(config)})


def llama_tensors(config: LlamaConfig, params: Mapping[str, Any]) -> dict[str, np.ndarray | QuantizedTensor]:
    """What a GGUF file of the network holds, by name.

    Args:
      config: of the network.
      params: its parameters.

    Example:
      >>> from sparsejax.models.sparse_inference.llama.model import LlamaLM
      >>> config = LlamaConfig(vocab_size=9, d_model=4, d_ff=8, n_layers=1, n_heads=2, tied_output=True)
      >>> params = jax.jit(LlamaLM(config).init)(jax.random.key(0), jnp.zeros((1, 1), int))["params"]
      >>> llama_tensors(config, params)["blk.0.ffn_down.weight"].shape
      (4, 8)
    """
    found = {}
    for place in tensor_places(config):
        leaf = at_path(params, place.path)
        if not isinstance(leaf, QuantizedTensor):
            leaf = np.ascontiguousarray(np.asarray(leaf).T if place.transposed else np.asarray(leaf))
        found[place.name] = leaf
    return found


def quantize_llama(
    config: LlamaConfig, params: Mapping[str, Any], kind: str, *, embedding: bool = True
) -> tuple[LlamaConfig, dict[str, Any]]:
    """The same network with its matrices quantised.

    Args:
      config: of the network.
      params: its parameters, plain arrays.
      kind: a format, such as "q8_0"; every row must be whole blocks of it.
      embedding: quantise the token embedding and the output matrix too.

    Returns:
      config and parameters.

    Raises:
      ValueError: rows that are not whole blocks, or a format that cannot be encoded.

    Example:
      >>> from sparsejax.models.sparse_inference.llama.model import LlamaLM
      >>> config = LlamaConfig(vocab_size=9, d_model=32, d_ff=32, n_layers=1, n_heads=2, tied_output=True)
      >>> params = jax.jit(LlamaLM(config).init)(jax.random.key(0), jnp.zeros((1, 1), int))["params"]
      >>> config, params = quantize_llama(config, params, "q8_0")
      >>> params["blk_0"]["ffn_down"]["weight"].format
      'q8_0'
    """
    outer = ("token_embd.weight", "output.weight")
    leaves, formats = {}, []
    for place in tensor_places(config):
        leaf = at_path(params, place.path)
        if len(place.shape) == 2 and (embedding or place.name not in outer):
            array = np.asarray(leaf, np.float32)
            try:
                leaf = QuantizedTensor.quantize(
                    array.T if place.transposed else array, kind, order=place.order
                )
            except ValueError as error:
                raise ValueError(f"{place.name}: {error}") from error
            formats.append((place.name, kind))
        leaves[place.path] = leaf
    return LlamaConfig.from_json({**config.to_json(), "formats": formats}), nested(leaves)


def _described(config: LlamaConfig, place: TensorPlace) -> jax.ShapeDtypeStruct | QuantizedTensor:
    kept = config.format_of(place.name) if len(place.shape) == 2 else None
    if kept is not None and kept not in PLAIN_FORMATS:
        return QuantizedTensor.described(kept, place.shape, order=place.order)
    shape = place.shape[::-1] if place.transposed else place.shape
    return jax.ShapeDtypeStruct(shape, PLAIN_FORMATS[kept or "f32"])
