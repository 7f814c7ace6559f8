"""Which neurons each token's scores select: as masks, as gates with a gradient, and as indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.models.sprout.config import SproutFFNConfig
from sparsejax.ops.sparse_ffn import top_k_indices, top_k_mask
from sparsejax.ops.sparse_ffn.api import selected_blocks


@dataclass(frozen=True)
class Selection:
    """What the router's scores select.

    Attributes:
      scores: (*b, u) of units: neurons, or blocks of neurons.
      units: (*b, u) bool, True at the selected ones.
      count: how many they are in each row, static or traced.
      block_size: neurons of a unit.
      d_ff: neurons.
    """

    scores: jax.Array
    units: jax.Array
    count: int | jax.Array
    block_size: int
    d_ff: int

    @property
    def mask(self) -> jax.Array:
        """(*b, f) True at the selected neurons."""
        return self._of_neurons(self.units)

    @property
    def usage(self) -> jax.Array:
        """(f,) part of the tokens that selected each neuron; 0 where there are no tokens."""
        units = self.units.reshape(-1, self.units.shape[-1])
        return self._of_neurons(units.sum(axis=0) / max(1, len(units)))

    @property
    def gates(self) -> jax.Array:
        """The mask as numbers (*b, f) whose gradient is that of the sigmoid of the scores."""
        chance = jax.nn.sigmoid(self.scores)
        return self._of_neurons(self.units + (chance - jax.lax.stop_gradient(chance)))

    @property
    def indices(self) -> tuple[jax.Array, jax.Array | None]:
        """Neurons (*b, k) in ascending order, and which of them exist, None for all; ``count`` is static."""
        assert isinstance(self.count, int)
        units = top_k_indices(self.scores, self.count)
        if self.block_size == 1:
            return units, None
        neurons = units[..., None] * self.block_size + jnp.arange(self.block_size)
        neurons = neurons.reshape(*units.shape[:-1], units.shape[-1] * self.block_size)
        if self.d_ff % self.block_size == 0:
            return neurons, None
        return jnp.minimum(neurons, self.d_ff - 1), neurons < self.d_ff

    def _of_neurons(self, of_units: jax.Array) -> jax.Array:
        if self.block_size == 1:
            return of_units
        return jnp.repeat(of_units, self.block_size, axis=-1)[..., : self.d_ff]


def select(config: SproutFFNConfig, scores: jax.Array, top_k: Any, *, blocks: bool) -> Selection:
    """The ``top_k`` neurons with the largest scores, or the blocks that make so many, of each token.

    Args:
      config: of the FFN.
      scores: (*b, f) of neurons, or (*b, blocks).
      top_k: neurons per token, static or traced ().
      blocks: whether ``scores`` are of blocks.

    Example:
      >>> config = SproutFFNConfig(d_model=1, d_ff=4, block_size=2)
      >>> select(config, jnp.asarray([0.1, 0.2]), 3, blocks=True).mask.tolist()
      [False, False, True, True]
    """
    size = config.block_size if blocks else 1
    count = selected_blocks(top_k, config.d_ff, size)
    return Selection(scores, top_k_mask(scores, count), count, size, config.d_ff)
