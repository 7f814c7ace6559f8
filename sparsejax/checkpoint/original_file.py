"""Writes a state dict, and what lies beside it, as a file of any format that is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sparsejax.checkpoint import gguf, json_file, npz_file, torch_file
from sparsejax.checkpoint.container import Layout, pack


def write_original(
    state: Mapping[str, Any],
    metadata: Mapping[str, Any],
    layout: Layout,
    file_format: str,
    path: str | os.PathLike[str],
) -> None:
    """Write a file, whole or not at all.

    Args:
      state: arrays by key, in the file's order; of GGUF files `QuantizedTensor` too.
      metadata: what lies beside them; ``.npz`` files have no place for it.
      layout: how the file is arranged.
      file_format: "zip", "npz", "json" or "gguf".
      path: file to write.

    Raises:
      CheckpointError: something cannot be written; what was there stays.
    """
    if file_format == "npz":
        npz_file.write(pack(state, {}, layout), path)
    elif file_format == "json":
        json_file.write_json(pack(state, metadata, layout), path, tuple(layout.details.get("lists", ())))
    elif file_format == "gguf":
        version, types = layout.details.get("version", 3), layout.details.get("types", {})
        gguf.write_gguf(path, metadata, state, types=types, version=version)
    else:
        torch_file.write(pack(state, metadata, layout), path)
