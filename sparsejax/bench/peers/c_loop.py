"""Nanoseconds per call of an exported net inside a compiled loop: in C, and as the published numba loop.

Both call the net with one row of all features at a time, going round a few rows that stay in the cache,
and add up the outputs, so that no call can be left out or moved out of the loop.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.bench.peers.weights import SparseWeights

FAST = ("-O3", "-march=native")
"""All that keeps the meaning, for this very machine; numba may reorder sums, too (fastmath)."""
PLAIN = ("-O2",)
CALLS = 1_000_000

_DRIVER = """
#include "{header}"

float loop(const float *rows, int num_rows, long calls)
{{
    float sum = 0.0f, outputs[{upper}_OUTPUTS];
    int row = 0;
    for (long call = 0; call < calls; ++call) {{
        {name}_predict_full(rows + (long)row * {upper}_FEATURES, outputs);
        sum += outputs[0];
        row = row + 1 < num_rows ? row + 1 : 0;
    }}
    return sum;
}}

void predict_rows(const float *rows, int num_rows, float *outputs)
{{
    for (int row = 0; row < num_rows; ++row)
        {name}_predict_full(rows + (long)row * {upper}_FEATURES, outputs + (long)row * {upper}_OUTPUTS);
}}
"""


def compiled_header(header: Path, flags: tuple[str, ...] = FAST) -> ctypes.CDLL:
    """A header of `export_c` (its names start with the file's stem) as a loaded shared library.

    Raises:
      FileNotFoundError: there is no C compiler ``cc``.
      subprocess.CalledProcessError: it refuses the header.
    """
    if shutil.which("cc") is None:
        raise FileNotFoundError("there is no C compiler: install one that is called cc")
    header = header.resolve()
    source = _DRIVER.format(header=header, name=header.stem, upper=header.stem.upper())
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "net.so"
        command = ["cc", *flags, "-shared", "-fPIC", "-x", "c", "-", "-lm", "-o", str(library)]
        subprocess.run(command, input=source, check=True, capture_output=True, text=True)
        loaded = ctypes.CDLL(str(library))
    loaded.loop.restype = ctypes.c_float
    loaded.loop.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long]
    loaded.predict_rows.restype = None
    loaded.predict_rows.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    return loaded


def c_outputs(library: ctypes.CDLL, rows: np.ndarray, outputs: int = 1) -> np.ndarray:
    """Outputs (b, o) of a compiled header for rows (b, i) of all features."""
    rows = np.ascontiguousarray(rows, np.float32)
    found = np.empty((len(rows), outputs), np.float32)
    library.predict_rows(rows.ctypes.data, len(rows), found.ctypes.data)
    return found


def c_nanoseconds(library: ctypes.CDLL, rows: np.ndarray, calls: int = CALLS) -> float:
    """Nanoseconds per call of a compiled header in one loop over rows (b, i)."""
    rows = np.ascontiguousarray(rows, np.float32)
    return _nanoseconds(lambda: library.loop(rows.ctypes.data, len(rows), calls), calls)


def numba_nanoseconds(net: SparseWeights, rows: np.ndarray, calls: int = CALLS) -> float:
    """The same of the numba net (one output), without the output array that its batch form allocates.

    Raises:
      ModuleNotFoundError: numba is not installed.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    loop = _numba_loop()
    arrays = (net.indices, net.w1, net.b1, net.w2[0].copy(), net.b2[0])
    loop(rows, 1, *arrays)
    return _nanoseconds(lambda: loop(rows, calls, *arrays), calls)


def _nanoseconds(run: Callable[[], float], calls: int) -> float:
    start = time.perf_counter_ns()
    total = run()
    taken = time.perf_counter_ns() - start
    if not np.isfinite(total):
        raise ValueError("the sum of the outputs is not finite: the rows do not fit the net")
    return taken / calls


@lru_cache(maxsize=1)
def _numba_loop() -> Any:
    import numba

    @numba.njit(fastmath=True)
    def loop(rows, calls, indices, w1, b1, w2, b2):  # noqa: PLR0917 numba takes arrays
        added, row = np.float32(0), 0
        for _ in range(calls):
            total = b2
            for h in range(indices.shape[0]):
                before = b1[h]
                for k in range(indices.shape[1]):
                    before += rows[row, indices[h, k]] * w1[h, k]
                total += np.tanh(before) * w2[h]
            added += np.tanh(total)
            row = row + 1 if row + 1 < rows.shape[0] else 0
        return added

    return loop
