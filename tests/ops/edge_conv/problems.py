"""Small problems of the op: pairs of every kind, filters, and a function of positions to differentiate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from sparsejax.ops.edge_conv import (
    Edges,
    MLPFilter,
    PairLayout,
    RadialFilter,
    edge_conv,
    ends,
    pairs_of_rows,
    tabulate,
)

CUTOFF = 4.0
CHANNELS = 5
NODES, SLOTS = 7, 5

# Node 2 neighbours an image of itself, 0 and 1 meet twice; 5 is isolated and 6 is padding.
PAIRS = ((0, 1), (0, 1), (2, 2), (0, 2), (1, 3), (2, 3), (3, 4), (0, 4))


class Rows(NamedTuple):
    """Symmetric rows of neighbours, as `pairs_of_rows` takes them."""

    senders: np.ndarray
    reverse: np.ndarray
    mask: np.ndarray


class Inputs(NamedTuple):
    """What the energy depends on."""

    scalars: jax.Array
    vectors: jax.Array | None
    positions: jax.Array
    radial_filter: RadialFilter


def rows_of(pairs: Sequence[tuple[int, int]], nodes: int, slots: int, seed: int | None = None) -> Rows:
    """Rows in which every pair fills two slots: from the first on, or with a seed in any order."""
    orders = np.repeat(np.arange(slots)[None], nodes, 0)
    if seed is not None:
        orders = np.random.default_rng(seed).permuted(orders, axis=1)
    senders = np.repeat(np.arange(nodes)[:, None], slots, 1)
    reverse, mask = np.repeat(np.arange(slots)[None], nodes, 0), np.zeros((nodes, slots), bool)
    free = [list(order) for order in orders]
    for first, second in pairs:
        one, other = free[first].pop(0), free[second].pop(0)
        senders[first, one], senders[second, other] = second, first
        reverse[first, one], reverse[second, other] = other, one
        mask[first, one] = mask[second, other] = True
    return Rows(senders.astype(np.int32), reverse.astype(np.int32), mask)


def layout_of(pairs: Sequence[tuple[int, int]] = PAIRS, seed: int | None = None) -> PairLayout:
    """Pairs of so many nodes and slots that all layouts share compiled programs."""
    with jax.enable_x64(False):
        return _pairs_of_rows()(*rows_of(pairs, NODES, SLOTS, seed))


@lru_cache
def _pairs_of_rows() -> Callable:
    return compiled(pairs_of_rows, *rows_of((), NODES, SLOTS))


def perceptron(
    parts: int, *, channels: int = CHANNELS, radial: int = 4, cutoff: float = CUTOFF, seed: int = 0, **options
) -> MLPFilter:
    """A random filter in float32, of the scale that networks start with."""
    draw = np.random.default_rng(seed).normal
    scale = 0.4 / np.sqrt(channels)

    def normal(by: float, *shape: int) -> jax.Array:
        return jnp.asarray(by * draw(size=shape), jnp.float32)

    return MLPFilter(
        centers=jnp.linspace(0, cutoff, radial, dtype=jnp.float32),
        widths=jnp.full(radial, cutoff / radial, jnp.float32),
        hidden=(normal(1, radial, channels), normal(0.3, channels)),
        outputs=tuple((normal(scale, channels, channels), normal(0.3, channels)) for _ in range(parts)),
        cutoff=cutoff,
        **options,
    )


def values(radial_filter: MLPFilter, distances: np.ndarray) -> list[np.ndarray]:
    """Its parts in float64, by the formulas of specs/force_field.md section 1."""
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), radial_filter)
    envelope = 0.5 * (np.cos(np.pi * np.minimum(distances / exact.cutoff, 1)) + 1)[:, None]
    radial = np.exp(-((distances[:, None] - exact.centers) ** 2) / exact.widths**2)
    inside = radial * envelope if exact.envelope == "radial" else radial
    before = inside @ exact.hidden[0] + exact.hidden[1]
    outputs = [before / (1 + np.exp(-before)) @ kernel + bias for kernel, bias in exact.outputs]
    return [part * envelope for part in outputs] if exact.envelope == "filter" else outputs


def inputs(kind: str, *, vectors: bool = True) -> Inputs:
    """Random ones in float32, with the filter "table" or "mlp"."""
    draw = np.random.default_rng(1).normal
    scalars, positions, given = (
        jnp.asarray(draw(size=shape), jnp.float32)
        for shape in ((NODES, CHANNELS), (NODES, 3), (NODES, 3, CHANNELS))
    )
    exact = perceptron(3 if vectors else 2, envelope="filter" if vectors else "radial")
    radial_filter = tabulate(exact, 32) if kind == "table" else exact
    return Inputs(scalars, given if vectors else None, positions, radial_filter)


def edges_of(positions: jax.Array, layout: PairLayout) -> Edges:
    """Every pair shifted by a vector of its own, so that a node is apart from its image."""
    first, second = ends(positions, layout)
    shifts = np.random.default_rng(4).normal(size=(layout.first.shape[0], 3)).astype(np.float32)
    vectors = second - first + jnp.asarray(shifts, positions.dtype)
    distances = jnp.sqrt((vectors**2).sum(-1))
    return Edges(distances, vectors / distances[:, None], layout.real & (distances <= CUTOFF))


def energy(given: Inputs, layout: PairLayout, convolve: Callable = edge_conv) -> tuple[jax.Array, Any]:
    """A number that is not linear in the sums, and the sums."""
    edges = edges_of(given.positions, layout)
    of_scalars, of_vectors = convolve(given.scalars, given.vectors, edges, given.radial_filter, layout)
    weights = jnp.cos(jnp.arange(of_scalars.size, dtype=of_scalars.dtype)).reshape(of_scalars.shape)
    number = (weights * (jnp.tanh(of_scalars) + (of_vectors**2).sum(1))).sum()
    return number, (of_scalars, of_vectors)


def sums(given: Inputs, layout: PairLayout, convolve: Callable = edge_conv) -> tuple[Any]:
    """Sums alone."""
    return (energy(given, layout, convolve)[1],)


def gradient(given: Inputs, layout: PairLayout, convolve: Callable = edge_conv) -> tuple[Any, Inputs]:
    """Sums, and gradient of the energy by all inputs."""
    found, both = jax.grad(energy, has_aux=True)(given, layout, convolve)
    return both, found


def second_derivative(
    given: Inputs, layout: PairLayout, convolve: Callable = edge_conv
) -> tuple[Any, Inputs, Inputs]:
    """These, and the gradient by all inputs of a function of the forces and of what features send back."""

    def of_first(given: Inputs) -> tuple[jax.Array, Any]:
        both, first = gradient(given, layout, convolve)
        weights = jnp.sin(jnp.arange(NODES * 3, dtype=first.positions.dtype)).reshape(NODES, 3)
        sent = sum((part**2).sum() for part in jax.tree.leaves((first.scalars, first.vectors)))
        return (weights * first.positions**2).sum() + sent, (both, first)

    second, (both, first) = jax.grad(of_first, has_aux=True)(given)
    return both, first, second


def compiled(function: Callable, *arguments: Any) -> Callable:
    """The function from a compilation with little optimisation, several times faster to make."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(function).lower(*arguments).compile(compiler_options=options)


def assert_close(found: Any, wanted: Any, tolerance: float) -> None:
    """Every array equal within a tolerance over its largest value."""
    for mine, truth in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        exact = np.asarray(truth, np.float64)
        np.testing.assert_allclose(
            np.asarray(mine, np.float64), exact, rtol=0, atol=tolerance * np.abs(exact).max()
        )


def equations(function: Callable, *arguments: Any) -> list[Any]:
    """All equations of a function's jaxpr, those inside loops, branches and calls too, but not of kernels."""
    return list(_equations(jax.make_jaxpr(function)(*arguments).jaxpr))


def _equations(jaxpr: Jaxpr) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        if equation.primitive.name == "pallas_call":
            continue
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                yield from _equations(getattr(inner, "jaxpr", inner))


def _is_jaxpr(leaf: Any) -> bool:
    return isinstance(leaf, Jaxpr | ClosedJaxpr)
