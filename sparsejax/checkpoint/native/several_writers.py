"""Who does what when several processes write one checkpoint."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.checkpoint.native.barrier import wait_for_all
from sparsejax.checkpoint.native.orbax_arrays import span_processes

_TOKEN_BYTES = 8


class Part(NamedTuple):
    """The part of this process.

    Attributes:
      first: whether it writes all that is not arrays, and puts the checkpoint in its place.
      token: 16 hex digits, random, the same in all processes that write.
    """

    first: bool
    token: str


@contextmanager
def taking_part(arrays: Iterable[Any]) -> Iterator[Part]:
    """The part of this process in writing arrays; it leaves when all have done theirs.

    Args:
      arrays: NumPy's, or JAX's: those that span processes are written by all of them.
    """
    token = secrets.token_bytes(_TOKEN_BYTES)
    if not span_processes(arrays):
        yield Part(True, token.hex())
        return
    from jax.experimental import multihost_utils

    wait_for_all("checkpoint begun")
    token = np.asarray(multihost_utils.broadcast_one_to_all(np.frombuffer(token, np.uint8))).tobytes()
    yield Part(jax.process_index() == 0, token.hex())
    wait_for_all("checkpoint written")
