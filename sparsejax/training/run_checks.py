"""What the settings of a run must satisfy, whatever is trained; told by the names of the command line."""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from typing import Any

from sparsejax.checkpoint.native import durable


def check_at_least(settings: Any, least: int, *names: str) -> None:
    """Refuse numbers that are too small or not finite; None passes.

    Args:
      settings: with an attribute per name.
      least: that each may be.
      names: of the numbers.

    Raises:
      ValueError: names the first one; one line.

    Example:
      >>> from types import SimpleNamespace
      >>> check_at_least(SimpleNamespace(batch_size=8, steps=None), 1, "batch_size", "steps")
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and value >= least):
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")


def check_seed(seed: int) -> None:
    """Refuse what is no seed of 32 bits.

    Raises:
      ValueError: it is none; one line.

    Example:
      >>> check_seed(0)
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be between 0 and 2^32, not {seed}")


def check_output(path: Path, flag: str, *, folder: bool = False) -> None:
    """Refuse, before the work, a place that its outcome cannot be written to; makes the missing folders.

    Args:
      path: of the outcome.
      flag: of the command line that gave it.
      folder: whether it is a folder instead of a file.

    Raises:
      ValueError: a file stands where a folder is needed or the other way round, or nothing can be written
        there; one line.

    Example:
      >>> import tempfile
      >>> check_output(Path(tempfile.mkdtemp()), "--json")
      Traceback (most recent call last):
      ValueError: ...: is a folder; give a file with --json
    """
    if not folder and path.is_dir():
        raise ValueError(f"{path}: is a folder; give a file with {flag}")
    place = path if folder else path.parent
    if place.exists() and not place.is_dir():
        raise ValueError(f"{place}: is a file; give a folder with {flag}")
    try:
        durable.create_folder(place)
    except OSError as error:
        raise ValueError(f"{place}: cannot be made ({error.strerror}); give another with {flag}") from error
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{place}: cannot be written to; give another place with {flag}")


def check_libraries(what: str, *names: str, plots: bool) -> None:
    """Refuse to begin what would fail at an import in the end.

    Args:
      what: is to be done, for errors.
      names: of modules that it needs.
      plots: whether it draws, too.

    Raises:
      ModuleNotFoundError: a module is missing.
      ValueError: matplotlib is missing; one line.

    Example:
      >>> check_libraries("reading numbers", "numpy", plots=False)
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"{what} needs {name}", name=name)
    if plots and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plots needs matplotlib: pip install 'sparsejax[plots]', or give --no-plots")
