"""Finds the golden tensors that the originals produced; tests that need them skip with one summary line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "golden"
ROOT = Path(os.environ.get("SPARSEJAX_GOLDEN", _DEFAULT))
AVAILABLE = ROOT.is_dir()
needs_golden = pytest.mark.skipif(not AVAILABLE, reason="golden tensors of the originals not found")


def path(family: str, name: str) -> Path:
    return ROOT / family / name


def arrays(family: str, name: str) -> dict[str, np.ndarray]:
    with np.load(path(family, f"{name}.npz"), allow_pickle=False) as file:
        return dict(file)


def manifest(family: str) -> dict[str, dict]:
    """Cases by name; empty where the tensors are absent, so that parametrised tests collect to nothing."""
    if not AVAILABLE:
        return {}
    cases = json.loads((ROOT / family / "MANIFEST.json").read_text())["cases"]
    return cases if isinstance(cases, dict) else {case["name"]: case for case in cases}


def document(family: str, name: str) -> dict:
    return json.loads(path(family, f"{name}.json").read_text())
