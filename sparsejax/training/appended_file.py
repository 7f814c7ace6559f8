"""A text file that grows write by write, after what a resumed run keeps of it."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from sparsejax.checkpoint.native import durable


class AppendedFile:
    r"""Begins a file anew with what is kept of it, in one step, and appends to it.

    Args:
      path: file; created if needed.
      kept: ASCII text to begin with.

    Raises:
      OSError: the disk refuses.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "log.txt"
      >>> with AppendedFile(path, "one\n") as file:
      ...     file.write("two\n")
      >>> path.read_text()
      'one\ntwo\n'
    """

    def __init__(self, path: Path, kept: str):
        durable.replace_text(path, kept)
        self._path = path
        self._file = open(path, "a", newline="", encoding="ascii")

    def write(self, text: str) -> None:
        """Append text; the system has it when this returns.

        Raises:
          OSError: the disk refuses.
        """
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise durable.named(error, self._path) from error

    def sync(self) -> None:
        """Wait until all text is on the disk."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        """The file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        with suppress(OSError) if error else nullcontext():  # of what could not be written before
            self._file.close()
