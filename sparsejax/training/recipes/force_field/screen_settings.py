"""What ``sparsejax screen`` is told; light, so that other commands import no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparsejax.training.job_settings import JobSettings
from sparsejax.training.override import Override


@dataclass(frozen=True)
class ScreenSettings(JobSettings):
    """Compute energies and forces of all structures of a file with a force field, on all devices.

    Attributes:
      checkpoint: folder of a run (its best network is taken), sparsejax directory, or .pt file.
      structures: any file that ASE reads, such as .extxyz, with any number of structures.
      out: .h5 or .extxyz file to write, of the same structures with energies, forces and stress.
      filter: exact computes the radial filters, table looks them up, auto takes what was measured faster.
      variant: layout of a .pt file where its keys do not tell.
      override: config values that the file does not tell, NAME=VALUE; repeat it for several.
      devices: that the structures are spread over.
      quiet: print nothing but errors.
    """

    checkpoint: Path
    structures: Path
    out: Path
    filter: Literal["auto", "exact", "table"] = "auto"
    variant: str | None = None
    override: Override = ()
    devices: int = 1
    quiet: bool = False
