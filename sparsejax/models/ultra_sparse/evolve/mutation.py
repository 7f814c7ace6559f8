"""Random changes of a net, in two halves: draws that need no net, and the proposal that they make of one.

The halves are apart so that the draws of thousands of steps are made at once, or come from a table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.ultra_sparse.config import Layer, UltraSparseConfig
from sparsejax.typing import IndexTable, Params

RESET_SCALE = 0.3
_GROWN_SCALE = 0.5
_ANY_SLOT = 1 << 22
"""Slots of a neuron with variable fan-in are drawn from this many, then taken modulo the live ones."""


@dataclass(frozen=True)
class Rule:
    """What a mutation may touch; how often is in `Rates`.

    Attributes:
      touched: "elementwise" moves every weight and bias on its own chance; "sparse" moves at most one slot
        and the bias of each neuron, and one weight of each dense layer; "one_neuron" moves values of one
        neuron and swaps at most one of its inputs (see `one_neuron`).
      fresh: a swapped slot gets an input that its neuron does not read yet ("unused"), or any ("any").
      swapped_weight: the weight of a swapped slot is "kept", or "reset" to a small random value.
      resizes: neurons gain and lose slots (nets with variable fan-in).
    """

    touched: Literal["elementwise", "sparse", "one_neuron"] = "elementwise"
    fresh: Literal["unused", "any"] = "unused"
    swapped_weight: Literal["kept", "reset"] = "kept"
    resizes: bool = False


@flax.struct.dataclass
class Rates:
    """How often and how far; numbers or traced scalars, so that a sweep compiles once.

    Attributes:
      weight: probability that a value moves (see `Rule.touched`).
      scale: standard deviation of a move.
      swap: probability, per neuron, that one input is exchanged.
      shrink: probability, per neuron, that its last slot goes.
      grow: probability, per neuron that did not shrink, that it gains a slot.
    """

    weight: Any = 0.1
    scale: Any = 0.1
    swap: Any = 0.05
    shrink: Any = 0.01
    grow: Any = 0.01


RULES: Mapping[str, tuple[Rule, Rates]] = {
    "core": (Rule(), Rates()),
    "numpy": (Rule(fresh="any"), Rates(0.02, 0.15, 0.02)),
    "variable_k": (Rule(fresh="any", resizes=True), Rates(0.02, 0.15, 0.02)),
    "sparse_touch": (Rule("sparse", swapped_weight="reset"), Rates(0.2, 0.1, 0.1)),
    "one_neuron": (Rule("one_neuron"), Rates(0.5, 0.1, 0.2)),
}
"""The rules by name and their default rates; all but the last are the originals' (specs section 5).

"sparse_touch" moves any row of the output weights, and the output biases as often as the hidden ones: the
original's moved row 0 alone and never the output bias, with which several outputs cannot be trained.
"""


@flax.struct.dataclass
class TableDraws:
    """Draws for one sparse layer of h neurons.

    Attributes:
      swaps: (h,) whether a neuron exchanges an input.
      slot: (h,) whole numbers; the slot is this modulo the neuron's live slots.
      fresh: (h,) its new input: the number among the unused ones in rising order (`Rule.fresh` "unused"),
        or the input itself ("any").
      weight: (h,) what a reset weight becomes; None where `Rule.swapped_weight` is "kept".
      shrinks: (h,) whether the last slot goes; None where `Rule.resizes` is off, as the next three.
      grows: (h,) whether a slot comes, if the neuron did not shrink.
      grown_input: (h,) what it reads.
      grown_weight: (h,) its weight.
    """

    swaps: jax.Array
    slot: jax.Array
    fresh: jax.Array
    weight: Any = None
    shrinks: Any = None
    grows: Any = None
    grown_input: Any = None
    grown_weight: Any = None


@flax.struct.dataclass
class Draws:
    """Everything random in a proposal.

    Attributes:
      moves: {layer: {name: what is added}} for every float array of the net.
      tables: {layer: `TableDraws`} for every sparse layer.
    """

    moves: dict[str, dict[str, jax.Array]]
    tables: dict[str, TableDraws]


def named_rule(rule: str | Rule) -> tuple[Rule, Rates]:
    """A rule and its default rates; a `Rule` of one's own gets those of "core".

    Raises:
      ValueError: unknown name.
    """
    if isinstance(rule, Rule):
        return rule, Rates()
    if rule not in RULES:
        raise ValueError(f"mutation rule {rule!r} is not one of {', '.join(RULES)}")
    return RULES[rule]


def whole_net_rule(rule: str | Rule) -> tuple[Rule, Rates]:
    """`named_rule` for the searches that evaluate whole nets.

    Raises:
      ValueError: unknown name, or "one_neuron", whose walk keeps activations between steps.
    """
    chosen, rates = named_rule(rule)
    if chosen.touched == "one_neuron":
        raise ValueError("the mutation rule 'one_neuron' belongs to anneal; take 'core' or another one here")
    return chosen, rates


def draw(key: jax.Array, config: UltraSparseConfig, rule: Rule, rates: Rates, steps: int) -> Draws:
    """Draws for so many steps, independent of any net.

    Args:
      key: PRNG key.
      config: float layers, sparse or dense.
      rule: what may be touched.
      rates: how often and how far.
      steps: leading axis of every array of the result.

    Raises:
      ValueError: the net has masked or int8 layers, or a rule and fan-in that do not go together.
    """
    widths = (config.input_size, *(layer.features for layer in config.layers[:-1]))
    for number, layer in enumerate(config.layers):
        _check_layer(number, layer, rule)
    uniform_shapes, normal_shapes = {}, {}
    for number, (layer, width) in enumerate(zip(config.layers, widths, strict=True)):
        uniform_shapes[number], normal_shapes[number] = _needed(layer, width, rule)
    # Two calls in all: each call of a generator costs a third of a second to compile.
    uniform_key, normal_key = jax.random.split(key)
    uniforms = _cut(partial(jax.random.uniform, uniform_key), uniform_shapes, steps)
    normals = _cut(partial(jax.random.normal, normal_key), normal_shapes, steps)
    moves, tables = {}, {}
    for number, (layer, width) in enumerate(zip(config.layers, widths, strict=True)):
        own = (layer, width, uniforms[number], normals[number], rates)
        moves[f"layer_{number}"] = _MOVES[rule.touched](*own)
        if layer.kind == "sparse":
            tables[f"layer_{number}"] = _table_draws(*own, rule=rule)
    return Draws(moves, tables)


def mutate(params: Params, draws: Draws, rule: Rule) -> Params:
    """The proposal that one step's draws make of a net.

    Args:
      params: of a net with the layers that the draws were made for.
      draws: of one step, without a leading axis.
      rule: the rule that they were drawn by.

    Returns:
      parameters of the same structure.

    Example:
      >>> from sparsejax.models.ultra_sparse import UltraSparseNet
      >>> rule, rates = RULES["core"]
      >>> config = UltraSparseConfig()
      >>> params = jax.jit(UltraSparseNet(config).init)(jax.random.key(0), jnp.zeros(256))["params"]
      >>> draws = draw(jax.random.key(1), config, rule, rates, steps=1)
      >>> proposal = mutate(params, jax.tree.map(lambda leaf: leaf[0], draws), rule)
      >>> proposal["layer_0"]["indices"].shape
      (8, 2)

    Source: specs/ultra_sparse.md section 5.
    """
    proposal = {}
    for name, own in params.items():
        moves = draws.moves[name]
        changed = {key: leaf + moves[key] if key in moves else leaf for key, leaf in own.items()}
        proposal[name] = _rewire(changed, draws.tables[name], rule) if name in draws.tables else changed
    return proposal


def unused_input(indices: IndexTable, rank: jax.Array) -> jax.Array:
    """(h,) the rank-th input, in rising order, that a neuron does not read; rows (h, k) are distinct."""
    for used in jnp.sort(indices, axis=1).T:
        rank = rank + (rank >= used)
    return rank


def _rewire(own: dict[str, jax.Array], draws: TableDraws, rule: Rule) -> dict[str, jax.Array]:
    indices, weights = own["indices"], own["weights"]
    slots = jnp.arange(indices.shape[1])
    live = own.get("live", jnp.full(len(indices), indices.shape[1]))
    here = draws.swaps[:, None] & (slots == (draws.slot % live)[:, None])
    fresh = unused_input(indices, draws.fresh) if rule.fresh == "unused" else draws.fresh
    indices = jnp.where(here, fresh[:, None].astype(indices.dtype), indices)
    if rule.swapped_weight == "reset":
        weights = jnp.where(here, draws.weight[:, None], weights)
    if not rule.resizes:
        return {**own, "indices": indices, "weights": weights}
    shrinks = draws.shrinks & (live > 1)
    grows = ~shrinks & draws.grows & (live < indices.shape[1])
    end = grows[:, None] & (slots == live[:, None])
    return {
        **own,
        "indices": jnp.where(end, draws.grown_input[:, None].astype(indices.dtype), indices),
        "weights": jnp.where(end, draws.grown_weight[:, None], weights),
        "live": (live + grows - shrinks).astype(own["live"].dtype),
    }


Shapes = dict[str, tuple[int, ...]]
Arrays = dict[str, jax.Array]


def _needed(layer: Layer, width: int, rule: Rule) -> tuple[Shapes, Shapes]:
    """Names and shapes of the uniform and the normal numbers that one step of a layer takes."""
    neurons = (layer.features,)
    values: Shapes = {"bias": neurons}
    if rule.touched == "elementwise":
        name = "weights" if layer.kind == "sparse" else "kernel"
        values[name] = (layer.features, layer.fan_in) if layer.fan_in else (width, layer.features)
        uniform, normal = dict(values), dict(values)
    else:
        values["step"] = neurons if layer.kind == "sparse" else ()
        uniform, normal = {**values, "place": values["step"]}, values
    if layer.kind == "sparse":
        uniform |= dict.fromkeys(("swap", "slot", "fresh"), neurons)
        normal |= {"reset": neurons} if rule.swapped_weight == "reset" else {}
    if layer.kind == "sparse" and rule.resizes:
        uniform |= dict.fromkeys(("shrink", "grow", "grown"), neurons)
        normal |= {"grown": neurons}
    return uniform, normal


def _cut(generate: Callable[..., jax.Array], shapes: dict[int, Shapes], steps: int) -> dict[int, Arrays]:
    sizes = [math.prod(shape) for own in shapes.values() for shape in own.values()]
    parts = iter(jnp.split(generate((steps, sum(sizes))), np.cumsum(sizes)[:-1], axis=1))
    return {
        number: {name: next(parts).reshape(steps, *shape) for name, shape in own.items()}
        for number, own in shapes.items()
    }


def _table_draws(
    layer: Layer, width: int, uniform: Arrays, normal: Arrays, rates: Rates, *, rule: Rule
) -> TableDraws:
    fan_in = layer.fan_in or 0
    choices = width - fan_in if rule.fresh == "unused" else width
    swaps = uniform["swap"] < (rates.swap if choices > 0 else 0.0)
    draws = TableDraws(
        swaps=swaps,
        slot=whole(uniform["slot"], _ANY_SLOT if rule.resizes else fan_in),
        fresh=whole(uniform["fresh"], max(1, choices)),
        weight=RESET_SCALE * normal["reset"] if rule.swapped_weight == "reset" else None,
    )
    if not rule.resizes:
        return draws
    return dataclasses.replace(
        draws,
        shrinks=uniform["shrink"] < rates.shrink,
        grows=uniform["grow"] < rates.grow,
        grown_input=whole(uniform["grown"], width),
        grown_weight=_GROWN_SCALE * normal["grown"],
    )


def _elementwise_moves(layer: Layer, width: int, uniform: Arrays, normal: Arrays, rates: Rates) -> Arrays:
    del width
    names = ("weights" if layer.kind == "sparse" else "kernel", "bias")
    return {name: moved(uniform[name], normal[name], rates.weight, rates.scale) for name in names}


def _sparse_moves(layer: Layer, width: int, uniform: Arrays, normal: Arrays, rates: Rates) -> Arrays:
    bias = moved(uniform["bias"], normal["bias"], 0.5 * rates.weight, 0.5 * rates.scale)
    places = layer.fan_in or width * layer.features
    step = moved(uniform["step"], normal["step"], rates.weight, rates.scale)
    here = jnp.arange(places) == whole(uniform["place"], places)[..., None]
    moves = jnp.where(here, step[..., None], 0)
    if layer.kind == "sparse":
        return {"bias": bias, "weights": moves}
    return {"bias": bias, "kernel": moves.reshape(-1, width, layer.features)}


_MOVES = {"elementwise": _elementwise_moves, "sparse": _sparse_moves}


def moved(chance: jax.Array, step: jax.Array, rate: Any, scale: Any) -> jax.Array:
    """Normal steps times ``scale`` where the uniform chance is below ``rate``, else 0."""
    return jnp.where(chance < rate, scale * step, 0)


def whole(uniform: jax.Array, limit: int) -> jax.Array:
    """Whole numbers below ``limit``; the 24 bits of a uniform number favour none by over limit / 2**24."""
    return jnp.minimum((uniform * limit).astype(jnp.int32), limit - 1)


def _check_layer(number: int, layer: Layer, rule: Rule) -> None:
    if layer.kind == "masked" or layer.weights != "float":
        raise ValueError(
            f"layer {number} is {layer!r}: searches train float layers with tables, or dense ones"
        )
    if layer.kind == "sparse" and rule.resizes != layer.variable_fan_in:
        raise ValueError(
            f"layer {number} is {layer!r}: the rule 'variable_k' and variable_fan_in=True need each other"
        )
