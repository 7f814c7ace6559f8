"""The shipped Llamas: words of the documentation, few neurons, files that are complete and small."""

from __future__ import annotations

import inspect
import json
import logging
import pathlib
import re
import subprocess

import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint.gguf import read_gguf
from sparsejax.training.recipes.llama.checkpoints import (
    HELD_OUT,
    NETWORKS,
    PREDICTORS,
    PROMPT,
    SHARE,
    greedy_text,
)
from sparsejax.training.recipes.llama.predictors import read_predictors
from sparsejax.training.recipes.llama.quality import perplexities
from tests.conftest import ROOT

CHECKPOINTS = ROOT / "checkpoints"
NAMES = [shipped.name for shipped in NETWORKS]


def words(text):
    return re.findall(r"[a-z]{2,}", text.lower())


def entry(name):
    entries = json.loads((CHECKPOINTS / "manifest.json").read_text())["checkpoints"]
    return next(entry for entry in entries if entry["file"] == f"{name}.gguf")


@pytest.fixture(scope="module", params=NAMES)
def shipped(request):
    path = CHECKPOINTS / f"{request.param}.gguf"
    ck = sj.load(path)
    return path, ck, list(read_predictors(path.with_suffix(PREDICTORS), ck).each)


def test_a_quarter_of_the_neurons_of_reglu_costs_at_most_three_percent(shipped):
    path, ck, each = shipped
    told = entry(path.stem)["held_out_perplexity"]
    with np.load(path.with_suffix(HELD_OUT)) as arrays:
        rows = list(arrays["tokens"][:16].astype(np.int32))
    found = perplexities(ck, rows, each, (1.0, SHARE))
    rise = told["predictor"]["0.25"] / told["predictor"]["1"]
    assert found[SHARE] / found[1.0] == pytest.approx(rise, rel=0.02)
    assert found[1.0] == pytest.approx(told["predictor"]["1"], rel=0.2)  # of a part of the text
    assert told["oracle"]["0.25"] < told["predictor"]["0.25"] < told["random"]["0.25"]
    if ck.config.activation == "relu":
        assert rise <= 1.03


def test_text_is_made_of_words_also_by_a_quarter_of_the_neurons():
    path = CHECKPOINTS / f"{NAMES[0]}.gguf"
    ck = sj.load(path)
    each = list(read_predictors(path.with_suffix(PREDICTORS), ck).each)
    written = set(words(" ".join(map(inspect.getsource, (inspect, logging, pathlib, subprocess, json)))))
    text = greedy_text(ck, predictors=each, active_fraction=SHARE)
    for sample in (text, *(entry(name)["sample"] for name in NAMES)):
        assert sample.startswith(PROMPT)
        found = words(sample)[:-1]  # the last one may be cut off
        assert len(found) >= 8
        assert sum(word in written for word in found) >= 0.7 * len(found)


def test_files_are_small_and_complete():
    for name in NAMES:
        file = read_gguf(CHECKPOINTS / f"{name}.gguf")
        assert file.metadata["general.name"] == name
        assert {"tokenizer.ggml.tokens", "tokenizer.ggml.scores"} <= file.metadata.keys()
        assert file.tensors["blk.0.ffn_down.weight"].format == "q8_0"
        with_predictors = [CHECKPOINTS / f"{name}.gguf", *(CHECKPOINTS / f"{name}{PREDICTORS}").rglob("*")]
        assert sum(path.stat().st_size for path in with_predictors if path.is_file()) < 2_000_000
