"""Settings of every test run: a persistent compilation cache, no GPU preallocation, honest skips."""

from __future__ import annotations

import gc
import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from tests import checked as checked  # the hook below finds it by its name
from tests import golden

ROOT = Path(__file__).resolve().parents[1]

# Not the decoder of pickles, which runs millions of opcodes under a limit of time, nor what numba compiles.
UNCHECKED = {"torch_format", "peers"}
CHECKED = [
    *(f"sparsejax.{room}" for room in ("ops", "models", "training", "plots", "cli")),
    *(
        f"sparsejax.{room}.{path.stem}"
        for room in ("checkpoint", "bench")
        for path in (ROOT / "sparsejax" / room).iterdir()
        if path.stem not in UNCHECKED
    ),
]

# JAX reads these when it is imported, which no line above does.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

# Before anything imports sparsejax. Commands and workers that a test starts run without the checks.
install_import_hook(CHECKED, "tests.checked.checked")

settings.register_profile("sparsejax", deadline=None)  # the first example of a shape compiles
settings.load_profile("sparsejax")

NO_TORCH = "torch is not installed"

MOST_MAPS = 40_000  # a file may compile 2,500 programs before the next look


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "golden(*cases): cases of a family's MANIFEST.json that the test covers"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run: cross-checks without torch, golden cases without their files."""
    has_torch = importlib.util.find_spec("torch") is not None
    for item in items:
        if not has_torch and item.get_closest_marker("torch"):
            item.add_marker(pytest.mark.skip(reason=NO_TORCH))
        if item.get_closest_marker("golden"):
            item.add_marker(golden.needs_golden)


def pytest_collection_finish() -> None:
    """Thousands of tests and the modules they import stay to the end: no collection has to visit them."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Forget compiled programs between files before they have used up the process's memory maps.

    Each takes about ten of the 65,530 that Linux allows; what is compiled beyond ends in a MemoryError.
    """
    if nextitem is not None and nextitem.path != item.path and _memory_maps() > MOST_MAPS:
        import jax

        jax.clear_caches()


def _memory_maps() -> int:
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:  # not Linux
        return 0


def pytest_terminal_summary(terminalreporter) -> None:
    """Fold the skips whose reason is the machine into one line each of the summary: how many, and why."""
    reasons = {
        golden.needs_golden.kwargs["reason"]: f"no golden tensors of the originals under {golden.ROOT} (set "
        "SPARSEJAX_GOLDEN); the smaller parity set in tests/data ran instead",
        NO_TORCH: f"{NO_TORCH} (WITH_TORCH=1 make test)",
    }
    for report in terminalreporter.stats.get("skipped", []):
        for short, full in reasons.items():
            if isinstance(report.longrepr, tuple) and short in report.longrepr[2]:
                report.longrepr = (str(ROOT / "tests"), None, full)
