"""Layers of which a fifth fits on the device give the outputs of layers that are there altogether."""

from __future__ import annotations

import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.calibration.compensation import Compensation, compensation
from sparsejax.models.sparse_inference.config import CacheConfig, SparsityConfig
from sparsejax.models.sparse_inference.ffn.paths import predicted_ffn
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan, chosen
from sparsejax.models.sparse_inference.predictor.ahead import LookAhead
from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor
from sparsejax.models.sparse_inference.store.ffn import StoredFFN
from sparsejax.models.sparse_inference.store.neuron_store import NeuronStore
from sparsejax.models.sparse_inference.store.units import unit_layout
from sparsejax.ops.quantized import decode
from sparsejax.ops.sparse_ffn import dense_ffn
from tests.compilations import compilations
from tests.models.sparse_inference.stored_layers import CountingUnits, drawn, plain_layer, quantized_layer

LAYERS = [plain_layer(seed, bias=True, gated=True) for seed in (0, 10, 20)]
PREDICTORS = [LowRankPredictor(jnp.eye(8), layer.w_in) for layer in LAYERS]
TOTAL = sum(array.nbytes for layer in LAYERS for array in layer if array is not None)
SIX, ROWS = SparsityConfig.with_top_k(6), FFNPlan(path="rows")
TOKENS = drawn(7, 20, 8)


@partial(jax.jit, static_argnames=("sparsity", "plan"))
def plain(layer, predictor, inputs, sparsity, plan=ROWS):
    scores = predictor.scores(inputs)
    return predicted_ffn(inputs, layer, scores, sparsity, activation="silu", plan=plan)


def expected(inputs, sparsity=SIX, layers=LAYERS):
    for layer, predictor in zip(layers, PREDICTORS, strict=True):
        inputs = inputs + plain(layer, predictor, inputs, sparsity)
    return inputs


def stored(store, sparsity=SIX, predictors=PREDICTORS, **options):
    return StoredFFN(store, predictors, sparsity, activation="silu", **options)


@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize("strategy", ["lru", "lfu", "fifo", "none"])
def test_a_fifth_on_the_device_gives_the_same_outputs(tmp_path, strategy, prefetch):
    config = CacheConfig(cache_strategy=strategy)
    path = tmp_path / "neurons" if strategy == "lfu" else None
    with NeuronStore.from_layers(LAYERS, TOTAL // 5, config=config, path=path) as store:
        ffn = stored(store, prefetch=prefetch)
        for token in TOKENS:
            found = ffn(jnp.asarray(token[None]), residual=True)
            np.testing.assert_allclose(found, expected(token[None]), rtol=0, atol=1e-6)
        store.wait()
        found = store.statistics
        assert found.hits + found.misses == 6 * 3 * len(TOKENS)
        assert (found.prefetched > 0) == prefetch
        assert store.peak_device_bytes <= store.budget == TOTAL // 5


def test_the_outputs_are_the_same_to_the_bit():
    with NeuronStore.from_layers(LAYERS, TOTAL // 5) as store:
        ffn = stored(store)
        for token in TOKENS[:5]:
            found = ffn.layer(0, jnp.asarray(token[None]))
            wanted = plain(LAYERS[0], PREDICTORS[0], token[None], SIX)
            assert np.array_equal(found, wanted)


def test_several_tokens_keep_their_own_neurons():
    with NeuronStore.from_layers(LAYERS, TOTAL // 5) as store:
        inputs = jnp.asarray(TOKENS[:6].reshape(2, 3, 8))
        found = stored(store)(inputs, residual=True)
        assert found.shape == (2, 3, 8)
        np.testing.assert_allclose(found, expected(inputs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.6, 100.0])
def test_thresholds_choose_as_many_as_there_are(threshold):
    sparsity = SparsityConfig.with_threshold(threshold)
    with NeuronStore.from_layers(LAYERS, TOTAL // 5) as store:
        ffn = stored(store, sparsity)
        for inputs in (TOKENS[:1], TOKENS[1:2], TOKENS[:3]):
            scores = PREDICTORS[1].scores(inputs)
            mask = np.asarray(chosen(scores, sparsity, FFNPlan()))
            found = ffn.layer(1, jnp.asarray(inputs))
            plan = FFNPlan(path="masked")
            wanted = plain(LAYERS[1], PREDICTORS[1], inputs, sparsity, plan)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
            if not mask.any():
                assert np.array_equal(found, np.tile(LAYERS[1].b_out, (len(inputs), 1)))


def test_a_layer_without_a_predictor_streams_through_the_slots():
    predictors = [PREDICTORS[0], None, PREDICTORS[2]]
    with NeuronStore.from_layers(LAYERS, TOTAL // 5) as store:
        ffn = stored(store, predictors=predictors)
        for inputs in (jnp.asarray(TOKENS[:1]), jnp.asarray(TOKENS[:3])):
            found = ffn.layer(1, inputs)
            np.testing.assert_allclose(found, dense_ffn(inputs, LAYERS[1], activation="silu"), atol=1e-6)
        assert store.layer_statistics[1].calls == 2 * -(-64 // store.slots[1])
        assert store.peak_device_bytes <= store.budget


@pytest.mark.parametrize(("kind", "block"), [("q8_0", 1), ("q4_0", 32)])
def test_quantized_layers_give_what_their_numbers_give(kind, block):
    layer = quantized_layer(kind)
    w_in, w_out, w_gate = (
        decode(part.to_bytes(), kind, part.size).reshape(part.shape).astype(np.float64) for part in layer[:3]
    )
    sparsity, plan = SparsityConfig.with_top_k(40), FFNPlan(block_size=block)
    predictor = LowRankPredictor(jnp.eye(64), jnp.asarray(w_in, jnp.float32))
    with NeuronStore.from_layers([layer], 5 * unit_layout(layer).unit_bytes) as store:
        assert store.slots == (3,)
        ffn = StoredFFN(store, [predictor], sparsity, activation="silu", plan=plan)
        for inputs in (drawn(5, 1, 64), drawn(6, 3, 64)):
            sums = inputs @ w_in.T
            worth = sums if block == 1 else (np.maximum(sums, 0) ** 2).reshape(-1, 4, 32).sum(axis=-1)
            least = np.sort(worth, axis=1)[:, -40 if block == 1 else -1, None]
            mask = np.repeat(worth >= least, block, axis=1)
            gate = inputs @ w_gate.T
            wanted = np.where(mask, gate / (1 + np.exp(-gate)) * sums, 0) @ w_out.T
            np.testing.assert_allclose(ffn(jnp.asarray(inputs)), wanted, rtol=0, atol=1e-5)


def test_nothing_is_compiled_after_the_first_tokens():
    with NeuronStore.from_layers(LAYERS, TOTAL // 5) as store:
        ffn = stored(store)
        store.warm_up()
        assert store.statistics.bytes_moved == 0
        ffn(jnp.asarray(TOKENS[:1]), residual=True)
        with compilations() as counts:
            for token in TOKENS[1:]:
                ffn(jnp.asarray(token[None]), residual=True)
            store.wait()
        assert not counts


def test_parts_of_layers_need_few_programs():
    """Most slots are pinned, so that a token's neurons come in parts, of other lengths each time."""
    with NeuronStore.from_layers(LAYERS, TOTAL // 5, hot=[np.arange(6)] * 3) as store:
        assert store.room(0) < 30
        ffn = StoredFFN(store, PREDICTORS, SparsityConfig.with_top_k(30), activation="silu")
        store.warm_up()
        with compilations() as counts:
            for token in TOKENS:
                ffn(jnp.asarray(token[None]), residual=True)
        assert store.statistics.calls > 5 * 3 * len(TOKENS)
        assert 0 < counts["slot_outputs"] <= 8


def test_a_call_in_parts_is_one_call():
    """A neuron that every call uses is used in all of them, however many parts the calls come in."""
    with NeuronStore.from_layers(LAYERS, TOTAL // 5) as store:
        ffn = stored(store, predictors=[None] * 3)
        for token in TOKENS[:3]:
            ffn.layer(0, jnp.asarray(token[None]))
        assert store.layer_statistics[0].calls >= 9
        assert store.rebalance(0) == store.slots[0] * 3 // 4


def test_good_guesses_save_the_waiting():
    """Inputs that hardly change from layer to layer: what one guesses, the next one needs."""
    layers = [layer._replace(w_out=1e-4 * layer.w_out, b_out=0 * layer.b_out) for layer in LAYERS]
    misses = {}
    for prefetch in (True, False):
        with NeuronStore(CountingUnits(layers), budget=TOTAL // 5) as store:
            ffn = stored(store, prefetch=prefetch)
            for token in TOKENS:
                inputs = jnp.asarray(token[None])
                for number in range(3):
                    inputs = inputs + ffn.layer(number, inputs)
                    store.wait()
            misses[prefetch] = [each.misses for each in store.layer_statistics]
            found = store.statistics
    assert misses[True][1:] == [0, 0]
    assert min(misses[False]) > 20
    assert found.prefetched == 0


def test_look_ahead_predictors_are_asked_once_and_always_right():
    """Layer 2 is chosen by what layer 1 reads: no guess, and nothing is missing when its turn comes."""
    ahead = [*PREDICTORS[:2], LookAhead(PREDICTORS[2])]
    third = jax.tree.map(jnp.asarray, LAYERS[2])
    with NeuronStore.from_layers(LAYERS, TOTAL // 5) as store:
        ffn = stored(store, predictors=ahead)
        for token in TOKENS:
            inputs = [jnp.asarray(token[None])]
            for number in range(3):
                outputs = ffn.layer(number, inputs[-1])
                inputs.append(inputs[-1] + outputs)
                store.wait()
            scores = ahead[2].scores(inputs[1])
            wanted = predicted_ffn(inputs[2], third, scores, SIX, activation="silu", plan=ROWS)
            np.testing.assert_allclose(outputs, wanted, rtol=0, atol=1e-6)
        assert store.layer_statistics[2].misses == 0
        with pytest.raises(ValueError, match="layer 2 needs what layer 1 reads; run that one first"):
            ffn.layer(2, inputs[2])
        with pytest.raises(
            ValueError, match="the predictor of layer 0 looks back to where there is no layer"
        ):
            stored(store, predictors=[LookAhead(PREDICTORS[0]), *PREDICTORS[1:]])


def test_compensations_are_added():
    fitted = [None, Compensation(drawn(1, 8, 2), drawn(2, 2, 8), drawn(3, 8)), None]
    with NeuronStore.from_layers(LAYERS, TOTAL // 5) as store:
        bare, ffn = stored(store), stored(store, fitted=fitted)
        inputs = jnp.asarray(TOKENS[:1])
        added = ffn.layer(1, inputs) - bare.layer(1, inputs)
        np.testing.assert_allclose(added, compensation(inputs, fitted[1]), atol=1e-6)
        everything = SparsityConfig.with_top_k(64)
        for options in ({"sparsity": everything}, {"predictors": [PREDICTORS[0], None, PREDICTORS[2]]}):
            bare, ffn = stored(store, **options), stored(store, fitted=fitted, **options)
            assert np.array_equal(ffn.layer(1, inputs), bare.layer(1, inputs))


def test_another_thread_pins_units_only_between_layers(monkeypatch):
    """Parts are cut for the room there is: units that were pinned meanwhile would leave too little."""
    threads = []

    def parts_while_another_pins(layer, units):
        found = cut(layer, units)
        threads.append(threading.Thread(target=store.rebalance))
        threads[-1].start()
        threads[-1].join(0.2)
        return found

    with NeuronStore.from_layers(LAYERS, TOTAL // 5) as store:
        ffn = stored(store, predictors=[None] * 3)
        outputs = ffn(jnp.asarray(TOKENS[:1]))
        cut = store.parts
        monkeypatch.setattr(store, "parts", parts_while_another_pins)
        np.testing.assert_allclose(ffn(jnp.asarray(TOKENS[:1])), outputs, atol=1e-6)
        for thread in threads:
            thread.join()
        assert all(len(store.hot(number)) for number in range(3))


def test_layers_may_differ_in_sparsity():
    several = [SparsityConfig.with_top_k(count) for count in (3, 30, 12)]
    with NeuronStore.from_layers(LAYERS, TOTAL // 5) as store:
        ffn = stored(store, several)
        for token in TOKENS[:3]:
            inputs = wanted = jnp.asarray(token[None])
            for layer, predictor, few in zip(LAYERS, PREDICTORS, several, strict=True):
                wanted = wanted + plain(layer, predictor, wanted, few)
            np.testing.assert_allclose(ffn(inputs, residual=True), wanted, atol=1e-5)


def test_what_cannot_be_is_refused():
    with NeuronStore.from_layers(LAYERS, TOTAL // 5) as store:
        with pytest.raises(ValueError, match="1 predictors do not fit 3 layers"):
            stored(store, predictors=PREDICTORS[:1])
        with pytest.raises(ValueError, match="2 sparsities do not fit 3 layers"):
            stored(store, [SIX, SIX])
        ffn = stored(store)
        with pytest.raises(ValueError, match=r"inputs of shape \(1, 7\) do not fit: \(\.\.\., 8\) is needed"):
            ffn(jnp.ones((1, 7)))
        with pytest.raises(ValueError, match="the scores of layer 0 hold NaN"):
            ffn(jnp.full((1, 8), jnp.nan))
    with pytest.raises(RuntimeError, match="the store is closed"):
        ffn(jnp.ones((1, 8)))
