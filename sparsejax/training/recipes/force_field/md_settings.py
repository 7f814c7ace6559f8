"""What ``sparsejax md`` is told; light, so that other commands import no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparsejax.training.override import Override

EnsembleName = Literal["nve", "nvt", "langevin", "nose-hoover", "npt", "minimize"]
"""What can be run; "nvt" is "langevin"."""


@dataclass(frozen=True)
class MdSettings:
    """Run molecular dynamics of a molecule or crystal with a force field, or minimise it.

    Attributes:
      checkpoint: folder of a run (its best network is taken), sparsejax directory, or .pt file.
      structure: any file that ASE reads; of several frames the last. Velocities in it are kept.
      ensemble: nve, nvt (langevin, the default, or nose-hoover), npt, or minimize.
      temperature: K.
      pressure_gpa: GPa, of npt.
      timestep: fs.
      steps: in all.
      friction: 1/fs, of langevin.
      period: fs, of the thermostat of nose-hoover and npt.
      pressure_period: fs, of the barostat.
      fmax: eV/A, largest force at which minimize stops.
      out: trajectory, .traj or .extxyz; of several replicas a file each.
      log: CSV file of energies, temperature and pressure.
      every: steps between two frames and two rows.
      replicas: copies of the molecule, side by side, with velocities of their own.
      restart: folder in which the run is saved now and then, and at its end.
      save_every: steps between two saves.
      resume: go on with the run in the restart folder, to steps in all.
      seed: of velocities and noise.
      draw_velocities: draw new velocities even if the structure has some.
      remove_rotation: take the angular momentum off the drawn velocities.
      skin: A, how far beyond the cutoff the neighbour list looks.
      filter: exact computes the radial filters, table looks them up, auto takes what was measured faster.
      float64: compute in float64.
      variant: layout of a .pt file where its keys do not tell.
      override: config values that the file does not tell, NAME=VALUE; repeat it for several.
      quiet: print nothing but the last line.
    """

    checkpoint: Path
    structure: Path
    ensemble: EnsembleName = "nvt"
    temperature: float = 300.0
    pressure_gpa: float = 0.0
    timestep: float = 0.5
    steps: int = 1000
    friction: float = 0.01
    period: float = 50.0
    pressure_period: float = 500.0
    fmax: float = 0.01
    out: Path | None = None
    log: Path | None = None
    every: int = 10
    replicas: int | None = None
    restart: Path | None = None
    save_every: int = 10_000
    resume: bool = False
    seed: int = 0
    draw_velocities: bool = False
    remove_rotation: bool = False
    skin: float = 0.5
    filter: Literal["auto", "exact", "table"] = "auto"
    float64: bool = False
    variant: str | None = None
    override: Override = ()
    quiet: bool = False
