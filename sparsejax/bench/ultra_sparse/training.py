"""Training of ultra-sparse nets: proposals per second beside NumPy and torch, and what the nets are worth.

``sparsejax bench ultra_sparse_training`` runs this in child processes whose every library has the same
number of threads. The speed rows use the published problem: 100 points, 256 columns, 8 neurons of 2 inputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sparsejax.bench.machine import Machine
from sparsejax.bench.peers import annealer, c_loop, numpy_net
from sparsejax.bench.peers.annealer import Annealed
from sparsejax.bench.peers.weights import SparseWeights, sparse_weights
from sparsejax.bench.pinned import allowed_cores, run_pinned, tell
from sparsejax.bench.report import Row, Target
from sparsejax.bench.timing import race
from sparsejax.bench.ultra_sparse import quality as ultra_sparse_quality
from sparsejax.bench.ultra_sparse.rows import sparse_checkpoint
from sparsejax.models.ultra_sparse.export_c import Tanh

CHAINS, STEPS = 20, 20_000
PUBLISHED_PER_SECOND = 1_150
"""Of the original on one core in torch, as specs/ultra_sparse.md section 15 measured it."""

_PEER_STEPS = {"numpy": 4000, "torch": 1000, "torch as published": 400}
_PEERS: dict[str, Callable[..., Annealed]] = {
    "numpy": annealer.numpy_anneal,
    "torch": annealer.torch_anneal,
    "torch as published": annealer.torch_as_published,
}


def run(quick: bool = False, *, checkpoint: Any = None, threads: int = 1) -> list[Row]:
    """All rows, each group in a child process of its own.

    Args:
      quick: fewer seeds, steps and repetitions.
      checkpoint: net for the C rows; the project's own if None.
      threads: not used: one-chain and C rows have one thread, the others all cores.

    Returns:
      rows in the order of the table.
    """
    del threads
    path = None if checkpoint is None else str(checkpoint)
    cores = len(allowed_cores())
    groups = (("many", cores), ("one", 1), ("export", 1))
    rows: list[Row] = []
    for group, count in groups:
        rows += run_pinned(__name__, {"group": group, "quick": quick, "checkpoint": path}, count)
    return rows + run_pinned(ultra_sparse_quality.__name__, {"quick": quick}, cores)


def measure(*, group: str, quick: bool, checkpoint: str | None, threads: int) -> list[Row]:
    """One group of `run` in this process, whose threads the caller has limited."""
    import jax

    # One device per core: chains then run side by side, which a loop of small operations alone does not.
    jax.config.update("jax_num_cpu_devices", threads)
    if group == "many":
        cold = first_protocol(quick=quick)
        machine = Machine.describe(threads)
        rows = [protocol_row(cold, machine, quick=quick), many_chains_row(machine, quick=quick)]
    elif group == "one":
        rows = [one_chain_row(Machine.describe(threads), quick=quick)]
    else:
        rows = [export_row(sparse_checkpoint(checkpoint), Machine.describe(threads), quick=quick)]
    for row in rows:
        tell(row)
    return rows


def sine_table() -> tuple[np.ndarray, np.ndarray]:
    """The published batch: features (100, 256) and targets (100,)."""
    import jax.numpy as jnp

    from sparsejax.models.ultra_sparse import expand_input

    x = np.linspace(-2 * np.pi, 2 * np.pi, 100, dtype=np.float32)
    return np.array(expand_input(jnp.asarray(x))), np.sin(x)


def annealing(chains: int | None, steps: int, rule: str = "core") -> Callable[[int], Any]:
    """A call that anneals from a seed and waits, over all devices where there are several chains."""
    import jax
    from jax.sharding import Mesh

    from sparsejax.models.ultra_sparse import UltraSparseConfig, anneal, objective

    goal = objective(*sine_table())
    mesh = Mesh(np.asarray(jax.devices()), ("chains",)) if chains and jax.device_count() > 1 else None

    def call(seed: int) -> Any:
        key = jax.random.key(seed)
        found = anneal(key, UltraSparseConfig(), goal, steps=steps, rule=rule, chains=chains, mesh=mesh)
        return jax.block_until_ready(found)

    return call


def first_protocol(*, quick: bool) -> tuple[float, np.ndarray]:
    """Seconds of 20 x 20,000 steps in a process that has compiled nothing yet, and the 20 best errors."""
    anneal = annealing(CHAINS, 2000 if quick else STEPS)
    start = time.perf_counter()
    found = anneal(0)
    return time.perf_counter() - start, np.asarray(found.loss)


def protocol_row(cold: tuple[float, np.ndarray], machine: Machine, *, quick: bool) -> Row:
    """The published protocol, beside as many runs of the NumPy peer."""
    from scipy.stats import ks_2samp, mannwhitneyu

    steps, features_targets = 2000 if quick else STEPS, sine_table()
    again = annealing(CHAINS, steps)
    start = time.perf_counter()
    again(1)
    warm = time.perf_counter() - start
    start = time.perf_counter()
    peers = np.array([annealer.numpy_anneal(*features_targets, steps, seed).mse for seed in range(CHAINS)])
    peer_seconds = time.perf_counter() - start
    seconds, own = cold
    return Row(
        case=f"published protocol: {CHAINS} runs of {steps:,} steps, with compilation",
        unit="s",
        ours=seconds,
        peers={"numpy, one run after the other": peer_seconds},
        quality={
            "mean of the best MSE": {"ours": float(own.mean()), "numpy": float(peers.mean())},
            "best MSE": {"ours": float(own.min()), "numpy": float(peers.min())},
            "p, Mann-Whitney": f"{mannwhitneyu(own, peers).pvalue:.2f}",
            "p, Kolmogorov-Smirnov": f"{ks_2samp(own, peers).pvalue:.2f}",
        },
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=(Target(at_most=10.0),),
        bound="compilation; then some forty small operations per step",
        variants={"compiled before": warm},
    )


def many_chains_row(machine: Machine, *, quick: bool) -> Row:
    """Proposals per second, summed over chains, beside one-chain peers."""
    steps = 2000 if quick else STEPS
    return _speed_row(
        f"proposals per second, {CHAINS} chains, sine problem",
        CHAINS * steps,
        {
            "ours": partial(annealing(CHAINS, steps), 0),
            "one-neuron rule": partial(annealing(CHAINS, steps, "one_neuron"), 0),
        },
        machine,
        (Target("torch as published", at_least=150), Target(no_less=150 * PUBLISHED_PER_SECOND)),
        quick=quick,
    )


def one_chain_row(machine: Machine, *, quick: bool) -> Row:
    """Proposals per second of a single chain."""
    steps = 2000 if quick else STEPS
    return _speed_row(
        "proposals per second, one chain, sine problem",
        steps,
        {
            "ours": partial(annealing(None, steps), 0),
            "one-neuron rule": partial(annealing(None, steps, "one_neuron"), 0),
        },
        machine,
        (Target(no_less=100_000),),
        quick=quick,
    )


def export_row(trained: Any, machine: Machine, *, quick: bool) -> Row:
    """One call of the exported C header, beside the numba loop, both inside a compiled loop of 1e6 calls."""
    import tempfile
    from pathlib import Path

    from sparsejax.models.ultra_sparse import export_c

    net, calls = sparse_weights(trained.params), 100_000 if quick else 1_000_000
    rows = np.random.default_rng(2).uniform(-1, 1, (64, trained.config.input_size)).astype(np.float32)
    exact = numpy_net.sparse_rows_plain(net.astype("float64"))(rows.astype(np.float64))
    variants: dict[str, Tanh] = {"ours": "libm", "rational tanh": "rational"}
    with tempfile.TemporaryDirectory() as folder:
        libraries = {
            name: c_loop.compiled_header(export_c(trained, Path(folder) / f"net_{tanh}.h", tanh=tanh))
            for name, tanh in variants.items()
        }
        errors = {
            name: float(np.max(np.abs(c_loop.c_outputs(library, rows) - exact)))
            for name, library in libraries.items()
        }
        times: dict[str, list[float]] = {name: [] for name in (*libraries, "numba")}
        for _ in range(3 if quick else 11):
            for name, library in libraries.items():
                times[name].append(c_loop.c_nanoseconds(library, rows, calls))
            times["numba"].append(c_loop.numba_nanoseconds(net, rows, calls))
    medians = {name: float(np.median(own)) for name, own in times.items()}
    return Row(
        case=f"exported C, one call inside a loop of {calls:,}",
        unit="ns",
        ours=medians["ours"],
        peers={"numba": medians["numba"]},
        quality={"max error to float64": f"{errors['ours']:.1e} (rational {errors['rational tanh']:.1e})"},
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=(Target("numba", at_least=1.0),),
        bound="nine tanhf of the C library",
        variants={"rational tanh": medians["rational tanh"]},
        best={name: min(own) for name, own in times.items()},
    )


def _speed_row(
    case: str,
    proposals: int,
    ours: dict[str, Callable[[], Any]],
    machine: Machine,
    targets: tuple[Target, ...],
    *,
    quick: bool,
) -> Row:
    features, goal = sine_table()
    peers = {name: partial(_PEERS[name], features, goal, _PEER_STEPS[name], 0) for name in _PEERS}
    times = race({**ours, **peers}, repetitions=3 if quick else 7, time_limit=120)
    rate = {name: proposals / times[name].median for name in ours}
    rate |= {name: _PEER_STEPS[name] / times[name].median for name in peers}
    found = ours["ours"]()
    return Row(
        case=case,
        unit="proposals/s",
        ours=rate["ours"],
        peers={name: rate[name] for name in peers},
        quality={
            "reported error less that in float64": {
                "ours": _largest_misreport(found, features, goal),
                **{name: _misreport(peer(), features, goal) for name, peer in peers.items()},
            }
        },
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=targets,
        bound=f"800 tanh at {machine.tanh_ns:.2f} ns = {800 * machine.tanh_ns / 1e3:.1f} us per proposal; "
        "draws; dispatch inside the loop",
        variants={name: rate[name] for name in ours if name != "ours"},
        spread={name: timing.spread for name, timing in times.items()},
        first_call={name: timing.first_call for name, timing in times.items()},
    )


def _largest_misreport(found: Any, features: np.ndarray, goal: np.ndarray) -> float:
    import jax

    single = found.loss.ndim == 0
    found = jax.tree.map(lambda leaf: leaf[None], found) if single else found
    return max(
        _misreport(Annealed(sparse_weights(_member(found.params, number)), float(loss), 0), features, goal)
        for number, loss in enumerate(found.loss)
    )


def _member(params: Any, number: int) -> Any:
    import jax

    return jax.tree.map(lambda leaf: leaf[number], params)


def _misreport(found: Annealed, features: np.ndarray, goal: np.ndarray) -> float:
    net: SparseWeights = found.net.astype("float64")
    outputs = numpy_net.sparse_rows_plain(net)(features.astype(np.float64))[:, 0]
    return abs(found.mse - float(np.mean((outputs - goal.astype(np.float64)) ** 2)))
