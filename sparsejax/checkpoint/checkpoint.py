"""A loaded model: what it is, its parameters, and a jitted call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint import registry
from sparsejax.checkpoint.container import Layout
from sparsejax.checkpoint.packed import is_packed


@dataclass(frozen=True)
class Source:
    """The file that a checkpoint came from.

    Attributes:
      path: as given.
      size: bytes, at the time of loading.
      modified_ns: time of the last change then; a hash is taken later only if it is still the same.
      sha256: known for checkpoints that came from a sparsejax directory.
    """

    path: str
    size: int = 0
    modified_ns: int = 0
    sha256: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A model with its parameters, as `sparsejax.load` returns it.

    Attributes:
      kind: family, such as "ultra_sparse".
      variant: layout of the file within the family.
      config: the family's frozen config.
      params: nested dict of JAX arrays, and of `QuantizedTensor` where the file has blocks.
      metadata: what the file held beside the state dict (statistics, optimiser state, ...), as NumPy
        and plain Python.
      layout: how to write the original file again.
      source: where it came from.

    Example:
      >>> import sparsejax as sj, numpy as np
      >>> ck = sj.load("checkpoints/ultra_sparse_sine.pt")
      >>> ck.kind, ck.variant, ck.apply(np.zeros((2, 256), np.float32)).shape
      ('ultra_sparse', 'sparse', (2, 1))
    """

    kind: str
    variant: str
    config: Any
    params: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout = field(default_factory=Layout)
    source: Source | None = None

    @cached_property
    def model(self) -> Any:
        """The linen module; ``model.apply({"params": params}, ...)`` is the pure function."""
        return self._family.build(self.config)

    @cached_property
    def _family(self) -> registry.Family:
        return registry.find(self.kind)

    @property
    def num_values(self) -> int:
        """Numbers that the parameters hold, index tables included."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params, is_leaf=is_packed))

    def apply(self, *inputs: Any, **options: Any) -> Any:
        """The jitted forward pass.

        Options that are arrays or trees with arrays (such as a carried state) are traced; all others (None,
        numbers, str, tuples or lists of them) are static, since they change shapes or paths: each new value
        compiles once.

        Args:
          inputs: arrays, as the family's module takes them.
          options: keyword arguments of the module.

        Returns:
          what the module returns.

        Raises:
          ValueError: inputs that cannot be right (shape, dtype), or an output that is NaN. Waiting for that
            verdict makes the call synchronous; inside another jit there is none.
        """
        self._family.check_inputs(self.config, *inputs, **options)
        traced = {name: value for name, value in options.items() if _is_traced(value)}
        fixed = {name: value for name, value in options.items() if name not in traced}
        static = tuple((name, _hashable(fixed[name])) for name in sorted(fixed))
        outputs, is_nan = _apply(self.model, static, self.params, inputs, traced)
        if not isinstance(is_nan, jax.core.Tracer) and is_nan:
            raise ValueError("the output holds NaN: so do the inputs, or they are beyond the model's range")
        return outputs

    def replace(self, **changes: Any) -> Checkpoint:
        """The checkpoint with some attributes exchanged."""
        return dataclasses.replace(self, **changes)

    def __repr__(self) -> str:
        """One line: what it is and how large."""
        known = f"kind={self.kind!r}, variant={self.variant!r}, {self.num_values} values"
        return f"Checkpoint({known}, config={self.config})"


def _is_traced(option: Any) -> bool:
    return any(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(option))


def _hashable(option: Any) -> Any:
    return tuple(option) if isinstance(option, list) else option


@partial(jax.jit, static_argnums=(0, 1))
def _apply(
    model: Any,
    static: tuple[tuple[str, Any], ...],
    params: Any,
    inputs: tuple[Any, ...],
    traced: dict[str, Any],
) -> tuple[Any, jax.Array]:
    outputs = model.apply({"params": params}, *inputs, **dict(static), **traced)
    floats = [leaf for leaf in jax.tree.leaves(outputs) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return outputs, sum((jnp.isnan(leaf).any() for leaf in floats), start=jnp.bool_(False))


def template(family: registry.Family, config: Any) -> dict[str, Any]:
    """Nested shapes and dtypes of a config's parameters, made without memory for them."""
    known = family.shapes(config)
    if known is not None:
        return known
    model = family.build(config)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), *family.example_inputs(config)))
    parameters: dict[str, Any] = variables["params"]
    return parameters
