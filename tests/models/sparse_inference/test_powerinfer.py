"""A folder of PowerInfer's files becomes predictors, a threshold and counts."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from sparsejax.checkpoint import errors, torch_file
from sparsejax.models.sparse_inference.powerinfer import read_powerinfer
from tests import golden


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for layer in range(2):
        state = {"fc1.weight": rng.normal(size=(3, 4)), "fc2.weight": rng.normal(size=(6, 3))}
        arrays = {key: array.astype(np.float32) for key, array in state.items()}
        torch_file.write(arrays, tmp_path / f"model_{layer}.pt")
        torch_file.write(np.arange(6) + layer, tmp_path / f"activation_{layer}.pt")
    (tmp_path / "config.json").write_text(json.dumps({"sparse_threshold": -0.25, "other": 1}))
    return tmp_path


def test_all_layers_are_read(folder):
    found = read_powerinfer(folder)
    assert [predictor.shape for predictor in found.predictors] == [(6, 4), (6, 4)]
    assert found.threshold == -0.25
    assert [counts.tolist() for counts in found.counts] == [[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]
    x, state = np.ones(4, np.float32), torch_file.read(folder / "model_1.pt")
    expected = state["fc2.weight"] @ np.maximum(state["fc1.weight"] @ x, 0)
    np.testing.assert_allclose(found.predictors[1].scores(x), expected, rtol=1e-5, atol=1e-6)


def test_config_and_counts_may_be_absent(folder):
    for name in ("config.json", "activation_0.pt", "activation_1.pt"):
        (folder / name).unlink()
    found = read_powerinfer(folder)
    assert found.threshold == 0 and found.counts is None


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda f: (f / "model_0.pt").unlink(), errors.MissingKeyError, "model_0.pt is missing"),
        (lambda f: (f / "activation_1.pt").unlink(), errors.MissingKeyError, "counts of 1 layers"),
        (lambda f: (f / "config.json").write_text("[1]"), errors.CorruptFileError, "config.json: tells no"),
        (
            lambda f: (f / "config.json").write_text('{"sparse_threshold": NaN}'),
            errors.CorruptFileError,
            "nan",
        ),
        (
            lambda f: (f / "config.json").write_text('{"sparse_threshold": "a"}'),
            errors.CorruptFileError,
            "'a'",
        ),
        (
            lambda f: torch_file.write(np.ones(5), f / "activation_1.pt"),
            errors.ShapeError,
            "counts of 5 neurons",
        ),
        (lambda f: torch_file.write(-np.ones(6), f / "activation_1.pt"), errors.CorruptFileError, "negative"),
        (
            lambda f: torch_file.write(np.ones((6, 1)), f / "activation_1.pt"),
            errors.CorruptFileError,
            "vector",
        ),
        (lambda f: torch_file.write({}, f / "activation_1.pt"), errors.CorruptFileError, "holds dict"),
        (
            lambda f: shutil.copy(f / "activation_1.pt", f / "model_1.pt"),
            errors.UnknownFormatError,
            "model_1.pt",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(folder, change, kind, words):
    change(folder)
    with pytest.raises(kind, match=words) as caught:
        read_powerinfer(folder)
    named = (str(folder), folder.name, ".pt", "config.json")  # long paths are cut
    assert any(name in str(caught.value) for name in named)
    with pytest.raises(errors.NotReadableError, match="no such folder"):
        read_powerinfer(folder / "nowhere")


@pytest.mark.golden("powerinfer_a")
def test_golden_folder(tmp_path):
    for kind in ("model", "activation"):
        shutil.copy(golden.path("sparse_inference", f"powerinfer_{kind}_0_a.pt"), tmp_path / f"{kind}_0.pt")
    found, arrays = read_powerinfer(tmp_path), golden.arrays("sparse_inference", "powerinfer_a")
    np.testing.assert_allclose(
        found.predictors[0].scores(arrays["x"]), arrays["logits"], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(found.counts[0], arrays["activation_counts"])
