"""The files of the family: keys by variant, and which tensor becomes which parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sparsejax.checkpoint.rules import Rule
from sparsejax.checkpoint.transforms import Transform, identity, transpose
from sparsejax.models.sparse_inference.part_configs import WeightsConfig
from sparsejax.ops.quantized import QuantizedTensor

GGUF = "gguf_llama"
"""A network of the architectures llama, mistral or qwen2 in a GGUF file."""

LAYOUTS: Mapping[str, Sequence[str]] = {
    GGUF: (
        "token_embd.weight",
        "output_norm.weight",
        "blk.{i}.attn_norm.weight",
        "blk.{i}.attn_q.weight",
        "blk.{i}.attn_k.weight",
        "blk.{i}.attn_v.weight",
        "blk.{i}.attn_output.weight",
        "blk.{i}.ffn_norm.weight",
        "blk.{i}.ffn_gate.weight",
        "blk.{i}.ffn_up.weight",
        "blk.{i}.ffn_down.weight",
    ),
    "ffn_v1": ("w1", "w2", "b1", "b2"),
    "ffn_v2": ("w1", "w2_t", "b1", "b2"),
    "predictor": ("p_matrix", "q_matrix"),
    "quantized_weights": ("data", "scales", "zero_points", "shape"),
    "powerinfer": ("fc1.weight", "fc2.weight"),
}
"""Keys by variant that every file of it has (specs/sparse_inference.md sections 2, 3, 5, 6 and 11)."""

FILE_FORMATS = {name: "json" for name in LAYOUTS} | {GGUF: "gguf", "powerinfer": "zip"}
"""What a file of each variant is."""

PUBLISHED_ACTIVATIONS = {
    "Relu": "relu",
    "Gelu": "gelu_tanh",
    "Silu": "silu",
    "Swish": "silu",
    "Identity": "identity",
}
"""Names in the published files, and ours."""


def rules(variant: str, config: Any) -> tuple[Rule, ...]:
    """The conversion table of a variant."""
    if variant == "quantized_weights":
        return _weights_rules(config)
    return _RULES[variant]


def _of_blocks(name: str, forward: Callable[[Any], Any], backward: Callable[[Any], Any]) -> Transform:
    return Transform(
        name,
        lambda arrays: tuple(forward(array) for array in arrays),
        lambda arrays: tuple(backward(array) for array in arrays),
    )


def _turned(array: Any) -> Any:
    return array if isinstance(array, QuantizedTensor) else array.swapaxes(-1, -2)


def _plain(array: Any) -> Any:
    return np.asarray(array.dequantize()) if isinstance(array, QuantizedTensor) else array


_neuron_major = _of_blocks("plain arrays neuron-major", _turned, _turned)
"""A down matrix whose numbers are plain is turned so that a neuron's lie side by side; blocks cannot be."""

_vector = _of_blocks("plain vector", _plain, lambda array: array)
"""Norms and biases are never kept in blocks."""


def _gguf_rules() -> tuple[Rule, ...]:
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    table = [
        Rule("token_embd.weight", "token_embd/weight"),
        Rule("output_norm.weight", "output_norm/weight", _vector),
        Rule("output.weight", "output/weight", optional=True),
        Rule("rope_freqs.weight", "rope_freqs/weight", _vector, optional=True),
        Rule("blk.{i}.attn_norm.weight", "blk_{i}/attn_norm/weight", _vector),
        Rule("blk.{i}.ffn_norm.weight", "blk_{i}/ffn_norm/weight", _vector),
    ]
    for part in parts:
        turn = _neuron_major if part == "ffn_down" else identity
        table.append(Rule(f"blk.{{i}}.{part}.weight", f"blk_{{i}}/{part}/weight", turn))
        table.append(Rule(f"blk.{{i}}.{part}.bias", f"blk_{{i}}/{part}/bias", _vector, optional=True))
    return tuple(table)


def _ffn_rules(output: str) -> tuple[Rule, ...]:
    return (
        Rule("w1", "w_in"),
        Rule(output, "w_out", transpose),
        Rule("b1", "b_in"),
        Rule("b2", "b_out"),
    )


_RULES = {
    GGUF: _gguf_rules(),
    "ffn_v1": _ffn_rules("w2"),
    "ffn_v2": _ffn_rules("w2_t"),  # whose value is w2 all the same
    "predictor": (
        Rule("p_matrix", "p"),
        Rule("q_matrix", "q"),
        Rule("bias", "bias", optional=True),
    ),
    "powerinfer": (Rule("fc1.weight", "fc1"), Rule("fc2.weight", "fc2")),
}


def _weights_rules(config: WeightsConfig) -> tuple[Rule, ...]:
    def shape(state: Mapping[str, np.ndarray]) -> np.ndarray:
        del state
        return np.array(config.shape, np.int64)

    names = ("data", "scales", "zero_points")
    return (*(Rule(name, name) for name in names), Rule("shape", derive=shape))
