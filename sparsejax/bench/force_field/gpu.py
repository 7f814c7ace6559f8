"""On a GPU: one molecule, a batch of them, and a large crystal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sparsejax.bench.contest import Call
from sparsejax.bench.force_field import systems
from sparsejax.bench.force_field.race import Contestant, ForceRace, decide
from sparsejax.bench.force_field.speed import RANDOM_NOTE, filter_work
from sparsejax.bench.force_field.systems import Network, Task
from sparsejax.bench.machine import Machine
from sparsejax.bench.peers.torch_net import PeerError
from sparsejax.bench.pinned import tell
from sparsejax.bench.report import Row, Target

_LIMITS = {1: 0.5, 32: 1.0}  # ms
_PUBLISHED_NOTE = (
    "Published for the Original on an RTX 3080 Ti: 2.97 ms for one molecule and 36.6 ms for 32, energy alone."
)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
      batches: molecules in a call.
      repeats: of the cubic cell of silicon, in each direction.
      sizes: names of the networks; the crystal is that of the first.
    """

    batches: tuple[int, ...] = (1, 32)
    repeats: int = 16
    sizes: tuple[str, ...] = tuple(systems.SIZES)


QUICK = Plan((1,), 2, ("Ultra-tiny",))


def measure(*, quick: bool, threads: int, checkpoints: Sequence[str] = ()) -> list[Row]:
    """All rows, or none where jax finds no GPU."""
    machine = Machine.of_gpu(threads)
    if machine is None:
        return []
    rows = []
    for contest in races(systems.networks(checkpoints), QUICK if quick else Plan(), device="cuda"):
        row = with_rate(decide(contest.race, machine, quick=quick), contest.atoms)
        tell(row)
        rows.append(row)
    return rows


@dataclass(frozen=True)
class Sized:
    """A race, and how many atoms a call computes."""

    race: ForceRace
    atoms: int


def races(networks: Sequence[Network], plan: Plan, *, device: str) -> list[Sized]:
    """Of molecules for each network, and of the crystal for the first one."""
    chosen = [network for network in networks if network.trained or network.name in plan.sizes]
    found = [molecule_race(network, batch, device) for network in chosen for batch in plan.batches]
    return [*found, crystal_race(chosen[0], plan.repeats, device)]


def molecule_race(network: Network, batch: int, device: str) -> Sized:
    """Energies and forces of so many molecules in one call."""
    task = Task(network, tuple(systems.molecules(batch)))
    limit = _LIMITS.get(batch)
    plural = "molecule" if batch == 1 else "molecules"
    return _sized(
        task,
        f"{network.name}, energy and forces, {batch} {plural} ({task.atoms} atoms)",
        () if limit is None else (Target(at_most=limit),),
        device,
    )


def crystal_race(network: Network, repeats: int, device: str) -> Sized:
    """Energies and forces of a large crystal."""
    task = Task(network, (systems.silicon(repeats),))
    return _sized(
        task, f"{network.name}, energy and forces, {task.atoms:,} atoms of periodic silicon", (), device
    )


def with_rate(row: Row, atoms: int) -> Row:
    """The row with atoms per second beside the errors."""
    return replace(row, quality={**row.quality, "atoms per second": f"{1e3 * atoms / row.ours:,.0f}"})


def _sized(task: Task, case: str, targets: Sequence[Target], device: str) -> Sized:
    usual = systems.usual_filters(task.network)
    other = {"exact": "table", "table": "exact"}[usual]
    race = ForceRace(
        case=case,
        ours=Contestant(*systems.ours(task, usual)),
        peers={
            name: partial(_on_device, build, device)
            for name, build in systems.torch_peers(task, compiled=False, device=device).items()
        },
        read_peer=systems.read_torch,
        exact=partial(systems.exact, task),
        bound=f"launches; {filter_work(task) / 1e9:.3f} GFLOP of filters",
        variants={f"{other} filters": Contestant(*systems.ours(task, other))},
        targets=targets,
        quality={"filters of ours": usual},
        notes=(RANDOM_NOTE, _PUBLISHED_NOTE),
    )
    return Sized(race, task.atoms)


def _on_device(build: Any, device: str) -> Call:
    import torch

    if device == "cpu":
        return build()
    if not torch.cuda.is_available():
        raise PeerError("torch here has no CUDA")
    call = build()

    def synchronised() -> Any:
        found = call()
        torch.cuda.synchronize()
        return found

    return synchronised
