"""Data of a report as values that JSON has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain_values(value: Any) -> Any:
    """Nested data as dicts, lists and Python numbers that `json.dumps` takes under ``allow_nan=False``.

    Args:
      value: mappings, lists and tuples of strings, numbers, None, NumPy scalars and arrays.

    Returns:
      the same data; keys are strings, arrays lists, and numbers that are not finite None.

    Example:
      >>> plain_values({"mean": np.float32(0.5), "by layer": np.array([1.0, np.nan]), 3: (True, None)})
      {'mean': 0.5, 'by layer': [1.0, None], '3': [True, None]}
    """
    if isinstance(value, Mapping):
        return {str(name): plain_values(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(part) for part in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain_values(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
