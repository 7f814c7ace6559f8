"""A causal Transformer in PyTorch: pre-norm, fused attention, learned positions, GELU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sparsejax.bench.peers.torch_ten_weights import Forward, Tree, embedded, head, layer_norm, linear

_SCALE = 0.02


def random_params(
    seed: int, *, vocab_size: int, dim: int, n_layers: int, length: int, multiplier: int = 4
) -> dict[str, Any]:
    """Weights N(0, 0.02), norms one, biases zero: a nested dict of NumPy arrays with a tied head.

    Args:
      seed: of the draws.
      vocab_size: rows of the token table.
      dim: width.
      n_layers: blocks.
      length: rows of the position table.
      multiplier: hidden width of the feed-forward part over ``dim``.
    """
    draws = np.random.default_rng(seed)

    def table(rows: int, columns: int) -> np.ndarray:
        return _SCALE * draws.standard_normal((rows, columns), np.float32)

    def dense(inputs: int, outputs: int) -> dict[str, np.ndarray]:
        return {"kernel": table(inputs, outputs), "bias": np.zeros(outputs, np.float32)}

    def norm() -> dict[str, np.ndarray]:
        return {"scale": np.ones(dim, np.float32), "bias": np.zeros(dim, np.float32)}

    def block() -> dict[str, Any]:
        return {
            "norm1": norm(),
            "attention_in": dense(dim, 3 * dim),
            "attention_out": dense(dim, dim),
            "norm2": norm(),
            "ffn_in": dense(dim, multiplier * dim),
            "ffn_out": dense(multiplier * dim, dim),
        }

    return {
        "token_embedding": {"embedding": table(vocab_size, dim)},
        "position_embedding": {"embedding": table(length, dim)},
        **{f"layer_{number}": block() for number in range(n_layers)},
        "final_norm": norm(),
    }


def network(weights: Tree, *, heads: int = 8) -> Forward:
    """Logits of a Transformer over the weights of `random_params` as tensors."""

    def forward(tokens: Any) -> Any:
        x = embedded(tokens, weights)
        for layer in _layers(weights):
            x = _block(x, layer, heads)
        return head(x, weights)

    return forward


def random_cache(weights: Tree, *, heads: int, prefix: int, batch: int = 1, seed: int = 0) -> list[Any]:
    """Keys and values of a prefix, random, which costs the same, with one row more for the next token.

    Returns:
      (2, b, heads, prefix + 1, dim / heads) of every layer.
    """
    import torch

    dim = weights["token_embedding"]["embedding"].shape[1]
    draws = torch.Generator().manual_seed(seed)
    shape = 2, batch, heads, prefix + 1, dim // heads
    return [torch.randn(shape, generator=draws) for _ in _layers(weights)]


def cached_step(weights: Tree, kept: list[Any]) -> Forward:
    """One token after a prefix: ids (b, 1) to logits (b, 1, v).

    Args:
      weights: of `random_params` as tensors; the position table has a row for the new token.
      kept: keys and values as `random_cache` shapes them; the step writes the last row.
    """
    heads, prefix = kept[0].shape[2], kept[0].shape[3] - 1

    def step(tokens: Any) -> Any:
        table, positions = (weights[name]["embedding"] for name in ("token_embedding", "position_embedding"))
        x = table[tokens] + positions[prefix]
        for layer, buffer in zip(_layers(weights), kept, strict=True):
            x = _block(x, layer, heads, buffer)
        return head(x, weights)

    return step


def _layers(weights: Tree) -> list[Tree]:
    return [weights[f"layer_{number}"] for number in range(sum("layer_" in name for name in weights))]


def _block(x: Any, weights: Mapping[str, Any], heads: int, kept: Any = None) -> Any:
    from torch.nn.functional import gelu, scaled_dot_product_attention

    batch, length, dim = x.shape
    joined = linear(layer_norm(x, weights["norm1"]), weights["attention_in"])
    query, key, value = joined.view(batch, length, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    if kept is None:
        mixed = scaled_dot_product_attention(query, key, value, is_causal=True)
    else:
        kept[0, :, :, -1:], kept[1, :, :, -1:] = key, value
        mixed = scaled_dot_product_attention(query, kept[0], kept[1])
    x = x + linear(mixed.transpose(1, 2).reshape(batch, length, dim), weights["attention_out"])
    hidden = gelu(linear(layer_norm(x, weights["norm2"]), weights["ffn_in"]))
    return x + linear(hidden, weights["ffn_out"])
