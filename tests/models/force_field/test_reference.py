"""`verify` with a reference: energies, forces and stress by name, one structure or several."""

from __future__ import annotations

import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint import errors
from sparsejax.checkpoint.verification import compare_outputs, verify
from sparsejax.models.force_field.reference import evaluate
from tests import golden
from tests.models.force_field import files

WATER = {"z": np.array([8, 1, 1]), "pos": np.array([[0, 0, 0.1], [0, 0.8, -0.5], [0.1, -0.7, -0.5]])}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return sj.load(files.write(tmp_path_factory.mktemp("small"), files.saved()))


def refused(error, ck, folder, words, **arrays):
    np.savez(folder / "r.npz", **arrays)
    with pytest.raises(error, match=words) as caught:
        compare_outputs(ck, folder / "r.npz")
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)


def test_each_output_is_compared_on_its_own_scale(small, tmp_path):
    found = evaluate(small, WATER)
    energy, forces = found["energy"], found["forces"]
    assert (energy.shape, forces.shape, "stress" in found) == ((), (3, 3), False)
    assert found["outputs"].tolist() == [energy, *forces.ravel()]
    for arrays in ({"energy": energy, "forces": forces}, {"outputs": found["outputs"]}, {"forces": forces}):
        np.savez(tmp_path / "r.npz", **WATER, **arrays)
        check = compare_outputs(small, tmp_path / "r.npz")
        assert check.passed and all(name in check.detail for name in arrays)
    np.savez(tmp_path / "r.npz", **WATER, energy=energy, forces=forces + 1e-3)
    check = compare_outputs(small, tmp_path / "r.npz")
    assert not check.passed and "energy 0, forces 0.001" in check.detail
    assert compare_outputs(small, tmp_path / "r.npz", tolerance=2e-3).passed


def test_several_open_structures_in_any_order(small):
    shifted = {"z": WATER["z"], "pos": WATER["pos"] + 1.5}
    alone = evaluate(small, WATER)
    order = np.array([3, 0, 4, 1, 2, 5])
    both = {name: np.concatenate([WATER[name], shifted[name]])[order] for name in WATER}
    found = evaluate(small, both | {"batch": np.repeat([4, 9], 3)[order]})
    assert found["energy"] == pytest.approx([alone["energy"]] * 2, abs=1e-6)
    expected = np.concatenate([alone["forces"], alone["forces"]])[order]
    np.testing.assert_allclose(found["forces"], expected, atol=1e-6)


def test_references_that_cannot_be_used_are_told(small, tmp_path):
    refused(errors.MissingKeyError, small, tmp_path, "an array named 'energy'; found 'z', 'pos'", **WATER)
    names = "one of 'z', 'numbers', 'species', 'atomic_numbers' is needed; found 'pos'"
    refused(errors.MissingKeyError, small, tmp_path, names, pos=np.eye(3), energy=1.0)
    names = "one of 'pos', 'positions' is needed"
    refused(errors.MissingKeyError, small, tmp_path, names, z=WATER["z"], energy=1.0)
    refused(errors.MissingKeyError, small, tmp_path, "'pbc' beside it", **WATER, cell=np.eye(3), energy=1.0)
    refused(errors.ShapeError, small, tmp_path, "'forces' has shape", **WATER, forces=np.ones((2, 3)))
    refused(errors.ShapeError, small, tmp_path, "gives no 'stress'", **WATER, stress=np.ones(6))
    refused(errors.ShapeError, small, tmp_path, "do not fit", z=[1, 1], pos=WATER["pos"], energy=1.0)
    refused(
        errors.ShapeError, small, tmp_path, "table holds 1 to 9", z=[1, 1, 14], pos=WATER["pos"], energy=1.0
    )
    refused(errors.ShapeError, small, tmp_path, "one number for each", **WATER, batch=[0], energy=1.0)


@pytest.mark.golden()
def test_published_outputs_verify_the_published_file(tmp_path):
    """One copper atom that sees nothing but its own images: energy, forces and stress."""
    arrays = golden.arrays("force_field", "systems_ultra_tiny_public")
    names = {"energy": "E_pbc", "forces": "F_pbc", "stress": "stress_voigt"}
    reference = {name: arrays[f"cu_1atom_cell/{name}"] for name in ("z", "pos", "cell", "pbc")}
    reference |= {name: arrays[f"cu_1atom_cell/{key}"] for name, key in names.items()}
    np.savez(tmp_path / "r.npz", **reference)
    path = golden.path("force_field", "ultra_tiny_21k.pt")
    (check,) = [c for c in verify(path, tmp_path / "r.npz", family_report=False) if c.name == "reference"]
    assert check.passed and all(name in check.detail for name in names), check.detail
    np.savez(tmp_path / "r.npz", **(reference | {"stress": reference["stress"] + 1e-3}))
    assert not compare_outputs(sj.load(path), tmp_path / "r.npz").passed
