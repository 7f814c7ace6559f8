"""``--override NAME=VALUE``, as every command takes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import tyro

from sparsejax.training.options import parse_options

Override = Annotated[
    tuple[tuple[str, ...], ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(metavar="NAME=VALUE [NAME=VALUE ...]", help_behavior_hint="(may be repeated)"),
]


def overrides_of(groups: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Config values by name, of all that ``--override`` was given, each time it was.

    Args:
      groups: texts NAME=VALUE of each time; see `parse_options`.

    Raises:
      ValueError: no equals sign, or a name given twice.

    Example:
      >>> overrides_of([["input_size=64", "activation=relu"], ["learnable_rbf=True"]])
      {'input_size': 64, 'activation': 'relu', 'learnable_rbf': True}
    """
    return parse_options([pair for group in groups for pair in group], "--override")
