"""Searches built from names and options."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import pytest

from sparsejax.models.ultra_sparse import UltraSparseConfig, evolve
from sparsejax.models.ultra_sparse.trainers import SPARSE_FIT, TRAINERS, build_search, trainer_options

CONFIG = UltraSparseConfig.fixed_k(12, 3, 1, 2, "linear")
EVOLVED = [name for name in TRAINERS if name != SPARSE_FIT]


@pytest.mark.parametrize("name", TRAINERS)
def test_defaults_are_those_of_the_public_function(name):
    """`sparsejax train` and a call of the function of this name are one protocol."""
    chosen = build_search(name, {}, CONFIG)
    function = getattr(evolve, name)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name in chosen.settings:
            assert chosen.settings[parameter.name] == parameter.default, parameter.name
    if name == SPARSE_FIT:
        assert chosen.hyper == evolve.HybridParams()
        return
    rates = evolve.GsaParams().rates if name == "gsa" else evolve.RULES["core"][1]
    assert chosen.hyper.rates == rates


@pytest.mark.parametrize(
    ("name", "rule"),
    [*((name, rule) for name in EVOLVED for rule in ("core", "variable_k")), (SPARSE_FIT, None)],
)
def test_every_search_keeps_the_types_of_its_state(name, rule):
    chosen = build_search(name, {"rule": rule} if rule else {}, CONFIG)
    goal = evolve.objective(jnp.ones((5, 12)), jnp.zeros(5))
    state = jax.eval_shape(chosen.search.init, jax.random.key(0), goal, chosen.hyper)
    after, record = jax.eval_shape(chosen.search.advance, state, goal, chosen.hyper)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [leaf.dtype for leaf in jax.tree.leaves(state)]
    assert {leaf.shape for leaf in record} == {()}


@pytest.mark.parametrize(
    ("name", "options", "rounds", "proposals"),
    [
        ("anneal", {"steps": 1200, "restarts": 1}, 6, 500),
        ("anneal", {"steps": 40, "rule": "one_neuron"}, 1, 40),
        ("gsa", {"generations": 7, "population_size": 10, "steps": 5}, 7, 50),
        ("genetic", {"generations": 9, "population_size": 10, "fresh_fraction": 0.1}, 9, 8),
        ("hill_climb", {"steps": 501}, 2, 500),
        ("tempering", {"steps": 250, "replicas": 3}, 3, 300),
        ("sparse_fit", {"rounds": 85, "final_steps": 200, "moves_per_round": 20}, 5, 20),
    ],
)
def test_rounds_and_their_proposals(name, options, rounds, proposals):
    chosen = build_search(name, options, CONFIG)
    assert (chosen.search.rounds, chosen.proposals_per_round) == (rounds, proposals)


def test_options_reach_the_search_and_its_numbers():
    options = {"initial_temperature": 0.5, "weight": 0.3, "steps_per_round": 100, "rule": "numpy"}
    chosen = build_search("anneal", options, CONFIG)
    assert chosen.search.steps_per_round == 100
    assert chosen.search.rule == evolve.RULES["numpy"][0]
    assert chosen.hyper.initial_temperature == 0.5
    assert (chosen.hyper.rates.weight, chosen.hyper.rates.scale) == (0.3, evolve.RULES["numpy"][1].scale)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("aneal", {}, "no trainer is called 'aneal'; near it: anneal"),
        ("anneal", {"rule": "cor"}, "mutation rule 'cor' is not one of core, "),
        ("gsa", {"rule": "one_neuron"}, "belongs to anneal"),
        ("anneal", {"steps": -5}, "option 'steps' is -5, it must be at least 1|steps .* must be at least 1"),
        ("anneal", {"step": 5}, "has no option 'step'; it has steps"),
        ("anneal", {"weight": "much"}, "option 'weight' is 'much'"),
        ("anneal", {"weight": -0.1}, "option 'weight' is -0.1, it must be at least 0"),
        ("anneal", {"initial_temperature": 0.0}, "temperatures must be positive"),
        ("tempering", {"replicas": 1}, "replicas must be at least 2"),
        ("hill_climb", {"patience": 0}, "option 'patience' is 0, it must be at least 1"),
        ("sparse_fit", {"rounds": 0}, "option 'rounds' is 0, it must be at least 1"),
        ("sparse_fit", {"generations": 3}, "has no option 'generations'"),
    ],
)
def test_impossible_searches_are_refused(name, options, told):
    with pytest.raises(ValueError, match=told):
        build_search(name, options, CONFIG)


def test_options_are_listed_with_defaults():
    assert trainer_options("gsa")["weight"] == 0.15
    assert trainer_options("anneal")["weight"] is None  # the rule has it
    assert "steps" in trainer_options("sparse_fit")
