"""An exported header compiles without a warning, computes what JAX computes, and holds no byte too many."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

import sparsejax
from sparsejax.bench.peers.c_loop import PLAIN, c_outputs, compiled_header
from sparsejax.models.ultra_sparse import UltraSparseConfig, dense, masked, quantize, sparse
from sparsejax.models.ultra_sparse.export_c import export_c
from tests.models.ultra_sparse import nets

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler called cc")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow", "-Wdouble-promotion")
SINE = Path(__file__).resolve().parents[3] / "checkpoints" / "ultra_sparse_sine.pt"
ROWS = np.random.default_rng(5).normal(size=(200, 12)).astype(np.float32)
SMALL = 0.4
"""Weights are scaled by this, so that float32 differences stay differences of rounding."""


def make(name, *, int8=False, sign=False, seed=1):
    config = nets.ARCHITECTURES[name]
    params = nets.make(config, seed, stale=0.0 if int8 else np.nan)
    for own in params.values():
        for key in own.keys() & {"weights", "kernel"}:
            own[key] = own[key] * np.float32(SMALL)
        if int8 and "mask" in own:  # what the mask hides is not to set the scale
            own["kernel"] = np.where(own["mask"], own["kernel"], np.float32(0))
    if int8:
        config, params = quantize(config, params, sign_hidden=sign)
    return nets.trained(config, params)


def by_jax(net, rows):
    return np.asarray(jax.jit(net.model.apply)({"params": net.params}, rows))


def by_c(header, net, rows, flags=PLAIN):
    return c_outputs(compiled_header(header, flags), rows, net.config.output_size)


@pytest.fixture(scope="module")
def sine():
    return sparsejax.load(SINE)


@needs_cc
@pytest.mark.parametrize("flags", [("-O2",), ("-Os",), ("-O3", "-march=native")], ids=" ".join)
@pytest.mark.parametrize(("tanh", "tolerance"), [("libm", 1e-6), ("rational", 4e-6)])
def test_the_shipped_net_in_c(tmp_path, sine, tanh, tolerance, flags):
    """Output weights that add up to 7.6 turn 3.7e-7 per tanh into at most 3.2e-6."""
    rows = np.random.default_rng(0).uniform(-1, 1, (500, 256)).astype(np.float32)
    header = export_c(sine, tmp_path / "sine.h", tanh=tanh)
    np.testing.assert_allclose(by_c(header, sine, rows, flags), sine.apply(rows), rtol=0, atol=tolerance)


@needs_cc
@pytest.mark.parametrize(("tanh", "tolerance"), [("libm", 1e-6), ("rational", 4e-6)])
@pytest.mark.parametrize("name", nets.ARCHITECTURES)
def test_every_kind_of_net_in_c(tmp_path, name, tanh, tolerance):
    net = make(name)
    header = export_c(net, tmp_path / "net.h", tanh=tanh)
    np.testing.assert_allclose(by_c(header, net, ROWS), by_jax(net, ROWS), rtol=0, atol=tolerance)


@needs_cc
@pytest.mark.parametrize("name", nets.ARCHITECTURES)
def test_int8_nets_as_they_are_and_float_nets_quantised(tmp_path, name):
    held, small = make(name), make(name, int8=True)
    expected = by_jax(small, ROWS)
    as_it_is = export_c(small, tmp_path / "net.h")
    text = as_it_is.read_text()
    np.testing.assert_allclose(by_c(as_it_is, small, ROWS), expected, rtol=0, atol=2e-6)
    assert text == export_c(held, tmp_path / "net.h", weights="int8").read_text()
    assert text == export_c(small, tmp_path / "net.h", weights="int8").read_text()
    assert "int8_t weights_0" in text and "float weights" not in text


@needs_cc
def test_sign_activations_in_c(tmp_path):
    net = make("sensor_flip", int8=True, sign=True)
    header = export_c(net, tmp_path / "net.h")
    np.testing.assert_allclose(by_c(header, net, ROWS), by_jax(net, ROWS), rtol=0, atol=1e-6)
    rows = np.zeros((1, 12), np.float32)
    for own in net.params.values():
        own["bias"] = np.zeros_like(own["bias"])
    header = export_c(net, tmp_path / "net.h")
    assert by_c(header, net, rows).tolist() == [[0.0, 0.0]], "sign(0) is 0"


@needs_cc
@pytest.mark.parametrize("name", ["fixed_k", "variable_k", "dense", "sensor_flip"])
def test_nan_in_a_feature_that_is_read_comes_out(tmp_path, name):
    net = make(name)
    header = export_c(net, tmp_path / "net.h", tanh="rational")
    library = compiled_header(header, PLAIN)
    columns = [
        int(n) for n in header.read_text().split("net_columns[NET_USED] = {")[1].split("}")[0].split(",")
    ]
    for column in range(12):
        row = ROWS[:1].copy()
        row[0, column] = np.nan
        found = c_outputs(library, row, net.config.output_size)
        assert np.isnan(found).any() == (column in columns)


@needs_cc
@pytest.mark.parametrize("contract", [("-ffp-contract=off",), ("-ffp-contract=fast", "-march=native")])
def test_the_rational_tanh_keeps_its_bound(tmp_path, sine, contract):
    """Every 13th float from 0 to infinity; all of them give 3.5e-7, at x = 6.69."""
    export_c(sine, tmp_path / "net.h", tanh="rational")
    program = r"""
        #include "net.h"
        #include <math.h>
        #include <string.h>
        double worst(void)
        {
            double worst = 0;
            for (uint32_t bits = 0x39000000u; bits <= 0x7f800000u; bits += bits > 0x41200000u ? 65536 : 13) {
                float x, y;
                memcpy(&x, &bits, 4);
                y = net_tanh(x);
                if (net_tanh(-x) != -y || y > 1.0f) return 9;
                if (fabs(y - tanh(x)) > worst) worst = fabs(y - tanh(x));
            }
            return net_tanh(0.0f) != 0.0f || net_tanh(1e-4f) != 1e-4f || !isnan(net_tanh(NAN)) ? 8 : worst;
        }
    """
    library = tmp_path / "tanh.so"
    command = [
        "cc",
        "-O2",
        *contract,
        "-shared",
        "-fPIC",
        "-x",
        "c",
        "-",
        "-I",
        tmp_path,
        "-lm",
        "-o",
        library,
    ]
    subprocess.run(command, input=program, check=True, text=True)
    loaded = ctypes.CDLL(str(library))
    loaded.worst.restype = ctypes.c_double
    assert 1e-7 < loaded.worst() < 3.7e-7


NETS_TO_COMPILE = {
    "sine": lambda: sparsejax.load(SINE),
    "lists": lambda: make("variable_k"),
    "relu_all_used": lambda: make("dense"),
    "int8": lambda: make("sensor_flip", int8=True),
    "sign": lambda: make("deep", int8=True, sign=True),
    "linear": lambda: make("fixed_k_linear_output"),
}


@needs_cc
@pytest.mark.parametrize("tanh", ["libm", "rational"])
@pytest.mark.parametrize("name", NETS_TO_COMPILE)
def test_headers_compile_without_a_warning(tmp_path, name, tanh):
    export_c(NETS_TO_COMPILE[name](), tmp_path / "net.h", tanh=tanh)
    once_more = tmp_path / "net.c"
    once_more.write_text(
        '#include "net.h"\n#include "net.h"\nvoid f(const float *x, float *y);\n'
        "void f(const float *x, float *y) { net_predict_full(x, y); net_predict(x, y); }\n"
    )
    for flags in (["-std=c99", "-O2"], ["-std=c99", "-Os"], ["-std=c99", "-O0"]):
        subprocess.run(["cc", *flags, *WARNINGS, "-c", once_more, "-o", tmp_path / "net.o"], check=True)
    if shutil.which("c++"):
        for standard in ("c++98", "c++17"):
            command = ["c++", "-x", "c++", f"-std={standard}", *WARNINGS, "-fsyntax-only", once_more]
            subprocess.run(command, check=True)


@needs_cc
@pytest.mark.parametrize(("weights", "numbers", "at_most"), [("float32", 132, 164), ("int8", 60, 91)])
def test_the_tables_are_as_small_as_the_net(tmp_path, sine, weights, numbers, at_most):
    """33 floats, 16 places and 15 columns; as codes, one weight is 0 and its column is not read."""
    if shutil.which("size") is None:
        pytest.skip("there is no size of binutils")
    header = export_c(sine, tmp_path / "sine.h", weights=weights)
    assert f"Weights and biases take {numbers} bytes" in header.read_text()
    program = '#include "sine.h"\nvoid f(const float *x, float *y) { sine_predict_full(x, y); }\n'
    command = ["cc", "-std=c99", "-Os", "-c", "-x", "c", "-", "-I", tmp_path, "-o", tmp_path / "sine.o"]
    subprocess.run(command, input=program, check=True, text=True)
    sections = subprocess.run(
        ["size", "-A", tmp_path / "sine.o"], check=True, capture_output=True, text=True
    ).stdout
    sizes = [line.split() for line in sections.splitlines() if line.startswith((".rodata", ".data", ".bss"))]
    constants = sum(int(size) for name, size, _ in sizes if name.startswith(".rodata"))
    assert numbers <= constants <= at_most + 32, "32 bytes for alignment and the numbers 0 and 1"
    assert sum(int(size) for name, size, _ in sizes if not name.startswith(".rodata")) == 0


@needs_cc
def test_numbers_survive_their_decimals(tmp_path):
    """Denormal, tiny, huge, whole and awkward weights, read back bit for bit through a linear net."""
    values = np.array([1e-45, 1.17549435e-38, 3.4028235e38, 1.0, -7.0, 0.1, 16777217.0, np.pi], np.float32)
    config = UltraSparseConfig(1, (dense(len(values), "linear"),))
    net = nets.trained(config, {"layer_0": {"kernel": values[None], "bias": np.zeros_like(values)}})
    header = export_c(net, tmp_path / "net.h")
    found = by_c(header, net, np.ones((1, 1), np.float32))
    assert found.tobytes() == values.tobytes()


@needs_cc
def test_wide_nets_use_wider_indices(tmp_path):
    config = UltraSparseConfig(70_000, (sparse(300, 2), dense(1, "linear")))
    params = nets.make(config)
    params["layer_0"]["indices"][0] = 69_999, 3
    net = nets.trained(config, params)
    header = export_c(net, tmp_path / "net.h")
    text = header.read_text()
    assert "static const uint32_t net_columns" in text and "static const uint16_t sources_0" in text
    rows = np.random.default_rng(0).normal(size=(3, 70_000)).astype(np.float32)
    np.testing.assert_allclose(by_c(header, net, rows), by_jax(net, rows), atol=2e-5)


@needs_cc
def test_what_cannot_change_an_output_is_left_out(tmp_path):
    config = UltraSparseConfig(12, (sparse(3, 2), masked(2), dense(1)))
    params = nets.make(config)
    params["layer_0"]["indices"] = np.array([[1, 2], [3, 3], [4, 5]], np.int32)
    params["layer_0"]["weights"][2, 1] = 0
    params["layer_1"]["mask"] = np.array([[1, 1], [0, 0], [0, 1]], bool)
    params["layer_1"]["kernel"][1] = np.inf
    net = nets.trained(config, params)
    header = export_c(net, tmp_path / "net.h")
    assert "net_columns[NET_USED] = {1, 2, 4}" in header.read_text()
    params["layer_1"]["kernel"][1] = 0
    np.testing.assert_allclose(by_c(header, net, ROWS), by_jax(net, ROWS), atol=1e-6)


@needs_cc
def test_a_net_of_zero_weights_is_its_biases(tmp_path):
    net = make("fixed_k_of_many_outputs")
    for own in net.params.values():
        for key in own.keys() & {"weights", "kernel"}:
            own[key] = np.zeros_like(own[key])
    for weights in ("float32", "int8"):
        header = export_c(net, tmp_path / "net.h", weights=weights)
        expected = np.tile(np.tanh(net.params["layer_1"]["bias"]), (3, 1))
        np.testing.assert_allclose(by_c(header, net, ROWS[:3]), expected, atol=1e-6)


def test_equal_nets_give_equal_bytes_and_replace_the_old_file(tmp_path, sine):
    first = export_c(sine, tmp_path / "net.h").read_bytes()
    (tmp_path / "net.h").write_text("old")
    assert export_c(sine, str(tmp_path / "net.h")).read_bytes() == first
    assert export_c(sine, tmp_path / "other.h", name="net").read_bytes() == first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.h", "other.h"]
    assert first.isascii()


@pytest.mark.parametrize(
    "name", ["int", "class", "2nd", "my-net", "", "a__b", "a_", "_a", "né", "a b", "x" * 41, "a\n"]
)
def test_names_that_c_would_not_take(tmp_path, sine, name):
    with pytest.raises(ValueError, match="cannot start the names of a C header: give name=") as caught:
        export_c(sine, tmp_path / "net.h", name=name)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_bad_paths_and_choices_are_refused(tmp_path, sine):
    (tmp_path / "folder.h").mkdir()
    with pytest.raises(ValueError, match=r"folder\.h is a directory: name a file in it"):
        export_c(sine, tmp_path / "folder.h")
    with pytest.raises(ValueError, match="there is no folder .*missing"):
        export_c(sine, tmp_path / "missing" / "net.h")
    with pytest.raises(ValueError, match="tanh 'fast' is not one of"):
        export_c(sine, tmp_path / "net.h", tanh="fast")
    with pytest.raises(ValueError, match="weights 'int4' are not one of"):
        export_c(sine, tmp_path / "net.h", weights="int4")
    with pytest.raises(ValueError, match="'my-net' cannot start"):
        export_c(sine, tmp_path / "my-net.h")
    with pytest.raises(ValueError, match="cannot be written"):
        export_c(sine, tmp_path / ("n" * 300 + ".h"), name="net")
    assert [file.name for file in tmp_path.iterdir()] == ["folder.h"]


def spoiled(change):
    net = make("fixed_k")
    change(net.params["layer_0"])
    return net


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda own: own["weights"].__setitem__((0, 1), np.nan),
            "layer_0/weights holds a number that is not",
        ),
        (lambda own: own["bias"].__setitem__(2, np.inf), "layer_0/bias holds a number that is not finite"),
        (lambda own: own.update(bias=np.full(5, 1e300)), "layer_0/bias holds a number that is not finite"),
        (lambda own: own["indices"].__setitem__((0, 0), 12), "layer 0 reads input 12 of only 12"),
        (lambda own: own["indices"].__setitem__((0, 0), -1), "layer 0 reads input -1 of only 12"),
        (
            lambda own: own.update(weights=own["weights"][:4]),
            r"layer_0/weights has shape \(4, 2\); the config",
        ),
        (lambda own: own.pop("indices"), "layer_0/indices is missing"),
        (lambda own: own.update(weights=own["weights"].astype(np.int8)), "layer_0/weights holds int8; the"),
    ],
)
def test_nets_that_cannot_be_exported(tmp_path, change, message):
    (tmp_path / "net.h").write_text("old")
    with pytest.raises(ValueError, match=message) as caught:
        export_c(spoiled(change), tmp_path / "net.h")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "net.h").read_text() == "old"


def test_other_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match="an ultra-sparse net is needed, not one with a dict"):
        export_c(nets.SimpleNamespace(config={}, params={}), tmp_path / "net.h")
