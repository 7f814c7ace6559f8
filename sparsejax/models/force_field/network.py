"""The network: species and the vectors between neighbours in, an energy per atom out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.ops.edge_conv import EdgeLayout, Edges, MLPFilter, PairLayout, RadialFilter, edge_conv
from sparsejax.typing import Params

Features = tuple[Array, Array | None]
"""Scalars (n, c) and vectors (n, 3, c) of the atoms; None before the first message."""

_DIRECTION_EPSILON = 1e-8


def atomic_energies(
    config: ForceFieldConfig,
    params: Params,
    species: Array,
    displacements: Array,
    layout: PairLayout | EdgeLayout,
    *,
    mask: Array,
    filters: Sequence[RadialFilter] | None = None,
    backend: str = "auto",
) -> Array:
    """Energy of each atom.

    Args:
      config: sizes and kind.
      params: of `StudentForceField`.
      species: (n,) atomic numbers; 0 for padding, whose energy means nothing.
      displacements: (e, 3) A, from the receiver of each edge to its sender, or from the first atom of each
        pair to the second.
      layout: directed edges, or pairs.
      mask: (e,) which of them there are; those longer than the cutoff are left out besides.
      filters: of each interaction; None computes them from the parameters.
      backend: of `edge_conv`.

    Returns:
      (n,) eV.

    Source: specs/force_field.md section 1; section 2 for the variant "equivariant".
    """
    filters = filters or exact_filters(config, params)
    distances = _norm(displacements)
    directions = displacements / (distances + _DIRECTION_EPSILON)[..., None]
    edges = Edges(distances, directions, mask & (distances <= config.cutoff))
    scalars, vectors = params["embedding"]["embedding"][species], None
    for number in range(config.num_interactions):
        of_scalars, of_vectors = edge_conv(scalars, vectors, edges, filters[number], layout, backend=backend)
        moved = of_vectors if vectors is None else vectors + of_vectors
        last = number == config.num_interactions - 1
        update = params[f"interaction_{number}"]["update"]
        scalars, vectors = _updated(config, update, scalars + of_scalars, moved, last=last)
    energies = _readout(params["readout"], scalars)
    if config.reference_energies:
        energies = energies + params["reference_energies"][species]
    return energies


def exact_filters(config: ForceFieldConfig, params: Params) -> tuple[MLPFilter, ...]:
    """The filters of all interactions, as the parameters say.

    Args:
      config: sizes and kind.
      params: of `StudentForceField`.

    Returns:
      one per interaction; the first, which finds no vectors, without their part.
    """
    rbf = params["rbf"]
    if not config.learnable_rbf:
        rbf = jax.lax.stop_gradient(rbf)
    filters = []
    for number in range(config.num_interactions):
        message, channels = params[f"interaction_{number}"]["message"], config.hidden_dim
        parts = (0, 2) if number == 0 else (0, 1, 2)
        kernel, bias = message["filter"]["kernel"], message["filter"]["bias"]
        columns = [slice(part * channels, (part + 1) * channels) for part in parts]
        filters.append(
            MLPFilter(
                centers=rbf["centers"],
                widths=rbf["widths"],
                hidden=(message["hidden"]["kernel"], message["hidden"]["bias"]),
                outputs=tuple((kernel[:, column], bias[column]) for column in columns),
                cutoff=config.cutoff,
                envelope="radial" if config.variant == "cartesian" else "filter",
            )
        )
    return tuple(filters)


def _updated(
    config: ForceFieldConfig, params: Params, scalars: Array, vectors: Array, *, last: bool
) -> Features:
    """Scalars and vectors after an update; the last one's vectors, which nobody reads, are not computed."""
    channels = config.hidden_dim
    joined = jnp.concatenate([scalars, _vector_norms(config, vectors)], -1)
    hidden = jax.nn.silu(_dense(params["hidden"], joined))
    if last:
        kernel, bias = params["gates"]["kernel"], params["gates"]["bias"]
        return scalars + hidden @ kernel[:, :channels] + bias[:channels], None
    added, kept, mixed = jnp.split(_dense(params["gates"], hidden), 3, -1)
    vectors = vectors * kept[:, None] + _mixed(config, params["mixing"], vectors) * mixed[:, None]
    return scalars + added, vectors


def _mixed(config: ForceFieldConfig, mixing: Array, vectors: Array) -> Array:
    if config.variant == "cartesian":
        # Nine products of whole rows: a matrix product of 3 x 3 by 3 x c is slower in every backend.
        x, y, z = vectors[:, 0], vectors[:, 1], vectors[:, 2]
        return jnp.stack([row[0] * x + row[1] * y + row[2] * z for row in mixing], 1)
    return vectors @ mixing


def _vector_norms(config: ForceFieldConfig, vectors: Array) -> Array:
    """(n, c) lengths of vectors (n, 3, c)."""
    squares = (vectors**2).sum(1)
    if config.variant == "cartesian":
        return _root(squares)
    # Smooth at zero, and zero there.
    return jnp.sqrt(squares + config.norm_epsilon**2) - config.norm_epsilon


def _norm(vectors: Array) -> Array:
    """(*e,) lengths of vectors (*e, 3)."""
    return _root((vectors**2).sum(-1))


def _root(squares: Array) -> Array:
    """Square roots, whose derivatives of any order are 0 at 0, as torch has the first."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)


def _readout(params: Params, scalars: Array) -> Array:
    hidden = jax.nn.silu(_dense(params["hidden_0"], scalars))
    hidden = jax.nn.silu(_dense(params["hidden_1"], hidden))
    return _dense(params["energy"], hidden)[:, 0]


def _dense(params: Any, inputs: Array) -> Array:
    return inputs @ params["kernel"] + params["bias"]
