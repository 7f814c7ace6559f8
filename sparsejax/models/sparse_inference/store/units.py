"""A layer cut into units that are moved as one: a neuron, or a block of neurons that are quantised together.

Of a quantised matrix a unit is whole blocks, so that cutting loses nothing: 32 neurons, 256 of the K formats,
whose blocks of ffn_down run along the neurons. All arrays of a unit are the parts along the first axis of the
layer's arrays: of plain matrices (f, d) the rows, of quantised ones the tiles of rows, and of the quantised
output matrix (d, f), in the order "columns", the tiles of columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.ops.quantized import FORMATS, QuantizedTensor
from sparsejax.ops.quantized.formats import byte_count
from sparsejax.ops.quantized.planes import Order
from sparsejax.ops.sparse_ffn import FFNWeights

_FIELDS = ("w_in", "w_out", "w_gate", "b_in", "b_gate")
_TILE = 32
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int8", "uint8")


class PlaneLayout(NamedTuple):
    """One array of a unit.

    Attributes:
      name: of the plane; "" of a plain matrix.
      shape: of a unit's part.
      dtype: its name.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Of a unit's part."""
        return math.prod(self.shape) * jnp.dtype(self.dtype).itemsize


class FieldLayout(NamedTuple):
    """One matrix or vector of a unit.

    Attributes:
      name: of `FFNWeights`.
      width: numbers of a neuron; 0 of a bias.
      planes: its arrays.
      format: of a quantised matrix; "" of a plain one.
    """

    name: str
    width: int
    planes: tuple[PlaneLayout, ...]
    format: str = ""


class UnitLayout(NamedTuple):
    """What a unit of a layer holds.

    Attributes:
      neurons: of the layer.
      unit: neurons of a unit.
      fields: of a unit.

    Example:
      >>> layout = unit_layout(FFNWeights(jnp.ones((8, 4)), jnp.ones((8, 4))))
      >>> layout.units, layout.unit, layout.unit_bytes
      (8, 1, 32)
    """

    neurons: int
    unit: int
    fields: tuple[FieldLayout, ...]

    @property
    def units(self) -> int:
        """Of the layer."""
        return self.neurons // self.unit

    @property
    def planes(self) -> tuple[PlaneLayout, ...]:
        """All arrays of a unit, in order."""
        return tuple(plane for field in self.fields for plane in field.planes)

    @property
    def unit_bytes(self) -> int:
        """Of one unit."""
        return sum(plane.nbytes for plane in self.planes)

    @property
    def quantized(self) -> bool:
        """Whether a matrix is."""
        return any(field.format for field in self.fields)

    def weights(self, arrays: Sequence[Any], bias: Any = None) -> FFNWeights:
        """The weights that the arrays of some units make; quantised matrices as `QuantizedTensor`.

        Args:
          arrays: in the order of ``planes``, with an axis of the units in front.
          bias: of the output, (d,).
        """
        count, rest = len(arrays[0]) * self.unit, iter(arrays)
        found: dict[str, Any] = {}
        for field in self.fields:
            mine = {
                plane.name: jnp.reshape(array, (-1, *plane.shape[1:]))
                for plane, array in zip(field.planes, rest, strict=False)
            }
            if not field.format:
                (found[field.name],) = mine.values()
                continue
            order = _order(field.name)
            shape = (field.width, count) if order == "columns" else (count, field.width)
            found[field.name] = QuantizedTensor(mine, field.format, shape, order)
        return FFNWeights(**found, b_out=bias)


def unit_layout(weights: FFNWeights, unit: int | None = None) -> UnitLayout:
    """How a layer is cut.

    Args:
      weights: of f neurons. Plain arrays as in `FFNWeights`; matrices may be `QuantizedTensor` instead,
        ``w_in`` and ``w_gate`` (f, d), ``w_out`` as in files, (d, f).
      unit: neurons of a unit; None is the fewest that can be cut without loss.

    Raises:
      ValueError: shapes that do not fit, or neurons that are no whole number of units.

    Example:
      >>> w = QuantizedTensor.quantize(np.ones((64, 64)), "q8_0")
      >>> unit_layout(FFNWeights(w, w)).unit
      32
    """
    least = math.lcm(*(_least_unit(name, part) for name, part in _parts(weights)))
    unit = least if unit is None else unit
    neurons = weights.w_in.shape[0]
    if unit < 1 or unit % least:
        raise ValueError(f"a unit must be a multiple of {least} neurons, not {unit}")
    if neurons % unit:
        raise ValueError(f"{neurons} neurons are no whole number of units of {unit}")
    fields = tuple(_field(name, part, neurons, unit) for name, part in _parts(weights))
    return UnitLayout(neurons, unit, fields)


def unit_arrays(weights: FFNWeights, layout: UnitLayout) -> list[np.ndarray]:
    """The arrays of all units in host memory, in the order of ``layout.planes``, units in front.

    Args:
      weights: as in `unit_layout`.
      layout: of them.
    """
    found = []
    for field, (_, part) in zip(layout.fields, _parts(weights), strict=True):
        planes = part.ordered(_order(field.name)).planes if field.format else {"": part}
        found += [
            np.ascontiguousarray(planes[plane.name], jnp.dtype(plane.dtype)).reshape(
                layout.units, *plane.shape
            )
            for plane in field.planes
        ]
    return found


def to_json(layout: UnitLayout) -> dict[str, Any]:
    """As JSON values; `from_json` is the inverse.

    Example:
      >>> layout = unit_layout(FFNWeights(jnp.ones((8, 4)), jnp.ones((8, 4)), b_in=jnp.ones(8)), 2)
      >>> from_json(to_json(layout)) == layout
      True
    """
    fields = [
        {**field._asdict(), "planes": [plane._asdict() for plane in field.planes]} for field in layout.fields
    ]
    return {"neurons": layout.neurons, "unit": layout.unit, "fields": fields}


def from_json(values: Any, limit: int | None = None) -> UnitLayout:
    """The layout that `to_json` wrote.

    Args:
      values: of JSON, from anywhere.
      limit: bytes that all units may take; nothing larger is allocated to check them.

    Raises:
      ValueError: the values are no layout, or one of more bytes.
    """
    try:
        layout = UnitLayout(
            values["neurons"], values["unit"], tuple(_field_from_json(each) for each in values["fields"])
        )
        sizes = (layout.neurons, layout.unit, *(n for plane in layout.planes for n in plane.shape))
        names = [field.name for field in layout.fields]
        if not all(type(size) is int and 0 < size < 1 << 40 for size in sizes):
            raise ValueError("a size is no positive integer")
        if layout.neurons % layout.unit or names[:2] != ["w_in", "w_out"] or not {*names} <= {*_FIELDS}:
            raise ValueError("its parts do not fit together")
        if limit is not None and layout.units * layout.unit_bytes > limit:
            raise ValueError(f"it needs {layout.units * layout.unit_bytes} bytes, there are {limit}")
        _check_fields(layout)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"no layout of neurons: {error}") from error
    return layout


def hot_units(neurons: np.ndarray | Sequence[int], layout: UnitLayout) -> np.ndarray:
    """The units that hold the hot neurons, ascending.

    Args:
      neurons: ids, in any order.
      layout: of the layer.

    Raises:
      ValueError: the layer has no such neuron.

    Example:
      >>> layout = UnitLayout(64, 16, (FieldLayout("w_in", 8, (PlaneLayout("", (16, 8), "float32"),)),))
      >>> hot_units([40, 3, 7], layout).tolist()
      [0, 2]
    """
    ids = np.unique(np.asarray(neurons, np.int64))
    if ids.size and not 0 <= ids[0] <= ids[-1] < layout.neurons:
        raise ValueError(f"hot neurons must be 0 to {layout.neurons - 1}, not {ids[0]} to {ids[-1]}")
    return np.unique(ids // layout.unit)


def checked_dtype(name: Any) -> np.dtype:
    """The dtype of a name in a file.

    Raises:
      ValueError: weights have no such dtype.
    """
    if name not in _DTYPES:
        raise ValueError(f"no dtype of weights: {name!r}")
    found = jnp.dtype(name)
    if jax.dtypes.canonicalize_dtype(found) != found:
        raise ValueError(f"weights of {name} need jax_enable_x64")
    return found


def _parts(weights: FFNWeights) -> list[tuple[str, Any]]:
    found = [(name, getattr(weights, name)) for name in _FIELDS]
    return [(name, part) for name, part in found if part is not None]


def _order(name: str) -> Order:
    return "columns" if name == "w_out" else "rows"


def _least_unit(name: str, part: Any) -> int:
    if not isinstance(part, QuantizedTensor):
        return 1
    if part.layout.plain:
        return 1
    return math.lcm(_TILE, part.layout.block) if name == "w_out" else _TILE


def _field(name: str, part: Any, neurons: int, unit: int) -> FieldLayout:
    turned = isinstance(part, QuantizedTensor) and name == "w_out"
    shape = tuple(part.shape)[::-1] if turned else tuple(part.shape)
    axes = 2 if name.startswith("w") else 1
    if len(shape) != axes or shape[0] != neurons:
        raise ValueError(
            f"{name} of shape {tuple(part.shape)} does not fit {neurons} neurons; plain matrices are (f, d), "
            "the quantised output matrix is (d, f)"
        )
    width, units = (shape[1] if axes == 2 else 0), neurons // unit
    if not isinstance(part, QuantizedTensor):
        plane = PlaneLayout("", (unit, *shape[1:]), jax.dtypes.canonicalize_dtype(part.dtype).name)
        return FieldLayout(name, width, (plane,))
    planes = jax.eval_shape(lambda tensor: tensor.ordered(_order(name)).planes, part)
    found = (
        PlaneLayout(plane, (array.shape[0] // units, *array.shape[1:]), jnp.dtype(array.dtype).name)
        for plane, array in planes.items()
    )
    return FieldLayout(name, width, tuple(found), part.format)


def _field_from_json(values: Any) -> FieldLayout:
    planes = (
        PlaneLayout(str(plane["name"]), tuple(plane["shape"]), checked_dtype(plane["dtype"]).name)
        for plane in values["planes"]
    )
    return FieldLayout(str(values["name"]), int(values["width"]), tuple(planes), str(values["format"]))


def _check_fields(layout: UnitLayout) -> None:
    """Refuse arrays that are not those of their matrix."""
    for field in layout.fields:
        if field.format and field.format not in FORMATS:
            raise ValueError(f"{field.name} has the unknown format {field.format!r}")
        if not field.format:
            wanted = (layout.unit, field.width) if field.name.startswith("w") else (layout.unit,)
            if [plane.shape for plane in field.planes] != [wanted] or field.planes[0].name:
                raise ValueError(f"{field.name} has no array of shape {wanted}")
            continue
        shape = (field.width, layout.unit) if field.name == "w_out" else (layout.unit, field.width)
        if field.width * layout.unit > 8 * sum(plane.nbytes for plane in field.planes):
            raise ValueError(f"{field.name} has too few bytes for a width of {field.width}")
        raw = np.zeros(byte_count(FORMATS[field.format], shape), np.uint8)
        empty = QuantizedTensor.from_bytes(raw, field.format, shape)
        wanted_field = _field(field.name, empty, layout.unit, layout.unit)
        if wanted_field != field:
            raise ValueError(f"{field.name} is not stored as {field.format} is")
