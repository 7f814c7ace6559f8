"""What is exported: energy, forces and stress as one function of six arrays, whatever their lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.neighbors import EdgeList, edge_list
from sparsejax.models.force_field.network import atomic_energies
from sparsejax.models.force_field.prediction import VOIGT
from sparsejax.models.force_field.structure import as_structure
from sparsejax.ops.edge_conv import EdgeLayout
from sparsejax.typing import Params
from sparsejax.version import __version__

_INPUTS = {
    "species": "(n,) int32, atomic numbers; 0 is a padded atom, which adds nothing",
    "positions": "(n, 3), A",
    "senders": "(e,) int32, the atom that an edge comes from",
    "receivers": "(e,) int32, the atom that it goes to",
    "shifts": "(e, 3) int32, lattice vectors added to the sender's position",
    "cell": "(3, 3), A, one lattice vector per row; zeros where nothing repeats",
}
_OUTPUTS = {
    "energy": "(), eV",
    "forces": "(n, 3), eV/A",
    "atomic_energies": "(n,), eV; their sum is the energy",
    "stress": "(6,), eV/A^3, xx, yy, zz, yz, xz, xy, positive under tension; NaN without a cell",
}
_EDGES = (
    "every pair of atoms up to the cutoff in both directions, images of atoms in a periodic cell included; "
    "longer edges add nothing, nor does an edge from an atom to itself without a shift, which is padding; "
    "vector of an edge: positions[sender] + shift @ cell - positions[receiver]"
)

Program = Callable[..., dict[str, Array]]


class EdgeInputs(NamedTuple):
    """The arrays that an exported force field takes, in its order.

    Attributes:
      species: (n,) int32, atomic numbers; 0 is a padded atom, which adds nothing.
      positions: (n, 3) A.
      senders: (e,) int32.
      receivers: (e,) int32.
      shifts: (e, 3) int32, lattice vectors added to the sender's position.
      cell: (3, 3) A, one lattice vector per row; zeros where nothing repeats.
    """

    species: Any
    positions: Any
    senders: Any
    receivers: Any
    shifts: Any
    cell: Any


def edge_inputs(atoms: Any, cutoff: float, dtype: Any = np.float32) -> EdgeInputs:
    """The arrays of one structure, with its neighbours; where there are none, one padded edge.

    Args:
      atoms: ase.Atoms or a `Structure`.
      cutoff: A, of the force field.
      dtype: of positions and cell: that of the exported program.

    Raises:
      ValueError: atoms in which no distance can be measured.

    Example:
      >>> class Water: numbers, positions = [8, 1, 1], [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]]
      >>> edge_inputs(Water, 5.0).senders.tolist()
      [1, 2, 0, 2, 0, 1]
    """
    structure = as_structure(atoms)
    edges = edge_list(structure, cutoff)
    if not edges.num_edges:  # JAX's symbolic numbers start at 1
        edges = EdgeList(np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros((1, 3), np.int32))
    cell = np.zeros((3, 3)) if structure.cell is None else structure.cell
    return EdgeInputs(structure.species, structure.positions.astype(dtype), *edges, cell.astype(dtype))


def symbolic_inputs(dtype: Any) -> EdgeInputs:
    """Shapes and dtypes of the arrays, for any number n of atoms and e of edges."""
    atoms, edges = jax.export.symbolic_shape("n, e")
    shapes = (atoms,), (atoms, 3), (edges,), (edges,), (edges, 3), (3, 3)
    dtypes = np.int32, dtype, np.int32, np.int32, np.int32, dtype
    return EdgeInputs(*map(jax.ShapeDtypeStruct, shapes, dtypes))


def edge_program(config: ForceFieldConfig, params: Params, *, stress: bool = True) -> Program:
    """The force field as a function of `EdgeInputs`, its weights inside.

    Args:
      config: sizes and kind.
      params: of `StudentForceField`.
      stress: whether there is one among the outputs.

    Returns:
      a function of species, positions, senders, receivers, shifts and cell to a dict of energy (), forces
      (n, 3), atomic_energies (n,) and stress (6,).
    """
    weights = jax.tree.map(np.asarray, params)  # no device is written into the program

    def energy(vectors: Array, species: Array, layout: EdgeLayout, mask: Array) -> tuple[Array, Array]:
        placed = jax.tree.map(jnp.asarray, weights)
        atomic = atomic_energies(config, placed, species, vectors, layout, mask=mask)
        atomic = jnp.where(species > 0, atomic, 0)
        return atomic.sum(), atomic

    def program(*arrays: Array) -> dict[str, Array]:
        species, positions, senders, receivers, shifts, cell = EdgeInputs(*arrays)
        vectors = positions[senders] + shifts.astype(cell.dtype) @ cell - positions[receivers]
        mask = (senders != receivers) | (shifts != 0).any(-1)
        layout = EdgeLayout(senders, receivers)
        (total, atomic), pulls = jax.value_and_grad(energy, has_aux=True)(vectors, species, layout, mask)
        forces = jnp.zeros_like(positions).at[receivers].add(pulls).at[senders].add(-pulls)
        outputs = {"energy": total, "forces": forces, "atomic_energies": atomic}
        return outputs | ({"stress": _stress(vectors, pulls, cell)} if stress else {})

    return program


def _stress(vectors: Array, pulls: Array, cell: Array) -> Array:
    """(6,) of edges (e, 3) and derivatives (e, 3) with respect to them; NaN where there is no volume."""
    # Sums of products, not a matrix product over edges: converters to ONNX fail on that.
    pairs = [
        (vectors[:, row] * pulls[:, column] + vectors[:, column] * pulls[:, row]).sum() / 2
        for row, column in VOIGT
    ]
    volume = jnp.abs(jnp.dot(cell[0], jnp.cross(cell[1], cell[2])))
    return jnp.where(volume > 0, jnp.stack(pairs) / jnp.where(volume > 0, volume, 1), jnp.nan)


def checked_force_field(force_field: Any) -> tuple[ForceFieldConfig, Params]:
    """Config and weights of a `ForceField` or a checkpoint.

    Raises:
      ValueError: it is neither.
    """
    config, params = getattr(force_field, "config", None), getattr(force_field, "params", None)
    if not isinstance(config, ForceFieldConfig) or not isinstance(params, Mapping):
        raise ValueError(
            f"a {type(force_field).__name__} is no force field; give a ForceField or a checkpoint of one"
        )
    return config, params


def description(config: ForceFieldConfig, dtype: Any, *, stress: bool) -> dict[str, Any]:
    """What a reader of an exported file must know, as JSON can carry it."""
    species = config.species
    return {
        "made_by": f"sparsejax {__version__}",
        "cutoff": config.cutoff,
        "species": None if species is None else list(species),
        "largest_atomic_number": config.max_z,
        "variant": config.variant,
        "dtype": str(np.dtype(dtype)),
        "units": {"length": "A", "energy": "eV", "forces": "eV/A", "stress": "eV/A^3"},
        "edges": _EDGES,
        "inputs": _INPUTS,
        "outputs": {name: text for name, text in _OUTPUTS.items() if stress or name != "stress"},
        "config": config.to_json(),
    }
