"""What a force field learns from: energies, forces, their directions, stress; of labels or of a teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.typing import Scalar

Distance = Literal["mse", "mae", "huber"]
Reduction = Literal["mean", "sum"]
EnergyScale = Literal["per_atom", "total"]

Quantities = Mapping[str, Array | None]
"""``energy`` (g,), ``forces`` (n, 3), ``stress`` (g, 6); of labels also ``stress_mask`` (g,) bool."""

_DEGREES = 180 / 3.14159265  # the published constant: pi itself would differ in the ninth digit
_SMALLEST_NORM = 1e-8


@dataclass(frozen=True)
class ForceFieldLoss:
    """Settings of `force_field_loss`. All but ``energy`` are the published ones.

    Attributes:
      energy_weight: of the energy term; a term of weight 0 is left out, with its metrics.
      force_weight: of the force term; without it there is no angular term either.
      stress_weight: of the stress term.
      angular_weight: of one minus the cosine between predicted and true forces.
      energy_loss_type: "mse", "mae" or "huber".
      force_loss_type: the same choice.
      stress_loss_type: the same choice.
      huber_delta: where "huber" turns from a parabola into a line.
      reduction: "mean" or "sum" over all numbers of a term; of the angular term over atoms.
      energy: "per_atom" divides energy errors by the number of atoms, so that large structures do not drown
        small ones; "total" is published.
      angular_floor: eV/A, below which a force counts as this long in the cosine. Forces near zero, as on the
        carbon of methane, have no direction worth learning, and the gradient of the term is up to 1 / floor:
        1e-2 tames it, the published 1e-8 does not.

    Raises:
      ValueError: a negative weight, an unknown choice, a delta or floor that is not positive.

    Source: specs/force_field.md section 4.
    """

    energy_weight: float = 1.0
    force_weight: float = 100.0
    stress_weight: float = 0.1
    angular_weight: float = 10.0
    energy_loss_type: Distance = "mse"
    force_loss_type: Distance = "mse"
    stress_loss_type: Distance = "mse"
    huber_delta: float = 1.0
    reduction: Reduction = "mean"
    energy: EnergyScale = "per_atom"
    angular_floor: float = _SMALLEST_NORM

    def __post_init__(self):
        """Check the settings."""
        for name in ("energy_weight", "force_weight", "stress_weight", "angular_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, and is {getattr(self, name)!r}")
        for name in ("huber_delta", "angular_floor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, and is {getattr(self, name)!r}")
        distances = ("energy_loss_type", "force_loss_type", "stress_loss_type")
        choices = {name: get_args(Distance) for name in distances}
        choices |= {"reduction": get_args(Reduction), "energy": get_args(EnergyScale)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")


class LossMasks(NamedTuple):
    """What of a padded batch is real.

    Attributes:
      atoms: (n,) bool.
      graphs: (g,) bool.
      num_atoms: (g,) real atoms of each graph; needed where energies count per atom.
    """

    atoms: Array | None = None
    graphs: Array | None = None
    num_atoms: Array | None = None


def force_field_loss(
    predicted: Quantities,
    labels: Quantities,
    settings: ForceFieldLoss | None = None,
    masks: LossMasks | None = None,
) -> tuple[Scalar, dict[str, Scalar]]:
    """The published loss: weighted energy, force, angular and stress terms, each over what is real.

    Args:
      predicted: `Quantities`, such as ``vars(prediction)``.
      labels: `Quantities`; a term needs both sides, and is left out where one is missing or None.
      settings: `ForceFieldLoss()` if not given.
      masks: all is real if not given.

    Returns:
      total (), and metrics under the published names: ``total``, ``energy``, ``force``, ``angular``,
      ``stress`` (terms without their weights), ``energy_rmse`` and ``energy_mae`` (eV of a structure),
      ``force_rmse``, ``force_mae``, ``force_rmse_x`` to ``_z``, ``stress_rmse``, ``stress_mae`` and
      ``angular_error_mean_deg`` and ``_max_deg``; "per_atom" adds ``energy_per_atom_rmse`` and ``_mae``. A
      term over nothing real is 0. These are of one batch: to score a data set, use `metrics`.

    Raises:
      ValueError: shapes disagree, "per_atom" comes without ``num_atoms``, or no term is left.

    Example:
      >>> found = {"energy": jnp.array([1.0]), "forces": jnp.array([[0.0, 0.0, 2.0]])}
      >>> truth = {"energy": jnp.array([3.0]), "forces": jnp.array([[0.0, 0.0, 1.0]])}
      >>> total, metrics = force_field_loss(found, truth, ForceFieldLoss(energy="total"))
      >>> print(f"{total:.3f} {metrics['force']:.3f} {metrics['angular']:.3f}")
      37.333 0.333 0.000

    Source: specs/force_field.md section 4.
    """
    settings = settings or ForceFieldLoss()
    masks = masks or LossMasks()
    metrics: dict[str, Scalar] = {}
    terms = []
    if settings.energy_weight and (pair := _pair("energy", predicted, labels, masks.graphs)):
        metrics |= _energy_terms(*pair, settings, masks)
        terms.append(settings.energy_weight * metrics["energy"])
    if settings.force_weight and (pair := _pair("forces", predicted, labels, masks.atoms)):
        metrics |= _force_terms(*pair, settings, masks.atoms)
        terms.append(settings.force_weight * metrics["force"])
        if settings.angular_weight:
            metrics |= _angular_terms(*pair, settings, masks.atoms)
            terms.append(settings.angular_weight * metrics["angular"])
    labelled = _both(masks.graphs, labels.get("stress_mask"))
    if settings.stress_weight and (pair := _pair("stress", predicted, labels, labelled)):
        metrics |= _stress_terms(*pair, settings, labelled)
        terms.append(settings.stress_weight * metrics["stress"])
    if not terms:
        raise ValueError("nothing to learn from: no quantity is predicted, labelled and of positive weight")
    total = sum(terms[1:], start=terms[0])
    return total, jax.lax.stop_gradient(metrics | {"total": total})


def distillation_loss(
    predicted: Quantities,
    labels: Quantities,
    teacher: Quantities,
    settings: ForceFieldLoss | None = None,
    masks: LossMasks | None = None,
    *,
    temperature: float = 1.0,
    alpha: float = 0.5,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Follow a teacher's energies and forces by ``alpha``, and the labels by the rest.

    Args:
      predicted: `Quantities`.
      labels: `Quantities`, for `force_field_loss`.
      teacher: ``energy`` (g,) and ``forces`` (n, 3); no gradient goes through them.
      settings: of the labels' part. Energies of the teacher's part count as ``energy`` there says.
      masks: all is real if not given.
      temperature: energies and forces are divided by it, so that the teacher's part is by its square; as
        published, nothing multiplies it back.
      alpha: between 0 and 1.

    Returns:
      total (), and the metrics of `force_field_loss` with ``distill_loss``, ``hard_loss`` and a ``total`` of
      both parts.

    Raises:
      ValueError: as `force_field_loss`; a temperature or alpha out of range; no teacher's energy or forces.

    Source: specs/force_field.md section 4, DistillationLoss.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, and is {temperature!r}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie between 0 and 1, and is {alpha!r}")
    settings = settings or ForceFieldLoss()
    masks = masks or LossMasks()
    energy = _pair("energy", predicted, teacher, masks.graphs)
    forces = _pair("forces", predicted, teacher, masks.atoms)
    if energy is None or forces is None:
        raise ValueError("a teacher gives energy and forces, and the prediction has to have both")
    if settings.energy == "per_atom":
        energy = _per_atom(*energy, masks)
    soft = _mean(((energy[0] - jax.lax.stop_gradient(energy[1])) / temperature) ** 2, masks.graphs)
    soft += _mean(((forces[0] - jax.lax.stop_gradient(forces[1])) / temperature) ** 2, masks.atoms)
    hard, metrics = force_field_loss(predicted, labels, settings, masks)
    total = alpha * soft + (1 - alpha) * hard
    parts = {"distill_loss": soft, "hard_loss": hard, "total": total}
    return total, metrics | jax.lax.stop_gradient(parts)


# Terms


def _energy_terms(found: Array, truth: Array, settings: ForceFieldLoss, masks: LossMasks) -> dict[str, Array]:
    metrics = _errors("energy", found, truth, masks.graphs)
    if settings.energy == "per_atom":
        found, truth = _per_atom(found, truth, masks)
        metrics |= _errors("energy_per_atom", found, truth, masks.graphs)
    return metrics | {
        "energy": _term(found - truth, settings.energy_loss_type, settings, masks.graphs),
    }


def _force_terms(
    found: Array, truth: Array, settings: ForceFieldLoss, mask: Array | None
) -> dict[str, Array]:
    by_axis = {
        f"force_rmse_{name}": jnp.sqrt(_mean((found - truth)[:, axis] ** 2, mask))
        for axis, name in enumerate("xyz")
    }
    term = _term(found - truth, settings.force_loss_type, settings, mask)
    return {"force": term, **_errors("force", found, truth, mask), **by_axis}


def _angular_terms(
    found: Array, truth: Array, settings: ForceFieldLoss, mask: Array | None
) -> dict[str, Array]:
    losses = 1 - cosines(found, truth, settings.angular_floor)
    cosine = jnp.clip(jax.lax.stop_gradient(cosines(found, truth)), -1, 1)
    angles = _DEGREES * jnp.arccos(cosine)
    return {
        "angular": _reduced(losses, settings.reduction, mask),
        "angular_error_mean_deg": _mean(angles, mask),
        "angular_error_max_deg": jnp.max(_real(angles, mask), initial=0),
    }


def _stress_terms(
    found: Array, truth: Array, settings: ForceFieldLoss, mask: Array | None
) -> dict[str, Array]:
    term = _term(found - truth, settings.stress_loss_type, settings, mask)
    return {"stress": term, **_errors("stress", found, truth, mask)}


# What terms are made of


def cosines(first: Array, second: Array, floor: float | Array = _SMALLEST_NORM) -> Array:
    """Cosines of the angles between vectors; 0 where one of them is zero.

    Args:
      first: (*b, 3).
      second: (*b, 3).
      floor: shorter vectors count as this long.

    Returns:
      (*b); its gradient is finite everywhere, at zero vectors too.

    Example:
      >>> float(cosines(jnp.array([1.0, 0.0, 0.0]), jnp.array([-2.0, 0.0, 0.0])))
      -1.0
    """
    norms = jnp.maximum(_norm(first), floor) * jnp.maximum(_norm(second), floor)
    return jnp.sum(first * second, axis=-1) / norms


def _norm(vectors: Array) -> Array:
    """Lengths whose gradient at zero is zero."""
    squares = jnp.sum(vectors**2, axis=-1)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def _term(errors: Array, kind: Distance, settings: ForceFieldLoss, mask: Array | None) -> Array:
    if kind == "mse":
        values = errors**2
    elif kind == "mae":
        values = jnp.abs(errors)
    else:
        delta, sizes = settings.huber_delta, jnp.abs(errors)
        values = jnp.where(sizes <= delta, 0.5 * errors**2, delta * (sizes - 0.5 * delta))
    return _reduced(values, settings.reduction, mask)


def _errors(name: str, found: Array, truth: Array, mask: Array | None) -> dict[str, Array]:
    # The metrics carry no gradient; stopping it here spares the root's infinite slope at zero.
    error = jax.lax.stop_gradient(found - truth)
    return {f"{name}_rmse": jnp.sqrt(_mean(error**2, mask)), f"{name}_mae": _mean(jnp.abs(error), mask)}


def _reduced(values: Array, reduction: Reduction, mask: Array | None) -> Array:
    return _mean(values, mask) if reduction == "mean" else _real(values, mask).sum()


def _mean(values: Array, mask: Array | None) -> Array:
    """Mean over the real rows; 0 if there are none."""
    if mask is None:
        return values.sum() / max(1, values.size)
    numbers = mask.sum() * math.prod(values.shape[1:])
    return _real(values, mask).sum() / jnp.maximum(numbers, 1)


def _real(values: Array, mask: Array | None) -> Array:
    """Zero in the rows of padding, whatever stands there."""
    if mask is None:
        return values
    return jnp.where(mask.reshape(-1, *[1] * (values.ndim - 1)), values, 0)


def _per_atom(found: Array, truth: Array, masks: LossMasks) -> tuple[Array, Array]:
    if masks.num_atoms is None:
        raise ValueError('energies count per atom: give masks.num_atoms, or set energy="total"')
    counts = jnp.maximum(masks.num_atoms, 1)
    return found / counts, truth / counts


def _both(first: Array | None, second: Array | None) -> Array | None:
    if first is None or second is None:
        return second if first is None else first
    return first & second


def _pair(
    name: str, predicted: Quantities, labels: Quantities, mask: Array | None
) -> tuple[Array, Array] | None:
    """Both sides of a quantity, or None where one is missing."""
    found, truth = predicted.get(name), labels.get(name)
    if found is None or truth is None:
        return None
    if found.shape != truth.shape:
        raise ValueError(f"{name} is predicted as {found.shape} and labelled as {truth.shape}")
    # Cleared before any arithmetic: NaN in padding would come back through the gradient as NaN times 0.
    mask = None if mask is None else jnp.asarray(mask)
    return _real(jnp.asarray(found), mask), _real(jnp.asarray(truth), mask)
