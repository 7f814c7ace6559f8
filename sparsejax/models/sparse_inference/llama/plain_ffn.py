"""A quantised network whose FFNs are plain numbers, so that single neurons can be taken."""

from __future__ import annotations

import dataclasses

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.names import at_path, nested, tensor_places
from sparsejax.ops.quantized import QuantizedTensor


def with_plain_ffn(ck: Checkpoint) -> Checkpoint:
    """The same network with the matrices of its FFNs as plain numbers.

    Chosen neurons of quantised matrices are read in whole blocks; of plain ones, neuron by neuron.

    Args:
      ck: of a Llama.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sparsejax.models.sparse_inference.llama.model import LlamaLM
      >>> from sparsejax.models.sparse_inference.llama.weights import quantize_llama
      >>> config = LlamaConfig(vocab_size=9, d_model=32, d_ff=32, n_layers=1, n_heads=2, tied_output=True)
      >>> params = LlamaLM(config).init(jax.random.key(0), jnp.zeros((1, 1), int))["params"]
      >>> ck = Checkpoint("sparse_inference", "gguf_llama", *quantize_llama(config, params, "q8_0"))
      >>> type(with_plain_ffn(ck).params["blk_0"]["attn_q"]["weight"]).__name__
      'QuantizedTensor'
      >>> with_plain_ffn(ck).params["blk_0"]["ffn_up"]["weight"].dtype
      dtype('float32')
    """
    leaves, formats = {}, dict(ck.config.formats)
    for place in tensor_places(ck.config):
        leaf = at_path(ck.params, place.path)
        if ".ffn_" in place.name and isinstance(leaf, QuantizedTensor):
            plain = leaf.dequantize()
            leaf = plain.T if place.transposed else plain
            del formats[place.name]
        leaves[place.path] = leaf
    config = dataclasses.replace(ck.config, formats=tuple(formats.items()))
    return ck.replace(config=config, params=nested(leaves))


def plain_ffn_bytes(config: LlamaConfig) -> int:
    """Bytes of all matrices of FFNs in float32.

    Example:
      >>> plain_ffn_bytes(LlamaConfig(vocab_size=9, d_model=4, d_ff=8, n_layers=2, n_heads=2))
      768
    """
    return 4 * 3 * config.n_layers * config.d_ff * config.d_model
