"""Room on the disk before HDF5 needs it: a full disk that it meets by itself can crash the process."""

from __future__ import annotations

import os
from pathlib import Path

SLACK = 2 << 20
"""Bytes for what HDF5 writes beside the numbers, and for one chunk of every array."""

_AT_ONCE = 1 << 20


def reserve(path: Path, end: int, nbytes: int) -> None:
    """Make a file longer by bytes that the disk really has.

    Args:
      path: an existing file.
      end: bytes that are in use; what follows is taken up.
      nbytes: beyond the end.

    Raises:
      OSError: the disk is full, or the file may not grow so far.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "x"
      >>> path.touch()
      >>> reserve(path, 0, 10)
      >>> path.stat().st_size
      10
    """
    with open(path, "r+b") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), end, nbytes)
            return
        stream.seek(end)
        for start in range(0, nbytes, _AT_ONCE):
            stream.write(bytes(min(_AT_ONCE, nbytes - start)))
        stream.flush()
        os.fsync(stream.fileno())
