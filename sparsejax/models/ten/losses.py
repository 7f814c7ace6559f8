"""What training adds to the cross entropy."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.models.ten.config import TemporalEigenstateConfig
from sparsejax.models.ten.resonance import cell_decay
from sparsejax.typing import Params


def energy_penalty(config: TemporalEigenstateConfig, params: Params) -> jax.Array:
    """Squared magnitudes of all eigenvalues, per block: what the published trainer called energy.

    It depends on the parameters alone; the loss has ``config.energy_reg_weight`` times it.

    Args:
      config: of variant ``paper`` or ``seed``.
      params: of the network.

    Returns:
      () sum over blocks, cells and eigenstates of |lambda|^2, over the number of blocks; float32 at least.

    Raises:
      ValueError: the variant is ``modern``, whose eigenvalues nobody regularised; or `diagonalise` was there,
        after which the penalty's parameters are gone.

    Example:
      >>> config = TemporalEigenstateConfig(n_layers=1, num_eigenstates=2, num_cells=1)
      >>> cells = {"decay_logit": jnp.full((1, 2), 9.0), "frequency": jnp.zeros((1, 2))}
      >>> round(float(energy_penalty(config, {"layer_0": {"cells": cells}})), 3)
      1.96

    Source: specs/ten.md section 3, E_reg.
    """
    if config.variant == "modern":
        raise ValueError("the energy penalty belongs to the variants 'paper' and 'seed'")
    if blocks := config.diagonal_blocks:
        raise ValueError(
            f"block {blocks[0]} is diagonal and has no cells for the energy penalty: diagonalise after "
            "training, or set energy_reg_weight=0"
        )

    def of_block(number: int) -> jax.Array:
        cells = params[f"layer_{number}"]["cells"]
        decay = cell_decay(cells["decay_logit"], cells["frequency"], config.eigenvalue_clip)
        return jnp.sum(jnp.exp(2 * decay.log_magnitude))

    return sum(map(of_block, range(config.n_layers)), start=jnp.zeros(())) / config.n_layers
