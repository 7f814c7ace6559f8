"""One log of a job of several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from sparsejax.checkpoint.native.barrier import wait_for_all
from sparsejax.training.processes import is_first_process


class Log(Protocol):
    """What `sparsejax.training.metric_log.MetricLog` and `sparsejax.training.logs.RoundLog` can do."""

    def append(self, place: int, values: Any, /) -> None:
        """Write what there is to tell."""
        ...

    def sync(self) -> None:
        """Wait until it is on the disk."""
        ...


class NoLog:
    """What takes the place of a log in all processes but the first: nothing is written."""

    def append(self, place: int, values: Any, /) -> None:
        """Write nothing."""

    def sync(self) -> None:
        """Wait for nothing."""


@contextmanager
def job_log(opened: Callable[[], AbstractContextManager[Log]]) -> Iterator[Log]:
    """A log that the first process writes; others may read its file from then on.

    Args:
      opened: opens it.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from sparsejax.training.metric_log import MetricLog
      >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
      >>> with job_log(lambda: MetricLog(path)) as log:
      ...     log.append(1, {"loss": 0.5})
    """
    if not is_first_process():
        wait_for_all("log opened")
        yield NoLog()
        return
    with opened() as log:
        wait_for_all("log opened")
        yield log
