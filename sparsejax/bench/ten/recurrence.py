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

from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row, Target
from sparsejax.bench.ten import networks as nets
from sparsejax.bench.ten.race import largest_difference
from sparsejax.bench.timing import race

_PERCENT = "% of the layer"
_DIAGONAL_SHARE, _MIXED_SHARE, _DIAGONALISED_SHARE = 5.0, 25.0, 5.0
_ROWS = (
    ("fft", False, _DIAGONAL_SHARE),
    ("fft", True, _DIAGONAL_SHARE),
    ("paper", False, _MIXED_SHARE),
    ("paper", True, _MIXED_SHARE),
    ("seed", True, _MIXED_SHARE),
    ("diagonalised", False, _DIAGONALISED_SHARE),
)
_NAMES = {
    "fft": "diagonal",
    "paper": "mixing fed back (paper)",
    "seed": "mixing fed back (seed)",
    "diagonalised": "mixing fed back (paper), diagonalised for inference",
}

_NOTE = (
    "Shares: the median time of the op alone, on the layer's shapes, over that of the whole layer with its "
    "norms and feed-forward part, raced in one run."
)

Pair = tuple[Any, Any]
Op = Callable[..., Any]


def measure(sizes: nets.Sizes, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Shares at two lengths, forward and with the backward pass."""
    for kind, training, limit in _ROWS:
        for length in (sizes.short, sizes.long):
            yield share_row(kind, length, sizes, machine, training=training, at_most=limit, quick=quick)


def share_row(
    kind: str,
    length: int,
    sizes: nets.Sizes,
    machine: Machine,
    *,
    training: bool,
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
      at_most: target, in percent of the layer.
      quick: fewer repetitions.
    """
    import jax

    network = nets.our_network(kind, replace(sizes, n_layers=1))
    op, inputs = recurrence(network, length, sizes)
    calls = {
        "op": _timed(op, inputs, training=training),
        "layer": _layer(network, length, sizes, training=training),
    }
    times = race(
        calls, repetitions=9 if quick else 31, repetition_seconds=5e-3, time_limit=5 if quick else 30
    )
    own, whole = times["op"].median, times["layer"].median
    real, imaginary = jax.jit(op)(*inputs)
    error = largest_difference(np.asarray(real) + 1j * np.asarray(imaginary), _exact(*inputs))
    passes = "forward and backward" if training else "forward"
    return Row(
        case=f"recurrence, {_NAMES[kind]}, {passes}, batch {sizes.batch}, T={length:,}",
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
        bound=_bound(*inputs, machine=machine),
        spread={name: round(timing.spread, 3) for name, timing in times.items()},
        best={"ours": 100 * times["op"].best / times["layer"].best},
        first_call={name: timing.first_call for name, timing in times.items()},
        notes=(_NOTE,),
    )


def recurrence(network: nets.Network, length: int, sizes: nets.Sizes) -> tuple[Op, tuple[Any, ...]]:
    """The op as the first layer calls it, and what it is called with.

    Returns:
      A function of ``(drive, decay)``, or of ``(drive, decay, mixing)`` where mixing is fed back, to states
      (real, imaginary).
    """
    import jax

    from sparsejax.models.ten.eigenstates import eigenvalues
    from sparsejax.models.ten.resonance import cell_decay, resonance_matrix
    from sparsejax.ops.linear_recurrence import Decay, dense_recurrence, linear_recurrence

    layer, config = network.params["layer_0"], network.model.config
    keys, steps = jax.random.split(jax.random.key(1)), (sizes.batch, length)
    if "cells" not in layer:
        if "diagonal" in layer:
            own = layer["diagonal"]
            decay = Decay(own["log_magnitude"].ravel(), own["frequency"].ravel())
        else:
            decay = eigenvalues(layer["decay_logit"], layer["frequency"])
        parts = tuple(jax.random.normal(key, (*steps, *decay.frequency.shape)) for key in keys)
        return lambda drive, decay: linear_recurrence(drive, decay)[0], (parts, decay)
    own = layer["cells"]
    real = jax.random.normal(keys[0], (*steps, *own["frequency"].shape))
    decay = cell_decay(own["decay_logit"], own["frequency"], config.eigenvalue_clip)
    mixing = resonance_matrix(own["resonance"], config.resonance_epsilon)

    def one_cell(drive: Any, decay: Any, mixing: Any) -> Pair:
        return dense_recurrence((drive, None), decay, mixing)[0]

    return jax.vmap(one_cell, in_axes=(2, 0, 0), out_axes=2), (real, decay, mixing)


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


def _exact(drive: Any, decay: Any, mixing: Any = None) -> np.ndarray:
    """States in complex128, step by step in NumPy."""
    real, imaginary = drive if isinstance(drive, tuple) else (drive, 0.0)
    values = np.asarray(real, np.float64) + 1j * np.asarray(imaginary, np.float64)
    magnitude, frequency = (np.asarray(part, np.float64) for part in decay)
    factor = np.exp(magnitude + 1j * frequency)
    state, states = np.zeros(values[:, 0].shape, np.complex128), []
    for step in np.moveaxis(values, 1, 0):
        state = factor * state + step
        if mixing is not None:
            state = np.einsum("bck,ckj->bcj", state, np.asarray(mixing, np.float64))
        states.append(state)
    return np.stack(states, 1)


def _bound(drive: Any, decay: Any, mixing: Any = None, *, machine: Machine) -> str:
    """What the recurrence itself must do, forward; the layer is bound by its matrix products."""
    if mixing is None:
        values, length = drive[0].size, drive[0].shape[1]
        rate, nbytes = machine.memory_gb_s, 4 * 4 * values
        traffic = f"{nbytes / 1e6:.1f} MB in and out at {rate:.0f} GB/s = {nbytes / rate / 1e6:.2f} ms"
        return f"{length:,} dependent steps; {traffic}"
    cells, width = decay.frequency.shape
    work = 2.0 * 3 * drive.size * width  # the mixing of both parts and of the drive
    return (
        f"{drive.shape[1]:,} dependent steps of (batch, k) @ (k, k) products that fill no vector unit for "
        f"{cells} cells; {nets.product_bound(work, machine.threads)}"
    )
