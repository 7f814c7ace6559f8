"""Energies and forces of molecules and of silicon beside torch, and how time grows with the crystal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from sparsejax.bench.force_field import systems
from sparsejax.bench.force_field.race import Contestant, ForceRace, decide
from sparsejax.bench.force_field.systems import Network, Task
from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row, Target
from sparsejax.bench.ten.networks import product_rate
from sparsejax.bench.timing import race

PUBLISHED = "torch as published"
_FLOAT = 4

_TARGETS: dict[str, dict[int, float]] = {
    "Original": {1: 3.0, 4: 2.0, 8: 1.7, 32: 1.5},
    "Tiny": {1: 4.0, 32: 2.0},
    "Ultra-tiny": {1: 4.0, 32: 2.0},
}
"""How many times faster than the torch network as published, eager or compiled, by size and batch."""

_CRYSTAL, _CRYSTAL_GROWTH = 2.0, 1.3

RANDOM_NOTE = (
    "Original, Tiny and Ultra-tiny have random weights unless --checkpoint gives a file of that size: speed "
    "does not depend on them."
)
_PEER_NOTE = (
    "'torch as published' has the published operations over a given list of edges; 'torch' leaves out what "
    "has no effect, joins products and sums over sorted edges without scatters; 'filters shared' also "
    "computes a filter once for both directions of a pair, which is this library's idea. 'Compiled' is one "
    "graph of energy and forces through torch.compile for this one shape. All sides get the same edges and "
    "positions."
)
_MOLECULE_NOTE = f"Molecules of 12 to 20 atoms, moved by 0.05 A: {', '.join(systems.MOLECULES)}."


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
      batches: molecules in a call.
      sizes: names of networks that are measured on molecules.
      repeats: of the cubic cell of silicon, in each direction: of the smaller and the larger crystal.
      compiled: whether torch is compiled, too, where there is a target.
      end_to_end: whether `ForceField.predict` is timed, too.
    """

    batches: tuple[int, ...] = (1, 4, 8, 32)
    sizes: tuple[str, ...] = tuple(systems.SIZES)
    repeats: tuple[int, int] = (4, 8)
    compiled: bool = True
    end_to_end: bool = True


QUICK = Plan((1, 4), ("Ultra-tiny",), (1, 2), compiled=False, end_to_end=False)


def molecule_race(network: Network, batch: int, plan: Plan, machine: Machine) -> ForceRace:
    """Energies and forces of so many molecules in one call."""
    task = Task(network, tuple(systems.molecules(batch)))
    target = _TARGETS.get(network.name, {}).get(batch)
    plural = "molecule" if batch == 1 else "molecules"
    race = force_race(
        task,
        f"{batch} {plural} ({task.atoms} atoms)",
        machine,
        compiled=plan.compiled and target is not None,
        target=target,
    )
    variants = dict(race.variants)
    if plan.end_to_end:
        variants["predict() from structures"] = Contestant(systems.predict(task), systems.read_predict)
    return replace(race, variants=variants, notes=(*race.notes, _MOLECULE_NOTE))


def crystal_race(network: Network, plan: Plan, machine: Machine) -> ForceRace:
    """Energies and forces of periodic silicon, the smaller crystal."""
    task = Task(network, (systems.silicon(plan.repeats[0]),))
    what = f"{task.atoms:,} atoms of periodic silicon"
    return force_race(task, what, machine, compiled=plan.compiled, target=_CRYSTAL)


def force_race(task: Task, what: str, machine: Machine, *, compiled: bool, target: float | None) -> ForceRace:
    """Our filters as they are chosen, beside the other kind and torch.

    Args:
      task: what to compute.
      what: it is, in words.
      machine: of the run.
      compiled: with compiled torch.
      target: how many times faster than the published operations in torch.
    """
    usual = systems.usual_filters(task.network)
    other = {"exact": "table", "table": "exact"}[usual]
    return ForceRace(
        case=f"{task.network.name}, energy and forces, {what}",
        ours=Contestant(*systems.ours(task, usual)),
        peers=systems.torch_peers(task, compiled=compiled),
        read_peer=systems.read_torch,
        exact=partial(systems.exact, task),
        bound=arithmetic_bound(task, machine),
        variants={f"{other} filters": Contestant(*systems.ours(task, other))},
        targets=() if target is None else (Target(PUBLISHED, at_least=target),),
        quality={"filters of ours": usual},
        notes=(RANDOM_NOTE, _PEER_NOTE),
    )


def growth_row(network: Network, repeats: tuple[int, int], machine: Machine, *, quick: bool) -> Row:
    """Time per atom of the larger crystal over that of the smaller one."""
    tasks = [Task(network, (systems.silicon(count),)) for count in repeats]
    usual = systems.usual_filters(network)
    calls = {str(place): systems.ours(task, usual)[0] for place, task in enumerate(tasks)}
    times = race(
        calls,
        repetitions=3 if quick else 11,
        repetition_seconds=1e-3 if quick else 0.2,
        time_limit=5 if quick else 60,
    )
    small, large = (1e6 * times[name].median / task.atoms for name, task in zip(calls, tasks, strict=True))
    best = [1e6 * times[name].best / task.atoms for name, task in zip(calls, tasks, strict=True)]
    return Row(
        case=(
            f"{network.name}, time per atom of {tasks[1].atoms:,} atoms of silicon over that of "
            f"{tasks[0].atoms:,}"
        ),
        unit="x",
        ours=large / small,
        peers={},
        quality={"per atom": f"{small:.1f} us, then {large:.1f} us"},
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=(Target(at_most=_CRYSTAL_GROWTH),),
        bound="the same work per atom; the larger one's features leave the cache",
        spread={"ours": round(max(timing.spread for timing in times.values()), 3)},
        best={"ours": best[1] / best[0]},
        notes=(RANDOM_NOTE,),
    )


def measure(networks: Sequence[Network], plan: Plan, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Rows of molecules, where there is a target or a file, then those of silicon with the first network."""
    chosen = [network for network in networks if network.trained or network.name in plan.sizes]
    races: list[Callable[[], ForceRace]] = [
        partial(molecule_race, network, batch, plan, machine) for network in chosen for batch in plan.batches
    ]
    crystal = chosen[0]
    races.append(partial(crystal_race, crystal, plan, machine))
    for contest in races:
        yield decide(contest(), machine, quick=quick)
    yield growth_row(crystal, plan.repeats, machine, quick=quick)


def arithmetic_bound(task: Task, machine: Machine) -> str:
    """What the machine's rates leave of a call: products, traffic of the filters, and one dispatch."""
    filters, atoms, nbytes = filter_work(task), atom_work(task), filter_bytes(task)
    rate = product_rate(machine.threads)
    return (
        f"products: {filters / 1e9:.3f} GFLOP of exact filters (values and slopes, a pair once) and "
        f"{atoms / 1e9:.3f} of atoms at {rate / 1e9:,.0f} GFLOP/s = {1e3 * (filters + atoms) / rate:.2f} ms; "
        f"filters written and read once: {nbytes / 1e6:.1f} MB at {machine.cache_gb_s:.0f} GB/s (cache) = "
        f"{nbytes / machine.cache_gb_s / 1e6:.2f} ms; dispatch {machine.dispatch_us / 1e3:.3f} ms"
    )


def filter_work(task: Task) -> float:
    """Floating-point operations of all filters of a call, once per pair: values, and slopes beside them."""
    config = task.network.config
    c, layers = config.hidden_dim, config.num_interactions
    per_pair = layers * config.num_rbf * c + (3 * layers - 1) * c * c
    return 2 * 2 * per_pair * task.edges / 2


def atom_work(task: Task) -> float:
    """Floating-point operations of products over atoms, forward and back to the features."""
    config = task.network.config
    c, layers = config.hidden_dim, config.num_interactions
    updates = layers * 2 * c * c + (3 * layers - 2) * c * c
    readout = c * (c // 2) + (c // 2) * (c // 4) + c // 4
    return 2 * 2 * (updates + readout) * task.atoms


def filter_bytes(task: Task) -> float:
    """Bytes of values and slopes of all filters of the pairs, written once and read once."""
    config = task.network.config
    per_pair = (3 * config.num_interactions - 1) * config.hidden_dim
    return 2 * 2 * _FLOAT * per_pair * task.edges / 2
