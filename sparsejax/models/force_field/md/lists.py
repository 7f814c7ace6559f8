"""The neighbour list that a run starts with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.models.force_field import neighbors_jit
from sparsejax.models.force_field.md.start import Start
from sparsejax.models.force_field.neighbors import all_pairs
from sparsejax.models.force_field.neighbors_jit import NeighborState
from sparsejax.models.force_field.structure import periodic_cell


def allocate(start: Start, cutoff: float, skin: float, dtype: Any) -> NeighborState:
    """Lists of all copies together; copies see only their own atoms.

    Args:
      start: g copies of b atoms.
      cutoff: A.
      skin: A, added to it.
      dtype: of the run.
    """
    structure = start.structure
    positions = jnp.asarray(start.positions, dtype)
    if len(positions) == 1:
        cell = jnp.asarray(periodic_cell(structure), dtype) if structure.periodic else None
        return neighbors_jit.allocate(positions[0], cell, structure.pbc, cutoff, skin)
    one = neighbors_jit.allocate(positions[0], None, structure.pbc, cutoff, skin, method="all_pairs")
    rows = jax.tree.map(jnp.asarray, all_pairs(*positions.shape[:2]))
    return replace(one, neighbors=rows, reference_positions=positions.reshape(-1, 3))
