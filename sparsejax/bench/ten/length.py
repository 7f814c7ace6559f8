"""Long inputs: time and memory per token when run in segments, and the time of one more token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from sparsejax.bench.contest import Call, build
from sparsejax.bench.machine import Machine
from sparsejax.bench.peers import torch_ten_weights as peer
from sparsejax.bench.peers import torch_transformer
from sparsejax.bench.report import Row, Target
from sparsejax.bench.ten import networks as nets
from sparsejax.bench.ten.race import largest_difference
from sparsejax.bench.timing import Timing, race

_RATIO = "x"
_TIME_LIMIT, _DECODE_LIMIT = 1.25, 1.1
_SHORT_PREFIX = 100


def measure(sizes: nets.Sizes, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Time per token and time of a decoded token, each over that at a short length."""
    yield time_row(sizes, machine, quick=quick)
    yield decode_row(sizes, machine, quick=quick)


def segment_step(network: nets.Network) -> Any:
    """Jitted: parameters, tokens (b, t), a state or None to hidden states (b, t, d) and the state after."""
    import jax

    def step(params: Any, tokens: Any, state: Any = None) -> tuple[Any, Any]:
        return network.model.apply({"params": params}, tokens, state, method="hidden")

    return jax.jit(step)


def in_segments(network: nets.Network, tokens: np.ndarray, length: int) -> Callable[[], list[Any]]:
    """A call that gives the hidden states of each segment of so many tokens, with the state carried."""
    import jax

    step = segment_step(network)
    parts = [jax.device_put(tokens[:, start : start + length]) for start in range(0, tokens.shape[1], length)]

    def run() -> list[Any]:
        state, outputs = None, []
        for part in parts:
            hidden, state = step(network.params, part, state)
            outputs.append(hidden)
        return jax.block_until_ready(outputs)

    return run


def time_row(sizes: nets.Sizes, machine: Machine, *, quick: bool) -> Row:
    """Time per token of the longest input over that of one segment: hidden states, batch 1."""
    network = nets.our_network("fft", sizes)
    tokens, _ = nets.token_batch(sizes, sizes.longest, 1)
    calls = {
        "short": in_segments(network, tokens[:, : sizes.long], sizes.long),
        "longest": in_segments(network, tokens, sizes.long),
        "one pass": in_segments(network, tokens[:, : sizes.longer], sizes.longer),
    }
    times = race(calls, repetitions=5 if quick else 9, repetition_seconds=1e-3, time_limit=5 if quick else 60)
    lengths = {"short": sizes.long, "longest": sizes.longest, "one pass": sizes.longer}
    per_token = {name: timing.median / lengths[name] for name, timing in times.items()}
    two = tokens[:, : 2 * sizes.long]
    joined = np.concatenate(in_segments(network, two, sizes.long)(), axis=1)
    work = nets.matrix_products(sizes, 1) - 2.0 * sizes.dim * sizes.vocab_size
    return _row(
        case=f"time per token at T={sizes.longest:,} in segments of {sizes.long:,}, over T={sizes.long:,}",
        ours=per_token["longest"] / per_token["short"],
        quality={
            "per token": f"{1e6 * per_token['short']:.2f} us, then {1e6 * per_token['longest']:.2f} us",
            "two segments less one pass": {
                "ours": largest_difference(joined, in_segments(network, two, 2 * sizes.long)()[0])
            },
        },
        machine=machine,
        limit=_TIME_LIMIT,
        bound=f"per token: {nets.product_bound(work, machine.threads)}",
        variants={f"T={sizes.longer:,} in one pass": per_token["one pass"] / per_token["short"]},
        times=times,
        best=times["longest"].best / lengths["longest"] / (times["short"].best / lengths["short"]),
        notes=("Long inputs: batch 1, hidden states only, no vocabulary head.",),
    )


def decode_row(sizes: nets.Sizes, machine: Machine, *, quick: bool) -> Row:
    """Time of one new token after a long prefix over that after a short one, batch 1, logits included."""
    import jax

    network = nets.our_network("fft", sizes)
    tokens, _ = nets.token_batch(sizes, sizes.prefix + 1, 1)
    step = jax.jit(lambda params, token, state: network.model.apply({"params": params}, token, state))
    states = {
        length: _prefill(network, tokens[:, :length], sizes.long) for length in (_SHORT_PREFIX, sizes.prefix)
    }
    token = jax.device_put(tokens[:, -1:])
    calls: dict[str, Call] = {
        str(length): partial(_one_token, step, network.params, token, state)
        for length, state in states.items()
    }
    transformers = {
        f"torch Transformer {length}": partial(_transformer_token, sizes, length) for length in states
    }
    built, _, notes = build(transformers)
    calls |= {name: call for name, call in built.items() if call is not None}
    times = race(
        calls, repetitions=11 if quick else 31, repetition_seconds=2e-2, time_limit=5 if quick else 60
    )
    medians = {name: timing.median for name, timing in times.items()}
    short, long = medians[str(_SHORT_PREFIX)], medians[str(sizes.prefix)]
    theirs = [medians.get(name) for name in transformers]
    whole = network.logits(tokens[:, : _SHORT_PREFIX + 1])()[:, -1:]
    again = _one_token(
        step, network.params, tokens[:, _SHORT_PREFIX : _SHORT_PREFIX + 1], states[_SHORT_PREFIX]
    )
    nbytes = 4 * network.model.config.num_parameters
    milliseconds = ", then ".join(f"{1e3 * value:.2f} ms" for value in theirs if value is not None)
    return _row(
        case=f"time of a new token after {sizes.prefix:,} tokens, over after {_SHORT_PREFIX}, batch 1",
        ours=long / short,
        peers={
            "torch Transformer, keys and values kept": theirs[1] / theirs[0]
            if theirs[0] and theirs[1]
            else None
        },
        quality={
            "per token": f"{1e3 * short:.2f} ms, then {1e3 * long:.2f} ms",
            **({"Transformer, per token": milliseconds} if milliseconds else {}),
            "step less whole forward": {"ours": largest_difference(again, whole)},
        },
        machine=machine,
        limit=_DECODE_LIMIT,
        bound=(
            f"reading the parameters: {nbytes / 1e6:.0f} MB at {machine.memory_gb_s:.0f} GB/s = "
            f"{nbytes / machine.memory_gb_s / 1e6:.2f} ms; dispatch {machine.dispatch_us:.0f} us"
        ),
        times=times,
        best=times[str(sizes.prefix)].best / times[str(_SHORT_PREFIX)].best,
        notes=notes,
    )


def _prefill(network: nets.Network, tokens: np.ndarray, length: int) -> Any:
    import jax

    step, state = segment_step(network), None
    for start in range(0, tokens.shape[1], length):
        _, state = step(network.params, tokens[:, start : start + length], state)
    return jax.block_until_ready(state)


def _one_token(step: Any, params: Any, token: Any, state: Any) -> Any:
    output = step(params, token, state)
    return output.logits


def _transformer_token(sizes: nets.Sizes, prefix: int) -> Call:
    weights = peer.tensors(nets.transformer_params(sizes, prefix + 1))
    kept = torch_transformer.random_cache(weights, heads=nets.TRANSFORMER_HEADS, prefix=prefix)
    step = peer.inference(torch_transformer.cached_step(weights, kept))
    token = nets.torch_ids(np.zeros((1, 1), np.int32))
    return lambda: step(token)


def _row(
    *,
    case: str,
    ours: float,
    quality: dict[str, Any],
    machine: Machine,
    limit: float,
    bound: str,
    times: dict[str, Timing],
    best: float,
    peers: dict[str, float | None] | None = None,
    variants: dict[str, float] | None = None,
    notes: Any = (),
) -> Row:
    return Row(
        case=case,
        unit=_RATIO,
        ours=ours,
        peers=peers or {},
        quality=quality,
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=(Target(at_most=limit),),
        bound=bound,
        variants=variants or {},
        spread={name: round(timing.spread, 3) for name, timing in times.items()},
        best={"ours": best},
        first_call={name: timing.first_call for name, timing in times.items()},
        notes=notes,
    )
