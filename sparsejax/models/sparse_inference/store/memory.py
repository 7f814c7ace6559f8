"""Units of layers in host memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import jax
import numpy as np

from sparsejax.models.sparse_inference.store.units import UnitLayout, unit_arrays
from sparsejax.ops.sparse_ffn import FFNWeights


class UnitSource(Protocol):
    """Where units are read from: `HostUnits`, or a `NeuronFile`."""

    @property
    def layouts(self) -> tuple[UnitLayout, ...]:
        """By layer."""

    @property
    def biases(self) -> tuple[np.ndarray | None, ...]:
        """By layer, bias of the output (d,), which is no neuron's."""

    def read(self, layer: int, units: np.ndarray, into: Sequence[np.ndarray]) -> None:
        """Read units.

        Args:
          layer: number.
          units: (m,) ids, ascending.
          into: by plane, (m, *shape) contiguous arrays to be filled.
        """

    def close(self) -> None:
        """Give back what is held."""


class HostUnits:
    """All units of all layers in host memory.

    Example:
      >>> from sparsejax.models.sparse_inference.store.units import unit_layout
      >>> layer = FFNWeights(np.arange(6.0).reshape(3, 2), np.ones((3, 2)))
      >>> units = HostUnits([layer], [unit_layout(layer)])
      >>> into = [np.empty((2, 1, 2), np.float32) for _ in range(2)]
      >>> units.read(0, np.asarray([0, 2]), into)
      >>> into[0].tolist()
      [[[0.0, 1.0]], [[4.0, 5.0]]]
    """

    def __init__(self, layers: Sequence[FFNWeights], layouts: Sequence[UnitLayout]):
        """Contiguous arrays of the layers; those that are in host memory already are not copied.

        Args:
          layers: weights as `unit_layout` takes them.
          layouts: of them.
        """
        self.layouts = tuple(layouts)
        self.biases = tuple(bias_of(layer) for layer in layers)
        self._arrays = [
            unit_arrays(layer, layout) for layer, layout in zip(layers, self.layouts, strict=True)
        ]

    def read(self, layer: int, units: np.ndarray, into: Sequence[np.ndarray]) -> None:
        """As `UnitSource.read`."""
        for array, rows in zip(self._arrays[layer], into, strict=True):
            np.take(array, units, axis=0, out=rows, mode="clip")

    def close(self) -> None:
        """Forget the arrays."""
        self._arrays = [[] for _ in self._arrays]


def bias_of(layer: FFNWeights) -> np.ndarray | None:
    """The output's bias in host memory."""
    if layer.b_out is None:
        return None
    return np.asarray(layer.b_out, jax.dtypes.canonicalize_dtype(layer.b_out.dtype))
