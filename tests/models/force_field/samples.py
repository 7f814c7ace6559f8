"""Small labelled structures from a seed."""

from __future__ import annotations

import numpy as np

from sparsejax.models.force_field.dataset import LabelledStructure
from sparsejax.models.force_field.structure import Structure

SIZES = (3, 1, 5, 4, 2, 3, 5, 6)


def molecule(size, rng):
    """Atoms on a jittered grid, so that no two come close."""
    grid = np.stack(np.unravel_index(rng.permutation(8)[:size], (2, 2, 2)), axis=1)
    positions = 1.5 * grid + rng.uniform(-0.2, 0.2, (size, 3))
    return Structure(rng.choice([1, 6, 8], size).astype(np.int32), positions, None, np.zeros(3, bool))


def labelled(number, size, rng):
    """A molecule, or a crystal with stress for each third."""
    structure = molecule(size, rng)
    stress = None
    if number % 3 == 2:
        cell = 6 * np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3))
        structure, stress = structure._replace(cell=cell, pbc=np.ones(3, bool)), rng.normal(size=6)
    forces = rng.normal(size=(size, 3)).astype(np.float32)
    return LabelledStructure(structure, float(rng.normal() - 10 * size), forces, stress)


def samples(sizes=SIZES, seed=0):
    rng = np.random.default_rng(seed)
    return [labelled(number, size, rng) for number, size in enumerate(sizes)]


def assert_same(first, second):
    """Equal to the last bit."""
    for one, other in zip((*first.structure, *first[1:]), (*second.structure, *second[1:]), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)
