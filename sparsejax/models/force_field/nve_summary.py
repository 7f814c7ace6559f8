"""What a recorded run at constant energy comes to, under the published keys and per atom."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsejax.models.force_field.energy_metrics import (
    PER_ATOM_LIMIT,
    TOLERANCE,
    conservation_ratio,
    conserves_energy,
    drift_per_atom,
    energy_drift,
    energy_exchange,
    energy_fluctuations,
    linear_drift,
)
from sparsejax.models.force_field.trajectory_metrics import displacements, temperature_evolution


class RecordedRun(NamedTuple):
    """Series of a run, its first state included.

    Attributes:
      time: (f,) ps.
      positions: (f, n, 3) A, not wrapped into a cell.
      velocities: (f, n, 3), in the integrator's unit; ASE's is A / (A sqrt(amu / eV)).
      forces: (f, n, 3) eV/A.
      potential: (f,) eV.
      kinetic: (f,) eV.
      temperature: (f,) K.
    """

    time: NDArray[np.float64]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    forces: NDArray[np.floating]
    potential: NDArray[np.float64]
    kinetic: NDArray[np.float64]
    temperature: NDArray[np.float64]


def nve_summary(
    run: RecordedRun,
    *,
    wall_time_s: float | None = None,
    tolerance: float = TOLERANCE,
    per_atom_limit: float = PER_ATOM_LIMIT,
) -> dict[str, Any]:
    """The published summary of a run at constant energy, with what it missed.

    Args:
      run: series, frames at even times.
      wall_time_s: seconds that it took, passed on.
      tolerance: %, of the published verdict.
      per_atom_limit: eV/atom/ps, of the verdict per atom.

    Returns:
      ``n_steps`` (frames but the first), ``total_time_ps``, ``timestep_fs`` (between frames),
      ``wall_time_s``; ``initial_energy``, ``final_energy``, ``avg_potential_energy``,
      ``avg_kinetic_energy``, ``energy_std``, ``energy_range``, ``energy_drift_abs`` (eV);
      ``energy_drift_pct``, ``max_drift_pct`` (%);
      ``avg_temperature``, ``std_temperature`` (K); ``conservation_ratio``, ``ke_pe_corr``, ``drift_rate``
      (eV/ps) and ``passed``, the published verdict. Not published: ``drift_per_atom`` (eV/atom/ps) and
      ``passed_per_atom``, ``max_temperature`` (K), ``max_displacement`` (A).

    Raises:
      ValueError: fewer than 2 frames, or series of different lengths.

    Example:
      >>> still, time = np.zeros((3, 4, 3)), np.array([0.0, 0.5, 1.0])
      >>> kinetic, potential = np.array([1.0, 1.5, 1.0]), np.array([-9.0, -9.5, -8.8])
      >>> summary = nve_summary(RecordedRun(time, still, still, still, potential, kinetic, 300 * kinetic))
      >>> round(summary["energy_drift_pct"], 6), round(summary["drift_per_atom"], 6)
      (2.5, 0.05)

    Source: specs/force_field.md section 6, NVEMDHarness.
    """
    lengths = {name: len(series) for name, series in zip(run._fields, run, strict=True)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"series of one run are of one length, not {lengths}")
    total = np.asarray(run.potential, np.float64) + np.asarray(run.kinetic, np.float64)
    drift, spread = energy_drift(total), energy_fluctuations(total)
    temperature, exchange = (
        temperature_evolution(run.temperature),
        energy_exchange(run.kinetic, run.potential),
    )
    per_atom = drift_per_atom(run.time, total, run.positions.shape[1])
    return {
        "n_steps": len(run.time) - 1,
        "total_time_ps": float(run.time[-1] - run.time[0]),
        "timestep_fs": float(1000 * (run.time[1] - run.time[0])),
        "wall_time_s": wall_time_s,
        "initial_energy": float(total[0]),
        "final_energy": float(total[-1]),
        "avg_potential_energy": exchange["pe_mean"],
        "avg_kinetic_energy": exchange["ke_mean"],
        "energy_std": spread["std"],
        "energy_range": spread["range"],
        "energy_drift_abs": drift["drift_absolute"],
        "energy_drift_pct": drift["drift_relative"],
        "max_drift_pct": drift["drift_max_deviation"],
        "avg_temperature": temperature["mean"],
        "std_temperature": temperature["std"],
        "conservation_ratio": conservation_ratio(total),
        "ke_pe_corr": exchange["ke_pe_correlation"],
        "drift_rate": linear_drift(run.time, total)["drift_rate"],
        "passed": conserves_energy(total, run.kinetic, run.potential, tolerance),
        "drift_per_atom": per_atom,
        "passed_per_atom": abs(per_atom) <= per_atom_limit,
        "max_temperature": temperature["max"],
        "max_displacement": float(displacements(run.positions).max_per_frame.max()),
    }
