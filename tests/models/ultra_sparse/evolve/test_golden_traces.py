"""The originals' searches, replayed draw by draw: every acceptance must come out as it did there."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve import Gsa, GsaParams, Population, evaluate, objective
from sparsejax.models.ultra_sparse.evolve.chain import Steps, start_chain, walk
from sparsejax.models.ultra_sparse.evolve.gsa import roulette
from sparsejax.models.ultra_sparse.evolve.mutation import RULES, Draws, TableDraws
from tests import golden

TRACES = ("sa_trace_sine_k2", "sa_trace_class_k4_h32")
CORE, _ = RULES["core"]
MSE_RELATIVE = 2e-5  # the manifest's "rtol 2e-5"
CLOSE_CALL = 1e-5  # the manifest's "|accept_u - exp(d / T)| < 1e-5"


def case(name):
    config = golden.manifest("ultra_sparse")[name]["config"]
    net = UltraSparseConfig.fixed_k(
        config["input_size"], config["hidden_size"], config["output_size"], config["inputs_per_neuron"]
    )
    return golden.arrays("ultra_sparse", name), config, net


def net_params(indices, w1, b1, w2, b2):
    return {
        "layer_0": {
            "indices": jnp.asarray(indices, jnp.int32),
            "weights": jnp.asarray(w1),
            "bias": jnp.asarray(b1),
        },
        "layer_1": {"kernel": jnp.asarray(np.swapaxes(w2, -1, -2)), "bias": jnp.asarray(b2)},
    }


def split_flat(flat, net):
    """Arrays of the original's flat order w1, b1, w2, b2; any leading axes."""
    hidden, outputs, fan_in = net.layers[0].features, net.output_size, net.layers[0].fan_in
    shapes = ((hidden, fan_in), (hidden,), (outputs, hidden), (outputs,))
    parts = np.split(flat, np.cumsum([np.prod(shape) for shape in shapes])[:-1], axis=-1)
    return [part.reshape(*flat.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]


def rank_among_unused(chosen, used):
    """What `TableDraws.fresh` holds: the number of the chosen input among those its neuron does not read."""
    return chosen - (used < chosen[..., None]).sum(-1)


def draws_of(stored, prefix, before, net, rates):
    """`Draws` that make the recorded proposals of nets with the index tables ``before``."""
    moves = np.where(stored[f"{prefix}mask_u"] < rates[0], stored[f"{prefix}noise"] * rates[1], 0)
    w1, b1, w2, b2 = split_flat(moves.astype(np.float32), net)
    swaps = stored[f"{prefix}idx_u"] < rates[2]
    table = TableDraws(
        swaps=swaps,
        slot=np.maximum(stored[f"{prefix}idx_pos"], 0),
        fresh=np.where(swaps, rank_among_unused(stored[f"{prefix}idx_new"], before), 0),
    )
    moves = {
        "layer_0": {"weights": w1, "bias": b1},
        "layer_1": {"kernel": np.swapaxes(w2, -1, -2), "bias": b2},
    }
    return jax.tree.map(jnp.asarray, Draws(moves, {"layer_0": table}))


def log_chances(uniform):
    """The originals draw nothing where the error falls; any number does there."""
    return np.log(np.where(np.isnan(uniform), 1.0, uniform)).astype(np.float32)


@pytest.mark.golden(*TRACES)
@pytest.mark.parametrize("name", TRACES)
def test_every_decision_of_a_recorded_annealing_is_reproduced(name):
    stored, config, net = case(name)
    count, goal = config["steps"], objective(stored["X"], stored["Y"])
    start = net_params(*(stored[f"init_{key}"] for key in ("input_indices", "w1", "b1", "w2", "b2")))
    before = np.concatenate([stored["init_input_indices"][None], stored["current_indices"][:-1]])
    rates = config["weight_rate"], config["weight_scale"], config["index_swap_rate"]
    temperature = jnp.asarray(stored["temperature"], jnp.float32)
    steps = Steps(
        draws_of(stored, "", before, net, rates),
        jnp.asarray(log_chances(stored["accept_u"])),
        temperature,
        jnp.ones(count, bool),
    )
    loss_of = partial(evaluate, net, goal=goal)

    def one(chain, own):
        chain, accepted = walk(chain, jax.tree.map(lambda leaf: leaf[None], own), CORE, loss_of)
        return chain, (accepted[0], chain.loss, chain.best_loss, chain.params["layer_0"]["indices"])

    first = start_chain(start, loss_of(start))
    last, (accepted, current, best, indices) = jax.jit(lambda c, s: jax.lax.scan(one, c, s))(first, steps)
    np.testing.assert_allclose(first.loss, stored["initial_mse"], rtol=MSE_RELATIVE)
    fall = np.concatenate([stored["initial_mse"][None], stored["current_mse"][:-1]]) - stored["mutant_mse"]
    threshold = np.exp(np.minimum(fall / stored["temperature"], 0))
    decided = ~(np.abs(stored["accept_u"] - threshold) < CLOSE_CALL) & (np.abs(fall) > 1e-9)
    assert decided.mean() > 0.98  # the others proposed no change at all
    np.testing.assert_array_equal(np.asarray(accepted)[decided], stored["accept"][decided])
    np.testing.assert_array_equal(indices, stored["current_indices"])
    np.testing.assert_allclose(current, stored["current_mse"], rtol=MSE_RELATIVE)
    np.testing.assert_allclose(best, stored["best_mse"], rtol=MSE_RELATIVE)
    expected = net_params(*(stored[f"final_best_{key}"] for key in ("input_indices", "w1", "b1", "w2", "b2")))
    for own, other in zip(jax.tree.leaves(last.best_params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-6)


@pytest.mark.golden("gsa_trace_small")
def test_every_generation_of_a_recorded_gsa_is_reproduced():
    stored, config, net = case("gsa_trace_small")
    size, count = config["population_size"], config["generations"]
    goal = objective(stored["X"], stored["Y"])
    search = Gsa(net, size, count, config["sa_steps"], config["seed_fraction"], CORE)
    members = net_params(*(stored[f"init_pop_{key}"] for key in ("input_indices", "w1", "b1", "w2", "b2")))
    losses = jax.jit(jax.vmap(lambda own: evaluate(net, own, goal)))(members)
    first = jnp.argmin(losses)
    state = Population(
        jax.random.key(0),
        jnp.asarray(0),
        members,
        losses,
        jax.tree.map(lambda leaf: leaf[first], members),
        losses[first],
    )
    rates = config["mutation_rate"], config["mutation_scale"], config["index_swap_rate"]
    generation = jax.jit(search.generation)
    for number in range(count):
        rows = slice(number * size, (number + 1) * size)
        np.testing.assert_allclose(
            -np.sort(state.losses), stored["roulette_sorted_fitness"][number], rtol=MSE_RELATIVE
        )
        own = {key: value[rows] for key, value in stored.items() if key.startswith("sa_")}
        before = tables_along(own, net, rates, goal)
        steps = Steps(
            draws_of(own, "sa_", before, net, rates),
            jnp.asarray(log_chances(own["sa_accept_u"])),
            jnp.broadcast_to(
                jnp.asarray(own["sa_temperature"], jnp.float32)[:, None], own["sa_accept_u"].shape
            ),
            jnp.ones(own["sa_accept_u"].shape, bool),
        )
        picks = jnp.asarray(stored["roulette_indices"][number])
        state, _ = generation(state, picks, steps, goal)
        np.testing.assert_allclose(-state.losses, own["sa_result_fitness"], rtol=MSE_RELATIVE)
        np.testing.assert_array_equal(state.members["layer_0"]["indices"], own["sa_result_input_indices"])
        np.testing.assert_allclose(
            -state.best_loss, stored["history_best_fitness"][number], rtol=MSE_RELATIVE
        )
        np.testing.assert_allclose(
            -np.mean(state.losses), stored["history_mean_fitness"][number], rtol=MSE_RELATIVE
        )
    np.testing.assert_array_equal(state.best_params["layer_0"]["indices"], stored["best_input_indices"])
    np.testing.assert_allclose(state.best_params["layer_0"]["weights"], stored["best_w1"], atol=1e-6)


def tables_along(own, net, rates, goal):
    """The index table of every member before every step, found by replaying with what is known so far.

    The trace stores the tables at a chain's start only; which proposals were accepted decides the others.
    """
    shape = own["sa_accept_u"].shape
    before = np.repeat(own["sa_start_indices"][:, None], shape[1], axis=1)
    params = net_params(own["sa_start_indices"], *split_flat(own["sa_start_params"], net))
    for step in range(shape[1] - 1):
        steps = Steps(
            draws_of(own, "sa_", before, net, rates),
            jnp.asarray(log_chances(own["sa_accept_u"])),
            jnp.broadcast_to(jnp.asarray(own["sa_temperature"], jnp.float32)[:, None], shape),
            jnp.broadcast_to(jnp.arange(shape[1]) <= step, shape),
        )
        before[:, step + 1] = tables_after(net, params, steps, goal)
    return before


@partial(jax.jit, static_argnums=0)
def tables_after(net, members, steps, goal):
    """The index tables of all members after their steps; one program for all generations."""

    def of_one(params, steps):
        loss_of = partial(evaluate, net, goal=goal)
        return walk(start_chain(params, loss_of(params)), steps, CORE, loss_of)[0].params["layer_0"][
            "indices"
        ]

    return jax.vmap(of_one)(members, steps)


@pytest.mark.golden("gsa_trace_small")
def test_roulette_has_the_recorded_probabilities():
    stored, _, _ = case("gsa_trace_small")
    for fitness, shares in zip(stored["roulette_sorted_fitness"], stored["roulette_probs"], strict=True):
        uniform = (jnp.arange(200_000) + 0.5) / 200_000
        counts = np.bincount(roulette(uniform, jnp.asarray(-fitness)), minlength=len(fitness))
        np.testing.assert_allclose(counts / 200_000, shares, atol=2e-5, rtol=1e-4)


@pytest.mark.golden("gsa_trace_small")
def test_the_schedule_is_the_recorded_one():
    stored, config, net = case("gsa_trace_small")
    goal, count = objective(stored["X"], stored["Y"]), config["generations"]
    search, hyper = Gsa(net, 4, count, 2), GsaParams(config["t_initial"], config["t_final"])

    @jax.jit
    def history_of(key):
        start = search.init(key, goal, hyper)
        return jax.lax.scan(lambda state, _: search.advance(state, goal, hyper), start, None, count)[1]

    history = history_of(jax.random.key(0))
    np.testing.assert_allclose(
        history.temperature, stored["sa_temperature"][:: config["population_size"]], rtol=1e-5
    )
    cooled = history.temperature * (config["t_final"] / config["t_initial"]) ** (1 / count)
    np.testing.assert_allclose(cooled, stored["history_temperature"], rtol=1e-5)
