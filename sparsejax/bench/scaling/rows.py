"""What spreading a step over devices costs: virtual devices on the cores of one machine.

``sparsejax bench scaling`` runs a training step of each family on 1, 2 and 4 virtual devices of one process
and on 2 devices of each of 2 processes, and counts what the compiled programs send. Virtual devices share the
cores: nothing gets faster, and what a step takes beyond its own work is the price of spreading it.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from sparsejax.bench.machine import Machine
from sparsejax.bench.pinned import allowed_cores, run_pinned, tell
from sparsejax.bench.report import Row
from sparsejax.bench.scaling.limits import limit_rows
from sparsejax.bench.scaling.steps import WORKS, Program, Work, compiled_step
from sparsejax.bench.timing import race

_MOST, _PROCESSES = 4, 2
_REPETITIONS, _QUICK = 15, 3
_NOTE = (
    "Scaling: virtual devices share the cores of this machine, so that a step only gains what several "
    "devices use better of the same cores. The numbers are the time of a step over that of its work on one "
    "device: 1 is a step whose spreading costs nothing; below 1, several devices use the cores better than "
    "one does. Two processes talk by gloo."
)


def run(quick: bool = False, *, checkpoint: Any = None, threads: int = 1) -> list[Row]:
    """All rows, each family in a child process of its own.

    Args:
      quick: fewer repetitions.
      checkpoint: not used: all networks are random.
      threads: not used: devices share all cores.
    """
    del checkpoint, threads
    cores = len(allowed_cores())
    rows: list[Row] = []
    for family in (*WORKS, "limits"):
        rows += run_pinned(__name__, {"family": family, "quick": quick}, cores)
    return rows


def measure(*, family: str, quick: bool, threads: int) -> list[Row]:
    """One family of `run` in this process."""
    import jax

    jax.config.update("jax_num_cpu_devices", _MOST)
    machine = Machine.describe(threads)
    rows = limit_rows(machine) if family == "limits" else _spread_rows(family, machine, quick=quick)
    for row in rows:
        tell(row)
    return rows


def _spread_rows(family: str, machine: Machine, *, quick: bool) -> list[Row]:
    work = WORKS[family]()
    each, repetitions = work.each, _QUICK if quick else _REPETITIONS
    programs = {
        "1 device": compiled_step(work, 1, each),
        "2 devices": compiled_step(work, 2, 2 * each),
        "4 devices": compiled_step(work, _MOST, _MOST * each),
        "all on 1 device": compiled_step(work, 1, _MOST * each),
    }
    times = race(
        {name: program.call for name, program in programs.items()},
        repetitions=repetitions,
        time_limit=2 if quick else 10,
    )
    medians = {name: 1e3 * timing.median for name, timing in times.items()}
    medians["4 devices of 2 processes"] = 1e3 * _job_seconds(family, repetitions)
    one, several = medians["1 device"], programs["4 devices"]
    alike: dict[str, Any] = {
        "device": machine.device,
        "threads": machine.threads,
        "versions": machine.versions,
    }
    alike |= {"unit": "x", "peers": {}, "notes": (_NOTE,), "bound": "the cores, which all devices share"}
    weak = Row(
        case=f"{work.words}, weak: 4 devices with {each} {work.rows} each, over 4 times one device's",
        ours=medians["4 devices"] / (_MOST * one),
        variants={
            "2 devices": medians["2 devices"] / (2 * one),
            "2 processes of 2 devices": medians["4 devices of 2 processes"] / (_MOST * one),
        },
        quality={"per step": _told(medians, "1 device", "4 devices"), "sent": _sent(several)},
        **alike,
    )
    strong = Row(
        case=f"{work.words}, strong: {_MOST * each} {work.rows} on 4 devices, over one device",
        ours=medians["4 devices"] / medians["all on 1 device"],
        variants={
            "2 processes of 2 devices": medians["4 devices of 2 processes"] / medians["all on 1 device"]
        },
        quality={"per step": _told(medians, "all on 1 device", "4 devices of 2 processes")},
        **alike,
    )
    return [weak, strong]


def _told(medians: Mapping[str, float], *names: str) -> str:
    return ", ".join(f"{medians[name]:.1f} ms {name}" for name in names)


def _sent(program: Program) -> str:
    """What the collectives give a device, beside the parameters."""
    count = f"{program.collectives} collective{'s' * (program.collectives != 1)}"
    if not program.parameters:
        return f"{program.moved / 1e3:,.1f} kB per device in {count}, at the end of the search"
    moved, gradients = program.moved / 1e6, 4 * program.parameters / 1e6
    return f"{moved:.2f} MB per step and device in {count}; the gradients are {gradients:.2f} MB"


def _job_seconds(family: str, repetitions: int) -> float:
    """Median step of two processes with two devices each."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        coordinator = f"localhost:{listener.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={_MOST // _PROCESSES} {os.environ.get('XLA_FLAGS', '')}"
    job = [
        subprocess.Popen(
            [sys.executable, "-m", __name__, coordinator, str(number), family, str(repetitions)],
            env={**os.environ, "XLA_FLAGS": flags.strip()},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(_PROCESSES)
    ]
    try:
        told = [process.communicate(timeout=300)[0] for process in job]
    finally:
        for process in job:
            process.kill()
            process.wait()
    if failed := [number for number, process in enumerate(job) if process.returncode]:
        raise RuntimeError(f"{family}: processes {failed} of the job failed; their own words stand above")
    seconds: float = json.loads(told[0].splitlines()[-1])
    return seconds


def main() -> None:
    """One process of the job: times its steps."""
    from sparsejax.training.processes import end_processes, start_processes

    coordinator, number, family, repetitions = sys.argv[1:]
    start_processes(coordinator, _PROCESSES, int(number))
    work: Work = WORKS[family]()
    call: Callable[[], Any] = compiled_step(work, _MOST, _MOST * work.each).call
    call()
    seconds = []
    for _ in range(int(repetitions)):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    print(json.dumps(statistics.median(seconds)), flush=True)
    end_processes()


if __name__ == "__main__":
    main()
