"""Energies, forces and stress: one gradient of the network's energy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jraph import GraphsTuple

from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.graph import graph_of_edge, graph_of_node
from sparsejax.models.force_field.neighbors import Neighbors
from sparsejax.models.force_field.network import atomic_energies
from sparsejax.ops.edge_conv import EdgeLayout, PairLayout, RadialFilter, ends, pairs_of_blocks, pairs_of_rows
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


def pair_layout(neighbors: Neighbors) -> PairLayout:
    """The pairs of rows, as the op reads them."""
    if neighbors.block:
        return pairs_of_blocks(jnp.asarray(neighbors.mask))
    rows = (neighbors.senders, neighbors.reverse, neighbors.mask)
    return pairs_of_rows(*(jnp.asarray(array) for array in rows))


def pair_displacements(
    positions: Array,
    neighbors: Neighbors,
    layout: PairLayout,
    *,
    cell: Array | None = None,
    strain: Array | None = None,
) -> Array:
    """Vectors (p, 3) A from the first atom of every pair to the second.

    Args:
      positions: (n, 3) A.
      neighbors: rows.
      layout: their pairs.
      cell: (3, 3), or (n, 3, 3) one per atom, A, lattice vectors in rows; None where nothing repeats.
      strain: (3, 3) or (n, 3, 3); the vectors are those of the symmetrically strained system.
    """
    first, second = ends(positions, layout)
    vectors = second - first
    if cell is not None:
        shifts = jnp.asarray(neighbors.shifts).reshape(-1, 3)[layout.slot_of_pair].astype(positions.dtype)
        vectors = vectors + _times(shifts, cell if cell.ndim == 2 else cell[layout.first])
    if strain is None:
        return vectors
    return _strained(vectors, strain if strain.ndim == 2 else strain[layout.first])


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
      cell: see `pair_displacements`.
      strain: see `pair_displacements`.
      filters: see `atomic_energies`.
      backend: of the op.
    """
    layout = pair_layout(neighbors)
    displacements = pair_displacements(positions, neighbors, layout, cell=cell, strain=strain)
    energies = atomic_energies(
        config,
        params,
        species,
        displacements,
        layout,
        mask=layout.real,
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
    graph = jax.tree.map(jnp.asarray, graph)
    owner, owner_of_edge = graph_of_node(graph), graph_of_edge(graph)
    nodes, edges, cell = graph.nodes, graph.edges, graph.globals["cell"]
    layout = EdgeLayout(jnp.asarray(graph.senders), jnp.asarray(graph.receivers), sorted_receivers=False)

    def total(positions: Array, strain: Array | None) -> tuple[Array, Array]:
        vectors = positions[layout.senders] - positions[layout.receivers]
        shifts = edges["shift"].astype(positions.dtype)
        vectors = vectors + _times(shifts, cell[owner_of_edge])
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
    return Prediction(sums_of_structures(energies, owner, graphs), -gradient, stress, energies)


def sums_of_structures(energies: Array, owner: Array, graphs: int) -> Array:
    """Sums (g,) eV of the energies of each structure's atoms.

    One after another, hundreds of atoms would lose some meV in float32. Whole numbers of eV add up exactly,
    and what is left of each atom is small.

    Args:
      energies: (n,) eV.
      owner: (n,) the structure of each atom.
      graphs: g.

    Example:
      >>> sums_of_structures(jnp.array([-1.5, -2.0, -0.25]), jnp.array([0, 0, 1]), 2).tolist()
      [-3.5, -0.25]
    """
    whole = jax.lax.stop_gradient(jnp.round(energies))
    return jax.ops.segment_sum(whole, owner, graphs) + jax.ops.segment_sum(energies - whole, owner, graphs)


def _strained(vectors: Array, strain: Array) -> Array:
    """Vectors (e, 3) under the symmetric part of a strain (3, 3), or of one per vector."""
    return vectors + _times(vectors, (strain + strain.swapaxes(-1, -2)) / 2)


def _times(vectors: Array, matrices: Array) -> Array:
    """Rows (e, 3) times (3, 3) or (e, 3, 3)."""
    return jnp.einsum("ex,xy->ey" if matrices.ndim == 2 else "ex,exy->ey", vectors, matrices)
