"""The manifold mixer: selected activations exchanged for a learned function of each and their mean."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparsejax.models.sprout.norm import layer_norm


class ManifoldMixer(nn.Module):
    """New activations of selected neurons.

    Attributes:
      hidden_size: width of a neuron's features.
      dropout: before the last product, in training.
      dtype: of the computation; None is that of the parameters.

    Source: specs/sprout.md section 3.
    """

    hidden_size: int
    dropout: float = 0.1
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(
        self, activations: jax.Array, gates: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """(n, k) from activations (n, k) and factors (n, k) of what comes out, 0 for those to leave out."""
        size = self.hidden_size
        hidden = self._dense(size // 2, "phi_in")(activations[..., None])
        hidden = nn.gelu(layer_norm("phi_norm", self.dtype)(hidden), approximate=False)
        embedded = layer_norm("phi_out_norm", self.dtype)(self._dense(size, "phi_out")(hidden))
        mixed = embedded + selected_mean(embedded, gates)
        hidden = nn.gelu(self._dense(2 * size, "rho_in")(mixed), approximate=False)
        hidden = nn.Dropout(self.dropout)(hidden, deterministic=not train)
        outputs = self._dense(1, "rho_out")(hidden)[..., 0]
        return outputs if gates is None else outputs * gates

    def _dense(self, width: int, name: str) -> nn.Dense:
        return nn.Dense(width, dtype=self.dtype, name=name)


def selected_mean(features: jax.Array, gates: jax.Array | None) -> jax.Array:
    """Mean (n, 1, c) over the selected of features (n, k, c); zeros where none is.

    Example:
      >>> selected_mean(jnp.asarray([[[1.0], [5.0]]]), jnp.asarray([[False, True]])).tolist()
      [[[5.0]]]
    """
    if gates is None:
        return features.sum(axis=-2, keepdims=True) / max(1, features.shape[-2])
    chosen = (gates != 0)[..., None]
    count = jnp.maximum(1, chosen.sum(axis=-2, keepdims=True)).astype(features.dtype)
    return jnp.where(chosen, features, 0).sum(axis=-2, keepdims=True) / count
