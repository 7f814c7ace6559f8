"""What a call of the network may look like: graphs that cannot be right are refused before they run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jraph import GraphsTuple

from sparsejax.checkpoint.accepted_names import check_options
from sparsejax.checkpoint.errors import shown
from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.graph import batch_graphs
from sparsejax.models.force_field.structure import Structure, check_species

_PARTS = {
    "nodes": ("species", "positions", "mask"),
    "edges": ("shift", "mask"),
    "globals": ("cell", "strain", "periodic", "mask"),
}


_OPTIONS = ("filters", "backend", "stress")


def check_inputs(config: ForceFieldConfig, *inputs: Any, **options: Any) -> None:
    """Refuse what is no batch of structures, or holds atoms that this network cannot answer for.

    Values are looked at only where they are there: inside another ``jit`` names alone are checked.

    Args:
      config: of the network.
      inputs: one graph, as `batch_graphs` makes it.
      options: as the network takes them.

    Raises:
      ValueError: says what is needed.

    Example:
      >>> check_inputs(ForceFieldConfig(), example_graph(ForceFieldConfig()))
    """
    check_options(options, _OPTIONS)
    if len(inputs) != 1 or not isinstance(inputs[0], GraphsTuple):
        told = shown(type(given).__name__ for given in inputs)
        raise ValueError(f"one jraph.GraphsTuple from batch_graphs(structures, cutoff) is needed, not {told}")
    (graph,) = inputs
    for part, names in _PARTS.items():
        found = getattr(graph, part)
        if absent := [name for name in names if not isinstance(found, dict) or name not in found]:
            raise ValueError(f"the graph's {part} lack {shown(absent)}; make it with batch_graphs")
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in graph.nodes.values()):
        real = np.asarray(graph.nodes["mask"])
        _check_atoms(config, *(np.asarray(graph.nodes[name])[real] for name in ("species", "positions")))


def example_graph(config: ForceFieldConfig) -> GraphsTuple:
    """Two hydrogen atoms within the cutoff: the smallest batch that shows the network all its inputs."""
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.5 * config.cutoff]])
    pair = Structure(np.array([1, 1], np.int32), positions, None, np.zeros(3, bool))
    return jax.tree.map(jnp.asarray, batch_graphs([pair], config.cutoff))


def _check_atoms(config: ForceFieldConfig, species: np.ndarray, positions: np.ndarray) -> None:
    check_species(species, config, name="the graph")
    if not np.isfinite(positions).all():
        raise ValueError("the graph holds positions that are NaN or infinite")
