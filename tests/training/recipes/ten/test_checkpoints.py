"""The shipped language model writes words, not letters."""

from __future__ import annotations

import argparse
import asyncio.streams
import email.message
import inspect
import json
import logging
import pathlib
import re
import subprocess

import sparsejax as sj
from sparsejax.training.recipes.ten.checkpoints import FILE, PROMPT, greedy_text
from tests.conftest import ROOT

MODULES = (argparse, asyncio.streams, email.message, inspect, logging, pathlib, subprocess)


def words(text):
    return re.findall(r"[a-z]{2,}", text.lower())


def test_its_text_is_made_of_words_of_the_documentation():
    written = set(words(" ".join(inspect.getsource(module) for module in MODULES)))
    text = greedy_text(sj.load(ROOT / "checkpoints" / FILE))
    assert text.startswith(PROMPT)
    found = words(text)[:-1]  # the last one may be cut off
    assert len(found) >= 8 and len(set(found)) >= 4
    assert sum(word in written for word in found) >= 0.9 * len(found)


def test_the_manifest_says_how_it_was_made():
    entries = json.loads((ROOT / "checkpoints" / "manifest.json").read_text())["checkpoints"]
    (entry,) = (entry for entry in entries if entry["file"] == FILE)
    assert entry["validation_perplexity_per_byte"] < 4
    assert words(entry["sample"])
