"""What ``sparsejax verify`` says of a force field: does it obey the physics that its variant promises?

A check passes where the network does what it is defined to. The published variant is defined to depend on
the orientation of a molecule and to jump at the cutoff: that is told, with numbers, and is no reason to fail.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.verification import Check
from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.graph import batch_graphs
from sparsejax.models.force_field.rotations import rotations
from sparsejax.models.force_field.structure import SYMBOLS, Structure

TURNS = 12
"""Orientations in which the molecule is looked at."""

SPREAD, SLOPE, JUMP, ROUNDING = 1e-9, 1e-6, 1e-6, 1e-12
"""Limits: energies over orientations, relative; forces against differences, relative; eV at the cutoff; two
calls of one program, relative, since sums may be taken in another order."""

_STEP = 1e-5  # A, of the differences
_DIRECTIONS = 3
_ETHANOL = (  # A, shaken so that nothing is zero by symmetry
    (6, -1.186, -0.372, 0.041),
    (6, 0.012, 0.587, -0.023),
    (8, 1.223, -0.189, 0.067),
    (1, -2.112, 0.214, -0.038),
    (1, -1.167, -1.028, 0.893),
    (1, -1.213, -0.981, -0.875),
    (1, 0.029, 1.242, 0.858),
    (1, -0.013, 1.211, -0.932),
    (1, 1.989, 0.402, 0.024),
)


def soundness_report(ck: Any) -> list[Check]:
    """Turn, pull apart and differentiate small structures, in float64 and in one compiled program.

    Args:
      ck: checkpoint of the family.

    Returns:
      the checks: orientation, forces, cutoff, dead parts.

    Source: specs/force_field.md section 2, rows 1, 2 and the dead parts of section 1.
    """
    config = ck.config
    turns = np.concatenate([rotations(None), rotations(TURNS - 1)])  # the identity first
    directions = _directions(_DIRECTIONS)
    pairs = [*itertools.combinations_with_replacement(sorted(set(_elements(config))), 2)]
    turned = [_molecule(config, turn) for turn in turns]
    moved = [_molecule(config, move=sign * _STEP * way) for way in directions for sign in (1, -1)]
    near = [_pair(pair, config.cutoff * (1 - 1e-12)) for pair in pairs]
    far = [_pair(pair, config.cutoff * (1 + 1e-9)) for pair in pairs]
    structures = [*turned, *moved, *near, *far]
    spoiled, count = _without_dead_parts(ck)
    with jax.enable_x64(True):  # differences of energies drown in float32
        energies, forces, (without,) = _predicted(ck, structures, spoiled)
    at = np.cumsum([0, len(turned), len(moved), len(near), len(far)])
    parts = [energies[start:stop] for start, stop in itertools.pairwise(at)]
    return [
        _orientation(config, parts[0], forces[: len(turned)], turns),
        _slopes(parts[1], forces[0], directions),
        _cutoff(config, parts[2] - parts[3], pairs),
        _dead(ck, count, energies, without),
    ]


def _orientation(
    config: ForceFieldConfig, energies: np.ndarray, forces: Sequence[np.ndarray], turns: np.ndarray
) -> Check:
    spread = float(np.ptp(energies))
    back = [found @ turn for found, turn in zip(forces, turns, strict=True)]
    off = float(np.max(np.abs(np.array(back) - back[0])))
    told = f"over {TURNS} orientations the energy spreads by {spread:.3g} eV, forces by {off:.3g} eV/A"
    if config.variant == "cartesian":
        return Check("orientation", True, f"{told}: not invariant, as published; see rotation_average=")
    limit = SPREAD * max(1.0, float(np.abs(energies).max()))
    return Check("orientation", spread <= limit and off <= 1e3 * limit, f"{told} (limit {limit:.1g} eV)")


def _slopes(energies: np.ndarray, forces: np.ndarray, directions: np.ndarray) -> Check:
    slopes = (energies[0::2] - energies[1::2]) / (2 * _STEP)
    expected = -(directions * forces).sum((1, 2))
    worst = float(np.abs(slopes - expected).max()) / max(1.0, float(np.abs(forces).max()))
    told = f"forces differ from differences of the energy by {worst:.2g} (limit {SLOPE:g})"
    return Check("forces", worst <= SLOPE, told)


def _cutoff(config: ForceFieldConfig, jumps: np.ndarray, pairs: Sequence[tuple[int, int]]) -> Check:
    names = ("-".join(map(SYMBOLS.__getitem__, pair)) for pair in pairs)
    each = ", ".join(f"{name} {jump:.3g}" for name, jump in zip(names, jumps, strict=True))
    told = f"the energy of a pair jumps at {config.cutoff:g} A by {each} eV"
    if config.variant == "cartesian":
        return Check("cutoff", True, f"{told}, as published: long runs drift")
    return Check("cutoff", bool(np.abs(jumps).max() <= JUMP), f"{told} (limit {JUMP:g})")


def _dead(ck: Any, count: int, energies: np.ndarray, without: np.ndarray) -> Check:
    total = ck.config.num_parameters
    told = (
        f"{count} of {total} parameters reach no energy: vectors into the first interaction, out of the last"
    )
    same = np.abs(energies - without) <= ROUNDING * np.maximum(1.0, np.abs(energies))  # False where NaN
    return Check("dead parts", bool(same.all()), told)


def _predicted(
    ck: Any, structures: Sequence[Structure], *others: Any
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Energies (g,) and the forces (n, 3) of each structure; energies (g,) with other parameters."""
    # Few atoms, called twice: the time goes into compiling, and half of that into speed that nobody needs.
    apply = jax.jit(ck.model.apply, compiler_options={"xla_backend_optimization_level": 0})
    graph = jax.tree.map(jnp.asarray, batch_graphs(structures, ck.config.cutoff, dtype=np.float64))
    ends = np.cumsum([structure.num_atoms for structure in structures])

    def answer(params: Any) -> Any:
        return apply({"params": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)}, graph)

    found = answer(ck.params)
    forces = np.split(np.asarray(found.forces)[: ends[-1]], ends[:-1])
    energies = [np.asarray(each.energy)[: len(ends)] for each in (found, *map(answer, others))]
    return energies[0], forces, energies[1:]


def _without_dead_parts(ck: Any) -> tuple[dict[str, Any], int]:
    """The parameters with NaN where no energy should look, and how many numbers that are."""
    c, last = ck.config.hidden_dim, f"interaction_{ck.config.num_interactions - 1}"
    params = jax.tree.map(np.array, dict(ck.params))
    first_filter = params["interaction_0"]["message"]["filter"]
    update = params[last]["update"]
    parts = [first_filter[name][..., c : 2 * c] for name in ("kernel", "bias")]
    parts += [update["gates"][name][..., c:] for name in ("kernel", "bias")] + [update["mixing"]]
    for part in parts:
        part[...] = np.nan
    return params, sum(part.size for part in parts)


def _elements(config: ForceFieldConfig) -> tuple[int, ...]:
    """Elements for the molecule, those that the network was trained on if ours are not among them."""
    known = config.species or tuple(range(1, config.max_z + 1))
    return tuple(number if number in known else known[number % len(known)] for number, *_ in _ETHANOL)


def _molecule(config: ForceFieldConfig, turn: np.ndarray | None = None, move: Any = 0.0) -> Structure:
    positions = np.array([where for _, *where in _ETHANOL]) + move
    turned = positions if turn is None else positions @ turn.T
    return Structure(np.array(_elements(config), np.int32), turned, None, np.zeros(3, bool))


def _pair(elements: tuple[int, int], distance: float) -> Structure:
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]])
    return Structure(np.array(elements, np.int32), positions, None, np.zeros(3, bool))


def _directions(count: int) -> np.ndarray:
    """(count, n, 3), each of length one."""
    drawn = np.random.default_rng(1).normal(size=(count, len(_ETHANOL), 3))
    return drawn / np.sqrt((drawn**2).sum((1, 2), keepdims=True))
