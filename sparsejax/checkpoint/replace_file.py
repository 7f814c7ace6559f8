"""Writes a file beside the old one and puts it in its place when it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sparsejax.checkpoint.errors import ExportError, file_name
from sparsejax.checkpoint.native.durable import replacing


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A stream whose content becomes the file, in one step, when the block ends without an error.

    Args:
      path: file to write; an old one stays as it was until then, and if anything fails.

    Raises:
      ExportError: the system refuses; nothing is left behind.

    Example:
      >>> import os, tempfile
      >>> path = os.path.join(tempfile.mkdtemp(), "x.bin")
      >>> with replaced(path) as stream:
      ...     _ = stream.write(b"abc")
      >>> Path(path).read_bytes()
      b'abc'
    """
    path = Path(path)
    try:
        with replacing(path) as stream:
            yield stream
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and type(error) is not ValueError:
            raise  # of a kind of its own, it says what is wrong, and where
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"{file_name(path)}: cannot be written ({reason})") from error
