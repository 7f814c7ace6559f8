"""The network as a linen module: its parameters, and one call."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jraph import GraphsTuple

from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.prediction import Prediction, predict_graph


class StudentForceField(nn.Module):
    """A message-passing force field: energies, forces and stress of a batch of structures.

    Attributes:
      config: sizes and kind.

    Example:
      >>> import numpy as np
      >>> from sparsejax.models.force_field.graph import batch_graphs
      >>> from sparsejax.models.force_field.structure import Structure
      >>> pair = Structure(np.array([6, 8]), np.array([[0, 0, 0], [0, 0, 1.1]]), None, np.zeros(3, bool))
      >>> model = StudentForceField(ForceFieldConfig(hidden_dim=8, num_interactions=1, num_rbf=4))
      >>> variables = jax.jit(model.init)(jax.random.key(0), graph := batch_graphs([pair], 5.0))
      >>> jax.jit(model.apply)(variables, graph).forces.shape
      (3, 3)

    Source: specs/force_field.md section 1.
    """

    config: ForceFieldConfig = ForceFieldConfig()

    @nn.compact
    def __call__(
        self, graph: GraphsTuple, *, filters: Any = None, backend: str = "auto", stress: bool = False
    ) -> Prediction:
        """Energies, forces and stress.

        Args:
          graph: from `sparsejax.models.force_field.graph.batch_graphs`.
          filters: tables to read instead of computing the filters.
          backend: of `sparsejax.ops.edge_conv.edge_conv`.
          stress: compute it; NaN for structures that do not repeat.

        Returns:
          `Prediction` of the padded batch.
        """
        params = self._parameters()
        if self.is_initializing():  # parameters alone are wanted: no gradient is traced for them
            nothing = jnp.zeros(())
            return Prediction(nothing, nothing, None, nothing)
        return predict_graph(self.config, params, graph, filters=filters, backend=backend, stress=stress)

    def _parameters(self) -> dict[str, Any]:
        config = self.config
        params: dict[str, Any] = {
            "embedding": _Embedding(config, name="embedding")(),
            "rbf": _RadialFunctions(config, name="rbf")(),
            "readout": _Readout(config, name="readout")(),
        }
        for number in range(config.num_interactions):
            name = f"interaction_{number}"
            params[name] = _Interaction(config, name=name)()
        if config.reference_energies:
            rows = (config.max_z + 1,)
            params["reference_energies"] = self.param("reference_energies", nn.initializers.zeros, rows)
        return params


class _Embedding(nn.Module):
    config: ForceFieldConfig

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        shape = self.config.max_z + 1, self.config.hidden_dim
        return {"embedding": self.param("embedding", _uniform(math.sqrt(3)), shape)}


class _RadialFunctions(nn.Module):
    config: ForceFieldConfig

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        config = self.config
        centers = jnp.linspace(0, config.cutoff, config.num_rbf)
        widths = jnp.full(config.num_rbf, config.cutoff / config.num_rbf)
        return {
            "centers": self.param("centers", lambda key: centers),
            "widths": self.param("widths", lambda key: widths),
        }


class _Kernel(nn.Module):
    """Kernel (i, o) and bias (o,) of a dense layer."""

    inputs: int
    outputs: int

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        kernel = self.param("kernel", nn.initializers.xavier_uniform(), (self.inputs, self.outputs))
        return {"kernel": kernel, "bias": self.param("bias", nn.initializers.zeros, (self.outputs,))}


class _Message(nn.Module):
    config: ForceFieldConfig

    @nn.compact
    def __call__(self) -> dict[str, Any]:
        c = self.config.hidden_dim
        return {
            "hidden": _Kernel(self.config.num_rbf, c, name="hidden")(),
            "filter": _Kernel(c, 3 * c, name="filter")(),
        }


class _Update(nn.Module):
    config: ForceFieldConfig

    @nn.compact
    def __call__(self) -> dict[str, Any]:
        c = self.config.hidden_dim
        size = 3 if self.config.variant == "cartesian" else c
        normal = nn.initializers.normal(1 / math.sqrt(size))
        return {
            "mixing": self.param("mixing", normal, (size, size)),
            "hidden": _Kernel(2 * c, c, name="hidden")(),
            "gates": _Kernel(c, 3 * c, name="gates")(),
        }


class _Interaction(nn.Module):
    config: ForceFieldConfig

    @nn.compact
    def __call__(self) -> dict[str, Any]:
        return {
            "message": _Message(self.config, name="message")(),
            "update": _Update(self.config, name="update")(),
        }


class _Readout(nn.Module):
    config: ForceFieldConfig

    @nn.compact
    def __call__(self) -> dict[str, Any]:
        c = self.config.hidden_dim
        return {
            "hidden_0": _Kernel(c, c // 2, name="hidden_0")(),
            "hidden_1": _Kernel(c // 2, c // 4, name="hidden_1")(),
            "energy": _Kernel(c // 4, 1, name="energy")(),
        }


def _uniform(bound: float) -> nn.initializers.Initializer:
    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
