"""The batcher apart from its server: the line, its end, and what goes wrong."""

from __future__ import annotations

import queue
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

import sparsejax as sj
from sparsejax.models.sparse_inference.llama.batching import Batcher
from sparsejax.models.sparse_inference.llama.generation import generate

pytest.importorskip("tokenizers")

MODEL = Path(__file__).resolve().parents[4] / "checkpoints" / "llama_swiglu.gguf"


@pytest.fixture(scope="module")
def ck():
    return sj.load(MODEL)


def test_what_waits_is_answered_before_the_end_and_later_ones_are_refused(ck):
    prompts = ["Return the ", "If the ", "The value of ", "x = ", "a"]
    batcher = Batcher(ck, rows=2, positions=64)
    promises = [batcher.submit(prompt, count) for count, prompt in enumerate(prompts, start=1)]
    batcher.close()
    for count, (prompt, promise) in enumerate(zip(prompts, promises, strict=True), start=1):
        alone = generate(ck, prompt, max_new_tokens=count, temperature=0)
        assert promise.result(0) == alone.texts[0]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit("a", 1)
    batcher.close()  # once more does no harm


def test_late_and_cancelled_prompts_are_dropped_from_the_line(ck):
    with Batcher(ck, rows=1, positions=64) as batcher:
        first = batcher.submit("Return the ", 30)
        late = batcher.submit("a", 1, patience=0)
        cancelled = batcher.submit("a", 1)
        assert cancelled.cancel()
        assert isinstance(first.result(), str)
        with pytest.raises(TimeoutError, match="no row was free in time"):
            late.result()
        with pytest.raises(CancelledError):
            cancelled.result()
        assert isinstance(batcher.submit("a", 1).result(), str)


def test_a_step_that_fails_is_told_to_those_in_it_and_the_next_prompt_is_answered(ck, monkeypatch):
    with Batcher(ck, rows=2, positions=64) as batcher:
        step = batcher._step

        def failing(*_):
            batcher._step = step
            raise MemoryError("no room")

        batcher._step = failing
        with pytest.raises(RuntimeError, match="the step failed: no room"):
            batcher.submit("Return the ", 3).result()
        assert (
            batcher.submit("Return the ", 3).result()
            == generate(ck, "Return the ", max_new_tokens=3, temperature=0).texts[0]
        )


def test_prompts_that_do_not_fit_and_a_full_line_are_refused(ck):
    with Batcher(ck, rows=1, positions=64, waiting=1) as batcher:
        for prompt, count in (("a", 0), ("a", 64), ("a " * 70, 1)):
            with pytest.raises(ValueError, match="up to 64 together fit"):
                batcher.submit(prompt, count)
        with pytest.raises(queue.Full):
            for _ in range(3):
                batcher.submit("Return the ", 60)


def test_bad_numbers_and_a_source_without_tokenizer_are_refused(ck):
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Batcher(ck, rows=0)
    with pytest.raises(ValueError, match="no tokenizer"):
        Batcher((ck.model, ck.params))
