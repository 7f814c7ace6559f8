"""What all searches promise, one by one and side by side."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ultra_sparse.config import UltraSparseConfig, sparse
from sparsejax.models.ultra_sparse.evolve import (
    Anneal,
    AnnealParams,
    Gsa,
    GsaParams,
    Rates,
    anneal,
    evaluate,
    genetic,
    gsa,
    hill_climb,
    objective,
    run,
    search,
    tempering,
)
from sparsejax.models.ultra_sparse.evolve.chain import Steps
from sparsejax.models.ultra_sparse.evolve.gsa import roulette
from sparsejax.models.ultra_sparse.evolve.mutation import draw
from sparsejax.models.ultra_sparse.evolve.tempering import exchange
from sparsejax.models.ultra_sparse.features import expand_input
from tests.models.ultra_sparse.evolve.batches import SINE_NET, VARIABLE_NET, sine_batch

SHORT = {
    "anneal": partial(anneal, steps=1000),
    "anneal, one neuron": partial(anneal, steps=1000, rule="one_neuron"),
    "anneal, restarts": partial(anneal, steps=400, restarts=2),
    "gsa": partial(gsa, population_size=10, generations=20, steps=20),
    "genetic": partial(
        genetic, population_size=20, generations=150, survivor_fraction=0.1, fresh_fraction=0.1
    ),
    "hill_climb": partial(hill_climb, steps=1000, patience=50, restarts=3),
    "tempering": partial(tempering, replicas=3, steps=500),
}
START_LOSS = 0.45  # of a typical random net; always answering 0 has 0.495

searches = pytest.mark.parametrize("name", SHORT)


@pytest.fixture(scope="module")
def results():
    goal, found = sine_batch(), {}

    def result(name):
        if name not in found:
            found[name] = SHORT[name](jax.random.key(3), SINE_NET, goal)
        return found[name]

    return result


@searches
def test_the_loss_is_that_of_the_net_returned(results, name):
    found = results(name)
    np.testing.assert_allclose(
        found.loss, evaluate(SINE_NET, found.params, sine_batch()), rtol=1e-4, atol=1e-7
    )
    assert float(found.loss) < 0.3 * START_LOSS


@searches
def test_the_best_loss_never_rises_and_ends_at_the_result(results, name):
    history = results(name).history
    assert (np.diff(history.loss) <= 0).all()
    assert float(history.loss[-1]) == float(results(name).loss)
    assert (np.asarray(history.current) >= np.asarray(history.loss)).all()
    for own in history:
        assert own.shape == history.loss.shape
        assert np.isfinite(own).all()
    assert 0 < np.mean(history.accepted) < 1
    assert (np.asarray(history.saturation) <= 1).all()


@searches
def test_tables_stay_distinct_and_in_range(results, name):
    table = np.sort(results(name).params["layer_0"]["indices"], axis=1)
    assert (np.diff(table, axis=1) > 0).all()
    assert table.min() >= 0 and table.max() < 256


@searches
def test_the_same_key_finds_the_same_net_and_another_key_another(results, name):
    again = SHORT[name](jax.random.key(3), SINE_NET, sine_batch())
    other = SHORT[name](jax.random.key(4), SINE_NET, sine_batch())
    assert float(again.loss) == float(results(name).loss) != float(other.loss)


@pytest.mark.parametrize("name", ["anneal", "gsa", "tempering"])
def test_chains_are_the_runs_of_the_split_keys(name):
    goal, key = sine_batch(), jax.random.key(5)
    together = SHORT[name](key, SINE_NET, goal, chains=3)
    assert together.loss.shape == (3,)
    assert len(set(np.asarray(together.loss).tolist())) == 3
    # Over hundreds of steps a last bit can part two paths, so only the first record is compared closely.
    for own, chain_key in zip(np.asarray(together.history.loss), jax.random.split(key, 3), strict=True):
        alone = SHORT[name](chain_key, SINE_NET, goal)
        np.testing.assert_allclose(own[0], alone.history.loss[0], rtol=0.2)


def test_other_numbers_and_other_data_compile_nothing_new(caplog):
    goal = sine_batch()
    config = UltraSparseConfig.fixed_k(256, 7, 1, 2)
    anneal(jax.random.key(0), config, goal, steps=60)
    count = search._run._cache_size()
    for seed, (low, rates) in enumerate([(1e-4, Rates(0.2)), (1e-6, Rates(0.1, 0.3)), (1e-3, None)]):
        anneal(jax.random.key(seed), config, goal, steps=60, final_temperature=low, rates=rates)
    moved = objective(goal.features.T + 1, goal.targets.T)
    anneal(jax.random.key(0), config, moved, steps=60)
    assert search._run._cache_size() == count


def test_annealing_in_rounds_is_annealing_in_one_loop():
    """What a resumable run does: one compiled round after the other, from the state alone."""
    goal, hyper, key = sine_batch(), AnnealParams(), jax.random.key(0)
    settings = Anneal(SINE_NET, steps=700, steps_per_round=200)
    assert settings.rounds == 4
    whole = jax.jit(run, static_argnums=1)(key, settings, goal, hyper)
    state = jax.jit(settings.init)(key, goal, hyper)
    advance = jax.jit(lambda state: settings.advance(state, goal, hyper))
    records = []
    for _ in range(settings.rounds):
        state, record = advance(state)
        records.append(record)
    np.testing.assert_allclose(records[-1].temperature, 1e-2 * 1e-3 ** (699 / 700), rtol=1e-5)
    np.testing.assert_allclose(records[0].temperature, whole.history.temperature[0], rtol=1e-6)
    np.testing.assert_allclose([r.loss for r in records], whole.history.loss, rtol=0.2)


def test_the_schedule_is_geometric():
    history = anneal(
        jax.random.key(0), SINE_NET, sine_batch(), steps=1000, initial_temperature=0.1, final_temperature=1e-3
    ).history
    last_steps = np.array([499, 999])
    np.testing.assert_allclose(history.temperature, 0.1 * 1e-2 ** (last_steps / 1000), rtol=1e-5)


def test_every_restart_begins_at_a_fresh_net_and_keeps_the_best():
    # At this temperature whatever is proposed is accepted: the first record of a cycle tells its start.
    history = anneal(
        jax.random.key(0),
        SINE_NET,
        sine_batch(),
        steps=400,
        restarts=2,
        initial_temperature=1e-2,
        final_temperature=1e-7,
    ).history
    assert history.loss.shape == (3,)
    assert (np.diff(history.loss) <= 0).all()
    assert len(np.unique(history.current)) == 3


def test_variable_fan_in_is_searched_with_its_own_rule():
    found = anneal(jax.random.key(0), VARIABLE_NET, sine_batch(), steps=1000, rule="variable_k")
    live = np.asarray(found.params["layer_0"]["live"])
    assert live.min() >= 1 and live.max() <= 4 and len(set(live.tolist())) > 1
    assert float(found.loss) < 0.3 * START_LOSS


def test_deep_nets_are_searched():
    config = UltraSparseConfig.deep(256, (8, 8), 1, inputs_per_neuron=2)
    assert float(anneal(jax.random.key(0), config, sine_batch(), steps=3000).loss) < 0.3 * START_LOSS


@pytest.mark.parametrize(
    "short",
    [
        partial(anneal, steps=20),
        partial(gsa, population_size=4, generations=2, steps=2),
        partial(genetic, population_size=4, generations=2),
        partial(hill_climb, steps=20),
        partial(tempering, replicas=2, steps=20),
    ],
    ids=lambda short: short.func.__name__,
)
def test_nets_without_hidden_layers_are_searched(short):
    config = UltraSparseConfig(256, (sparse(1, 2),))
    found = short(jax.random.key(0), config, sine_batch())
    np.testing.assert_allclose(found.loss, evaluate(config, found.params, sine_batch()), rtol=1e-4)
    assert (np.asarray(found.history.saturation) == 0).all()


def test_hill_climbing_stops_when_its_patience_ends():
    short = hill_climb(jax.random.key(0), SINE_NET, sine_batch(), steps=1500, patience=5)
    assert (np.asarray(short.history.accepted)[-1] == 0).all()
    assert float(short.history.current[-1]) == float(short.loss)
    patient = hill_climb(jax.random.key(0), SINE_NET, sine_batch(), steps=1500, patience=1500)
    assert float(patient.loss) < float(short.loss)


def test_a_gsa_member_is_never_worse_than_its_parent():
    goal, settings, hyper = sine_batch(), Gsa(SINE_NET, 10, 20, 2), GsaParams()
    before = jax.jit(settings.init)(jax.random.key(0), goal, hyper)
    picks = jnp.asarray([0, 3, 3, 9, 9, 9, 1, 2, 5])
    noise = Steps(
        jax.jit(lambda key: draw(key, SINE_NET, settings.rule, Rates(0.5, 0.7, 0.5), 20))(jax.random.key(1)),
        jnp.zeros(20),
        jnp.full(20, 100.0),
        jnp.ones(20, bool),
    )
    steps = jax.tree.map(lambda leaf: leaf.reshape(10, 2, *leaf.shape[1:]), noise)
    after, _ = jax.jit(settings.generation)(before, picks, steps, goal)
    parents = np.sort(before.losses)[np.r_[0, np.asarray(picks)]]
    assert (np.asarray(after.losses) <= parents).all()
    assert (np.asarray(after.losses) == parents).any(), "some chains found nothing better"
    assert (np.asarray(after.losses) < parents).any()


def test_roulette_prefers_the_better_and_skips_the_worst():
    losses = jnp.asarray([0.4, 0.1, 0.2, 0.4])
    counts = np.bincount(roulette((jnp.arange(10_000) + 0.5) / 10_000, losses), minlength=4)
    np.testing.assert_allclose(counts / 10_000, [0.6, 0.4, 0, 0], atol=1e-3)


def test_equal_members_are_picked_alike():
    counts = np.bincount(roulette((jnp.arange(1000) + 0.5) / 1000, jnp.full(4, 0.3)), minlength=4)
    np.testing.assert_allclose(counts / 1000, 0.25, atol=2e-3)


def test_exchange_follows_the_detailed_balance():
    losses, temperatures = jnp.asarray([0.02, 0.03, 0.5]), jnp.asarray([0.01, 0.02, 0.04])
    chance = jnp.log((jnp.arange(100_000) + 0.5) / 100_000)

    @jax.jit
    def orders(parity):
        return jax.vmap(lambda c: exchange(jnp.full(3, c), losses, temperatures, parity))(chance)

    even, odd = orders(jnp.asarray(0)), orders(jnp.asarray(1))
    np.testing.assert_allclose((even[:, 0] == 1).mean(), np.exp((100 - 50) * (0.02 - 0.03)), atol=2e-5)
    np.testing.assert_allclose((odd[:, 1] == 2).mean(), np.exp((50 - 25) * (0.03 - 0.5)), atol=2e-5)
    assert (even[:, 2] == 2).all() and (odd[:, 0] == 0).all()
    swapped = exchange(jnp.zeros(3), jnp.asarray([0.5, 0.02, 0.1]), temperatures, jnp.asarray(0))
    np.testing.assert_array_equal(swapped, [1, 0, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(anneal, steps=0), "steps and steps_per_round must be at least 1"),
        (partial(anneal, initial_temperature=0.0), "temperatures must be positive"),
        (partial(anneal, rule="guided"), "'guided' is not one of"),
        (partial(anneal, chains=0), "chains must be at least 1"),
        (partial(anneal, rule="variable_k"), "need each other"),
        (partial(gsa, population_size=0), "at least 1"),
        (partial(gsa, rule="one_neuron"), "belongs to anneal"),
        (partial(gsa, seed_fraction=1.5), "seed_fraction must be within 0 and 1, not 1.5"),
        (partial(genetic, population_size=1), "generations must be at least 1, population_size at least 2"),
        (partial(hill_climb, restarts=-1), "steps and steps_per_round must be at least 1, restarts at"),
        (partial(genetic, elite_fraction=0.6, fresh_fraction=0.5), "leave room for children"),
        (partial(hill_climb, patience=0), "patience must be at least 1"),
        (partial(tempering, replicas=1), "replicas must be at least 2"),
    ],
)
def test_impossible_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0), SINE_NET, sine_batch())


def test_a_batch_of_other_sizes_is_refused():
    x = jnp.linspace(-1, 1, 10)
    with pytest.raises(ValueError, match="the net has 256 features, the batch 16"):
        anneal(jax.random.key(0), SINE_NET, objective(expand_input(x, noise_columns=0), x))
    with pytest.raises(ValueError, match="the net has 1 outputs, the batch 2"):
        anneal(jax.random.key(0), SINE_NET, objective(expand_input(x), jnp.stack([x, x], axis=1)))


def test_chains_spread_over_the_devices_of_a_mesh():
    program = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh
from tests.models.ultra_sparse.evolve.batches import SINE_NET, sine_batch
from sparsejax.models.ultra_sparse.evolve import anneal
assert jax.device_count() == 2
mesh = Mesh(np.array(jax.devices()), ("chains",))
goal, key = sine_batch(), jax.random.key(0)
spread = anneal(key, SINE_NET, goal, steps=200, chains=4, mesh=mesh)
alone = anneal(key, SINE_NET, goal, steps=200, chains=4)
assert len(spread.loss.sharding.device_set) == 2
np.testing.assert_allclose(spread.loss, alone.loss, rtol=0.2)
np.testing.assert_allclose(spread.history.loss[:, 0], alone.history.loss[:, 0], rtol=0.2)
try:
    anneal(key, SINE_NET, goal, steps=20, chains=3, mesh=mesh)
except ValueError as error:
    print(error)
"""
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "3 chains do not divide among the 2 devices of the mesh"
