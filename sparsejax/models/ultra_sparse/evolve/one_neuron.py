"""The rule that touches one neuron per step, and a walk that evaluates nothing but that neuron's column."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.chain import Chain, Steps, accepts, choose
from sparsejax.models.ultra_sparse.evolve.mutation import (
    RESET_SCALE,
    Draws,
    Rates,
    Rule,
    TableDraws,
    moved,
    unused_input,
    whole,
)
from sparsejax.models.ultra_sparse.evolve.objective import Objective, loss_of
from sparsejax.models.ultra_sparse.layers import activate
from sparsejax.models.ultra_sparse.model import activations
from sparsejax.typing import Params


@flax.struct.dataclass
class NeuronDraws:
    """Everything random in a proposal that touches one of h hidden neurons; all with the steps in front.

    Attributes:
      neuron: () which one.
      weights: (k,) what is added to its weights.
      bias: () to its bias.
      outgoing: (o,) to its output weights.
      output_bias: (o,) to the output biases, which belong to every neuron.
      swaps: () whether it exchanges an input.
      slot: () in which slot.
      fresh: () its new input, as in `mutation.TableDraws`.
      weight: () what a reset weight becomes.
    """

    neuron: jax.Array
    weights: jax.Array
    bias: jax.Array
    outgoing: jax.Array
    output_bias: jax.Array
    swaps: jax.Array
    slot: jax.Array
    fresh: jax.Array
    weight: jax.Array


def draw(key: jax.Array, config: UltraSparseConfig, rule: Rule, rates: Rates, steps: int) -> NeuronDraws:
    """Draws for so many steps.

    Args:
      key: PRNG key.
      config: one sparse layer with fixed fan-in under one dense layer.
      rule: with ``touched`` "one_neuron".
      rates: how often each value of the chosen neuron moves and how far, and how often it swaps an input.
      steps: leading axis of every array of the result.

    Raises:
      ValueError: another stack of layers.
    """
    first, outputs = checked_stack(config)
    fan_in, width = first.fan_in or 0, config.input_size
    values = fan_in + 1 + 2 * outputs
    uniform_key, normal_key = jax.random.split(key)
    uniform = jax.random.uniform(uniform_key, (steps, values + 4))
    normal = jax.random.normal(normal_key, (steps, values + 1))
    moves = moved(uniform[:, :values], normal[:, :values], rates.weight, rates.scale)
    choices = width - fan_in if rule.fresh == "unused" else width
    return NeuronDraws(
        neuron=whole(uniform[:, values], first.features),
        weights=moves[:, :fan_in],
        bias=moves[:, fan_in],
        outgoing=moves[:, fan_in + 1 : fan_in + 1 + outputs],
        output_bias=moves[:, fan_in + 1 + outputs :],
        swaps=uniform[:, values + 1] < (rates.swap if choices > 0 else 0.0),
        slot=whole(uniform[:, values + 2], fan_in),
        fresh=whole(uniform[:, values + 3], max(1, choices)),
        weight=RESET_SCALE * normal[:, values],
    )


def checked_stack(config: UltraSparseConfig) -> tuple[Any, int]:
    """The hidden layer and the number of outputs.

    Raises:
      ValueError: the net is anything but one sparse layer with fixed fan-in under one dense layer.
    """
    hidden, *others = config.layers
    fits = hidden.kind == "sparse" and not hidden.variable_fan_in and [o.kind for o in others] == ["dense"]
    if not fits or "int8" in {layer.weights for layer in config.layers}:
        raise ValueError(
            f"{config.layers} is not one sparse layer of fixed fan-in under one dense layer, both of floats"
        )
    return hidden, config.output_size


def spread(draws: NeuronDraws, config: UltraSparseConfig) -> Draws:
    """The same proposals as draws for whole nets: what full evaluation takes, for comparison."""
    here = draws.neuron[..., None] == jnp.arange(config.layers[0].features)

    def at_neuron(values: jax.Array) -> jax.Array:
        return jnp.where(here.reshape(here.shape + (1,) * (values.ndim - 1)), values[:, None], 0)

    table = TableDraws(
        swaps=here & draws.swaps[:, None],
        slot=at_neuron(draws.slot),
        fresh=at_neuron(draws.fresh),
        weight=at_neuron(draws.weight),
    )
    hidden = {"weights": at_neuron(draws.weights), "bias": at_neuron(draws.bias)}
    output = {"kernel": at_neuron(draws.outgoing), "bias": draws.output_bias}
    return Draws({"layer_0": hidden, "layer_1": output}, {"layer_0": table})


def walk(
    chain: Chain, steps: Steps, *, config: UltraSparseConfig, rule: Rule, goal: Objective
) -> tuple[Chain, jax.Array]:
    """`chain.walk` for `NeuronDraws`: per step one hidden column of b values instead of h.

    The hidden activations and the sums at the outputs are kept from step to step. They are computed
    afresh at the start of every call, so that rounding cannot pile up beyond the steps of one.

    Args:
      chain: where to begin.
      steps: what to propose (``draws`` are `NeuronDraws`), and how to decide.
      config: see `draw`.
      rule: that the draws were made by.
      goal: batch and loss.

    Returns:
      the chain after the steps; (n,) which of them were accepted.
    """
    hidden_layer, output_layer = config.layers

    def step(carry: tuple, own: Steps) -> tuple[tuple, jax.Array]:
        chain, hidden, sums = carry
        draws = own.draws
        now = _row(chain.params, draws.neuron)
        new = _changed(now, draws, rule)
        column = jnp.einsum("kb,k->b", goal.features[new["indices"]], new["weights"]) + new["bias"]
        column = activate(column, hidden_layer.activation)
        change = new["outgoing"][:, None] * column - now["outgoing"][:, None] * hidden[draws.neuron]
        proposed_sums = sums + change + draws.output_bias[:, None]
        loss = loss_of(activate(proposed_sums, output_layer.activation), goal)
        accepted = own.active & accepts(loss - chain.loss, own.temperature, own.log_chance)
        better = own.active & (loss < chain.best_loss)
        params = _with_row(chain.params, choose(accepted, new, now), draws, accepted)
        # A best net is always accepted: what is better than the best is better than the current one.
        moved_chain = Chain(
            params,
            jnp.where(accepted, loss, chain.loss),
            choose(better, params, chain.best_params),
            jnp.where(better, loss, chain.best_loss),
        )
        hidden = hidden.at[draws.neuron].set(jnp.where(accepted, column, hidden[draws.neuron]))
        return (moved_chain, hidden, jnp.where(accepted, proposed_sums, sums)), accepted

    hidden = activations(config, chain.params, goal.features, features_first=True)[0]
    output = chain.params["layer_1"]
    sums = output["kernel"].T @ hidden + output["bias"][:, None]
    (chain, _, _), accepted = jax.lax.scan(step, (chain, hidden, sums), steps)
    return chain, accepted


def _row(params: Params, neuron: jax.Array) -> dict[str, jax.Array]:
    own = {name: params["layer_0"][name][neuron] for name in ("indices", "weights", "bias")}
    return {**own, "outgoing": params["layer_1"]["kernel"][neuron]}


def _changed(now: dict[str, jax.Array], draws: NeuronDraws, rule: Rule) -> dict[str, jax.Array]:
    here = draws.swaps & (jnp.arange(now["indices"].shape[0]) == draws.slot)
    weights = now["weights"] + draws.weights
    unused = rule.fresh == "unused"
    fresh = unused_input(now["indices"][None], draws.fresh[None])[0] if unused else draws.fresh
    return {
        "indices": jnp.where(here, fresh.astype(now["indices"].dtype), now["indices"]),
        "weights": jnp.where(here, draws.weight, weights) if rule.swapped_weight == "reset" else weights,
        "bias": now["bias"] + draws.bias,
        "outgoing": now["outgoing"] + draws.outgoing,
    }


def _with_row(
    params: Params, row: dict[str, jax.Array], draws: NeuronDraws, accepted: jax.Array
) -> dict[str, dict[str, jax.Array]]:
    hidden, output = params["layer_0"], params["layer_1"]
    changed = {name: hidden[name].at[draws.neuron].set(row[name]) for name in ("indices", "weights", "bias")}
    bias = output["bias"] + jnp.where(accepted, draws.output_bias, 0)
    kernel = output["kernel"].at[draws.neuron].set(row["outgoing"])
    return {"layer_0": changed, "layer_1": {"kernel": kernel, "bias": bias}}
