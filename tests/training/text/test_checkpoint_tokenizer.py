"""A checkpoint's tokenizer is the given one, the named one, or that of bytes, and must fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.training.text.checkpoint_tokenizer import tokenizer_of


def checkpoint(size=None, **metadata):
    config = SimpleNamespace() if size is None else SimpleNamespace(vocab_size=size)
    return Checkpoint("ten", "modern", config, {}, metadata=metadata)


@pytest.mark.parametrize("size", [256, 512])
def test_a_small_vocabulary_is_of_bytes(size):
    assert tokenizer_of(checkpoint(size)).name == "bytes"


@pytest.mark.parametrize("size", [255, 513, 50257])
def test_another_vocabulary_needs_a_tokenizer(size):
    with pytest.raises(ValueError, match=f"vocabulary of {size} tokens .* --tokenizer"):
        tokenizer_of(checkpoint(size))
    assert tokenizer_of(checkpoint(size, tokenizer="bytes")).vocab_size == 258


def test_a_network_that_reads_no_tokens_names_its_tokenizer():
    assert tokenizer_of(checkpoint(tokenizer="bytes")).name == "bytes"
    with pytest.raises(ValueError, match="names no tokenizer: give"):
        tokenizer_of(checkpoint())


def test_a_tokenizer_must_fit_the_network(tmp_path):
    pytest.importorskip("tokenizers")
    words = tmp_path / "vocab.txt"
    words.write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b")))
    assert tokenizer_of(checkpoint(7), words).vocab_size == 7
    with pytest.raises(ValueError, match="the tokenizer has 7 tokens, the network 6"):
        tokenizer_of(checkpoint(6), words)
