"""Which neurons stand side by side: blocks of neurons that act together, without a change of the function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sprout.model import SproutLM
from sparsejax.models.sprout.oracle import activations, oracle_scores
from sparsejax.typing import Params

_SWEEPS = 200  # each swaps up to half as many pairs as there are blocks; far fewer are needed in practice
_LEAST_GAIN = 1e-6  # of the whole, below which a swap is rounding


def layer_strengths(model: SproutLM, params: Params, tokens: jax.Array) -> jax.Array:
    """Strengths (layers, tokens, f) of every layer's neurons in a dense call: absolute activations.

    An oracle ranks neurons by them, and blocks by their sums; see `oracle_scores`.

    Args:
      model: the language model.
      params: its parameters.
      tokens: (b, t) ids of typical text.
    """
    _, found = model.apply(
        {"params": params}, tokens, top_k=model.config.d_ff, method="hidden", mutable=["intermediates"]
    )
    names = [f"layer_{number}" for number in range(model.config.n_layers)]
    rows = []
    for name in names:
        (inputs,) = found["intermediates"][name]["ffn"]["ffn_in"]
        values = activations(model.config.ffn, params[name]["ffn"], inputs.reshape(-1, inputs.shape[-1]))
        rows.append(oracle_scores(values))
    return jnp.stack(rows)


def coactivation_order(strengths: np.ndarray | jax.Array, block_size: int) -> np.ndarray:
    """An order of neurons whose blocks hold neurons that are strong for the same tokens.

    It climbs to a largest sum, over tokens and blocks, of the squared strength of a block: the strength of
    a token is then in few blocks. Blocks are filled greedily, then pairs of neurons are swapped until no swap
    helps.

    Args:
      strengths: (n, f) of neurons for tokens, such as a layer's `layer_strengths`; none negative.
      block_size: neurons per block; the last block may be shorter.

    Returns:
      (f,) integers: the neuron that comes to each place.

    Raises:
      ValueError: the strengths are no finite matrix without negative values, or ``block_size`` is below one.

    Example:
      >>> coactivation_order(np.asarray([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]), 2).tolist()
      [0, 2, 1, 3]
    """
    strengths = np.asarray(strengths, np.float64)
    if strengths.ndim != 2 or not np.isfinite(strengths).all() or (strengths < 0).any():
        raise ValueError("strengths must be a finite matrix (tokens, neurons) without negative values")
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, not {block_size}")
    together = strengths.T @ strengths
    block_of = _swapped(together, _filled(together, block_size))
    return np.argsort(block_of, kind="stable")


def permute_neurons(params: Params, orders: Sequence[Any] | np.ndarray | jax.Array) -> Params:
    """The parameters with neurons in another order: the same function, exactly, of the same top_k.

    Weights, biases, neuron vectors and the router's scores move together; the mixer knows no
    order. Only ties between scores, and ``path="block"``, see the order: the latter is what it is for.

    A router of blocks has a column per block, not per neuron: a new block's column becomes the mean
    of its neurons' old ones. The function is kept exactly where whole blocks move, and in dense calls
    always; otherwise the router must be trained again.

    Args:
      params: of `SproutLM` or of `SproutFFN`; any tree of the same names and shapes, such as an optimiser's
        moments, can be given as well.
      orders: (layers, f), or (f,) for `SproutFFN`: the neuron that comes to each place.

    Returns:
      new parameters; the rest is shared with the old ones.

    Raises:
      ValueError: an order is no permutation of the neurons, or there are not as many as layers.

    Example:
      >>> params = {"w_in": jnp.asarray([[1.0], [2.0]]), "w_out": jnp.asarray([[3.0], [4.0]]),
      ...           "router": {"kernel": jnp.asarray([[5.0, 6.0]])}}
      >>> moved = permute_neurons(params, [1, 0])
      >>> moved["w_in"].ravel().tolist(), moved["router"]["kernel"].tolist()
      ([2.0, 1.0], [[6.0, 5.0]])
    """
    if "w_in" in params:
        return _permuted_ffn(params, orders, "the FFN")
    names = [f"layer_{number}" for number in range(sum(name.startswith("layer_") for name in params))]
    if len(orders) != len(names):
        raise ValueError(f"there are {len(orders)} orders; the network has {len(names)} layers")
    moved = dict(params)
    for name, order in zip(names, orders, strict=True):
        moved[name] = {**params[name], "ffn": _permuted_ffn(params[name]["ffn"], order, name)}
    return moved


def _permuted_ffn(ffn: Mapping[str, Any], order: Any, where: str) -> dict[str, Any]:
    neurons, order = len(ffn["w_in"]), np.asarray(order)
    if order.shape != (neurons,) or not np.array_equal(np.sort(order), np.arange(neurons)):
        raise ValueError(f"the order of {where} is no permutation of its {neurons} neurons")
    moved = {**ffn, "w_in": ffn["w_in"][order]}
    for name in ("w_out", "b_in"):
        if name in ffn:
            moved[name] = ffn[name][order]
    if "deep_sets" in ffn:
        vectors = ffn["deep_sets"]["neuron_vectors"]
        moved["deep_sets"] = {**ffn["deep_sets"], "neuron_vectors": vectors[order]}
    moved["router"] = {**ffn["router"], "kernel": _permuted_columns(ffn["router"]["kernel"], order)}
    return moved


def _permuted_columns(kernel: jax.Array, order: np.ndarray) -> jax.Array:
    """Of neurons (*, f), or of blocks (*, blocks)."""
    columns = kernel.shape[-1]
    if columns == len(order):
        return kernel[..., order]
    block_of = order // (len(order) // columns)
    return kernel[..., block_of.reshape(columns, -1)].mean(axis=-1)


def _filled(together: np.ndarray, block_size: int) -> np.ndarray:
    """The block (f,) of each neuron: each starts with the strongest one left, and takes what acts with it."""
    neurons = len(together)
    block_of, size = np.full(neurons, -1), np.sqrt(np.diagonal(together))
    alike = together / np.maximum(np.outer(size, size), np.finfo(float).tiny)
    for place in range(neurons):
        if place % block_size == 0:
            wanted, newest = size, None
        else:
            wanted = alike[newest] if place % block_size == 1 else wanted + alike[newest]
        newest = int(np.argmax(np.where(block_of < 0, wanted, -np.inf)))
        block_of[newest] = place // block_size
    return block_of


def _swapped(together: np.ndarray, block_of: np.ndarray) -> np.ndarray:
    """Neurons of different blocks exchanged while it helps; the pairs of one sweep share no block."""
    blocks, least = int(block_of.max()) + 1, _LEAST_GAIN * together.sum()
    own = np.diagonal(together)
    for _ in range(_SWEEPS):
        with_block = together @ np.eye(blocks)[block_of]
        at_home = with_block[np.arange(len(block_of)), block_of] - own
        toward = with_block[:, block_of] - at_home[:, None]
        gains = toward + toward.T - 2 * together
        gains[block_of[:, None] == block_of] = 0
        partner = gains.argmax(axis=1)
        best = gains.max(axis=1)
        touched: set[int] = set()
        for neuron in np.argsort(-best):
            other = partner[neuron]
            pair = {int(block_of[neuron]), int(block_of[other])}
            if best[neuron] <= least:
                break
            if not pair & touched:
                touched |= pair
                block_of[[neuron, other]] = block_of[[other, neuron]]
        if not touched:
            break
    return block_of
