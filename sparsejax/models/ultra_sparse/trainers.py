"""The searches by name, built from plain options: what estimators and the command line choose from."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve import (
    Anneal,
    AnnealParams,
    Genetic,
    GeneticParams,
    Gsa,
    GsaParams,
    HillClimb,
    HillClimbParams,
    Hybrid,
    HybridParams,
    Rates,
    Rule,
    Search,
    Tempering,
    TemperingParams,
)
from sparsejax.models.ultra_sparse.evolve.anneal import check_temperatures
from sparsejax.models.ultra_sparse.evolve.mutation import named_rule, whole_net_rule


@dataclass(frozen=True)
class Trainer:
    """A kind of search.

    Attributes:
      search: class of its settings.
      hyper: class of its numbers.
      rule: a mutation rule by name, and its default rates.
      temperatures: names of the two that must be positive.
      per_round: proposals of a round, in words and formulas of the search.
      default_rates: instead of the rule's.
    """

    search: type
    hyper: type
    rule: Callable[[str], tuple[Rule, Rates]]
    per_round: Callable[[Any], int]
    temperatures: tuple[str, str] | None = None
    default_rates: Rates | None = None


_COOLING = ("initial_temperature", "final_temperature")
_EVOLVED: Mapping[str, Trainer] = {
    "anneal": Trainer(Anneal, AnnealParams, named_rule, lambda s: s.steps_per_round, _COOLING),
    "gsa": Trainer(
        Gsa,
        GsaParams,
        whole_net_rule,
        lambda s: s.population_size * s.steps,
        _COOLING,
        GsaParams().rates,
    ),
    "genetic": Trainer(Genetic, GeneticParams, whole_net_rule, lambda s: s.num_children + s.num_fresh),
    "hill_climb": Trainer(HillClimb, HillClimbParams, whole_net_rule, lambda s: s.steps_per_round),
    "tempering": Trainer(
        Tempering,
        TemperingParams,
        whole_net_rule,
        lambda s: s.replicas * s.swap_every,
        ("coldest", "hottest"),
    ),
}
SPARSE_FIT = "sparse_fit"
TRAINERS = (*_EVOLVED, SPARSE_FIT)
"""Names that `build_search` knows."""

_PER_RECORD = ("steps_per_round", "swap_every")
_ROUNDS, _MOVES = "rounds", "moves"
"""What `sparse_fit` calls its proposals, and what `Hybrid` does."""


@dataclass(frozen=True)
class Chosen:
    """A search with its numbers.

    Attributes:
      search: the settings that fix the program.
      hyper: the numbers that may change without a new one.
      proposals_per_round: of one seed.
      settings: all options with their values; plain JSON.
    """

    search: Search
    hyper: Any
    proposals_per_round: int
    settings: dict[str, Any]


def trainer_options(name: str) -> dict[str, Any]:
    """Options of a trainer with their defaults; None where the mutation rule sets it.

    Raises:
      ValueError: unknown trainer.

    Example:
      >>> trainer_options("genetic")["population_size"]
      100
    """
    if name not in TRAINERS:
        near = difflib.get_close_matches(name, TRAINERS, n=3, cutoff=0.4) or TRAINERS
        raise ValueError(f"no trainer is called {name!r}; near it: {', '.join(near)}")
    if name == SPARSE_FIT:
        fields = (*dataclasses.fields(Hybrid), *dataclasses.fields(HybridParams))
        own = {f.name: f.default for f in fields if f.name not in ("config", "allowed")}
        return {_ROUNDS if option == _MOVES else option: default for option, default in own.items()}
    trainer = _EVOLVED[name]
    fields = (*dataclasses.fields(trainer.search), *dataclasses.fields(trainer.hyper))
    own = {f.name: f.default for f in fields if f.name not in ("config", "rule", "rates")}
    rates = {} if trainer.default_rates is None else _rate_values(trainer.default_rates)
    return {**own, **dict.fromkeys(_rate_values(Rates())), **rates, "rule": "core"}


def build_search(name: str, options: Mapping[str, Any], config: UltraSparseConfig) -> Chosen:
    """A search by name.

    Args:
      name: of `TRAINERS`.
      options: of `trainer_options`, those that differ from the defaults.
      config: the net. Under a rule that resizes, its first layer's fan-in is the most that a neuron may have.

    Returns:
      `Chosen`.

    Raises:
      ValueError: unknown trainer, rule or option, or values that cannot be.

    Example:
      >>> build_search("anneal", {"steps": 1000}, UltraSparseConfig()).search.rounds
      2
    """
    defaults = trainer_options(name)
    if unknown := [option for option in options if option not in defaults]:
        raise ValueError(f"trainer {name!r} has no option {unknown[0]!r}; it has {', '.join(defaults)}")
    values = {**defaults, **options}
    if name == SPARSE_FIT:
        return _sparse_fit(config, values)
    trainer = _EVOLVED[name]
    rule, rates = trainer.rule(values["rule"])
    rates = trainer.default_rates or rates
    values |= {rate: value for rate, value in _rate_values(rates).items() if values[rate] is None}
    if "patience" in values:
        _check_at_least(name, values, 1, ("patience",))
    _check_at_least(name, values, 0, (*_rate_values(rates), *_fields(trainer.hyper, values)))
    if "steps" in values:
        for record in _PER_RECORD:
            values |= {record: min(values["steps"], values[record])} if record in values else {}
    search = trainer.search(
        config=_resizable(config) if rule.resizes else config,
        rule=rule,
        **{f: values[f] for f in _fields(trainer.search, values)},
    )
    if trainer.temperatures:
        check_temperatures(*(values[which] for which in trainer.temperatures))
    own_rates = Rates(**{rate: values[rate] for rate in _rate_values(rates)})
    hyper = trainer.hyper(rates=own_rates, **{f: values[f] for f in _fields(trainer.hyper, values)})
    return Chosen(search, hyper, trainer.per_round(search), values)


def _sparse_fit(config: UltraSparseConfig, values: dict[str, Any]) -> Chosen:
    """`sparse_fit`, whose inputs move by worth instead of by a mutation rule."""
    _check_at_least(SPARSE_FIT, values, 1, (_ROUNDS, "steps", "moves_per_round"))
    _check_at_least(SPARSE_FIT, values, 0, _fields(HybridParams, values))
    values |= {"moves_per_round": min(values[_ROUNDS], values["moves_per_round"])}
    named = {**values, _MOVES: values[_ROUNDS]}
    search = Hybrid(config=config, **{f: named[f] for f in _fields(Hybrid, named)})
    hyper = HybridParams(**{f: named[f] for f in _fields(HybridParams, named)})
    return Chosen(search, hyper, search.moves_per_round, values)


def _resizable(config: UltraSparseConfig) -> UltraSparseConfig:
    """The net with a first layer whose neurons may have fewer inputs."""
    first, *others = config.layers
    return dataclasses.replace(config, layers=(dataclasses.replace(first, variable_fan_in=True), *others))


def _fields(kind: type, values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(kind) if f.name in values and f.name != "rule")


def _rate_values(rates: Rates) -> dict[str, Any]:
    return {f.name: getattr(rates, f.name) for f in dataclasses.fields(rates)}


def _check_at_least(name: str, values: Mapping[str, Any], least: int, which: tuple[str, ...]) -> None:
    for option in which:
        if isinstance(values[option], str) or not values[option] >= least:
            raise ValueError(
                f"trainer {name!r}: option {option!r} is {values[option]!r}, it must be at least {least}"
            )
