"""Usage, co-activation, similarity, layers, topics, senses: against the published numbers, and by hand."""

from __future__ import annotations

import csv
import io
import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.models.sprout import SproutConfig, SproutFFN, SproutFFNConfig, SproutLM
from sparsejax.models.sprout.analysis import (
    Coactivation,
    NeuronUsage,
    analyse,
    coactivation,
    gini,
    layer_statistics,
    neuron_similarity,
    neuron_usage,
    normalised_coactivation,
    pattern_cosines,
    pattern_jaccards,
    router_cosines,
    sense_overlap,
    token_overlap,
    topic_specialisation,
    usage_statistics,
)
from sparsejax.models.sprout.analysis.layers import layer_sums, layers_from
from sparsejax.models.sprout.analysis.observation import summed
from sparsejax.models.sprout.analysis.specialisation import embedding_patterns
from sparsejax.models.sprout.analysis.usage import usage_from, usage_sums
from sparsejax.models.sprout.quality import logit_quality, shares_of
from tests import golden
from tests.compilations import compilations

CASES = ("analysis_v1", "analysis_v2")
TOP_K = 16
CONFIG = SproutConfig(
    vocab_size=40, d_model=8, d_ff=16, n_heads=2, n_layers=2, max_len=8, block_size=4, router="linear"
)
TOKENS = np.random.default_rng(0).integers(40, size=(3, 2, 8)).astype(np.int32)

every_case = pytest.mark.parametrize("case", CASES)


@cache
def loaded(case):
    return sj.load(golden.path("sprout", f"{case}.pt")), golden.arrays("sprout", case)


def usage_and_layers(model, seen):
    """One program for what `neuron_usage` and `layer_statistics` would compile two for."""
    return {"usage": usage_sums(model, seen), "layers": layer_sums(model, seen)}


@cache
def tiny():
    model = SproutLM(CONFIG)
    params = jax.jit(model.init)(jax.random.key(0), TOKENS[0])["params"]
    # A common direction in all activations, as training makes one, so that neurons differ in use.
    return model, jax.tree.map(lambda leaf: 5 * leaf if leaf.ndim > 1 else leaf, params)


@pytest.mark.golden(*CASES)
@every_case
def test_published_counts_and_layer_numbers(case):
    ck, stored = loaded(case)
    sums = summed(usage_and_layers, ck.model, ck.params, stored["token_batches"], top_k=TOP_K)
    usage, found = usage_from(sums["usage"]), layers_from(sums["layers"], published=True)
    np.testing.assert_array_equal(usage.counts, stored["usage_per_token_count"])
    np.testing.assert_array_equal(usage.batch_counts, stored["usage_per_batch_count"])
    np.testing.assert_allclose(gini(usage.counts), stored["gini_per_token"], atol=1e-6)
    np.testing.assert_allclose(gini(usage.batch_counts), stored["gini_per_batch"], atol=1e-6)
    assert (usage.tokens, usage.batches) == (144, 6)
    np.testing.assert_allclose(found.entropy, stored["router_entropy"], atol=1e-4)
    np.testing.assert_allclose(found.activation_sparsity, stored["activation_sparsity"], atol=1e-4)
    np.testing.assert_allclose(found.output_norm, stored["ffn_out_norm"], atol=1e-4)
    np.testing.assert_allclose(found.oracle_overlap, stored["oracle_overlap_fraction"], atol=1e-6)


@pytest.mark.golden(*CASES)
@every_case
def test_published_similarity(case):
    ck, stored = loaded(case)
    found = neuron_similarity(ck.params["layer_0"]["ffn"]["w_in"], top=5, published=True)
    np.testing.assert_allclose(found.matrix, stored["similarity_matrix_L0"], atol=1e-5)
    np.testing.assert_allclose(
        [found.max, found.mean, found.min], stored["similarity_max_mean_min"], atol=1e-6
    )
    np.testing.assert_allclose(np.repeat(found.values, 2), stored["similarity_top10_values"], atol=1e-5)
    assert found.above[0.3] == stored["similarity_pairs_gt_0.3"]


@pytest.mark.golden(*CASES)
@every_case
def test_published_quality_and_routing_patterns(case):
    ck, stored = loaded(case)
    batches, counts = stored["token_batches"], shares_of(64)
    found = logit_quality(
        jax.random.key(0), ck.model, ck.params, batches[:1], counts, selections=("router",)
    ).quality
    table = np.stack([counts, found.mse[0], found.cosine[0], 100 * found.norm_ratio[0]], axis=1)
    np.testing.assert_allclose(table, stored["quality_table_k_mse_cos_norm"], atol=1e-4)
    patterns = embedding_patterns(ck.model, ck.params, batches[:2], top_k=TOP_K)
    np.testing.assert_allclose(patterns, stored["routing_patterns"], atol=1e-5)
    alike = [pattern_cosines(patterns)[0, 1], pattern_jaccards(patterns)[0, 1]]
    np.testing.assert_allclose(alike, stored["routing_cosine_jaccard"], atol=1e-5)


def test_usage_of_a_network_is_that_of_its_own_statistics_whatever_the_batches():
    model, params = tiny()
    with compilations() as compiled:
        usage = neuron_usage(model, params, TOKENS, top_k=5)
        other = neuron_usage(model, params, list(TOKENS), top_k=(2, None))
    assert compiled["_reduced"] == 1  # one program for all batches, and for all numbers of neurons
    assert usage.counts.sum(axis=1).tolist() == [5 * 48] * 2
    assert other.counts.sum(axis=1).tolist() == [2 * 48, 16 * 48]
    apply = jax.jit(lambda batch: model.apply({"params": params}, batch, top_k=5).aux.usage)
    own = [apply(batch) for batch in TOKENS]
    np.testing.assert_allclose(usage.frequency, np.mean(own, axis=0), atol=1e-6)


def test_padding_is_not_counted():
    model, params = tiny()
    masks = np.ones_like(TOKENS)
    masks[:, :, 5:] = 0
    usage = neuron_usage(model, params, TOKENS, top_k=5, attention_masks=masks)
    assert usage.tokens == 30
    assert usage.counts.sum(axis=1).tolist() == [150, 150]
    changed = np.where(masks == 1, TOKENS, 0)
    again = neuron_usage(model, params, changed, top_k=5, attention_masks=masks)
    np.testing.assert_array_equal(again.counts, usage.counts)


def test_coactivation_counts_pairs_and_blocks_go_together():
    model, params = tiny()
    found = coactivation(model, params, TOKENS, top_k=8, path="block")
    assert np.trace(found.counts, axis1=1, axis2=2).tolist() == [8 * 48] * 2
    assert found.counts.sum() == 2 * 48 * 64
    blocks = found.counts.reshape(2, 4, 4, 4, 4)
    np.testing.assert_array_equal(blocks, blocks[:, :, :1, :, :1] + 0 * blocks)


def test_normalised_coactivation_is_the_correlation_of_masks():
    used = np.random.default_rng(0).random((50, 6)) < [0.1, 0.3, 0.5, 0.5, 0.9, 0.0]
    used[:, 3] = used[:, 2]
    pairs = Coactivation((used.T.astype(int) @ used)[None], 50)
    found = normalised_coactivation(pairs)[0]
    np.testing.assert_allclose(found[:5, :5], np.corrcoef(used[:, :5].T), atol=1e-12)
    assert not found[5].any()
    assert normalised_coactivation(pairs, "jaccard")[0, 2, 3] == 1
    cosine = (used[:, 1] & used[:, 2]).sum() / np.sqrt(used[:, 1].sum() * used[:, 2].sum())
    assert normalised_coactivation(pairs, "cosine")[0, 1, 2] == pytest.approx(cosine)
    with pytest.raises(ValueError, match="'jaccard', not 'other'"):
        normalised_coactivation(pairs, "other")


def test_similarity_names_every_pair_once_and_leaves_the_diagonal_out():
    vectors = np.random.default_rng(0).normal(size=(6, 3))
    vectors[4] = -vectors[1]
    vectors[5] = 0
    found = neuron_similarity(vectors, top=3)
    pairs = found.matrix[np.triu_indices(6, 1)]
    assert (found.max, found.min) == (pairs.max(), pytest.approx(-1))
    assert found.mean == pytest.approx(pairs.mean())
    np.testing.assert_allclose(found.values, np.sort(pairs)[::-1][:3])
    assert found.above[0.3] == (pairs > 0.3).sum()
    with pytest.raises(ValueError, match="of two neurons at least"):
        neuron_similarity(vectors[:1])


def test_rare_neurons_by_the_rules_of_the_published_scripts():
    counts = np.array([[0, 4, 5, 30, 41]])
    usage = NeuronUsage(counts, (counts > 0).astype(int), 50, 1)
    by_mean = usage_statistics(usage, rare=1.0)
    by_tokens = usage_statistics(usage, rare=5 / counts.mean())
    assert [int(part[0]) for part in (by_mean.never, by_mean.rare, by_mean.common)] == [1, 2, 2]
    assert [int(part[0]) for part in (by_tokens.never, by_tokens.rare, by_tokens.common)] == [1, 1, 3]
    assert by_mean.max[0] == 0.82


def test_entropy_and_norm_do_not_depend_on_the_batches_unless_published():
    ffn = SproutFFN(SproutFFNConfig(d_model=4, d_ff=8))
    params = jax.jit(ffn.init)(jax.random.key(0), jnp.ones((1, 4)))["params"]
    inputs = 20 * jax.random.normal(jax.random.key(1), (6, 4))
    whole = layer_statistics(ffn, params, inputs, top_k=3)
    parts = layer_statistics(ffn, params, [inputs[:3], inputs[3:]], top_k=3)
    outputs = ffn.apply({"params": params}, inputs, top_k=3)
    np.testing.assert_allclose(whole.output_norm, np.linalg.norm(outputs, axis=1).mean(), rtol=1e-6)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    published = layer_statistics(ffn, params, inputs, top_k=3, published=True)
    np.testing.assert_allclose(published.output_norm, np.linalg.norm(outputs), rtol=1e-6)


def test_specialisation_takes_no_negative_values_and_smooths_rare_ones():
    values = np.array([[0.5, 0.02, 0.0, 0.3], [0.1, 0.0, 0.0, 0.25]])
    found = topic_specialisation(values, smoothing=0.1)
    assert found.topic.tolist() == [0, 0, -1, 0]
    np.testing.assert_allclose(found.ratio, [3, 1.2, 1, 0.4 / 0.35])
    assert found.specialists.tolist() == [1, 0]
    assert np.isinf(topic_specialisation(values).ratio[1])
    with pytest.raises(ValueError, match="must not be negative"):
        topic_specialisation([[-1.0], [1.0]])
    with pytest.raises(ValueError, match="two topics at least"):
        topic_specialisation([[1.0, 2.0]])
    # The published ratio divides by a largest other that may be negative, and so misses the first topic.
    published = topic_specialisation([[1.0], [-0.5]], published=True)
    assert published.specialists.tolist() == [0, 0]


def test_routers_of_layers_are_compared_in_numerical_order():
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=(3, 4)) for _ in range(11)]
    params = {f"layer_{n}": {"ffn": {"router": {"kernel": kernel}}} for n, kernel in enumerate(kernels)}
    found = router_cosines(params)
    flat = [kernel.ravel() / np.linalg.norm(kernel) for kernel in (kernels[2], kernels[10])]
    assert found[2, 10] == pytest.approx(flat[0] @ flat[1])


def test_senses_of_one_word_in_two_sentences():
    model, params = tiny()
    one, other = TOKENS[0, :1].copy(), TOKENS[1, :1].copy()
    other[0, 6] = one[0, 2]
    found = sense_overlap(model, params, (one[0], other[0]), (2, 6), top_k=5)
    masks = [np.asarray(_used(model, params, part)) for part in (one, other)]
    for layer in range(2):
        left, right = masks[0][layer, 2], masks[1][layer, 6]
        assert found[layer] == pytest.approx((left & right).sum() / (left | right).sum())
    assert (sense_overlap(model, params, (one[0], one[0]), (2, 2), top_k=5) == 1).all()
    with pytest.raises(ValueError, match="position 8 is beyond"):
        sense_overlap(model, params, (one[0], other[0]), (8, 0), top_k=5)


def _used(model, params, tokens):
    from sparsejax.models.sprout.analysis.senses import used_neurons

    return used_neurons(model, params, tokens, top_k=5)


def test_overlap_of_tokens_that_route_by_their_word_alone():
    tokens = np.tile(np.arange(4), 5)
    used = np.eye(8, dtype=bool)[None, tokens]
    found = token_overlap(used, tokens)
    assert (found.same, found.different) == ([1.0], [0.0])
    assert found.chance[0] == pytest.approx((1 / 8) / (2 - 1 / 8))
    assert np.isnan(token_overlap(used[:, :4], tokens[:4]).same).all()  # no token twice


def test_everything_in_one_document():
    model, params = tiny()
    topics = {"a": list(TOKENS[:2]), "b": [TOKENS[2]]}
    found = analyse(jax.random.key(0), model, params, topics, top_k=4, qualities=(4, 16))
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (document["tokens"], document["top_k"], document["topics"]) == (48, [4, 4], ["a", "b"])
    assert set(document["quality"]) == {"logits", "ffn"}
    for table in found.quality.values():  # all neurons are all neurons, whoever selects
        np.testing.assert_allclose(table.quality.cosine[..., 1], 1, atol=1e-6)
    tables = {name: list(csv.DictReader(io.StringIO(text))) for name, text in found.to_csv().items()}
    assert {name: len(rows) for name, rows in tables.items()} == {
        "layers": 2,
        "neurons": 32,
        "quality": 6 + 12,
    }
    most = max(tables["neurons"], key=lambda row: int(row["tokens"]))
    assert int(most["tokens"]) == found.usage.counts.max()
    assert float(tables["layers"][1]["gini"]) == pytest.approx(found.usage_statistics.gini[1])
    both = sum(found.topic_frequency[number] * part for number, part in enumerate((32, 16)))
    np.testing.assert_allclose(both, found.usage.counts)
    alone = analyse(jax.random.key(0), model, params, {"all": list(TOKENS)}, top_k=4, qualities=(4, 16))
    assert alone.specialisation is None and alone.topic_frequency is None  # there is nothing to compare
    assert {**document, "topics": ["all"]} == {
        **alone.to_json(),
        **{name: document[name] for name in ("specialisation", "topic_frequency")},
    }
    assert set(document) - set(alone.to_json()) == {"specialisation", "topic_frequency"}


@pytest.mark.parametrize(
    ("top_k", "tokens", "message"),
    [
        (-1, TOKENS, "at least 0, not -1"),
        ((1, 2, 3), TOKENS, "3 entries; the network has 2 layers"),
        (4, [], "no batch"),
        (4, TOKENS + 40, "0 to 39"),
    ],
)
def test_what_cannot_be_analysed(top_k, tokens, message):
    model, params = tiny()
    with pytest.raises(ValueError, match=message):
        neuron_usage(model, params, tokens, top_k=top_k)
