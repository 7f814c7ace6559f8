"""Training with fewer and fewer neurons per token: time of a step beside a dense one, and compilations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row, Target
from sparsejax.bench.ten.networks import product_rate
from sparsejax.bench.timing import Timing, race
from sparsejax.models.sprout import SproutConfig
from sparsejax.models.sprout.mlm import MaskingRule
from sparsejax.models.sprout.schedule import MOST_BUCKETS, sparsity_schedule
from sparsejax.training.cross_entropy import TokenLoss
from sparsejax.training.recipes.sprout import parts as sprout_parts
from sparsejax.training.recipes.sprout.losses import Objective
from sparsejax.training.recipes.sprout.settings import SproutSettings

_MOST_TIME = 1.3
_VOCABULARY, _SMALL_VOCABULARY = 30_522, 100
_STEPS = 10_000  # of the run, which sets the learning rate only
_SPECIAL, _PAD, _MASK = (0, 1, 2, 3, 4), 0, 4
_NOTE = (
    "Training: the whole network, masked language modelling by the recipe 'default', float32, no dropout. In "
    "sparse steps the router of every layer learns from the activations of all neurons, and the products are "
    "those of all neurons with a mask: a warm-up costs time, it saves none. The dense step has no router."
)


@dataclass(frozen=True)
class Sizes:
    """Of the networks that are trained.

    Attributes:
      timed: settings of the network whose steps are timed.
      counted: of one whose compilations are counted, small, for their number does not depend on sizes; its
        warm-up is taken from begin to end.
      vocab_size: of the timed network.
    """

    timed: SproutSettings
    counted: SproutSettings
    vocab_size: int = _VOCABULARY


def _settings(**fields: Any) -> SproutSettings:
    return SproutSettings(Path("text"), Path("run"), dropout=0.0, warmup_steps=0, **fields)


def _small(steps: int) -> SproutSettings:
    return _settings(
        d_model=16,
        d_ff=64,
        n_layers=1,
        n_heads=2,
        max_seq_len=16,
        batch_size=2,
        block_size=8,
        router_rank=8,
        final_top_k=16,
        sparsity_warmup_steps=steps,
    )


SIZES = Sizes(_settings(batch_size=4), _small(48))
QUICK = Sizes(_small(4), _small(4), _SMALL_VOCABULARY)


def measure(sizes: Sizes, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """A row about time, two about compilations."""
    yield time_row(sizes, machine, quick=quick)
    yield compilations_row(sizes, machine, schedule="traced")
    yield compilations_row(sizes, machine, schedule="bucketed")


def time_row(sizes: Sizes, machine: Machine, *, quick: bool) -> Row:
    """Time of a step with a traced ``top_k`` over that of a dense step."""
    import jax.numpy as jnp

    settings, half = sizes.timed, jnp.asarray(sizes.timed.d_ff // 2, jnp.int32)
    dense = replace(settings, router="block", router_loss="none")
    runs = {
        "ours": _Run(settings, sizes.vocab_size, half),
        "dense": _Run(dense, sizes.vocab_size, None),
    }
    if not quick:
        runs["low-rank router"] = _Run(replace(settings, router="low_rank"), sizes.vocab_size, half)
        runs["block router"] = _Run(replace(settings, router="block"), sizes.vocab_size, half)
    every = jnp.asarray(settings.d_ff, jnp.int32)
    losses = [float(record["loss"]) for record in (runs["ours"].step(every), runs["dense"].step())]
    times = race(
        {name: run.step for name, run in runs.items()},
        repetitions=3 if quick else 9,
        repetition_seconds=1e-3,
        time_limit=5 if quick else 90,
    )
    medians = {name: 1e3 * timing.median for name, timing in times.items()}
    ratio = {name: median / medians["dense"] for name, median in medians.items()}
    return _row(
        case=(
            f"training step of the sparse warm-up, top_k traced, {settings.router} router, over a dense one: "
            f"{settings.n_layers} layers, vocabulary {sizes.vocab_size:,}, "
            f"{settings.batch_size} x {settings.max_seq_len} tokens"
        ),
        unit="x",
        ours=ratio["ours"],
        quality={
            "per step": f"{medians['ours']:,.0f} ms, dense {medians['dense']:,.0f} ms",
            "loss of all neurons by the sparse step, less the dense loss": {
                "ours": abs(losses[0] - losses[1]) / losses[1]
            },
        },
        machine=machine,
        at_most=_MOST_TIME,
        bound=_bound(settings, sizes.vocab_size, machine),
        variants={name: value for name, value in ratio.items() if name.endswith("router")},
        times=times,
    )


def compilations_row(sizes: Sizes, machine: Machine, *, schedule: Literal["traced", "bucketed"]) -> Row:
    """Programs compiled over a whole warm-up from all neurons to a quarter of them."""
    settings = replace(sizes.counted, schedule=schedule)
    steps = settings.sparsity_warmup_steps
    exact = sparsity_schedule(settings.d_ff, None, settings.final_top_k, steps)
    compiled, losses = count_compilations(settings)
    values = len({exact(step) for step in range(steps + 1)})
    return _row(
        case=f"compilations in a sparse warm-up of {steps} steps, schedule {schedule}",
        unit="compilations",
        ours=compiled,
        quality={"loss": f"{losses[0]:.3f}, then {losses[-1]:.3f}"},
        machine=machine,
        at_most=1 if schedule == "traced" else MOST_BUCKETS,
        bound=f"the warm-up has {values} values of top_k, for each of which a plain jitted step is compiled",
    )


def count_compilations(settings: SproutSettings) -> tuple[int, np.ndarray]:
    """Programs that a warm-up compiles, and its losses by step."""
    import jax

    objective = _Counted(*_of_network(settings, _SMALL_VOCABULARY), pad=_PAD)
    state = _begin(objective)
    advance = sprout_parts.compiled_training_steps(
        objective, repeat(_batch(settings, _SMALL_VOCABULARY)), None, start=0, steps=_STEPS
    )
    _, records = advance(state, settings.sparsity_warmup_steps + 1)
    return objective.traces, np.asarray(jax.device_get(records["loss"]))


class _Counted(Objective):
    """An objective that counts the programs it is traced for."""

    traces = 0

    def training_loss(self, *arguments: Any, **options: Any) -> TokenLoss:
        """As it is, counted."""
        self.traces += 1
        return super().training_loss(*arguments, **options)


class _Run:
    """Steps of one network, one after the other, all with the same batch."""

    def __init__(self, settings: SproutSettings, vocab_size: int, top_k: Any):
        import jax

        objective = Objective(*_of_network(settings, vocab_size), pad=_PAD)
        self._program = jax.jit(
            sprout_parts.training_step(objective, _STEPS),
            donate_argnums=0,
            static_argnums=2 if top_k is None else (),
        )
        self._state, self._batch, self._top_k = _begin(objective), _batch(settings, vocab_size), top_k

    def step(self, top_k: Any = None) -> Any:
        """The record of one more step, waited for; with another traced ``top_k`` where one is given."""
        import jax

        top_k = self._top_k if top_k is None else top_k
        self._state, record = self._program(self._state, self._batch, top_k)
        return jax.block_until_ready(record)


def _of_network(
    settings: SproutSettings, vocab_size: int
) -> tuple[SproutConfig, SproutSettings, MaskingRule]:
    rule = MaskingRule(vocab_size, _MASK, _SPECIAL)
    return sprout_parts.network_config(settings, vocab_size), settings, rule


def _begin(objective: Objective) -> Any:
    import jax

    first = partial(sprout_parts.first_state, objective.config, objective.settings, _STEPS)
    return jax.jit(first)(jax.random.key(0))


def _batch(settings: SproutSettings, vocab_size: int) -> dict[str, Any]:
    """Random ids, none of them special; the step masks them."""
    import jax

    shape = settings.batch_size, settings.max_seq_len
    ids = np.random.default_rng(0).integers(len(_SPECIAL), vocab_size, shape)
    return jax.device_put({"tokens": ids.astype(np.int32)})


def _bound(settings: SproutSettings, vocab_size: int, machine: Machine) -> str:
    """Of the sparse step: products of all neurons, forward and backward, and those of the routers."""
    width, neurons = settings.d_model, settings.d_ff
    layer, guessed = 4 * width**2 + 2 * width * neurons, 0.15 * vocab_size * width
    dense = 3 * (settings.n_layers * layer + guessed)
    router = 2 * settings.n_layers * width * neurons  # forward, and the gradient of its weights
    tokens, rate = settings.batch_size * settings.max_seq_len, product_rate(machine.threads)
    work = 2.0 * tokens * (dense + router)
    return (
        f"matrix products: {work / 1e9:,.1f} GFLOP at {rate / 1e9:,.0f} GFLOP/s, as measured in this run = "
        f"{1e3 * work / rate:,.0f} ms, {1 + router / dense:.2f}x of the dense step's"
    )


def _row(
    *,
    case: str,
    unit: str,
    ours: float,
    quality: dict[str, Any],
    machine: Machine,
    at_most: float,
    bound: str,
    variants: dict[str, float] | None = None,
    times: dict[str, Timing] | None = None,
) -> Row:
    times = times or {}
    return Row(
        case=case,
        unit=unit,
        ours=ours,
        peers={},
        quality=quality,
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=(Target(at_most=at_most),),
        bound=bound,
        variants=variants or {},
        spread={name: round(timing.spread, 3) for name, timing in times.items()},
        best={name: timing.best / times["dense"].best for name, timing in times.items() if name != "dense"},
        first_call={name: timing.first_call for name, timing in times.items()},
        notes=(_NOTE,),
    )
