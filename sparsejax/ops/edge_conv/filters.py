"""Filters of the distance: the published perceptron, or a cubic table of it, each with its slope ready.

A filter depends on one number per edge. So its slope is carried forward beside its value, and the backward
pass from energies to distances is a multiplication, with no matrix product over edges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero

from sparsejax.ops.edge_conv.keep import kept

Envelope = Literal["radial", "filter"]
"""What vanishes at the cutoff: the radial functions that go into the perceptron, or what comes out of it."""

KNOTS = 1024


Parts = tuple[Array, ...]
"""Filters (*e, c) of scalars, of vectors, and of directions; without that of vectors in a first layer."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MLPFilter:
    """Radial functions and a perceptron of one hidden layer with SiLU.

    Attributes:
      centers: (k,) A.
      widths: (k,) A; a radial function is ``exp(-(d - center)^2 / width^2)``.
      hidden: kernel (k, c) and bias (c,).
      outputs: kernel (c, c) and bias (c,) of each part.
      cutoff: A.
      envelope: "radial" is as published: the filter does not vanish at the cutoff.

    Source: specs/force_field.md section 1, steps 3, 4 and 6.
    """

    centers: Array
    widths: Array
    hidden: tuple[Array, Array]
    outputs: tuple[tuple[Array, Array], ...]
    cutoff: float = field(metadata={"static": True})
    envelope: Envelope = field(default="radial", metadata={"static": True})

    def values(self, distances: Array) -> Parts:
        """The parts at distances (*e,)."""
        edge = distances[..., None]
        envelope = cosine_envelope(edge, self.cutoff)
        radial = jnp.exp(-(((edge - self.centers) / self.widths) ** 2))
        if self.envelope == "radial":
            radial = radial * envelope
        hidden = jax.nn.silu(radial @ self.hidden[0] + self.hidden[1])
        if self.envelope == "filter":
            return tuple((hidden @ kernel + bias) * envelope for kernel, bias in self.outputs)
        return tuple(hidden @ kernel + bias for kernel, bias in self.outputs)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TableFilter:
    """A cubic polynomial between each two of evenly spaced distances.

    Attributes:
      coefficients: of each part four arrays (intervals, c), of the powers 0 to 3 of the place in the
        interval. They are apart since XLA on CPU gathers rows of one matrix several times faster than slices
        of rows.
      cutoff: A, end of the last interval; beyond it the last polynomial goes on.
    """

    coefficients: tuple[tuple[Array, ...], ...]
    cutoff: float = field(metadata={"static": True})

    def values(self, distances: Array) -> Parts:
        """The parts at distances (*e,)."""
        intervals = self.coefficients[0][0].shape[0]
        scaled = distances * (intervals / self.cutoff)
        number = jnp.clip(jax.lax.stop_gradient(scaled).astype(jnp.int32), 0, intervals - 1)
        place = (scaled - number)[..., None]
        found = [[power[number] for power in powers] for powers in self.coefficients]
        return tuple(a + place * (b + place * (c + place * d)) for a, b, c, d in found)


RadialFilter = MLPFilter | TableFilter


def cosine_envelope(distances: Array, cutoff: float) -> Array:
    """Half a cosine from 1 at distance 0 to 0 at the cutoff and beyond."""
    return jnp.where(distances < cutoff, 0.5 * (jnp.cos(jnp.pi / cutoff * distances) + 1), 0)


def evaluate(radial_filter: RadialFilter, distances: Array, mask: Array) -> Parts:
    """The parts of a filter; slopes are computed beside values and only multiplied on the way back.

    Any order of derivative, with respect to distances and weights.

    Args:
      radial_filter: with parts (e, c).
      distances: (e,) A.
      mask: (e,) False where all parts are 0.

    Example:
      >>> powers = tuple(jnp.full((2, 1), value) for value in (1.0, 2.0, 0.0, 0.0))
      >>> flat, one = TableFilter((powers,), cutoff=4.0), jnp.ones(1, bool)
      >>> values = lambda d: evaluate(flat, d[None], one)[0][0, 0]
      >>> [part.tolist() for part in jax.vmap(jax.value_and_grad(values))(jnp.array([0.0, 1.0]))]
      [[1.0, 2.0], [1.0, 1.0]]
    """
    return _evaluate(radial_filter, distances, mask)


@jax.custom_jvp
def _evaluate(radial_filter: RadialFilter, distances: Array, mask: Array) -> Parts:
    return kept(partial(_masked_values, mask), (radial_filter, distances), distances)


def _evaluate_jvp(primals: Any, tangents: Any) -> tuple[Parts, Parts]:
    radial_filter, distances, mask = primals
    of_filter, of_distances, _ = tangents
    if _is_zero(of_distances):
        values = _evaluate(*primals)
        change = jax.tree.map(jnp.zeros_like, values)
    else:
        values, found = _with_slopes(radial_filter, distances, mask)
        change = tuple(part * of_distances[:, None] for part in found)
    if not all(_is_zero(leaf) for leaf in jax.tree.leaves(of_filter, is_leaf=_is_zero)):
        step = jax.tree.map(_instantiated, radial_filter, of_filter)
        weights = jax.jvp(lambda one: _masked_values(mask, (one, distances)), (radial_filter,), (step,))[1]
        change = jax.tree.map(jnp.add, change, weights)
    return values, change


_evaluate.defjvp(_evaluate_jvp, symbolic_zeros=True)


def slopes(radial_filter: RadialFilter, distances: Array) -> Parts:
    """Derivatives (*e, c) of the parts with respect to the distance, in forward mode.

    Args:
      radial_filter: with parts (*e, c).
      distances: (*e,) A.
    """
    found: Parts
    _, found = jax.jvp(radial_filter.values, (distances,), (jnp.ones_like(distances),))
    return found


def _with_slopes(radial_filter: RadialFilter, distances: Array, mask: Array) -> tuple[Parts, Parts]:
    operand = radial_filter, distances
    if isinstance(radial_filter, MLPFilter):
        return kept(partial(_masked_both, mask), operand, distances)
    # Not in one loop, in which XLA on CPU gathers every coefficient into an array of its own.
    parts = (_masked_values, _masked_slopes)
    values, found = (kept(partial(part, mask), operand, distances) for part in parts)
    return values, found


def _masked_values(mask: Array, operand: tuple[RadialFilter, Array]) -> Parts:
    return _masked(mask, operand[0].values(operand[1]))


def _masked_slopes(mask: Array, operand: tuple[RadialFilter, Array]) -> Parts:
    return _masked(mask, slopes(*operand))


def _masked_both(mask: Array, operand: tuple[RadialFilter, Array]) -> tuple[Parts, Parts]:
    radial_filter, distances = operand
    both = jax.jvp(radial_filter.values, (distances,), (jnp.ones_like(distances),))
    return _masked(mask, both[0]), _masked(mask, both[1])


def _masked(mask: Array, parts: Parts) -> Parts:
    return tuple(jnp.where(mask[:, None], part, 0) for part in parts)


def _is_zero(leaf: Any) -> bool:
    return type(leaf) is SymbolicZero


def _instantiated(leaf: Array, tangent: Any) -> Array:
    return jnp.zeros_like(leaf) if _is_zero(tangent) else tangent


def tabulate(radial_filter: MLPFilter, knots: int = KNOTS) -> TableFilter:
    """A table of a perceptron: the cubic spline through its float64 values, with its slopes at both ends.

    Outside jit. Coefficients are computed in float64: in float32 they move forces by 1e-4 eV/A.

    Args:
      radial_filter: of any number of parts.
      knots: intervals.

    Returns:
      the table, in the dtype of the filter's weights.
    """
    from scipy.interpolate import CubicSpline

    cutoff, dtype = radial_filter.cutoff, radial_filter.hidden[0].dtype
    places = np.linspace(0, cutoff, knots + 1)
    coefficients = []
    for values, slope in _exact(radial_filter, places):
        spline = CubicSpline(places, values, bc_type=((1, slope[0]), (1, slope[-1])))
        powers = (spline.c[3 - power] * (cutoff / knots) ** power for power in range(4))
        coefficients.append(tuple(jnp.asarray(power, dtype) for power in powers))
    return TableFilter(tuple(coefficients), cutoff)


class TableError(NamedTuple):
    """How far a table is from its perceptron.

    Attributes:
      values: largest difference of a value, over the largest value of its part.
      slopes: largest difference of a slope, over the largest slope of its part.
    """

    values: float
    slopes: float


def table_error(table: TableFilter, radial_filter: MLPFilter, places: int = 4096) -> TableError:
    """Compare a table with the float64 perceptron at places that are no knots.

    Args:
      table: of the filter.
      radial_filter: what it stands for.
      places: distances to look at, from a hundredth of the cutoff to just below it.
    """
    cutoff = radial_filter.cutoff
    distances = np.linspace(0.01 * cutoff, 0.999 * cutoff, places, dtype=np.float32)
    found = jnp.asarray(distances)
    values, slope = zip(*_exact(radial_filter, distances.astype(np.float64)), strict=True)
    of_values = map(_largest_error, table.values(found), values)
    return TableError(max(of_values), max(map(_largest_error, slopes(table, found), slope)))


def _largest_error(found: Array, truth: np.ndarray) -> float:
    return float(np.abs(np.asarray(found) - truth).max() / np.abs(truth).max())


def _exact(radial_filter: MLPFilter, distances: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Values and slopes of the parts in float64, whatever JAX is set to: slopes by a complex step."""
    step = 1e-40
    wide = jax.tree.map(np.float64, radial_filter)
    edge = distances[:, None] + 1j * step
    inside = edge.real < wide.cutoff
    envelope = np.where(inside, 0.5 * (np.cos(np.pi / wide.cutoff * edge) + 1), 0)
    radial = np.exp(-(((edge - wide.centers) / wide.widths) ** 2))
    if wide.envelope == "radial":
        radial = radial * envelope
    before = radial @ wide.hidden[0] + wide.hidden[1]
    hidden = before / (1 + np.exp(-before))
    parts = [hidden @ kernel + bias for kernel, bias in wide.outputs]
    parts = [part * envelope for part in parts] if wide.envelope == "filter" else parts
    return [(part.real, part.imag / step) for part in parts]
