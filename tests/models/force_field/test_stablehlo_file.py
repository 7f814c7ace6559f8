"""StableHLO files: they run without this library, for any counts, and say what they are."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from jax import export

import sparsejax as sj
from sparsejax.models.force_field.edge_program import EdgeInputs, edge_inputs
from sparsejax.models.force_field.stablehlo_file import PLATFORMS, export_stablehlo
from tests.models.force_field import files
from tests.models.force_field.exports import assert_answers, structures, student

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
"""


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
def exported(tmp_path_factory):
    return export_stablehlo(student(), tmp_path_factory.mktemp("exported") / "student.zip")


def test_file_runs_without_the_library_for_any_counts(exported):
    """The crystal with its own counts, and everything padded to the same ones."""
    inputs = {name: edge_inputs(one, files.CUTOFF) for name, one in structures().items()}
    atoms, edges = (max(len(getattr(x, name)) for x in inputs.values()) for name in ("species", "senders"))
    cases = {"exact": inputs["crystal"]} | {name: padded(x, atoms, edges) for name, x in inputs.items()}
    arrays = {f"{case}/{name}": x for case, one in cases.items() for name, x in one._asdict().items()}
    np.savez(exported.with_name("inputs.npz"), **arrays)
    done = subprocess.run(
        [sys.executable, "-c", READER, *cases],
        cwd=exported.parent,
        env=os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"},  # compiles faster
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(exported.with_name("outputs.npz")) as outputs:
        found = dict(outputs)
    assert len(found) == 4 * len(cases)
    for case in cases:
        own = {name: found[f"{case}/{name}"] for name in ("energy", "forces", "atomic_energies", "stress")}
        assert_answers(own, "crystal" if case == "exact" else case)


def test_file_says_what_it_is_and_is_the_same_again(exported, tmp_path):
    again = export_stablehlo(student(), tmp_path / "again.zip")
    assert exported.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(exported) as archive:
        content, about = archive.read("program.stablehlo"), json.loads(archive.read("metadata.json"))
    assert b".py" not in content  # no path of the machine it was made on
    program = export.deserialize(bytearray(content))
    assert program.platforms == PLATFORMS == ("cpu", "cuda", "tpu")
    assert [str(one.shape) for one in program.in_avals] == [
        "(n,)",
        "(n, 3)",
        "(e,)",
        "(e,)",
        "(e, 3)",
        "(3, 3)",
    ]
    assert about["cutoff"] == files.CUTOFF
    assert about["species"] == [1, 6, 8]
    assert about["largest_atomic_number"] == files.MAX_Z
    assert about["variant"] == "equivariant"
    assert about["dtype"] == "float32"
    assert about["platforms"] == list(PLATFORMS)
    assert about["units"]["energy"] == "eV"
    assert about["made_by"] == f"sparsejax {sj.__version__}"
    assert list(about["inputs"]) == list(EdgeInputs._fields)
    assert set(about["outputs"]) == {"energy", "forces", "atomic_energies", "stress"}


def test_what_cannot_be_written_is_told_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "student.zip"
    with pytest.raises(ValueError, match=r"some of 'cpu', 'cuda', 'rocm' and 'tpu', not \['metal'\]"):
        export_stablehlo(student(), path, ["cpu", "metal"])
    with pytest.raises(ValueError, match="platforms must be some of"):
        export_stablehlo(student(), path, [])
    with pytest.raises(ValueError, match="a str is no force field"):
        export_stablehlo("student.pt", path)
    with pytest.raises(ValueError, match="is a directory"):
        export_stablehlo(student(), tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        export_stablehlo(student(), tmp_path / "absent" / "student.zip")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "sparsejax\[export\]"'):
        export_stablehlo(student(), path)
    assert not list(tmp_path.iterdir())
