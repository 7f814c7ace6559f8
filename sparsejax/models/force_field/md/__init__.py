"""Molecular dynamics that never leaves the device: NVE, NVT, NPT and minimisation (`Options` for all)."""

from sparsejax.models.force_field.md.driver import Options
from sparsejax.models.force_field.md.ensembles import minimize, npt, nve, nvt
from sparsejax.models.force_field.md.observers import Observer, cell, forces, positions, velocities
from sparsejax.models.force_field.md.result import Run
from sparsejax.models.force_field.md.run import Simulation
from sparsejax.models.force_field.md.start import boltzmann_velocities
from sparsejax.models.force_field.md.state import MDState, stress
from sparsejax.models.force_field.md.system import Potential, System
from sparsejax.models.force_field.md.trajectory import TrajectoryWriter
from sparsejax.models.force_field.md.units import BOLTZMANN, FEMTOSECOND, GPA

__all__ = [
    "BOLTZMANN",
    "FEMTOSECOND",
    "GPA",
    "MDState",
    "Observer",
    "Options",
    "Potential",
    "Run",
    "Simulation",
    "System",
    "TrajectoryWriter",
    "boltzmann_velocities",
    "cell",
    "forces",
    "minimize",
    "npt",
    "nve",
    "nvt",
    "positions",
    "stress",
    "velocities",
]
