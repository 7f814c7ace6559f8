"""Where a network's forces are wrong, and what of that is the way of measuring: for the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sparsejax.bench.force_field.systems import Network, molecules
from sparsejax.models.force_field.dataset import LabelledStructure
from sparsejax.models.force_field.error_patterns import (
    ErrorGroup,
    angle_shares,
    errors_by_element,
    errors_by_magnitude,
)
from sparsejax.models.force_field.force_metrics import angular_errors, force_metrics
from sparsejax.models.force_field.labelled_forces import ComparedForces, compare_forces
from sparsejax.models.force_field.structure import SYMBOLS, Structure

_PUBLISHED_BATCH = 16
_WORST = 5
_BATCHES = 4


class Errors(NamedTuple):
    """How a network differs from a reference.

    Attributes:
      network: its name.
      forces: of `force_metrics`.
      energy: ``mae`` and ``rmse`` (eV of a structure), ``per_atom_mae`` and ``per_atom_rmse`` (eV).
      elements: by element.
      magnitudes: by the length of the reference force.
      angles: shares of forces by how far they point away.
      directions: (n,) degrees.
      worst: formula, number in the data and force RMSE of the worst structures.
      without_ids: ``energy_mae`` and ``force_rmse`` when the molecules of a batch are taken for one
        structure, as the published validation took them; None where that cannot be asked.
      rotation: eV, standard deviation of the first structure's energy over the rotations of a cube.
      compared: what all this was computed from.
    """

    network: str
    forces: dict[str, Any]
    energy: dict[str, float]
    elements: tuple[ErrorGroup, ...]
    magnitudes: tuple[ErrorGroup, ...]
    angles: dict[str, float]
    directions: np.ndarray
    worst: list[tuple[str, int, float]]
    without_ids: dict[str, float] | None
    rotation: float
    compared: ComparedForces

    def to_json(self) -> dict[str, Any]:
        """As a dict that JSON can carry; without single forces."""
        return {
            "network": self.network,
            "forces": {name: _number(value) for name, value in self.forces.items()},
            "energy": self.energy,
            "elements": [group.to_json() for group in self.elements],
            "magnitudes": [group.to_json() for group in self.magnitudes],
            "angle_shares": self.angles,
            "worst": [
                {"formula": formula, "structure": number, "force_rmse": rmse}
                for formula, number, rmse in self.worst
            ],
            "without_graph_ids": self.without_ids,
            "energy_spread_over_rotations": self.rotation,
        }


def force_field_of(network: Network) -> Any:
    """A `ForceField` with the filters that are faster here."""
    import jax

    from sparsejax.models.force_field.potential import ForceField
    from sparsejax.models.force_field.tables import choose_filters

    params = jax.device_put(network.params)
    return ForceField(network.config, params, choose_filters(network.config, params))


def labelled_by(network: Network, count: int) -> list[LabelledStructure]:
    """Built-in molecules with the energies and forces of a network.

    Args:
      network: the reference.
      count: molecules, each moved a little.
    """
    structures = molecules(count, seed=1)
    found = force_field_of(network).predict(structures)
    return [
        LabelledStructure(structure, float(one.energy), np.asarray(one.forces, np.float64))
        for structure, one in zip(structures, found, strict=True)
    ]


def errors_of(network: Network, samples: Sequence[LabelledStructure]) -> Errors:
    """Compare a network with labels.

    Args:
      network: to look at.
      samples: labelled structures.

    Raises:
      ValueError: no structures, or one that the network cannot answer for.
    """
    field = force_field_of(network)
    found = compare_forces(field, samples)
    both = found.predicted, found.reference
    return Errors(
        network=network.name,
        forces=force_metrics(*both),
        energy=_energy_errors(found),
        elements=errors_by_element(*both, found.species),
        magnitudes=errors_by_magnitude(*both),
        angles=angle_shares(*both),
        directions=angular_errors(*both),
        worst=_worst(found),
        without_ids=_without_ids(field, samples),
        rotation=_rotation_spread(field, samples),
        compared=found,
    )


def _energy_errors(found: ComparedForces) -> dict[str, float]:
    errors = found.energies - found.labels
    per_atom = errors / found.sizes
    return {
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt((errors**2).mean())),
        "per_atom_mae": float(np.abs(per_atom).mean()),
        "per_atom_rmse": float(np.sqrt((per_atom**2).mean())),
    }


def _worst(found: ComparedForces) -> list[tuple[str, int, float]]:
    squares = ((found.predicted - found.reference) ** 2).mean(axis=1)
    rmse = np.sqrt(np.bincount(found.owners, squares) / found.sizes)
    worst = np.argsort(-rmse, kind="stable")[:_WORST]
    return [(_formula(found.species[found.owners == one]), int(one), float(rmse[one])) for one in worst]


def _without_ids(field: Any, samples: Sequence[LabelledStructure]) -> dict[str, float] | None:
    """Errors of batches whose molecules lie on top of each other and have one energy together."""
    free = [sample for sample in samples if not sample.structure.periodic]
    batches = [free[at : at + _PUBLISHED_BATCH] for at in range(0, len(free), _PUBLISHED_BATCH)]
    energies, squares = [], []
    for batch in batches[:_BATCHES]:
        structure = Structure(
            np.concatenate([sample.structure.species for sample in batch]),
            np.concatenate([sample.structure.positions for sample in batch]),
            None,
            np.zeros(3, bool),
        )
        try:
            found = field.predict(structure)
        except ValueError:  # two atoms on one site: nobody can say
            continue
        energies += [abs(float(found.energy) - sample.energy) for sample in batch]
        squares.append((found.forces - np.concatenate([sample.forces for sample in batch])) ** 2)
    if not energies:
        return None
    rmse = np.sqrt(np.concatenate(squares).mean())
    return {"energy_mae": float(np.mean(energies)), "force_rmse": float(rmse)}


def _rotation_spread(field: Any, samples: Sequence[LabelledStructure]) -> float:
    return float(field.predict(samples[0].structure, rotation_average="cube").energy_spread)


def _formula(species: np.ndarray) -> str:
    """Carbon and hydrogen first, then by symbol."""
    numbers, counts = np.unique(species, return_counts=True)
    parts = {SYMBOLS[number]: int(count) for number, count in zip(numbers, counts, strict=True)}
    order = sorted(parts, key=lambda symbol: ({"C": 0, "H": 1}.get(symbol, 2), symbol))
    return "".join(f"{symbol}{parts[symbol] if parts[symbol] > 1 else ''}" for symbol in order)


def _number(value: Any) -> Any:
    return value if isinstance(value, bool) or np.isfinite(value) else None
