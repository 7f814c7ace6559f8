"""New inputs for a net, guided by what its backpropagated residual correlates with.

`swap_slot` looks for the column whose product with a neuron's backpropagated residual is largest, as RigL
grows connections. Even effects, such as (x - 1/2)**2, have no such correlation, so `restart_neuron` also
correlates the residual with a bank of tanh responses of every column and starts a weak neuron at one of
them. Both sample, and both charge a price for columns that the net does not read yet.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.chain import choose
from sparsejax.models.ultra_sparse.evolve.objective import Objective, loss_of
from sparsejax.models.ultra_sparse.model import activations
from sparsejax.typing import IndexTable, Params

_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
_SLOPES = (1.0, 3.0)
"""The bank: where its responses turn, and how steep they are per standard deviation of the column."""

_LARGEST_FIRST_WEIGHT = 3.0
"""Per standard deviation; the linear estimate for an almost saturated neuron may be anything."""

_LEAST_WORTH = 0.05
"""Share of its gain that a column keeps when the price is higher: nothing is ruled out."""

_TINY = 1e-30


class Candidates(NamedTuple):
    """The columns a net may read, prepared once per batch.

    Attributes:
      usable: (i,) bool; False for constant columns and those the caller rules out.
      scale: (i,) standard deviation of a column over the rows, 1 where not usable.
      values: (i, b) columns with mean 0 and standard deviation 1; 0 where not usable.
      slopes: (r, i) of the bank's responses ``tanh(slope * (column - threshold))``.
      thresholds: (r, i).
      responses: (r, i, b) with mean 0 and standard deviation 1; 0 where not usable.
    """

    usable: jax.Array
    scale: jax.Array
    values: jax.Array
    slopes: jax.Array
    thresholds: jax.Array
    responses: jax.Array


class Sensitivity(NamedTuple):
    """How the loss reacts to the outputs of a net.

    Attributes:
      loss: ().
      hidden: (h, b) activations.
      error: (o, b) gradient with respect to the outputs before their activation (half of it under "mse").
      curvature: (o, b) diagonal of the Gauss-Newton matrix there, on the same scale.
    """

    loss: jax.Array
    hidden: jax.Array
    error: jax.Array
    curvature: jax.Array


def candidates(goal: Objective, allowed: Any = None) -> Candidates:
    """Standardise the columns of a batch and compute the bank, 10 responses per column.

    Args:
      goal: the batch; rows of weight 0 count for nothing.
      allowed: (i,) bool, the columns that may be proposed; None allows all.
    """
    features, weights = goal.features, goal.row_weights
    usable = usable_columns(goal, allowed)
    centred = features - (features @ weights)[:, None]
    deviation = jnp.sqrt(centred**2 @ weights)
    scale = jnp.where(usable, deviation, 1)
    values = jnp.where(usable[:, None], centred / scale[:, None], 0)
    present = jnp.where(weights > 0, features, jnp.nan)
    turns = jnp.nanquantile(present, jnp.asarray(_QUANTILES, features.dtype), axis=1)
    thresholds = jnp.repeat(turns, len(_SLOPES), axis=0)
    slopes = jnp.tile(jnp.asarray(_SLOPES, features.dtype), len(_QUANTILES))[:, None] / scale
    responses = jnp.tanh(slopes[:, :, None] * (features - thresholds[:, :, None]))
    responses = responses - (responses @ weights)[:, :, None]
    spread = jnp.sqrt(responses**2 @ weights)[:, :, None]
    responses = jnp.where(usable[:, None], responses / jnp.maximum(spread, 1e-6), 0)
    return Candidates(usable, scale, values, slopes, thresholds, responses)


def usable_columns(goal: Objective, allowed: Any = None) -> jax.Array:
    """(i,) bool: columns that vary over the rows and are allowed."""
    mean = goal.features @ goal.row_weights
    deviation = jnp.sqrt((goal.features - mean[:, None]) ** 2 @ goal.row_weights)
    # The deviation of a constant column is the rounding of its mean, not exactly 0.
    varies = deviation > 1e-5 * jnp.abs(mean) + _TINY
    return varies if allowed is None else varies & jnp.asarray(allowed, bool)


def sensitivity(config: UltraSparseConfig, params: Params, goal: Objective) -> Sensitivity:
    """`Sensitivity` of a net with one hidden layer."""
    hidden, outputs = activations(config, params, goal.features, features_first=True)
    loss = loss_of(outputs, goal)
    if goal.loss == "cross_entropy":
        chance = jax.nn.softmax(outputs, axis=0)
        curvature = goal.row_weights * chance * (1 - chance)
        return Sensitivity(loss, hidden, goal.row_weights * (chance - goal.targets), curvature)
    slope = 1 - outputs**2 if config.layers[1].activation == "tanh" else jnp.ones_like(outputs)
    scale = goal.row_weights / config.output_size
    return Sensitivity(loss, hidden, scale * slope * (outputs - goal.targets), scale * slope**2)


def swap_slot(
    key: jax.Array,
    params: Params,
    goal: Objective,
    columns: Candidates,
    now: Sensitivity,
    *,
    greed: Any,
    price: Any,
) -> Params:
    """One slot of one neuron reads another column.

    The neuron is drawn evenly, the slot in inverse proportion to what its loss would cost, the column in
    proportion to ``worth**greed`` (see `worth`). The gain of a column is that of the best weight for it
    in the linearised net without the old slot; the slot starts at that weight.

    Args:
      key: PRNG key.
      params: one sparse layer and a dense head.
      goal: batch and loss.
      columns: see `candidates`.
      now: `sensitivity` of the net.
      greed: 0 samples evenly, large values always take the best.
      price: in nats per column that the net does not read elsewhere.

    Returns:
      the changed net; ``params`` themselves if no column promises anything.

    Source: Evci et al., Rigging the lottery, ICML 2020, for the score; the sampling is this project's.
    """
    neuron_key, slot_key, column_key = jax.random.split(key, 3)
    own, kernel = params["layer_0"], params["layer_1"]["kernel"]
    neuron = jax.random.randint(neuron_key, (), 0, len(own["bias"]))
    indices, weights, out = own["indices"][neuron], own["weights"][neuron], kernel[neuron]
    slope = 1 - now.hidden[neuron] ** 2
    error, curvature = (out @ now.error) * slope, (out**2 @ now.curvature) * slope**2
    standard = weights * columns.scale[indices]
    slot = _sample(slot_key, 1 / (standard**2 * _norm(columns.values[indices], curvature) + _TINY), 1)
    old = indices[slot]
    error = error - curvature * standard[slot] * columns.values[old]
    norm = _norm(columns.values, curvature)
    best = -_product(columns.values, error, curvature) / norm
    read = _read(own["indices"], columns, old)
    power = worth(best**2 * norm, now.loss, goal, usable=columns.usable, read=read, price=price)
    power = power.at[indices].set(0)
    new = _sample(column_key, power, greed)
    weight = jnp.clip(best[new], -_LARGEST_FIRST_WEIGHT, _LARGEST_FIRST_WEIGHT) / columns.scale[new]
    # The bias takes over the mean of what goes and gives back that of what comes.
    shift = (weights[slot] * goal.features[old] - weight * goal.features[new]) @ goal.row_weights
    changed = {
        "indices": own["indices"].at[neuron, slot].set(new.astype(own["indices"].dtype)),
        "weights": own["weights"].at[neuron, slot].set(weight),
        "bias": own["bias"].at[neuron].add(shift),
    }
    return choose(power[new] > 0, {**params, "layer_0": changed}, dict(params))


def restart_neuron(
    key: jax.Array,
    params: Params,
    goal: Objective,
    columns: Candidates,
    now: Sensitivity,
    *,
    greed: Any,
    price: Any,
) -> Params:
    """A weak neuron starts anew at a tanh response that explains the residual.

    The neuron is drawn in inverse proportion to what its loss would cost, the response of the bank in
    proportion to ``worth**greed``, the columns of the other slots by their linear correlation with the
    residual; those slots start at weight 0.

    Args:
      key: PRNG key.
      params: one sparse layer and a dense head.
      goal: batch and loss.
      columns: see `candidates`.
      now: `sensitivity` of the net.
      greed: 0 samples evenly, large values always take the best.
      price: in nats per column that the net does not read elsewhere.

    Returns:
      the changed net; ``params`` themselves if no response promises anything.
    """
    neuron_key, response_key, rest_key = jax.random.split(key, 3)
    own, head = params["layer_0"], params["layer_1"]
    mean = now.hidden @ goal.row_weights
    centred = now.hidden - mean[:, None]
    harm = jnp.sum(head["kernel"] ** 2 * (centred**2 @ now.curvature.T), axis=1)
    neuron = _sample(neuron_key, 1 / (harm + _TINY), 1)
    out = head["kernel"][neuron]
    error = now.error - now.curvature * out[:, None] * centred[neuron]
    norm = jnp.sum(now.curvature, axis=1) + _TINY
    best = -(columns.responses @ error.T) / norm
    read = _read(own["indices"], columns, own["indices"][neuron])
    power = worth(
        jnp.sum(best**2 * norm, axis=-1), now.loss, goal, usable=columns.usable, read=read, price=price
    )
    response, column = jnp.divmod(_sample(response_key, power.ravel(), greed), len(read))
    linear = jnp.sum((columns.values @ error.T) ** 2 / norm, axis=-1)
    linear = worth(linear, now.loss, goal, usable=columns.usable, read=read, price=price).at[column].set(0)
    fan_in = own["indices"].shape[1]
    rest = _sample_distinct(rest_key, linear, fan_in - 1, 1)
    slope, threshold = columns.slopes[response, column], columns.thresholds[response, column]
    raw = jnp.tanh(slope * (goal.features[column] - threshold))
    raw_mean = raw @ goal.row_weights
    spread = jnp.sqrt((raw - raw_mean) ** 2 @ goal.row_weights)
    new_out = best[response, column] / jnp.maximum(spread, 1e-6)
    table_row = jnp.concatenate([column[None], rest]).astype(own["indices"].dtype)
    changed = {
        "layer_0": {
            "indices": own["indices"].at[neuron].set(table_row),
            "weights": own["weights"].at[neuron].set(jnp.where(jnp.arange(fan_in) == 0, slope, 0)),
            "bias": own["bias"].at[neuron].set(-slope * threshold),
        },
        "layer_1": {
            "kernel": head["kernel"].at[neuron].set(new_out),
            "bias": head["bias"] + out * mean[neuron] - new_out * raw_mean,
        },
    }
    possible = (power[response, column] > 0) & jnp.all(linear[rest] > 0)
    return choose(possible, changed, dict(params))


def worth(
    gain: jax.Array, loss: jax.Array, goal: Objective, *, usable: jax.Array, read: jax.Array, price: Any
) -> jax.Array:
    """What a change of column promises, in nats of the rows' likelihood less the price of a new column.

    Args:
      gain: (..., i) linearised fall of the loss.
      loss: () now.
      goal: says which likelihood: Gaussian with unknown variance under "mse", categorical otherwise.
      usable: (i,) bool; the rest is worth 0.
      read: (i,) bool, columns that cost nothing.
      price: nats.

    Returns:
      (..., i), at least 5 % of the nats gained.
    """
    rows = jnp.sum(goal.row_weights > 0)
    share = jnp.minimum(gain / (loss + _TINY), 0.99)
    nats = rows * (-jnp.log1p(-share) / 2 if goal.loss == "mse" else gain / 2)
    return jnp.where(usable, jnp.maximum(nats - price * ~read, _LEAST_WORTH * nats), 0)


def first_net(
    key: jax.Array, config: UltraSparseConfig, goal: Objective, columns: Candidates, *, greed: Any
) -> Params:
    """A random net whose slots are sampled in proportion to ``r**(2 * greed)``.

    r is a column's correlation with the targets; columns stay distinct within a neuron.

    Args:
      key: PRNG key.
      config: one sparse layer under a dense head.
      goal: batch and loss.
      columns: see `candidates`.
      greed: 0 samples the usable columns evenly.
    """
    table_key, weight_key, bias_key, kernel_key = jax.random.split(key, 4)
    h, k, o = config.layers[0].features, config.layers[0].fan_in or 0, config.output_size
    dtype = goal.features.dtype
    centred = goal.targets - (goal.targets @ goal.row_weights)[:, None]
    variance = centred**2 @ goal.row_weights + _TINY
    correlation = (columns.values * goal.row_weights) @ (centred / jnp.sqrt(variance)[:, None]).T
    # A column without any effect has r**2 of about 1 / rows.
    power = jnp.sum(correlation**2, axis=1) + 1 / jnp.sum(goal.row_weights > 0)
    power = jnp.where(columns.usable, power, 0)
    keys = jax.random.split(table_key, h)
    indices = jax.vmap(lambda key: _sample_distinct(key, power, k, greed))(keys).astype(jnp.int32)
    weights = jax.random.normal(weight_key, (h, k), dtype) * (2 / k) ** 0.5 / columns.scale[indices]
    mean = goal.features @ goal.row_weights
    bias = jax.random.normal(bias_key, (h,), dtype) - jnp.sum(weights * mean[indices], axis=1)
    kernel = jax.random.normal(kernel_key, (h, o), dtype) * h**-0.5
    return {
        "layer_0": {"indices": indices, "weights": weights, "bias": bias},
        "layer_1": {"kernel": kernel, "bias": jnp.zeros(o, dtype)},
    }


def _read(table: IndexTable, columns: Candidates, without: jax.Array) -> jax.Array:
    """(i,) bool: columns that the net still reads when the slots of ``without`` are gone."""
    slots = jnp.zeros(len(columns.usable), jnp.int32).at[table.ravel()].add(1)
    return slots.at[without].add(-1) > 0


def _product(values: jax.Array, error: jax.Array, curvature: jax.Array) -> jax.Array:
    """Products of rows (..., b) with the error, free of what the neuron's bias can do."""
    mean = values @ curvature / (jnp.sum(curvature) + _TINY)
    return values @ error - mean * jnp.sum(error)


def _norm(values: jax.Array, curvature: jax.Array) -> jax.Array:
    """Squared length of rows (..., b) under the curvature, free of what the neuron's bias can do."""
    total = jnp.sum(curvature) + _TINY
    mean = values @ curvature / total
    # Cancellation in float32 leaves about 1e-7 of the total.
    return jnp.maximum(values**2 @ curvature - total * mean**2, 1e-6 * total)


def _sample(key: jax.Array, power: jax.Array, greed: Any) -> jax.Array:
    """() position, drawn with probability in proportion to ``power**greed``; power 0 is never drawn."""
    return jnp.argmax(_perturbed(key, power, greed))


def _sample_distinct(key: jax.Array, power: jax.Array, count: int, greed: Any) -> jax.Array:
    """(count,) distinct positions; the first one is repeated where too few have any power."""
    scores, positions = jax.lax.top_k(_perturbed(key, power, greed), count)
    return jnp.where(jnp.isfinite(scores), positions, positions[:1])


def _perturbed(key: jax.Array, power: jax.Array, greed: Any) -> jax.Array:
    noise = jax.random.gumbel(key, power.shape, power.dtype)
    return jnp.where(power > 0, greed * jnp.log(jnp.maximum(power, _TINY)) + noise, -jnp.inf)
