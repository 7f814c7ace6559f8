"""A SPROUT network trained for every number of neurons at once, of its own choice and in whole blocks.

Part of each batch is computed by all neurons, part by the best ones, part by the best blocks of them, with
shares drawn anew at every step, so that one network serves all of them. On the way its neurons are put in an
order in which blocks act together; its routers learn the strengths of neurons all along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sprout import SproutConfig, SproutLM
from sparsejax.models.sprout.mlm import MaskingRule, mask_tokens, mlm_loss
from sparsejax.models.sprout.oracle import activations, oracle_scores
from sparsejax.models.sprout.permute import layer_strengths, permute_neurons
from sparsejax.models.sprout.routing import pooled
from sparsejax.ops.sparse_ffn.coactivation import coactivation_order
from sparsejax.training.cross_entropy import TokenLoss
from sparsejax.training.gradient_step import GradientState, called_steps, gradient_step, start_state
from sparsejax.training.optimizer import adamw
from sparsejax.training.schedules import warmup_cosine
from sparsejax.typing import Params

SHARES = (0.5, 0.25, 0.1)
"""Of the neurons, beside all of them."""

_WAVELENGTHS = 1000.0  # the longest of the first position table over the shortest, two tokens
_POSITION, _TOKEN = 0.4, 0.3  # of the first tables' entries: as large as what the layers add to them
_SHARPNESS = 1.5  # of the first heads
_OFFSETS = (-1, 1, -2, 2, -3, 3, -4, 4)  # that they look at


@dataclass(frozen=True)
class Sandwich:
    """How a network is trained.

    Attributes:
      steps: optimiser steps.
      batch_size: rows; a multiple of 4: one quarter dense, one by neurons, two by blocks.
      learning_rate: highest.
      warmup: steps until it is reached.
      permuted_at: the step before which neurons are reordered; until then no block is selected.
      router_weight: of the routers' loss.
      weight_decay: of matrices.
      seed: of everything random.
    """

    steps: int = 1600
    batch_size: int = 16
    learning_rate: float = 2.5e-3
    warmup: int = 80
    permuted_at: int = 300
    router_weight: float = 1.0
    weight_decay: float = 0.02
    seed: int = 0


def trained(
    config: SproutConfig,
    settings: Sandwich,
    rows: np.ndarray,
    rule: MaskingRule,
    *,
    told: Callable[[int, float], None] | None = None,
) -> Params:
    """Parameters of a network trained on text.

    Args:
      config: of the network; its router has a score per neuron.
      settings: of the training.
      rows: (n, t) ids of the text, without padding.
      rule: what is masked.
      told: called with the number of steps done and the mean masked loss of the last ones.
    """
    key = jax.random.key(settings.seed)
    optimizer = adamw(
        warmup_cosine(settings.learning_rate, warmup=settings.warmup, steps=settings.steps),
        weight_decay=settings.weight_decay,
        betas=(0.9, 0.98),
        max_norm=1.0,
    )
    of_params, of_run = jax.random.split(key)
    state = start_state(of_run, first_params(config, of_params), optimizer)
    batches = _batches(config, settings, rows)
    for path, stop in (("masked", settings.permuted_at), ("block", settings.steps)):
        if path == "block":
            state = reordered(config, state, rows[:: max(1, len(rows) // 64)][:64])
        loss = partial(sandwich_loss, config, rule, path=path, router_weight=settings.router_weight)
        compiled = jax.jit(gradient_step(loss, optimizer), donate_argnums=0)
        steps = called_steps(compiled, ((batch,) for batch in batches))
        while (done := int(state.step)) < stop:
            state, records = steps(state, min(50, stop - done))
            if told is not None:
                told(int(state.step), float(records["mlm_loss"].mean()))
    params: Params = state.params
    return params


def sandwich_loss(
    config: SproutConfig,
    rule: MaskingRule,
    params: Params,
    batch: Any,
    key: jax.Array,
    *,
    path: str,
    router_weight: float,
) -> TokenLoss:
    """Loss of a batch: a quarter dense, a quarter by neurons, the rest by ``path``; and the routers' loss.

    Args:
      config: of the network.
      rule: what is masked.
      params: of the network.
      batch: ``tokens`` (b, t), and ``top_k`` (2,) of the neurons' quarter and of the rest.
      key: PRNG key.
      path: "block", or "masked" as long as blocks mean nothing.
      router_weight: of the routers' loss.
    """
    model = SproutLM(config)
    read, labels = mask_tokens(key, batch["tokens"], rule)
    quarter = len(read) // 4
    parts: tuple[Any, ...] = (
        (read[:quarter], {"top_k": config.d_ff}),
        (read[quarter : 2 * quarter], {"top_k": batch["top_k"][0], "path": "masked"}),
        (read[2 * quarter :], {"top_k": batch["top_k"][1], "path": path}),
    )
    logits, routers = [], jnp.zeros(())
    for tokens, options in parts:
        out, found = model.apply({"params": params}, tokens, mutable=["intermediates"], **options)
        logits.append(out.logits)
        part = len(tokens) / len(read)
        routers += part * _router_loss(config, params, found["intermediates"])
    mean, count = mlm_loss(jnp.concatenate(logits), labels)
    return TokenLoss((mean + router_weight * routers) * count, count, {"mlm_loss": mean * count})


def _router_loss(config: SproutConfig, params: Params, found: Any) -> jax.Array:
    """Squared error of scores as strengths, of neurons and of blocks alike; gradients reach routers alone.

    A linear router that predicts strengths best predicts their means over blocks best, too.
    """
    losses = []
    for number in range(config.n_layers):
        name = f"layer_{number}"
        inputs = jax.lax.stop_gradient(found[name]["ffn"]["ffn_in"][0])
        fixed = jax.lax.stop_gradient(params[name]["ffn"])
        strengths = oracle_scores(activations(config.ffn, fixed, inputs))
        error = inputs @ params[name]["ffn"]["router"]["kernel"] - strengths
        of_blocks = config.block_size * (pooled(error, config.block_size) ** 2).mean()
        losses.append((error**2).mean() + of_blocks)
    return jnp.stack(losses).mean()


def reordered(config: SproutConfig, state: GradientState, tokens: np.ndarray) -> GradientState:
    """The state with neurons in an order in which blocks act together on ``tokens`` (b, t); same function."""
    strengths = layer_strengths(SproutLM(config), state.params, jnp.asarray(tokens))
    orders = np.stack([coactivation_order(layer, config.block_size) for layer in np.asarray(strengths)])

    def moved(tree: Any) -> Any:
        return permute_neurons(tree, orders) if isinstance(tree, dict) else tree

    moments = jax.tree.map(moved, state.optimizer, is_leaf=lambda tree: isinstance(tree, dict))
    return GradientState(state.step, moved(state.params), moments, state.key)


def first_params(config: SproutConfig, key: jax.Array) -> Params:
    """Parameters to begin with: heads that look at neighbours, which would take most of a short training.

    Positions start as sines, so that looking aside is a rotation; a head's first matrices are such rotations.
    """
    params = SproutLM(config).init(key, jnp.zeros((1, 1), jnp.int32))["params"]
    half = config.d_model // 2
    frequency = np.pi / _WAVELENGTHS ** (np.arange(half) / half)
    angle = np.arange(config.max_len)[:, None] * frequency
    positions = _POSITION * np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    table = params["token_embedding"]["embedding"]
    params = {
        **params,
        "token_embedding": {"embedding": table * (_TOKEN / table.std())},
        "position_embedding": {"embedding": jnp.asarray(positions, jnp.float32)},
    }
    for number in range(config.n_layers):
        name = f"layer_{number}"
        attention = dict(params[name]["attention"])
        offsets = np.roll(_OFFSETS, -number * config.n_heads)[: config.n_heads]
        for part, shifts in (("query", offsets), ("key", np.zeros(config.n_heads))):
            first = _SHARPNESS * _rotations(config, frequency, shifts)
            attention[part] = {**attention[part], "kernel": first + 0.1 * attention[part]["kernel"]}
        params[name] = {**params[name], "attention": attention}
    return params


def _rotations(config: SproutConfig, frequency: np.ndarray, offsets: np.ndarray) -> jax.Array:
    """Kernel (d, d) whose heads read the fastest sines, moved by their offsets."""
    half, width = config.d_model // 2, config.d_model // config.n_heads
    pairs = np.arange(width // 2)
    kernel = np.zeros((config.d_model, config.n_heads, width))
    for head, offset in enumerate(offsets):
        turn = frequency[pairs] * offset
        sines, cosines = pairs, half + pairs  # rows of the kernel
        first, second = pairs, len(pairs) + pairs  # columns of the head
        kernel[sines, head, first] = kernel[cosines, head, second] = np.cos(turn)
        kernel[cosines, head, first], kernel[sines, head, second] = np.sin(turn), -np.sin(turn)
    return jnp.asarray(kernel.reshape(config.d_model, config.d_model), jnp.float32)


def _batches(config: SproutConfig, settings: Sandwich, rows: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    rng, size = np.random.default_rng(settings.seed), settings.batch_size
    counts = [max(1, int(share * config.d_ff)) for share in (*SHARES, SHARES[-1])]  # the hardest one twice
    while True:
        order = rng.permutation(len(rows))
        for start in range(0, len(rows) - size + 1, size):
            picked = order[start : start + size]
            yield {"tokens": rows[picked], "top_k": rng.choice(counts, 2).astype(np.int32)}
