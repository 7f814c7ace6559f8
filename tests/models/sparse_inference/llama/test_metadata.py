"""From metadata to a config: what files say, what they leave out, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.checkpoint.errors import (
    CorruptFileError,
    MissingKeyError,
    ShapeError,
    UnexpectedKeyError,
    UnknownFormatError,
)
from sparsejax.checkpoint.gguf import StringArray
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.metadata import llama_config, llama_metadata
from sparsejax.models.sparse_inference.llama.names import parameter_path, tensor_name, tensor_places
from sparsejax.models.sparse_inference.llama.rope import RopeConfig
from tests.models.sparse_inference import llama_oracle

SIZES = {"vocab_size": 29, "d_model": 12, "d_ff": 20, "n_layers": 2, "n_heads": 3, "n_kv_heads": 1}
KINDS = [
    {},
    {"architecture": "mistral", "sliding_window": 7, "head_dim": 6, "rope": RopeConfig(4, base=5e5)},
    {"architecture": "qwen2", "biases": ("attn_q", "attn_k", "attn_v"), "tied_output": True},
    {"activation": "relu", "rope_factors": True, "context_length": 77, "norm_eps": 1e-6},
    {"rope": RopeConfig(4, scaling="linear", factor=2.0)},
    {
        "rope": RopeConfig(
            4, scaling="yarn", factor=8.0, original_context=512, attention_factor=0.5, beta_fast=9.0
        )
    },
]


def files_of(config):
    return llama_oracle.file_tensors(llama_oracle.random_tensors(config))


@pytest.mark.parametrize("fields", KINDS)
def test_written_metadata_give_the_config_again(fields):
    config = LlamaConfig(**{**SIZES, **fields})
    assert llama_config(llama_metadata(config), files_of(config)) == config


def test_names_and_paths_are_each_others_inverse():
    for place in tensor_places(LlamaConfig(**{**SIZES, "n_layers": 12}, rope_factors=True)):
        assert tensor_name(place.path) == place.name
        assert parameter_path(place.name) == place.path


def test_defaults_are_those_of_files_that_leave_them_out():
    config = LlamaConfig(**SIZES)
    keys = ("general.architecture", *(f"llama.{key}" for key in ("embedding_length", "block_count")))
    keys += tuple(
        f"llama.{key}"
        for key in (
            "feed_forward_length",
            "attention.head_count",
            "attention.layer_norm_rms_epsilon",
        )
    )
    bare = {key: value for key, value in llama_metadata(config).items() if key in keys}
    bare["llama.attention.head_count_kv"] = np.array([1, 1], np.uint32)
    assert llama_config(bare, files_of(config)) == config


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"general.architecture": "gemma2"},
            UnknownFormatError,
            "the architecture 'gemma2' is not supported",
        ),
        ({"general.architecture": None}, MissingKeyError, "lack 'general.architecture'"),
        ({"llama.block_count": None}, MissingKeyError, "lack 'llama.block_count'"),
        ({"llama.block_count": 3}, MissingKeyError, "lacks 'blk.2.attn_norm.weight'"),
        ({"llama.block_count": 1}, UnexpectedKeyError, "has 'blk.1.attn_norm.weight'"),
        ({"llama.block_count": "two"}, CorruptFileError, "llama.block_count is 'two'"),
        ({"llama.block_count": 300_000}, CorruptFileError, "block_count is 300000; the 21 tensors"),
        ({"llama.block_count": (1 << 32) - 1}, CorruptFileError, "block_count is 4294967295"),
        ({"llama.block_count": StringArray.of(["a"])}, CorruptFileError, "block_count is a list of 1"),
        ({"llama.block_count": []}, CorruptFileError, "block_count is a list of 0"),
        ({"llama.block_count": 2.5}, CorruptFileError, "block_count is 2.5; a whole number is needed"),
        ({"llama.block_count": [2, np.nan]}, CorruptFileError, "block_count is nan; a whole number"),
        ({"llama.attention.head_count": np.inf}, CorruptFileError, "head_count is inf; a whole number"),
        (
            {"llama.attention.layer_norm_rms_epsilon": np.ones(2, np.float32)},
            CorruptFileError,
            "layer_norm_rms_epsilon is a list of 2; a number is needed",
        ),
        ({"llama.rope.freq_base": np.float32(np.nan)}, CorruptFileError, "rope.freq_base is nan; a number"),
        ({"llama.hidden_activation": 7}, CorruptFileError, "hidden_activation is 7; a string is needed"),
        ({"general.architecture": np.ones(3)}, UnknownFormatError, "the architecture a list of 3 is not"),
        ({"tokenizer.ggml.tokens": 5}, CorruptFileError, "tokenizer.ggml.tokens is 5; a list of strings"),
        ({"tokenizer.ggml.tokens": "text"}, CorruptFileError, "tokens is 'text'; a list of strings"),
        ({"llama.feed_forward_length": 24}, ShapeError, r"'blk.0.ffn_gate.weight' has shape \(20, 12\)"),
        ({"llama.attention.head_count": 0}, CorruptFileError, "0 heads"),
        ({"llama.attention.head_count_kv": [1, 3]}, UnknownFormatError, "differs between blocks"),
        ({"llama.attention.head_count_kv": 2}, CorruptFileError, "does not divide"),
        ({"llama.attention.value_length": 8}, UnknownFormatError, "only equal ones work"),
        ({"llama.rope.scaling.type": "longrope"}, UnknownFormatError, "the RoPE scaling 'longrope'"),
        ({"llama.hidden_activation": "mish"}, UnknownFormatError, "mish"),
        ({"llama.expert_count": 8}, UnknownFormatError, "a mixture of 8 experts"),
        ({"tokenizer.ggml.tokens": ["a"] * 30}, ShapeError, "the tokenizer has 30 tokens"),
    ],
)
def test_what_is_no_network_is_refused(changes, error, message):
    config = LlamaConfig(**SIZES)
    changed = {**llama_metadata(config), **changes}
    metadata = {key: value for key, value in changed.items() if value is not None}
    with pytest.raises(error, match=message):
        llama_config(metadata, files_of(config))


def test_what_no_file_can_say_is_refused():
    config = LlamaConfig(**SIZES, rope=RopeConfig(4, interleaved=False))
    with pytest.raises(ValueError, match="files of the architecture 'llama' cannot say interleaved=False"):
        llama_metadata(config)


def test_a_file_without_an_embedding_is_refused():
    config = LlamaConfig(**SIZES)
    tensors = files_of(config)
    del tensors["token_embd.weight"]
    with pytest.raises(MissingKeyError, match="lacks 'token_embd.weight'"):
        llama_config(llama_metadata(config), tensors)
