"""``manifest.json`` beside shipped checkpoints: what each file is and how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsejax.checkpoint.native import durable

MANIFEST = "manifest.json"


def record(folder: Path, *entries: Mapping[str, Any]) -> None:
    """Put entries into the manifest, in place of earlier ones of the same files.

    Args:
      folder: of the checkpoints; the manifest is made if there is none.
      entries: each with its ``file``.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> record(folder, {"file": "a.pt"}, {"file": "b.pt"})
      >>> record(folder, {"file": "a.pt", "note": "again"})
      >>> [entry["file"] for entry in json.loads((folder / MANIFEST).read_text())["checkpoints"]]
      ['a.pt', 'b.pt']
    """
    path = folder / MANIFEST
    there = json.loads(path.read_text())["checkpoints"] if path.exists() else []
    merged = {entry["file"]: entry for entry in (*there, *entries)}
    durable.replace_json(path, {"checkpoints": list(merged.values())})
