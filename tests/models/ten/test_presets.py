"""Published sizes, counted without memory for them."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from sparsejax.models.ten import TemporalEigenstateNetwork
from sparsejax.models.ten.presets import BYTE_VOCABULARY, NAMES, OWN, PUBLISHED, preset
from sparsejax.training.text.tokenizer import ByteTokenizer

PARAMETERS = {
    "tiny": 815_619,
    "mini": 4_768_773,
    "nano": 35_746_304,
    "micro": 70_407_168,
    "small": 125_205_504,
    "medium": 234_830_080,
    "large": 402_620_928,
    "xlarge": 823_166_976,
    "small_32k": 156_662_784,  # the published claim is 123M; specs/ten.md section 8 counts 156.7M
    "medium_32k": 274_151_680,
    "large_32k": 449_806_848,
}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_counted(name):
    config = preset(name)
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    shapes = jax.eval_shape(TemporalEigenstateNetwork(config).init, jax.random.key(0), tokens)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))
    assert count == config.num_parameters == PARAMETERS[name]


def test_a_layer_without_a_gate_has_none():
    config = dataclasses.replace(preset("tiny"), layer=dataclasses.replace(preset("tiny").layer, gate=False))
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    shapes = jax.eval_shape(TemporalEigenstateNetwork(config).init, jax.random.key(0), tokens)["params"]
    assert "gate" not in shapes["layer_0"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == config.num_parameters


def test_what_is_known_of_the_published_sizes_holds():
    configs = [preset(name) for name in PUBLISHED]
    assert (min(c.dim for c in configs), max(c.dim for c in configs)) == (512, 2048)
    assert (min(c.n_layers for c in configs), max(c.n_layers for c in configs)) == (4, 20)
    assert all(c.num_eigenstates == c.dim // 8 for c in configs)
    assert {c.energy_reg_weight for c in configs} == {0.01, 0.02}
    assert [preset(name).max_seq_len for name in PUBLISHED if name.endswith("32k")] == [32768] * 3


def test_own_sizes_read_bytes_without_a_limit():
    assert BYTE_VOCABULARY == ByteTokenizer.vocab_size
    assert {(preset(name).vocab_size, preset(name).pos_emb_type) for name in OWN} == {(258, "none")}


def test_fields_go_over_the_preset_and_wrong_names_are_told():
    assert preset("nano", vocab_size=300, dim=64).num_eigenstates == 64
    with pytest.raises(ValueError, match="no preset is called 'smal'; near it: small"):
        preset("smal")
    with pytest.raises(ValueError, match="there are: tiny"):
        preset("qqqq")
