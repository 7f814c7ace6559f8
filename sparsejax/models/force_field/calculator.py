"""The force field as a calculator of ASE."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.neighbors import Neighbors, all_pairs, edge_list, rows_from_edges
from sparsejax.models.force_field.packing import BLOCKS
from sparsejax.models.force_field.prediction import Filters, Prediction, predict_rows
from sparsejax.models.force_field.structure import (
    Structure,
    as_structure,
    check_geometry,
    check_structure,
    periodic_cell,
)
from sparsejax.typing import Params

if TYPE_CHECKING:
    from sparsejax.models.force_field.potential import ForceField

_LOG = logging.getLogger("sparsejax.force_field")

SKIN = 0.3
"""A that the neighbour list looks beyond the cutoff: atoms may move by half of it before it is made anew.

Narrower than that of `md`, where every structure is a small step from the last: ASE also asks about
structures far from each other, for which no list can be kept, and each pair in the skin costs time."""

_HEADROOM = 1.25


class ForceFieldCalculator(Calculator):
    """Energies, forces and stress of a force field for ASE.

    Results: energy and free_energy (the same) in eV, energies of the atoms in eV, forces in eV/A and, where
    all three directions repeat, stress in eV/A^3. They are kept until atoms, cell or periodic directions
    change. The neighbour list is kept until an atom has moved by half the skin. Compiled programs are made
    for so many atoms, and so many neighbours of each, that later structures often need no other; each time
    one does, the room grows, and logger "sparsejax.force_field" says so.

    Args:
      force_field: to ask.
      skin: A, how far beyond the cutoff the neighbour list looks.
      rotation_average: as in `ForceField.predict`, for weights that are not rotation invariant.

    Raises:
      ValueError: from a calculation: a structure that the network cannot answer for, or no number comes out.
      PropertyNotImplementedError: from a calculation: stress without three periodic directions.
    """

    name = "sparsejax"
    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(self, force_field: ForceField, *, skin: float = SKIN, rotation_average: Any = None):
        super().__init__()
        if not skin >= 0:
            raise ValueError(f"skin must be a number of A from 0, not {skin!r}")
        self._force_field = force_field
        self._rotation_average = rotation_average
        self._lists = _Lists(force_field.config.cutoff, skin)

    def calculate(
        self,
        atoms: Any = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """What ASE calls; see the class."""
        super().calculate(atoms, properties, system_changes)
        structure = as_structure(self.atoms)
        periodic = _has_stress(structure)
        if "stress" in properties and not periodic:
            raise PropertyNotImplementedError(
                "stress needs a cell and periodic boundary conditions in all three directions; set both"
            )
        if self._rotation_average is None:
            self.results = self._ask(structure, stress=periodic)
            return
        prediction = self._force_field.predict(self.atoms, rotation_average=self._rotation_average)
        self.results = _results(prediction, structure.num_atoms)

    def calculate_batch(self, structures: Sequence[Any]) -> list[dict[str, Any]]:
        """Results of several structures at once.

        Args:
          structures: `ase.Atoms`; their own calculators are not asked.

        Returns:
          a dict per structure with the names that `ase.Atoms.get_properties` knows; without stress where
          there is none. Nothing is kept.

        Raises:
          ValueError: a structure that the network cannot answer for.
        """
        structures = list(structures)
        if not structures:
            return []
        predictions = self._force_field.predict(structures, rotation_average=self._rotation_average)
        return [
            _results(prediction, len(atoms))
            for prediction, atoms in zip(predictions, structures, strict=True)
        ]

    def _ask(self, structure: Structure, *, stress: bool) -> dict[str, Any]:
        force_field = self._force_field
        if self._lists.must_be_made(structure):
            check_structure(structure, force_field.config, name="atoms")
            self._lists.make(structure)
        else:
            check_geometry(structure, name="atoms")
        rows = self._lists
        assert rows.neighbors is not None
        species, positions = rows.padded(structure)
        dtype = force_field.dtype
        cell = jnp.asarray(periodic_cell(structure)[None], dtype) if structure.periodic else None
        prediction = _predict(
            force_field.config,
            stress,
            force_field.params,
            force_field.filters,
            jnp.asarray(species),
            jnp.asarray(positions, dtype),
            cell=cell,
            neighbors=rows.neighbors,
        )
        return _results(jax.device_get(prediction), structure.num_atoms)


class _Lists:
    """The neighbour list of the last structure, with room that makes compiled programs serve others, too."""

    def __init__(self, cutoff: float, skin: float):
        self.neighbors: Neighbors | None = None
        self._cutoff, self._skin = cutoff, skin
        self._made_for: Structure | None = None
        self._rooms: list[int] = []
        self._slots: dict[int, int] = {}
        self._pairs: dict[int, Neighbors] = {}

    def must_be_made(self, now: Structure) -> bool:
        """Whether the list may miss a pair."""
        before = self._made_for
        if before is None or not np.array_equal(before.species, now.species):
            return True
        if not np.array_equal(before.pbc, now.pbc):
            return True
        if now.periodic and not np.array_equal(periodic_cell(before), periodic_cell(now)):
            return True
        furthest = np.sqrt(((now.positions - before.positions) ** 2).sum(axis=1).max())
        return bool(furthest > self._skin / 2)

    def make(self, structure: Structure) -> None:
        """The list of a structure."""
        atoms = structure.num_atoms
        if structure.periodic or atoms > BLOCKS[-1]:
            rows = self._searched(structure)
        else:
            rows = self._paired(atoms)
        self.neighbors, self._made_for = rows, structure

    def padded(self, structure: Structure) -> tuple[np.ndarray, np.ndarray]:
        """Species and positions with rows of zeros up to the room there is."""
        assert self.neighbors is not None
        more = len(self.neighbors.senders) - structure.num_atoms
        # Near the origin single precision is finest.
        positions = structure.positions - structure.positions.mean(axis=0)
        return np.pad(structure.species, (0, more)), np.pad(positions, ((0, more), (0, 0)))

    def _paired(self, atoms: int) -> Neighbors:
        if atoms not in self._pairs:
            block = next(block for block in BLOCKS if atoms <= block)
            self._pairs[atoms] = jax.device_put(all_pairs(1, block, np.arange(block) < atoms))
        return self._pairs[atoms]

    def _searched(self, structure: Structure) -> Neighbors:
        edges = edge_list(structure, self._cutoff + self._skin)
        room = self._room(structure.num_atoms)
        needed, slots = (
            int(np.bincount(edges.receivers, minlength=1).max(initial=1)),
            self._slots.get(room, 0),
        )
        if needed > slots:
            grown = _grown(needed)
            if slots:
                _LOG.info("calculator: room for %d neighbours per atom instead of %d", grown, slots)
            self._slots[room] = slots = grown
        return jax.device_put(rows_from_edges(edges, room, slots=slots))

    def _room(self, atoms: int) -> int:
        """The smallest room that holds so many and is not mostly empty; a new one if none is."""
        fitting = [room for room in self._rooms if atoms <= room <= max(2 * atoms, 16)]
        if fitting:
            return min(fitting)
        room = _grown(atoms) if self._rooms else atoms
        if self._rooms:
            _LOG.info("calculator: room for %d atoms beside %s", room, sorted(self._rooms))
        self._rooms.append(room)
        return room


def _grown(count: int) -> int:
    """A quarter more, in steps of four."""
    return math.ceil(count * _HEADROOM / 4) * 4


@partial(jax.jit, static_argnums=(0, 1))
def _predict(
    config: ForceFieldConfig,
    stress: bool,
    params: Params,
    filters: Filters | None,
    *atoms: jax.Array,
    cell: jax.Array | None,
    neighbors: Neighbors,
) -> Prediction:
    """One compiled function for all calculators of a config; ``atoms`` are species and positions."""
    species, positions = atoms
    owner = jnp.zeros(len(species), jnp.int32)
    return predict_rows(
        config,
        params,
        species,
        positions,
        neighbors,
        graph_of_atom=owner,
        num_graphs=1,
        cell=cell,
        filters=filters,
        stress=stress,
    )


def _has_stress(structure: Structure) -> bool:
    return structure.cell is not None and bool(structure.pbc.all())


def _results(prediction: Prediction, atoms: int) -> dict[str, Any]:
    """A prediction under ASE's names, in float64, without padding."""
    energy, forces = float(np.asarray(prediction.energy).reshape(-1)[0]), np.asarray(prediction.forces)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise ValueError("the energy or a force is no number: atoms are too close for the network's range")
    results: dict[str, Any] = {
        "energy": energy,
        "free_energy": energy,
        "energies": np.asarray(prediction.atomic_energies, np.float64)[:atoms],
        "forces": np.asarray(forces, np.float64)[:atoms],
    }
    if prediction.stress is not None:
        results["stress"] = np.asarray(prediction.stress, np.float64).reshape(-1)[:6]
    return results
