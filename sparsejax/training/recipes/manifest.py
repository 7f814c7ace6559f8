"""``manifest.json`` beside shipped checkpoints: what each file is and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsejax.checkpoint import npz_file
from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.native import durable
from sparsejax.shipped import MANIFEST


def described(
    path: Path, ck: Checkpoint, expected: Mapping[str, Any], *, command: str, **more: Any
) -> dict[str, Any]:
    """The entry of a shipped file; what its network gives is written beside it, as ``NAME.expected.npz``.

    Args:
      path: of the file.
      ck: as it was read from there.
      expected: inputs and outputs by name; arrays.
      command: that makes the file again.
      more: what else the entry tells; plain JSON.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "a.pt"
      >>> _ = path.write_bytes(b"a network")
      >>> ck = Checkpoint("ten", "modern", None, {})
      >>> entry = described(path, ck, {"ids": np.arange(3)}, command="make", note="small")
      >>> entry["expected"], entry["sha256"][:8], entry["note"]
      ('a.expected.npz', '2f782bec', 'small')
    """
    beside = path.with_suffix(".expected.npz")
    npz_file.write(dict(expected), beside)
    return {
        "file": path.name,
        "kind": ck.kind,
        "variant": ck.variant,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "command": command,
        "expected": beside.name,
        **more,
    }


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
