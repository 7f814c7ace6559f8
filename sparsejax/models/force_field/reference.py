"""Energies and forces of the structures in a reference file, for ``sparsejax verify --reference``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.errors import MissingKeyError
from sparsejax.checkpoint.reference_arrays import named
from sparsejax.models.force_field.graph import Capacity, GrowingCapacity, batch_graphs
from sparsejax.models.force_field.structure import Structure, as_structure, check_structure

_SPECIES = ("z", "numbers", "species", "atomic_numbers")
_POSITIONS = ("pos", "positions")


def evaluate(ck: Any, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What a network says of a reference's structure, or of its structures one after another.

    Args:
      ck: checkpoint of the family.
      inputs: ``z`` (n,) atomic numbers and ``pos`` (n, 3) A; for a periodic structure ``cell`` (3, 3) A and
        ``pbc`` (3,); for several open ones ``batch`` (n,), the structure of each atom.

    Returns:
      "energy" () eV, or (g,) with ``batch``; "forces" (n, 3) eV/A; "stress" (6,) eV/A^3, where something
      repeats; "outputs": the energies, then the forces, as one row of numbers.

    Raises:
      MissingKeyError: there are no atoms, or a cell without ``pbc``.
      ValueError: a structure that the network cannot answer for.
    """
    structures, atoms = _structures(inputs)
    for number, structure in enumerate(structures):
        check_structure(
            structure, ck.config, name=f"structure {number}" if "batch" in inputs else "structure"
        )
    dtype = jnp.promote_types(jnp.float32, ck.params["embedding"]["embedding"].dtype)
    capacity = GrowingCapacity(Capacity(16, 256, 4))  # structures of like size then share one program
    graph = batch_graphs(structures, ck.config.cutoff, capacity, dtype)
    found = ck.apply(graph, stress=structures[0].periodic)
    energies = np.asarray(found.energy)[: len(structures)]
    order = np.concatenate(atoms)
    forces = np.empty((len(order), 3), energies.dtype)
    forces[order] = np.asarray(found.forces)[: len(order)]
    outputs = {"energy": energies if "batch" in inputs else energies[0], "forces": forces}
    if found.stress is not None:
        outputs["stress"] = np.asarray(found.stress)[0]
    return {**outputs, "outputs": np.concatenate([energies, forces.ravel()])}


def _structures(inputs: Mapping[str, Any]) -> tuple[list[Structure], list[np.ndarray]]:
    """The structures, and the places of their atoms in the file."""
    species, positions = (np.asarray(named(inputs, names)) for names in (_SPECIES, _POSITIONS))
    pbc = inputs.get("pbc", False)
    if "pbc" not in inputs and np.any(inputs.get("cell", 0)):
        raise MissingKeyError("a cell needs an array named 'pbc' beside it: the directions that repeat")
    if "batch" not in inputs:
        whole = as_structure(Structure(species, positions, inputs.get("cell"), pbc))
        return [whole], [np.arange(whole.num_atoms)]
    batch = np.asarray(inputs["batch"])
    if np.any(pbc) or batch.shape != (len(species),):
        raise ValueError(f"'batch' is one number for each of {len(species)} atoms of open structures")
    atoms = [np.flatnonzero(batch == number) for number in np.unique(batch)]
    return [as_structure(Structure(species[own], positions[own], None, pbc)) for own in atoms], atoms
