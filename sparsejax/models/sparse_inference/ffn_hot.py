"""Hot neurons in one place, cold ones in another: all of the first are computed, some of the second."""

from __future__ import annotations

import jax

from sparsejax.ops.sparse_ffn import FFNWeights, dense_ffn, listed_ffn, map_neurons


def split_hot(weights: FFNWeights, hot: int) -> tuple[FFNWeights, FFNWeights]:
    """The first neurons, with the output's bias, and the others.

    Args:
      weights: of f neurons, the hot ones first; see `coactivation_order`.
      hot: how many are hot, 0 to f.

    Raises:
      ValueError: there are not so many neurons.

    Example:
      >>> hot, cold = split_hot(FFNWeights(jnp.ones((8, 4)), jnp.ones((8, 4))), 3)
      >>> hot.w_in.shape, cold.w_out.shape
      ((3, 4), (5, 4))
    """
    if not 0 <= hot <= weights.w_in.shape[0]:
        raise ValueError(f"hot must be 0 to {weights.w_in.shape[0]}, the neurons, not {hot}")
    first = map_neurons(lambda rows: rows[:hot], weights)._replace(b_out=weights.b_out)
    return first, map_neurons(lambda rows: rows[hot:], weights)


def hot_cold_ffn(
    inputs: jax.Array, hot: FFNWeights, cold: FFNWeights, indices: jax.Array, *, activation: str = "gelu_tanh"
) -> jax.Array:
    """All hot neurons and the listed cold ones.

    Args:
      inputs: (*b, d).
      hot: neurons that are always computed, with the output's bias.
      cold: the others, without it.
      indices: integers (k,) or (*b, k) among the cold ones; those that none has add nothing.
      activation: a name in `ops.sparse_ffn.ACTIVATIONS` or, of gated FFNs, `GATED_ACTIVATIONS`.

    Returns:
      (*b, o).

    Example:
      >>> weights = FFNWeights(jnp.ones((4, 2)), jnp.ones((4, 2)))
      >>> hot, cold = split_hot(weights, 1)
      >>> hot_cold_ffn(jnp.ones(2), hot, cold, jnp.array([0, 2]), activation="relu").tolist()
      [6.0, 6.0]

    Source: PowerInfer (Song et al. 2023).
    """
    always = dense_ffn(inputs, hot, activation=activation)
    return always + listed_ffn(inputs, cold, indices, activation=activation)
