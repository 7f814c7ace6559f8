"""Import: `sparsejax.load` beside NumPy's reading of the same bytes, and what `import sparsejax` costs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.bench.machine import Machine
from sparsejax.bench.pinned import tell
from sparsejax.bench.report import Row, Target
from sparsejax.bench.timing import race

_GIB, _QUICK_BYTES = 1 << 30, 64 << 20
_IMPORT_PROGRAM = """
import time
start = time.perf_counter()
import jax
jax_done = time.perf_counter()
import sparsejax
print(jax_done - start, time.perf_counter() - jax_done)
"""


def measure(*, quick: bool, threads: int) -> list[Row]:
    """One row per layout of a large state dict, and one for the package's own import.

    Args:
      quick: 64 MiB instead of 1 GiB, fewer repetitions.
      threads: cores that the caller has bound this process to.
    """
    machine, nbytes = Machine.describe(threads), _QUICK_BYTES if quick else _GIB
    rows = []
    for layout, state_dict in (("sparse", sparse_state_dict), ("dense", dense_state_dict)):
        rows.append(load_row(layout, state_dict(nbytes), machine, quick=quick))
        tell(rows[-1])
    rows.append(import_row(machine, quick=quick))
    tell(rows[-1])
    return rows


def sparse_state_dict(nbytes: int) -> dict[str, np.ndarray]:
    """A sparse net of about so many bytes: two thirds are int64 indices, which are narrowed to int32."""
    slots, inputs = 64, 256
    neurons = nbytes // (slots * 12)
    draws = np.random.default_rng(0)
    return {
        "w1": draws.standard_normal((neurons, slots), np.float32),
        "b1": np.zeros(neurons, np.float32),
        "w2": np.zeros((1, neurons), np.float32),
        "b2": np.zeros(1, np.float32),
        "input_indices": draws.integers(0, inputs, (neurons, slots)),
    }


def dense_state_dict(nbytes: int) -> dict[str, np.ndarray]:
    """A dense net of so many bytes, square: its kernel is stored transposed."""
    size = int((nbytes // 4) ** 0.5)
    return {
        "w1": np.random.default_rng(0).standard_normal((size, size), np.float32),
        "b1": np.zeros(size, np.float32),
        "w2": np.zeros((1, size), np.float32),
        "b2": np.zeros(1, np.float32),
    }


def load_row(layout: str, state_dict: dict[str, np.ndarray], machine: Machine, *, quick: bool) -> Row:
    """GB/s of the file's bytes, from the page cache into arrays, `sparsejax.load` beside `np.fromfile`."""
    import jax

    from sparsejax.checkpoint import torch_file
    from sparsejax.checkpoint.load import load

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        torch_file.write(state_dict, path)
        size = path.stat().st_size
        largest = max(state_dict, key=lambda key: state_dict[key].nbytes)
        loaded = jax.tree.leaves(load(path).params)
        held = sum(leaf.nbytes for leaf in loaded)
        error = _largest_error(layout, state_dict, load(path).params)
        del loaded
        times = race(
            {
                "ours": lambda: jax.block_until_ready(load(path).params),
                "np.fromfile": lambda: np.fromfile(path, np.uint8),
                "np.fromfile + isfinite": lambda: _read_and_check(path),
            },
            repetitions=3 if quick else 9,
            repetition_seconds=1e-3,
            time_limit=20 if quick else 90,
        )
    rates = {name: size / timing.median / 1e9 for name, timing in times.items()}
    change = {"sparse": "indices narrowed to int32", "dense": "kernel transposed"}[layout]
    return Row(
        case=f"sj.load of {size / 2**20:,.0f} MiB with {machine.threads} threads, {layout} layout ({change})",
        unit="GB/s",
        ours=rates.pop("ours"),
        peers=rates,
        quality={"largest error": error},
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=(Target("np.fromfile", at_least=0.7),),
        bound=(
            f"reads {size / 1e9:.2f} GB, writes {held / 1e9:.2f} GB, checks every value of {largest!r} and "
            "the checksums of the file; np.fromfile only copies"
        ),
        spread={name: round(timing.spread, 3) for name, timing in times.items()},
        best={name: size / timing.best / 1e9 for name, timing in times.items()},
        first_call={name: timing.first_call for name, timing in times.items()},
        notes=("Files are read from the operating system's page cache.",),
    )


def import_row(machine: Machine, *, quick: bool) -> Row:
    """Seconds that `import sparsejax` takes in a process that has imported jax."""
    alone, added = [], []
    for _ in range(3 if quick else 9):
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT_PROGRAM], check=True, capture_output=True, text=True
        )
        jax_seconds, own_seconds = map(float, done.stdout.split())
        alone.append(jax_seconds)
        added.append(own_seconds)
    return Row(
        case="import sparsejax, added to import jax",
        unit="s",
        ours=statistics.median(added),
        peers={},
        quality={"import jax alone": f"{statistics.median(alone):.2f} s"},
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=(Target(at_most=0.5),),
        bound="reading Python modules",
        best={"ours": min(added)},
    )


def _largest_error(layout: str, state_dict: dict[str, np.ndarray], params: Any) -> float:
    first = params["layer_0"]
    kernel = np.asarray(first["weights"]) if layout == "sparse" else np.asarray(first["kernel"]).T
    return float(
        max(np.abs(a - b).max() for a, b in zip(_blocks(kernel), _blocks(state_dict["w1"]), strict=True))
    )


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    return (array[start : start + 4096] for start in range(0, len(array), 4096))


def _read_and_check(path: Path) -> bool:
    values = np.fromfile(path, np.float32, count=path.stat().st_size // 4)
    return bool(np.isfinite(values).all())
