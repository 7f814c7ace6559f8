"""Several processes as one job, on JAX's own runtime: how they start, who holds which rows, how they end."""

from __future__ import annotations

import atexit
import ctypes
import dataclasses
import json
import os
import re
import signal
import socket
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec, Sharding

from sparsejax.checkpoint.native.barrier import wait_for_all
from sparsejax.ops import backends
from sparsejax.training.errors import RunError
from sparsejax.training.job_settings import JobSettings

SettingsT = TypeVar("SettingsT", bound=JobSettings)

_UNREACHED = re.compile("Gloo|[Bb]arrier|UNAVAILABLE|DEADLINE_EXCEEDED|Connection (closed|reset)")

_HANDLERS: list[Any] = []
"""Held for the C library, which calls the last one."""

_OWN = ("process_id", "quiet", "plain")
"""Settings that processes may have of their own; paths, too, as mounts may differ."""

_RESUMABLE: list[bool] = []
"""Not empty in a job that can be continued."""


def start_processes(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    start_seconds: int = JobSettings.start_seconds,
    peer_seconds: int = JobSettings.peer_seconds,
    resumable: bool = False,
) -> None:
    """Join the processes of a job; call it before anything that asks JAX for devices.

    Afterwards `jax.devices` lists those of all processes. A process that dies takes the others with it: they
    end with exit status 1 and a line on standard error. So does one that ends by itself without
    `end_processes`. On CPUs the processes talk by gloo.

    Args:
      coordinator: HOST:PORT of process 0, which listens there; SLURM, Kubernetes, Open MPI and TPU pods tell
        all three to JAX.
      num_processes: of the job.
      process_id: of this one, from 0.
      start_seconds: to wait for each other at the start.
      peer_seconds: without a sign of life after which a process counts as gone.
      resumable: whether what is done can be continued with --resume, for the line about a process that died.

    Raises:
      ValueError: only some of the three are given, or are impossible, or nothing tells them; one line.
      RuntimeError: JAX is at work already, the port is taken, or nobody answers at it; one line.

    Example:
      >>> start_processes("localhost:1234", num_processes=2)
      Traceback (most recent call last):
      ValueError: --coordinator, --num-processes and --process-id belong together: give all three or none
    """
    _check(coordinator, num_processes, process_id)
    for name, seconds in (("start", start_seconds), ("peer", peer_seconds)):
        if seconds < 1:
            raise ValueError(f"--{name}-seconds must be at least 1, not {seconds}")
    if coordinator is not None and process_id:
        _wait_for_answer(coordinator, start_seconds)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    _end_aborts_with(f"not all processes of the job came within {start_seconds} s: start all of them again")
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=start_seconds,
            heartbeat_timeout_seconds=peer_seconds,
            shutdown_timeout_seconds=start_seconds,
        )
    except ValueError as error:
        raise ValueError(
            "no cluster that JAX knows of tells which processes there are: "
            "give --coordinator, --num-processes and --process-id"
        ) from error
    except RuntimeError as error:
        taken = f"{coordinator}: process 0 cannot listen there; is the port taken?"
        raise RuntimeError(taken if "RPC server" in str(error) else _line(error)) from error
    if backends.platform() == "cpu":  # one process may wait for ever where it reads a kept program of a job
        jax.config.update("jax_enable_compilation_cache", False)
    atexit.register(_leave)
    if resumable:
        _RESUMABLE.append(True)
    _end_aborts_with(_lost_words())


def joined(settings: SettingsT) -> SettingsT:
    """Start the processes that the settings of a training tell, and spread it over all their devices.

    Args:
      settings: with ``devices``, and ``model_devices`` where large matrices are cut.

    Returns:
      the settings, for all devices of the job if they are for one.

    Raises:
      ValueError: see `start_processes`; or settings of processes without --distributed.
      RunError: the processes are told different things.
      RuntimeError: see `start_processes`.

    Example:
      >>> joined(JobSettings(num_processes=2))
      Traceback (most recent call last):
      ValueError: --coordinator, --num-processes and --process-id are for a job with --distributed
    """
    told = (settings.coordinator, settings.num_processes, settings.process_id)
    if not settings.distributed:
        if any(value is not None for value in told):
            raise ValueError(
                "--coordinator, --num-processes and --process-id are for a job with --distributed"
            )
        return settings
    resumable = hasattr(settings, "resume")
    start_processes(
        *told,
        start_seconds=settings.start_seconds,
        peer_seconds=settings.peer_seconds,
        resumable=resumable,
    )
    values = {name: value for name, value in vars(settings).items() if not isinstance(value, Path)}
    check_same(
        "the processes of this job are told different things",
        {name: value for name, value in values.items() if name not in _OWN},
    )
    devices: int = getattr(settings, "devices", 1)
    if devices > 1:
        return settings
    every = max(1, jax.device_count() // getattr(settings, "model_devices", 1))
    changed: dict[str, Any] = {"devices": every}
    return dataclasses.replace(settings, **changed)


def end_processes() -> None:
    """Wait until all processes of the job have come here, and part; does nothing in a job of one process.

    Example:
      >>> end_processes()
    """
    if not jax.distributed.is_initialized():
        return
    wait_for_all("end")
    jax.distributed.shutdown()


def is_first_process() -> bool:
    """Whether this process writes what only one may write.

    Example:
      >>> is_first_process()
      True
    """
    return jax.process_index() == 0


def check_same(what: str, document: Any) -> None:
    """Refuse to go on with processes that differ; all of them must call it, and none returns before.

    Args:
      what: is wrong if they do, for errors.
      document: plain JSON that is to be the same in all.

    Raises:
      RunError: it is not.

    Example:
      >>> check_same("the processes read different texts", {"text checksum": 7})
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    wait_for_all("compare")
    own = np.uint32(zlib.crc32(json.dumps(document, sort_keys=True, default=str).encode()))
    everyone = np.asarray(multihost_utils.process_allgather(own))
    if different := np.flatnonzero(everyone != everyone[0]).tolist():
        raise RunError(f"{what}: process {different[0]} differs from process 0")


def connect(mesh: Mesh) -> None:
    """Let the devices of each axis meet now: on CPUs they give up on one that is half a minute late.

    A process that compiles its first step for so much longer than another would end the job otherwise.

    Args:
      mesh: of the devices of all processes.

    Example:
      >>> from sparsejax.training.sharding import training_mesh
      >>> connect(training_mesh())
    """
    if jax.process_count() == 1:
        return
    for axes in (*mesh.axis_names, mesh.axis_names):
        wait_for_all("connect")

        def met(axes: Any = axes) -> Any:
            return jax.lax.psum(jax.lax.axis_index(axes), axes)

        jax.jit(jax.shard_map(met, mesh=mesh, in_specs=(), out_specs=PartitionSpec()))().block_until_ready()


def agreed(decision: bool) -> bool:
    """What the first process has decided, in all of them; all must call it.

    Args:
      decision: of this process.

    Example:
      >>> agreed(True)
      True
    """
    if jax.process_count() == 1:
        return decision
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.int32(decision)))


def own_rows(sharding: Sharding, rows: int) -> slice:
    """The rows of a batch that this process must make: those that its devices hold.

    Args:
      sharding: of the batch; its first axis is that of rows.
      rows: of the batch, over all processes.

    Raises:
      ValueError: it has none of them, or its devices are not neighbours in the mesh.

    Example:
      >>> from sparsejax.training.sharding import batch_sharding, training_mesh
      >>> own_rows(batch_sharding(training_mesh(), 4), 4)
      slice(0, 4, None)
    """
    indices = sharding.addressable_devices_indices_map((rows,)).values()
    held = [index[0].indices(rows) for index in indices if index is not None]
    if not held:
        raise ValueError(
            f"process {jax.process_index()} has none of the devices that the batch is spread over"
        )
    first, last = min(start for start, _, _ in held), max(stop for _, stop, _ in held)
    if last - first != sum(stop - start for start, stop in {(start, stop) for start, stop, _ in held}):
        raise ValueError(
            f"the devices of process {jax.process_index()} are not neighbours in the mesh; make it of "
            "`sharding.first_devices`"
        )
    return slice(first, last)


def from_own_rows(sharding: Sharding, rows: int, parts: Any) -> Any:
    """Arrays over the devices of all processes, from the rows that each one has made.

    Args:
      sharding: of the arrays; their first axis is that of rows.
      rows: of the whole arrays.
      parts: pytree of NumPy arrays, those of `own_rows`.

    Returns:
      a tree of `jax.Array`.

    Example:
      >>> from sparsejax.training.sharding import batch_sharding, training_mesh
      >>> from_own_rows(batch_sharding(training_mesh(), 2), 2, {"x": np.zeros((2, 3))})["x"].shape
      (2, 3)
    """

    def placed(part: np.ndarray) -> jax.Array:
        whole: jax.Array = jax.make_array_from_process_local_data(sharding, part, (rows, *part.shape[1:]))
        return whole

    return jax.tree.map(placed, parts)


def gathered(tree: Any) -> Any:
    """The same arrays, those that span processes as whole NumPy arrays; all processes must call it.

    Args:
      tree: of `jax.Array` and NumPy arrays.

    Example:
      >>> gathered({"x": jax.numpy.ones(2)})["x"].tolist()
      [1.0, 1.0]
    """

    def whole(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if leaf.is_fully_replicated:
            return np.asarray(leaf)
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(whole, tree)


@contextmanager
def told_losses() -> Iterator[None]:
    """Tell a failure to reach another process in one line.

    Raises:
      RunError: another process is gone.

    Example:
      >>> with told_losses():
      ...     check_same("the processes read different texts", {"text checksum": 7})
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:  # what JAX makes of it depends on the call
        if jax.distributed.is_initialized() and _UNREACHED.search(str(error)):
            raise RunError(_lost_words()) from error
        raise


def _lost_words() -> str:
    ends = (
        f"process {jax.process_index()} of {jax.process_count()} ends, as another one is gone: start all of "
    )
    if not _RESUMABLE:
        return ends + "them again"
    return ends + "them again with --resume, as many as you like, to continue from the last saved step"


def _check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    given: Mapping[str, Any] = {
        "--coordinator": coordinator,
        "--num-processes": num_processes,
        "--process-id": process_id,
    }
    if all(value is None for value in given.values()):
        return
    if coordinator is None or num_processes is None or process_id is None:
        raise ValueError(
            "--coordinator, --num-processes and --process-id belong together: give all three or none"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"--coordinator is HOST:PORT of process 0, not {coordinator!r}")
    if num_processes < 1:
        raise ValueError(f"--num-processes must be at least 1, not {num_processes}")
    if not 0 <= process_id < num_processes:
        raise ValueError(f"--process-id must be between 0 and {num_processes - 1}, not {process_id}")


def _wait_for_answer(coordinator: str, seconds: int) -> None:
    """Return once process 0 listens: JAX itself would end the process with a stack trace if it never did."""
    host, _, port = coordinator.rpartition(":")
    stop = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > stop:
                raise RuntimeError(
                    f"{coordinator}: process 0 did not answer within {seconds} s ({_line(error)}): is it "
                    "started, and is the address right?"
                ) from error
            time.sleep(0.2)


def _leave() -> None:
    """Exit at once: JAX would wait for the others first, which may be waiting for this one."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _end_aborts_with(words: str) -> None:
    """Say what it means that the runtime aborts, which it does when a peer is gone.

    It aborts from a thread of its own, so that no exception comes to the training loop, and a handler of
    Python's `signal` would have to wait for the main thread, which waits for the peer.
    """

    def end(number: int) -> None:
        os.write(2, f"sparsejax: {words}\n".encode())
        os._exit(1)

    _HANDLERS.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(end))
    ctypes.CDLL(None).signal(int(signal.SIGABRT), _HANDLERS[-1])


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
