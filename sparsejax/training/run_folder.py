"""The folder of a run: what it was started with, who may continue it, and that it is finished.

::

  run/
    run.json     settings, versions, whether finished
    log.csv      one row per round (`logs`), or metrics.jsonl (`metric_log`)
    state/       the last saved state (`state`)
    ...          what the recipe writes at the end
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import jax

from sparsejax.checkpoint.native import durable
from sparsejax.training.errors import RunError
from sparsejax.training.processes import check_same, is_first_process
from sparsejax.version import __version__

RUN_FILE = "run.json"
STATE_FOLDER = "state"
BEST = "best"
"""The best network so far, with the suffix of its kind of file."""

Standing = Literal["new", "unfinished", "finished"]

_TEMPORARY = re.compile(r"[a-z_]+\.(jsonl?|csv)\.[0-9a-f]{16}")


def read_run(folder: Path) -> dict[str, Any]:
    """``run.json`` of a run.

    Raises:
      RunError: there is none, or it is damaged.
    """
    try:
        document = json.loads((folder / RUN_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(f"{folder}: holds no run ({RUN_FILE} is missing)") from error
    except ValueError as error:
        raise RunError(f"{folder / RUN_FILE}: is damaged: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("settings"), dict):
        raise RunError(f"{folder / RUN_FILE}: is no description of a run")
    return document


def standing(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> Standing:
    """What a run with these settings finds in its folder; writes nothing.

    Args:
      folder: may be missing.
      settings: everything that the result depends on; plain JSON.
      resume: whether a run that is there may be continued.

    Returns:
      "new" for a missing or empty folder.

    Raises:
      RunError: the folder is a file, holds other things, or another run, or this one without
        ``resume``.
    """
    if not folder.exists():
        return "new"
    if not folder.is_dir():
        raise RunError(f"{folder}: is a file; give a folder")
    names = [entry.name for entry in folder.iterdir() if not _TEMPORARY.fullmatch(entry.name)]
    if not names:
        return "new"
    if RUN_FILE not in names:
        raise RunError(f"{folder}: is not empty and holds no run; give a new or empty folder")
    document = read_run(folder)
    found: Standing = "finished" if document.get("finished") else "unfinished"
    if not resume:
        how = "" if found == "finished" else "continue it with --resume, or "
        raise RunError(f"{folder}: holds a run already ({found}); {how}give another folder")
    if difference := _difference(document["settings"], json.loads(json.dumps(settings))):
        raise RunError(f"{folder}: holds another run: {difference}; give another folder")
    return found


def best_of(path: Path) -> Path:
    """The best network of a run's folder; any other path as it is."""
    if not (path / RUN_FILE).exists():
        return path
    return next((path / name for name in (BEST, f"{BEST}.gguf") if (path / name).exists()), path)


@contextmanager
def opened_run(folder: Path, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[None]:
    """Hold a run's folder against other jobs; make it, with its ``run.json``, if it is new.

    All processes of a job call it when they have looked at the folder; the first one holds it for them.

    Args:
      folder: that `standing` found "new" or "unfinished".
      settings: see `standing`.
      facts: what else to record of a new run; plain JSON.

    Raises:
      RunError: another job is at work there, or the processes of this one are not about the same run.
      OSError: it cannot be written.
    """
    check_same(
        f"{folder}: the processes of this job are told different things, or read different data", settings
    )
    if not is_first_process():
        yield
        return
    durable.create_folder(folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(durable.locked(folder))
        except BlockingIOError as error:
            raise RunError(f"{folder}: another process is training here") from error
        for entry in folder.iterdir():
            if _TEMPORARY.fullmatch(entry.name):
                entry.unlink()
        if not (folder / RUN_FILE).exists():
            _write_run(folder, {"settings": settings, **facts, **_versions(), "finished": False})
        yield


def mark_finished(folder: Path, facts: Mapping[str, Any]) -> None:
    """Record in ``run.json`` that everything is written, with further facts; only the first process does."""
    if not is_first_process():
        return
    _write_run(folder, {**read_run(folder), **facts, "finished": True})


def _write_run(folder: Path, document: Mapping[str, Any]) -> None:
    durable.replace_json(folder / RUN_FILE, document)


def _versions() -> dict[str, str]:
    return {
        "library_version": __version__,
        "jax_version": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }


def _difference(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first setting that differs, in words."""
    for name in dict.fromkeys((*here, *there)):
        old, new = there.get(name), here.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            if inner := _difference(old, new, f"{prefix}{name} "):
                return inner
        elif old != new:
            return f"{prefix}{name} is {old!r} there and {new!r} here"
    return None
