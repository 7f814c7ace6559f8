"""What a second reader of the library managed to break: each case failed before it was mended."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint import errors, torch_file, verification
from sparsejax.checkpoint.native import json_tree
from sparsejax.checkpoint.verification import compare_outputs, verify
from sparsejax.models.ultra_sparse import UltraSparseConfig, expand_input, fuse, with_sign_hidden
from tests.command_line import run
from tests.models.ultra_sparse import files

SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints"
SPARSE = SHIPPED / "ultra_sparse_sine.pt"


def one_line(error: Exception) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("change", ["linear output", "sign hidden"])
def test_export_refuses_what_would_load_as_another_function(change, tmp_path):
    ck = sj.load(SPARSE)
    linear = UltraSparseConfig.fixed_k(output_activation="linear")
    other = ck.replace(config=linear if change == "linear output" else with_sign_hidden(ck.config))
    with pytest.raises(errors.ExportError, match="cannot say that this model is"):
        sj.export_pt(other, tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("variant", ["sparse", "library"])
def test_export_keeps_the_number_of_inputs(variant, tmp_path):
    ck = sj.load(SPARSE, overrides={"input_size": 300})
    path = tmp_path / ("x.npz" if variant == "library" else "x.pt")
    sj.export_pt(ck, path, variant=variant)
    assert sj.load(path).config == ck.config


@pytest.mark.parametrize("dtype", ["bool", "int8", "complex64", "foo", "float64"])
@pytest.mark.parametrize("source", ["file", "directory"])
def test_dtype_must_be_floating_and_possible(dtype, source, tmp_path):
    path = SPARSE
    if source == "directory":
        path = tmp_path / "model"
        sj.save(sj.load(SPARSE), path)
    with pytest.raises(ValueError, match=f"dtype='{dtype}'") as caught:
        sj.load(path, dtype=dtype)
    one_line(caught.value)


def test_directory_of_another_kind_and_overrides_for_one_are_refused(tmp_path):
    path = tmp_path / "model"
    sj.save(sj.load(SPARSE), path)
    for asked in ({"kind": "ten"}, {"variant": "dense"}):
        with pytest.raises(
            errors.UnknownFormatError, match="holds ultra_sparse/sparse, not what was asked for"
        ):
            sj.load(path, **asked)
    with pytest.raises(
        errors.AmbiguousVariantError, match="stores its config; overrides are for foreign files"
    ):
        sj.load(path, overrides={"input_size": 300})
    assert sj.load(path, kind="ultra_sparse", variant="sparse").num_values == 49


def test_one_line_tells_what_a_checkpoint_is():
    shown = repr(sj.load(SPARSE))
    assert shown.startswith("Checkpoint(kind='ultra_sparse', variant='sparse', ") and "\n" not in shown
    assert " values, config=UltraSparseConfig(" in shown and len(shown) < 500


def test_cast_of_a_directory_that_overflows_is_refused(tmp_path):
    ck = sj.load(SPARSE)
    layer = {**ck.params["layer_1"], "kernel": ck.params["layer_1"]["kernel"].at[0, 0].set(1e6)}
    sj.save(ck.replace(params={**ck.params, "layer_1": layer}), tmp_path / "model")
    with pytest.raises(errors.NonFiniteError, match="infinite as float16"):
        sj.load(tmp_path / "model", dtype="float16")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [3], -3, 0, 64.5, "64", np.ones(2)], ids=str)
def test_impossible_input_size_in_a_file_is_told_by_load_and_inspect(value, tmp_path):
    path = tmp_path / "x.pt"
    torch_file.write({"state_dict": files.sparse_state(), "config": {"input_size": value}}, path)
    problem = sj.inspect(path).problem
    assert isinstance(problem, errors.AmbiguousVariantError)
    with pytest.raises(errors.AmbiguousVariantError, match="positive whole number") as caught:
        sj.load(path)
    assert one_line(caught.value) == one_line(problem)


@pytest.mark.parametrize("text", ["0", "256.7", "null", "1e400", '"64"'])
def test_impossible_input_size_on_the_command_line(text, tmp_path, capsys):
    assert run(["convert", str(SPARSE), str(tmp_path / "out"), "--override", f"input_size={text}"]) == 1
    assert "positive whole number" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["[/foo]", "[red]a", "a\x1b[31m\nb"])
def test_names_in_a_file_are_shown_as_they_are(key, tmp_path, capsys):
    torch_file.write({key: np.zeros(2, np.float32)}, tmp_path / "x.pt")
    assert run(["inspect", str(tmp_path / "x.pt")]) == 1
    shown = capsys.readouterr().out
    assert key in shown if key.isprintable() else "\\x1b[31m\\nb" in shown
    assert "\x1b[31m" not in shown


def test_pipes_and_devices_are_refused_instead_of_read_forever(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(errors.NotReadableError, match="not a regular file"):
            sj.inspect(path)


@pytest.mark.parametrize("path", ["a" * 300, "a\0b"])
def test_impossible_paths_are_checkpoint_errors(path):
    for function in (sj.load, sj.inspect):
        with pytest.raises(errors.NotReadableError):
            function(path)


def test_reference_features_are_never_taken_for_raw_x(tmp_path):
    ck = sj.load(SPARSE)
    features = np.asarray(expand_input(np.linspace(-1, 1, 5)))
    outputs = np.asarray(ck.apply(features))
    np.savez(tmp_path / "good.npz", features=features, outputs=outputs)
    assert compare_outputs(ck, tmp_path / "good.npz").passed
    np.savez(tmp_path / "bad.npz", features=features[:, :64], outputs=outputs)
    with pytest.raises(errors.ShapeError, match=r"\(5, 64\) do not fit"):
        compare_outputs(ck, tmp_path / "bad.npz")


def test_reference_x_for_a_net_without_an_expansion_is_told(tmp_path):
    np.savez(tmp_path / "r.npz", x=np.zeros(3, np.float32), outputs=np.zeros(3, np.float32))
    ck = sj.load(SPARSE, overrides={"input_size": 300})
    with pytest.raises(errors.ShapeError, match="240 noise columns"):
        compare_outputs(ck, tmp_path / "r.npz")


@pytest.mark.parametrize("value", [np.array([1 + 2j]), "a", np.array(["x"])], ids=str)
def test_only_real_numbers_are_expanded(value):
    with pytest.raises(ValueError, match="real numbers are needed"):
        expand_input(value)


def test_only_real_numbers_are_fused():
    with pytest.raises(ValueError, match="real numbers are needed"):
        fuse(sj.load(SPARSE))(jnp.array([1 + 2j]))


def test_convert_refuses_file_names_that_it_cannot_write(tmp_path, capsys):
    for name in ("model.safetensors", "model.ckpt", "MODEL.GGUF", "model.json"):
        assert run(["convert", str(SPARSE), str(tmp_path / name)]) == 1
        assert "give a name ending in .pt or .npz, or a directory" in capsys.readouterr().err
    assert run(["convert", str(SPARSE), str(tmp_path / "MODEL.PT")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["MODEL.PT"]
    assert (tmp_path / "MODEL.PT").is_file()


def test_demo_takes_overrides_and_looks_at_its_folder_first(tmp_path, capsys):
    normal = np.random.default_rng(0).standard_normal
    weights = {"hidden.weight": normal((4, 256)), "hidden.bias": normal(4)}
    weights |= {"output.weight": normal((1, 4)), "output.bias": normal(1)}
    torch_file.write({key: array.astype(np.float32) for key, array in weights.items()}, tmp_path / "sgd.pt")
    arguments = ["demo", "--pt", str(tmp_path / "sgd.pt"), "--out", str(tmp_path / "out")]
    assert run(arguments) == 1
    assert "--override" in capsys.readouterr().err
    assert run([*arguments, "--override", "hidden_activation=relu", "output_activation=linear"]) == 0
    assert "ultra_sparse/sgd" in capsys.readouterr().out
    assert run(["demo", "--out", str(tmp_path / "sgd.pt")]) == 1
    assert "give a folder" in capsys.readouterr().err


def test_float64_files_verify(tmp_path):
    state = {
        key: np.float64(array) if array.dtype.kind == "f" else array
        for key, array in files.sparse_state().items()
    }
    torch_file.write(state, tmp_path / "x.pt")
    assert all(check.passed for check in verify(tmp_path / "x.pt"))
    with jax.enable_x64(True):
        assert all(check.passed for check in verify(tmp_path / "x.pt"))


def test_verify_tells_what_it_left_out_and_what_changed(monkeypatch):
    checks = {check.name: check for check in verify(SPARSE, dtype="bfloat16")}
    assert checks["original layout"].detail == "not compared: dtype was changed on request"
    assert all(check.passed for check in checks.values())

    def rounded(ck, folder):
        sj.save(
            ck.replace(params={**ck.params, "layer_1": jax.tree.map(np.round, ck.params["layer_1"])}), folder
        )

    monkeypatch.setattr(verification, "save", rounded)
    check = next(check for check in verify(SPARSE) if check.name == "sparsejax directory")
    assert not check.passed
    assert check.detail == "'layer_1/bias', 'layer_1/kernel' changed on the round trip"


def test_contradicting_copy_of_the_table_is_refused(tmp_path):
    state = files.sparse_state()
    tree = {"state_dict": state, "input_indices": state["input_indices"] + 1}
    torch_file.write(tree, tmp_path / "x.pt")
    with pytest.raises(errors.UnexpectedKeyError, match="'input_indices' beside the state dict differs"):
        sj.load(tmp_path / "x.pt")


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_weights_that_are_not_real_floats_are_refused(dtype, tmp_path):
    state = files.sparse_state()
    torch_file.write({**state, "w1": state["w1"].astype(dtype)}, tmp_path / "x.pt")
    with pytest.raises(errors.UnsupportedTensorError, match=f"would be {dtype}"):
        sj.load(tmp_path / "x.pt")


def test_shipped_files_are_those_of_the_manifest():
    manifest = json.loads((SHIPPED / "manifest.json").read_text())
    for entry in manifest["checkpoints"]:
        content = (SHIPPED / entry["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        if entry["kind"] != "ultra_sparse":
            continue
        with np.load(SHIPPED / entry["expected"]) as expected:
            mse = float(np.mean((expected["outputs"] - np.sin(expected["x"])) ** 2))
        assert mse == pytest.approx(entry["mse"], rel=1e-5)
    assert len(np.unique(sj.load(SPARSE).params["layer_0"]["indices"])) == 15, "README says so"


def test_layouts_survive_json():
    layout = sj.load(SPARSE).layout
    again = type(layout).from_json(json.loads(json.dumps(layout.to_json())))
    assert dataclasses.asdict(again) == dataclasses.asdict(layout)


@pytest.mark.parametrize("name", ["x.gguf", "x.json"])
def test_files_named_after_a_format_are_read_as_it(name, tmp_path, capsys):
    path = tmp_path / name
    for content, words in (
        (b"", "empty|ends"),
        (b"hello\n", "begins with|no JSON"),
        (b"PK\x03\x04", "zip|no JSON"),
    ):
        path.write_bytes(content)
        for command in ("inspect", "verify"):
            assert run([command, str(path)]) == 1
            lines = capsys.readouterr().err.strip().splitlines()
            assert len(lines) == 1 and re.search(f"{name}: .*({words})", lines[0])


def test_gguf_and_json_are_known_by_their_first_bytes_too(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"GGUF\x03\0\0\0" + bytes(16))
    with pytest.raises(errors.UnknownFormatError, match="no known layout"):
        sj.load(tmp_path / "x.bin")
    (tmp_path / "y.bin").write_bytes(b'{"v": 1}')
    with pytest.raises(errors.UnknownFormatError, match="holds no state dict"):
        sj.load(tmp_path / "y.bin")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("config", {}),
        ("config", {"input_size": 256, "layers": [[]]}),
        ("config", {"input_size": 256, "layers": [{"featuresx": 3}]}),
        ("layout", {}),
        ("layout", None),
        ("kind", ["ultra_sparse"]),
        ("packed", 3),
    ],
    ids=str,
)
def test_a_header_that_describes_no_model_is_damage(field, value, tmp_path):
    sj.save(sj.load(SPARSE), tmp_path / "model")
    header = tmp_path / "model" / "sparsejax.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), field: value}))
    with pytest.raises(errors.CorruptFileError, match="sparsejax.json describes no model") as caught:
        sj.load(tmp_path / "model")
    one_line(caught.value)
    if field != "layout":
        with pytest.raises(errors.CorruptFileError, match="sparsejax.json describes no model"):
            sj.inspect(tmp_path / "model")


@pytest.mark.parametrize(
    "change", [{"group_size": 1 << 45}, {"shape": [1 << 40, 1 << 40]}, {"shape": [9, 9]}]
)
def test_quantised_weights_that_claim_more_than_they_hold_are_refused(change, tmp_path):
    codes = {"data": list(range(32)), "scales": [0.5, 0.25], "zero_points": [-1.5, 0.5], "group_size": 32}
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**codes, "shape": [4, 16], "bits": 4, **change}))
    with pytest.raises(errors.CorruptFileError) as caught:
        sj.load(path)
    one_line(caught.value)


@pytest.mark.parametrize("name, shape", [("<f8", [1 << 40]), ("O", [0]), ("<f8", [])])
def test_metadata_arrays_without_bytes_are_empty(name, shape):
    with pytest.raises(errors.CorruptFileError, match="has no bytes"):
        json_tree.decode({"array": [name, shape, None]}, [])
    assert json_tree.decode({"array": ["<f8", [0, 3], None]}, []).shape == (0, 3)
