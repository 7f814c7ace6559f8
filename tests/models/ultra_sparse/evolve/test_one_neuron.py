"""The walk that evaluates one hidden column per step, against full evaluation of the same proposals."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ultra_sparse.config import UltraSparseConfig, dense, sparse
from sparsejax.models.ultra_sparse.evolve import RULES, Rates, Rule, evaluate, objective, one_neuron
from sparsejax.models.ultra_sparse.evolve.anneal import log_uniform
from sparsejax.models.ultra_sparse.evolve.chain import Steps, start_chain, walk
from tests.models.ultra_sparse.evolve.batches import SINE_NET, random_net, sine_batch

RULE, RATES = RULES["one_neuron"]


def classes():
    draws = np.random.default_rng(0)
    features = draws.normal(size=(60, 12)).astype(np.float32)
    labels = (features[:, 3] > 0).astype(int) + (features[:, 7] > 0)
    return objective(features, labels, loss="cross_entropy")


CASES = {
    "sine": (SINE_NET, sine_batch, 1e-4),
    "three classes": (UltraSparseConfig.fixed_k(12, 6, 3, 3, "linear"), classes, 1e-2),
}


@partial(jax.jit, static_argnums=(0, 3))
def ten_thousand(config, goal, temperature, rule=RULE):
    params = random_net(config)
    start = start_chain(params, evaluate(config, params, goal))
    draws = one_neuron.draw(jax.random.key(1), config, rule, RATES, 10_000)
    chance = log_uniform(jax.random.key(2), (10_000,))
    return start, Steps(draws, chance, jnp.full(10_000, temperature), jnp.ones(10_000, bool))


@pytest.mark.parametrize(
    ("name", "swapped_weight"), [("sine", "kept"), ("sine", "reset"), ("three classes", "kept")]
)
def test_ten_thousand_steps_agree_with_full_evaluation(name, swapped_weight):
    config, batch, temperature = CASES[name]
    goal, rule = batch(), Rule("one_neuron", swapped_weight=swapped_weight)
    start, steps = ten_thousand(config, goal, temperature, rule)

    @jax.jit
    def followed(start, steps):
        def one(chain, own):
            own = jax.tree.map(lambda leaf: leaf[None], own)
            chain, accepted = one_neuron.walk(chain, own, config=config, rule=rule, goal=goal)
            return chain, (chain.loss, accepted[0])

        return jax.lax.scan(one, start, steps)

    # Refreshed at every step this is full evaluation; in one stretch rounding could pile up.
    _, (fresh_loss, fresh_accepted) = followed(start, steps)
    chain, accepted = jax.jit(partial(one_neuron.walk, config=config, rule=rule, goal=goal))(start, steps)
    own_loss = evaluate(config, chain.params, goal)
    np.testing.assert_allclose(chain.loss, own_loss, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(
        chain.best_loss, evaluate(config, chain.best_params, goal), rtol=1e-4, atol=1e-7
    )
    assert 0.02 < np.mean(accepted) < 0.9
    assert float(chain.best_loss) < 0.3 * float(start.loss)
    # The first hundreds of decisions are the same; then one close call may part the paths.
    same = np.asarray(accepted) == np.asarray(fresh_accepted)
    assert same[:300].all()
    assert float(fresh_loss[-1]) < 0.3 * float(start.loss)


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_walk_over_whole_nets_with_the_same_proposals(name):
    config, batch, temperature = CASES[name]
    goal = batch()
    start, steps = ten_thousand(config, goal, temperature)
    few = jax.tree.map(lambda leaf: leaf[:300], steps)
    chain, accepted = jax.jit(partial(one_neuron.walk, config=config, rule=RULE, goal=goal))(start, few)
    whole = Steps(one_neuron.spread(few.draws, config), few.log_chance, few.temperature, few.active)
    loss_of = partial(evaluate, config, goal=goal)
    full, full_accepted = jax.jit(lambda c, s: walk(c, s, Rule(), loss_of))(start, whole)
    np.testing.assert_array_equal(accepted, full_accepted)
    np.testing.assert_allclose(chain.loss, full.loss, rtol=1e-5)
    for own, other in zip(jax.tree.leaves(chain), jax.tree.leaves(full), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5)


def test_inactive_steps_change_nothing():
    start, steps = ten_thousand(SINE_NET, sine_batch(), 1e-4)
    idle = Steps(steps.draws, steps.log_chance, steps.temperature, jnp.zeros(10_000, bool))
    walk_all = jax.jit(partial(one_neuron.walk, config=SINE_NET, rule=RULE, goal=sine_batch()))
    chain, accepted = walk_all(start, idle)
    assert not accepted.any()
    for own, other in zip(jax.tree.leaves(chain), jax.tree.leaves(start), strict=True):
        np.testing.assert_array_equal(own, other)


def test_one_neuron_and_at_most_one_input_change_per_step():
    draws = one_neuron.draw(jax.random.key(0), SINE_NET, RULE, Rates(1.0, 0.1, 1.0), 2000)
    counts = np.bincount(np.asarray(draws.neuron), minlength=8)
    assert counts.min() > 180 and counts.max() < 330
    spread = one_neuron.spread(draws, SINE_NET)
    assert ((spread.moves["layer_0"]["bias"] != 0).sum(-1) == 1).all()
    assert (spread.tables["layer_0"].swaps.sum(-1) == 1).all()


@pytest.mark.parametrize(
    "layers",
    [
        (sparse(4, 2, variable_fan_in=True), dense(1)),
        (sparse(4, 2), sparse(4, 2), dense(1)),
        (dense(4), dense(1)),
    ],
)
def test_other_stacks_are_refused(layers):
    with pytest.raises(ValueError, match="not one sparse layer of fixed fan-in"):
        one_neuron.checked_stack(UltraSparseConfig(10, layers))
