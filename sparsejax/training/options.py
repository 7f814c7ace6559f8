"""``NAME=VALUE`` arguments, checked against the defaults of what they set."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def parse_options(pairs: Sequence[str], what: str) -> dict[str, Any]:
    """Values by name; a value is JSON where it can be, with True and False in any case, and else text.

    Args:
      pairs: ``NAME=VALUE`` each.
      what: name of the argument, for errors.

    Raises:
      ValueError: no equals sign, or a name given twice.

    Example:
      >>> parse_options(["leak_free=True", "samples=50", "recipe=readme"], "--problem-option")
      {'leak_free': True, 'samples': 50, 'recipe': 'readme'}
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise ValueError(f"{what} takes NAME=VALUE, not {pair!r}")
        if name in values:
            raise ValueError(f"{what} sets {name!r} twice")
        try:
            values[name] = json.loads(text.lower() if text.lower() in ("true", "false") else text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def check_options(values: Mapping[str, Any], defaults: Mapping[str, Any], what: str) -> None:
    """Refuse names that do not exist and values of another kind than the default.

    Args:
      values: what is set.
      defaults: all that may be set; a default of None takes anything.
      what: whose options these are, for errors.

    Raises:
      ValueError: names the option, and those near it.

    Example:
      >>> check_options({"samples": 50}, {"samples": 100}, "problem 'sine'")
    """
    for name, value in values.items():
        if name not in defaults:
            raise ValueError(f"{what} has no option {name!r}; {nearest(name, defaults)}")
        if not _fits(value, defaults[name]):
            raise ValueError(
                f"{what}: option {name!r} is {value!r}, but a value like {defaults[name]!r} is due"
            )


def nearest(name: str, known: Iterable[str]) -> str:
    """What may have been meant: ``near it: a, b``, or everything there is."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"near it: {', '.join(near)}" if near else f"there are: {', '.join(known)}"


def _fits(value: Any, default: Any) -> bool:
    match default:
        case bool():
            return isinstance(value, bool)
        case int():
            return isinstance(value, int) and not isinstance(value, bool)
        case float():
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        case str():
            return isinstance(value, str)
        case tuple() | list():
            return isinstance(value, tuple | list)
    return True
