"""A whole model in a GGUF file by llama.cpp, through the C interface that llama-cpp-python wraps."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.bench.peers.torch_net import PeerError


class LlamaCppModel:
    """Greedy generation, token by token.

    Args:
      path: .gguf file, with a tokenizer.
      threads: of every token.
      context: tokens that it remembers.

    Raises:
      ModuleNotFoundError: llama-cpp-python is not installed.
      PeerError: it cannot run here, or takes no such file.
    """

    def __init__(self, path: Path, *, threads: int, context: int = 256) -> None:
        import llama_cpp

        self._library, self._model, self._context = llama_cpp, None, None
        if not _runs(str(path), True) and not _runs(str(path), False):
            raise PeerError("llama.cpp was built for other instructions than this CPU has")
        self.repacks = _runs(str(path), True)
        self._log = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._log, ctypes.c_void_p(0))
        self._model = _model(str(path), self.repacks)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_batch = context, 32
        options.n_threads = options.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        if not self._context:
            raise PeerError("llama.cpp takes no such file")
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._size = llama_cpp.llama_vocab_n_tokens(vocabulary)

    def __call__(self, first: int, count: int) -> np.ndarray:
        """The ``count`` most probable tokens (count,), one after the other, after a first one."""
        library, found, token = self._library, [], first
        library.llama_memory_clear(library.llama_get_memory(self._context), True)
        for _ in range(count):
            batch = library.llama_batch_get_one((library.llama_token * 1)(token), 1)
            if library.llama_decode(self._context, batch):
                raise PeerError("llama.cpp could not decode a token")
            logits = library.llama_get_logits(self._context)
            token = int(np.ctypeslib.as_array(logits, (self._size,)).argmax())
            found.append(token)
        return np.asarray(found)

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.llama_free(self._context)
        if getattr(self, "_model", None):
            self._library.llama_model_free(self._model)


def _model(path: str, repacks: bool) -> Any:
    import llama_cpp

    options = llama_cpp.llama_model_default_params()
    options.use_extra_bufts = repacks
    model = llama_cpp.llama_model_load_from_file(path.encode(), options)
    if not model:
        raise PeerError("llama.cpp takes no such file")
    return model


@cache
def _runs(path: str, repacks: bool) -> bool:
    """Whether a token can be decoded: tried in another process, which an unknown instruction would end.

    Repacked weights may be multiplied by instructions (AMX) that a virtual machine names and does not have.
    """
    program = f"from {__name__} import _try; _try({path!r}, {repacks})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    return done.returncode == 0


def _try(path: str, repacks: bool) -> None:
    import llama_cpp

    options = llama_cpp.llama_context_default_params()
    options.n_ctx = 64
    context = llama_cpp.llama_init_from_model(_model(path, repacks), options)
    token = (llama_cpp.llama_token * 1)(1)
    sys.exit(llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(token, 1)))
