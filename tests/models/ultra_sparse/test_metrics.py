"""Statistics against hand counts."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.ultra_sparse import (
    UltraSparseConfig,
    dense,
    masked,
    network_stats,
    quantize,
    selection_stats,
    sparse,
    storage_bits,
)
from tests.models.ultra_sparse import nets, oracle


def by_hand(config, params, x, targets):
    *hidden, outputs = oracle.activations(config, params, x)
    return hidden, np.mean((outputs - targets) ** 2)


@pytest.mark.parametrize("name", ["deep", "sensor_flip", "dense"])
def test_error_saturation_and_energies_by_their_definitions(name):
    config, rng = nets.ARCHITECTURES[name], np.random.default_rng(0)
    params, x = nets.make(config), rng.normal(size=(6, 12)).astype(np.float32)
    targets = rng.normal(size=(6, config.output_size)).astype(np.float32)
    hidden, mse = by_hand(config, params, x, targets)
    found = network_stats(config, params, x, targets)
    everything = np.concatenate([h.ravel() for h in hidden])
    weights = [own.get("weights", own.get("kernel")).ravel() for own in params.values()]
    biases = [own["bias"] for own in params.values()]
    assert found.mse == pytest.approx(mse, rel=1e-5)
    assert found.saturation == pytest.approx(np.mean(np.abs(everything) > 0.95), abs=1e-6)
    assert found.activation_energy == pytest.approx(np.mean([np.abs(h).mean() for h in hidden]), rel=1e-5)
    assert found.weight_energy == pytest.approx(np.abs(np.concatenate(weights + biases)).mean(), rel=1e-5)
    assert found.weight_energy_without_biases == pytest.approx(
        np.abs(np.concatenate(weights)).mean(), rel=1e-5
    )
    assert found.total_energy == pytest.approx(found.activation_energy + found.weight_energy)
    assert found.energy_without_biases == pytest.approx(
        found.activation_energy + found.weight_energy_without_biases
    )
    assert found.parameters == config.num_parameters == sum(len(p) for p in weights + biases)
    assert found.memory_bytes == 4 * found.parameters
    last = np.abs(hidden[-1]) > 0.95
    assert (found.saturated_neurons, found.total_neurons) == (int(last.sum() / 6), last.shape[1])


def linear_net(bias):
    """One hidden neuron that is tanh of its bias, and an output that is always 0."""
    first = {"indices": np.zeros((1, 1), np.int32), "weights": np.zeros((1, 1), np.float32)}
    last = {"kernel": np.zeros((1, 1), np.float32), "bias": np.zeros(1, np.float32)}
    config = UltraSparseConfig(4, (sparse(1, 1, "linear"), dense(1)))
    return config, {"layer_0": first | {"bias": np.array([bias], np.float32)}, "layer_1": last}


@pytest.mark.parametrize(("level", "saturated"), [(0.95, 0.0), (0.9500001, 1.0), (-0.96, 1.0), (0.5, 0.0)])
def test_saturation_begins_strictly_beyond_the_threshold(level, saturated):
    config, params = linear_net(level)
    assert network_stats(config, params, np.zeros((3, 4)), np.zeros(3)).saturation == saturated


def test_targets_of_one_output_may_lack_its_axis_but_never_broadcast():
    config, params = linear_net(0.0)
    x, targets = np.zeros((3, 4)), np.array([1.0, 2.0, 3.0])
    assert network_stats(config, params, x, targets).mse == pytest.approx(14 / 3)
    assert network_stats(config, params, x, targets[:, None]).mse == pytest.approx(14 / 3)
    for wrong in (targets[None], targets[:2], np.zeros((3, 2)), np.float32(0)):
        with pytest.raises(ValueError, match="do not fit outputs of shape"):
            network_stats(config, params, x, wrong)


def test_a_net_without_hidden_layers_has_no_activations_to_measure():
    config = UltraSparseConfig(4, (dense(2),))
    params = {"layer_0": {"kernel": np.ones((4, 2), np.float32), "bias": np.zeros(2, np.float32)}}
    found = network_stats(config, params, np.zeros((3, 4)), np.zeros((3, 2)))
    assert (found.saturation, found.activation_energy, found.saturated_neurons) == (0, 0, 0)
    assert found.weight_energy == pytest.approx(8 / 10)


def test_int8_nets_are_measured_by_the_weights_they_stand_for():
    config, params = nets.ARCHITECTURES["dense"], nets.make(nets.ARCHITECTURES["dense"])
    x, targets = np.ones((2, 12)), np.zeros((2, 2))
    plain, small = (network_stats(*net, x, targets) for net in ((config, params), quantize(config, params)))
    assert small.weight_energy == pytest.approx(plain.weight_energy, rel=0.01)
    assert small.parameters == plain.parameters


def table_net(rows, live=None):
    indices = np.array(rows, np.int32)
    hidden = sparse(*indices.shape, variable_fan_in=live is not None)
    own = {"indices": indices} | ({} if live is None else {"live": np.array(live, np.int32)})
    return UltraSparseConfig(10, (hidden, dense(1))), {"layer_0": own}


def test_selection_counts_connections_and_distinct_inputs():
    config, params = table_net([[1, 1, 2], [7, 1, 9]])
    found = selection_stats(config, params, [1, 2, 3, 4])
    assert (found.total_connections, found.true_connections) == (6, 4)
    assert (found.selected, found.true_selected) == ((1, 2, 7, 9), (1, 2))
    assert found.true_ratio == pytest.approx(4 / 6)
    assert found.expected_random_ratio == pytest.approx(0.4)
    assert found.selection_factor == pytest.approx(4 / 6 / 0.4)
    assert (found.precision, found.recall) == (0.5, 0.5)
    assert found.f1 == pytest.approx(0.5)


def test_selection_ignores_slots_that_do_not_live():
    config, params = table_net([[1, 2, 3], [4, 5, 6]], live=[1, 2])
    found = selection_stats(config, params, [2, 3, 5])
    assert found.selected == (1, 4, 5)
    assert (found.total_connections, found.true_connections) == (3, 1)


def test_selection_without_a_hit_has_no_f1():
    config, params = table_net([[1, 2]])
    found = selection_stats(config, params, [9])
    assert (found.precision, found.recall, found.f1, found.selection_factor) == (0, 0, 0, 0)
    nothing = selection_stats(config, params, [])
    assert (nothing.recall, nothing.selection_factor, nothing.f1) == (0, 0, 0)


def test_selection_needs_a_table_and_inputs_that_exist():
    config, params = table_net([[1, 2]])
    with pytest.raises(ValueError, match=r"\[-1, 10\] are outside of the 10 inputs"):
        selection_stats(config, params, [3, 10, -1])
    with pytest.raises(ValueError, match="no selection to measure"):
        selection_stats(UltraSparseConfig.dense(10), {}, [1])


@pytest.mark.parametrize(
    ("config", "bits"),
    [
        # 16 weights, 8 biases, 16 indices of 8 bits; 8 weights and 1 bias
        (UltraSparseConfig(), 16 * 32 + 8 * 32 + 16 * 8 + 8 * 32 + 32),
        (UltraSparseConfig.dense(), 2048 * 32 + 8 * 32 + 8 * 32 + 32),
        # 64 inputs: 6 bits; 65 inputs: 7 bits
        (UltraSparseConfig.fixed_k(64, 32, 10, 4), 128 * (32 + 6) + 32 * 32 + 320 * 32 + 10 * 32),
        (UltraSparseConfig.fixed_k(65, 32, 10, 4), 128 * (32 + 7) + 32 * 32 + 320 * 32 + 10 * 32),
        # a mask costs one bit per entry
        (UltraSparseConfig(10, (masked(4), dense(1))), 40 * 33 + 4 * 32 + 4 * 32 + 32),
        # 0 to 3 live slots: 2 bits per neuron; 0 to 4: 3 bits
        (
            UltraSparseConfig(16, (sparse(5, 3, variable_fan_in=True), dense(1))),
            15 * 36 + 5 * (32 + 2) + 6 * 32,
        ),
        (
            UltraSparseConfig(16, (sparse(5, 4, variable_fan_in=True), dense(1))),
            20 * 36 + 5 * (32 + 3) + 6 * 32,
        ),
        # the second table points into 4 neurons: 2 bits
        (UltraSparseConfig.deep(8, (4, 3), 1, 2), 8 * 35 + 4 * 32 + 6 * 34 + 3 * 32 + 4 * 32),
    ],
)
def test_storage_by_hand(config, bits):
    assert storage_bits(config) == bits


def test_int8_storage_by_hand():
    config = UltraSparseConfig()
    small, _ = quantize(config, nets.make(config))
    first, last = 16 * (8 + 8) + 8 * 32 + 32, 8 * 8 + 32 + 32
    assert storage_bits(small) == first + last == 672
