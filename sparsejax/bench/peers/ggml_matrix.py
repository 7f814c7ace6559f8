"""A quantised matrix times a vector by ggml, the library under llama.cpp, through its C interface."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

_FLOAT32 = 0
_OVERHEAD = 1 << 20  # bytes of a context beside the data of its tensors
_WORK = 16 << 20  # bytes that a product may work in


class _Parameters(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class GgmlMatrix:
    """Weights (f, d) in a format of ggml, as llama.cpp multiplies them with one token.

    Args:
      raw: bytes of all rows.
      type_id: of the format.
      shape: (f, d).
      threads: of the product.

    Raises:
      ModuleNotFoundError: llama-cpp-python, which brings ggml, is not installed.
    """

    def __init__(self, raw: np.ndarray, type_id: int, shape: tuple[int, int], *, threads: int) -> None:
        self._library, self._threads = _library(), threads
        rows, columns = shape
        size = raw.nbytes + 64 * (rows + columns) + _OVERHEAD
        self._context = self._library.ggml_init(_Parameters(size, None, False))
        self._work = self._library.ggml_init(_Parameters(_WORK, None, False))
        weights = self._tensor(type_id, columns, rows)
        self._inputs = self._tensor(_FLOAT32, columns, 1)
        product = self._library.ggml_mul_mat(self._context, weights, self._inputs)
        self._graph = self._library.ggml_new_graph(self._context)
        self._library.ggml_build_forward_expand(self._graph, product)
        self._write(weights, raw)
        place = self._library.ggml_get_data(product)
        self._outputs = np.ctypeslib.as_array((ctypes.c_float * rows).from_address(place))

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs (f,) of inputs (d,); overwritten by the next call."""
        self._write(self._inputs, np.ascontiguousarray(inputs, np.float32))
        self._library.ggml_graph_compute_with_ctx(self._work, self._graph, self._threads)
        self._library.ggml_reset(self._work)
        return self._outputs

    def __del__(self) -> None:
        for name in ("_context", "_work"):
            if getattr(self, name, None):
                self._library.ggml_free(getattr(self, name))

    def _tensor(self, type_id: int, *dims: int) -> Any:
        return self._library.ggml_new_tensor_2d(self._context, type_id, *dims)

    def _write(self, tensor: Any, values: np.ndarray) -> None:
        ctypes.memmove(self._library.ggml_get_data(tensor), values.ctypes.data, values.nbytes)


def _library() -> Any:
    """The shared library that has both ggml's graphs and its CPU kernels."""
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'llama_cpp'", name="llama_cpp")
    folder = Path(found.origin).parent / "lib"
    for name in ("libggml-base.so", "libggml-cpu.so"):
        library = ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "ggml_init": (pointer, [_Parameters]),
        "ggml_free": (None, [pointer]),
        "ggml_reset": (None, [pointer]),
        "ggml_new_tensor_2d": (pointer, [pointer, ctypes.c_int, integer, integer]),
        "ggml_mul_mat": (pointer, [pointer, pointer, pointer]),
        "ggml_new_graph": (pointer, [pointer]),
        "ggml_build_forward_expand": (None, [pointer, pointer]),
        "ggml_get_data": (pointer, [pointer]),
        "ggml_graph_compute_with_ctx": (ctypes.c_int, [pointer, pointer, ctypes.c_int]),
        "ggml_cpu_init": (None, []),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.ggml_cpu_init()
    return library
