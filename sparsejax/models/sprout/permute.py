"""Which neurons stand side by side: blocks of neurons that act together, without a change of the function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sprout.model import SproutLM
from sparsejax.models.sprout.oracle import activations, oracle_scores
from sparsejax.ops.sparse_ffn.coactivation import check_order
from sparsejax.typing import Params


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
    order = check_order(order, len(ffn["w_in"]), of=where)
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
