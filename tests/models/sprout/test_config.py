"""Configs refuse what no network can be, and survive JSON."""

from __future__ import annotations

import json

import pytest

from sparsejax.models.sprout import DeepSets, SproutConfig, SproutFFNConfig


@pytest.mark.parametrize(
    "config",
    [
        SproutConfig(),
        SproutConfig(sparse_k=0, router="low_rank", router_rank=3, use_bias=True, activation="relu"),
        SproutConfig(deep_sets=DeepSets(use_context=True), gradient_checkpointing=True),
        SproutFFNConfig(router="mlp_block", mixer_hidden=8),
    ],
)
def test_json_gives_the_config_back(config):
    assert type(config).from_json(json.loads(json.dumps(config.to_json()))) == config
    assert hash(config) == hash(type(config).from_json(config.to_json()))


def test_defaults_are_the_published_ones():
    config = SproutConfig()
    assert (config.vocab_size, config.d_model, config.d_ff, config.n_heads) == (30000, 512, 2048, 8)
    assert (config.n_layers, config.max_len, config.dropout, config.sparse_k) == (6, 512, 0.1, None)
    assert config.ffn == SproutFFNConfig() and config.ffn.num_blocks == 32
    assert (DeepSets().d_neuron, DeepSets().d_hidden, DeepSets().use_context) == (128, 256, False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_ff": 0}, "d_ff must be a whole number of at least 1, not 0"),
        ({"n_layers": 2.0}, "n_layers must be a whole number"),
        ({"n_heads": True}, "n_heads must be a whole number"),
        ({"n_heads": 7}, "does not divide into n_heads=7 heads"),
        ({"router": "hash"}, "router 'hash' is not one of"),
        ({"router_init": "zeros"}, "router_init 'zeros'"),
        ({"activation": "softmax"}, "activation 'softmax' is not one of"),
        ({"router": "block", "block_size": 100}, "do not divide into blocks of 100"),
        ({"mixer_hidden": 1}, "mixer_hidden must be a whole number of at least 2"),
        ({"sparse_k": -1}, "sparse_k must be a whole number of at least 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"deep_sets": DeepSets(), "mixer_hidden": 4}, "neither a mixer"),
    ],
)
def test_what_no_network_can_be_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        SproutConfig(**changes)


def test_sizes_of_deep_sets_are_checked():
    with pytest.raises(ValueError, match="d_hidden"):
        DeepSets(d_hidden=0)
