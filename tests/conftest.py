"""Settings of every test run: a persistent compilation cache, no GPU preallocation, honest skips."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# JAX reads these when it is imported, which no line above does.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

if str(ROOT) not in sys.path:  # `from tests import golden` works under a bare `pytest` too
    sys.path.insert(0, str(ROOT))

from hypothesis import settings  # noqa: E402

from tests import golden  # noqa: E402

settings.register_profile("sparsejax", deadline=None)  # the first example of a shape compiles
settings.load_profile("sparsejax")

NO_TORCH = "torch is not installed"


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


def pytest_terminal_summary(terminalreporter) -> None:
    """One line for each reason that the machine, not the test, gave."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = [report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple)]
    without_golden = sum("golden tensors of the originals" in reason for reason in reasons)
    without_torch = sum(NO_TORCH in reason for reason in reasons)
    if without_golden:
        terminalreporter.write_line(
            f"{without_golden} parity tests skipped: no golden tensors of the originals under {golden.ROOT} "
            "(set SPARSEJAX_GOLDEN); the smaller parity set in tests/data ran"
        )
    if without_torch:
        terminalreporter.write_line(
            f"{without_torch} cross-checks skipped: {NO_TORCH} (WITH_TORCH=1 make test)"
        )
