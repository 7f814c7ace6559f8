"""A small HTTP server that answers many prompts at once: one compiled step serves all of them.

Without arguments it asks itself two things and ends; "8000 MODEL.gguf" serves on that port. From a shell:
curl -d '{"prompt": "Return the ", "max_new_tokens": 20}' http://127.0.0.1:8000
Each step takes one token of every row: the next one of its prompt, or the one just chosen. A row that has
its answer is given to the next prompt in the line at once, so short answers do not wait for long ones.
"""

import contextlib
import json
import queue
import sys
import threading
import urllib.request
from concurrent.futures import Future, InvalidStateError
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import jax
import numpy as np

import sparsejax as sj
from sparsejax.models.sparse_inference.llama_state import initial_state
from sparsejax.models.sparse_inference.tokenizer import read_tokenizer

ROWS, POSITIONS, WAITING, MOST_BYTES, PATIENCE = 16, 256, 256, 1 << 16, 120.0


class Batcher:
    """A thread that runs the step as long as any row has work; `submit` is for all other threads."""

    def __init__(self, path: str):
        self.ck = sj.load(path)
        self.tokenizer = read_tokenizer(self.ck.metadata)
        self.positions = min(POSITIONS, self.ck.config.context_length)
        self.line = queue.Queue(WAITING)
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, prompt: str, count: int) -> Future:
        """The promise of an answer; ValueError says what is wrong with a prompt."""
        ids = self.tokenizer.encode(prompt)
        if not 0 < len(ids) <= self.positions - count:
            raise ValueError(f"{len(ids)} tokens and {count} new ones: 1 and up to {self.positions} fit")
        self.line.put_nowait(job := SimpleNamespace(unread=ids[::-1], count=count, answer=[], done=Future()))
        return job.done

    @partial(jax.jit, static_argnums=0, donate_argnums=2)
    def step(self, params, state, tokens, fresh, counts):
        """The state after a token of each row, and the most probable ones that follow."""
        state = state.replace(lengths=state.lengths * ~fresh)
        out = self.ck.model.apply({"params": params}, tokens[:, None], state, counts=counts)
        return out.state, out.logits[:, -1].argmax(-1)

    def _work(self):
        jobs, state = [None] * ROWS, initial_state(self.ck.config, ROWS, self.positions)
        while True:
            tokens, fresh, counts = np.zeros(ROWS, np.int32), np.zeros(ROWS, bool), np.zeros(ROWS, np.int32)
            for row in range(ROWS):
                if jobs[row] and jobs[row].done.cancelled():
                    jobs[row] = None  # nobody waits for it any more
                if jobs[row] is None and not (any(jobs) and self.line.empty()):
                    jobs[row], fresh[row] = self.line.get(), True  # waits only while all rows are idle
                if job := jobs[row]:
                    tokens[row], counts[row] = job.unread.pop() if job.unread else job.answer[-1], 1
            state, chosen = self.step(self.ck.params, state, tokens, fresh, counts)
            for row, token in enumerate(np.asarray(chosen).tolist()):
                if (job := jobs[row]) and not job.unread:
                    job.answer.append(token)
                    if len(job.answer) == job.count or token in self.tokenizer.stop_tokens:
                        jobs[row] = None
                        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
                            job.done.set_result(self.tokenizer.decode(job.answer, continues=True))


class Server(BaseHTTPRequestHandler):
    """One POST is one prompt; whatever is wrong with it is told in one line."""

    batcher: Batcher
    timeout = 30  # seconds for a client to send what it announced
    log_message = lambda *_: None  # noqa: E731

    def do_POST(self):
        """Answers one prompt."""
        try:
            asked = self._asked()
            try:
                self._tell(200, {"text": asked.result(PATIENCE)})
            finally:
                asked.cancel()  # of no effect once the answer is there
        except (ValueError, RecursionError) as error:
            self._tell(400, {"error": " ".join(str(error).split())[:300]})
        except (queue.Full, TimeoutError):
            self._tell(503, {"error": "no answer in time: too much is waiting; try again later"})

    def _asked(self) -> Future:
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or len(size) > 9 or int(size) > MOST_BYTES:
            raise ValueError(f"Content-Length must be a number of at most {MOST_BYTES}, not {size[:20]!r}")
        try:
            body = json.loads(self.rfile.read(int(size)))
        except TimeoutError:
            raise ValueError("what Content-Length announced did not come in time") from None
        prompt, count = (body.get("prompt"), body.get("max_new_tokens", 20)) if type(body) is dict else (0, 0)
        if type(prompt) is not str or type(count) is not int or count < 1:
            raise ValueError('send {"prompt": text, "max_new_tokens": a whole number of at least 1}')
        return self.batcher.submit(prompt, count)

    def _tell(self, status: int, content: dict):
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serving(path: str, port: int = 0) -> ThreadingHTTPServer:
    """A server on a port of this machine, 0 for a free one; `serve_forever` starts it."""
    ThreadingHTTPServer.request_queue_size = WAITING
    return ThreadingHTTPServer(("127.0.0.1", port), type("Served", (Server,), {"batcher": Batcher(path)}))


if __name__ == "__main__":
    port, path = [*sys.argv[1:], *("0", "checkpoints/llama_swiglu.gguf")[len(sys.argv) - 1 :]]
    server = serving(path, int(port))
    print(f"http://127.0.0.1:{server.server_port} answers with {path}")
    threading.Thread(target=server.serve_forever, daemon=not sys.argv[1:]).start()
    for prompt in () if sys.argv[1:] else ("Return the ", "The value of "):
        body = json.dumps({"prompt": prompt}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}", body) as answer:
            print(prompt + json.load(answer)["text"])
