"""Errors over a whole data set from sums over its batches: roots and quotients are taken once, at the end.

Means of the errors of batches, as published, depend on how structures fall into batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from sparsejax.models.force_field.force_metrics import DIRECTED
from sparsejax.models.force_field.losses import LossMasks, Quantities

Sums = Mapping[str, ArrayLike]
"""Numbers that add over batches; of `metric_sums`."""


def metric_sums(
    predicted: Quantities, labels: Quantities, masks: LossMasks | None = None
) -> dict[str, Array]:
    """Sums of errors and squares over the real part of a batch.

    Args:
      predicted: ``energy`` (g,), ``forces`` (n, 3), ``stress`` (g, 6), such as ``vars(prediction)``.
      labels: the same, and ``stress_mask`` (g,); a quantity counts where both sides have it.
      masks: all is real if not given; errors per atom need ``num_atoms``.

    Returns:
      scalars for `pooled_metrics`. May be called inside jit.

    Example:
      >>> sums = metric_sums({"energy": jnp.array([1.0, 2.0])}, {"energy": jnp.array([1.0, 4.0])})
      >>> float(sums["energy/square"]), int(sums["energy/count"])
      (4.0, 2)
    """
    masks = masks or LossMasks()
    sums: dict[str, Array] = {}
    for name, mask in (("energy", masks.graphs), ("forces", masks.atoms), ("stress", masks.graphs)):
        found, truth = predicted.get(name), labels.get(name)
        if found is None or truth is None:
            continue
        real = jnp.ones(len(found), bool) if mask is None else jnp.asarray(mask)
        if name == "stress" and (labelled := labels.get("stress_mask")) is not None:
            real &= labelled
        shaped = real.reshape(-1, *[1] * (found.ndim - 1))
        # Cleared before any arithmetic, so that NaN in padding goes nowhere.
        found, truth = jnp.where(shaped, found, 0), jnp.where(shaped, truth, 0)
        sums |= _errors(name, found - truth, real)
        if name == "energy" and masks.num_atoms is not None:
            sums |= _errors("energy_per_atom", (found - truth) / jnp.maximum(masks.num_atoms, 1), real)
        if name == "forces":
            sums |= _force_sums(found, truth)
    return sums


def pooled_metrics(batches: Iterable[Sums]) -> dict[str, float]:
    """Metrics of all batches together.

    Args:
      batches: `metric_sums` of each; they are added in float64.

    Returns:
      ``energy_rmse``, ``energy_mae`` (eV of a structure), ``energy_per_atom_rmse`` and ``_mae`` (eV),
      ``force_rmse``, ``force_mae``, ``force_rmse_x`` to ``_z`` (eV/A), ``force_r_squared``, ``force_cosine``,
      ``angular_error_mean_deg`` (over pairs of forces that both have a direction), ``stress_rmse`` and
      ``stress_mae`` (eV/A^3): those that any batch had labels for.

    Example:
      >>> pooled_metrics([{"energy/square": 4.0, "energy/size": 2.0, "energy/count": 2}])
      {'energy_rmse': 1.4142135623730951, 'energy_mae': 1.0}
    """
    sums: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, value in jax.device_get(dict(batch)).items():
            sums[name] = sums.get(name, np.float64(0)) + np.asarray(value, np.float64)
    metrics: dict[str, float] = {}
    for name in ("energy", "energy_per_atom", "forces", "stress"):
        if (count := float(sums.get(f"{name}/count", 0))) > 0:
            short = "force" if name == "forces" else name
            metrics[f"{short}_rmse"] = float(np.sqrt(sums[f"{name}/square"] / count))
            metrics[f"{short}_mae"] = float(sums[f"{name}/size"] / count)
    return metrics | (_force_metrics(sums) if "forces/by_axis" in sums and "force_rmse" in metrics else {})


def _errors(name: str, errors: Array, real: Array) -> dict[str, Array]:
    return {
        f"{name}/square": (errors**2).sum(),
        f"{name}/size": jnp.abs(errors).sum(),
        f"{name}/count": real.sum() * (errors.size // max(errors.shape[0], 1)),
    }


def _force_sums(found: Array, truth: Array) -> dict[str, Array]:
    lengths, true_lengths = jnp.linalg.norm(found, axis=-1), jnp.linalg.norm(truth, axis=-1)
    directed = (lengths > DIRECTED) & (true_lengths > DIRECTED)
    dots = (found * truth).sum(axis=-1)
    # The arc tangent keeps small angles that the arc cosine loses in float32.
    angles = jnp.degrees(jnp.arctan2(jnp.linalg.norm(jnp.cross(found, truth), axis=-1), dots))
    cosines = dots / jnp.where(directed, lengths * true_lengths, 1)
    return {
        "forces/by_axis": ((found - truth) ** 2).sum(axis=0),
        "forces/true": truth.sum(),
        "forces/true_square": (truth**2).sum(),
        "forces/directed": directed.sum(),
        "forces/angle": jnp.where(directed, angles, 0).sum(),
        "forces/cosine": jnp.where(directed, cosines, 0).sum(),
    }


def _force_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    count = sums["forces/count"]
    by_axis = np.sqrt(sums["forces/by_axis"] / (count / 3))
    metrics = {f"force_rmse_{name}": float(by_axis[axis]) for axis, name in enumerate("xyz")}
    if (spread := sums["forces/true_square"] - sums["forces/true"] ** 2 / count) > 0:
        metrics["force_r_squared"] = float(1 - sums["forces/square"] / spread)
    if (directed := sums["forces/directed"]) > 0:
        metrics["force_cosine"] = float(sums["forces/cosine"] / directed)
        metrics["angular_error_mean_deg"] = float(sums["forces/angle"] / directed)
    return metrics
