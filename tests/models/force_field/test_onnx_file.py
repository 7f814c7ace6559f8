"""ONNX files: what ONNX Runtime computes from them, for structures of many sizes."""

from __future__ import annotations

import importlib.util
import json
import sys

import jax
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.models.force_field import onnx_file as module
from sparsejax.models.force_field.edge_program import EdgeInputs, edge_inputs, edge_program
from sparsejax.models.force_field.onnx_file import export_onnx
from sparsejax.models.force_field.structure import Structure
from tests import golden
from tests.models.force_field import files
from tests.models.force_field.exports import assert_answers, structures, student

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("jax2onnx", "onnxruntime")),
    reason='needs pip install "sparsejax[onnx]"',
)

OUTPUTS = ["energy", "forces", "atomic_energies", "stress"]


def run(session, structure, cutoff, outputs=OUTPUTS):
    return dict(zip(outputs, session.run(outputs, edge_inputs(structure, cutoff)._asdict()), strict=True))


def opened(path):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", autouse=True)
def converter_without_equinox():
    """jax2onnx's plugins for equinox make layers, and compile for 6 s, when they are imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "equinox", None)
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    with jax.enable_x64(True):  # whatever JAX is set to, the file is in float32
        return export_onnx(student(), tmp_path_factory.mktemp("onnx") / "student.onnx")


@needs_onnx
def test_onnx_runtime_agrees_for_structures_of_all_sizes(exported):
    session = opened(exported)
    for name, structure in structures().items():
        assert_answers(run(session, structure, files.CUTOFF), name)


@needs_onnx
@pytest.mark.golden("systems_tiny_public")
def test_file_of_trained_weights_agrees_with_the_original_network(tmp_path, monkeypatch):
    """Energies of all systems, molecules and cells; forces and stress where they are defined."""
    monkeypatch.setattr(module, "_check", lambda *_: None)  # this test is one
    ck = sj.load(golden.path("force_field", "tiny_77k.pt"))
    session = opened(export_onnx(ck, tmp_path / "tiny.onnx"))
    arrays = golden.arrays("force_field", "systems_tiny_public")
    names = sorted({key.split("/")[0] for key in arrays if key.endswith("/z")})
    assert len(names) == 17
    for name in names:
        system = {key.split("/")[1]: value for key, value in arrays.items() if key.startswith(f"{name}/")}
        cells = [(None, np.zeros(3, bool), "E64", "F64")]
        cells += [(system["cell"], system["pbc"], "E_pbc", "F_pbc")] if "E_pbc" in system else []
        for cell, pbc, energy, forces in cells:
            structure = Structure(system["z"].astype(np.int32), system["pos"], cell, pbc)
            found = run(session, structure, ck.config.cutoff)
            np.testing.assert_allclose(found["energy"], system[energy], rtol=1e-5)
            if system.get("F_sens", 0) < 1e-9 and forces in system:
                scale = max(1, np.abs(system[forces]).max())
                np.testing.assert_allclose(found["forces"], system[forces], atol=1e-4 * scale)
            if cell is not None:
                scale = np.abs(system["stress_voigt"]).max()
                np.testing.assert_allclose(found["stress"], system["stress_voigt"], atol=1e-4 * scale)


@needs_onnx
def test_file_says_what_it_is(exported):
    session = opened(exported)
    about = session.get_modelmeta().custom_metadata_map
    about = {name: json.loads(value) for name, value in about.items()}
    assert about["cutoff"] == files.CUTOFF
    assert about["largest_atomic_number"] == files.MAX_Z
    assert about["variant"] == "equivariant"
    assert about["dtype"] == "float32"
    assert about["units"]["stress"] == "eV/A^3"
    assert {one.name: one.shape for one in session.get_inputs()} == {
        "species": ["n"],
        "positions": ["n", 3],
        "senders": ["e"],
        "receivers": ["e"],
        "shifts": ["e", 3],
        "cell": [3, 3],
    }
    assert {one.name: one.shape for one in session.get_outputs()} == {
        "energy": [],
        "forces": ["n", 3],
        "atomic_energies": ["n"],
        "stress": [6],
    }
    assert list(about["inputs"]) == list(EdgeInputs._fields)
    assert set(about["outputs"]) == set(OUTPUTS)


@needs_onnx
def test_scatter_that_overwrites_is_refused(exported):
    """As in the published files: of all messages to an atom, only the last counts."""
    import onnx

    model = onnx.load(exported)
    for node in model.graph.node:
        if node.op_type.startswith("Scatter"):
            del node.attribute[:]
    program = edge_program(student().config, student().params)
    with pytest.raises(ValueError, match="the ONNX graph is wrong: its atomic_energies differ from JAX by"):
        module._check(model.SerializeToString(), program, student().config)


@needs_onnx
def test_step_that_the_converter_does_not_know_is_told_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_REWRITTEN", {})
    with pytest.raises(ValueError, match="^jax2onnx cannot convert this network .*; use export_stablehlo$"):
        export_onnx(student(), tmp_path / "student.onnx")


def test_functions_with_derivatives_of_their_own_are_replaced_by_their_steps():
    with jax.disable_jit():
        traced = jax.make_jaxpr(jax.nn.relu)(np.float32(1))
    assert [step.primitive.name for step in traced.eqns] == ["custom_jvp_call"]
    replayed = jax.make_jaxpr(lambda x: module._replayed(traced, x))(np.float32(1))
    assert [step.primitive.name for step in replayed.eqns] == ["max"]


def test_what_cannot_be_written_is_told_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="a dict is no force field"):
        export_onnx(student().params, tmp_path / "student.onnx")
    with pytest.raises(ValueError, match="is a directory"):
        export_onnx(student(), tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'needs jax2onnx and onnxruntime: pip install "sparsejax\[onnx\]"'):
        export_onnx(student(), tmp_path / "student.onnx")
