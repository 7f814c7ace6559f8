"""Layers of which a fifth fits on the device, beside the same layers there altogether: time and traffic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row
from sparsejax.bench.timing import Timing, race
from sparsejax.models.sparse_inference.config import CacheConfig, CacheStrategy, SparsityConfig
from sparsejax.models.sparse_inference.ffn.paths import predicted_ffn
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan
from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor
from sparsejax.models.sparse_inference.store.cache_statistics import CacheStatistics
from sparsejax.models.sparse_inference.store.ffn import StoredFFN
from sparsejax.models.sparse_inference.store.memory import HostUnits
from sparsejax.models.sparse_inference.store.neuron_store import NeuronStore
from sparsejax.models.sparse_inference.store.units import unit_layout
from sparsejax.ops.sparse_ffn import FFNWeights, dense_ffn

_ACTIVATION = "reglu"
_SPARSE, _DENSE = "all on the device", "all on the device, every neuron computed"
_ROWS, _CHECKED = FFNPlan(path="rows"), 8
_NOTE = (
    "A stack of gated layers that add to a residual stream; the tokens are a random walk in a space of few "
    "dimensions, and neurons have biases of their own, so that some are used often and most seldom. The "
    "predictors are exact. The peer is one compiled program with all neurons on the device; ours is driven "
    "by the host, layer by layer, which 'all in slots' pays alone. On CPU the device's memory is the host's: "
    "moving neurons costs what copying them costs. 'behind a bus' waits as long as a bus of that rate would "
    "take, and computes meanwhile."
)


@dataclass(frozen=True)
class Sizes:
    """Of the layers and of the tokens.

    Attributes:
      layers: how many.
      neurons: of each.
      width: of the residual stream.
      latent: dimensions in which the tokens walk, and rank of the predictors.
      top_k: neurons that a token uses.
      tokens: of the walk, which starts again at its end.
      keeps: of the place of one token, the part that the next one keeps.
      spread: standard deviation of the biases, in those of the sums.
      budget: part of the neurons' bytes.
      bus_gb_s: rate of the simulated bus.
    """

    layers: int = 12
    neurons: int = 4096
    width: int = 2048
    latent: int = 64
    top_k: int = 410
    tokens: int = 512
    keeps: float = 0.9
    spread: float = 1.0
    budget: float = 0.2
    bus_gb_s: float = 2.0


QUICK = Sizes(layers=3, neurons=256, width=64, latent=16, top_k=24, tokens=32)


@dataclass(frozen=True)
class Stack:
    """Layers in host memory, their predictors, and the tokens that walk through them."""

    layers: list[FFNWeights]
    predictors: list[LowRankPredictor]
    tokens: np.ndarray

    @property
    def nbytes(self) -> int:
        """Of the neurons."""
        return sum(array.nbytes for layer in self.layers for array in layer if array is not None)


@dataclass(frozen=True)
class Way:
    """How ours runs.

    Attributes:
      words: of the case.
      strategy: of the cache.
      prefetch: whether neurons are brought ahead of use.
      source: "memory", "file" or "bus".
      everything: without a budget.
    """

    words: str
    strategy: CacheStrategy = "lru"
    prefetch: bool = True
    source: str = "memory"
    everything: bool = False


WAYS = (
    Way("all in slots, driven by the host", prefetch=False, everything=True),
    Way("LRU", prefetch=False),
    Way("LRU, prefetching"),
    Way("LFU, prefetching", strategy="lfu"),
    Way("FIFO, prefetching", strategy="fifo"),
    Way("no cache", strategy="none", prefetch=False),
    Way("no cache, prefetching", strategy="none"),
    Way("LRU, from a file", prefetch=False, source="file"),
    Way("LRU, from a file, prefetching", source="file"),
    Way("LRU, behind a bus", prefetch=False, source="bus"),
    Way("LRU, behind a bus, prefetching", source="bus"),
)


class BusUnits(HostUnits):
    """Units in host memory that take as long to read as a bus of some rate needs."""

    def __init__(self, layers: Sequence[FFNWeights], gb_s: float):
        """All units in memory.

        Args:
          layers: weights.
          gb_s: rate.
        """
        super().__init__(layers, [unit_layout(layer) for layer in layers])
        self._rate = gb_s * 1e9

    def read(self, layer: int, units: np.ndarray, into: Sequence[np.ndarray]) -> None:
        """Read, and wait for the rest of the time."""
        start = time.perf_counter()
        super().read(layer, units, into)
        wanted = len(units) * self.layouts[layer].unit_bytes / self._rate
        time.sleep(max(0.0, wanted - (time.perf_counter() - start)))


@dataclass
class Contestant:
    """A way to compute one token after the other.

    Attributes:
      step: outputs (1, d) of a token (1, d).
      tokens: in turn.
      store: of ours.
      turn: number of the next token.
    """

    step: Callable[[Any], jax.Array]
    tokens: Sequence[Any]
    store: NeuronStore | None = None
    turn: int = field(default=0)

    def __call__(self) -> jax.Array:
        """The outputs of the next token."""
        token = self.tokens[self.turn % len(self.tokens)]
        self.turn += 1
        return self.step(token)


def measure(sizes: Sizes, machine: Machine, folder: Path, *, quick: bool) -> Iterator[Row]:
    """The rows of all ways, raced together.

    Args:
      sizes: of the layers.
      machine: of the run.
      folder: for the file of neurons.
      quick: fewer repetitions.
    """
    made = stack(sizes)
    with ExitStack() as closing:
        contestants = {_DENSE: _resident(made, None), _SPARSE: _resident(made, sizes.top_k)}
        for way in WAYS:
            contestants[way.words] = _ours(made, sizes, way, folder)
            store = contestants[way.words].store
            assert store is not None
            closing.enter_context(store)
            store.warm_up()
        differences = _differences(contestants)
        for contestant in contestants.values():
            for _ in range(4 if quick else 64):
                contestant().block_until_ready()
            if contestant.store is not None:
                contestant.store.wait()
                contestant.store.reset_statistics()
        times = race(contestants, repetitions=5 if quick else 101, time_limit=5 if quick else 120)
        for way in WAYS:
            yield _row(way, sizes, machine, (contestants, times, differences))


def stack(sizes: Sizes) -> Stack:
    """Layers, predictors and tokens.

    Example:
      >>> stack(QUICK).tokens.shape
      (32, 1, 64)
    """
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    basis = np.linalg.qr(normal(sizes.width, sizes.latent))[0].astype(np.float32)
    layers, predictors = [], []
    for _ in range(sizes.layers):
        gate = normal(sizes.neurons, sizes.latent)
        bias = np.float32(sizes.spread * np.sqrt(sizes.latent)) * normal(sizes.neurons)
        outwards = normal(sizes.neurons, sizes.latent) @ basis.T
        scale = np.float32(0.2 / (sizes.latent * np.sqrt(sizes.top_k)))
        up = normal(sizes.neurons, sizes.width) / np.sqrt(np.float32(sizes.width))
        parts: Any = (up, scale * outwards, gate @ basis.T, None, bias)
        layers.append(FFNWeights(*parts))
        predictors.append(LowRankPredictor(jnp.asarray(basis.T), jnp.asarray(gate), jnp.asarray(bias)))
    place, tokens = normal(sizes.latent), []
    for _ in range(sizes.tokens):
        place = sizes.keeps * place + np.sqrt(1 - sizes.keeps**2) * normal(sizes.latent)
        tokens.append((place @ basis.T)[None])
    return Stack(layers, predictors, np.stack(tokens).astype(np.float32))


def _ours(made: Stack, sizes: Sizes, way: Way, folder: Path) -> Contestant:
    config = CacheConfig(cache_strategy=way.strategy, lru_cache_size=1 << 20, max_cold_cache_size=1 << 20)
    budget = None if way.everything else int(sizes.budget * made.nbytes)
    if way.source == "bus":
        store = NeuronStore(BusUnits(made.layers, sizes.bus_gb_s), budget=budget, config=config)
    else:
        path = folder / "neurons" if way.source == "file" else None
        store = NeuronStore.from_layers(made.layers, budget, config=config, path=path)
    sparsity = SparsityConfig.with_top_k(sizes.top_k)
    ffn = StoredFFN(store, made.predictors, sparsity, activation=_ACTIVATION, prefetch=way.prefetch)
    return Contestant(partial(ffn, residual=True), [jnp.asarray(token) for token in made.tokens], store)


def _resident(made: Stack, top_k: int | None) -> Contestant:
    """All neurons on the device, one program; None computes every one of them."""
    layers = jax.device_put(made.layers)

    @jax.jit
    def step(layers: Any, predictors: Any, token: jax.Array) -> jax.Array:
        for layer, predictor in zip(layers, predictors, strict=True):
            if top_k is None:
                token = token + dense_ffn(token, layer, activation=_ACTIVATION)
                continue
            scores, sparsity = predictor.scores(token), SparsityConfig.with_top_k(top_k)
            token = token + predicted_ffn(token, layer, scores, sparsity, activation=_ACTIVATION, plan=_ROWS)
        return token

    tokens = [jnp.asarray(token) for token in made.tokens]
    return Contestant(partial(step, layers, made.predictors), tokens)


def _differences(contestants: Mapping[str, Contestant]) -> dict[str, float]:
    """The largest difference to the peer over some tokens, in the outputs' standard deviation."""
    peer = contestants[_SPARSE]
    found = dict.fromkeys(contestants, 0.0)
    for token in peer.tokens[:_CHECKED]:
        wanted = np.asarray(peer.step(token))
        for name, contestant in contestants.items():
            difference = float(np.abs(np.asarray(contestant.step(token)) - wanted).max() / wanted.std())
            found[name] = max(found[name], difference)
    return found


def _row(
    way: Way,
    sizes: Sizes,
    machine: Machine,
    found: tuple[Mapping[str, Contestant], Mapping[str, Timing], Mapping[str, float]],
) -> Row:
    contestants, times, differences = found
    store = contestants[way.words].store
    assert store is not None
    names = {"ours": way.words, _SPARSE: _SPARSE, _DENSE: _DENSE}
    share = "all" if way.everything else f"{sizes.budget:.0%}"
    bus = f" of {sizes.bus_gb_s:g} GB/s" if way.source == "bus" else ""
    nbytes = 3 * sizes.top_k * sizes.width * 4 * sizes.layers
    return Row(
        case=f"1 token, {sizes.layers} layers of {sizes.neurons:,} neurons, {sizes.top_k:,} active; "
        f"{share} on the device: {way.words}{bus}",
        unit="ms",
        ours=1e3 * times[way.words].median,
        peers={name: 1e3 * times[name].median for name in (_SPARSE, _DENSE)},
        quality={
            "max difference to all on the device, in standard deviations": {"ours": differences[way.words]},
            **traffic(store.statistics, sizes.layers),
            "tokens/s": f"{1 / times[way.words].median:.0f}",
        },
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        bound=f"memory: {nbytes / 1e6:.1f} MB of active neurons at {machine.memory_gb_s:.0f} GB/s = "
        f"{nbytes / machine.memory_gb_s / 1e6:.2f} ms",
        spread={key: round(times[name].spread, 3) for key, name in names.items()},
        best={key: 1e3 * times[name].best for key, name in names.items()},
        first_call={key: times[name].first_call for key, name in names.items()},
        notes=[_NOTE],
    )


def traffic(found: CacheStatistics, layers: int) -> dict[str, str]:
    """What a store did per token, in words.

    Args:
      found: its statistics.
      layers: calls of a token.

    Example:
      >>> traffic(CacheStatistics(calls=4, hits=9, misses=1, bytes_moved=2_000_000), 2)["moved per token"]
      '1.00 MB'
    """
    tokens = max(1.0, found.calls / layers)
    used = found.prefetch_useful / max(1, found.prefetch_useful + found.prefetch_wasted)
    words = {
        "hit rate": f"{found.hit_rate:.1%}",
        "moved per token": f"{found.bytes_moved / tokens / 1e6:.2f} MB",
        "waited per token": f"{1e3 * found.wait_seconds / tokens:.2f} ms",
    }
    if found.prefetched:
        words["of what was prefetched, used"] = f"{used:.1%}"
    return words
