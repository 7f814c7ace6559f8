"""Jobs of several processes on this machine: how they start, what they compute, and how they end."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest

from sparsejax.training import processes as room
from sparsejax.training.errors import RunError
from sparsejax.training.job_settings import JobSettings
from sparsejax.training.logs import read_log
from sparsejax.training.processes import check_same, joined, own_rows, start_processes, told_losses
from sparsejax.training.recipes.llama.settings import LlamaSettings
from sparsejax.training.recipes.ultra_sparse.settings import UltraSparseSettings
from sparsejax.training.sharding import batch_sharding, training_mesh
from tests.command_line import run
from tests.training.recipes.runs import DYING_BATCHES, check_same_run

ROOT = Path(__file__).resolve().parents[2]

START = """
import sys
from sparsejax.training.processes import end_processes, start_processes

coordinator, process_id, num_processes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
start_processes(coordinator, num_processes, process_id, start_seconds=200, peer_seconds=200)
"""

SUM = """
import jax, numpy as np
from sparsejax.training.processes import from_own_rows, gathered, is_first_process, own_rows
from sparsejax.training.sharding import batch_sharding, training_mesh

rows = batch_sharding(training_mesh(jax.device_count()), 8)
own = own_rows(rows, 8)
assert own == slice(4 * process_id, 4 * process_id + 4) and is_first_process() == (process_id == 0)
numbers = from_own_rows(rows, 8, {"x": np.arange(8.0)[own]})["x"]
assert gathered({"x": numbers})["x"].tolist() == list(range(8))
print("sum", float(jax.jit(jax.numpy.sum)(numbers)), jax.device_count())
end_processes()
"""

LATE = """
import time

import jax, numpy as np
from sparsejax.training.processes import connect, from_own_rows, own_rows
from sparsejax.training.sharding import batch_sharding, training_mesh

mesh = training_mesh(jax.device_count() // 2, 2)
connect(mesh)
time.sleep(32 * process_id)  # as one that compiles for longer
rows = batch_sharding(mesh, 8)
numbers = from_own_rows(rows, 8, {"x": np.arange(8.0)[own_rows(rows, 8)]})["x"]
print("sum", float(jax.jit(jax.numpy.sum)(numbers)))
end_processes()
"""

TRAIN = """
from pathlib import Path
from tests.training.test_processes import train

train(sys.argv[4], Path(sys.argv[5]), devices=int(sys.argv[6]))
end_processes()
"""

COMMAND = """
import os, sys

coordinator, process_id, num_processes, *arguments = sys.argv[1:]
if process_id == "1":
    {dying}
from sparsejax.cli import main

told = ["--coordinator", coordinator, "--process-id", process_id, "--num-processes", num_processes]
main(["train", "ten", *arguments, "--distributed", *told, "--peer-seconds", "20", "--no-plots", "--quiet"])
"""

FAMILIES = ("ten", "llama", "sprout", "force_field", "ultra_sparse")
TEN = {
    "steps": 6,
    "batch_size": 8,
    "seq_len": 8,
    "model_option": ("dim=8", "n_layers=1", "num_eigenstates=4", "n_heads=2", "short_conv=0"),
    "validate_every": 3,
    "save_every": 2,
    "accumulate": 1,
}
LLAMA = {"d_model": 16, "d_ff": 32, "n_layers": 1, "n_heads": 2, "steps": 4, "seq_len": 8, "format": "f32"}
SEARCH = {"seeds": 4, "steps": 200, "hidden_size": 3, "problem_option": ("samples=60",), "baselines": False}


def settings(family: str, folder: Path, devices: int, **options):
    """Those of a few steps; data lie beside the folder. Llama's matrices are cut in two."""
    quiet = {"plots": False, "quiet": True, **options}
    if family == "ultra_sparse":
        return UltraSparseSettings(out=folder, devices=devices, **SEARCH, **quiet)
    if family == "force_field":
        from tests.training.recipes.force_field import test_recipe as toy

        few = {**toy.TOY, "epochs": 1, "batch_size": 8, **quiet}
        return toy.ForceFieldSettings(
            data=folder.parent / "toy.h5", checkpoint_dir=folder, devices=devices, **few
        )
    text = folder.parent / "text.txt"
    if family == "llama":
        cut = 2 if devices > 1 else 1
        return LlamaSettings(
            data=text, out=folder, devices=devices // cut, model_devices=cut, **LLAMA, **quiet
        )
    if family == "sprout":
        from tests.training.recipes.sprout import test_recipe as toy

        few = {"steps": 4, "sparsity_warmup_steps": 2, "warmup_steps": 1, **quiet}
        return toy.settings_of(data=text, out=folder, devices=devices, **few)
    from tests.training.recipes.ten.test_recipe import TenSettings

    return TenSettings(data=text, out=folder, devices=devices, **TEN, **quiet)


def train(families: str, folder: Path, devices: int, **options) -> None:
    """Train them one after the other, in this process or by all of its job."""
    for family in families.split():
        recipe = import_module(f"sparsejax.training.recipes.{family}.recipe")
        recipe.train(recipe.prepare(settings(family, folder / family, devices, **options)))


def prepared(folder: Path) -> Path:
    """The folder, made, with the data of all families."""
    from sparsejax.models.force_field.dataset_sources import write_dataset
    from tests.training.recipes.force_field.test_recipe import SAMPLES
    from tests.training.recipes.sprout.test_recipe import TEXT

    folder.mkdir()
    (folder / "text.txt").write_text(TEXT)
    write_dataset(SAMPLES, folder / "toy.h5")
    return folder


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port: int = listener.getsockname()[1]
        return port


def environment(devices: int) -> dict[str, str]:
    """Of a process that sees so many virtual devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    own = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **own, "JAX_ENABLE_COMPILATION_CACHE": "false"}


def start_job(program: str, processes: int, *further: str, devices: int = 2) -> list[subprocess.Popen[str]]:
    """Processes of one job: a program that begins with START.

    Args:
      program: text.
      processes: number of them.
      further: arguments, after coordinator, own number and number of processes.
      devices: virtual ones of each process.
    """
    coordinator = f"localhost:{free_port()}"
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, coordinator, str(number), str(processes), *further],
            cwd=ROOT,
            env=environment(devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]


def outputs(job: Sequence[subprocess.Popen[str]], seconds: float = 600) -> list[str]:
    """What the processes of a job print, if all end well."""
    found = []
    try:
        for process in job:
            out, err = process.communicate(timeout=seconds)
            assert process.returncode == 0, err
            found.append(out)
    finally:
        for process in job:
            process.kill()
    return found


def test_two_processes_share_rows_and_sum_them():
    for out in outputs(start_job(START + SUM, 2)):
        assert "sum 28.0 4" in out


@pytest.mark.slow
def test_a_process_that_comes_half_a_minute_late_is_waited_for():
    for out in outputs(start_job(START + LATE, 2)):
        assert "sum 28.0" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("localhost:1",), "belong together: give all three or none"),
        (("localhost:1", 2), "belong together"),
        ((None, 2, 0), "belong together"),
        (("localhost", 2, 0), "HOST:PORT of process 0, not 'localhost'"),
        (("localhost:99999", 2, 0), "HOST:PORT"),
        (("localhost:1", 0, 0), "--num-processes must be at least 1, not 0"),
        (("localhost:1", 2, 2), "--process-id must be between 0 and 1, not 2"),
    ],
)
def test_impossible_jobs_are_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        start_processes(*arguments)


@pytest.mark.parametrize("name", ["start", "peer"])
def test_no_time_to_wait_is_refused(name):
    with pytest.raises(ValueError, match=f"^--{name}-seconds must be at least 1, not 0$"):
        start_processes("localhost:1", 1, 0, **{f"{name}_seconds": 0})


@pytest.fixture
def joining(monkeypatch):
    """JAX joins no job and keeps its settings; gives what it was asked for, and takes what it answers."""
    asked, answers = [], []

    def initialize(*arguments, **options):
        asked.append((arguments, options))
        if answers:
            raise answers.pop()

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(type(jax.config), "update", lambda *_: None)
    monkeypatch.setattr(room, "_end_aborts_with", asked.append)
    monkeypatch.setattr(room.atexit, "register", lambda function: None)
    monkeypatch.setattr(room, "_RESUMABLE", [])
    return asked, answers


@pytest.mark.parametrize(
    ("answer", "arguments", "told"),
    [
        (
            ValueError("coordinator_address should be defined."),
            (),
            "no cluster that JAX knows of tells which",
        ),
        (
            RuntimeError("Failed to start RPC server"),
            ("localhost:1", 2, 0),
            "^localhost:1: process 0 cannot listen there; is the port taken",
        ),
        (RuntimeError("JAX is at work\nalready"), ("localhost:1", 2, 0), "^JAX is at work already$"),
    ],
)
def test_what_jax_cannot_join_is_one_line(joining, answer, arguments, told):
    joining[1].append(answer)
    with pytest.raises(type(answer), match=told) as error:
        start_processes(*arguments)
    assert "\n" not in str(error.value)


def test_a_job_takes_all_devices_and_says_how_it_goes_on(joining, tmp_path):
    given = UltraSparseSettings(out=tmp_path, distributed=True, coordinator="localhost:1")
    alone = dataclasses.replace(given, num_processes=1, process_id=0)
    assert joined(alone) == dataclasses.replace(alone, devices=jax.device_count())
    assert joined(dataclasses.replace(alone, devices=2)).devices == 2
    (arguments, options), lost = (asked for asked in joining[0][1:3])
    assert arguments == ("localhost:1", 1, 0) and options["heartbeat_timeout_seconds"] == given.peer_seconds
    assert "start all of them again with --resume, as many as you like, to continue" in lost


def test_a_process_that_is_told_other_things_is_named(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(room, "wait_for_all", lambda name: None)
    everyone = np.array([[7], [7], [8]], np.uint32)
    monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", lambda own: everyone)
    with pytest.raises(RunError, match="^they read different texts: process 2 differs from process 0$"):
        check_same("they read different texts", {"checksum": 7})


@pytest.mark.parametrize(
    ("held", "told"),
    [([], "process 0 has none of the devices"), ([0, 2], "devices of process 0 are not neighbours")],
)
def test_rows_of_devices_that_stand_apart_are_refused(held, told, monkeypatch):
    sharding = batch_sharding(training_mesh(), 4)
    indices = {number: (slice(number, number + 1),) for number in held}
    monkeypatch.setattr(type(sharding), "addressable_devices_indices_map", lambda self, shape: indices)
    with pytest.raises(ValueError, match=told):
        own_rows(sharding, 4)


def test_a_peer_that_is_gone_is_told_in_a_job_alone(monkeypatch):
    for is_job, error in ((False, RuntimeError), (True, RunError)):
        monkeypatch.setattr(jax.distributed, "is_initialized", lambda is_job=is_job: is_job)
        with pytest.raises(
            error, match="another one is gone: start all of them again$" if is_job else "Gloo"
        ):
            with told_losses():
                raise RuntimeError("Gloo all-reduce failed: Connection closed by peer")


def test_a_port_that_nobody_answers_at_is_told():
    with pytest.raises(RuntimeError, match="process 0 did not answer within 1 s"):
        start_processes(f"localhost:{free_port()}", 2, 1, start_seconds=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Where the runs of one process with one device are, each trained when it is asked for."""
    pytest.importorskip("grain")
    pytest.importorskip("tokenizers")
    pytest.importorskip("h5py")
    folder = prepared(tmp_path_factory.mktemp("whole") / "one")

    def of(family: str) -> Path:
        if not (folder / family).exists():
            train(family, folder, devices=1)
        return folder / family

    return of


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "families"), [(2, FAMILIES), (4, ("ten",))])
def test_losses_of_several_processes_are_those_of_one(processes, families, whole, tmp_path):
    folder = prepared(tmp_path / "several")
    arguments = " ".join(families), str(folder), str(2 * processes)
    outputs(start_job(START + TRAIN, processes, *arguments))
    for family in families:
        if family != "ultra_sparse":
            check_same_run(folder / family, whole(family), rel=1e-5, abs=1e-5)
            continue
        here, there = (read_log(place / "log.csv") for place in (folder / family, whole(family)))
        for name, values in there.items():
            np.testing.assert_allclose(here[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_killed_process_ends_the_job_which_another_number_of_processes_continues(whole, tmp_path):
    folder = prepared(tmp_path / "killed")
    dying = DYING_BATCHES.format(module="sparsejax.training.text_run", step=3).replace("\n", "\n    ")
    options = {**TEN, "data": folder / "text.txt", "out": folder / "ten"}
    networks = options.pop("model_option")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    flags += [f"--model-option={option}" for option in networks]
    living, dead = start_job(COMMAND.format(dying=dying), 2, *flags)
    with living, dead:
        dead.communicate(timeout=240)
        _, told = living.communicate(timeout=60)
    assert dead.returncode == -9
    assert living.returncode == 1
    assert told.splitlines()[-1].startswith("sparsejax: process 0 of 2 ends, as another one is gone: start")
    train("ten", folder, devices=1, resume=True)
    check_same_run(folder / "ten", whole("ten"), rel=1e-5, abs=1e-5)


def test_settings_of_a_job_belong_to_distributed_trainings(capsys, tmp_path):
    with pytest.raises(ValueError, match="are for a job with --distributed"):
        joined(JobSettings(process_id=1))
    told = ["--data", tmp_path, "--out", tmp_path / "run", "--distributed", "--coordinator", "localhost:1"]
    assert run(["train", "ten", *told]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith("belong together: give all three or none")
    check_same("one process cannot differ from itself", {"seed": 1})
