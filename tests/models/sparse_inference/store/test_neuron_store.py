"""The store gives the right rows under any budget, strategy, failure and number of threads."""

from __future__ import annotations

import os
import threading

import jax
import numpy as np
import pytest

from sparsejax.checkpoint.errors import NotReadableError, TruncatedFileError
from sparsejax.models.sparse_inference.config import CacheConfig
from sparsejax.models.sparse_inference.store.cache import SlotCache
from sparsejax.models.sparse_inference.store.neuron_file import NeuronFile
from sparsejax.models.sparse_inference.store.neuron_store import NeuronStore
from sparsejax.models.sparse_inference.store.placement import place
from sparsejax.models.sparse_inference.store.slots import Transit
from sparsejax.models.sparse_inference.store.units import unit_arrays
from tests.compilations import compilations
from tests.models.sparse_inference.stored_layers import CountingUnits, plain_layer, quantized_layer

LAYERS = [plain_layer(seed, bias=seed == 0) for seed in (0, 10, 20)]
TOTAL = 3 * 4096 + 256
FIFTH = TOTAL // 5


def store_of(layers=LAYERS, budget=FIFTH, *, strategy="lru", **options):
    return NeuronStore.from_layers(layers, budget, config=CacheConfig(cache_strategy=strategy), **options)


def counting(budget=FIFTH, **options):
    source = CountingUnits(LAYERS)
    return NeuronStore(source, budget=budget, **options), source


def use(store, layer, units, layers=LAYERS):
    """Lease units and compare every array of theirs with the layer's; a call of its own."""
    with store.lease(layer, units) as lease:
        assert lease.slots.dtype == np.int32
        for found, expected in zip(lease.arrays, unit_arrays(layers[layer], lease.layout), strict=True):
            assert np.array_equal(np.asarray(found)[lease.slots], expected[np.sort(units)])
        bias = layers[layer].b_out
        assert lease.bias is None if bias is None else np.array_equal(lease.bias, bias)
    store.record(layer, units)


def walk(seed, steps=40, units=64, most=9, layers=3):
    """Requests that come back to some units more often than to others."""
    rng = np.random.default_rng(seed)
    worth = 1 / np.arange(1, units + 1)
    for step in range(steps):
        count = rng.integers(0, most + 1)
        yield step % layers, rng.choice(units, count, replace=False, p=worth / worth.sum())


@pytest.mark.parametrize("where", ["memory", "path", "temporary file"])
@pytest.mark.parametrize("strategy", ["lru", "LFU", "Fifo", None])
def test_rows_and_statistics_are_those_of_the_cache(tmp_path, where, strategy):
    if where == "temporary file":
        config = CacheConfig(cache_strategy=strategy or "none", use_mmap=True)
        store = NeuronStore.from_layers(LAYERS, FIFTH, config=config)
    else:
        path = tmp_path / "neurons" if where == "path" else None
        store = store_of(strategy=strategy or "none", path=path)
    with store:
        caches = [SlotCache(64, slots, (strategy or "none").lower()) for slots in store.slots]
        assert store.slots == (10, 10, 10)
        asked = hits = 0
        for layer, units in walk(0):
            use(store, layer, units)
            absent = caches[layer].request(units.tolist()).absent
            caches[layer].release()
            asked, hits = asked + len(units), hits + int((~absent).sum())
        found = store.statistics
        assert (found.calls, found.hits, found.misses) == (40, hits, asked - hits)
        assert found.bytes_moved >= 64 * found.misses
        assert strategy is None or found.hits > 0
    assert not [name for name in os.listdir(tmp_path) if name != "neurons"]


def test_the_device_holds_no_more_than_the_budget():
    before = jax.live_arrays()  # kept alive, so that only the store's come and go

    def held():
        mine = [array for array in jax.live_arrays() if array.dtype == np.float32]
        return sum(array.nbytes for array in mine) - others

    others = 0
    others = held()

    with store_of() as store:
        most = 0
        for layer, units in walk(1):
            with store.lease(layer, units):
                most = max(most, held())
            store.prefetch((layer + 1) % 3, units[:5])
            most = max(most, held())
        store.wait()
        assert held() <= store.device_bytes == 3 * 10 * 64 + 10 * 4 + 32
        assert store.device_bytes <= most <= store.peak_device_bytes <= store.budget
        assert store.total_bytes == TOTAL
    assert held() == 0
    assert store.device_bytes == 0
    assert before is not None


def test_nothing_is_compiled_twice():
    with store_of() as store:
        store.warm_up()
        with compilations() as counts:
            for layer, units in walk(2):
                with store.lease(layer, units):
                    pass
                store.prefetch((layer + 1) % 3, units)
            store.wait()
        assert not counts
        assert store.statistics.misses > 0


def test_quantized_blocks_move_whole():
    layers = [quantized_layer("q4_0", neurons=256), quantized_layer("q8_0", neurons=256)]
    with NeuronStore.from_layers(layers, 48_000) as store:
        assert 1 < store.slots[0] < 8
        for layer, units in walk(3, units=8, most=2, layers=2, steps=12):
            use(store, layer, units, layers)
        assert store.peak_device_bytes <= 48_000


def test_without_a_budget_everything_stays():
    with store_of(budget=None) as store:
        for _ in range(2):
            for layer in range(3):
                use(store, layer, np.arange(64))
        assert (store.slots, store.statistics.hits, store.statistics.misses) == ((64,) * 3, 192, 192)


def test_what_is_prefetched_is_there():
    store, source = counting()
    with store:
        store.prefetch(1, [5, 3])
        store.prefetch(1, [5, 3, 60])
        store.wait()
        assert sorted(units for _, each in source.reads for units in each) == [3, 5, 60]
        use(store, 1, [3, 60])
        found = store.layer_statistics[1]
        assert (found.hits, found.misses, found.prefetched, found.prefetch_useful) == (2, 0, 3, 2)
        for units in (np.arange(10, 20), np.arange(20, 30)):
            use(store, 1, units)
        assert store.statistics.prefetch_wasted == 1
        store.reset_statistics()
        assert store.statistics.calls == 0


def test_prefetching_runs_beside_the_caller_and_never_holds_up_other_layers():
    store, source = counting()
    reading, go, read = threading.Event(), threading.Event(), source.read

    def slow(layer, units, into):
        if threading.current_thread() is not threading.main_thread():
            reading.set()
            assert go.wait(10)
        read(layer, units, into)

    source.read = slow
    with store:
        store.prefetch(1, [1, 2])
        assert reading.wait(10)
        use(store, 0, [1, 2, 3])  # while layer 1 is being read
        store.prefetch(2, [7])
        use(store, 2, [7])  # its prefetching has not begun: it does without
        assert store.layer_statistics[2].prefetch_late == 1
        go.set()
        use(store, 1, [1, 2])
        assert store.layer_statistics[1].misses == 0


def test_hot_neurons_stay():
    counts = [np.arange(64), np.zeros(64), np.arange(64)[::-1]]
    placed = place(counts, 64, budget=12 * 64)
    with store_of(hot=placed.hot) as store:
        assert [store.hot(layer).tolist() for layer in range(3)] == [ids.tolist() for ids in placed.hot]
        assert store.slots[0] > store.slots[1]
        store.reset_statistics()
        for layer, units in walk(4):
            use(store, layer, units[: store.room(layer)])
        use(store, 0, placed.hot[0])
        found = store.layer_statistics[0]
        assert found.hot_hits >= len(placed.hot[0])
        assert found.prefetch_useful == 0
        assert store.peak_device_bytes <= FIFTH
        everything = np.arange(64)
        parts = store.parts(0, everything)
        assert np.array_equal(np.concatenate(parts), everything)
        for part in parts:
            use(store, 0, part)
        with pytest.raises(ValueError, match="do not fit into"):
            use(store, 0, everything)


def test_hot_neurons_are_chosen_by_use_and_stay_until_they_are_seldom():
    config = CacheConfig(hot_neuron_fraction=0.2, hot_threshold=0.5, hot_neuron_count=2)
    with NeuronStore.from_layers(LAYERS[:1], FIFTH, config=config) as store:
        for step in range(10):
            use(store, 0, [1, 2, 3] if step < 6 else [1, 4] if step < 9 else [1, 5])
        assert store.rebalance() == 2
        assert store.hot(0).tolist() == [1, 2]  # 3 as often as 2, but only two may be hot
        for _ in range(10):
            use(store, 0, [4])
        store.rebalance(0)  # of 20 calls: 1 in 10, 4 in 13, 2 in 6
        assert store.hot(0).tolist() == [1, 4]
        for _ in range(12):
            use(store, 0, [5])
        store.rebalance(0)  # of 32: 1 in 10, 4 in 13, 5 in 13; no one in half of them, 1 and 4 in a fifth
        assert store.hot(0).tolist() == [1, 4]
        for _ in range(34):
            use(store, 0, [5])
        store.rebalance(0)  # of 66: 5 in 47, 4 in 13, 1 in 10, fewer than a fifth
        assert store.hot(0).tolist() == [4, 5]


def test_adaptive_stores_choose_by_themselves():
    with NeuronStore.from_layers(LAYERS[:1], FIFTH, adaptive=True) as store:
        for step in range(1000):
            assert step == 0 or not store.hot(0).size
            store.record(0, [7, 8 + step % 50])
        store.wait()
        assert store.hot(0).tolist() == [7]


@pytest.mark.parametrize("error", [NotReadableError("gone"), KeyboardInterrupt()])
def test_a_failure_leaves_the_store_usable(error):
    store, source = counting()
    with store:
        use(store, 0, [1, 2, 3])
        source.failing = error
        with pytest.raises(type(error)):
            use(store, 0, np.arange(20, 30))
        source.failing = None
        for layer, units in walk(5, steps=12):
            use(store, layer, units)


def test_a_failure_ahead_of_use_is_told_by_the_next_lease():
    store, source = counting()
    with store:
        source.failing = NotReadableError("gone")
        store.prefetch(1, [1])
        store.wait()
        source.failing = None
        use(store, 0, [1])
        with pytest.raises(NotReadableError, match="gone"):
            use(store, 1, [2])
        use(store, 1, [2])
        store.prefetch(1, [64])
        store.wait()
        with pytest.raises(IndexError, match="no unit 64"):
            use(store, 1, [2])


def test_a_shrinking_file_is_an_error_and_no_crash(tmp_path):
    path = tmp_path / "neurons"
    with store_of(path=path) as store:
        use(store, 2, [60])
        os.truncate(path, 5000)
        use(store, 2, [60])  # on the device
        with pytest.raises(TruncatedFileError, match=r"neurons: shrank from \d+ to 5000 bytes"):
            use(store, 2, [61])
        store.prefetch(1, [1])
    with pytest.raises(TruncatedFileError):
        NeuronStore.open(path, FIFTH)


@pytest.mark.parametrize("again", [[1, 2], [2, 5]])  # all were there before, or some
def test_an_interrupted_write_loses_units_and_gives_no_wrong_ones(again, monkeypatch):
    send = Transit.send

    def interrupted(*given):
        send(*given)  # takes the buffers
        raise KeyboardInterrupt

    with store_of() as store:
        use(store, 0, [1, 2, 3])
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Transit, "send", interrupted)
            use(store, 0, [4])
        use(store, 0, again)
        assert store.layer_statistics[0].hits == 0


def test_nothing_is_fetched_into_a_layer_that_is_leased_by_the_same_thread():
    store, _ = counting()
    with store, store.lease(0, [1]):
        store._in_background(store._layers[0], lambda layer: layer.fetch_ahead([2]))
        assert store.layer_statistics[0].prefetched == 0


def test_a_file_is_closed_where_no_store_can_be_made(tmp_path, monkeypatch):
    path, closed = tmp_path / "neurons", []
    with store_of(path=path):
        pass
    close = NeuronFile.close
    monkeypatch.setattr(NeuronFile, "close", lambda file: closed.append(file) or close(file))
    with pytest.raises(ValueError, match="the budget leaves"):
        NeuronStore.open(path, 300)
    assert len(closed) == 1


def test_closing_ends_everything_once():
    store, source = counting()
    store.prefetch(0, [1])
    store.close()
    store.close()
    assert source.closed == 1
    assert store.device_bytes == 0
    for call in (lambda: use(store, 0, [1]), lambda: store.prefetch(0, [1]), store.rebalance, store.warm_up):
        with pytest.raises(RuntimeError, match="the store is closed"):
            call()
    assert "neuron prefetch" not in {thread.name for thread in threading.enumerate()}
    forgotten, source = counting()
    forgotten.prefetch(0, [1])
    forgotten.wait()
    del forgotten
    assert source.closed == 1


def test_many_threads_get_the_right_rows():
    failures = []
    with store_of() as store:

        def work(seed):
            try:
                for layer, units in walk(seed, steps=25):
                    store.prefetch((layer + 1) % 3, units)
                    use(store, layer, units)
            except BaseException as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.wait()
        found = store.statistics
        assert found.calls == 100
        assert found.prefetch_useful + found.prefetch_wasted <= found.prefetched
    assert not failures


def test_a_config_limits_the_cold_neurons():
    for strategy, slots in (("lru", 7), ("lfu", 5)):
        config = CacheConfig(cache_strategy=strategy, lru_cache_size=7, max_cold_cache_size=5)
        layer = plain_layer(neurons=31)  # an odd number, of which slots need not be whole parts
        with NeuronStore.from_layers([layer], 31 * 64, config=config) as store:
            assert store.slots == (slots,)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"the budget leaves \d+ bytes for neurons; 196 are needed"):
        store_of(budget=300)
    with pytest.raises(ValueError, match="needed for the hot ones"):
        store_of(hot=[np.arange(60), [], []])
    for hot in ([[1], [2]], np.zeros((2, 3), int)):
        with pytest.raises(ValueError, match="hot holds the neurons of 2 layers; the store has 3"):
            store_of(hot=hot)
    with store_of(hot=np.asarray([[1], [2], [3]])) as store:
        assert store.hot(2).tolist() == [3]
    with pytest.raises(ValueError, match="hot neurons must be 0 to 63, not 3 to 64"):
        store_of(hot=[[3, 64], [], []])
    with store_of() as store:
        for layer in (-1, 3):
            with pytest.raises(IndexError, match=f"no layer {layer}: the store has 3"):
                store.prefetch(layer, [1])
        with pytest.raises(IndexError, match="no unit 64"):
            use(store, 0, [64])
        for refused in (lambda: use(store, 0, [2]), store.warm_up, store.rebalance):
            with store.lease(0, [1]), pytest.raises(RuntimeError, match="layer 0 is leased"):
                refused()
        use(store, 0, [2])
