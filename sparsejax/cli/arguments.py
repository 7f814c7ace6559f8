"""What the commands share: words for their arguments, and errors that are told in one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import tyro

from sparsejax.training import override

File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]


class UserError(Exception):
    """A wrong argument, told in one line."""


@contextmanager
def one_line(*kinds: type[Exception]) -> Iterator[None]:
    """Tell errors of these kinds as a user's own."""
    try:
        yield
    except kinds as error:
        raise UserError(str(error)) from error


def overrides_of(groups: Iterable[Sequence[str]]) -> dict[str, Any]:
    """What ``--override`` says, or a user's error."""
    with one_line(ValueError):
        return override.overrides_of(groups)
