"""Continuous batching: prompts share one compiled step, and a finished row takes the next one at once."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from sparsejax.models.sparse_inference.llama.source import model_and_params, tokenizer_of
from sparsejax.models.sparse_inference.llama.state import LlamaState, initial_state


@dataclass
class _Job:
    unread: list[int]  # of the prompt, the next one last
    count: int
    until: float
    answer: list[int] = field(default_factory=list)
    promise: Future[str] = field(default_factory=Future)


class Batcher:
    """Answers prompts of many threads, the most probable token at each step.

    One thread runs the step as long as a row has work. Each step takes one token of every row: the next one
    of its prompt, or the one just chosen. A row that has its answer is given to the next prompt in the line,
    so short answers do not wait for long ones. What a prompt gets does not depend on its neighbours.

    Attributes:
      positions: tokens of a prompt and its answer together, at most.

    Example:
      >>> import sparsejax as sj
      >>> with Batcher(sj.load("checkpoints/llama_swiglu.gguf"), rows=2, positions=32) as batcher:
      ...     promises = [batcher.submit(prompt, 3) for prompt in ("Return the ", "If ", "The ")]
      ...     answers = [promise.result() for promise in promises]
      >>> [type(answer) for answer in answers]
      [<class 'str'>, <class 'str'>, <class 'str'>]
    """

    def __init__(self, source: Any, *, rows: int = 16, positions: int = 256, waiting: int = 256):
        """Start the thread.

        Args:
          source: a checkpoint of a Llama with its tokenizer, as `sparsejax.load` gives it.
          rows: prompts that are answered at a time.
          positions: tokens of a prompt and its answer together, at most; no more than the model's.
          waiting: prompts that wait for a row, at most.

        Raises:
          ValueError: a number is below 1, or the file has no tokenizer.
        """
        if min(rows, positions, waiting) < 1:
            raise ValueError(
                f"rows, positions and waiting are at least 1, not {rows}, {positions}, {waiting}"
            )
        self._model, self._params = model_and_params(source)
        tokenizer = tokenizer_of(source)
        if tokenizer is None:
            raise ValueError("the file has no tokenizer: a batcher takes and gives text")
        self._tokenizer = tokenizer
        self.positions = min(positions, self._model.config.context_length)
        self._rows = rows
        self._line: queue.Queue[_Job | None] = queue.Queue(waiting)
        self._closed, self._door = False, threading.Lock()
        self._step = jax.jit(self._next, donate_argnums=1)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, prompt: str, max_new_tokens: int, *, patience: float = 120.0) -> Future[str]:
        """Put a prompt into the line.

        Args:
          prompt: text.
          max_new_tokens: at most; a stop token ends the answer earlier.
          patience: seconds after which a prompt that still waits for a row is dropped.

        Returns:
          the promise of the answer's text; it raises TimeoutError for a prompt that was dropped.

        Raises:
          ValueError: the prompt is empty, or it and the answer do not fit.
          queue.Full: too many wait.
          RuntimeError: the batcher is closed.
        """
        ids = self._tokenizer.encode(prompt)
        if max_new_tokens < 1 or not 0 < len(ids) <= self.positions - max_new_tokens:
            raise ValueError(
                f"{len(ids)} tokens and {max_new_tokens} new ones: from 1 of each up to {self.positions} "
                "together fit"
            )
        job = _Job(ids[::-1], max_new_tokens, time.monotonic() + patience)
        with self._door:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._line.put_nowait(job)
        return job.promise

    def close(self) -> None:
        """End the thread after the prompts in the rows and in the line; later ones are refused."""
        with self._door:
            first, self._closed = not self._closed, True
        if first:
            self._line.put(None)
        self._thread.join()

    def _next(
        self, params: Any, state: LlamaState, tokens: jax.Array, fresh: jax.Array, counts: jax.Array
    ) -> tuple[LlamaState, jax.Array]:
        """The state after a token of each row, and the most probable ones that follow."""
        state = LlamaState(state.keys, state.values, state.lengths * ~fresh)
        out: Any = self._model.apply({"params": params}, tokens[:, None], state, counts=counts)
        return out.state, out.logits[:, -1].argmax(-1)

    def _work(self) -> None:
        while True:
            jobs: list[_Job | None] = [None] * self._rows
            fresh = self._fill(
                jobs
            )  # before there is a state, so that somebody is told if there cannot be one
            try:
                state = initial_state(self._model.config, self._rows, self.positions)
                while any(jobs):
                    state = self._advance(jobs, state, fresh)
                    fresh = self._fill(jobs)
                return
            except Exception as error:  # told to all who are in a row; the next ones get a new state
                for job in filter(None, jobs):
                    job.promise.set_exception(RuntimeError(f"the step failed: {error}"))

    def _advance(self, jobs: list[_Job | None], state: LlamaState, fresh: np.ndarray) -> LlamaState:
        """One token of every row."""
        tokens, counts = np.zeros(self._rows, np.int32), np.zeros(self._rows, np.int32)
        for row, job in enumerate(jobs):
            if job is not None:
                tokens[row], counts[row] = job.unread.pop() if job.unread else job.answer[-1], 1
        state, chosen = self._step(self._params, state, tokens, fresh, counts)
        for row, token in enumerate(np.asarray(chosen).tolist()):
            job = jobs[row]
            if job is not None and not job.unread:
                job.answer.append(token)
                if len(job.answer) == job.count or token in self._tokenizer.stop_tokens:
                    job.promise.set_result(self._tokenizer.decode(job.answer, continues=True))
                    jobs[row] = None
        return state

    def _fill(self, jobs: list[_Job | None]) -> np.ndarray:
        """Give idle rows what waits in the line, which is waited for only while all rows are idle.

        All are idle afterwards only if the batcher is closed and everything answered.
        """
        fresh = np.zeros(self._rows, bool)
        for row in range(self._rows):
            while jobs[row] is None and not (any(jobs) and self._line.empty()):
                job = self._line.get()
                if job is None:
                    self._line.put(None)  # the end stays the last of the line
                    return fresh
                jobs[row], fresh[row] = self._unless_late(job), True
        return fresh

    @staticmethod
    def _unless_late(job: _Job) -> _Job | None:
        if not job.promise.set_running_or_notify_cancel():
            return None
        if time.monotonic() <= job.until:
            return job
        job.promise.set_exception(TimeoutError("no row was free in time: too many prompts wait"))
        return None
