"""Runs a benchmark in a child process in which every library has the same number of threads.

XLA, OpenBLAS, OpenMP and numba each size a pool when they start and never change it. So the limits go
into the environment of a fresh process, which binds itself to as many cores before it imports what is
measured: what no variable reaches shares those cores with everyone else.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsejax.bench.awake import awake
from sparsejax.bench.report import Row, read_rows, write_rows
from sparsejax.checkpoint.errors import CheckpointError
from sparsejax.checkpoint.native import durable

# OpenBLAS's threads spin for 2 ** 28 cycles after a call, a tenth of a second, on the cores of whoever is
# timed next: with 2 ** 22, 2 ms, NumPy takes as long as before, and XLA and torch up to half less.
_SPINNING = {"OPENBLAS_THREAD_TIMEOUT": "22"}
_WIDE = "--xla_cpu_prefer_vector_width=512"
_SETTINGS = (
    "Settings of every contestant's process: XLA may use vectors of 512 bits, as others do by themselves "
    f"(XLA_FLAGS={_WIDE}), and OpenBLAS's threads stop spinning 2 ms after a call."
)
_INLINE = (
    "JAX computes in the calling thread, as torch and NumPy do (JAX_CPU_ENABLE_ASYNC_DISPATCH=false): "
    "handing a call of 200 us to another thread takes 60. A process of idle priority keeps each core awake: "
    "waking one of a virtual machine takes up to 100 us, which hits libraries whose threads do not spin."
)
_TOLD = 3
"""Exit code of a child that has written why it failed where its rows would be."""

_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC")


class ProcessFailure(RuntimeError):
    """A benchmark's process ended without rows; told in one line."""


def allowed_cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores(threads: int) -> list[int]:
    """The cores that a run with so many threads is bound to: the last ones allowed.

    Raises:
      ValueError: fewer cores than threads, or less than one thread.
    """
    allowed = allowed_cores()
    if not 1 <= threads <= len(allowed):
        raise ValueError(f"{threads} threads on {len(allowed)} cores would not run side by side")
    return allowed[-threads:]


def tell(row: Row) -> None:
    """One line of progress on standard error."""
    print(f"{row.case}: {row.ours:.4g} {row.unit}", file=sys.stderr, flush=True)


def run_pinned(
    module: str,
    options: Mapping[str, Any],
    threads: int = 1,
    *,
    platforms: str | None = "cpu",
    inline: bool = False,
) -> list[Row]:
    """Rows of ``module.measure(threads=threads, **options)``, run in a child bound to ``threads`` cores.

    Args:
      module: importable name.
      options: keyword arguments of its ``measure``, as JSON can carry them.
      threads: for every contestant; none, the caller included, has more.
      platforms: that jax may use; None for what it finds, whose memory it then takes as it needs it.
      inline: for calls of microseconds, each of which is waited for: JAX computes in the calling thread, as
        torch and NumPy do, instead of handing each call to another one, and no core sleeps (`awake`).

    Returns:
      the rows. The child's progress goes to this process's standard error.

    Raises:
      ProcessFailure: the child failed.
      ModuleNotFoundError: it lacked a library.
    """
    environment = {**os.environ, **dict.fromkeys(_POOLS, str(threads)), **_SPINNING}
    environment |= (
        {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if platforms is None else {"JAX_PLATFORMS": platforms}
    )
    environment["XLA_FLAGS"] = f"{_WIDE} {environment.get('XLA_FLAGS', '')}".strip()
    if inline:
        environment["JAX_CPU_ENABLE_ASYNC_DISPATCH"] = "false"
    # A compilation cache would report the time of a file read as compile time.
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    request = {
        "module": module,
        "cores": cores(threads),
        "awake": inline,
        "threads": threads,
        "options": dict(options),
    }
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        command = [sys.executable, "-m", __name__, json.dumps(request), str(rows)]
        done = subprocess.run(command, env=environment, check=False)
        if done.returncode == _TOLD:
            raise _failure(json.loads(rows.read_text()))
        if done.returncode:
            raise ProcessFailure(
                f"the benchmark process of {module} ended with code {done.returncode}; its words are above"
            )
        notes = [] if platforms is None else [_SETTINGS, _INLINE] if inline else [_SETTINGS]
        return [replace(row, notes=[*row.notes, *notes]) for row in read_rows(rows)]


def _failure(told: Mapping[str, Any]) -> Exception:
    words, library = told["words"], told["library"]
    return ProcessFailure(words) if library is None else ModuleNotFoundError(words, name=library)


def main() -> None:
    """The child: bind, import, measure, write; what files and this machine lack is told, not traced."""
    request = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["cores"])
    try:
        measure = importlib.import_module(request["module"]).measure
        with awake(request["cores"] if request["awake"] else ()):
            rows = measure(threads=request["threads"], **request["options"])
    except (CheckpointError, OSError, ModuleNotFoundError) as error:
        told = {"words": f"{request['module']}: {error}", "library": getattr(error, "name", None)}
        durable.replace_json(Path(sys.argv[2]), told)
        sys.exit(_TOLD)
    write_rows(rows, sys.argv[2])


if __name__ == "__main__":
    main()
