"""A tensor whose numbers stay in the blocks of their format."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from numpy.typing import ArrayLike

from sparsejax.ops.quantized import unpacking
from sparsejax.ops.quantized.decode import PLAIN_DTYPES, as_bytes, checked_blocks
from sparsejax.ops.quantized.encode import encode
from sparsejax.ops.quantized.formats import BlockFormat, byte_count, format_named
from sparsejax.ops.quantized.planes import Cut, Order, default_lanes, from_planes, plane_shapes, to_planes
from sparsejax.ops.quantized.row_indices import checked_indices, fill_outside


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QuantizedTensor:
    """Numbers in a format of `FORMATS`, as a pytree whose leaves are the planes.

    Transformations act on the planes: under ``vmap`` they have an axis more outside, while ``shape`` is that
    of one tensor. Sharding along their first axis splits the rows, or in the order "columns" the columns.

    Attributes:
      planes: arrays by name, see `planes`; of plain formats only "values".
      format: a name in ``FORMATS``.
      shape: of the numbers; blocks lie along the last axis.
      order: what lies together in the planes, tiles of rows or 32 columns; any is right, and
        `sparse_quantized_ffn` is faster with "columns" for the output matrix.

    Example:
      >>> weights = QuantizedTensor.quantize(np.linspace(-1, 1, 64).reshape(2, 32), "q8_0")
      >>> weights.shape, weights.dequantize()[0, 0], len(weights.to_bytes())
      ((2, 32), Array(-0.99993896, dtype=float32), 68)
    """

    planes: dict[str, Any]
    format: str = field(metadata={"static": True})
    shape: tuple[int, ...] = field(metadata={"static": True})
    order: Order = field(default="rows", metadata={"static": True})

    @classmethod
    def quantize(cls, x: ArrayLike, format: str, *, order: Order = "rows") -> QuantizedTensor:  # noqa: A002
        """The tensor nearest to ``x``, as `encode` makes it.

        Args:
          x: finite numbers of any shape whose last axis is whole blocks.
          format: a name in ``FORMATS`` that `encode` takes.
          order: of the planes.

        Raises:
          ValueError: as `encode`, or the last axis is not whole blocks.

        Example:
          >>> QuantizedTensor.quantize(np.ones((3, 5)), "q4_0")
          Traceback (most recent call last):
          ValueError: rows of 5 elements are not whole blocks of 32, as q4_0 needs; ...
        """
        layout, values = format_named(format), np.asarray(x)
        byte_count(layout, values.shape)
        return cls.from_bytes(encode(values, layout), layout.name, values.shape, order=order)

    @classmethod
    def from_bytes(
        cls,
        raw: np.ndarray | bytes,
        format: str,  # noqa: A002
        shape: tuple[int, ...],
        *,
        order: Order = "rows",
        lanes: int | None = None,
    ) -> QuantizedTensor:
        """The tensor that bytes of a file hold.

        Args:
          raw: uint8 array or bytes, row after row.
          format: a name in ``FORMATS``.
          shape: in NumPy's order: the last axis is the one that lies together.
          order: of the planes.
          lanes: rows of a tile; None is what CPUs like best, while registers of TPUs have 128.

        Raises:
          ValueError: no such format, rows that are not whole blocks, or another number of bytes.

        Example:
          >>> QuantizedTensor.from_bytes(b"00", "q8_0", (32,))
          Traceback (most recent call last):
          ValueError: q8_0 of shape (32,) needs 34 bytes, but 2 were given
        """
        layout, flat = format_named(format), as_bytes(raw)
        shape = tuple(int(size) for size in shape)
        if any(size < 1 for size in shape):
            raise ValueError(f"shape {shape} has a size below 1")
        if order not in ("rows", "columns"):
            raise ValueError(f"no order {order!r}; choose 'rows' or 'columns'")
        if order == "columns" and layout.plain and len(shape) != 2:
            raise ValueError(f"only matrices have columns, not shape {shape}")
        wanted = byte_count(layout, shape)
        if flat.size != wanted:
            raise ValueError(
                f"{layout.name} of shape {shape} needs {wanted} bytes, but {flat.size} were given"
            )
        blocks = checked_blocks(flat, layout, math.prod(shape))
        if layout.plain:
            values = flat.view(PLAIN_DTYPES[layout.name]).reshape(shape)
            planes = {"values": values.T if order == "columns" else values}
        else:
            planes = to_planes(blocks, layout, _rows(shape), Cut(order, lanes or default_lanes(layout)))
        return cls({name: jnp.array(plane) for name, plane in planes.items()}, layout.name, shape, order)

    @classmethod
    def described(cls, format: str, shape: tuple[int, ...], *, order: Order = "rows") -> QuantizedTensor:  # noqa: A002
        """What `from_bytes` gives, with shapes and dtypes (`jax.ShapeDtypeStruct`) in place of planes.

        Args:
          format: a name in ``FORMATS``.
          shape: in NumPy's order.
          order: of the planes.

        Example:
          >>> QuantizedTensor.described("q4_0", (64, 32)).planes["d"].shape
          (2, 1, 32)
        """
        layout = format_named(format)
        byte_count(layout, shape)
        if layout.plain:
            stored = shape[::-1] if order == "columns" else shape
            planes = {"values": (stored, np.dtype(PLAIN_DTYPES[layout.name]))}
        else:
            planes = plane_shapes(layout, _rows(shape), shape[-1], Cut(order, default_lanes(layout)))
        found = {name: jax.ShapeDtypeStruct(*told) for name, told in planes.items()}
        return cls(found, layout.name, shape, order)

    @property
    def layout(self) -> BlockFormat:
        """What a block of the format holds."""
        return format_named(self.format)

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
        """Bytes of the planes in memory, rows that complete the last tile included."""
        return sum(math.prod(plane.shape) * plane.dtype.itemsize for plane in self.planes.values())

    @property
    def lanes(self) -> int:
        """Rows of a tile of the planes; 1 of plain formats."""
        return 1 if self.layout.plain else self.planes["low"].shape[-1]

    def to_bytes(self) -> np.ndarray:
        """The bytes of a file: those that `from_bytes` took.

        Returns:
          uint8 (bytes,).

        Example:
          >>> raw = np.arange(2 * 144, dtype=np.uint8)
          >>> (QuantizedTensor.from_bytes(raw, "q4_k", (2, 256)).to_bytes() == raw).all()
          np.True_
        """
        planes = {name: np.asarray(plane) for name, plane in self.planes.items()}
        if self.layout.plain:
            values = planes["values"].T if self.order == "columns" else planes["values"]
            return np.ascontiguousarray(values, PLAIN_DTYPES[self.format]).reshape(-1).view(np.uint8)
        return from_planes(planes, self.layout, _rows(self.shape), self.order).reshape(-1)

    def dequantize(self, dtype: DTypeLike = jnp.float32) -> Array:
        """The numbers.

        Args:
          dtype: of the result; the arithmetic is that of ggml in float32. Under jit the compiler may
            round once where a product and a minimum are added.

        Returns:
          (*shape) of ``dtype``.

        Example:
          >>> QuantizedTensor.quantize(np.ones((2, 32)), "q4_1").dequantize(jnp.bfloat16).dtype
          dtype(bfloat16)
        """
        if self.layout.plain:
            stored: Array = self.planes["values"]
            return (stored.T if self.order == "columns" else stored).astype(dtype)
        values = unpacking.values_of(self.planes, self.layout, self.order)
        return unpacking.as_matrix(values, _rows(self.shape), self.order).reshape(self.shape).astype(dtype)

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
          >>> QuantizedTensor.quantize(np.eye(3, 32), "q8_0").rows([2]).argmax()
          Array(2, dtype=int32)
        """
        count = _rows(self.shape)
        indices = checked_indices(indices, count)
        if self.layout.plain:
            values = self.planes["values"]
            flat = values.T if self.order == "columns" else values
            taken = flat.reshape(count, -1)[jnp.clip(indices, 0, count - 1)].astype(jnp.float32)
        else:
            taken = self._rows_of_blocks(jnp.clip(indices, 0, count - 1))
        return fill_outside(taken, indices, count)

    def ordered(self, order: Order) -> QuantizedTensor:
        """The same tensor with its planes in another order.

        Args:
          order: "rows" or "columns".

        Example:
          >>> QuantizedTensor.quantize(np.ones((64, 96)), "q8_0").ordered("columns").planes["low"].shape
          (3, 4, 32, 16)
        """
        if order == self.order:
            return self
        if self.layout.plain:
            planes = {name: jnp.swapaxes(plane, -1, -2) for name, plane in self.planes.items()}
        else:
            planes = {
                name: jnp.swapaxes(plane, *((-3, -2) if name in ("d", "m") else (-4, -3)))
                for name, plane in self.planes.items()
            }
        return replace(self, planes=planes, order=order)

    def _rows_of_blocks(self, indices: Array) -> Array:
        """float32 (*b, c): the numbers of the rows, as tiles of one lane."""
        tile, lane = jnp.divmod(indices.reshape(-1), self.lanes)
        axis = "tc" if self.order == "rows" else "ct"

        def take(plane: Array) -> Array:
            # (n, b, ...): the row's own lane of its tile
            if axis == "tc":
                return plane[tile, ..., lane]
            return jnp.moveaxis(plane, 1, 0)[tile, ..., lane]

        planes = {name: take(plane)[..., None] for name, plane in self.planes.items()}
        values = unpacking.values_of(planes, self.layout, "rows")
        return values.reshape(*indices.shape, self.shape[-1])


def _rows(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1])
