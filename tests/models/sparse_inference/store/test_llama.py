"""A decoder with its neurons in a store says what the network says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.generation import generate
from sparsejax.models.sparse_inference.llama.model import LlamaLM
from sparsejax.models.sparse_inference.llama.weights import quantize_llama
from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor
from sparsejax.models.sparse_inference.store.ffn import StoredFFN
from sparsejax.models.sparse_inference.store.llama import StoredLlama, llama_ffn_layers
from sparsejax.models.sparse_inference.store.neuron_store import NeuronStore
from tests.compilations import compilations

CONFIG = LlamaConfig(
    vocab_size=40, d_model=32, d_ff=128, n_layers=2, n_heads=4, n_kv_heads=2, activation="relu"
)
TOKENS = np.random.default_rng(0).integers(0, 40, (2, 12))
TEN = SparsityConfig.with_top_k(10)


@pytest.fixture(scope="module")
def network():
    model = LlamaLM(CONFIG)
    params = jax.jit(model.init)(jax.random.key(0), jnp.asarray(TOKENS))["params"]
    predictors = [
        LowRankPredictor(jnp.eye(32), params[f"blk_{number}"]["ffn_gate"]["weight"]) for number in range(2)
    ]
    apply = jax.jit(
        lambda params, tokens, state: model.apply(
            {"params": params}, tokens, state, predictors=predictors, sparsity=TEN
        )
    )
    return model, params, predictors, apply


def test_a_fifth_of_the_neurons_on_the_device_gives_the_same_logits(network):
    model, params, predictors, apply = network
    layers = llama_ffn_layers(CONFIG, params)
    total = sum(array.nbytes for layer in layers for array in layer if array is not None)
    with NeuronStore.from_layers(layers, total // 5) as store:
        stored = StoredLlama(model, params, StoredFFN(store, predictors, TEN, activation="relu"))
        store.warm_up()
        states: list = [None, None]

        def compare(first, last):
            tokens = jnp.asarray(TOKENS[:1, first:last])
            found, expected = stored(tokens, states[0]), apply(params, tokens, states[1])
            np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=1e-6)
            states[:] = found.state, expected.state
            return found

        for first, last in ((0, 5), (5, 6), (6, 7)):
            compare(first, last)
        with compilations() as counts:
            for first in range(7, 12):
                found = compare(first, first + 1)
        assert not counts
        assert found.state.lengths.tolist() == [12]
        assert store.peak_device_bytes <= total // 5
        assert store.statistics.hits > 0 < store.statistics.misses


def test_quantized_networks_stay_quantized(network):
    _, params, predictors, _ = network
    config, params = quantize_llama(CONFIG, params, "q8_0")
    layers, model, plan = llama_ffn_layers(config, params), LlamaLM(config), FFNPlan(block_size=32)
    with NeuronStore.from_layers(layers, 60_000) as store:
        ffn = StoredFFN(store, predictors, TEN, activation="relu", plan=plan)
        found = StoredLlama(model, params, ffn)(jnp.asarray(TOKENS), capacity=0)
    apply = jax.jit(model.apply, static_argnames=("sparsity", "plan"))
    expected = apply({"params": params}, TOKENS, predictors=predictors, sparsity=TEN, plan=plan)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=1e-5)
    assert found.state is None


def test_generation_gives_the_tokens_of_the_network_without_a_store(network):
    model, params, predictors, _ = network
    sharp = jax.tree.map(lambda leaf: leaf if leaf.ndim == 1 else 12 * leaf, params)
    some = {"predictors": predictors, "sparsity": TEN}
    prompts = [TOKENS[0].tolist(), [3, 1]]
    free = generate((model, sharp), prompts, max_new_tokens=6, temperature=0, **some)
    options = {"max_new_tokens": 6, "temperature": 0, "stop_tokens": [int(free.tokens[1, 2])]}
    wanted = generate((model, sharp), prompts, **options, **some)
    with StoredLlama.from_checkpoint((model, sharp), 30_000, **some) as stored:
        heard = []
        found = generate(stored, prompts, on_token=lambda step, newest: heard.append(newest), **options)
        with pytest.raises(ValueError, match="a StoredLlama has its predictors already; give"):
            generate(stored, prompts, max_new_tokens=1, **some)
        assert 0 < stored.statistics.hit_rate < 1 and stored.ffn.store.peak_device_bytes <= 30_000
    np.testing.assert_array_equal(found.tokens, wanted.tokens)
    np.testing.assert_array_equal(np.stack(heard, 1), wanted.tokens[:, : len(heard)])
    np.testing.assert_array_equal(found.lengths, wanted.lengths)
    np.testing.assert_array_equal(found.state.lengths, wanted.state.lengths)
    np.testing.assert_allclose(found.log_probabilities, wanted.log_probabilities, atol=1e-4)
    with pytest.raises(RuntimeError, match="the store is closed"):
        generate(stored, prompts, max_new_tokens=1)


def test_without_predictors_all_neurons_come_and_go(network):
    model, params, _, _ = network
    wanted = jax.jit(model.apply)({"params": params}, TOKENS)
    with StoredLlama.from_checkpoint((model, params), 30_000) as stored:
        np.testing.assert_allclose(stored(jnp.asarray(TOKENS)).logits, wanted.logits, atol=1e-6)
    with pytest.raises(ValueError, match="the budget leaves"):
        StoredLlama.from_checkpoint((model, params), 300)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_blocks_of_other_sparsity_give_the_logits_of_the_whole_network(network, dtype):
    model, params, predictors, _ = network
    model = model.clone(dtype=dtype)
    options = {"predictors": predictors, "active_fraction": (0.5, 0.1)}
    wanted = jax.jit(lambda params: model.apply({"params": params}, TOKENS, **options))(params)
    with StoredLlama.from_checkpoint((model, params), 30_000, **options) as stored:
        assert stored.ffn.store.layouts[0].fields[0].planes[0].dtype == jnp.dtype(dtype or jnp.float32).name
        found = stored(jnp.asarray(TOKENS)).logits
    np.testing.assert_allclose(found, wanted.logits, atol=1e-6 if dtype is None else 0.03)


def test_what_does_not_fit_is_refused(network):
    model, params, predictors, _ = network
    with NeuronStore.from_layers(llama_ffn_layers(CONFIG, params), None) as store:
        with pytest.raises(ValueError, match="2 stored layers with activation 'silu' do not fit"):
            StoredLlama(model, params, StoredFFN(store, predictors, TEN, activation="silu"))
        stored = StoredLlama(model, params, StoredFFN(store, predictors, TEN, activation="relu"))
        with pytest.raises(ValueError, match=r"tokens of shape \(3,\) do not fit"):
            stored(jnp.arange(3))
        full = stored(jnp.asarray(TOKENS[:1, :3]), capacity=3)
        assert jnp.isnan(stored(jnp.asarray(TOKENS[:1, 3:4]), full.state).logits).all()


def test_a_store_is_closed_where_no_network_can_be_made(network, monkeypatch):
    model, params, predictors, _ = network
    close, closed = NeuronStore.close, []
    monkeypatch.setattr(NeuronStore, "close", lambda store: closed.append(store) or close(store))
    options = {"predictors": predictors, "sparsity": TEN, "fitted": [None]}
    with pytest.raises(ValueError, match="1 fitted do not fit 2 layers"):
        StoredLlama.from_checkpoint((model, params), 30_000, **options)
    assert len(closed) == 1
