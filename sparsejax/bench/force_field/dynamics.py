"""Molecular dynamics: the compiled loop beside ASE's over the same potential, and what a list costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsejax.bench.contest import Call
from sparsejax.bench.force_field import systems
from sparsejax.bench.force_field.speed import RANDOM_NOTE
from sparsejax.bench.force_field.systems import Network
from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row, Target
from sparsejax.bench.timing import Timing, race

ASE = "ASE loop"
_LOOP_TARGET, _REPLICA_TARGET, _REBUILD_LIMIT = 5.0, 20.0, 20.0
_TIMESTEP = 1e-3  # fs: short, so that molecules keep together under random weights; a step costs the same
_SKIN = 0.5  # A

_LOOP_NOTE = (
    "The compiled loop records energies every 10 steps; ASE's loop (VelocityVerlet) records nothing and asks "
    "this library's calculator, which has the same network, filters and precision."
)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
      sizes: names of the networks.
      replicas: copies of a molecule, side by side.
      steps: of the compiled loop in one timed call.
      repeats: of the cubic cell of silicon, for the neighbour list.
    """

    sizes: tuple[str, ...] = tuple(systems.SIZES)
    replicas: int = 64
    steps: int = 100
    repeats: int = 8


QUICK = Plan(("Ultra-tiny",), replicas=2, steps=10, repeats=3)


def loop_rows(network: Network, plan: Plan, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Time of one step of a molecule: alone, and as one of many replicas; beside the same loop of ASE."""
    from sparsejax.models.force_field.potential import ForceField
    from sparsejax.models.force_field.tables import choose_filters

    field = ForceField(network.config, network.params, choose_filters(network.config, network.params))
    atoms = _twenty_atoms()
    few = max(1, plan.steps // 10)
    calls = {
        "one": _compiled_loop(field, atoms, plan.steps, None),
        "many": _compiled_loop(field, atoms, few, plan.replicas),
        ASE: _ase_loop(field, atoms, few),
    }
    counts = {"one": plan.steps, "many": few * plan.replicas, ASE: few}
    times = race(
        calls,
        repetitions=3 if quick else 15,
        repetition_seconds=1e-3 if quick else 0.05,
        time_limit=5 if quick else 60,
    )
    cases = {
        "one": (f"a molecule of {len(atoms)} atoms", _LOOP_TARGET),
        "many": (f"{plan.replicas} replicas of {len(atoms)} atoms at once, per replica", _REPLICA_TARGET),
    }
    for name, (what, target) in cases.items():
        yield _loop_row(
            f"{network.name}, one step of NVE, {what}",
            {contestant: times[contestant] for contestant in (name, ASE)},
            counts,
            target,
            machine,
        )


def rebuild_row(network: Network, plan: Plan, machine: Machine, *, quick: bool) -> Row:
    """A rebuild of the neighbour list inside jit, in percent of the energy and forces of a step."""
    import jax
    import jax.numpy as jnp

    from sparsejax.models.force_field.neighbors_jit import allocate, update
    from sparsejax.models.force_field.potential import predict_rows
    from sparsejax.models.force_field.tables import choose_filters

    config, params = network.config, jax.device_put(network.params)
    structure = systems.silicon(plan.repeats)
    positions, cell = jnp.asarray(structure.positions, jnp.float32), jnp.asarray(structure.cell, jnp.float32)
    state = allocate(positions, cell, True, config.cutoff, _SKIN)
    moves = np.random.default_rng(1).standard_normal(positions.shape)
    moved = positions + jnp.asarray(_SKIN * moves / np.abs(moves).max(), jnp.float32)
    species, owner = jnp.asarray(structure.species), jnp.zeros(len(positions), jnp.int32)
    tables = choose_filters(config, params)
    rebuild = jax.jit(update)

    @jax.jit
    def step(params: Any, tables: Any, positions: Any, neighbors: Any) -> Any:
        return predict_rows(
            config,
            params,
            species,
            positions,
            neighbors,
            graph_of_atom=owner,
            num_graphs=1,
            cell=cell[None],
            filters=tables,
        )

    after = rebuild(state, moved, cell)
    calls: dict[str, Call] = {
        "rebuild": lambda: jax.block_until_ready(rebuild(state, moved, cell)),
        "step": lambda: jax.block_until_ready(step(params, tables, positions, state.neighbors)),
    }
    times = race(
        calls,
        repetitions=3 if quick else 11,
        repetition_seconds=1e-3 if quick else 0.1,
        time_limit=5 if quick else 60,
    )
    rebuilt, stepped = times["rebuild"], times["step"]
    return Row(
        case=(
            f"{network.name}, neighbour list of {len(positions):,} atoms rebuilt inside jit, by the time of "
            "energy and forces"
        ),
        unit="% of the step",
        ours=100 * rebuilt.median / stepped.median,
        peers={},
        quality={
            "rebuild": f"{1e3 * rebuilt.median:.2f} ms ({state.method}, {_SKIN} A of skin)",
            "step": f"{1e3 * stepped.median:.2f} ms",
            "rebuilt without overflow": bool(int(after.builds) == 1 and not bool(after.overflow)),
        },
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=(Target(at_most=_REBUILD_LIMIT),),
        bound="finding, sorting and arranging the pairs; a list is kept for many steps",
        spread={name: round(timing.spread, 3) for name, timing in times.items()},
        best={"ours": 100 * rebuilt.best / stepped.best},
        notes=(RANDOM_NOTE,),
    )


def measure(networks: Sequence[Network], plan: Plan, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Rows of the loops, then those of the neighbour list."""
    chosen = [network for network in networks if network.trained or network.name in plan.sizes]
    for network in chosen:
        yield from loop_rows(network, plan, machine, quick=quick)
    for network in chosen:
        yield rebuild_row(network, plan, machine, quick=quick)


def _loop_row(
    case: str, times: dict[str, Timing], counts: dict[str, int], target: float, machine: Machine
) -> Row:
    name, _ = times
    names = {name: "ours", ASE: ASE}
    medians = {names[key]: 1e6 * timing.median / counts[key] for key, timing in times.items()}
    return Row(
        case=case,
        unit="us",
        ours=medians["ours"],
        peers={ASE: medians[ASE]},
        quality={"steps per second": f"{1e6 / medians['ours']:,.0f}, ASE {1e6 / medians[ASE]:,.0f}"},
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=(Target(ASE, at_least=target),),
        bound="energy and forces of the network; around them a few operations on (n, 3)",
        spread={names[key]: round(timing.spread, 3) for key, timing in times.items()},
        best={names[key]: 1e6 * timing.best / counts[key] for key, timing in times.items()},
        first_call={names[key]: timing.first_call for key, timing in times.items()},
        notes=(RANDOM_NOTE, _LOOP_NOTE),
    )


def _compiled_loop(field: Any, atoms: Any, steps: int, replicas: int | None) -> Call:
    """A call that goes on by so many steps."""
    from sparsejax.models.force_field import md

    run = md.nve(field, atoms, steps=1, timestep=_TIMESTEP, replicas=replicas)
    simulation = run.simulation

    def call() -> None:
        simulation.advance(simulation.step + steps, _ignore)

    return call


def _ase_loop(field: Any, atoms: Any, steps: int) -> Call:
    from ase import units
    from ase.md.verlet import VelocityVerlet

    moving = atoms.copy()
    moving.calc = field.calculator()
    dynamics = VelocityVerlet(moving, timestep=_TIMESTEP * units.fs)
    run: Callable[[int], Any] = dynamics.run
    return lambda: run(steps)


def _twenty_atoms() -> Any:
    from ase.collections import s22

    return s22[systems.TWENTY_ATOMS]


def _ignore(*_: Any) -> None:
    """Records are not looked at."""
