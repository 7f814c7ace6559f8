"""Networks out of the tensors of files, and tensors as the makers of GGUF files write them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.llama.names import nested, tensor_places
from sparsejax.models.sparse_inference.llama.rope import RopeConfig, frequencies
from sparsejax.models.sparse_inference.llama.weights import PLAIN_FORMATS


def llama_params(config, tensors, *, dtype=None):
    """Parameters straight from the tensors, past the importer; those of ``config.formats`` stay quantised."""
    return nested(
        {place.path: _leaf(config, place, tensors[place.name], dtype) for place in tensor_places(config)}
    )


def _leaf(config, place, tensor, dtype):
    kept = config.format_of(place.name)
    if kept is not None and kept not in PLAIN_FORMATS:
        return tensor.quantized(place.order)
    array = np.asarray(tensor.dequantize())
    array = np.ascontiguousarray(array.T) if place.transposed else array
    return jnp.asarray(array, PLAIN_FORMATS[kept or "f32"] if dtype is None else dtype)


def llama3_factors(dimension, base, *, factor, original_context, low_freq_factor=1.0, high_freq_factor=4.0):
    """Divisors of the frequencies of Llama 3.1 and later, as its published reference scales them."""
    plain = frequencies(RopeConfig(dimension=dimension, base=base))
    turns = original_context * plain / (2 * np.pi)
    blend = np.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    return (1 / ((1 - blend) / factor + blend)).astype(np.float32)


def interleave_heads(weight, heads):
    """Rows of a half-split q or k matrix, or of its bias, in the order that interleaved pairs have."""
    split = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(weight.shape)
