"""Counts what XLA compiles, by the name of the jitted function."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import jax

_FINISHED = re.compile(r"Finished XLA compilation of jit\((.+?)\) in")


@contextmanager
def compilations() -> Iterator[Counter]:
    """Fills a counter while it is open; a program taken from the cache of the process is no compilation."""
    counts: Counter = Counter()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if found := _FINISHED.search(record.getMessage()):
                counts[found[1]] += 1

    handler, logger = Handler(), logging.getLogger("jax")
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            yield counts
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
