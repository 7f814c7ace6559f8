"""What a run hands back: its records, and the atoms as they are at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsejax.models.force_field.md.observers import OWN
from sparsejax.models.force_field.md.run import Simulation
from sparsejax.models.force_field.md.start import Start
from sparsejax.models.force_field.md.state import MDState
from sparsejax.models.force_field.md.trajectory import Frame, atoms_of


@dataclass(frozen=True)
class Run:
    """Records of a run: r of them, of one structure (r,) or of g replicas (r, g).

    Attributes:
      step: (r,) the first is 0.
      time: (r,) fs.
      potential: eV.
      kinetic: eV.
      temperature: K, over the degrees of freedom that are left when what is conserved is taken off.
      conserved: eV; what the ensemble conserves, such as the total energy in NVE.
      pressure: (r,) eV/A^3, motion included; None without three periodic directions.
      volume: (r,) A^3, or None.
      observed: what the observers said, (r, ...) each; of positions (r, g, b, 3).
      atoms: `ase.Atoms` at the end with velocities, energy and forces; a list of replicas.
      finished: whether a minimisation arrived; False otherwise.
      simulation: to look into or to go on with.
    """

    step: np.ndarray
    time: np.ndarray
    potential: np.ndarray
    kinetic: np.ndarray
    temperature: np.ndarray
    conserved: np.ndarray
    pressure: np.ndarray | None
    volume: np.ndarray | None
    observed: Mapping[str, np.ndarray]
    atoms: Any
    finished: bool
    simulation: Simulation

    @property
    def total(self) -> np.ndarray:
        """Potential and kinetic energy, eV."""
        return self.potential + self.kinetic

    @property
    def drift(self) -> np.ndarray:
        """Slope of the conserved energy over time per atom, eV/atom/ps: () or (g,); least squares.

        NaN of a single record, through which no line is told.
        """
        if len(self.time) == 1:
            return np.full(self.conserved.shape[1:], np.nan)
        picoseconds = (self.time - self.time.mean()) / 1000
        values = self.conserved - self.conserved.mean(axis=0)
        slope = np.tensordot(picoseconds, values, axes=(0, 0)) / (picoseconds**2).sum()
        return slope / self.simulation.state.positions.shape[1]


def run_of(
    records: Mapping[str, np.ndarray],
    simulation: Simulation,
    start: Start,
    *,
    timestep: float,
    finished: bool,
    replicas: bool,
) -> Run:
    """Records of all calls as a `Run`.

    Args:
      records: (r, ...) each.
      simulation: at its end.
      start: what it began with.
      timestep: fs.
      finished: whether a minimisation arrived.
      replicas: whether there is an axis of copies.
    """

    def of_copies(name: str) -> np.ndarray:
        return records[name] if replicas else records[name][:, 0]

    atoms = final_atoms(simulation.state, start, timestep)
    return Run(
        step=records["step"],
        time=records["step"] * timestep,
        **{name: of_copies(name) for name in ("potential", "kinetic", "temperature", "conserved")},
        pressure=records.get("pressure"),
        volume=records.get("volume"),
        observed={
            name: rows for name, rows in records.items() if name not in OWN and not name.startswith("frame_")
        },
        atoms=atoms if replicas else atoms[0],
        finished=finished,
        simulation=simulation,
    )


def final_atoms(state: MDState, start: Start, timestep: float) -> list[Any]:
    """`ase.Atoms` of every copy."""
    stress = None
    cell = None if state.cell is None else np.asarray(state.cell, np.float64)
    if state.virial is not None and cell is not None:
        stress = np.asarray(state.virial, np.float64) / abs(np.linalg.det(cell))
    step = int(state.step)
    return [
        atoms_of(
            Frame(step, step * timestep, places, velocities, forces, float(energy), cell, stress),
            start.structure,
            start.masses,
        )
        for places, velocities, forces, energy in zip(
            *map(np.asarray, (state.positions, state.velocities, state.forces, state.energy)), strict=True
        )
    ]
