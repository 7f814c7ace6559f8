"""Energies, forces and stress: one gradient of the network's energy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jraph import GraphsTuple

from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.graph import graph_of_edge, graph_of_node
from sparsejax.models.force_field.neighbors import Neighbors
from sparsejax.models.force_field.network import atomic_energies
from sparsejax.ops.edge_conv import EdgeLayout, RadialFilter, RowLayout, of_senders
from sparsejax.typing import Params

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Entries of a stress tensor in the order xx, yy, zz, yz, xz, xy."""

Filters = Sequence[RadialFilter]


@flax.struct.dataclass
class Prediction:
    """What a force field says of structures.

    Attributes:
      energy: (g,) eV; of one structure ().
      forces: (n, 3) eV/A.
      stress: (g, 6) eV/A^3, the derivative of the energy by the symmetric strain over the volume, in the
        order xx, yy, zz, yz, xz, xy; positive under tension. None where it was not asked for; NaN, never
        zero, for structures without a cell beside others that have one.
      atomic_energies: (n,) eV; they sum up to the energy.
      energy_spread: eV, standard deviation of the energy over rotations, where these were averaged.
    """

    energy: Array
    forces: Array
    stress: Array | None
    atomic_energies: Array
    energy_spread: Array | None = None


def row_displacements(
    positions: Array, neighbors: Neighbors, *, cell: Array | None = None, strain: Array | None = None
) -> Array:
    """Vectors (n, m, 3) A from every atom to its neighbours.

    Args:
      positions: (n, 3) A.
      neighbors: rows.
      cell: (3, 3), or (n, 3, 3) one per atom, A, lattice vectors in rows; None where nothing repeats.
      strain: (3, 3) or (n, 3, 3); the vectors are those of the symmetrically strained system.
    """
    rows = row_layout(neighbors)
    vectors = of_senders(positions, rows) - positions[:, None]
    if cell is not None:
        shifts = neighbors.shifts.astype(positions.dtype)
        vectors = vectors + jnp.einsum("nmx,...xy->nmy" if cell.ndim == 2 else "nmx,nxy->nmy", shifts, cell)
    return vectors if strain is None else _strained(vectors, strain)


def row_layout(neighbors: Neighbors) -> RowLayout:
    """The rows as the op reads them."""
    senders, reverse = jnp.asarray(neighbors.senders), jnp.asarray(neighbors.reverse)
    return RowLayout(senders, reverse, neighbors.block)


def energy_of_rows(
    config: ForceFieldConfig,
    params: Params,
    species: Array,
    positions: Array,
    neighbors: Neighbors,
    *,
    cell: Array | None = None,
    strain: Array | None = None,
    filters: Filters | None = None,
    backend: str = "auto",
) -> Array:
    """Energy (n,) eV of each atom; 0 for padded ones.

    Args:
      config: sizes and kind.
      params: of `StudentForceField`.
      species: (n,) atomic numbers; 0 for padding.
      positions: (n, 3) A.
      neighbors: rows.
      cell: see `row_displacements`.
      strain: see `row_displacements`.
      filters: see `atomic_energies`.
      backend: of the op.
    """
    displacements = row_displacements(positions, neighbors, cell=cell, strain=strain)
    energies = atomic_energies(
        config,
        params,
        species,
        displacements,
        row_layout(neighbors),
        mask=jnp.asarray(neighbors.mask),
        filters=filters,
        backend=backend,
    )
    return jnp.where(species > 0, energies, 0)


def predict_rows(
    config: ForceFieldConfig,
    params: Params,
    species: Array,
    positions: Array,
    neighbors: Neighbors,
    *,
    graph_of_atom: Array,
    num_graphs: int,
    cell: Array | None = None,
    filters: Filters | None = None,
    stress: bool = False,
    backend: str = "auto",
) -> Prediction:
    """Energies, forces and stress of g structures whose neighbours lie in rows.

    Args:
      config: sizes and kind.
      params: of `StudentForceField`.
      species: (n,) atomic numbers; 0 for padding.
      positions: (n, 3) A.
      neighbors: rows of all atoms.
      graph_of_atom: (n,) the structure of each atom.
      num_graphs: g.
      cell: (g, 3, 3) A, lattice vectors in rows; None where nothing repeats.
      filters: see `atomic_energies`.
      stress: compute it; needs cells.
      backend: of the op.

    Raises:
      ValueError: ``stress`` without cells.
    """
    if stress and cell is None:
        raise ValueError("stress needs a cell: give one, or leave stress out")
    of_atoms = None if cell is None else cell[graph_of_atom]

    def total(positions: Array, strain: Array | None) -> tuple[Array, Array]:
        local = None if strain is None else strain[graph_of_atom]
        energies = energy_of_rows(
            config,
            params,
            species,
            positions,
            neighbors,
            cell=of_atoms,
            strain=local,
            filters=filters,
            backend=backend,
        )
        return energies.sum(), energies

    return _predicted(total, positions, cell if stress else None, graph_of_atom, num_graphs)


def predict_graph(
    config: ForceFieldConfig,
    params: Params,
    graph: GraphsTuple,
    *,
    filters: Filters | None = None,
    backend: str = "auto",
    stress: bool = False,
) -> Prediction:
    """Energies, forces and stress of a padded batch of structures.

    Args:
      config: sizes and kind.
      params: of `StudentForceField`.
      graph: from `batch_graphs`; edges in any order.
      filters: see `atomic_energies`.
      backend: of the op.
      stress: compute it.

    Returns:
      `Prediction` of the padded batch: energies of padding are 0, and so is its stress; that of structures
      that do not repeat is NaN.
    """
    owner, owner_of_edge = graph_of_node(graph), graph_of_edge(graph)
    nodes, edges, cell = graph.nodes, graph.edges, graph.globals["cell"]
    layout = EdgeLayout(jnp.asarray(graph.senders), jnp.asarray(graph.receivers), sorted_receivers=False)

    def total(positions: Array, strain: Array | None) -> tuple[Array, Array]:
        vectors = positions[layout.senders] - positions[layout.receivers]
        shifts = edges["shift"].astype(positions.dtype)
        vectors = vectors + jnp.einsum("ex,exy->ey", shifts, cell[owner_of_edge])
        offset = graph.globals["strain"] if strain is None else graph.globals["strain"] + strain
        vectors = _strained(vectors, offset[owner_of_edge])
        found = atomic_energies(
            config,
            params,
            nodes["species"],
            vectors,
            layout,
            mask=edges["mask"],
            filters=filters,
            backend=backend,
        )
        energies = jnp.where(nodes["mask"], found, 0)
        return energies.sum(), energies

    positions = jnp.asarray(nodes["positions"])
    found = _predicted(total, positions, cell if stress else None, owner, len(graph.n_node))
    if found.stress is None:
        return found
    periodic, mask = graph.globals["periodic"][:, None], graph.globals["mask"][:, None]
    known = jnp.where(periodic, found.stress, jnp.nan)
    return dataclasses.replace(found, stress=jnp.where(mask, known, 0))


Total = Callable[[Array, Array | None], tuple[Array, Array]]


def _predicted(total: Total, positions: Array, cell: Array | None, owner: Array, graphs: int) -> Prediction:
    """The prediction of a total energy by positions and strain; with the stress where there are cells."""
    stress = None
    if cell is None:
        gradient, energies = jax.grad(total, has_aux=True)(positions, None)
    else:
        strain = jnp.zeros((graphs, 3, 3), positions.dtype)
        (gradient, of_strain), energies = jax.grad(total, (0, 1), has_aux=True)(positions, strain)
        volume = jnp.abs(jnp.linalg.det(cell))
        tensor = (of_strain + of_strain.swapaxes(-1, -2)) / 2 / volume[:, None, None]
        stress = jnp.stack([tensor[:, row, column] for row, column in VOIGT], -1)
    energy = jax.ops.segment_sum(energies, owner, graphs)
    return Prediction(energy, -gradient, stress, energies)


def _strained(vectors: Array, strain: Array) -> Array:
    """Vectors (*e, 3) under the symmetric part of a strain (3, 3), or of one per first axis."""
    symmetric: Any = (strain + strain.swapaxes(-1, -2)) / 2
    if strain.ndim == 2:
        return vectors + vectors @ symmetric
    letters = "e...x,exy->e...y"
    return vectors + jnp.einsum(letters, vectors, symmetric)
