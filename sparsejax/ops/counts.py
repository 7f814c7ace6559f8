"""Numbers of things: what may be one."""

from __future__ import annotations

from typing import Any


def check_count(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number, or too small a one.

    Args:
      name: that the caller knows it by.
      value: Python's own integer, so that a config that holds it can be written as JSON.
      least: smallest allowed.

    Raises:
      ValueError: names it.

    Example:
      >>> check_count("top_k", 3, 1)
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
