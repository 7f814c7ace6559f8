"""What ``sparsejax validate`` and ``benchmark`` are told; light, so that others import no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ValidateSettings:
    """Run a molecule at constant energy and judge how well a force field conserves it.

    Attributes:
      checkpoint: folder of a run (its best network is taken), sparsejax directory, or .pt file.
      molecule: name that ASE knows, such as H2O or CH3CH2OH, or a file that it reads.
      steps: of velocity Verlet.
      temperature: K, of the velocities that are drawn.
      timestep: fs.
      output: JSON file for the summary.
      relax: minimise the molecule first.
      seed: of the velocities.
    """

    checkpoint: Path
    molecule: str = "H2O"
    steps: int = 1000
    temperature: float = 300.0
    timestep: float = 0.5
    output: Path | None = None
    relax: bool = False
    seed: int = 0


@dataclass(frozen=True)
class BenchmarkSettings:
    """Time energies and forces of four small molecules, atoms moved before every call.

    Attributes:
      checkpoint: folder of a run (its best network is taken), sparsejax directory, or .pt file.
      warmup: calls before the clock starts.
      iterations: calls that are timed.
    """

    checkpoint: Path
    warmup: int = 10
    iterations: int = 100
