"""Weights of ``.onnx`` files: initializers are the tensors, and what their writer pruned is filled in."""

from __future__ import annotations

import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint import errors, torch_file
from sparsejax.checkpoint.verification import verify
from sparsejax.models.force_field.convert import stored_config
from sparsejax.models.force_field.onnx_weights import pruned
from tests import golden
from tests.checkpoint import onnx_forge as forge
from tests.models.force_field import files
from tests.models.force_field.test_convert import SMALL, same_bits

DEAD = "interactions.1.update.mixing_matrix"


def written(folder, state, prefix="", *others):
    tensors = [forge.tensor(prefix + key, array) for key, array in state.items()]
    path = folder / "student.onnx"
    path.write_bytes(forge.model(*others, *tensors))
    return path


def test_the_pruned_matrix_is_an_identity_like_the_others():
    state = files.without(files.state_dict(), DEAD)
    assert pruned(state)[DEAD].tolist() == np.eye(3).tolist()
    other = files.without(files.state_dict(equivariant=True), DEAD)
    half = {key: array.astype(np.float16) for key, array in other.items()}
    found = pruned(half)[DEAD]
    assert found.dtype == np.float16 and found.tolist() == np.eye(files.CHANNELS).tolist()
    alone = files.without(files.state_dict(layers=1), "interactions.0.update.mixing_matrix")
    assert list(pruned(alone)) == ["interactions.0.update.mixing_matrix"]


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_published_graph_gives_its_weights(tmp_path, prefix):
    state = files.state_dict()
    constants = forge.tensor("/model/interactions.0/Constant_1", np.array([0, 1]))
    path = written(tmp_path, files.without(state, DEAD), prefix, constants)
    report = sj.inspect(path)
    assert (report.kind, report.variant, report.config) == ("force_field", "cartesian", SMALL)
    assert (report.file_format, report.prefix, report.problem) == ("onnx", prefix, None)
    ck = sj.load(path)
    assert ck.config == SMALL and ck.layout.file_format == "onnx"
    sj.export_pt(ck, tmp_path / "copy.pt")
    tree = torch_file.read(tmp_path / "copy.pt")
    assert list(tree) == ["model_state_dict", "config", "num_parameters"]
    assert tree["config"] == stored_config(SMALL) and tree["num_parameters"] == SMALL.num_parameters
    found = tree["model_state_dict"]
    assert list(found) == list(state)
    assert all(same_bits(found[key], array) for key, array in state.items() if key != DEAD)
    assert same_bits(found[DEAD], np.eye(3, dtype=np.float32))


def test_nothing_else_may_be_missing_or_left_over(tmp_path):
    state = files.without(files.state_dict(), DEAD)
    for key in ("interactions.0.update.mixing_matrix", "energy_head.4.bias", "embedding.weight"):
        with pytest.raises(errors.MissingKeyError, match=f"'{key}'"):
            sj.load(written(tmp_path, files.without(state, key)))
    with pytest.raises(errors.UnexpectedKeyError, match=r"'charges\.weight'"):
        sj.load(written(tmp_path, state | {"charges.weight": files.normal("q", 3)}))
    with pytest.raises(errors.MissingKeyError, match=f"'{DEAD}'"):
        sj.load(files.write(tmp_path, files.saved(state)))


def test_a_graph_of_half_the_precision_stays_so(tmp_path):
    state = {key: a.astype(np.float16) for key, a in files.without(files.state_dict(), DEAD).items()}
    ck = sj.load(written(tmp_path, state))
    assert {
        leaf.dtype.name for leaf in ck.params["interaction_1"]["update"].values() if hasattr(leaf, "dtype")
    }
    assert ck.params["interaction_1"]["update"]["mixing"].dtype == np.float16
    assert ck.config.cutoff == pytest.approx(files.CUTOFF, rel=1e-3)


def test_a_damaged_graph_is_told_with_its_name(tmp_path):
    path = written(tmp_path, files.without(files.state_dict(), DEAD))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(errors.TruncatedFileError, match=r"student\.onnx: .*fetch the file again"):
        sj.load(path)


def test_verify_writes_and_reads_it_again(tmp_path):
    path = written(tmp_path, files.without(files.state_dict(), DEAD), "model.")
    checks = verify(path, family_report=False)
    assert [(check.name, check.passed) for check in checks] == [
        *(("read", True), ("sparsejax directory", True), ("original layout", True))
    ]
    assert checks[-1].detail.startswith(f"{len(files.state_dict())} tensors")


@pytest.mark.golden()
def test_weights_of_the_trained_network_survive_a_graph(tmp_path):
    """As the published graphs were made: all tensors of the file but the dead one, under "model."."""
    source = sj.load(golden.path("force_field", "ultra_tiny_21k.pt"))
    tree = torch_file.read(golden.path("force_field", "ultra_tiny_21k.pt"))
    path = written(tmp_path, files.without(tree["model_state_dict"], DEAD), "model.")
    ck = sj.load(path)
    assert ck.config == source.config
    ours, theirs = (dict(each.params["interaction_1"]["update"]) for each in (ck, source))
    assert same_bits(ours.pop("mixing"), np.eye(3, dtype=np.float32)) and theirs.pop("mixing").shape == (3, 3)
    assert same_bits(ck.params["readout"]["energy"]["kernel"], source.params["readout"]["energy"]["kernel"])
    assert same_bits(ours["gates"]["kernel"], theirs["gates"]["kernel"])
