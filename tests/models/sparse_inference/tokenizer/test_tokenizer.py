"""Tokenisation against merging by hand, byte-level BPE against the library's, and what is refused."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejax.checkpoint.errors import CorruptFileError, MissingKeyError, UnknownFormatError
from sparsejax.models.sparse_inference.tokenizer.byte_level import (
    PRE_TOKENIZERS,
    byte_characters,
    byte_level_encoder,
    pre_tokenizer,
)
from sparsejax.models.sparse_inference.tokenizer.merges import merge_by_score
from sparsejax.models.sparse_inference.tokenizer.partition import partition
from sparsejax.models.sparse_inference.tokenizer.tokenizer import read_tokenizer

WORDS = ["ab", "ba", "aba", "bb", "abab", "▁a", "▁ab", "a▁", "▁▁", "bbb", "éa", "ca"]
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_end|>", "<tool>"]
TEXTS = [*SPECIAL, *[f"<0x{byte:02X}>" for byte in range(256)], *"abc▁é", *WORDS]
KINDS = [2, 3, 3, 3, 4] + [6] * 256 + [1] * (5 + len(WORDS))
SCORES = [0.0] * 266 + [float(-score) for score in np.random.default_rng(0).integers(1, 6, len(WORDS))]
METADATA = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": TEXTS,
    "tokenizer.ggml.scores": np.array(SCORES, np.float32),
    "tokenizer.ggml.token_type": np.array(KINDS, np.int32),
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
}
IDS = {text: token for token, text in enumerate(TEXTS)}
TOKENIZER = read_tokenizer(METADATA)


def merged_by_hand(text):
    """All adjacent pairs are looked at before every merge."""
    pieces = list(text)
    while True:
        pairs = [
            (-SCORES[IDS[left + right]], place)
            for place, (left, right) in enumerate(zip(pieces, pieces[1:], strict=False))
            if left + right in IDS
        ]
        if not pairs:
            return pieces
        place = min(pairs)[1]
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]


@given(st.text(alphabet="abc▁é日", max_size=40))
def test_the_heap_merges_as_looking_at_all_pairs_does(text):
    assert merge_by_score(text, IDS, SCORES) == merged_by_hand(text)


def test_merging_takes_no_longer_than_its_text():
    text = "ab▁ba" * 20_000
    start = time.perf_counter()
    pieces = merge_by_score(text, IDS, SCORES)
    assert time.perf_counter() - start < 10
    assert "".join(pieces) == text


@given(st.text(max_size=60))
def test_any_text_comes_back(text):
    clean = text.encode("utf-8", "replace").decode()
    ids = TOKENIZER.encode(text)
    assert ids[0] == 1 and all(0 <= token < len(TEXTS) for token in ids)
    if "▁" not in clean and "<tool>" not in clean:
        assert TOKENIZER.decode(ids) == clean
        assert TOKENIZER.encode(TOKENIZER.decode(ids)) == ids
        stream = TOKENIZER.text_stream()
        pieces = [stream.feed(token) for token in ids] + [stream.finish()]
        assert "".join(pieces) == (f" {clean}" if clean else "")


def test_characters_without_a_token_fall_to_their_bytes():
    spelled = [TEXTS[token] for token in TOKENIZER.encode("a日", begin=False)]
    assert spelled == ["▁a", "<0xE6>", "<0x97>", "<0xA5>"]
    bare = {**METADATA, "tokenizer.ggml.tokens": [text.replace("<0x", "<0y") for text in TEXTS]}
    assert read_tokenizer(bare).encode("日", begin=False) == [IDS["▁"], 0]


def test_begin_end_and_special_tokens():
    assert TOKENIZER.encode("") == [1]
    assert TOKENIZER.encode("a", end=True) == [1, IDS["▁a"], 2]
    assert TOKENIZER.encode("a<s>", begin=False)[1:] != [1]
    assert TOKENIZER.encode("a<s>a", begin=False, special=True) == [IDS["▁a"], 1, IDS["▁a"]]
    assert TOKENIZER.encode("a<tool>", begin=False) == [IDS["▁a"], 4]
    assert TOKENIZER.decode([1, IDS["▁a"], 4, 2]) == "a<tool>"
    assert TOKENIZER.decode([1, IDS["▁a"], 2], special=True) == "<s> a</s>"
    assert TOKENIZER.decode([IDS["▁a"]], continues=True) == " a"
    assert TOKENIZER.stop_tokens == (2, 3)
    told = {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": True}
    other = read_tokenizer({**METADATA, **told, "tokenizer.ggml.add_space_prefix": False})
    assert other.encode("ab") == [IDS["ab"], 2]


def test_bytes_of_a_character_wait_for_the_rest():
    stream = TOKENIZER.text_stream()
    assert [stream.feed(IDS[f"<0x{byte:02X}>"]) for byte in "日".encode()] == ["", "", "日"]
    assert stream.feed(IDS["<0xE6>"]) == "" and stream.finish() == "�"


def test_longer_special_tokens_are_found_first():
    assert partition("<a><a>b", {"<a>": 1, "<a><a>": 2}) == [2, "b"]
    assert partition("", {"<a>": 1}) == []


PIECES = ["Ġthe", "Ġ", "the", "th", "he", "in", "12", "1", "2", "3", "'s", "Ġt", "Ġth", "ll", "'ll"]
BYTES = list(byte_characters())
BPE_TEXTS = [*BYTES, "Ġt", "th", "Ġth", "the", "Ġthe", "in", "12", "'s", "<|im_end|>"]
BPE = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": BPE_TEXTS,
    "tokenizer.ggml.token_type": [1] * (len(BPE_TEXTS) - 1) + [3],
    "tokenizer.ggml.merges": ["t h", "Ġ t", "Ġt h", "th e", "Ġ the", "Ġth e", "i n", "1 2", "' s"],
    "tokenizer.ggml.eos_token_id": len(BPE_TEXTS) - 1,
}


@pytest.fixture(scope="module")
def byte_level():
    pytest.importorskip("tokenizers")
    return read_tokenizer(BPE)


@given(text=st.text(max_size=60))
def test_any_text_comes_back_from_bytes(byte_level, text):
    clean = text.encode("utf-8", "replace").decode()
    ids = byte_level.encode(text)
    assert byte_level.decode(ids) == clean


def test_gpt2_texts_are_cut_as_the_library_cuts_them(byte_level):
    from tokenizers import Regex, pre_tokenizers

    own = pre_tokenizers.Split(Regex(PRE_TOKENIZERS["gpt-2"].patterns[0]), "isolated")
    library = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in ("It's the  thin 12 \n\n they'll\t3é ...!", "   a", "日本 12日's ", "\r\n x\n"):
        ours = [text[slice(*span)] for _, span in own.pre_tokenize_str(text)]
        theirs = [text[slice(*span)] for _, span in library.pre_tokenize_str(text)]
        assert ours == theirs
    spelled = [BPE_TEXTS[token] for token in byte_level.encode("the the<|im_end|>", special=True)]
    assert spelled == ["the", "Ġthe", "<|im_end|>"]
    assert len(byte_level.encode("<|im_end|>")) == 10
    assert byte_level.stop_tokens == (len(BPE_TEXTS) - 1,)


@pytest.mark.parametrize(
    ("name", "text", "cuts"),
    [
        ("llama-bpe", "I'LL pay 12345 €", ["I", "'LL", " pay", " ", "123", "45", " €"]),
        ("llama-bpe", "a\n\n b!!\n", ["a", "\n\n", " b", "!!\n"]),
        ("qwen2", "x 123", ["x", " ", "1", "2", "3"]),
        ("gpt-2", "x 123  y", ["x", " 123", " ", " y"]),
        ("smollm", "x 12", ["x", " ", "1", "2"]),
        ("tekken", "fooBar/1", ["foo", "Bar", "/", "1"]),
        ("default", "1234a.b", ["123", "4", "a", ".", "b"]),
    ],
)
def test_pre_tokenizers_cut_as_published(name, text, cuts):
    pytest.importorskip("tokenizers")
    from tokenizers import Regex, pre_tokenizers

    rules = pre_tokenizer(name)
    splits = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rules.patterns]
    )
    assert [text[slice(*span)] for _, span in splits.pre_tokenize_str(text)] == cuts


def test_whole_words_stay_whole_only_where_the_rules_say_so():
    pytest.importorskip("tokenizers")
    texts = ["a", "b", "c", "ab", "bc", "abc"]
    merges = ["b c", "a b", "ab c"]
    assert byte_level_encoder(texts, merges, pre_tokenizer("gpt-2"))("abc") == [0, 4]
    assert byte_level_encoder(texts, merges, pre_tokenizer("llama3"))("abc") == [5]


def test_a_file_without_a_pre_tokenizer_needs_to_be_told(byte_level):
    old = {key: value for key, value in BPE.items() if key != "tokenizer.ggml.pre"}
    with pytest.raises(UnknownFormatError, match=r"lack 'tokenizer\.ggml\.pre'.*tell it"):
        read_tokenizer(old)
    assert read_tokenizer(old, pre="gpt-2").encode("the in") == byte_level.encode("the in")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"tokenizer.ggml.model": "t5"}, UnknownFormatError, "the tokenizer 't5'"),
        ({"tokenizer.ggml.model": None}, MissingKeyError, "lack 'tokenizer.ggml.model'"),
        ({"tokenizer.ggml.tokens": None}, MissingKeyError, "lack 'tokenizer.ggml.tokens'"),
        ({"tokenizer.ggml.scores": [0.0]}, CorruptFileError, "scores has 1 entries for"),
        ({"tokenizer.ggml.bos_token_id": 10**6}, CorruptFileError, "bos_token_id is 1000000"),
        (
            {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "klingon"},
            UnknownFormatError,
            "the pre-tokenizer 'klingon'",
        ),
        (
            {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.merges": ["zz"]},
            CorruptFileError,
            "without the space",
        ),
        (
            {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.merges": ["q z"]},
            CorruptFileError,
            "do not fit",
        ),
    ],
)
def test_what_is_no_tokenizer_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        read_tokenizer({key: value for key, value in {**METADATA, **changes}.items() if value is not None})


def test_tokens_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="no token 999"):
        TOKENIZER.decode([999])
    bare = {key: value for key, value in BPE.items() if "eos" not in key}
    pytest.importorskip("tokenizers")
    with pytest.raises(ValueError, match="no token for end"):
        read_tokenizer(bare).encode("a", end=True)
