"""Nets compiled with constant weights compute what their module computes."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.ultra_sparse import (
    UltraSparseConfig,
    compile_network,
    dense,
    expand_input,
    fuse,
    sparse,
)
from tests.models.ultra_sparse import nets

NETS = {
    "published": UltraSparseConfig(),
    "many outputs": UltraSparseConfig.fixed_k(12, 6, 3, 4, output_activation="linear"),
    "variable": UltraSparseConfig(12, (sparse(5, 6, variable_fan_in=True), dense(2))),
    "three layers": UltraSparseConfig(12, (sparse(6, 3), dense(5), dense(2))),
    "too large to write out": UltraSparseConfig.fixed_k(300, 200, 2, 4),
    "two tables": UltraSparseConfig.deep(12, (7, 6), 2, 3),
    "dense": UltraSparseConfig.dense(12, 5, 2),
}


def random_net(config: UltraSparseConfig):
    trained = nets.trained(config, nets.make(config))
    return trained, trained.model


@pytest.mark.parametrize("name", NETS)
def test_compiled_network_equals_the_module(name):
    trained, net = random_net(NETS[name])
    x = np.random.default_rng(0).normal(size=(9, trained.config.input_size)).astype(np.float32)
    expected = net.apply({"params": trained.params}, x)
    rows = compile_network(trained)
    np.testing.assert_allclose(rows(x), expected, atol=2e-6)
    np.testing.assert_allclose(rows(x[4]), expected[4], atol=2e-6)
    np.testing.assert_allclose(compile_network(trained, features_first=True)(x.T), expected.T, atol=2e-6)
    np.testing.assert_allclose(rows(np.ones_like(x, np.int32)), rows(np.ones_like(x)), atol=2e-6)


def test_compiled_network_refuses_another_width():
    trained, _ = random_net(NETS["dense"])
    with pytest.raises(ValueError, match="12 inputs"):
        compile_network(trained)(np.zeros((3, 13), np.float32))
    with pytest.raises(ValueError, match="12 inputs"):
        compile_network(trained, features_first=True)(np.zeros((3, 12), np.float32))


@pytest.mark.parametrize("hidden", [8, 300], ids=["written out", "over the used columns"])
def test_fused_net_equals_its_net_over_all_columns(hidden):
    trained, net = random_net(UltraSparseConfig.fixed_k(256, hidden, 1, 2))
    x = np.linspace(-6, 6, 50, dtype=np.float32)
    expected = net.apply({"params": trained.params}, expand_input(x))[:, 0]
    np.testing.assert_allclose(fuse(trained)(x), expected, atol=3e-5)
