"""The DeepSets FFN: a learned function of every selected neuron, summed and read out."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sprout.config import DeepSets, SproutFFNConfig
from sparsejax.models.sprout.mixer import selected_mean
from sparsejax.models.sprout.norm import layer_norm
from sparsejax.ops.flat_matmul import flat_matmul


class DeepSetsFFN(nn.Module):
    """Outputs (n, d) from what tokens and selected neurons are.

    The function phi reads a neuron's vector, its activation and, with context, the token and the mean vector
    of the selected neurons, in this order. Its first product is taken part by part, so that a neuron's part
    is computed once for all tokens.

    Attributes:
      config: of the FFN.
      dtype: of the computation; None is that of the parameters.

    Source: specs/sprout.md section 3.
    """

    config: SproutFFNConfig
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        activations: jax.Array,
        indices: jax.Array | None = None,
        gates: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """Outputs.

        Args:
          tokens: (n, d) inputs of the FFN.
          activations: (n, k) of the neurons.
          indices: (n, k) which neurons these are; None is all of them.
          gates: (n, k) factors of the neurons, 0 for those to leave out; None is 1.
          train: with dropout.
        """
        sizes = self.config.deep_sets
        assert sizes is not None
        hidden = self._first(sizes, tokens, activations, indices, gates)
        hidden = nn.gelu(layer_norm("phi_norm", self.dtype)(hidden), approximate=False)
        hidden = layer_norm("phi_out_norm", self.dtype)(self._dense(sizes.d_hidden, "phi_out")(hidden))
        total = (hidden if gates is None else hidden * gates[..., None].astype(hidden.dtype)).sum(axis=-2)
        if sizes.normalize_sum:
            total = layer_norm("rho_norm", self.dtype)(total)
        hidden = nn.gelu(self._dense(2 * sizes.d_hidden, "rho_in")(total), approximate=False)
        hidden = nn.Dropout(self.config.dropout)(hidden, deterministic=not train)
        return self._dense(self.config.d_model, "rho_out")(hidden)

    def _first(
        self,
        sizes: DeepSets,
        tokens: jax.Array,
        activations: jax.Array,
        indices: jax.Array | None,
        gates: jax.Array | None,
    ) -> jax.Array:
        """The first product of phi (n, k, h)."""
        shape = (self.config.d_ff, sizes.d_neuron)
        vectors = self.param("neuron_vectors", nn.initializers.normal(1.0), shape)
        context = (self.config.d_model, sizes.d_neuron) if sizes.use_context else ()
        kernels, bias = CutKernel((sizes.d_neuron, 1, *context), sizes.d_hidden, name="phi_in")()
        vectors, tokens, activations, bias, *kernels = nn.dtypes.promote_dtype(
            vectors, tokens, activations, bias, *kernels, dtype=self.dtype
        )
        of_neurons = jnp.matmul(vectors, kernels[0]) + bias
        rows = of_neurons if indices is None else of_neurons[indices]
        hidden = rows + activations[..., None] * kernels[1]
        if not sizes.use_context:
            return hidden
        chosen = jnp.broadcast_to(vectors, (len(tokens), *shape)) if indices is None else vectors[indices]
        mean = selected_mean(chosen, gates)[:, 0]
        return hidden + (flat_matmul(tokens, kernels[2]) + flat_matmul(mean, kernels[3]))[:, None]

    def _dense(self, width: int, name: str) -> nn.Dense:
        return nn.Dense(width, dtype=self.dtype, name=name)


class CutKernel(nn.Module):
    """The kernel of a dense layer cut into the parts of its inputs, and its bias.

    Attributes:
      sizes: of the inputs' parts.
      features: of the outputs.
    """

    sizes: tuple[int, ...]
    features: int

    @nn.compact
    def __call__(self) -> tuple[list[jax.Array], jax.Array]:
        """The parts, each (size, features), and the bias (features,)."""
        shape = (sum(self.sizes), self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return jnp.split(kernel, np.cumsum(self.sizes)[:-1], axis=0), bias
