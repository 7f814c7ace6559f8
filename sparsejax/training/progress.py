"""How far a long run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from sparsejax.training.processes import is_first_process

Style = Literal["auto", "plain", "quiet"]
Update = Callable[[int, str], None]
"""Takes the rounds done and a few words on how it goes."""

LINE_SECONDS = 5.0
"""Least time between two plain lines; the last round has one in any case."""


def style_of(settings: Any) -> Style:
    """How a run shows its progress: by its settings ``quiet`` and ``plain``; only the first process does.

    Args:
      settings: with both.

    Example:
      >>> from types import SimpleNamespace
      >>> style_of(SimpleNamespace(quiet=False, plain=True))
      'plain'
    """
    return "quiet" if settings.quiet or not is_first_process() else "plain" if settings.plain else "auto"


@contextmanager
def shown_progress(
    what: str, *, start: int, stop: int, style: Style = "auto", unit: str = "round"
) -> Iterator[Update]:
    """Show the rounds of a run as they go by.

    Args:
      what: a short name.
      start: rounds done before.
      stop: rounds in all.
      style: "auto" is a `rich` bar if the output is a terminal and plain lines otherwise; "plain" is lines
        in any case, "quiet" nothing.
      unit: what a round is called.

    Returns:
      a context manager that gives the function to call after rounds.

    Example:
      >>> with shown_progress("toy", start=0, stop=2, style="plain") as update:
      ...     update(2, "loss 0.5")
      toy: round 2 of 2, loss 0.5
    """
    if style == "quiet":
        yield lambda done, words: None
    elif style == "plain" or not sys.stdout.isatty():
        yield _lines(what, stop, unit)
    else:
        with _bar(what, start, stop) as update:
            yield update


def _lines(what: str, stop: int, unit: str) -> Update:
    last = time.monotonic()

    def update(done: int, words: str) -> None:
        nonlocal last
        if done < stop and time.monotonic() - last < LINE_SECONDS:
            return
        last = time.monotonic()
        print(f"{what}: {unit} {done} of {stop}, {words}", flush=True)

    return update


@contextmanager
def _bar(what: str, start: int, stop: int) -> Iterator[Update]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(what, total=stop, completed=start, words="compiling")
        yield lambda done, words: progress.update(task, completed=done, words=words)
