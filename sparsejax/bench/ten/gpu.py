"""On a GPU: the recurrence beside a copy of the same bytes, and training beside the torch loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sparsejax.bench.contest import Call
from sparsejax.bench.machine import Machine
from sparsejax.bench.peers import torch_ten
from sparsejax.bench.peers.torch_net import PeerError
from sparsejax.bench.pinned import tell
from sparsejax.bench.report import Row, Target
from sparsejax.bench.ten import networks as nets
from sparsejax.bench.ten.race import NetworkRace, decide, gradient_difference, largest_difference
from sparsejax.bench.timing import race

_SHAPE, _QUICK_SHAPE = (8, 16_384, 1024), (2, 512, 64)
_COPY_SHARE, _LOOP_ADVANTAGE = 50.0, 20.0
_COPIED = 1 << 28
_FLOAT_BYTES = 4


def measure(*, quick: bool, threads: int) -> list[Row]:
    """All rows, or none where jax finds no GPU."""
    machine = Machine.of_gpu(threads)
    if machine is None:
        return []
    sizes = nets.QUICK if quick else nets.Sizes()
    rows = [bandwidth_row(machine, _QUICK_SHAPE if quick else _SHAPE, quick=quick)]
    rows.append(decide(training_race(sizes, machine), machine, quick=quick))
    for row in rows:
        tell(row)
    return rows


def bandwidth_row(machine: Machine, shape: tuple[int, int, int], *, quick: bool) -> Row:
    """Bytes per second of the op, forward, in percent of those of a copy."""
    import jax
    import jax.numpy as jnp

    from sparsejax.ops.linear_recurrence import Decay, linear_recurrence

    drive = jax.random.normal(jax.random.key(0), shape), jax.random.normal(jax.random.key(1), shape)
    decay = Decay(jnp.log(jnp.linspace(0.9, 0.999, shape[2])), jnp.linspace(0.0, 6.0, shape[2]))
    values = jnp.ones(_COPIED // (64 if quick else 1), jnp.float32)
    copy = jax.jit(lambda values: values + 1)
    ops = {
        name: jax.jit(lambda drive, decay, name=name: linear_recurrence(drive, decay, backend=name)[0])
        for name in ("auto", "associative", "chunked")
    }
    calls: dict[str, Call] = {name: partial(_waited, op, drive, decay) for name, op in ops.items()}
    times = race({**calls, "copy": lambda: copy(values)}, repetitions=5 if quick else 21)
    copied = 2 * _FLOAT_BYTES * values.size / times["copy"].median
    nbytes = 4 * _FLOAT_BYTES * np.prod(shape)
    share = {name: 100 * nbytes / times[name].median / copied for name in ops}
    slower_copy = times["copy"].best / times["copy"].median
    batch, length, width = shape
    return Row(
        case=f"recurrence op, forward, B={batch}, T={length:,}, K={width:,}",
        unit="% of copy bandwidth",
        ours=share["auto"],
        peers={},
        quality={
            "max error to float64": {"ours": _first_columns_error(ops["auto"](drive, decay), drive, decay)},
            "time": f"{1e3 * times['auto'].median:.3f} ms",
        },
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=(Target(no_less=_COPY_SHARE),),
        bound=(
            f"{nbytes / 1e9:.2f} GB in and out at {copied / 1e9:,.0f} GB/s, the measured copy = "
            f"{1e3 * nbytes / copied:.3f} ms"
        ),
        variants={name: value for name, value in share.items() if name != "auto"},
        spread={name: round(timing.spread, 3) for name, timing in times.items()},
        best={"ours": share["auto"] * times["auto"].median / times["auto"].best * slower_copy},
        first_call={name: timing.first_call for name, timing in times.items()},
    )


def training_race(sizes: nets.Sizes, machine: Machine) -> NetworkRace:
    """Loss and gradients of a long input beside the torch loop on the same GPU."""
    network, batch = nets.our_network("fft", sizes), nets.token_batch(sizes, sizes.longer)
    ours = network.training(*batch)
    scanned = network.training(*batch, backend="reference")

    def looped() -> Call:
        import torch

        if not torch.cuda.is_available():
            raise PeerError("torch here has no CUDA; our own scan over time stands in for it")
        step = nets.torch_training(network.params, nets.diagonal_peers()["torch loop"], batch, device="cuda")
        return lambda: _synchronised(step)

    def fft() -> Call:
        import torch

        if not torch.cuda.is_available():
            raise PeerError("torch here has no CUDA")
        step = nets.torch_training(
            network.params,
            lambda weights: torch_ten.network(weights, torch_ten.fft, normalize_input=True),
            batch,
            device="cuda",
        )
        return lambda: _synchronised(step)

    kept: list[Any] = []

    def error(name: str, result: Any) -> float | None:
        if not kept:
            kept.append(scanned())
        return None if "our own scan" in name else gradient_difference(result, kept[0])

    peers: dict[str, Callable[[], Call]] = {
        "torch loop": looped,
        "torch FFT": fft,
        "our own scan over time": lambda: scanned,
    }
    return NetworkRace(
        case=f"diagonal network, loss and gradients, batch {sizes.batch}, T={sizes.longer:,}",
        ours=ours,
        peers=peers,
        error_name="largest difference to the scan of the loss or of a gradient, relative",
        error=error,
        bound=nets.product_bound(
            nets.matrix_products(sizes, sizes.batch * sizes.longer, training=True), machine.threads
        ),
        targets=(Target("torch loop", at_least=_LOOP_ADVANTAGE),),
    )


def _waited(op: Callable[..., Any], *inputs: Any) -> Any:
    import jax

    return jax.block_until_ready(op(*inputs))


def _synchronised(step: Callable[[], Any]) -> Any:
    import torch

    result = step()
    torch.cuda.synchronize()
    return result


def _first_columns_error(states: Any, drive: Any, decay: Any, columns: int = 4) -> float:
    """Against complex128, step by step, for the first row and a few eigenstates."""
    values = np.asarray(drive[0][0, :, :columns], np.float64) + 1j * np.asarray(drive[1][0, :, :columns])
    angle = np.asarray(decay.frequency[:columns], np.float64)
    factor = np.exp(np.asarray(decay.log_magnitude[:columns], np.float64) + 1j * angle)
    state, exact = np.zeros(columns, np.complex128), []
    for step in values:
        state = factor * state + step
        exact.append(state)
    found = np.asarray(states[0][0, :, :columns]) + 1j * np.asarray(states[1][0, :, :columns])
    return largest_difference(found, np.stack(exact))
