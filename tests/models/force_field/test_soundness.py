"""What `verify` says of a force field: each check passes where it should, and fails where it must."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint.verification import verify
from sparsejax.models.force_field import soundness
from sparsejax.models.force_field.rotations import rotations
from sparsejax.models.force_field.soundness import soundness_report
from tests import golden
from tests.models.force_field import files

NAMES = ["orientation", "forces", "cutoff", "dead parts"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    trees = {"cartesian": files.saved(), "equivariant": files.WRAPPERS["equivariant"]()}
    return {name: sj.load(files.write(folder, tree, f"{name}.pt")) for name, tree in trees.items()}


def by_name(checks):
    assert [check.name for check in checks] == NAMES
    return {check.name: check for check in checks}


def test_the_published_kind_is_told_with_its_numbers(networks):
    checks = by_name(soundness_report(networks["cartesian"]))
    assert all(check.passed for check in checks.values())
    assert "not invariant, as published" in checks["orientation"].detail
    assert "as published" in checks["cutoff"].detail
    c = files.CHANNELS
    dead = (c * c + c) + (c * 2 * c + 2 * c) + 9
    assert checks["dead parts"].detail.startswith(f"{dead} of {networks['cartesian'].config.num_parameters} ")


def test_the_new_kind_keeps_its_promises(networks):
    checks = by_name(soundness_report(networks["equivariant"]))
    assert all(check.passed for check in checks.values())
    assert "limit" in checks["orientation"].detail and "limit" in checks["cutoff"].detail


def test_what_is_not_sound_fails(networks, monkeypatch):
    """Forces that are no gradient, energies that turn, a cutoff that jumps, a dead part that is read."""
    predicted = soundness._predicted

    def unsound(ck, structures, *others):
        energies, forces, others = predicted(ck, structures, *others)
        lengths = np.array([np.abs(structure.positions[:, 2]).sum() for structure in structures])
        near = np.array([structure.num_atoms == 2 for structure in structures])
        jump = near & (lengths <= files.CUTOFF)
        return energies + 1e-3 * ~near * lengths + 1e-3 * jump, forces, [others[0] + 1e-9]

    monkeypatch.setattr(soundness, "_predicted", unsound)
    checks = by_name(soundness_report(networks["equivariant"]))
    assert [check.passed for check in checks.values()] == [False] * 4


def test_the_molecule_is_of_elements_that_the_network_knows(networks):
    config = networks["equivariant"].config
    assert set(soundness._elements(config)) == {1, 6, 8}
    few = type(config)(**{**files.SIZES, "max_z": 3})
    assert set(soundness._elements(few)) <= {1, 2, 3}
    trained = type(config)(**files.SIZES, species=(1, 9))
    assert set(soundness._elements(trained)) <= {1, 9}


def test_rotations_are_rotations():
    turns = rotations(soundness.TURNS - 1)
    np.testing.assert_allclose(
        turns @ turns.swapaxes(1, 2), np.tile(np.eye(3), (len(turns), 1, 1)), atol=1e-14
    )
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-14)
    assert np.abs(np.diff(turns, axis=0)).max((1, 2)).min() > 0.1


@pytest.mark.golden()
def test_the_trained_network_turns_and_jumps_as_much_as_was_measured():
    """Spec section 2: energies of pairs of C and H jump by 0.05 to 0.11 eV; of C-O, as the golden pair's."""
    checks = by_name(verify(golden.path("force_field", "ultra_tiny_21k.pt"))[3:])
    assert all(check.passed for check in checks.values())
    told = checks["cutoff"].detail.split("by ")[1].split(" eV")[0].split(", ")
    jumps = {name: float(value) for name, value in map(str.split, told)}
    arrays = golden.arrays("force_field", "systems_ultra_tiny_public")
    pair = float(arrays["dimer_CO_5.0/E64"] - arrays["dimer_CO_5.001/E64"])
    assert jumps["C-O"] == pytest.approx(pair, rel=5e-3)
    assert all(0.045 <= abs(jumps[name]) <= 0.115 for name in ("H-H", "H-C", "C-C"))
    spread = float(checks["orientation"].detail.split("by ")[1].split()[0])
    assert 0.01 < spread < 1.0
    assert jax.config.jax_enable_x64 is False
