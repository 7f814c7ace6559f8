"""What the commands share: words for their arguments, and errors that are told in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import tyro

Override = Annotated[
    tuple[str, ...],
    tyro.conf.arg(
        metavar="NAME=VALUE", help="config values that the file does not tell, such as input_size=64"
    ),
]
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


def overrides_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Values by name from texts NAME=VALUE; what is no JSON is a text.

    Example:
      >>> overrides_of(["input_size=64", "activation=relu"])
      {'input_size': 64, 'activation': 'relu'}
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--override takes NAME=VALUE, not {pair!r}")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values
