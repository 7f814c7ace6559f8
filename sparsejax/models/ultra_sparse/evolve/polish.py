"""Weights refined at fixed inputs: Levenberg-Marquardt for squared error, L-BFGS for cross entropy."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.tree_utils as otu

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.objective import Objective, evaluate, loss_of
from sparsejax.models.ultra_sparse.evolve.search import check_fit
from sparsejax.models.ultra_sparse.layers import activate
from sparsejax.typing import Params

_FIRST_DAMPING = 1e-3
_LESS_DAMPING, _MORE_DAMPING = 1 / 3, 4.0
_DAMPING_RANGE = (1e-12, 1e8)


class PolishResult(NamedTuple):
    """A refined net.

    Attributes:
      params: its parameters; the index table is the one that came in.
      loss: () loss on the goal's rows, without the ridge.
      max_weight: () largest absolute weight or bias; large values lose digits in float32.
      history: (steps,) loss plus ridge after every step.
    """

    params: Params
    loss: jax.Array
    max_weight: jax.Array
    history: jax.Array


def polish(
    key: jax.Array,
    config: UltraSparseConfig,
    params: Params,
    goal: Objective,
    *,
    steps: int = 200,
    ridge: float = 1e-9,
    jitter: float = 0.0,
) -> PolishResult:
    """Minimise ``loss + ridge * sum(weights**2)`` over weights and biases; the index table stays.

    Under "mse" the sum never rises: a step that does not lower it is dropped. Computation follows the dtype
    of the goal, so float64 needs ``jax.enable_x64(True)`` around both. Pure: `jax.vmap` it over keys and
    params.

    Args:
      key: PRNG key of the jitter.
      config: one sparse tanh layer under a dense tanh or linear head.
      params: where to start.
      goal: batch and loss; rows of weight 0 change nothing.
      steps: Levenberg-Marquardt steps (one p x p solve each) under "mse", L-BFGS steps under
        "cross_entropy".
      ridge: price of squared weights, in units of the loss.
      jitter: standard deviation of normal noise on the start; lets chains from one net part, and neurons
        that read the same inputs with the same weights.

    Returns:
      `PolishResult`.

    Raises:
      ValueError: another stack, a batch that does not fit the net, or no steps.

    Example:
      >>> from sparsejax.models.ultra_sparse.evolve.objective import objective
      >>> from sparsejax.models.ultra_sparse.model import UltraSparseNet
      >>> x = jnp.linspace(-1, 1, 50)[:, None]
      >>> config = UltraSparseConfig.fixed_k(1, 4, 1, 1, "linear")
      >>> params = jax.jit(UltraSparseNet(config).init)(jax.random.key(0), x)["params"]
      >>> result = polish(jax.random.key(1), config, params, objective(x, x**2), jitter=0.1)
      >>> bool(result.loss < 1e-4)
      True

    Source: Marquardt, J. SIAM 11 (1963) 431, with damping scaled by the diagonal; L-BFGS of optax.
    """
    check_stack(config)
    check_fit(config, goal)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    return _polish(key, config, params, goal, steps=steps, ridge=ridge, jitter=jitter)


@partial(jax.jit, static_argnames=("config", "steps"))
def _polish(
    key: jax.Array,
    config: UltraSparseConfig,
    params: Params,
    goal: Objective,
    *,
    steps: int,
    ridge: Any,
    jitter: Any,
) -> PolishResult:
    indices = params["layer_0"]["indices"]
    flat = flatten(params).astype(goal.features.dtype)
    flat = flat + jitter * jax.random.normal(key, flat.shape, flat.dtype)
    flat, history = descend(config, indices, flat, goal, steps=steps, ridge=ridge)
    refined = unflatten(config, indices, flat)
    return PolishResult(refined, evaluate(config, refined, goal), jnp.max(jnp.abs(flat)), history)


def check_stack(config: UltraSparseConfig) -> None:
    """Refuse every stack but one sparse tanh layer under a dense tanh or linear head."""
    kinds = [(layer.kind, layer.activation) for layer in config.layers]
    plain = all(layer.weights == "float" and not layer.variable_fan_in for layer in config.layers)
    hidden, head = ("sparse", "tanh"), (("dense", "tanh"), ("dense", "linear"))
    if plain and len(kinds) == 2 and kinds[0] == hidden and kinds[1] in head:
        return
    raise ValueError(
        f"layers {config.layers}: polishing needs one sparse tanh layer with a fixed number of float inputs "
        "and a dense tanh or linear head; build it with UltraSparseConfig.fixed_k"
    )


def flatten(params: Params) -> jax.Array:
    """(p,) weights and biases: slots (h, k), hidden biases (h,), kernel (h, o), output biases (o,)."""
    hidden, head = params["layer_0"], params["layer_1"]
    parts = (hidden["weights"], hidden["bias"], head["kernel"], head["bias"])
    return jnp.concatenate([jnp.ravel(part) for part in parts])


def unflatten(config: UltraSparseConfig, indices: jax.Array, flat: jax.Array) -> Params:
    """The net whose `flatten` is ``flat``."""
    slots, bias, kernel, head = _parts(config, flat)
    return {
        "layer_0": {"indices": indices, "weights": slots, "bias": bias},
        "layer_1": {"kernel": kernel, "bias": head},
    }


def descend(
    config: UltraSparseConfig,
    indices: jax.Array,
    flat: jax.Array,
    goal: Objective,
    *,
    steps: int,
    ridge: Any,
) -> tuple[jax.Array, jax.Array]:
    """The loop of `polish` on flat weights (p,): refined weights, (steps,) ridged losses."""
    inputs = goal.features[indices]
    method = _levenberg_marquardt if goal.loss == "mse" else _lbfgs
    return method(config, inputs, flat, goal, steps=steps, ridge=ridge)


def _levenberg_marquardt(
    config: UltraSparseConfig, inputs: jax.Array, flat: jax.Array, goal: Objective, *, steps: int, ridge: Any
) -> tuple[jax.Array, jax.Array]:
    scale = jnp.sqrt(goal.row_weights / config.output_size)

    def cost(flat: jax.Array) -> jax.Array:
        _, outputs = _forward(config, inputs, flat)
        return jnp.sum((scale * (outputs - goal.targets)) ** 2) + ridge * jnp.sum(flat**2)

    def step(carry: tuple, _: None) -> tuple[tuple, jax.Array]:
        flat, value, damping = carry
        residuals, jacobian = _linearise(config, inputs, flat, goal, scale)
        normal = jacobian @ jacobian.T + ridge * jnp.eye(len(flat), dtype=flat.dtype)
        gradient = jacobian @ residuals + ridge * flat
        diagonal = jnp.diagonal(normal)
        # A slot without effect has a zero diagonal: the floor keeps the matrix positive definite.
        damped = normal + jnp.diag(damping * jnp.maximum(diagonal, 1e-6 * jnp.max(diagonal)))
        factor = jax.scipy.linalg.cho_factor(damped, lower=True)
        trial = flat - jax.scipy.linalg.cho_solve(factor, gradient)
        trial_value = cost(trial)
        # A failed factorisation gives NaN, which is not better either: more damping next time.
        better = trial_value < value
        flat, value = jnp.where(better, trial, flat), jnp.where(better, trial_value, value)
        damping = jnp.clip(damping * jnp.where(better, _LESS_DAMPING, _MORE_DAMPING), *_DAMPING_RANGE)
        return (flat, value, damping), value

    start = (flat, cost(flat), jnp.asarray(_FIRST_DAMPING, flat.dtype))
    (flat, _, _), history = jax.lax.scan(step, start, None, length=steps)
    return flat, history


def _linearise(
    config: UltraSparseConfig, inputs: jax.Array, flat: jax.Array, goal: Objective, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Weighted residuals (o * b,) and their Jacobian, transposed: (p, o * b)."""
    _, _, kernel, _ = _parts(config, flat)
    hidden, outputs = _forward(config, inputs, flat)
    slope = scale * (1 - outputs**2 if config.layers[1].activation == "tanh" else jnp.ones_like(outputs))
    to_bias = kernel[:, :, None] * (1 - hidden**2)[:, None] * slope
    to_slots = to_bias[:, None] * inputs[:, :, None]
    own = jnp.eye(config.output_size, dtype=flat.dtype)[:, :, None] * slope
    to_kernel = hidden[:, None, None] * own
    width = outputs.size
    blocks = [block.reshape(-1, width) for block in (to_slots, to_bias, to_kernel, own)]
    return (scale * (outputs - goal.targets)).ravel(), jnp.concatenate(blocks)


def _lbfgs(
    config: UltraSparseConfig, inputs: jax.Array, flat: jax.Array, goal: Objective, *, steps: int, ridge: Any
) -> tuple[jax.Array, jax.Array]:
    def cost(flat: jax.Array) -> jax.Array:
        _, outputs = _forward(config, inputs, flat)
        return loss_of(outputs, goal) + ridge * jnp.sum(flat**2)

    # Backtracking compiles in a third of the time of optax's default line search and ends as low here.
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=15, store_grad=True)
    solver = optax.lbfgs(linesearch=search)

    def step(carry: tuple, _: None) -> tuple[tuple, jax.Array]:
        flat, state = carry
        value, gradient = optax.value_and_grad_from_state(cost)(flat, state=state)
        updates, state = solver.update(gradient, state, flat, value=value, grad=gradient, value_fn=cost)
        return (optax.apply_updates(flat, updates), state), otu.tree_get(state, "value")

    (flat, _), history = jax.lax.scan(step, (flat, solver.init(flat)), None, length=steps)
    return flat, history


def _forward(config: UltraSparseConfig, inputs: jax.Array, flat: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Hidden activations (h, b) and outputs (o, b) from the inputs (h, k, b) that the slots read."""
    slots, bias, kernel, head = _parts(config, flat)
    hidden = jnp.tanh(jnp.sum(slots[:, :, None] * inputs, axis=1) + bias[:, None])
    return hidden, activate(kernel.T @ hidden + head[:, None], config.layers[1].activation)


def _parts(config: UltraSparseConfig, flat: jax.Array) -> tuple[jax.Array, ...]:
    """Slots (h, k), hidden biases (h,), kernel (h, o) and output biases (o,) of a flat vector."""
    h, k, o = config.layers[0].features, config.layers[0].fan_in or 0, config.output_size
    slots, bias, kernel, head = jnp.split(flat, (h * k, h * k + h, h * k + h + h * o))
    return slots.reshape(h, k), bias, kernel.reshape(h, o), head
