"""How well a run at constant energy keeps it: the published measures, and the drift per atom beside them.

The published verdict is relative to the whole energy. Hundreds of eV of bonds make it blind: a molecule that
heats up to thousands of kelvins passes. `drift_per_atom` is what it should be judged by.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsejax.models.force_field.force_metrics import pearson

TOLERANCE, MAXIMUM_OVER_TOLERANCE, RATIO_LIMIT = 1.0, 1.5, 0.99
"""Of the published verdict: % of the first energy, times that for the largest deviation, and the ratio."""

PER_ATOM_LIMIT = 1e-5
"""eV/atom/ps, of the verdict per atom."""


def energy_drift(total: ArrayLike) -> dict[str, float]:
    """From the first frame to the last.

    Args:
      total: (f,) eV.

    Returns:
      ``drift_relative`` (% of the first energy's size), ``drift_absolute`` (eV) and ``drift_max_deviation``
      (%, largest distance of any frame from the first).

    Raises:
      ValueError: fewer than 2 frames.

    Example:
      >>> energy_drift([-100.0, -97.0, -99.0])
      {'drift_relative': 1.0, 'drift_absolute': 1.0, 'drift_max_deviation': 3.0}

    Source: specs/force_field.md section 6.
    """
    energy = _series("total", total)
    change = energy - energy[0]
    relative = 100 * _over(change, abs(energy[0]))
    return {
        "drift_relative": float(relative[-1]),
        "drift_absolute": float(change[-1]),
        "drift_max_deviation": float(np.abs(relative).max()),
    }


def conservation_ratio(total: ArrayLike, window: int | None = None) -> float:
    """One minus the standard deviation over the mean's size, and 0 at least.

    Args:
      total: (f,) eV.
      window: frames; the mean over all windows of this length instead, which a slow drift does not lower.

    Raises:
      ValueError: fewer than 2 frames, or a window that is longer than the run or shorter than 1.

    Example:
      >>> conservation_ratio([-1.5, -0.5])
      0.5
    """
    energy = _series("total", total)
    if window is None:
        return max(0.0, float(1 - _over(energy.std(), abs(energy.mean()))))
    if not 1 <= window <= len(energy):
        raise ValueError(f"a window has 1 to {len(energy)} frames, not {window}")
    windows = np.lib.stride_tricks.sliding_window_view(energy, window)
    return float((1 - _over(windows.std(axis=1), np.abs(windows.mean(axis=1)))).mean())


def energy_fluctuations(total: ArrayLike) -> dict[str, float]:
    """How far the energy wanders.

    Args:
      total: (f,) eV.

    Returns:
      ``std``, ``range``, ``mean_abs_dev`` (eV) and ``coefficient_of_variation``.

    Raises:
      ValueError: fewer than 2 frames.

    Example:
      >>> energy_fluctuations([1.0, 3.0])
      {'std': 1.0, 'range': 2.0, 'mean_abs_dev': 1.0, 'coefficient_of_variation': 0.5}
    """
    energy = _series("total", total)
    return {
        "std": float(energy.std()),
        "range": float(np.ptp(energy)),
        "mean_abs_dev": float(np.abs(energy - energy.mean()).mean()),
        "coefficient_of_variation": float(_over(energy.std(), abs(energy.mean()))),
    }


def energy_exchange(kinetic: ArrayLike, potential: ArrayLike) -> dict[str, float]:
    """How kinetic and potential energy balance: in a conserved run one falls as the other rises.

    Args:
      kinetic: (f,) eV.
      potential: (f,) eV.

    Returns:
      ``ke_mean``, ``ke_std``, ``pe_mean``, ``pe_std`` (eV), ``ke_pe_correlation`` (NaN where one does not
      vary) and ``energy_partition_ratio`` (mean kinetic over the size of the mean potential energy).

    Raises:
      ValueError: fewer than 2 frames, or series of different lengths.

    Example:
      >>> energy_exchange([1.0, 2.0], [-1.0, -2.0])["ke_pe_correlation"]
      -1.0
    """
    first, second = _series("kinetic", kinetic), _series("potential", potential)
    _check_lengths(kinetic=first, potential=second)
    return {
        "ke_mean": float(first.mean()),
        "ke_std": float(first.std()),
        "pe_mean": float(second.mean()),
        "pe_std": float(second.std()),
        "ke_pe_correlation": pearson(first, second),
        "energy_partition_ratio": float(_over(first.mean(), abs(second.mean()))),
    }


def linear_drift(time: ArrayLike, total: ArrayLike) -> dict[str, float]:
    """The straight line through the energy.

    Args:
      time: (f,) ps.
      total: (f,) eV.

    Returns:
      ``drift_rate`` (eV/ps) and its ``drift_rate_std``, ``initial_energy`` (of the line, eV), ``r_squared``
      (NaN where the energy does not vary), and ``total_drift`` (eV, last frame minus first: not of the line).

    Raises:
      ValueError: fewer than 2 frames, series of different lengths, or a time that stands still.

    Example:
      >>> round(linear_drift([0.0, 1.0, 2.0], [5.0, 5.5, 6.0])["drift_rate"], 6)
      0.5
    """
    times, energy = _series("time", time), _series("total", total)
    _check_lengths(time=times, total=energy)
    if not np.ptp(times) > 0:
        raise ValueError("time stands still: a drift needs frames at different times")
    centred, deviation = times - times.mean(), energy - energy.mean()
    rate = (centred * deviation).sum() / (centred**2).sum()
    residual = deviation - rate * centred
    spread = (deviation**2).sum()
    return {
        "drift_rate": float(rate),
        "drift_rate_std": float(residual.std() / (times.std() * np.sqrt(len(times)))),
        "r_squared": float(1 - (residual**2).sum() / spread) if spread > 0 else np.nan,
        "total_drift": float(energy[-1] - energy[0]),
        "initial_energy": float(energy.mean() - rate * times.mean()),
    }


def drift_per_atom(time: ArrayLike, total: ArrayLike, num_atoms: int) -> float:
    """Slope of the line through the energy, per atom: eV/atom/ps.

    Args:
      time: (f,) ps.
      total: (f,) eV.
      num_atoms: of the structure.

    Raises:
      ValueError: as `linear_drift`; no atoms.

    Example:
      >>> round(drift_per_atom([0.0, 1.0], [-10.0, -9.0], 4), 6)
      0.25
    """
    if num_atoms < 1:
        raise ValueError(f"num_atoms must be positive, and is {num_atoms}")
    return linear_drift(time, total)["drift_rate"] / num_atoms


def conserves_energy(
    total: ArrayLike, kinetic: ArrayLike, potential: ArrayLike, tolerance: float = TOLERANCE
) -> bool:
    """The published verdict; weak, see above.

    Args:
      total: (f,) eV.
      kinetic: (f,) eV.
      potential: (f,) eV.
      tolerance: % of the first energy that the last frame may be off; half as much again any frame.

    Raises:
      ValueError: fewer than 2 frames, or series of different lengths.

    Example:
      >>> conserves_energy([-1.0, -1.0], [1.0, 1.5], [-2.0, -2.5])
      True
    """
    drift = energy_drift(total)
    return (
        abs(drift["drift_relative"]) <= tolerance
        and drift["drift_max_deviation"] <= MAXIMUM_OVER_TOLERANCE * tolerance
        and conservation_ratio(total) >= RATIO_LIMIT
        and energy_exchange(kinetic, potential)["ke_pe_correlation"] < 0
    )


def _series(name: str, values: ArrayLike) -> NDArray[np.float64]:
    series = np.asarray(values, np.float64)
    if series.ndim != 1 or len(series) < 2:
        raise ValueError(f"{name} must be a series of at least 2 frames, not of shape {series.shape}")
    return series


def _check_lengths(**series: NDArray[np.float64]) -> None:
    lengths = {name: len(values) for name, values in series.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"series of one run are of one length, not {lengths}")


def _over(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """A quotient that is infinite, or 0 of 0, over zero."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    over_zero = np.where(part == 0, 0.0, np.copysign(np.inf, part))
    return np.where(whole == 0, over_zero, part / np.where(whole == 0, 1, whole))
