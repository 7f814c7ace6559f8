"""The file of an export: refused before the work where it cannot lie there, written in one step."""

from __future__ import annotations

import os
from pathlib import Path

from sparsejax.checkpoint.errors import ExportError
from sparsejax.checkpoint.replace_file import replaced


def checked_target(path: str | os.PathLike[str]) -> Path:
    """The path, if a file can lie there.

    Raises:
      ValueError: it is a directory, or its folder does not exist.

    Example:
      >>> checked_target("no such folder/net.h")
      Traceback (most recent call last):
      ValueError: no such folder/net.h cannot be written: there is no folder no such folder
    """
    path = Path(path)
    if os.path.isdir(path):  # unlike Path.is_dir, never raises
        raise ValueError(f"{path} is a directory: name a file in it")
    if not os.path.isdir(path.parent):
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}")
    return path


def write_export(content: bytes, path: Path) -> Path:
    """Write exactly this path; an old file stays until the new one is whole.

    Args:
      content: of the file.
      path: checked by `checked_target`.

    Returns:
      the path.

    Raises:
      ValueError: the file cannot be written.

    Example:
      >>> import tempfile
      >>> path = write_export(b"int x;", Path(tempfile.mkdtemp()) / "x.h")
      >>> path.read_bytes()
      b'int x;'
    """
    try:
        with replaced(path) as stream:
            stream.write(content)
    except ExportError as error:
        raise ValueError(str(error)) from None
    return path
