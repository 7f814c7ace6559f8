"""Errors of the checkpoint rooms: one line each, saying what, where and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path


class CheckpointError(Exception):
    """A file cannot be read, understood, converted or written.

    ``str(error)`` is one line that names the file, the thing in it and the way out.
    """


class NotReadableError(CheckpointError):
    """The path is missing, is not a file of a known kind, or may not be opened."""


class TruncatedFileError(CheckpointError):
    """The file ends before its own records do."""


class CorruptFileError(CheckpointError):
    """The file's records contradict each other or their checksums."""


class UnsafePickleError(CheckpointError):
    """The pickle names a global outside the allow-list; nothing of it was run.

    Attributes:
      global_name: the first offending name, such as ``"os.system"``.
    """

    def __init__(self, message: str, global_name: str):
        super().__init__(message)
        self.global_name = global_name


class UnsupportedTensorError(CheckpointError):
    """A tensor uses a dtype or layout that has no counterpart in NumPy and ml_dtypes."""


class UnknownFormatError(CheckpointError):
    """No registered family recognises the tensors of the file."""


class AmbiguousVariantError(CheckpointError):
    """Several variants fit, or a config value cannot be inferred; the message names the argument to give.

    Attributes:
      choices: what can be given.
      kind: the family, where that is known and only its variant is not.
    """

    def __init__(self, message: str, choices: Sequence[str] = (), kind: str | None = None):
        super().__init__(message)
        self.choices = tuple(choices)
        self.kind = kind


class MissingKeyError(CheckpointError):
    """Tensors that the model needs are not in the file."""


class UnexpectedKeyError(CheckpointError):
    """The file holds tensors that no rule uses."""


class ShapeError(CheckpointError):
    """A tensor has another shape than the model needs."""


class NonFiniteError(CheckpointError):
    """A weight is NaN or infinite."""


class GGUFError(CheckpointError):
    """A GGUF file is damaged, contradicts itself, or is of a kind that is not read here.

    Attributes:
      tensor: name of the tensor at fault; None where it is none.
      offset: byte of the file at which the fault lies; None where it lies at none.
    """

    def __init__(self, message: str, tensor: str | None = None, offset: int | None = None):
        super().__init__(message)
        self.tensor = tensor
        self.offset = offset


class TruncatedGGUFError(GGUFError, TruncatedFileError):
    """A GGUF file ends before what it says of itself does."""


class NewerFormatError(CheckpointError):
    """The directory was written by a later format version."""


class ExportError(CheckpointError):
    """A checkpoint cannot be written in the requested layout."""


def shown(names: Iterable[object], limit: int = 5) -> str:
    """The first ``limit`` names, quoted and none of them endless, and how many more there are.

    Names of a file need not be strings.
    """
    names = list(names)
    head = ", ".join(map(_quoted, names[:limit]))
    rest = len(names) - limit
    return f"{head} and {rest} more" if rest > 0 else head


def _quoted(name: object) -> str:
    if isinstance(name, str) and len(name) > 120:
        return repr(f"{name[:100]}...")
    text = repr(name)
    return text if isinstance(name, str) or len(text) <= 120 else f"{text[:100]}..."


def file_name(path: str | PathLike[str]) -> str:
    """The path as the user wrote it, short enough for one line."""
    text = str(path)
    return text if len(text) <= 80 else f".../{Path(text).name}"
