"""The batching server under load: every answer is the one that its prompt gets alone, by one program."""

from __future__ import annotations

import http.client
import importlib.util
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import sparsejax as sj
from sparsejax.models.sparse_inference.llama.generation import generate
from tests.compilations import compilations

pytest.importorskip("tokenizers")

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "checkpoints" / "llama_swiglu.gguf"
WORDS = ("Return the ", "The value of ", "If the ", "a", "class Error", "for each of the ", "x = ", "It is ")
PROMPTS = [f"{WORDS[number % len(WORDS)]}{number * 37 % 101}" for number in range(100)]
COUNTS = [1 + number * 7 % 12 for number in range(100)]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("batching_server", ROOT / "examples" / "batching_server.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def port(example):
    with example.serving(str(MODEL)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def post(port, body, method="POST", headers=None):
    """Status and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, "/", body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def asked(port, prompt, count):
    status, text = post(port, json.dumps({"prompt": prompt, "max_new_tokens": count}))
    assert status == 200, text
    return json.loads(text)["text"]


def test_a_hundred_prompts_at_once_are_answered_as_each_alone(port):
    together = threading.Barrier(len(PROMPTS))

    def ask(prompt, count):
        together.wait(30)
        return asked(port, prompt, count)

    with compilations() as counts, ThreadPoolExecutor(len(PROMPTS)) as pool:
        answers = list(pool.map(ask, PROMPTS, COUNTS))
    assert counts["step"] <= 1 and counts.total() <= 8, counts
    with compilations() as counts:
        alone = [asked(port, prompt, count) for prompt, count in zip(PROMPTS[:20], COUNTS, strict=False)]
    assert alone == answers[:20] and not counts
    ck = sj.load(MODEL)
    for prompt, count, answer in list(zip(PROMPTS, COUNTS, answers, strict=True))[::4]:
        expected = generate(ck, prompt, max_new_tokens=count, temperature=0).texts[0]
        assert answer == expected, prompt
    assert len(set(answers)) > 50  # not one answer for all


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("no json", "Expecting value"),
        ("[" * 30_000, "recursion"),
        ("[1]", 'send {"prompt": text'),
        ("{}", 'send {"prompt": text'),
        ('{"prompt": 3}', 'send {"prompt": text'),
        ('{"prompt": "a", "max_new_tokens": 0}', 'send {"prompt": text'),
        ('{"prompt": "a", "max_new_tokens": true}', 'send {"prompt": text'),
        ('{"prompt": "a", "max_new_tokens": 1e3}', 'send {"prompt": text'),
        ('{"prompt": "a", "max_new_tokens": 1000000000000}', "up to 256 together fit"),
        (json.dumps({"prompt": "word " * 500}), "up to 256 together fit"),
        (b'{"prompt": "\xff"}', "codec"),
        ("x" * 70_000, "Content-Length must be a number of at most 65536"),
    ],
    ids=str,
)
def test_bad_requests_get_one_clear_line_and_harm_nobody(port, body, told):
    status, text = post(port, body)
    assert status == 400
    assert text.count("\n") == 1 and text.endswith("\n") and len(text) < 400
    assert told in json.loads(text)["error"]
    assert isinstance(asked(port, "Return the ", 1), str)


def test_other_methods_and_lengths_are_refused(port):
    assert post(port, None, method="GET")[0] == 501
    status, text = post(port, "", headers={"Content-Length": "-1"})
    assert status == 400 and "Content-Length must be" in text
    status, text = post(port, "", headers={"Content-Length": "0" * 20 + "3000014"})
    assert status == 400 and "Content-Length must be" in text
