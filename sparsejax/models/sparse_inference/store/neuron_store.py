"""Neurons in a store: those of use on the device, all of them in host memory or in a file."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from sparsejax.models.sparse_inference.config import CacheConfig
from sparsejax.models.sparse_inference.store.budget import cold_capacity, piece_of, slot_counts
from sparsejax.models.sparse_inference.store.cache_statistics import CacheStatistics
from sparsejax.models.sparse_inference.store.hot_cold import NeuronCounts
from sparsejax.models.sparse_inference.store.layer import Place, Road, StoreLayer
from sparsejax.models.sparse_inference.store.memory import HostUnits, UnitSource
from sparsejax.models.sparse_inference.store.neuron_file import NeuronFile, write_neurons
from sparsejax.models.sparse_inference.store.prefetch import Prefetcher
from sparsejax.models.sparse_inference.store.slots import Transit, piece_sizes
from sparsejax.models.sparse_inference.store.units import UnitLayout, hot_units, unit_layout
from sparsejax.ops.sparse_ffn import FFNWeights


class Lease(NamedTuple):
    """A layer's slots, as long as nobody else changes them.

    Attributes:
      layout: of a unit.
      arrays: by plane, (slots, *shape) on the device.
      slots: int32 (k,) of the units asked for, in ascending order of these.
      bias: of the output (d,), on the device, or None.
    """

    layout: UnitLayout
    arrays: tuple[Array, ...]
    slots: np.ndarray
    bias: Array | None


class NeuronStore:
    """Layers of neurons of which only some fit on the device; a context manager that closes itself.

    Each layer has slots on the device for some of its units (neurons, or blocks of them where weights are
    quantised). Hot units are pinned to theirs; the other slots are a cache of cold ones. A `lease` brings
    what is missing, `prefetch` brings it ahead of use in another thread, `record` counts a call that is done.
    All methods may be called from several threads.

    Of a `CacheConfig`, ``cache_strategy`` says who makes room; ``lru_cache_size`` is the most cold neurons
    of a layer that the strategy "lru" keeps, ``max_cold_cache_size`` that of the others;
    ``hot_neuron_count`` is the most of a layer that `rebalance` calls hot, ``hot_threshold`` the share of the
    calls from which on it does, and ``hot_neuron_fraction`` the share down to which they stay hot;
    ``use_mmap`` puts the neurons into a file, which is read by position and not mapped.

    Attributes:
      budget: bytes on the device, those on their way included; None without limit.
      config: as given.

    Example:
      >>> layer = FFNWeights(np.eye(8, 4, dtype=np.float32), np.ones((8, 4), np.float32))
      >>> with NeuronStore.from_layers([layer], budget=160, unit=1) as store:
      ...     for units in ([0, 1], [1, 2], [0, 1]):
      ...         with store.lease(0, units) as lease:
      ...             rows = lease.arrays[0][lease.slots, 0]
      ...     store.slots, store.statistics.hits, store.device_bytes <= 160, rows.tolist()
      ((3,), 3, True, [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])

    Source: specs/sparse_inference.md sections 1, 4 and 12.6; PowerInfer (Song et al. 2023); LLM in a flash
    (Alizadeh et al. 2023) for neurons stored side by side and a window of recent ones.
    """

    def __init__(
        self,
        source: UnitSource,
        *,
        budget: int | None,
        config: CacheConfig | None = None,
        hot: Sequence[np.ndarray | Sequence[int]] | np.ndarray | None = None,
        adaptive: bool = False,
        device: Place | None = None,
    ):
        """A store over units that are somewhere; `from_layers` and `open` are the ways to it.

        Args:
          source: of the units; the store closes it.
          budget: bytes on the device; None keeps everything there that was used once.
          config: None is the published defaults.
          hot: by layer, ids of neurons that stay on the device, as `place` finds them; they come at once.
          adaptive: choose hot neurons anew, by `rebalance`, after every 1000 recorded calls of a layer.
          device: for the slots; None is JAX's default.

        Raises:
          ValueError: the budget is too small, or ``hot`` does not fit the layers.
        """
        self.budget, self.config = budget, CacheConfig() if config is None else config
        self._adaptive, self._closed, layouts = adaptive, False, source.layouts
        strategy, share = self.config.cache_strategy, self.config.hot_neuron_fraction
        hot = [[]] * len(layouts) if hot is None else hot
        if len(hot) != len(layouts):
            raise ValueError(f"hot holds the neurons of {len(hot)} layers; the store has {len(layouts)}")
        units = [hot_units(ids, layout) for ids, layout in zip(hot, layouts, strict=True)]
        fixed = sum(bias.nbytes for bias in source.biases if bias is not None)
        capacity = self.config.lru_cache_size if strategy == "lru" else self.config.max_cold_cache_size
        piece = piece_of(layouts, budget)
        transit = Transit(2 * piece * max(layout.unit_bytes for layout in layouts))
        room = None if budget is None else budget - fixed - transit.most_bytes
        caps = [cold_capacity(layout, capacity) for layout in layouts]
        slots = slot_counts(layouts, [len(each) for each in units], caps, room)
        place = jax.devices()[0] if device is None else device
        road = Road(source, transit, piece, place)
        self._road, self._worker = road, Prefetcher()
        self._layers = [
            StoreLayer(number, count, strategy, NeuronCounts(layout.units, share), road)
            for number, (count, layout) in enumerate(zip(slots, layouts, strict=True))
        ]
        self._end = weakref.finalize(self, _end, self._worker, source)
        for layer, ids in zip(self._layers, units, strict=True):
            layer.pin(ids)

    @classmethod
    def from_layers(
        cls,
        layers: Sequence[FFNWeights],
        budget: int | None,
        *,
        unit: int | None = None,
        path: str | os.PathLike[str] | None = None,
        config: CacheConfig | None = None,
        hot: Sequence[np.ndarray | Sequence[int]] | np.ndarray | None = None,
        adaptive: bool = False,
        device: Place | None = None,
    ) -> NeuronStore:
        """A store of layers that are in memory.

        Args:
          layers: weights; matrices plain or quantised, as `unit_layout` takes them.
          budget: bytes on the device.
          unit: neurons that are moved together; None is the fewest.
          path: write the neurons to this file and read them from there; needed for nothing else.
          config: with ``use_mmap`` and no path, a temporary file is made, which is gone with the store.
          hot: as in the constructor, and so are the others.
          adaptive: likewise.
          device: likewise.

        Raises:
          ValueError: as the constructor and `unit_layout`.
          ExportError: the file cannot be written.
        """
        options = {"budget": budget, "config": config, "hot": hot, "adaptive": adaptive, "device": device}
        if path is not None:
            write_neurons(path, layers, unit=unit)
            return cls.open(path, **options)  # type: ignore[arg-type]
        if config is not None and config.use_mmap:
            with tempfile.TemporaryDirectory(prefix="neurons-") as folder:
                write_neurons(Path(folder, "neurons"), layers, unit=unit)
                return cls.open(Path(folder, "neurons"), **options)  # type: ignore[arg-type]
        source = HostUnits(layers, [unit_layout(layer, unit) for layer in layers])
        return cls(source, **options)  # type: ignore[arg-type]

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        budget: int | None,
        *,
        config: CacheConfig | None = None,
        hot: Sequence[np.ndarray | Sequence[int]] | np.ndarray | None = None,
        adaptive: bool = False,
        device: Place | None = None,
    ) -> NeuronStore:
        """A store of the neurons in a file of `write_neurons`; arguments as in the constructor.

        Raises:
          CheckpointError: the file is missing, cut or damaged.
          ValueError: as the constructor.
        """
        file = NeuronFile(path)
        try:
            return cls(file, budget=budget, config=config, hot=hot, adaptive=adaptive, device=device)
        except BaseException:
            file.close()
            raise

    @property
    def layouts(self) -> tuple[UnitLayout, ...]:
        """By layer, of its units."""
        return tuple(layer.layout for layer in self._layers)

    @property
    def device(self) -> Place:
        """Where the slots are."""
        return self._road.device

    @property
    def slots(self) -> tuple[int, ...]:
        """By layer, units that fit on the device."""
        return tuple(layer.cache.slots for layer in self._layers)

    @property
    def device_bytes(self) -> int:
        """Of the store's arrays on the device, as these say."""
        return sum(layer.nbytes for layer in self._layers)

    @property
    def peak_device_bytes(self) -> int:
        """With the most that was on its way at once."""
        return self.device_bytes + self._road.transit.peak_bytes

    @property
    def total_bytes(self) -> int:
        """Of all units of all layers."""
        return sum(layout.units * layout.unit_bytes for layout in self.layouts)

    @property
    def statistics(self) -> CacheStatistics:
        """Of all layers since the start, or since `reset_statistics`."""
        return sum(self.layer_statistics, CacheStatistics())

    @property
    def layer_statistics(self) -> tuple[CacheStatistics, ...]:
        """By layer, likewise; while other threads work, their counts may be a moment apart."""
        return tuple(layer.statistics + CacheStatistics() for layer in self._layers)

    def reset_statistics(self) -> None:
        """Count from 0 again."""
        for layer in self._layers:
            with layer.lock:
                layer.statistics = CacheStatistics()

    def room(self, layer: int) -> int:
        """Units of a layer that one `lease` can ask for whatever is hot: its slots that are not pinned."""
        with self._layer(layer).lock:
            return self._layers[layer].cache.room

    def parts(self, layer: int, units: np.ndarray) -> list[np.ndarray]:
        """Units of a layer in as few parts as have to be leased one after the other: one, if all fit.

        Args:
          layer: number.
          units: distinct ids, ascending.
        """
        with self._layer(layer).lock:
            cache = self._layers[layer].cache
            slots = cache.slot_of[units]
            cold = ~((slots >= 0) & cache.pinned[slots])
            if cold.sum() <= cache.room:
                return [units]
            part = np.maximum(np.cumsum(cold) - 1, 0) // max(1, cache.room)
            return np.split(units, np.flatnonzero(np.diff(part)) + 1)

    @contextmanager
    def held(self, layer: int) -> Iterator[None]:
        """A layer whose slots no other thread changes: what `parts` says then holds until the last lease.

        Args:
          layer: number.
        """
        with self._layer(layer).lock:
            yield

    def hot(self, layer: int) -> np.ndarray:
        """Units of a layer that are pinned, ascending."""
        with self._layer(layer).lock:
            cache = self._layers[layer].cache
            return np.sort(cache.unit_in[cache.pinned])

    @contextmanager
    def lease(self, layer: int, units: np.ndarray | Sequence[int]) -> Iterator[Lease]:
        """The slots of a layer with these units in them, brought where they are missing.

        Start the computation on them inside the ``with`` block; it need not be finished there. Other
        threads that ask for the layer wait until the block ends.

        Args:
          layer: number.
          units: distinct ids.

        Raises:
          IndexError: no such layer or unit.
          ValueError: more units than fit beside the pinned ones.
          RuntimeError: the store is closed, or this thread has the layer's lease already.
          CheckpointError: the file cannot be read; also where that happened ahead of use.
        """
        mine = self._layer(layer)
        late = self._worker.drop(layer)
        with mine.lock:
            self._check_free(mine)
            failure, mine.failure = mine.failure, None
            if failure is not None:
                raise failure
            mine.statistics.prefetch_late += late
            mine.leased = True
            try:
                plan = mine.fetch(units)
                yield Lease(mine.layout, mine.buffers, plan.slots, mine.bias)
            finally:
                mine.leased = False
                mine.statistics.prefetch_wasted += mine.cache.release()

    def record(self, layer: int, units: np.ndarray | Sequence[int]) -> None:
        """Count a call of a layer, of however many leases, for `rebalance`.

        Args:
          layer: number.
          units: distinct ids, all that the call used.

        Raises:
          IndexError: no such layer.
        """
        mine = self._layer(layer)
        with mine.lock:
            due = mine.counts.record(np.asarray(units))
        if due and self._adaptive:
            self._worker.submit(("hot", layer), lambda: self._in_background(mine, self._keep_hot))

    def prefetch(self, layer: int, units: np.ndarray | Sequence[int]) -> None:
        """Bring units that will be asked for, in another thread; returns at once.

        A request for the layer that comes before its turn does without. What goes wrong is raised by the
        layer's next `lease`.

        Args:
          layer: number.
          units: distinct ids; those for which there is no room are left out.

        Raises:
          IndexError: no such layer.
          RuntimeError: the store is closed.
        """
        mine, wanted = self._layer(layer), np.array(units)
        self._check_open()
        self._worker.submit(layer, lambda: self._in_background(mine, lambda _: mine.fetch_ahead(wanted)))

    def wait(self) -> None:
        """Until all that was to be prefetched is there."""
        self._worker.wait()
        self._road.transit.wait()

    def rebalance(self, layer: int | None = None) -> int:
        """Pin the neurons that the recorded calls used most, as the config says.

        Args:
          layer: number; None is all layers.

        Returns:
          the number of hot units.

        Raises:
          RuntimeError: the store is closed, or this thread has the lease of a layer.
        """
        found = 0
        for mine in self._layers if layer is None else [self._layer(layer)]:
            with mine.lock:
                self._check_free(mine)
                found += self._keep_hot(mine)
        return found

    def warm_up(self) -> None:
        """Compile all programs that write slots, which otherwise happens when they are first needed.

        Raises:
          RuntimeError: the store is closed, or this thread has the lease of a layer.
        """
        different = {(layer.layout, layer.cache.slots): layer for layer in self._layers}
        for layer in different.values():
            with layer.lock:
                self._check_free(layer)
                layer.compile_sizes(piece_sizes(self._road.piece))

    def close(self) -> None:
        """End the thread, give back the device's memory and close the file; again is no error."""
        self._closed = True
        self._worker.close()
        for layer in self._layers:
            with layer.lock:
                layer.drop()
        self._end()

    def __enter__(self) -> NeuronStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _layer(self, number: int) -> StoreLayer:
        if not 0 <= number < len(self._layers):
            raise IndexError(f"no layer {number}: the store has {len(self._layers)}")
        return self._layers[number]

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the store is closed")

    def _check_free(self, layer: StoreLayer) -> None:
        self._check_open()
        if layer.leased:
            raise RuntimeError(f"layer {layer.number} is leased; leave the other with block first")

    def _keep_hot(self, layer: StoreLayer) -> int:
        most = self.config.hot_neuron_count // layer.layout.unit
        return layer.keep_hot(most, self.config.hot_threshold)

    def _in_background(self, layer: StoreLayer, job: Callable[[StoreLayer], object]) -> None:
        with layer.lock:
            if self._closed or layer.leased:
                return
            try:
                job(layer)
            except Exception as error:  # kept for the layer's next lease
                layer.failure = error


def _end(worker: Prefetcher, source: UnitSource) -> None:
    worker.close()
    source.close()
