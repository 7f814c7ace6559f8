"""A batch of no rows goes through every family and every path: shapes follow, and no number is NaN."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.models.force_field.losses import ForceFieldLoss, LossMasks, force_field_loss
from sparsejax.models.sparse_inference import SparseFFN, SparsityConfig
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan
from sparsejax.models.sparse_inference.ffn.selection import select_blocks
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.model import LlamaLM
from sparsejax.models.sparse_inference.llama.weights import quantize_llama
from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor
from sparsejax.models.sparse_inference.store.ffn import StoredFFN
from sparsejax.models.sparse_inference.store.neuron_store import NeuronStore
from sparsejax.models.sprout.config import DeepSets, SproutConfig
from sparsejax.models.sprout.model import SproutLM
from sparsejax.models.ten import EigenstateLayer, TemporalEigenstateConfig, TemporalEigenstateNetwork
from sparsejax.models.ten.spectrum import state_trajectory
from sparsejax.models.ultra_sparse import UltraSparseConfig, UltraSparseNet
from sparsejax.ops.backends import target_platform
from sparsejax.ops.linear_recurrence import Decay, linear_recurrence
from sparsejax.ops.quantized import QuantizedTensor
from sparsejax.ops.sparse_ffn import FFNWeights

NONE, ONE = jnp.zeros((0, 5), jnp.int32), jnp.zeros((1, 5), jnp.int32)
TOP_NINE, ABOVE = SparsityConfig.with_top_k(9), SparsityConfig.with_threshold(0.1)


def shapes_of(model, tokens=NONE, **options):
    """Of the output, by tracing alone: whatever cannot be reshaped fails there."""
    params = jax.eval_shape(model.init, jax.random.key(0), ONE)
    return jax.eval_shape(partial(model.apply, **options), params, tokens)


def ten(layer=None, **fields):
    kind = {} if layer is None else {"variant": "modern", "layer": layer}
    sizes = {"vocab_size": 9, "dim": 8, "n_layers": 1, "num_eigenstates": 4, "n_heads": 2, "max_seq_len": 16}
    return TemporalEigenstateNetwork(TemporalEigenstateConfig(**sizes, **kind, **fields))


@pytest.mark.parametrize(
    "model",
    [
        ten(),
        ten(use_resonance=False),
        ten(EigenstateLayer(selective=True, short_conv=3)),
        ten(EigenstateLayer(anticausal_chunk=4)),
    ],
    ids=["resonance", "cells", "modern", "chunks"],
)
def test_eigenstate_networks(model):
    assert shapes_of(model).logits.shape == (0, 5, 9)


def test_eigenstates_of_no_text():
    model = ten()
    params = jax.jit(model.init)(jax.random.key(0), ONE)["params"]
    assert state_trajectory(model, params, NONE).shape == (1, 0, 5, 8)


@pytest.mark.parametrize("backend", ["scan", "associative", "chunked", "fft", "pallas"])
@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_recurrences(backend, platform):
    drive = jnp.zeros((0, 7, 4)), jnp.zeros((0, 7, 4))
    with target_platform(platform):
        states, last = linear_recurrence(drive, Decay(jnp.zeros(4), jnp.zeros(4)), backend=backend)
    assert states[0].shape == (0, 7, 4) and last[0].shape == (0, 4)


@pytest.mark.parametrize("path", ["masked", "gather", "block"])
@pytest.mark.parametrize("fields", [{}, {"mixer_hidden": 4}, {"deep_sets": DeepSets(4, 4)}], ids=str)
def test_sprout(fields, path):
    sizes = {"vocab_size": 9, "d_model": 8, "d_ff": 40, "n_heads": 2, "n_layers": 1, "max_len": 16}
    model = SproutLM(SproutConfig(**sizes, block_size=20, **fields))
    assert shapes_of(model, top_k=8, path=path, mixer="always").logits.shape == (0, 5, 9)


def test_neurons_that_nobody_could_select_are_used_by_none():
    config = SproutConfig(vocab_size=9, d_model=8, d_ff=8, n_heads=2, n_layers=1, max_len=16)
    params = jax.jit(SproutLM(config).init)(jax.random.key(0), ONE)["params"]
    outputs = Checkpoint("sprout", "original", config, params).apply(NONE, top_k=2)
    np.testing.assert_array_equal(outputs.aux.usage, np.zeros((1, 8)))


LLAMA = LlamaConfig(vocab_size=9, d_model=32, d_ff=64, n_layers=1, n_heads=4, n_kv_heads=2)
PREDICTORS = (LowRankPredictor(jnp.ones((3, 32)), jnp.ones((64, 3))),)


@pytest.fixture(scope="module")
def llama():
    params = jax.jit(LlamaLM(LLAMA).init)(jax.random.key(0), ONE)["params"]
    return {"plain": (LLAMA, params), "q8_0": quantize_llama(LLAMA, params, "q8_0")}


@pytest.mark.parametrize("weights", ["plain", "q8_0"])
@pytest.mark.parametrize(
    "options", [{}, {"sparsity": TOP_NINE}, {"sparsity": ABOVE}, {"active_fraction": 0.5}], ids=str
)
def test_llamas(llama, weights, options):
    config, params = llama[weights]
    options = options and {"predictors": PREDICTORS, **options}

    def twice(params):
        apply = partial(LlamaLM(config).apply, {"params": params}, **options)
        return apply(NONE, apply(NONE).state)

    assert jax.eval_shape(twice, params).logits.shape == (0, 5, 9)


def test_states_of_no_rows_have_room(llama):
    ck = Checkpoint("sparse_inference", "gguf_llama", *llama["plain"])
    assert ck.apply(NONE, ck.apply(NONE).state).logits.shape == (0, 5, 9)


@pytest.mark.parametrize("sparsity", [TOP_NINE, ABOVE])
@pytest.mark.parametrize("group", [0, 1, 2])
@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_quantised_neurons(shape, group, sparsity):
    matrices = {
        name: QuantizedTensor.quantize(np.ones(size), "q8_0")
        for name, size in (("w_in", (64, 32)), ("w_out", (32, 64)))
    }
    ffn = SparseFFN(32, 64, activation="relu", use_bias=False, plan=FFNPlan(block_size=32, group=group))
    apply = partial(ffn.apply, {"params": matrices}, sparsity=sparsity)
    inputs, scores = jnp.zeros((*shape, 32)), jnp.zeros((*shape, 64))
    outputs = jax.eval_shape(lambda inputs, scores: apply(inputs, scores=scores), inputs, scores)
    assert outputs.shape == (*shape, 32)


def test_choices_and_rows():
    four = SparsityConfig.with_top_k(4)
    assert select_blocks(jnp.zeros((0, 3, 8)), four, block_size=2).shape == (0, 3, 2)
    table = QuantizedTensor.quantize(np.ones((4, 32)), "q4_0")
    assert table.rows(jnp.zeros((0, 2), jnp.int32)).shape == (0, 2, 32)


def test_stored_neurons():
    layer = FFNWeights(np.ones((64, 32), np.float32), np.ones((64, 16), np.float32))
    with NeuronStore.from_layers([layer], budget=None) as store:
        ffn = StoredFFN(store, list(PREDICTORS), TOP_NINE, activation="relu")
        assert ffn(jnp.zeros((0, 2, 32))).shape == (0, 2, 16)


def test_feature_nets():
    model = UltraSparseNet(UltraSparseConfig())
    params = model.init(jax.random.key(0), jnp.zeros(256))
    assert model.apply(params, jnp.zeros((0, 256))).shape == (0, 1)


@pytest.mark.parametrize(
    "masks", [None, LossMasks(jnp.ones(0, bool), jnp.ones(0, bool))], ids=["all", "masked"]
)
def test_losses_over_no_structure_are_zero(masks):
    empty = {"energy": jnp.zeros(0), "forces": jnp.zeros((0, 3)), "stress": jnp.zeros((0, 6))}
    total, metrics = force_field_loss(empty, empty, ForceFieldLoss(energy="total"), masks)
    assert total == 0 and all(value == 0 for value in metrics.values())
