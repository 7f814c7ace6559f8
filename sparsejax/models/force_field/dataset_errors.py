"""What is wrong with a data set, and where."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import NamedTuple

from sparsejax.checkpoint.errors import file_name


class DatasetError(ValueError):
    """A file of labelled structures cannot be read or written; one line says what, where and what to do."""


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
      place: in the file, such as ``labels/energy[17]``.
      text: what is wrong there.
    """

    place: str
    text: str

    def __str__(self) -> str:
        """Both in one line."""
        return f"{self.place}: {self.text}"


def refuse(path: str | PathLike[str], problems: Sequence[Problem]) -> None:
    """Raise the first problem, if there is one, and tell how many more there are.

    Args:
      path: of the file.
      problems: in the order of the file.

    Raises:
      DatasetError: there is a problem.
    """
    if not problems:
        return
    rest = f" (and {len(problems) - 1} more: check_dataset lists them)" if len(problems) > 1 else ""
    raise DatasetError(f"{file_name(path)}: {problems[0]}{rest}")
