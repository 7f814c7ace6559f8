"""What every FFN of a network reads, selects and gives, and sums of that over batches of any number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sprout.config import Path
from sparsejax.models.sprout.ffn import SproutFFN
from sparsejax.models.sprout.inputs import check_inputs
from sparsejax.models.sprout.oracle import activations
from sparsejax.models.sprout.selection import select
from sparsejax.typing import Params

Neurons = int | Sequence[int | None] | None
"""``top_k`` of an analysis: None is the network's own ``sparse_k``, else all neurons."""

Reduce = Callable[[Any, "Observation"], Any]
"""From a network and an observation to a tree of sums; a function of a module, which compiles once."""


class Observation(NamedTuple):
    """Every layer on n tokens.

    Attributes:
      inputs: (l, n, d) that the FFNs read.
      scores: (l, n, f) of neurons, or (l, n, blocks).
      used: (l, n, f) whether a token's FFN used a neuron.
      activations: (l, n, f) of all neurons, used or not.
      outputs: (l, n, d) of the FFNs.
      counted: (n,) whether a token is none of padding.
      result: logits (b, t, v) of the network, or the output of a bare FFN.
    """

    inputs: jax.Array
    scores: jax.Array
    used: jax.Array
    activations: jax.Array
    outputs: jax.Array
    counted: jax.Array
    result: jax.Array


def observe(
    model: Any,
    params: Params,
    inputs: jax.Array,
    top_k: jax.Array,
    *,
    attention_mask: jax.Array | None = None,
    path: Path = "masked",
) -> Observation:
    """Run a network, or an FFN on its own, and keep what its FFNs do; to be called within `jax.jit`.

    Args:
      model: `SproutLM`, or `SproutFFN`, which is one layer.
      params: its parameters.
      inputs: (b, t) ids, or (*b, d) of a bare FFN.
      top_k: (l,) neurons per token of every layer; d_ff is all.
      attention_mask: (b, t) 1 = keep; the others are not counted.
      path: "block" selects whole blocks.

    Returns:
      `Observation`.
    """
    config = model.config
    if isinstance(model, SproutFFN):
        result, seen = model.apply(
            {"params": params}, inputs, top_k=top_k[0], path=path, mutable=["intermediates"]
        )
        layers = [(params, seen["intermediates"], result)]
    else:
        options = {"top_k": top_k, "path": path, "attention_mask": attention_mask}
        out, seen = model.apply({"params": params}, inputs, **options, mutable=["intermediates"])
        result = out.logits
        names = [f"layer_{number}" for number in range(config.n_layers)]
        of_layer = [(name, seen["intermediates"][name]) for name in names]
        layers = [(params[name]["ffn"], own["ffn"], own["ffn_out"][0]) for name, own in of_layer]
        config = config.ffn
    rows = [_row(config, layer, count, path) for layer, count in zip(layers, top_k, strict=True)]
    tokens = rows[0][0].shape[0]
    counted = jnp.ones(tokens, bool) if attention_mask is None else attention_mask.reshape(-1) != 0
    inputs, scores, used, values, outputs = (jnp.stack(column) for column in zip(*rows, strict=True))
    return Observation(inputs, scores, used, values, outputs, counted, result)


def summed(
    reduce: Reduce,
    model: Any,
    params: Params,
    batches: Any,
    *,
    top_k: Neurons = None,
    attention_masks: Iterable[Any] | None = None,
    path: Path = "masked",
) -> Any:
    """The sums of ``reduce`` over batches, on the host, in 64 bits.

    One program is compiled for all batches of a shape, whatever ``top_k``.

    Args:
      reduce: see `Reduce`.
      model: `SproutLM` or `SproutFFN`.
      params: its parameters.
      batches: ids (b, t), or an iterable or array of such; (*b, d) of a bare FFN.
      top_k: neurons per token: one number, one per layer, or None.
      attention_masks: one (b, t) for each batch, 1 = keep.
      path: "block" selects whole blocks.

    Returns:
      the tree of ``reduce``, of NumPy arrays.

    Raises:
      ValueError: there is no batch, or ``top_k`` cannot be.
    """
    counts = neuron_counts(model, top_k)
    total = None
    for batch, mask in paired(model, batches, attention_masks):
        part = _reduced(reduce, model, path, params, (batch, counts, mask))
        part = jax.tree.map(_wide, jax.device_get(part))
        total = part if total is None else jax.tree.map(np.add, total, part)
    if total is None:
        raise ValueError("there is no batch to look at")
    return total


def neuron_counts(model: Any, top_k: Neurons) -> jax.Array:
    """Neurons per token of every layer, (l,) int32, at most d_ff.

    Raises:
      ValueError: a number is negative, or there is not one per layer.

    Example:
      >>> from sparsejax.models.sprout.config import SproutFFNConfig
      >>> neuron_counts(SproutFFN(SproutFFNConfig(d_model=2, d_ff=8)), 100).tolist()
      [8]
    """
    config = model.config
    layers = 1 if isinstance(model, SproutFFN) else config.n_layers
    given = list(top_k) if isinstance(top_k, Sequence) else [top_k] * layers
    if len(given) != layers:
        raise ValueError(f"top_k has {len(given)} entries; the network has {layers} layers")
    if bad := [count for count in given if count is not None and count < 0]:
        raise ValueError(f"top_k must be at least 0, not {bad[0]}")
    known = [config.sparse_k if count is None else count for count in given]
    return jnp.asarray([config.d_ff if k is None else min(k, config.d_ff) for k in known], jnp.int32)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _reduced(reduce: Reduce, model: Any, path: Path, params: Params, call: tuple[Any, Any, Any]) -> Any:
    batch, top_k, mask = call
    return reduce(model, observe(model, params, batch, top_k, attention_mask=mask, path=path))


def _row(config: Any, layer: Any, top_k: Any, path: Path) -> tuple[jax.Array, ...]:
    ffn, seen, outputs = layer
    (inputs,), (scores,) = seen["ffn_in"], seen["scores"]
    used = select(config, scores, top_k, blocks=config.selects_blocks or path == "block").mask
    parts = (inputs, scores, used, activations(config, ffn, inputs), outputs)
    return tuple(part.reshape(-1, part.shape[-1]) for part in parts)


def paired(model: Any, batches: Any, masks: Any) -> Iterator[tuple[Any, Any]]:
    """Every batch with its mask, or None, after a check that the network takes them.

    Args:
      model: the network.
      batches: one batch (b, t), or an iterable or array of such.
      masks: as many, or None.

    Raises:
      ValueError: a batch is no input of the network, or there are not as many masks.
    """
    if getattr(batches, "ndim", 0) == 2:
        batches, masks = [batches], masks if masks is None or np.ndim(masks) != 2 else [masks]
    arrays = [batch if isinstance(batch, jax.Array) else np.asarray(batch) for batch in batches]
    for batch, mask in zip(arrays, [None] * len(arrays) if masks is None else masks, strict=True):
        check_inputs(model.config, batch, **({} if mask is None else {"attention_mask": mask}))
        yield jnp.asarray(batch), None if mask is None else jnp.asarray(mask)


def _wide(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64 if np.issubdtype(array.dtype, np.floating) else np.int64)
