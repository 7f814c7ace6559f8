"""What the FFNs of a network read, for the calibration of their predictors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import jax
import numpy as np

from sparsejax.models.sparse_inference.llama.ffn import GatedWeights
from sparsejax.models.sparse_inference.llama.model import LlamaLM
from sparsejax.models.sparse_inference.llama.source import model_and_params
from sparsejax.models.sparse_inference.llama.text_rows import batches, token_rows
from sparsejax.ops.quantized import QuantizedTensor
from sparsejax.ops.sparse_ffn import FFNWeights
from sparsejax.typing import Params


def collect_ffn_inputs(
    source: Any, tokens: Any, *, context: int | None = None
) -> Iterator[tuple[np.ndarray, ...]]:
    """The inputs of every FFN, batch by batch; only one batch is in memory.

    Args:
      source: a checkpoint as `sparsejax.load` gives it, or ``(model, params)``.
      tokens: one text or sequence of ids, or several; those longer than ``context`` are cut.
      context: tokens of a row at most; None is what the network was trained for.

    Yields:
      one (n, d) float32 per block for the n tokens of a batch, padding left out.

    Raises:
      ValueError: tokens that cannot be right.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sparsejax.models.sparse_inference.llama.config import LlamaConfig
      >>> model = LlamaLM(LlamaConfig(vocab_size=9, d_model=8, d_ff=8, n_layers=2, n_heads=2))
      >>> params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
      >>> batches = collect_ffn_inputs((model, params), [[1, 2, 3], [4]])
      >>> [[layer.shape for layer in batch] for batch in batches]
      [[(4, 8), (4, 8)]]
    """
    model, params = model_and_params(source)
    config = model.config
    length = config.context_length if context is None else context
    rows = token_rows(source, tokens, vocab_size=config.vocab_size, context=length)
    for batch, counts in batches(rows, vocab_size=config.vocab_size):
        there = np.arange(batch.shape[1]) < counts[:, None]
        yield tuple(np.asarray(layer, np.float32)[there] for layer in _ffn_inputs(model, params, batch))


def ffn_weights(params: Params, layer: int) -> FFNWeights:
    """The FFN of a block as plain weights, neuron by neuron, for calibration.

    Args:
      params: of a `LlamaLM`.
      layer: number of the block.

    Returns:
      ``w_in`` is the matrix "up"; quantised matrices are dequantised to float32, others stay as they are.

    Raises:
      ValueError: there is no such block.
    """
    block = params.get(f"blk_{layer}")
    if block is None:
        raise ValueError(f"the network has no block {layer}")
    parts = [block[name] for name in ("ffn_gate", "ffn_up", "ffn_down")]
    gate, up, down = (_plain(part["weight"], turned=part is parts[2]) for part in parts)
    biases = (part.get("bias") for part in parts)
    return GatedWeights(gate, up, down, *biases).plain()


@partial(jax.jit, static_argnums=0)
def _ffn_inputs(model: LlamaLM, params: Params, tokens: jax.Array) -> list[jax.Array]:
    options: dict[str, Any] = {"method": "hidden", "capacity": 0, "mutable": ["intermediates"]}
    _, sown = cast(tuple[Any, Any], model.apply({"params": params}, tokens, **options))
    blocks = sown["intermediates"]
    return [blocks[f"blk_{number}"]["ffn_inputs"][0] for number in range(model.config.n_layers)]


def _plain(weight: jax.Array | QuantizedTensor, *, turned: bool) -> jax.Array:
    """Neuron by neuron: quantised output matrices are the other way round."""
    if not isinstance(weight, QuantizedTensor):
        return weight
    array = weight.dequantize()
    return array.T if turned else array
