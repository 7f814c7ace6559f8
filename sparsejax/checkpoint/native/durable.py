"""Files that a crash cannot leave half-written, and one writer at a time."""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO


def create_folder(folder: Path) -> None:
    """Makes a folder and its missing parents; they are on the disk when it returns."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    sync(path.parent for path in missing)


def sync(paths: Iterable[Path]) -> None:
    """Waits until these files and folders are on the disk; of a folder, only the list of its names."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, document: Any) -> None:
    """Writes a new file."""
    with open(path, "x", encoding="ascii") as file:
        file.write(json.dumps(document, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def replace_json(path: Path, document: Any, *, indent: int = 2) -> None:
    """Writes or replaces a file in one step, by way of ``<name>.<16 hex digits>`` beside it."""
    replace_text(path, json.dumps(document, indent=indent, allow_nan=False) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Writes or replaces a file of UTF-8 as `replace_json` does."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Writes or replaces a file as `replace_json` does.

    Raises:
      OSError: the system refuses; names the file. What was there stays, and nothing else is left behind.
    """
    try:
        with replacing(path) as stream:
            stream.write(content)
    except OSError as error:
        raise named(error, path) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content becomes the file in one step, when the block ends without an error.

    Raises:
      OSError: the system refuses. What was there stays, and nothing else is left behind.
    """
    temporary = path.with_name(f"{path.name[:100]}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as stream:  # with the permissions of any new file
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        sync([path.parent])
    finally:
        with suppress(OSError, ValueError):  # there is no such folder, or no such name is possible
            temporary.unlink(missing_ok=True)


def named(error: OSError, path: Path) -> OSError:
    """The same error with the name of the file, which those of ``write`` and ``fsync`` lack."""
    return OSError(error.errno, f"cannot be written ({error.strerror or error})", str(path))


def crc32(path: Path) -> int:
    """CRC-32 of a file's bytes."""
    checksum = 0
    buffer = memoryview(bytearray(1 << 20))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            checksum = zlib.crc32(buffer[:count], checksum)
    return checksum


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder against other savers; the system lets go of it when the process dies.

    Raises:
      BlockingIOError: another process, or another thread of this one, holds it.
    """
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise
            # Some network file systems have no locks: go on without one.
        yield
    finally:
        os.close(descriptor)
