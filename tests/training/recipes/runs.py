"""What tests of recipes share: a text, runs that are killed or started by the command line, their metrics."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sparsejax.training.metric_log import read_metrics
from sparsejax.training.run_folder import read_run
from tests.command_line import run

TEXT = "".join(f"{number} times 7 is {7 * number}. " for number in range(250))

DYING_BATCHES = """
import {module} as place

made = place.training_batches
def deadly(*arguments, **options):
    for number, batch in enumerate(made(*arguments, **options)):
        if number == {step}:
            os.kill(os.getpid(), 9)
        yield batch

place.training_batches = deadly
"""
"""Program text: the process kills itself when a step asks for its batch."""


def parsed_settings(monkeypatch, recipe: Any, *arguments: Any) -> Any:
    """The settings that a command line makes; nothing is prepared."""
    found = []

    def stop(settings):
        found.append(settings)
        raise ValueError("stop")

    monkeypatch.setattr(recipe, "prepare", stop)
    assert run(["train", *arguments]) == 1
    return found[0]


def text_beside(folder: Path, text: str = TEXT) -> Path:
    """A file of text beside the folder of a run."""
    path = folder.parent / "text.txt"
    path.write_text(text)
    return path


def metrics(folder: Path) -> list[dict[str, Any]]:
    """What a run has logged, but for the time it took."""
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in read_metrics(folder / "metrics.jsonl")
    ]


def train_killed(family: str, settings: Any, folder: Path, dying: str) -> None:
    """Train in a process of its own, which dies.

    Args:
      family: name of the recipe.
      settings: for it.
      folder: of the run.
      dying: program text that makes it die.
    """
    program = f"""
import os, pickle
from sparsejax.training.recipes.{family} import recipe
{dying}
recipe.train(recipe.prepare(pickle.loads({pickle.dumps(settings)!r})))
"""
    killed = subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL, check=False)
    assert killed.returncode == -9
    assert not read_run(folder)["finished"]


def train_by_command(family: str, options: Mapping[str, Any], *further: str, devices: int) -> None:
    """Train by the command line, on so many virtual devices.

    Args:
      family: as the command line has it.
      options: values by names, with underscores for dashes.
      further: arguments as they are.
      devices: that the process sees.
    """
    named = {name.replace("_", "-"): value for name, value in options.items()}
    switches = [
        f"--{name}" if value else f"--no-{name}" for name, value in named.items() if value is bool(value)
    ]
    command = [f"--{name}={value}" for name, value in named.items() if not isinstance(value, bool)] + switches
    program = [sys.executable, "-c", "from sparsejax.cli import main; main()", "train", family]
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    subprocess.run([*program, *command, *further, "--quiet", "--no-plots"], env=environment, check=True)


def check_same_run(folder: Path, whole: Path, **tolerance: float) -> None:
    """Both have the same metrics, about, and count as the same run."""
    for here, there in zip(metrics(folder), metrics(whole), strict=True):
        assert here == pytest.approx(there, **tolerance)
    assert read_run(folder)["settings"] == read_run(whole)["settings"]


def check_refused(recipe: Any, settings: Any, told: str, folder: Path) -> None:
    """Nothing is prepared nor written, and one line tells why."""
    with pytest.raises(ValueError) as error:
        recipe.prepare(settings)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert not folder.exists()
