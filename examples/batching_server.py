"""A small HTTP server that answers many prompts at once: one compiled step serves all of them.

Without arguments it asks itself two things and ends; "8000 MODEL.gguf" serves on that port. From a shell:
curl -d '{"prompt": "Return the ", "max_new_tokens": 20}' http://127.0.0.1:8000
"""

import json
import queue
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import sparsejax as sj
from sparsejax.models.sparse_inference.llama.batching import Batcher

WAITING, MOST_BYTES, PATIENCE = 256, 1 << 16, 120.0


class Handler(BaseHTTPRequestHandler):
    """One POST is one prompt; whatever is wrong with it is told in one line."""

    batcher: Batcher
    timeout = 30  # seconds for a client to send what it announced
    log_message = lambda *_: None  # noqa: E731

    def do_POST(self):
        """Answers one prompt."""
        status, content = self._answer()
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> tuple[int, dict]:
        try:
            prompt, count = self._read()
            promise = self.batcher.submit(prompt, count, patience=PATIENCE)
        except TimeoutError:
            return 408, {"error": "what Content-Length announced did not come in time"}
        except queue.Full:
            return 503, {"error": "too many prompts wait: try again later"}
        except (ValueError, RecursionError) as error:
            return 400, {"error": " ".join(str(error).split())[:300]}
        try:
            return 200, {"text": promise.result(2 * PATIENCE)}
        except TimeoutError:
            return 503, {"error": "no answer in time: try again later"}
        except Exception as error:
            return 500, {"error": " ".join(str(error).split())[:300]}

    def _read(self) -> tuple[str, int]:
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or len(size) > 9 or int(size) > MOST_BYTES:
            raise ValueError(f"Content-Length must be a number of at most {MOST_BYTES}, not {size[:20]!r}")
        body = json.loads(self.rfile.read(int(size)))
        prompt, count = (body.get("prompt"), body.get("max_new_tokens", 20)) if type(body) is dict else (0, 0)
        if type(prompt) is not str or type(count) is not int or count < 1:
            raise ValueError('send {"prompt": text, "max_new_tokens": a whole number of at least 1}')
        return prompt, count


def serving(path: str, port: int = 0) -> ThreadingHTTPServer:
    """A server on a port of this machine, 0 for a free one; `serve_forever` starts it."""
    ThreadingHTTPServer.request_queue_size = WAITING
    batcher = Batcher(sj.load(path), waiting=WAITING)
    return ThreadingHTTPServer(("127.0.0.1", port), type("Served", (Handler,), {"batcher": batcher}))


if __name__ == "__main__":
    port, path = [*sys.argv[1:], *("0", "checkpoints/llama_swiglu.gguf")[len(sys.argv) - 1 :]]
    server = serving(path, int(port))
    print(f"http://127.0.0.1:{server.server_port} answers with {path}")
    threading.Thread(target=server.serve_forever, daemon=not sys.argv[1:]).start()
    for prompt in () if sys.argv[1:] else ("Return the ", "The value of "):
        body = json.dumps({"prompt": prompt}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}", body) as answer:
            print(prompt + json.load(answer)["text"])
