"""How much of a layer is its recurrence: the op alone beside the whole layer, in one race.

The layer is a network of one layer over embeddings, with its final norm and without a vocabulary head. The
op runs on the shapes that the layer gives it. What the compiler fuses across the op's edge is therefore
charged to the op, which overstates its share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from sparsejax.bench import ten_networks as nets
from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row, Target
from sparsejax.bench.ten_race import largest_difference
from sparsejax.bench.timing import race

_PERCENT = "% of the layer"
_DIAGONAL_SHARE, _MIXED_SHARE, _DIAGONALISED_SHARE = 5.0, 25.0, 5.0
_ROWS = (
    ("fft", False, "scan", _DIAGONAL_SHARE),
    ("fft", True, "scan", _DIAGONAL_SHARE),
    ("paper", False, "scan", _MIXED_SHARE),
    ("paper", True, "scan", _MIXED_SHARE),
    ("seed", True, "scan", _MIXED_SHARE),
    ("paper", False, "diagonal", _DIAGONALISED_SHARE),
)

_NOTE = (
    "Shares: the median time of the op alone, on the layer's shapes, over that of the whole layer with its "
    "norms and feed-forward part, raced in one run. For the diagonalised form the whole is the layer less "
    "its scan, plus that form."
)

Pair = tuple[Any, Any]
Op = Callable[..., Any]


def measure(sizes: nets.Sizes, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Shares at two lengths, forward and with the backward pass."""
    for kind, training, backend, limit in _ROWS:
        for length in (sizes.short, sizes.long):
            yield share_row(
                kind, length, sizes, machine, training=training, backend=backend, at_most=limit, quick=quick
            )


def share_row(
    kind: str,
    length: int,
    sizes: nets.Sizes,
    machine: Machine,
    *,
    training: bool,
    backend: str,
    at_most: float,
    quick: bool,
) -> Row:
    """The recurrence of one kind of layer.

    Args:
      kind: see `our_network`.
      length: steps.
      sizes: of the layer.
      machine: of the run.
      training: forward and backward, by every input; else forward alone.
      backend: of the op: "scan", or "diagonal", the eigenvalue form of inference.
      at_most: target, in percent of the layer.
      quick: fewer repetitions.
    """
    network = nets.our_network(kind, replace(sizes, n_layers=1))
    op, drive = recurrence(kind, network, length, sizes, backend=backend)
    calls = {
        "op": _timed(op, drive, training=training),
        "layer": _layer(network, length, sizes, training=training),
    }
    if backend == "diagonal":
        scan, same = recurrence(kind, network, length, sizes, backend="scan")
        calls["scan"] = _timed(scan, same, training=training)
    times = race(
        calls, repetitions=9 if quick else 31, repetition_seconds=5e-3, time_limit=5 if quick else 30
    )
    own, whole = times["op"].median, times["layer"].median
    if backend == "diagonal":
        # The layer itself runs the scan, which takes part in training; the share is that of a layer without.
        whole += own - times["scan"].median
    real, imaginary = op(*drive)
    error = largest_difference(np.asarray(real) + 1j * np.asarray(imaginary), _exact(kind, network, drive))
    form = "in the diagonalised form of inference" if backend == "diagonal" else f"by {backend}"
    passes = "forward and backward" if training else "forward"
    names = {"fft": "diagonal", "paper": "mixing fed back (paper)", "seed": "mixing fed back (seed)"}
    return Row(
        case=f"recurrence, {names[kind]}, {form}, {passes}, batch {sizes.batch}, T={length:,}",
        unit=_PERCENT,
        ours=100 * own / whole,
        peers={},
        quality={
            "max error to float64": {"ours": error},
            "times": f"{1e3 * own:.2f} ms of {1e3 * whole:.1f} ms",
        },
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=(Target(at_most=at_most),),
        bound=_bound(kind, network, length, sizes, machine, backend=backend),
        spread={name: round(timing.spread, 3) for name, timing in times.items()},
        best={name: 1e3 * timing.best for name, timing in times.items()},
        first_call={name: timing.first_call for name, timing in times.items()},
        notes=(_NOTE,),
    )


def recurrence(
    kind: str, network: nets.Network, length: int, sizes: nets.Sizes, *, backend: str
) -> tuple[Op, tuple[Any, ...]]:
    """The op as the layer calls it, and what it is called with: drives, and in training what has gradients.

    Returns:
      A function of ``(drive, decay)``, or of ``(drive, decay, mixing)``, to states (real, imaginary); with
      ``backend="diagonal"`` a function of the drive alone, over concrete eigenvalues.
    """
    import jax
    import jax.numpy as jnp

    from sparsejax.models.ten.eigenstates import eigenvalues
    from sparsejax.models.ten.resonance import cell_decay, resonance_matrix
    from sparsejax.ops.linear_recurrence import Decay, dense_recurrence, linear_recurrence

    layer, config = network.params["layer_0"], network.model.config
    key, shape = jax.random.key(1), (sizes.batch, length, sizes.num_eigenstates)
    if kind == "fft":
        drive = jax.random.normal(key, shape), jax.random.normal(jax.random.key(2), shape)
        decay = eigenvalues(layer["decay_logit"], layer["frequency"])
        return lambda drive, decay: linear_recurrence(drive, decay)[0], (drive, decay)
    own = layer["cells"]
    cells = own["frequency"].shape[0]
    real = jax.random.normal(key, (*shape[:2], cells, shape[2]))
    decay = cell_decay(own["decay_logit"], own["frequency"], config.eigenvalue_clip)
    mixing = resonance_matrix(own["resonance"], config.resonance_epsilon)

    def mixed(drive: Any, decay: Any, mixing: Any) -> Pair:
        states: Pair = jax.vmap(one_cell, in_axes=(2, 0, 0), out_axes=2)(drive, decay, mixing)
        return states

    def one_cell(drive: Any, decay: Any, mixing: Any) -> Pair:
        return dense_recurrence((drive, None), decay, mixing)[0]

    if backend != "diagonal":
        return mixed, (real, decay, mixing)

    values, matrices = jax.tree.map(np.asarray, (decay, mixing))

    def diagonalised(drive: Any) -> Pair:
        states = [
            dense_recurrence(
                (drive[:, :, cell], None),
                Decay(*(part[cell] for part in values)),
                matrices[cell],
                backend="diagonal",
            )[0]
            for cell in range(cells)
        ]
        real, imaginary = (jnp.stack(part, 2) for part in zip(*states, strict=True))
        return real, imaginary

    return diagonalised, (real,)


def _timed(op: Op, inputs: tuple[Any, ...], *, training: bool) -> Callable[[], Any]:
    import jax

    if not training:
        forward = jax.jit(op)
        return lambda: jax.block_until_ready(forward(*inputs))

    def both(inputs: tuple[Any, ...], cotangent: Pair) -> Any:
        states, back = jax.vjp(op, *inputs)
        return states, back(cotangent)

    run, cotangent = jax.jit(both), jax.jit(op)(*inputs)
    return lambda: jax.block_until_ready(run(inputs, cotangent))


def _layer(network: nets.Network, length: int, sizes: nets.Sizes, *, training: bool) -> Callable[[], Any]:
    import jax

    x = jax.random.normal(jax.random.key(3), (sizes.batch, length, sizes.dim))

    def layer(params: Any, x: Any) -> Any:
        return network.model.apply({"params": params}, x, method="hidden")[0]

    if not training:
        forward = jax.jit(layer)
        return lambda: forward(network.params, x)

    def both(params: Any, x: Any, cotangent: Any) -> Any:
        hidden, back = jax.vjp(layer, params, x)
        return hidden, back(cotangent)

    run = jax.jit(both)
    return lambda: jax.block_until_ready(run(network.params, x, x))


def _exact(kind: str, network: nets.Network, inputs: tuple[Any, ...]) -> np.ndarray:
    """States in complex128, step by step in NumPy."""
    layer, config = network.params["layer_0"], network.model.config
    own = layer if kind == "fft" else layer["cells"]
    clip = 1.0 if kind == "fft" else config.eigenvalue_clip
    magnitude = clip / (1 + np.exp(-np.asarray(own["decay_logit"], np.float64)))
    decay = magnitude * np.exp(1j * np.asarray(own["frequency"], np.float64))
    drive = inputs[0]
    values = (
        np.asarray(drive[0], np.float64) + 1j * np.asarray(drive[1]) if kind == "fft" else np.asarray(drive)
    )
    if kind == "fft":
        mix = None
    else:
        raw = np.asarray(own["resonance"], np.float64)
        norm = np.linalg.norm(raw, axis=(1, 2), keepdims=True) + 1e-8
        mix = np.eye(raw.shape[-1]) + config.resonance_epsilon * raw / norm
    state, states = np.zeros(values[:, 0].shape, np.complex128), []
    for step in np.moveaxis(values, 1, 0):
        state = decay * state + step
        state = state if mix is None else np.einsum("bck,ckj->bcj", state, mix)
        states.append(state)
    return np.stack(states, 1)


def _bound(
    kind: str, network: nets.Network, length: int, sizes: nets.Sizes, machine: Machine, *, backend: str
) -> str:
    """What the recurrence itself must do, forward; the layer is bound by its matrix products."""
    cells = 1 if kind == "fft" else network.model.config.num_cells
    values = sizes.batch * length * cells * sizes.num_eigenstates
    if kind == "fft":
        nbytes = 4 * 4 * values
        rate = machine.memory_gb_s
        traffic = f"{nbytes / 1e6:.1f} MB in and out at {rate:.0f} GB/s = {nbytes / rate / 1e6:.2f} ms"
        return f"{length:,} dependent steps; {traffic}"
    # scan: the mixing of both parts and of the drive; diagonal: into and out of the basis, two parts each.
    products = 3 if backend == "scan" else 6
    work = 2.0 * products * values * sizes.num_eigenstates
    steps = f"{length:,} dependent steps" + (
        f" of (batch, k) @ (k, k) products that fill no vector unit for {cells} cells"
        if backend == "scan"
        else ""
    )
    return f"{steps}; {nets.product_bound(work, machine.threads)}"
