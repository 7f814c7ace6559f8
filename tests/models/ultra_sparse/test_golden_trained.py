"""The three published sine nets, in every layout, against what the original code computed from them."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from sparsejax.models.ultra_sparse import UltraSparseNet, expand_input, fuse, network_stats, selection_stats
from tests.models.ultra_sparse import nets, published
from tests.models.ultra_sparse.published import activations, allowed, checkpoint, worst

FILES = {
    "real_ultra_sparse_train_grid100": "ultra_sparse_mse0.000303.pt",
    "real_standard_sa_train_grid100": "standard_sa_mse0.009155.pt",
    "real_backprop_train_grid100": "backprop_mse0.000003.pt",
}
NETS = {name.removeprefix("real_").removesuffix("_train_grid100"): file for name, file in FILES.items()}
RECORDED_MSE = {"ultra_sparse": 3.0263248e-4, "standard_sa": 9.1550257e-3, "backprop": 3.3739686e-6}
SPARSE_LAYOUTS = ("format_bare_sparse", "format_inference_benchmark_sparse", "format_legacy_zip_off_sparse")
DENSE_LAYOUTS = ("format_inference_benchmark_dense", "format_parameters_dense")

real = pytest.mark.parametrize("case", FILES)
covers_real = pytest.mark.golden(*FILES)


def load(case):
    return checkpoint(FILES[case]), published.arrays(case)


@covers_real
@real
def test_trained_recipe_gives_the_recorded_features(case):
    stored = published.arrays(case)
    (bound,) = allowed(case, "expanded_f32")
    assert worst(expand_input(stored["x_f32"]), stored["expanded_f32"]) <= bound


@covers_real
@real
def test_outputs_and_hidden_activations_on_the_recorded_features(case):
    ck, stored = load(case)
    (bound,) = allowed(case, "output_f32")
    hidden, outputs = activations(ck, stored["expanded_f32"])
    assert worst(hidden, stored["hidden_f32"]) <= bound
    assert worst(outputs, stored["output_f32"]) <= bound
    assert worst(ck.apply(stored["expanded_f32"]), stored["output_f32"]) <= bound
    assert worst(ck.apply(stored["expanded_f32"][7]), stored["output_f32"][7:8]) <= bound


@covers_real
@real
def test_x_to_y_through_our_own_features(case):
    ck, stored = load(case)
    (bound,) = allowed(case, "output_f32")
    hidden, outputs = activations(ck, expand_input(stored["x_f32"]))
    assert worst(hidden, stored["hidden_f32"]) <= bound
    assert worst(outputs, stored["output_f32"]) <= bound


@covers_real
@real
def test_x_to_y_in_one_jitted_function(case):
    ck, stored = load(case)
    (bound, _) = allowed(case, note=True)
    fused = fuse(ck)
    assert worst(fused(stored["x_f32"]), stored["output_f32"]) <= bound


@covers_real
@real
def test_readme_recipe_gives_the_recorded_bad_outputs(case):
    ck, stored = load(case)
    (bound,) = allowed(case, "output_f32")
    hidden, outputs = activations(ck, expand_input(stored["x_f32"], "readme"))
    assert worst(hidden, stored["hidden_readme_expansion_f32"]) <= bound
    assert worst(outputs, stored["output_readme_expansion_f32"]) <= bound
    error = np.mean((outputs[:, 0] - np.sin(stored["x_f32"])) ** 2)
    assert error > 0.495, "worse than always answering 0: the reason why this recipe is no default"


@covers_real
@real
def test_readme_recipe_in_one_jitted_function(case):
    ck, stored = load(case)
    (_, bound) = allowed(case, note=True)
    outputs = fuse(ck, "readme")(stored["x_f32"])
    assert worst(outputs, stored["output_readme_expansion_f32"]) <= bound


@covers_real
@real
def test_float64_agrees_to_the_last_digits(case):
    ck, stored = load(case)
    (bound,) = allowed(case, "output_f64")
    with jax.enable_x64(True):
        features = expand_input(stored["x_f64"])
        hidden, outputs = activations(ck, features)
        fused = fuse(ck)(stored["x_f64"])
    assert outputs.dtype == fused.dtype == np.float64
    assert worst(features, stored["expanded_f64"]) <= bound
    assert worst(hidden, stored["hidden_f64"]) <= bound
    assert worst(outputs, stored["output_f64"]) <= bound
    assert worst(fused, stored["output_f64"]) <= bound


@covers_real
@real
def test_gradients_of_the_training_loss(case):
    ck, stored = load(case)
    targets = np.sin(stored["x_f32"])[:, None]
    published.check_gradients(ck, stored["expanded_f32"], targets, stored, case)


@covers_real
@real
def test_numpy_and_numba_engines_of_the_original_agree(case):
    ck, stored = load(case)
    (bound,) = allowed(case, "numba_vs_torch")
    outputs = ck.apply(stored["expanded_f32"])
    assert worst(outputs, stored["output_numpy_engine"]) <= bound
    assert worst(outputs, stored["output_numba_engine"]) <= bound


@covers_real
@real
def test_error_and_saturation_on_the_training_grid(case):
    ck, stored = load(case)
    found = network_stats(ck.config, ck.params, stored["expanded_f32"], np.sin(stored["x_f32"]))
    rtol = allowed("metrics_real_train100")[1 if "backprop" in case else 0]
    assert found.mse == pytest.approx(float(stored["mse_f32"]), rel=rtol)
    assert found.saturation == pytest.approx(float(stored["saturation"]), rel=rtol)


@pytest.mark.golden("metrics_real_train100")
@pytest.mark.parametrize("net", NETS)
def test_statistics_follow_both_definitions_of_the_originals(net):
    ck, expected = checkpoint(NETS[net]), published.document("metrics_real_train100")[net]
    rtol, rtol_of_backprop = allowed("metrics_real_train100")
    stored = published.arrays(f"real_{net}_train_grid100")
    found = network_stats(ck.config, ck.params, stored["expanded_f32"], np.sin(stored["x_f32"]))
    core = expected["core_compute_metrics"]
    of_the_files = (
        "saturation",
        "activation_energy",
        "weight_energy",
        "total_energy",
        "parameters",
        "memory_bytes",
    )
    for name in of_the_files:
        for table in ("stats_in_file", "recomputed_get_model_stats"):
            assert getattr(found, name) == pytest.approx(expected[table][name], rel=rtol), (table, name)
        assert ck.metadata["stats"][name] == expected["stats_in_file"][name]
    for table in ("stats_in_file", "recomputed_get_model_stats", "core_compute_metrics"):
        assert found.mse == pytest.approx(
            expected[table]["mse"], rel=rtol_of_backprop if net == "backprop" else rtol
        )
    assert found.saturation == pytest.approx(core["saturation"], rel=rtol)
    assert found.activation_energy == pytest.approx(core["activation_energy"], rel=rtol)
    assert found.weight_energy_without_biases == pytest.approx(core["weight_energy"], rel=rtol)
    assert found.energy_without_biases == pytest.approx(core["energy"], rel=rtol)
    assert (found.saturated_neurons, found.total_neurons) == (
        core["saturated_neurons"],
        core["total_neurons"],
    )
    assert ck.metadata["stats"]["mse"] == pytest.approx(RECORDED_MSE[net], rel=1e-7)


@pytest.mark.golden("metrics_real_train100")
def test_selection_is_counted_as_connections_and_as_distinct_inputs():
    ck, expected = (
        checkpoint(NETS["ultra_sparse"]),
        published.document("metrics_real_train100")["ultra_sparse"],
    )
    found = selection_stats(ck.config, ck.params, range(16))
    core, problem = expected["core_selection_stats"], expected["problem_evaluate_selection"]
    assert (
        ck.metadata["selection"]
        == expected["selection_in_file"]
        == {"true_ratio": 0.25, "true_inputs": [4, 15]}
    )
    assert found.total_connections == core["total_connections"] == 16
    assert found.true_connections == core["true_connections"] == 4
    assert found.total_connections - found.true_connections == core["noise_connections"]
    assert list(found.selected) == core["selected_indices"] == problem["selected"]
    assert len(found.selected) == core["unique_inputs"] == 14
    assert list(found.true_selected) == core["true_features_selected"] == [4, 15]
    assert len(found.selected) - len(found.true_selected) == core["noise_features_selected"]
    for name in ("true_ratio", "expected_random_ratio", "selection_factor"):
        assert getattr(found, name) == pytest.approx(core[name], rel=1e-12)
    for name in ("precision", "recall", "f1"):
        assert getattr(found, name) == pytest.approx(problem[name], rel=1e-12)
    assert found.precision / found.expected_random_ratio == pytest.approx(
        problem["selection_factor"], rel=1e-12
    )


@pytest.mark.golden("checkpoint_layouts")
@pytest.mark.parametrize("file", [*SPARSE_LAYOUTS, *DENSE_LAYOUTS])
def test_every_layout_holds_the_same_net(file):
    case = f"real_{'ultra_sparse' if file in SPARSE_LAYOUTS else 'standard_sa'}_train_grid100"
    ck, stored = checkpoint(f"{file}.pt"), published.arrays(case)
    assert (ck.kind, ck.variant) == ("ultra_sparse", "sparse" if file in SPARSE_LAYOUTS else "dense")
    assert ck.config == checkpoint(FILES[case]).config
    (bound,) = allowed(case, "output_f32")
    assert worst(ck.apply(stored["expanded_f32"]), stored["output_f32"]) <= bound
    assert jax.tree.all(jax.tree.map(np.array_equal, ck.params, checkpoint(FILES[case]).params))


@pytest.mark.golden("checkpoint_layouts")
def test_layouts_keep_what_lies_beside_the_weights():
    assert checkpoint("format_bare_sparse.pt").metadata == {}
    assert checkpoint("format_inference_benchmark_sparse.pt").metadata["config"] == {
        "hidden_size": 8,
        "inputs_per_neuron": 2,
    }
    assert checkpoint("format_inference_benchmark_dense.pt").metadata == {"config": {"hidden_size": 8}}
    assert checkpoint("format_parameters_dense.pt").metadata["stats"]["mse"] == 0.0, (
        "a dummy, not to be verified"
    )
    assert checkpoint("format_legacy_zip_off_sparse.pt").layout.file_format == "legacy"


@pytest.mark.golden("legacy_session_20260124_050912")
def test_the_extracted_legacy_session():
    name = "legacy_session_20260124_050912"
    ck, stored = checkpoint(f"{name}.pt"), published.arrays(name)
    (bound,) = allowed(name)
    hidden, outputs = activations(ck, expand_input(stored["x"]))
    assert worst(hidden, stored["hidden"]) <= bound
    assert worst(outputs, stored["output"]) <= bound
    saturated = np.mean(np.abs(hidden) > 0.95, axis=0)
    assert worst(saturated, stored["per_neuron_saturation"]) <= 1e-6, (
        "counts of 100 samples, stored as float32"
    )
    assert int(np.sum(saturated > 0.5)) == int(stored["k_mlp"]) == ck.metadata["stats"]["k_mlp"] == 6
    error = float(np.mean((np.asarray(outputs)[:, 0] - np.sin(stored["x"])) ** 2))
    assert error == pytest.approx(float(stored["recomputed_mse"]), rel=1e-5)
    assert error == pytest.approx(float(stored["reported_mse"]), rel=1e-5)
    assert ck.metadata["stats"]["mse"] == pytest.approx(float(stored["reported_mse"]), rel=1e-7)


@pytest.mark.golden("sa_original_trainer_400")
@pytest.mark.parametrize("fan_in", [2, 4])
def test_what_the_original_trainer_found_has_the_error_it_reported(fan_in):
    stored, prefix = published.arrays("sa_original_trainer_400"), f"K{fan_in}_best_"
    config = published.sparse_config(stored, prefix, 256)
    assert config.layers[0].fan_in == fan_in
    x = np.linspace(-2 * np.pi, 2 * np.pi, 100).astype(np.float32)
    found = network_stats(config, published.sparse_params(stored, prefix), expand_input(x), np.sin(x))
    (rtol,) = allowed("sa_original_trainer_400")
    assert found.mse == pytest.approx(float(stored[f"K{fan_in}_best_mse"]), rel=rtol)


@pytest.mark.golden("edge_shapes_a")
def test_fused_net_keeps_the_shape_of_x():
    stored = published.arrays("edge_shapes_a")
    (bound,) = allowed("edge_shapes_a", "output")
    fused = fuse(nets.trained(published.sparse_config(stored, "", 256), published.sparse_params(stored)))
    for x, expected in (
        (stored["x"], stored["out_1d"]),
        (stored["x"][:, None], stored["out_2d"]),
    ):
        outputs = fused(x)
        assert outputs.shape == x.shape == expected.shape
        assert worst(outputs, expected) <= bound
    where = int(np.argmin(np.abs(stored["out_1d"] - stored["out_0d"])))
    alone = fused(stored["x"][where])
    assert alone.shape == ()
    assert abs(float(alone) - float(stored["out_0d"])) <= bound


@pytest.mark.golden("edge_shapes_a")
def test_features_outside_of_the_training_range_grow_as_the_originals():
    stored = published.arrays("edge_shapes_a")
    (bound,) = allowed("edge_shapes_a", "output")
    features = np.asarray(expand_input(stored["x"]))
    size = np.maximum(
        1, np.abs(stored["expanded"])
    )  # (100 / 2 pi)**23 is 4e27: only relative errors mean something
    assert np.abs(stored["expanded"]).max() > 1e27
    assert np.max(np.abs(features - stored["expanded"]) / size) <= bound
    params = {"params": published.sparse_params(stored)}
    outputs = UltraSparseNet(published.sparse_config(stored, "", 256)).apply(params, features)
    assert worst(outputs, stored["out_1d"]) <= bound
