"""What every reader does first: is there a file to open, and what is it called in errors."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sparsejax.checkpoint.errors import CheckpointError, NotReadableError, file_name


def check_readable(path: Path) -> None:
    """Raise unless the path is a file that can be opened.

    Raises:
      NotReadableError: it is missing, a directory, something else, or not permitted.
    """
    with opened(path):
        return


def opened(path: Path) -> BinaryIO:
    """A file, open for reading.

    Raises:
      NotReadableError: it is missing, a directory, something else, or not permitted.
    """
    try:
        if path.is_dir():
            raise NotReadableError(
                f"{file_name(path)}: a directory, but no sparsejax checkpoint (it has no sparsejax.json)"
            )
        if not stat.S_ISREG(path.stat().st_mode):
            raise NotReadableError(f"{file_name(path)}: not a regular file")
        return path.open("rb")
    except FileNotFoundError as error:
        raise NotReadableError(f"{file_name(path)}: no such file") from error
    except PermissionError as error:
        raise NotReadableError(f"{file_name(path)}: no permission to read it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotReadableError(f"{file_name(path)}: cannot be opened ({reason})") from error


def mapped(stream: BinaryIO, path: Path) -> mmap.mmap:
    """The bytes of an open file, which the system reads when they are looked at.

    Raises:
      NotReadableError: it is empty, or the system refuses.
    """
    if os.fstat(stream.fileno()).st_size == 0:
        raise NotReadableError(f"{file_name(path)}: an empty file; fetch or save it again")
    try:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise NotReadableError(f"{file_name(path)}: cannot be mapped into memory ({error})") from error


@contextmanager
def located(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the file's name before the message of a `CheckpointError` raised inside."""
    name = file_name(path)
    try:
        yield
    except CheckpointError as error:
        if not str(error).startswith(name):
            error.args = (f"{name}: {error}", *error.args[1:])
        raise
