"""Codes of 8 or 4 bits with a scale and a zero point, for a whole tensor or for groups of its elements."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from numpy.typing import ArrayLike

from sparsejax.ops.quantized.encode import refuse_non_finite, round_half_away
from sparsejax.ops.quantized.row_indices import checked_indices, fill_outside

GROUP_SIZE = 32
"""Elements of a group of 4 bits where none is given."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AffineTensor:
    """A tensor of affine codes, in one of the two published forms.

    By tensor, of 8 bits: ``(data - zero_points) * scales`` with int8 data and one integer zero point. By
    group, of 8 or 4 bits: ``data * scales + zero_points`` with unsigned data and the minimum of each group;
    groups go through all elements in order, over the ends of rows, and the last may be short.

    Attributes:
      data: int8 (n,) by tensor; uint8 (n,) or, of 4 bits, (ceil(n / 2),) with the even element in the low
        half of a byte.
      scales: float32 () by tensor, (groups,) by group.
      zero_points: int32 () by tensor, float32 (groups,) by group.
      shape: of the numbers.
      bits: of a code, 8 or 4.
      group_size: elements of a group; None is by tensor.

    Example:
      >>> weights = AffineTensor.quantize(np.linspace(0, 15, 16), 4, group_size=16)
      >>> weights.data.shape, weights.dequantize()[:3].tolist()
      ((8,), [0.0, 1.0, 2.0])

    Source: specs/sparse_inference.md section 5.
    """

    data: Any
    scales: Any
    zero_points: Any
    shape: tuple[int, ...] = field(metadata={"static": True})
    bits: int = field(default=8, metadata={"static": True})
    group_size: int | None = field(default=None, metadata={"static": True})

    @classmethod
    def quantize(cls, x: ArrayLike, bits: int = 8, *, group_size: int | None = None) -> AffineTensor:
        """The codes nearest to ``x``, halves rounded away from zero. Constants are kept exactly.

        Args:
          x: finite numbers of any shape, at least one.
          bits: 8 or 4.
          group_size: elements that share a scale; None is the whole tensor with 8 bits, 32 with 4.

        Raises:
          ValueError: other bits, an empty group, or a number that is NaN or infinite or a range too wide.

        Example:
          >>> AffineTensor.quantize(np.full((2, 3), 0.1)).dequantize().tolist()[0]
          [0.10000000149011612, 0.10000000149011612, 0.10000000149011612]
        """
        if bits not in (4, 8):
            raise ValueError(f"affine codes have 8 or 4 bits, not {bits}")
        if group_size is None and bits == 4:
            group_size = GROUP_SIZE
        if group_size is not None and group_size < 1:
            raise ValueError(f"group_size must be at least 1, not {group_size}")
        values = np.asarray(x)
        if not values.size:
            raise ValueError("there is no number to quantize")
        shape = values.shape
        with np.errstate(over="ignore"):
            flat = values.astype(np.float32).reshape(-1)
        refuse_non_finite(flat, f"{bits}-bit affine form")
        parts = _by_tensor(flat) if group_size is None else _by_group(flat, bits, group_size)
        data, scales, zeros = (jnp.asarray(part) for part in parts)
        return cls(data, scales, zeros, shape, bits, group_size)

    @classmethod
    def from_dict(cls, published: Mapping[str, Any]) -> AffineTensor:
        """The tensor of a published JSON document, by group.

        Args:
          published: with data, scales, zero_points, group_size, shape and bits.

        Raises:
          ValueError: a key is missing, or the lengths do not fit each other.

        Example:
          >>> AffineTensor.from_dict(AffineTensor.quantize(np.ones((2, 3)), 4).to_dict()).shape
          (2, 3)
        """
        wanted = ("data", "scales", "zero_points", "group_size", "shape", "bits")
        missing = [name for name in wanted if name not in published]
        if missing:
            raise ValueError(f"affine weights lack {', '.join(missing)}")
        bits, group = int(published["bits"]), int(published["group_size"])
        shape = tuple(int(size) for size in published["shape"])
        if bits not in (4, 8) or group < 1 or any(size < 1 for size in shape):
            raise ValueError(f"no affine weights have {bits} bits, groups of {group} and shape {shape}")
        count = math.prod(shape)
        data = np.asarray(published["data"])
        if data.size and (data.dtype.kind not in "iu" or data.min() < 0 or data.max() > 255):
            raise ValueError("data of affine weights must be bytes, 0 to 255")
        groups = -(-count // group)
        scales, zeros = (np.asarray(published[name], np.float32) for name in ("scales", "zero_points"))
        for name, part, length in (
            ("data", data, -(-count * bits // 8)),
            ("scales", scales, groups),
            ("zero_points", zeros, groups),
        ):
            if part.shape != (length,):
                raise ValueError(
                    f"{name} of affine weights {shape} must have shape ({length},), not {part.shape}"
                )
        return cls(jnp.asarray(data, jnp.uint8), jnp.asarray(scales), jnp.asarray(zeros), shape, bits, group)

    def to_dict(self) -> dict[str, Any]:
        """The published JSON document, of a tensor by group.

        Raises:
          ValueError: the tensor is by tensor, which has no published document.

        Example:
          >>> AffineTensor.quantize([0.0, 15.0, 3.0], 4).to_dict()["data"]
          [240, 3]
        """
        if self.group_size is None:
            raise ValueError("only affine weights by group have a published document; give a group_size")
        arrays = {
            name: np.asarray(getattr(self, name)).tolist() for name in ("data", "scales", "zero_points")
        }
        return {**arrays, "group_size": self.group_size, "shape": list(self.shape), "bits": self.bits}

    @property
    def format(self) -> str:
        """The name: "int8" or "int4"."""
        return f"int{self.bits}"

    @property
    def ndim(self) -> int:
        """Axes of the numbers."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the codes, scales and zero points."""
        return sum(
            math.prod(part.shape) * part.dtype.itemsize for part in (self.data, self.scales, self.zero_points)
        )

    def dequantize(self, dtype: DTypeLike = jnp.float32) -> Array:
        """The numbers.

        Args:
          dtype: of the result; the arithmetic is in float32.

        Returns:
          (*shape) of ``dtype``.

        Example:
          >>> AffineTensor.quantize([[-1.0, 0.0, 1.0]]).dequantize().shape
          (1, 3)
        """
        return self._elements(jnp.arange(self.size)).reshape(self.shape).astype(dtype)

    def rows(self, indices: ArrayLike) -> Array:
        """The numbers of some rows; nothing of the others is computed.

        Args:
          indices: integers (*b), counted along all axes but the last.

        Returns:
          float32 (*b, c). Where an index under jit is out of range, NaN.

        Raises:
          IndexError: an index, not traced, is out of range.
          TypeError: the indices are not integers.

        Example:
          >>> AffineTensor.quantize(np.ones((3, 5)), 4).rows([2]).tolist()
          [[1.0, 1.0, 1.0, 1.0, 1.0]]
        """
        count, width = math.prod(self.shape[:-1]), self.shape[-1]
        indices = checked_indices(indices, count)
        taken = self._elements(jnp.clip(indices, 0, count - 1)[..., None] * width + jnp.arange(width))
        return fill_outside(taken, indices, count)

    def _elements(self, places: Array) -> Array:
        """float32 (*b) of the elements at ``places`` (*b)."""
        if self.bits == 4:
            codes: Array = (self.data[places // 2] >> ((places % 2) * 4).astype(jnp.uint8)) & 15
        else:
            codes = self.data[places]
        if self.group_size is None:
            of_tensor: Array = (codes.astype(jnp.int32) - self.zero_points).astype(jnp.float32) * self.scales
            return of_tensor
        group = places // self.group_size
        of_groups: Array = codes.astype(jnp.float32) * self.scales[group] + self.zero_points[group]
        return of_groups


def _by_tensor(flat: np.ndarray) -> tuple[ArrayLike, ArrayLike, ArrayLike]:
    low, high = float(flat.min()), float(flat.max())
    scale = np.float32((high - low) / 255)
    zero = np.float64(-128) - low / np.float64(scale) if scale > 0 else np.inf
    if abs(zero) >= np.iinfo(np.int32).max:  # constant, or as good as that in float32
        middle = np.float32(low + (high - low) / 2)
        codes = np.full(flat.shape, middle != 0, np.int8)
        return codes, middle if middle else np.float32(1), np.int32(0)
    zero_point = int(round_half_away(np.asarray(zero)))
    places = round_half_away(flat.astype(np.float64) / np.float64(scale)) + zero_point
    return np.clip(places, -128, 127).astype(np.int8), scale, np.int32(zero_point)


def _by_group(flat: np.ndarray, bits: int, group_size: int) -> tuple[ArrayLike, ArrayLike, ArrayLike]:
    most = (1 << bits) - 1
    starts = np.arange(0, flat.size, group_size)
    low, high = np.minimum.reduceat(flat, starts), np.maximum.reduceat(flat, starts)
    with np.errstate(over="ignore"):
        scales = (high - low) / np.float32(most)
    if not np.isfinite(scales).all():
        raise ValueError("the range of the numbers in a group overflows float32")
    scales = np.where(scales > 0, scales, np.float32(1))
    group = np.arange(flat.size) // group_size
    codes = np.clip(round_half_away((flat - low[group]) / scales[group]), 0, most).astype(np.uint8)
    if bits == 4:
        codes = np.pad(codes, (0, codes.size % 2)).reshape(-1, 2)
        codes = codes[:, 0] | (codes[:, 1] << 4)
    return codes, scales, low
