"""Nets of the original's two controller classes, loaded from its files, against its own numbers."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from sparsejax.models.ultra_sparse import network_stats, selection_stats
from tests import golden
from tests.models.ultra_sparse import published
from tests.models.ultra_sparse.published import activations, allowed, checkpoint, worst

TORCH = {
    "us_default_256_8_1_k2": (256, 8, 1, 2),
    "us_100_8_1_k4": (100, 8, 1, 4),
    "us_digits_64_32_10_k4": (64, 32, 10, 4),
    "us_multi_30_8_2_k4_saturating": (30, 8, 2, 4),
}
NUMPY = {"usen_100_8_k4": (100, 8, 1, 4), "usen_64_16_k4_out10": (64, 16, 10, 4)}
CLASSIFIERS = ("us_digits_64_32_10_k4", "us_multi_30_8_2_k4_saturating")

torch_nets = pytest.mark.parametrize("case", TORCH)
numpy_nets = pytest.mark.parametrize("case", NUMPY)
covers_torch = pytest.mark.golden(*TORCH)
covers_numpy = pytest.mark.golden(*NUMPY)


def load(case):
    """The checkpoint; the torch files do not say how many inputs there are."""
    if case in NUMPY:
        return checkpoint(f"{case}_model.npz")
    return published.sj.load(
        golden.path("ultra_sparse", f"{case}.pt"), overrides={"input_size": TORCH[case][0]}
    )


def sizes(config):
    first, last = config.layers
    return config.input_size, first.features, last.features, first.fan_in


@covers_torch
@torch_nets
def test_outputs_of_the_torch_controller(case):
    ck, stored = load(case), published.arrays(case)
    (bound,) = allowed(case, "output")
    assert sizes(ck.config) == TORCH[case]
    hidden, outputs = activations(ck, stored["x"])
    assert worst(hidden, stored["hidden"]) <= bound
    assert outputs.shape == stored["output"].shape, "one output keeps its axis"
    assert worst(outputs, stored["output"]) <= bound
    assert worst(ck.apply(stored["x"]), stored["output"]) <= bound


@covers_torch
@torch_nets
def test_a_single_sample_gives_a_vector_of_outputs(case):
    ck, stored = load(case), published.arrays(case)
    (bound,) = allowed(case, "output")
    alone = ck.apply(stored["x"][0])
    assert alone.shape == stored["output_single_1d_input"].shape == (TORCH[case][2],)
    assert worst(alone, stored["output_single_1d_input"]) <= bound


@covers_torch
@torch_nets
def test_float64_outputs_of_the_torch_controller(case):
    ck, stored = load(case), published.arrays(case)
    with jax.enable_x64(True):
        outputs = ck.apply(stored["x"].astype(np.float64))
    assert outputs.dtype == np.float64
    assert worst(outputs, stored["output_f64"]) <= allowed(case, "output_f64")[0]


@covers_torch
@torch_nets
def test_gradients_of_the_torch_controller(case):
    ck, stored = load(case), published.arrays(case)
    published.check_gradients(ck, stored["x"], stored["target"], stored, case)


@covers_torch
@torch_nets
def test_metrics_of_the_torch_controller(case):
    ck, stored, expected = load(case), published.arrays(case), published.document(f"{case}_metrics")
    rtol = allowed("metrics_real_train100")[0]
    found, core = network_stats(ck.config, ck.params, stored["x"], stored["target"]), expected["core_metrics"]
    assert found.mse == pytest.approx(float(stored["mse"]), rel=rtol)
    assert found.mse == pytest.approx(core["mse"], rel=rtol)
    assert found.saturation == pytest.approx(core["saturation"], rel=rtol)
    assert found.activation_energy == pytest.approx(core["activation_energy"], rel=rtol)
    assert found.weight_energy_without_biases == pytest.approx(core["weight_energy"], rel=rtol)
    assert found.energy_without_biases == pytest.approx(core["energy"], rel=rtol)
    assert (found.saturated_neurons, found.total_neurons) == (
        core["saturated_neurons"],
        core["total_neurons"],
    )
    assert found.parameters == ck.config.num_parameters == expected["num_parameters"]


@covers_torch
@torch_nets
def test_selection_of_the_torch_controller(case):
    ck, expected = load(case), published.document(f"{case}_metrics")
    found, core = selection_stats(ck.config, ck.params, expected["true_features"]), expected["selection"]
    assert found.total_connections == core["total_connections"]
    assert found.true_connections == core["true_connections"]
    assert list(found.selected) == core["selected_indices"]
    assert list(found.true_selected) == core["true_features_selected"]
    for name in ("true_ratio", "expected_random_ratio", "selection_factor"):
        assert getattr(found, name) == pytest.approx(core[name], rel=1e-12)


@pytest.mark.golden(*CLASSIFIERS)
@pytest.mark.parametrize("case", CLASSIFIERS)
def test_classes_and_accuracy(case):
    ck, stored = load(case), published.arrays(case)
    found = np.argmax(ck.apply(stored["x"]), axis=-1)
    np.testing.assert_array_equal(found, stored["pred_class"])
    assert np.mean(found == stored["labels"]) == pytest.approx(float(stored["accuracy"]), abs=1e-7)


@covers_numpy
@numpy_nets
def test_outputs_of_the_numpy_package(case):
    ck, stored = load(case), published.arrays(case)
    (bound,) = allowed(case, "output")
    assert (ck.variant, sizes(ck.config)) == ("library", NUMPY[case])
    hidden, outputs = activations(ck, stored["x"])
    assert worst(hidden, stored["hidden"]) <= bound
    assert worst(outputs, stored["output"]) <= bound


@covers_numpy
@numpy_nets
def test_metrics_of_the_numpy_package(case):
    ck, stored = load(case), published.arrays(case)
    rtol = allowed("metrics_real_train100")[0]
    found = network_stats(ck.config, ck.params, stored["x"], stored["y"])
    assert found.mse == pytest.approx(float(stored["mse"]), rel=rtol)
    assert found.saturation == pytest.approx(float(stored["saturation"]), rel=rtol)
    assert found.parameters == int(stored["num_params"])


@covers_numpy
@numpy_nets
def test_selection_of_the_numpy_package(case):
    ck, expected = load(case), published.document(f"{case}_selection")
    found = selection_stats(ck.config, ck.params, [0, 1, 2])
    assert found.total_connections == expected["total_connections"]
    assert found.true_connections == expected["true_connections"]
    assert list(found.selected) == expected["selected_indices"]
    assert len(found.selected) == expected["unique_inputs"]
    assert len(found.true_selected) == expected["true_features_found"]
    assert found.recall == pytest.approx(expected["true_features_found"] / expected["true_features_total"])
    for name in ("true_ratio", "expected_random_ratio", "selection_factor"):
        assert getattr(found, name) == pytest.approx(expected[name], rel=1e-12)
