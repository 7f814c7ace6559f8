"""How the processes of a training or a screening find each other; light, as other settings are."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """Settings of work by one process or, each with its own --process-id, by several.

    Attributes:
      distributed: join the processes of a job; SLURM, Kubernetes, Open MPI and TPU pods tell which there are.
        --devices is then all that they have, if not given.
      coordinator: HOST:PORT where process 0 listens, where no cluster tells it.
      num_processes: of the job, where no cluster tells it.
      process_id: of this one, from 0, where no cluster tells it.
      start_seconds: that processes wait for each other at the start.
      peer_seconds: without a sign of life from a process after which the others end.
    """

    distributed: bool = False
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    start_seconds: int = 300
    peer_seconds: int = 60


JOB_OPTIONS = frozenset(field.name for field in fields(JobSettings))
"""Names of settings that no result depends on."""
