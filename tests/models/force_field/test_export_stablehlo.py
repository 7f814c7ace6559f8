"""StableHLO files: they run without this library, for any counts, and say what they are."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.models.force_field.edge_program import EdgeInputs, edge_inputs
from sparsejax.models.force_field.export_stablehlo import PLATFORMS, export_stablehlo
from sparsejax.models.force_field.graph import batch_graphs
from sparsejax.models.force_field.prediction import predict_graph
from sparsejax.models.force_field.structure import Structure
from tests.models.force_field import files
from tests.models.force_field.samples import molecule

READER = """
import json, sys, zipfile
sys.modules["sparsejax"] = None  # wherever it is installed, importing it fails
import jax
import numpy as np
from jax import export

with zipfile.ZipFile("student.zip") as archive:
    program = export.deserialize(bytearray(archive.read("program.stablehlo")))
    about = json.loads(archive.read("metadata.json"))
call, found = jax.jit(program.call), {}
with np.load("inputs.npz") as inputs:
    for case in sys.argv[1:]:
        given = [inputs[f"{case}/{name}"] for name in about["inputs"]]
        found |= {f"{case}/{name}": value for name, value in call(*given).items()}
np.savez("outputs.npz", **found)
assert not {"flax", "jraph", "sparsejax.models"} & set(sys.modules)
print(jax.default_backend(), len(found))
"""


def crystal(rng):
    """Two atoms in a skewed cell far smaller than the cutoff."""
    cell = 3 * np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3))
    positions = np.array([[0, 0, 0], [1.4, 1.6, 1.5]]) + rng.uniform(-0.1, 0.1, (2, 3))
    return Structure(np.array([8, 6], np.int32), positions, cell, np.ones(3, bool))


def padded(inputs, atoms, edges):
    """Atoms of species 0, and edges from an atom to itself."""
    more, others = atoms - len(inputs.species), edges - len(inputs.senders)
    own = np.zeros(others, np.int32)
    return EdgeInputs(
        np.append(inputs.species, np.zeros(more, np.int32)),
        np.append(inputs.positions, np.zeros((more, 3), np.float32), 0),
        np.append(inputs.senders, own),
        np.append(inputs.receivers, own),
        np.append(inputs.shifts, np.zeros((others, 3), np.int32), 0),
        inputs.cell,
    )


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    state = files.state_dict(equivariant=True, reference_energies=True)
    return sj.load(files.write(folder, files.saved(state)), overrides={"species": (1, 6, 8)})


def test_file_runs_without_the_library_for_any_counts(student, tmp_path):
    """Molecules of 7 and 1 atoms and a crystal; the crystal as it is, and padded to the molecule's counts."""
    rng = np.random.default_rng(0)
    structures = {"crystal": crystal(rng), "molecule": molecule(7, rng), "atom": molecule(1, rng)}
    cases = {name: edge_inputs(one, files.CUTOFF) for name, one in structures.items()}
    atoms, edges = 7, len(cases["molecule"].senders)
    assert len(cases["crystal"].senders) < edges
    cases = {"exact": cases["crystal"]} | {name: padded(one, atoms, edges) for name, one in cases.items()}
    arrays = {f"{case}/{name}": x for case, one in cases.items() for name, x in one._asdict().items()}
    np.savez(tmp_path / "inputs.npz", **arrays)
    export_stablehlo(student, tmp_path / "student.zip")
    done = subprocess.run(
        [sys.executable, "-c", READER, *cases], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[1] == str(4 * len(cases))
    with np.load(tmp_path / "outputs.npz") as outputs:
        found = dict(outputs)

    graph = batch_graphs(list(structures.values()), files.CUTOFF)
    expected = jax.jit(predict_graph, static_argnums=0, static_argnames="stress")(
        student.config, student.params, graph, stress=True
    )
    start = 0
    for number, (name, structure) in enumerate(structures.items()):
        own = slice(start, start := start + structure.num_atoms)
        for case in (name, "exact") if name == "crystal" else (name,):
            count = structure.num_atoms
            np.testing.assert_allclose(found[f"{case}/energy"], expected.energy[number], rtol=1e-5)
            np.testing.assert_allclose(found[f"{case}/forces"][:count], expected.forces[own], atol=1e-5)
            np.testing.assert_allclose(
                found[f"{case}/atomic_energies"][:count], expected.atomic_energies[own], rtol=1e-5, atol=1e-6
            )
            np.testing.assert_allclose(found[f"{case}/stress"], expected.stress[number], rtol=1e-4, atol=1e-6)
            assert not found[f"{case}/forces"][count:].any()
            assert not found[f"{case}/atomic_energies"][count:].any()
    assert np.isnan(found["molecule/stress"]).all()
    assert np.abs(found["crystal/stress"]).max() > 1e-3


def test_file_says_what_it_is_and_is_the_same_again(student, tmp_path):
    first = export_stablehlo(student, tmp_path / "first.zip", ["cpu"], stress=False)
    second = export_stablehlo(student, tmp_path / "second.zip", ["cpu"], stress=False)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert b".py" not in archive.read("program.stablehlo")  # no path of the machine it was made on
        about = json.loads(archive.read("metadata.json"))
    assert about["cutoff"] == files.CUTOFF
    assert about["species"] == [1, 6, 8]
    assert about["largest_atomic_number"] == files.MAX_Z
    assert about["variant"] == "equivariant"
    assert about["dtype"] == "float32"
    assert about["platforms"] == ["cpu"]
    assert about["units"]["energy"] == "eV"
    assert about["made_by"] == f"sparsejax {sj.__version__}"
    assert list(about["inputs"]) == list(EdgeInputs._fields)
    assert list(about["outputs"]) == ["energy", "forces", "atomic_energies"]


def test_file_is_for_every_platform(student, tmp_path):
    from jax import export

    path = export_stablehlo(student, tmp_path / "student.zip", stress=False)
    with zipfile.ZipFile(path) as archive:
        program = export.deserialize(bytearray(archive.read("program.stablehlo")))
    assert program.platforms == PLATFORMS == ("cpu", "cuda", "tpu")
    assert [str(aval.shape) for aval in program.in_avals] == [
        "(n,)",
        "(n, 3)",
        "(e,)",
        "(e,)",
        "(e, 3)",
        "(3, 3)",
    ]


def test_what_cannot_be_written_is_told_in_one_line(student, tmp_path, monkeypatch):
    path = tmp_path / "student.zip"
    with pytest.raises(ValueError, match=r"some of 'cpu', 'cuda', 'rocm' and 'tpu', not \['metal'\]"):
        export_stablehlo(student, path, ["cpu", "metal"])
    with pytest.raises(ValueError, match="platforms must be some of"):
        export_stablehlo(student, path, [])
    with pytest.raises(ValueError, match="a str is no force field"):
        export_stablehlo("student.pt", path)
    with pytest.raises(ValueError, match="is a directory"):
        export_stablehlo(student, tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        export_stablehlo(student, tmp_path / "absent" / "student.zip")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "sparsejax\[export\]"'):
        export_stablehlo(student, path)
    assert not list(tmp_path.iterdir())
