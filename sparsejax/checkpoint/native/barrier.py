"""Where all processes of a job wait for each other."""

from __future__ import annotations

import jax

_LONGEST_WAIT = 24 * 3600 * 1000  # ms; the runtime tells sooner if a process is gone


def wait_for_all(name: str) -> None:
    """Wait until all processes have come to the place of this name; at once in a job of one process.

    They wait at the coordinator: a collective of CPUs gives up on a process that comes half a minute late.

    Args:
      name: of the place, the same in all.

    Example:
      >>> wait_for_all("saved")
    """
    if jax.process_count() > 1:
        from orbax.checkpoint.multihost import get_barrier_sync_fn

        get_barrier_sync_fn()(key=name, timeout_ms=_LONGEST_WAIT)
