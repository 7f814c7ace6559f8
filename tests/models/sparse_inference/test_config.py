"""The published fields, what decides which neurons, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sparsejax.models.sparse_inference import CacheConfig, ModelConfig, SparsityConfig
from sparsejax.models.sparse_inference.config import QUANTIZATIONS
from sparsejax.ops.quantized import FORMATS
from tests import golden

NONE_SET = {"threshold": None}
REFUSED = {
    "none_set": (NONE_SET, "nothing says which neurons"),
    "neg_threshold": ({"threshold": -0.1}, "at least 0, not -0.1"),
    "zero_top_k": ({"top_k": 0}, "at least 1, not 0"),
    "target_1.5": ({"target_sparsity": 1.5}, "0 to 1, not 1.5"),
    "nan_threshold": ({"threshold": float("nan")}, "finite"),
    "nan_target": ({"target_sparsity": float("nan")}, "0 to 1"),
    "fraction_top_k": ({"top_k": 2.5}, "whole number"),
    "true_top_k": ({"top_k": True}, "whole number"),
}


def test_published_defaults():
    assert dataclasses.astuple(SparsityConfig()) == (0.01, None, None, False)
    assert dataclasses.astuple(CacheConfig()) == (0.2, 1000, "lru", 1024, 4096, False, 0.5)
    config = ModelConfig(16, 64, 8, rank=4)
    assert (config.activation, config.quantization, config.sparsity) == ("gelu_tanh", None, SparsityConfig())


def test_each_way_clears_the_others():
    assert dataclasses.astuple(SparsityConfig.with_top_k(5)) == (None, 5, None, False)
    assert dataclasses.astuple(SparsityConfig.with_threshold(0.5)) == (0.5, None, None, False)
    assert dataclasses.astuple(SparsityConfig.with_target_sparsity(0.9)) == (None, None, 0.9, True)
    assert SparsityConfig.with_active_fraction(0.25).target_sparsity == 0.75
    assert dataclasses.astuple(SparsityConfig.with_top_k(5).calibrated(-1)) == (-1.0, None, None, True)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    fields, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        SparsityConfig(**fields)
    with pytest.raises(ValueError, match=message):
        SparsityConfig.from_json({**SparsityConfig().to_json(), **fields})


@pytest.mark.golden("predictor_small", "predictor_med")
def test_what_the_original_refuses_is_refused():
    for case in ("predictor_small", "predictor_med"):
        refused = {*golden.manifest("sparse_inference")[case]["config"]["errors"]} - {"wrong_dim"}
        assert refused <= {*REFUSED}


@pytest.mark.parametrize(
    ("config", "neurons", "count"),
    [
        (SparsityConfig(threshold=1.0, top_k=3, target_sparsity=0.5), 10, 3),
        (SparsityConfig(threshold=1.0, target_sparsity=0.5), 10, None),
        (SparsityConfig(), 10, None),
        (SparsityConfig.with_target_sparsity(0.5), 5, 3),  # half away from zero
        (SparsityConfig.with_target_sparsity(1.0), 5, 1),
        (SparsityConfig.with_target_sparsity(0.0), 5, 5),
        (SparsityConfig.with_active_fraction(0.1), 11008, 1101),
        (SparsityConfig.with_top_k(10), 10, 10),
    ],
)
def test_what_decides(config, neurons, count):
    assert config.count(neurons) == count


def test_more_than_there_are():
    with pytest.raises(ValueError, match="top_k 11 is more than the 10 neurons"):
        SparsityConfig.with_top_k(11).count(10)
    with pytest.raises(ValueError, match="top_k 65 is more than the 64 neurons"):
        ModelConfig(16, 64, 16, rank=4, sparsity=SparsityConfig.with_top_k(65))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 64, 8, 4), "input_dim must be a whole number of at least 1"),
        ((16, 64, -1, 4), "output_dim"),
        ((16, 64, 8, 17), "rank must be 1 to 16"),
        ((64, 16, 8, 17), "rank must be 1 to 16"),
        ((16, 64, 8, 0), "rank must be 1 to 16"),
    ],
)
def test_sizes_that_cannot_be(sizes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(*sizes)


def test_names_that_are_not_known():
    with pytest.raises(ValueError, match="no activation 'Gelu'"):
        ModelConfig(16, 64, 8, 4, activation="Gelu")
    with pytest.raises(ValueError, match="no quantization 'q9_0'"):
        ModelConfig(16, 64, 8, 4, quantization="q9_0")
    with pytest.raises(ValueError, match="no cache strategy 'random'"):
        CacheConfig(cache_strategy="random")
    with pytest.raises(ValueError, match="hot_threshold must be 0 to 1"):
        CacheConfig(hot_threshold=1.1)
    with pytest.raises(ValueError, match="lru_cache_size must be a whole number of at least 0"):
        CacheConfig(lru_cache_size=-1)


def test_every_format_is_a_quantization():
    assert {*FORMATS} <= {*QUANTIZATIONS}


@pytest.mark.parametrize(
    "config",
    [
        SparsityConfig.with_target_sparsity(0.9).calibrated(-0.25),
        ModelConfig(16, 64, 8, 4, activation="swiglu", quantization="q4_k"),
        CacheConfig(cache_strategy="Fifo", use_mmap=True),
    ],
)
def test_json_round_trip(config):
    assert type(config).from_json(json.loads(json.dumps(config.to_json()))) == config
