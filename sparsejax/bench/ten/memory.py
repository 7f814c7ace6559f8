"""Memory per token of a long input in segments, over that of a short one, each in its own process."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row, Target
from sparsejax.bench.ten import networks as nets
from sparsejax.bench.ten.length import segment_step

_LIMIT = 1.1
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_KIB = 1024


def measure(*, longest: bool, quick: bool, threads: int) -> list[Row]:
    """One raw row: bytes per token that a run adds to this process, and what the compiler says.

    Args:
      longest: the longest input in segments; else one segment.
      quick: small sizes.
      threads: cores that the caller has bound this process to.
    """
    import jax

    sizes, machine = nets.QUICK if quick else nets.Sizes(), Machine.describe(threads)
    network, length = nets.our_network("fft", sizes), sizes.longest if longest else sizes.long
    tokens, _ = nets.token_batch(sizes, length, 1)
    first, following = compiled_steps(network, sizes.long)
    compiled = compiled_bytes(following, length / sizes.long)
    parts = jax.device_put(np.split(tokens, length // sizes.long, axis=1))

    def run() -> list[Any]:
        hidden, state = first(network.params, parts[0])
        outputs = [hidden]
        for part in parts[1:]:
            hidden, state = following(network.params, part, state)
            outputs.append(hidden)
        return jax.block_until_ready(outputs)

    risen = peak_rise(run)
    return [
        Row(
            case=f"bytes per token at T={length:,}",
            unit="bytes/token",
            ours=(compiled if risen is None else risen) / length,
            peers={},
            quality={"compiled": compiled / length, "measured": risen is not None},
            device=machine.device,
            threads=threads,
            versions=machine.versions,
        )
    ]


def compare(short: Row, longest: Row, sizes: nets.Sizes) -> Row:
    """The row of the table from the two raw ones."""
    compiled = [row.quality["compiled"] for row in (short, longest)]
    how = "growth of the peak resident memory in a child process"
    if not (short.quality["measured"] and longest.quality["measured"]):
        how = "temporaries and outputs by the compiler, for this system tells no peak memory"
    length = f"T={sizes.longest:,} in segments of {sizes.long:,}"
    return Row(
        case=f"peak memory per token at {length}, over T={sizes.long:,}",
        unit="x",
        ours=longest.ours / short.ours,
        peers={},
        quality={
            "per token": f"{short.ours / _KIB:.1f} KiB, then {longest.ours / _KIB:.1f} KiB",
            "by the compiler": f"{compiled[0] / _KIB:.1f} KiB, then {compiled[1] / _KIB:.1f} KiB",
        },
        device=short.device,
        threads=short.threads,
        versions=short.versions,
        targets=(Target(at_most=_LIMIT),),
        bound=f"the hidden states that are kept: {4 * sizes.dim / _KIB:.1f} KiB per token",
        variants={"by the compiler": compiled[1] / compiled[0]},
        notes=(f"Memory: {how}, without parameters, hidden states of all tokens kept.",),
    )


def compiled_steps(network: nets.Network, segment: int) -> tuple[Any, Any]:
    """Programs for the first segment, without a state, and for those after it; compiled, but not run."""
    import jax
    import jax.numpy as jnp

    step, tokens = segment_step(network), jax.ShapeDtypeStruct((1, segment), jnp.int32)
    _, state = jax.eval_shape(step, network.params, tokens)
    lowered = step.lower(network.params, tokens), step.lower(network.params, tokens, state)
    return lowered[0].compile(), lowered[1].compile()


def compiled_bytes(program: Any, segments: float) -> float:
    """Temporaries of one segment and the outputs of all, as the compiler counts them."""
    analysis = program.memory_analysis()
    return float(analysis.temp_size_in_bytes + analysis.output_size_in_bytes * segments)


def peak_rise(call: Any) -> float | None:
    """Bytes by which a call raises this process's peak above what it holds before; None if not told."""
    gc.collect()
    try:
        _RESET.write_text("5")  # the peak starts again from here
    except OSError:
        return None
    before = _resident("VmRSS")
    result = call()
    risen = _resident("VmHWM") - before
    del result
    return risen


def _resident(field: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return float(line.split()[1]) * _KIB
