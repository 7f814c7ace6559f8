"""Writes torch files that ``torch.load(weights_only=True)`` accepts, without torch."""

from __future__ import annotations

import re
import sys
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from sparsejax.checkpoint.errors import file_name
from sparsejax.checkpoint.replace_file import replaced
from sparsejax.checkpoint.torch_format.storage_layout import OutStorage, lay_out
from sparsejax.checkpoint.torch_format.torch_emit import emit
from sparsejax.checkpoint.torch_format.torch_survey import Survey
from sparsejax.checkpoint.torch_format.zip_writer import ZipWriter


def write(obj: object, path: str | PathLike[str]) -> None:
    """Writes a torch file (zip format), all or nothing.

    Args:
      obj: nested dict, OrderedDict (with its ``_metadata``), Counter, list, tuple and set of str, bytes,
        int, float, bool, None, complex, `TorchSize`, `TorchDevice`, `TorchDtype`, NumPy scalars (written
        as Python's), paths (as text), and arrays of NumPy or JAX or `TensorRef`s (as tensors that need
        no gradient). A container or array that occurs twice is one object twice after loading; arrays
        that share memory share a storage.
      path: the file; replaced in one step, so that a failure leaves the old one. Equal objects give
        equal bytes under the same file name.

    Raises:
      ExportError: ``obj`` holds something torch.load would refuse, or itself, or the file cannot be
        written.

    Example:
      >>> import numpy as np, os, tempfile
      >>> path = os.path.join(tempfile.mkdtemp(), "w.pt")
      >>> write({"w": np.arange(3.0)}, path)
      >>> sorted(os.listdir(os.path.dirname(path)))
      ['w.pt']
    """
    path = Path(path)
    where = file_name(path)
    survey = Survey(where)
    survey.walk(obj)
    storages, places = lay_out(survey.arrays)
    pickle = emit(obj, survey, storages, places)
    with replaced(path) as stream:
        _write_records(stream, _root_folder(path), pickle, storages)


def _write_records(stream: BinaryIO, root: str, pickle: bytes, storages: list[OutStorage]) -> None:
    archive = ZipWriter(stream, root)
    archive.add("data.pkl", pickle)
    archive.add("byteorder", sys.byteorder.encode())
    for index, storage in enumerate(storages):
        archive.add(f"data/{index}", storage.raw.data)
    archive.add("version", b"3\n")
    archive.add(".data/serialization_id", archive.digits().encode())
    archive.finish()


def _root_folder(path: Path) -> str:
    """The file's stem, as torch names it, or ``archive`` where that is no plain folder name."""
    return path.stem if re.fullmatch(r"[\w+\-]([\w .+\-]*[\w+\-])?", path.stem, re.ASCII) else "archive"
