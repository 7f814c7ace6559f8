"""What the rules may touch, how often, and that what they make is a net."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ultra_sparse.config import Layer, UltraSparseConfig, dense, masked, sparse
from sparsejax.models.ultra_sparse.evolve.mutation import (
    RULES,
    Rates,
    Rule,
    draw,
    mutate,
    named_rule,
    unused_input,
    whole_net_rule,
)
from tests.models.ultra_sparse.evolve.batches import VARIABLE_NET, random_net

STEPS = 4000
WIDE = UltraSparseConfig.fixed_k(30, 6, 2, 3)
WHOLE_NET_RULES = [name for name in RULES if name != "one_neuron"]


def net_of(name):
    if name != "variable_k":
        return WIDE
    return UltraSparseConfig(30, (sparse(6, 5, variable_fan_in=True), dense(2)))


def proposals(name, rates=None, seed=0, rule=None):
    """Independent proposals of one net: the net, and every array with the steps in front."""
    config, (own, default) = net_of(name), RULES[name]
    rule = rule or own
    params = random_net(config)
    if name == "variable_k":
        live = jnp.asarray([1, 2, 3, 4, 5, 3], jnp.int32)
        params = {**params, "layer_0": {**params["layer_0"], "live": live}}

    @jax.jit
    def made(key):
        draws = draw(key, config, rule, rates or default, STEPS)
        return jax.vmap(lambda own: mutate(params, own, rule))(draws)

    return params, made(jax.random.key(seed))


def share(mask):
    """Mean and the widest plausible deviation of a mean of that many independent trials."""
    mask = np.asarray(mask)
    return mask.mean(), 4.5 * np.sqrt(0.25 / mask.size)


@pytest.mark.parametrize(("name", "rate", "scale"), [("core", 0.1, 0.1), ("numpy", 0.02, 0.15)])
def test_every_value_moves_at_the_rate_by_normal_steps(name, rate, scale):
    params, made = proposals(name)
    for layer, key in (
        ("layer_0", "weights"),
        ("layer_0", "bias"),
        ("layer_1", "kernel"),
        ("layer_1", "bias"),
    ):
        change = np.asarray(made[layer][key] - params[layer][key])
        moved = change != 0
        assert moved.mean() == pytest.approx(rate, abs=5 * np.sqrt(rate / moved.size))
        assert change[moved].std() == pytest.approx(scale, rel=5 / np.sqrt(moved.sum()))
        assert abs(change[moved].mean()) < 5 * scale / np.sqrt(moved.sum())


@pytest.mark.parametrize("name", WHOLE_NET_RULES)
def test_inputs_are_exchanged_at_the_rate_one_per_neuron(name):
    params, made = proposals(name, Rates(0.1, 0.1, 0.3, 0.0, 0.0))
    live = params["layer_0"].get("live", jnp.full(6, 3))
    slots = jnp.arange(made["layer_0"]["indices"].shape[-1]) < live[:, None]
    changed = np.asarray((made["layer_0"]["indices"] != params["layer_0"]["indices"]) & slots)
    assert changed.sum(-1).max() == 1
    assert not np.asarray(made["layer_0"]["indices"] != params["layer_0"]["indices"])[
        :, ~np.asarray(slots)
    ].any()
    # A uniform new input is the old one in 1 of 30 cases, which looks like no exchange.
    visible = 0.3 if RULES[name][0].fresh == "unused" else 0.3 * 29 / 30
    assert changed.any(-1).mean() == pytest.approx(visible, abs=5 * np.sqrt(0.25 / changed.any(-1).size))
    counts = np.bincount(np.asarray(made["layer_0"]["indices"])[changed], minlength=30)
    assert counts.min() > 0.6 * counts.mean()


def test_a_neuron_never_gets_an_input_that_it_reads():
    _, made = proposals("core", Rates(0.0, 0.0, 1.0))
    tables = np.sort(np.asarray(made["layer_0"]["indices"]), axis=-1)
    assert (np.diff(tables, axis=-1) > 0).all()
    assert tables.min() == 0 and tables.max() == 29


def test_the_rule_of_the_numpy_scripts_may_choose_twice():
    _, made = proposals("numpy", Rates(0.0, 0.0, 1.0))
    assert (np.diff(np.sort(np.asarray(made["layer_0"]["indices"]), axis=-1), axis=-1) == 0).any()


@pytest.mark.parametrize(("swapped_weight", "keeps"), [("kept", True), ("reset", False)])
def test_the_weight_of_an_exchanged_slot_is_kept_or_reset(swapped_weight, keeps):
    rule = dataclasses.replace(RULES["core"][0], swapped_weight=swapped_weight)
    params, made = proposals("core", Rates(0.0, 0.1, 1.0), rule=rule)
    swapped = np.asarray(made["layer_0"]["indices"] != params["layer_0"]["indices"])
    weights = np.asarray(made["layer_0"]["weights"])
    before = np.broadcast_to(params["layer_0"]["weights"], weights.shape)
    np.testing.assert_array_equal(weights[~swapped], before[~swapped])
    assert (weights[swapped] == before[swapped]).all() == keeps
    if not keeps:
        assert weights[swapped].std() == pytest.approx(0.3, rel=0.05)


def test_sparse_touch_moves_a_slot_and_a_bias_per_neuron_and_one_output_weight():
    params, made = proposals("sparse_touch", Rates(1.0, 0.1, 0.0))
    moved = {
        key: np.asarray(made[layer][key] != params[layer][key])
        for layer, key in (("layer_0", "weights"), ("layer_1", "kernel"))
    }
    assert (moved["weights"].sum(-1) == 1).all()
    assert (moved["kernel"].sum((1, 2)) == 1).all()
    assert (moved["kernel"].mean(0) > 0.05).all(), "every row of the output weights has its turn"
    bias = np.asarray(made["layer_0"]["bias"] - params["layer_0"]["bias"])
    assert (bias != 0).mean() == pytest.approx(0.5, abs=0.02)
    assert bias[bias != 0].std() == pytest.approx(0.05, rel=0.05)
    output_bias = np.asarray(made["layer_1"]["bias"] != params["layer_1"]["bias"])
    assert output_bias.mean() == pytest.approx(0.5, abs=0.03), "the output bias is trained, too"


def test_neurons_shrink_and_grow_within_their_slots():
    params, made = proposals("variable_k", Rates(0.0, 0.1, 0.0, 0.3, 0.4))
    live, before = np.asarray(made["layer_0"]["live"]), np.asarray(params["layer_0"]["live"])
    assert live.min() == 1 and live.max() == 5
    change = live - before
    close = {"abs": 5 * np.sqrt(0.25 / STEPS)}
    np.testing.assert_allclose((change == -1).mean(0)[1:], 0.3, atol=close["abs"])
    assert (change == -1).mean(0)[0] == 0, "the last slot stays"
    # A neuron that cannot shrink asks to grow each time, one that can only if it did not shrink.
    np.testing.assert_allclose((change == 1).mean(0), [0.4, 0.28, 0.28, 0.28, 0, 0.28], atol=close["abs"])
    grown = (change == 1)[..., None] & (np.arange(5) == before[:, None])
    weights = np.asarray(made["layer_0"]["weights"])
    assert weights[grown].std() == pytest.approx(0.5, rel=0.05)
    np.testing.assert_array_equal(
        weights[~grown], np.broadcast_to(params["layer_0"]["weights"], weights.shape)[~grown]
    )
    inputs = np.asarray(made["layer_0"]["indices"])[grown]
    assert np.bincount(inputs, minlength=30).min() > 0


def test_all_layers_of_a_stack_are_mutated():
    config = UltraSparseConfig.deep(20, (8, 6), 2, inputs_per_neuron=3)
    params, (rule, _) = random_net(config), RULES["core"]

    @jax.jit
    def mutated(key):
        draws = draw(key, config, rule, Rates(0.5, 0.1, 0.5), 1)
        return mutate(params, jax.tree.map(lambda leaf: leaf[0], draws), rule)

    made = mutated(jax.random.key(0))
    for name, own in params.items():
        for key, leaf in own.items():
            assert (np.asarray(made[name][key]) != np.asarray(leaf)).any(), (name, key)
            assert made[name][key].dtype == leaf.dtype
    assert int(made["layer_1"]["indices"].max()) < 8


def test_unused_inputs_are_counted_in_rising_order():
    table = jnp.asarray([[3, 0], [1, 2]])
    found = [list(np.asarray(unused_input(table, jnp.asarray([rank, rank])))) for rank in range(3)]
    assert found == [[1, 0], [2, 3], [4, 4]]


def test_nothing_is_exchanged_where_every_input_is_read():
    config = UltraSparseConfig.fixed_k(3, 4, 1, 3)
    draws = draw(jax.random.key(0), config, RULES["core"][0], Rates(0.1, 0.1, 1.0), 50)
    assert not draws.tables["layer_0"].swaps.any()


def test_rates_are_traced():
    traces = []

    @jax.jit
    def moved(rates):
        traces.append(1)
        return draw(jax.random.key(0), WIDE, RULES["core"][0], rates, 10).moves["layer_1"]["kernel"]

    low, high = moved(Rates(0.1, 0.1, 0.1)), moved(Rates(0.9, 0.1, 0.1))
    assert (low != 0).sum() < (high != 0).sum()
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("layers", "rule", "message"),
    [
        ((masked(4), dense(1)), "core", "searches train float layers"),
        ((Layer("dense", 4, weights="int8"), dense(1)), "core", "searches train float layers"),
        ((sparse(4, 2), dense(1)), "variable_k", "need each other"),
        ((sparse(4, 2, variable_fan_in=True), dense(1)), "core", "need each other"),
    ],
)
def test_stacks_that_a_rule_cannot_change_are_refused(layers, rule, message):
    with pytest.raises(ValueError, match=message):
        draw(jax.random.key(0), UltraSparseConfig(10, layers), *RULES[rule], steps=1)


def test_unknown_rules_are_refused_by_name():
    with pytest.raises(ValueError, match="'cor' is not one of core, numpy"):
        named_rule("cor")
    with pytest.raises(ValueError, match="belongs to anneal"):
        whole_net_rule("one_neuron")
    own = Rule(fresh="any")
    assert named_rule(own) == (own, Rates())


def test_fan_in_variable_nets_start_with_all_slots_alive():
    assert (random_net(VARIABLE_NET)["layer_0"]["live"] == 4).all()
