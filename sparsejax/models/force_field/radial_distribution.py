"""How far atoms are from each other: radial distribution functions of crystals, liquids and molecules."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsejax.models.force_field.neighbors import edge_list
from sparsejax.models.force_field.structure import SYMBOLS, Structure


class RadialDistribution(NamedTuple):
    """Distances of pairs, averaged over frames.

    Attributes:
      distances: (b,) A, middles of the bins.
      curves: by the pair's name, such as "C-H", (b,). Where all three directions repeat, the density of the
        second element around the first over its mean density; otherwise the density of pairs over distances,
        per A, so that a curve sums up to the share of its pairs within reach.
      periodic: which of the two it is.
    """

    distances: NDArray[np.float64]
    curves: Mapping[str, NDArray[np.float64]]
    periodic: bool


def radial_distribution(
    frames: Sequence[Structure], *, reach: float = 6.0, bins: int = 150
) -> RadialDistribution:
    """Distances between atoms of every two elements.

    Args:
      frames: of the same species; cells may change.
      reach: A, largest distance; images beyond half of a cell are counted rightly.
      bins: of equal width.

    Raises:
      ValueError: no frames, other species in a later frame, or a geometry in which nothing can be measured.

    Example:
      >>> pair = Structure(np.array([6, 8]), np.array([[0, 0, 0], [0, 0, 1.15]]), None, np.zeros(3, bool))
      >>> found = radial_distribution([pair], reach=2.0, bins=20)
      >>> list(found.curves), float(found.distances[found.curves["C-O"].argmax()].round(3))
      (['C-O'], 1.15)
    """
    if not frames:
        raise ValueError("there are no frames to measure distances in")
    species, periodic = frames[0].species, bool(frames[0].pbc.all())
    borders = np.linspace(0, reach, bins + 1)
    elements = np.unique(species)
    sums = {pair: np.zeros(bins) for pair in itertools.combinations_with_replacement(elements, 2)}
    for number, frame in enumerate(frames):
        if not np.array_equal(frame.species, species):
            raise ValueError(f"frame {number} has other atoms than frame 0")
        edges = edge_list(frame, reach)
        cell = np.zeros((3, 3)) if frame.cell is None else frame.cell
        vectors = frame.positions[edges.senders] + edges.shifts @ cell - frame.positions[edges.receivers]
        lengths = np.linalg.norm(vectors, axis=1)
        ends = species[edges.receivers], species[edges.senders]
        for first, second in sums:
            counts, _ = np.histogram(lengths[(ends[0] == first) & (ends[1] == second)], borders)
            sums[first, second] += counts * _scale(frame, first, second, borders, periodic=periodic)
    curves = {
        f"{SYMBOLS[first]}-{SYMBOLS[second]}": total / len(frames)
        for (first, second), total in sums.items()
        if total.any()
    }
    return RadialDistribution((borders[:-1] + borders[1:]) / 2, curves, periodic)


def _scale(
    frame: Structure, first: int, second: int, borders: NDArray[np.float64], *, periodic: bool
) -> NDArray[np.float64] | float:
    """What a count of directed edges from one element to the other is multiplied with."""
    seeing, seen = (int((frame.species == element).sum()) for element in (first, second))
    if not periodic:
        pairs = seeing * (seen - (first == second))
        return 1 / (max(pairs, 1) * (borders[1] - borders[0]))
    assert frame.cell is not None
    shells = 4 / 3 * np.pi * (borders[1:] ** 3 - borders[:-1] ** 3)
    return abs(np.linalg.det(frame.cell)) / (seeing * seen * shells)
