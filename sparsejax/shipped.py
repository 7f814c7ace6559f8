"""The one place that finds the checkpoints that come with the library.

All of them lie in ``checkpoints/`` of a checkout; a wheel holds the smallest ones and the list of all. So a
file is looked for in a folder that the user names, in the checkout of this package, in ``checkpoints`` of the
working directory, and in the wheel, and taken only if it is the one that the list means.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from sparsejax.checkpoint.errors import NotReadableError, shown

MANIFEST = "manifest.json"
VARIABLE = "SPARSEJAX_CHECKPOINTS"
"""Environment variable that names a folder with the files, such as ``checkpoints`` of a checkout."""

HELD_OUT, PREDICTORS = ".held_out.npz", ".predictors"
"""Beside a network: text that it has not seen, and what ``sparsejax calibrate`` wrote."""

_PACKAGE = Path(__file__).resolve().parent
_IN_CHECKOUT, _IN_WHEEL = "checkpoints", "shipped_checkpoints"
_WAY_OUT = (
    "run in a checkout of sparsejax, or name its folder 'checkpoints' with --checkpoints or the environment "
    f"variable {VARIABLE}"
)


@dataclass(frozen=True)
class ShippedFile:
    """One entry of the list.

    Attributes:
      name: of the file.
      path: where it is; None if it was not found.
      expected: file beside it with inputs and outputs, as ``sparsejax verify --reference`` reads them; None
        if the file was not found.
    """

    name: str
    path: Path | None
    expected: Path | None


def shipped_files(pattern: str = "*", folder: Path | None = None) -> list[ShippedFile]:
    """The shipped checkpoints, found or not, in the order of the list.

    Args:
      pattern: shell pattern of the names.
      folder: to look in first; None is what the environment variable names, if anything.

    Raises:
      NotReadableError: the folder that is named is none, or this installation has lost its list.

    Example:
      >>> [file.name for file in shipped_files("llama*")]
      ['llama_reglu.gguf', 'llama_swiglu.gguf']
    """
    folders = tuple(_folders(folder))
    return [
        _found(entry["file"], entry["sha256"], entry["expected"], folders)
        for entry in _listed()
        if fnmatch(entry["file"], pattern)
    ]


def shipped_file(name: str) -> Path:
    """Where one shipped checkpoint is.

    Args:
      name: of the file.

    Raises:
      NotReadableError: it is not in this installation, or no file of this name is shipped.

    Example:
      >>> shipped_file("ultra_sparse_sine.pt").name
      'ultra_sparse_sine.pt'
    """
    for file in shipped_files(name):
        if file.path is not None:
            return file.path
        raise NotReadableError(f"{name}: not in this installation, or not as it was shipped; {_WAY_OUT}")
    raise NotReadableError(f"{name}: no such checkpoint is shipped; there are {shown(_names(), 20)}")


def told_missing(files: list[ShippedFile]) -> str | None:
    """One line on the files that were not found, and where to get them; None if all were.

    Example:
      >>> print(told_missing([ShippedFile("a.pt", Path("a.pt"), None)]))
      None
    """
    missing = [file.name for file in files if file.path is None]
    if not missing:
        return None
    return f"not in this installation, or not as shipped, so not shown: {', '.join(missing)}; {_WAY_OUT}"


def _found(name: str, digest: str, expected: str, folders: tuple[Path, ...]) -> ShippedFile:
    for folder in folders:
        path, outputs = folder / name, folder / expected
        try:
            if path.is_file() and outputs.is_file() and _digest(path) == digest:
                return ShippedFile(name, path, outputs)
        except OSError:
            continue  # a folder that may not be read has nothing for us
    return ShippedFile(name, None, None)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folders(named: Path | None) -> Iterator[Path]:
    """Where files are looked for, in this order."""
    if named is None and (text := os.environ.get(VARIABLE)):
        named = Path(text)
    if named is not None:
        if not named.is_dir():
            raise NotReadableError(f"{named}: is no folder of checkpoints; {_WAY_OUT}")
        yield named
    yield _PACKAGE.parent / _IN_CHECKOUT
    yield Path(_IN_CHECKOUT)
    yield _PACKAGE / _IN_WHEEL


def _names() -> list[str]:
    return [entry["file"] for entry in _listed()]


def _listed() -> list[dict[str, str]]:
    """The list of this installation: that of its wheel, or that of its checkout."""
    for path in (_PACKAGE / _IN_WHEEL / MANIFEST, _PACKAGE.parent / _IN_CHECKOUT / MANIFEST):
        if path.is_file():
            entries: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))["checkpoints"]
            return entries
    raise NotReadableError(f"{_PACKAGE}: the list of shipped checkpoints is missing; install sparsejax again")
