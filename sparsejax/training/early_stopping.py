"""When to stop because validations no longer improve."""

from __future__ import annotations

import math
from collections.abc import Sequence


def exhausted(losses: Sequence[float], *, patience: int, least: float = 0.0) -> bool:
    """Whether the last ``patience`` validations all failed to improve on the best one before them.

    It looks at the whole history and keeps no state, so that a resumed run decides as it would have done.

    Args:
      losses: of all validations, the oldest first.
      patience: validations to wait for an improvement; 0 waits for ever.
      least: by how much a loss must be smaller than the best one to count.

    Example:
      >>> exhausted([3.0, 2.0, 2.5, 2.0], patience=2), exhausted([3.0, 2.0, 2.5, 1.9], patience=2)
      (True, False)
    """
    best, waited = math.inf, 0
    for loss in losses:
        improved = loss < best - least
        best, waited = (loss, 0) if improved else (best, waited + 1)
    return 0 < patience <= waited
