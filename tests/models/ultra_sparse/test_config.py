"""Configs: what they accept, and that they survive JSON."""

from __future__ import annotations

import json

import pytest

from sparsejax.models.ultra_sparse import Layer, UltraSparseConfig, dense, masked, sparse
from tests.models.ultra_sparse import nets


@pytest.mark.parametrize("name", nets.ARCHITECTURES)
def test_json_brings_back_an_equal_and_hashable_config(name):
    config = nets.ARCHITECTURES[name]
    again = UltraSparseConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config and hash(again) == hash(config)


def test_the_default_is_the_published_net():
    assert UltraSparseConfig() == UltraSparseConfig.fixed_k(256, 8, 1, 2)
    assert UltraSparseConfig().layers == (sparse(8, 2), dense(1))
    assert UltraSparseConfig().output_size == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "conv", "features": 3}, "'conv'"),
        ({"kind": "dense", "features": 0}, "features must be a whole number of at least 1"),
        ({"kind": "dense", "features": 3, "fan_in": 2}, "fan_in belongs to sparse"),
        ({"kind": "sparse", "features": 3}, "fan_in belongs to sparse"),
        ({"kind": "sparse", "features": 3, "fan_in": 0}, "at least 1"),
        ({"kind": "dense", "features": 3, "activation": "gelu"}, "'gelu'"),
        ({"kind": "dense", "features": 3, "weights": "int4"}, "'int4'"),
    ],
)
def test_impossible_layers_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Layer(**fields)


@pytest.mark.parametrize(
    ("size", "layers", "words"),
    [
        (0, (dense(1),), "input_size must be a whole number"),
        (4, (), "one layer"),
        (3, (sparse(2, 4), dense(1)), "layer 0 reads 4 inputs per neuron of only 3"),
        (9, (masked(2), sparse(5, 3), dense(1)), "layer 1 reads 3 inputs per neuron of only 2"),
    ],
)
def test_impossible_stacks_are_refused(size, layers, words):
    with pytest.raises(ValueError, match=words):
        UltraSparseConfig(size, layers)


def test_a_padded_table_may_be_wider_than_the_inputs():
    config = UltraSparseConfig(3, (sparse(2, 16, variable_fan_in=True), dense(1)))
    assert config.num_parameters == 2 * 17 + 3
