"""Which search is chosen, how much room it gets, and what is refused."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from sparsejax.models.force_field.neighbors_in_jit.plan import Grid, make_plan
from sparsejax.models.force_field.structure import Structure


def crystal(repeats: tuple[int, int, int], pbc=(True, True, True)) -> Structure:
    """A cubic lattice of atoms 2.5 A apart."""
    grid = np.stack(np.meshgrid(*map(range, repeats), indexing="ij"), -1).reshape(-1, 3)
    positions = 2.5 * grid + 0.1
    cell = np.diag(2.5 * np.array(repeats))
    return Structure(np.full(len(grid), 14, np.int32), positions, cell, np.array(pbc))


@pytest.mark.skipif(importlib.util.find_spec("jax_md") is None, reason="jax-md is not installed")
@pytest.mark.parametrize(
    ("structure", "method"),
    [
        (crystal((4, 4, 4), (False,) * 3), "all_pairs"),
        (crystal((5, 4, 4), (False,) * 3), "images"),
        (crystal((1, 1, 1)), "images"),
        (crystal((4, 4, 4)), "images"),
        (crystal((9, 9, 9)), "cell_list"),
        (crystal((9, 9, 9), (False,) * 3), "cell_list"),
        (crystal((2, 20, 20)), "images"),
    ],
)
def test_the_search_suits_the_structure(structure, method):
    assert make_plan(structure, 5.0, 0.5).method == method


def test_sizes_follow_from_heights_and_fillings():
    plan = make_plan(crystal((9, 9, 5)), 5.0, 0.5, method="cell_list")
    assert plan.grid == Grid((4, 4, 2), 34)  # 22.5 / 5.5; at most 3 x 3 x 3 atoms in a cell, and a fifth
    assert 5.5 < plan.reach < 5.503
    np.testing.assert_allclose(plan.least_heights, np.array([4, 4, 2]) * plan.reach)
    plan = make_plan(crystal((1, 2, 3)), 5.0, 0.5)
    assert plan.images == (2, 1, 1)
    np.testing.assert_allclose(plan.least_heights, plan.reach / np.array([2.5, 1.5, 1.5]))
    plan = make_plan(crystal((1, 2, 3)), 5.0, 0.5, low=np.array([2.1, 5.0, 7.5]))
    assert plan.images == (3, 1, 1)
    assert make_plan(_stretched(1.0), 5.0, 0.5).least_heights == (0, 0, 0)
    slab = make_plan(crystal((9, 9, 5), (True, True, False)), 5.0, 0.5, method="cell_list")
    assert slab.grid is not None
    assert slab.grid.counts == (4, 4, 1)  # two cells of the third axis would be neighbours twice
    assert slab.least_heights[2] == 0


def test_structures_of_one_kind_share_a_plan():
    sizes = (1.0, 7.0, 123.0, 400.0)
    reaches = {make_plan(_stretched(size), 5.0, 0.5).reach for size in sizes}
    assert reaches == {5.502}  # twice the rounding at the origin, up to 500 A
    far = make_plan(_stretched(5000.0), 5.0, 0.5)
    assert far.reach >= 5.5 + 1e-3 + 2e-6 * 5000


def _stretched(size):
    return Structure(np.array([6, 6]), np.array([[0.0, 0, 0], [size, 0, 0]]), None, np.zeros(3, bool))


def test_what_does_not_fit_is_refused_with_the_way_out(monkeypatch):
    with pytest.raises(
        ValueError, match=r"needs a cell at least 5\.50. A high .* not 2\.500 A; use \"images\""
    ):
        make_plan(crystal((1, 9, 9)), 5.0, 0.5, method="cell_list")
    with pytest.raises(ValueError, match=r'"all_pairs" knows no images; use "images" or "cell_list"'):
        make_plan(crystal((4, 4, 4)), 5.0, 0.5, method="all_pairs")
    with pytest.raises(ValueError, match="no method 'tree'; choose 'auto' or one of"):
        make_plan(crystal((4, 4, 4)), 5.0, 0.5, method="tree")
    with pytest.raises(
        ValueError, match="5000 atoms are too many to try with all images, .* repeat the cell"
    ):
        make_plan(crystal((2, 50, 50)), 5.0, 0.5)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jax_md" else find(name))
    assert make_plan(crystal((9, 9, 9)), 5.0, 0.5).method == "images"
    with pytest.raises(
        ValueError, match=r'9261 atoms inside jit needs jax-md: pip install "sparsejax\[md\]"'
    ):
        make_plan(crystal((21, 21, 21)), 5.0, 0.5)
