"""Which search a list uses and how much room it has: decided outside jit, from the atoms at hand."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
from jax import Array

from sparsejax.models.force_field.neighbors_in_jit.slots import Slots
from sparsejax.models.force_field.structure import Structure, heights, periodic_cell

ListMethod = Literal["all_pairs", "cell_list", "images"]

ALL_PAIRS_UP_TO = 64
"""Atoms of a molecule without a cell, up to which everybody simply sees everybody."""

_IMAGES_UP_TO = 1 << 18  # atoms x atoms x images: 2 ms on a core, and jax-md need not be there
_IMAGES_LIMIT = 1 << 26  # half a second, and 8 MiB of bits
_ROUNDING = (1e-3, 2e-6)  # A, and part of the largest coordinate: what float32 may be off by
_A_HAIR = 1e-6  # part of a height, by which a plan stays clear of its own limits


class Grid(NamedTuple):
    """Sizes of a grid of cells.

    Attributes:
      counts: cells along each axis; an axis that does not repeat has 1, or at least 3.
      capacity: atoms that fit into a cell.
    """

    counts: tuple[int, int, int]
    capacity: int


@dataclass(frozen=True)
class Plan:
    """Everything about a list that does not change inside jit.

    Attributes:
      method: of the search.
      cutoff: A, up to which the list must be complete at any time.
      skin: A, by how much further it looks.
      reach: A, cutoff and skin, and a little more: rounding, here or where a pair is measured, must not
        lose one.
      pbc: the directions that repeat.
      slots: of every row.
      grid: of "cell_list".
      images: of "images", lattice vectors on either side of the nearest image.
    """

    method: ListMethod
    cutoff: float
    skin: float
    reach: float
    pbc: tuple[bool, bool, bool]
    slots: int
    grid: Grid | None = None
    images: tuple[int, int, int] | None = None

    @property
    def least_heights(self) -> tuple[float, ...]:
        """Heights of the cell, A, below which the search misses pairs; 0 where an axis does not repeat."""
        if self.grid is not None:
            least = [self.reach * count for count in self.grid.counts]
        elif self.images is not None:
            least = [self.reach / (count + 0.5) for count in self.images]
        else:
            least = [0.0] * 3
        return tuple(low if repeats else 0.0 for low, repeats in zip(least, self.pbc, strict=True))


class Found(NamedTuple):
    """What a search returns.

    Attributes:
      slots: rows of neighbours.
      shifts: (n, m, 3) int32.
      heights: (3,) of the cell, A.
      fullest: () int32, atoms in the fullest cell of a grid.
    """

    slots: Slots
    shifts: Array
    heights: Array
    fullest: Array


def make_plan(
    structure: Structure, cutoff: float, skin: float, *, method: str = "auto", low: np.ndarray | None = None
) -> Plan:
    """Plan a list, with one slot per row: how many are needed shows when it is built.

    Args:
      structure: atoms.
      cutoff: A.
      skin: A.
      method: "auto" or one of the searches.
      low: (3,) heights that the cell may come down to, A; those it has now where None.

    Returns:
      The plan.

    Raises:
      ValueError: the structure does not suit the method, or jax-md is needed and missing.

    Example:
      >>> copper = Structure(np.array([29]), np.zeros((1, 3)), 3.6 * np.eye(3), np.ones(3, bool))
      >>> make_plan(copper, 5.0, 0.5).images
      (2, 2, 2)
    """
    low = heights(periodic_cell(structure)) if low is None else low
    reach = _reach(structure, cutoff, skin)
    images = _image_counts(structure, reach, low)
    fits = bool((low >= reach)[structure.pbc].all())
    if method == "auto":
        method = _choose(structure, reach, images, fits)
    if method not in get_args(ListMethod):
        raise ValueError(f"no method {method!r}; choose 'auto' or one of {get_args(ListMethod)}")
    if method == "all_pairs" and structure.periodic:
        raise ValueError('method="all_pairs" knows no images; use "images" or "cell_list" where pbc is set')
    if method == "cell_list" and not fits:
        raise ValueError(
            f'method="cell_list" needs a cell at least {reach:.3f} A high along each axis that repeats, not '
            f'{low[structure.pbc].min():.3f} A; use "images"'
        )
    pbc = cast(tuple[bool, bool, bool], tuple(structure.pbc.tolist()))
    plan = Plan(cast(ListMethod, method), cutoff, skin, reach, pbc, slots=1)
    if method == "all_pairs":
        return plan
    if method == "images":
        return dataclasses.replace(plan, images=images)
    return dataclasses.replace(plan, grid=_grid(structure, reach, low))


def _reach(structure: Structure, cutoff: float, skin: float) -> float:
    largest = np.abs(structure.positions).max(initial=0.0) + np.abs(periodic_cell(structure)).max()
    fixed, part = _ROUNDING
    # In powers of two: a reach of its own for every structure would compile its loop anew.
    doublings = math.ceil(math.log2(1 + part / fixed * float(largest)))
    return cutoff + skin + fixed * 2 ** max(1, doublings)


def _image_counts(structure: Structure, reach: float, low: np.ndarray) -> tuple[int, int, int]:
    """Lattice vectors on either side of the nearest image that may lie within reach, for each axis."""
    counts = np.where(structure.pbc, np.floor(reach / low * (1 + _A_HAIR) + 0.5), 0)
    return cast(tuple[int, int, int], tuple(counts.astype(int).tolist()))


def _choose(structure: Structure, reach: float, images: tuple[int, int, int], fits: bool) -> str:
    """All pairs for molecules, all images for few atoms or low cells, a grid for many atoms."""
    n = structure.num_atoms
    if not structure.periodic and n <= ALL_PAIRS_UP_TO:
        return "all_pairs"
    candidates = n**2 * math.prod(2 * count + 1 for count in images)
    if candidates <= _IMAGES_UP_TO:
        return "images"
    if fits and importlib.util.find_spec("jax_md") is not None:
        return "cell_list"
    if candidates <= _IMAGES_LIMIT:
        return "images"
    if fits:
        raise ValueError(f'a list of {n} atoms inside jit needs jax-md: pip install "sparsejax[md]"')
    raise ValueError(
        f"{n} atoms are too many to try with all images, and their cell is lower than the {reach:.3f} A that "
        "the list reaches; repeat the cell along its short axis"
    )


def _grid(structure: Structure, reach: float, low: np.ndarray) -> Grid:
    """As many cells as fit, with room for a fifth more atoms than the fullest holds."""
    fractional = structure.positions @ np.linalg.inv(periodic_cell(structure))
    across = np.where(structure.pbc, low * (1 - _A_HAIR), np.ptp(fractional, axis=0) + reach)
    counts = np.maximum(1, across // reach).astype(int)
    # Two cells of an axis that does not repeat would be neighbours twice.
    counts = np.where(~structure.pbc & (counts < 3), 1, counts)
    along = np.where(structure.pbc, fractional, fractional / (reach * counts)) % 1.0
    places = np.minimum((along * counts).astype(int), counts - 1)
    fullest = np.bincount(np.ravel_multi_index(tuple(places.T), tuple(counts))).max()
    x, y, z = counts.tolist()
    return Grid((x, y, z), math.ceil(1.2 * fullest) + 1)
