"""Jobs of several processes on this machine: how they start, what they compute, and how they end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sparsejax.training.processes import start_processes

ROOT = Path(__file__).resolve().parents[2]

START = """
import sys
from sparsejax.training.processes import end_processes, start_processes

coordinator, process_id, num_processes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
start_processes(coordinator, num_processes, process_id, start_seconds=60, peer_seconds=10)
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


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port: int = listener.getsockname()[1]
        return port


def environment(devices: int) -> dict[str, str]:
    """Of a process that sees so many virtual devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


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


def outputs(job: Sequence[subprocess.Popen[str]], seconds: float = 240) -> list[str]:
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


def test_a_port_that_nobody_answers_at_is_told():
    with pytest.raises(RuntimeError, match="process 0 did not answer within 1 s"):
        start_processes(f"localhost:{free_port()}", 2, 1, start_seconds=1)
