"""The golden files: logits of transformers, tokenisation and greedy tokens of llama.cpp."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.checkpoint.gguf import read_gguf
from sparsejax.models.sparse_inference.llama.generation import generate
from sparsejax.models.sparse_inference.llama.metadata import llama_config, llama_metadata
from sparsejax.models.sparse_inference.llama.model import LlamaLM
from sparsejax.models.sparse_inference.tokenizer.tokenizer import read_tokenizer
from tests import golden
from tests.models.sparse_inference.llama_files import llama_params

CASES = ("llama_tiny_f32", "llama_tiny_q8_0")


@pytest.fixture(scope="module", params=CASES)
def case(request):
    file = read_gguf(golden.path("sparse_inference", f"{request.param}.gguf"))
    config = llama_config(file.metadata, file.tensors)
    expected = golden.arrays("sparse_inference", request.param)
    return request.param, file, config, llama_params(config, file.tensors), expected


@pytest.mark.golden(*CASES)
def test_logits_are_those_of_transformers(case):
    name, _, config, params, expected = case
    tokens = np.atleast_2d(expected["ids"]).astype(np.int32)
    logits = jax.jit(LlamaLM(config).apply)({"params": params}, tokens).logits[0]
    np.testing.assert_allclose(logits, expected["logits_transformers"].reshape(logits.shape), atol=2e-5)
    quantised = {name for name, kind in config.formats}
    assert ("blk.0.ffn_down.weight" in quantised) == (name == "llama_tiny_q8_0")


@pytest.mark.golden(*CASES)
def test_tokenisation_is_that_of_llama_cpp(case):
    _, file, _, _, expected = case
    tokenizer, text = read_tokenizer(file.metadata), str(expected["text"])
    ids = tokenizer.encode(text)
    assert ids == expected["text_ids"].tolist()
    assert tokenizer.decode(ids) == text


@pytest.mark.golden(*CASES)
def test_greedy_tokens_are_those_of_llama_cpp(case):
    name, file, config, params, expected = case
    exact = name == "llama_tiny_q8_0"
    found = generate(
        (LlamaLM(config), params),
        [expected["text_ids"]],
        max_new_tokens=16,
        temperature=0,
        cache_dtype=jnp.float16,
    )
    np.testing.assert_array_equal(found.tokens[0], expected["greedy_ids"])
    if exact:
        wide = generate((LlamaLM(config), params), [expected["text_ids"]], max_new_tokens=16, temperature=0)
        np.testing.assert_array_equal(wide.tokens, found.tokens)


@pytest.mark.golden(*CASES)
def test_the_metadata_written_again_give_the_same_config(case):
    _, file, config, _, _ = case
    assert llama_config(llama_metadata(config), file.tensors) == config
