"""A Llama-architecture decoder in NumPy float64, head by head: what the network is held to."""

from __future__ import annotations

import numpy as np


def random_tensors(config, seed=0, scale=0.3):
    """Tensors of a network by GGUF name, in the orientation of files, of a size at which all parts matter."""
    from sparsejax.models.sparse_inference.llama.names import tensor_places

    rng = np.random.default_rng(seed)
    tensors = {}
    for place in tensor_places(config):
        values = rng.normal(size=place.shape) * scale
        if "norm" in place.name:
            values = 1 + values
        if place.name == "rope_freqs.weight":
            values = 1 + np.abs(values) * 4
        tensors[place.name] = values.astype(np.float32)
    return tensors


def rope_frequencies(config, factors=None):
    """As published: YaRN by its own formulas, linear scaling by division."""
    rope = config.rope
    plain = np.array([rope.base ** (-2 * i / rope.dimension) for i in range(rope.dimension // 2)])
    if rope.scaling == "linear":
        plain = plain / rope.factor
    if rope.scaling == "yarn":

        def dimension_of(turns):
            return (rope.dimension * np.log(rope.original_context / (turns * 2 * np.pi))) / (
                2 * np.log(rope.base)
            )

        low = max(np.floor(dimension_of(rope.beta_fast)), 0)
        high = min(np.ceil(dimension_of(rope.beta_slow)), rope.dimension - 1)
        for i in range(len(plain)):
            ramp = min(1, max(0, (i - low) / max(high - low, 0.001)))
            plain[i] = plain[i] / rope.factor * ramp + plain[i] * (1 - ramp)
    return plain if factors is None else plain / factors


def turned(vector, position, config, factors):
    """One head at one position."""
    rope, out = config.rope, vector.copy()
    size = 1 if rope.scaling != "yarn" else rope.attention_factor * (1 + 0.1 * np.log(rope.factor))
    for pair, frequency in enumerate(rope_frequencies(config, factors)):
        places = (2 * pair, 2 * pair + 1) if rope.interleaved else (pair, pair + rope.dimension // 2)
        a, b = vector[places[0]], vector[places[1]]
        c, s = np.cos(position * frequency) * size, np.sin(position * frequency) * size
        out[places[0]], out[places[1]] = a * c - b * s, a * s + b * c
    return out


def logits(config, tensors, tokens, neurons=None):
    """(t, v) float64 of one sequence; ``neurons(layer, inputs, hidden) -> mask`` may drop some."""
    get = {name: array.astype(np.float64) for name, array in tensors.items()}
    factors = get.get("rope_freqs.weight")

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_eps) * get[name]

    def product(x, name):
        return x @ get[f"{name}.weight"].T + get.get(f"{name}.bias", 0)

    hidden = get["token_embd.weight"][tokens]
    for layer in range(config.n_layers):
        block = f"blk.{layer}."
        x = norm(hidden, f"{block}attn_norm.weight")
        q, k, v = (
            product(x, f"{block}attn_{part}").reshape(len(tokens), -1, config.head_dim) for part in "qkv"
        )
        q, k = (
            np.array([[turned(head, t, config, factors) for head in row] for t, row in enumerate(part)])
            for part in (q, k)
        )
        read = np.zeros((len(tokens), config.n_heads, config.head_dim))
        for t in range(len(tokens)):
            first = 0 if config.sliding_window is None else max(0, t + 1 - config.sliding_window)
            for head in range(config.n_heads):
                own = head // (config.n_heads // config.n_kv_heads)
                scores = k[first : t + 1, own] @ q[t, head] / np.sqrt(config.head_dim)
                weights = np.exp(scores - scores.max())
                read[t, head] = weights / weights.sum() @ v[first : t + 1, own]
        hidden = hidden + product(read.reshape(len(tokens), -1), f"{block}attn_output")
        x = norm(hidden, f"{block}ffn_norm.weight")
        gate, up = product(x, f"{block}ffn_gate"), product(x, f"{block}ffn_up")
        active = gate / (1 + np.exp(-gate)) if config.activation == "silu" else np.maximum(gate, 0)
        values = active * up
        if neurons is not None:
            values = values * neurons(layer, x, values)
        hidden = hidden + product(values, f"{block}ffn_down")
    hidden = norm(hidden, "output_norm.weight")
    return hidden @ get.get("output.weight", get["token_embd.weight"]).T


class FileTensor:
    """An array in the place of a GGUF file's tensor."""

    def __init__(self, array, kind="f32"):
        self.array, self.format, self.shape = array, kind, array.shape

    def dequantize(self):
        return self.array


def file_tensors(tensors):
    return {name: FileTensor(array) for name, array in tensors.items()}
