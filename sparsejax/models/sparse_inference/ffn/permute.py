"""Neurons in another order: the same function, with those that act together side by side."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.ops.sparse_ffn import FFNWeights, map_neurons
from sparsejax.ops.sparse_ffn.coactivation import check_order


def permute_ffn(weights: FFNWeights, order: Any) -> FFNWeights:
    """The neurons of an FFN in another order; its outputs stay the same, but for the order of their sums.

    Args:
      weights: of f neurons, plain arrays.
      order: (f,) the neuron that comes to each place, such as of `coactivation_order`.

    Raises:
      ValueError: the order is no permutation of the neurons.

    Example:
      >>> weights = FFNWeights(jnp.arange(4.0)[:, None], jnp.ones((4, 1)))
      >>> permute_ffn(weights, [3, 0, 1, 2]).w_in.ravel().tolist()
      [3.0, 0.0, 1.0, 2.0]
    """
    places = jnp.asarray(check_order(order, weights.w_in.shape[0]))
    return map_neurons(lambda rows: rows[places], weights)._replace(b_out=weights.b_out)


def permute_blocks(planes: Any, order: Any, *, unit: int) -> Any:
    """Whole blocks of neurons in another order, of quantised weights whose arrays have a row per block.

    Args:
      planes: a pytree of arrays (f / unit, ...): a row holds what belongs to ``unit`` neurons.
      order: (f,) made with the same ``unit``, so that no block is torn apart; nothing is quantised anew.
      unit: neurons of a block, 32 or, of the K formats, 256.

    Raises:
      ValueError: the order is no permutation, or tears a block apart.

    Example:
      >>> permute_blocks(jnp.arange(2), [2, 3, 0, 1], unit=2).tolist()
      [1, 0]
    """
    neurons = jax.tree.leaves(planes)[0].shape[0] * unit
    places = jnp.asarray(check_order(order, neurons, unit=unit)[::unit] // unit)
    return jax.tree.map(lambda rows: rows[places], planes)


def permute_predictor(predictor: Any, order: Any) -> Any:
    """The predictor of the permuted FFN: its scores move with the neurons.

    Args:
      predictor: a pytree; arrays whose first axis is as long as the order have a row per neuron, and
        ``shape`` says (f, d), as of `LowRankPredictor` and `MLPPredictor`.
      order: (f,) as in `permute_ffn`.

    Raises:
      ValueError: the order is no permutation of the predictor's neurons, or the predictor is of a kind whose
        arrays do not say which axis is that of neurons.

    Example:
      >>> from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor
      >>> predictor = LowRankPredictor(jnp.ones((1, 2)), jnp.asarray([[1.0], [2.0]]))
      >>> permute_predictor(predictor, [1, 0]).scores(jnp.ones(2)).tolist()
      [4.0, 2.0]
    """
    rows = _ROWS.get(type(predictor).__name__)
    if rows is None:
        raise ValueError(f"a {type(predictor).__name__} is not permuted; permute one of {tuple(_ROWS)}")
    places = jnp.asarray(check_order(order, predictor.shape[0]))
    parts = {name: getattr(predictor, name) for name in rows}
    return predictor.replace(**{name: part[places] for name, part in parts.items() if part is not None})


_ROWS = {"LowRankPredictor": ("q", "bias"), "MLPPredictor": ("fc2", "bias2")}
"""By kind of predictor, the arrays that have a row per neuron."""
