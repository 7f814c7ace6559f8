"""A file held open and read by position, never mapped: one that shrinks gives an error, not a signal."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from sparsejax.checkpoint.errors import GGUFError, NotReadableError
from sparsejax.checkpoint.readable import check_readable, located

_AT_ONCE = 1 << 30  # the system reads no more than 2 GiB in one call


class OpenFile:
    """A file whose bytes are read by position, and only while it is what it was when it was opened.

    Another file put in its place by renaming does not matter: this one stays open until it is collected.

    Attributes:
      path: as given.
      size: bytes, when it was opened.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        check_readable(self.path)
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise NotReadableError(f"cannot be opened ({error.strerror})") from error
        self._close = weakref.finalize(self, os.close, self._descriptor)
        status = os.fstat(self._descriptor)
        self.size, self._modified = status.st_size, status.st_mtime_ns

    def read_into(self, target: memoryview, offset: int, what: str, tensor: str | None = None) -> None:
        """Fills ``target`` with the bytes from ``offset`` on.

        Args:
          target: bytes to fill.
          offset: first byte in the file.
          what: is read, for the error.
          tensor: name of the tensor that they are of.

        Raises:
          GGUFError: the file is shorter than it was, was written to since, or cannot be read.
        """
        with located(self.path):
            self._check_unchanged(what, offset, tensor)
            done = 0
            while done < len(target):
                try:
                    count = os.preadv(self._descriptor, [target[done : done + _AT_ONCE]], offset + done)
                except OSError as error:
                    reason = f"{what} at byte {offset} cannot be read ({error.strerror})"
                    raise GGUFError(reason, tensor, offset) from error
                if count == 0:
                    raise self._shrunk(what, offset, tensor, offset + done)
                done += count
            self._check_unchanged(what, offset, tensor)

    def _check_unchanged(self, what: str, offset: int, tensor: str | None) -> None:
        status = os.fstat(self._descriptor)
        if status.st_size < self.size:
            raise self._shrunk(what, offset, tensor, status.st_size)
        if (status.st_mtime_ns, status.st_size) != (self._modified, self.size):
            raise GGUFError(
                f"{what} at byte {offset}: the file was written to while it was open; read it again",
                tensor,
                offset,
            )

    def _shrunk(self, what: str, offset: int, tensor: str | None, size: int) -> GGUFError:
        return GGUFError(
            f"{what} at byte {offset}: the file shrank to {size} bytes while it was open, it had "
            f"{self.size}; fetch it again, and read it when it is whole",
            tensor,
            offset,
        )
