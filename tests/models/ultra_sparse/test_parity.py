"""The parity set of this project (tests/data), which runs where the originals' golden tensors are absent."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint.tree import flatten, unflatten
from sparsejax.models.ultra_sparse import UltraSparseNet, expand_input
from tests.models.ultra_sparse import nets

DATA = Path(__file__).parents[2] / "data"
NETS = ("fixed_k_of_many_outputs", "variable_k", "deep", "sensor_flip")
FLOAT32_EXPANSION = 5e-6  # as the manifest of the originals allows under jit
FLOAT32_PHASE = 1e-4  # frequencies up to 100 times x, rounded to float32


@lru_cache
def stored(name):
    with np.load(DATA / f"ultra_sparse_{name}.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_trained_recipe(jitted):
    expected = stored("expansion")
    expand = jax.jit(expand_input) if jitted else expand_input
    found = expand(expected["x"].astype(np.float32))
    np.testing.assert_allclose(found, expected["trained"], rtol=0, atol=FLOAT32_EXPANSION)


@pytest.mark.parametrize("recipe", ["trained", "readme", "sine_problem", "library"])
def test_recipes_in_float64(recipe):
    expected = stored("expansion")
    columns = range(256) if recipe == "trained" else expected["columns"]
    with jax.enable_x64(True):
        found = expand_input(expected["x"], recipe, columns=columns)
    np.testing.assert_allclose(found, expected[recipe], rtol=0, atol=1e-12)


@pytest.mark.parametrize("recipe", ["readme", "sine_problem", "library"])
def test_recipes_in_float32(recipe):
    expected = stored("expansion")
    found = expand_input(expected["x"].astype(np.float32), recipe, columns=expected["columns"])
    np.testing.assert_allclose(found, expected[recipe], rtol=0, atol=FLOAT32_PHASE)


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("name", NETS)
def test_networks(name, x64):
    data = stored("nets")
    start = f"{name}/layer"
    params = unflatten({key.removeprefix(f"{name}/"): a for key, a in data.items() if key.startswith(start)})
    with jax.enable_x64(x64):
        features = jnp.asarray(data["x"], jnp.float64 if x64 else jnp.float32)
        found = jax.jit(UltraSparseNet(nets.ARCHITECTURES[name]).apply)({"params": params}, features)
    np.testing.assert_allclose(found, data[f"{name}/outputs"], rtol=0, atol=1e-14 if x64 else 2e-6)


@pytest.mark.parametrize("file", ["zip", "legacy"])
def test_files_that_real_torch_wrote(file):
    data = stored("torch")
    ck = sj.load(DATA / f"ultra_sparse_{file}.pt")
    features = np.zeros((3, 256), np.float32)
    features[:, data["columns"]] = data["features"]
    np.testing.assert_allclose(ck.apply(features), data["outputs"], rtol=0, atol=2e-6)
    gradients = jax.grad(lambda p: jnp.mean(ck.model.apply({"params": p}, features) ** 2), allow_int=True)(
        ck.params
    )
    first, last = gradients["layer_0"], gradients["layer_1"]
    found = {"w1": first["weights"], "b1": first["bias"], "w2": last["kernel"].T, "b2": last["bias"]}
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, data[f"grad_{name}"], rtol=1e-4, atol=1e-6, err_msg=name)


def test_what_lies_beside_the_weights_in_a_torch_file():
    ck = sj.load(DATA / "ultra_sparse_zip.pt")
    assert ck.metadata["stats"] == {"mse": 0.25, "parameters": 26}
    assert ck.layout.ties == {"input_indices": "input_indices"}
    shapes = {path: array.shape for path, array in flatten(ck.params).items()}
    first = {"layer_0/indices": (4, 3), "layer_0/weights": (4, 3), "layer_0/bias": (4,)}
    assert shapes == first | {"layer_1/kernel": (4, 2), "layer_1/bias": (2,)}
    assert ck.params["layer_0"]["indices"].dtype == np.int32


def test_the_set_is_small():
    files = [
        path for path in DATA.iterdir() if path.suffix in (".npz", ".pt") and "ultra_sparse" in path.name
    ]
    assert sum(path.stat().st_size for path in files) < 64_000
