"""What the training of a SPROUT network is put together from: network, optimiser, schedules, steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.models.sprout import SproutConfig, SproutLM
from sparsejax.models.sprout.schedule import (
    TopKSchedule,
    bucketed_sparsity_schedule,
    sparsity_schedule,
    traced_top_k,
)
from sparsejax.training import schedules
from sparsejax.training.cycled_adamw import cycled_adamw
from sparsejax.training.gradient_step import GradientState, called_steps, gradient_step, initial_state
from sparsejax.training.optimizer import NORMS_AND_BIASES, Group, adamw
from sparsejax.training.recipes.sprout.losses import MLM_LOSS, Objective
from sparsejax.training.recipes.sprout.settings import SproutSettings
from sparsejax.typing import Params

TrainingStep = Callable[[GradientState, Any, Any], tuple[GradientState, dict[str, jax.Array]]]
"""(state, batch, top_k) -> (state, record)."""


def network_config(settings: SproutSettings, vocab_size: int) -> SproutConfig:
    """The network that the settings describe."""
    of_first_version = settings.recipe == "compat" and settings.router == "linear"
    return SproutConfig(
        vocab_size=vocab_size,
        d_model=settings.d_model,
        d_ff=settings.d_ff,
        n_heads=settings.n_heads,
        n_layers=settings.n_layers,
        max_len=settings.max_seq_len,
        dropout=settings.dropout,
        router=settings.router,
        router_rank=settings.router_rank,
        block_size=settings.block_size,
        router_init="random" if of_first_version else "w_in",
        gradient_checkpointing=settings.gradient_checkpointing,
    )


def top_k_schedule(settings: SproutSettings) -> TopKSchedule:
    """Neurons per token by step; None is all."""
    kinds = {"traced": sparsity_schedule, "bucketed": bucketed_sparsity_schedule}
    return kinds[settings.schedule](
        settings.d_ff, settings.initial_top_k, settings.final_top_k, settings.sparsity_warmup_steps
    )


def rates(settings: SproutSettings, steps: int) -> Callable[[Any], dict[str, jax.Array]]:
    """What the optimiser is told at a step: its learning rate, and beta1 where that changes.

    Raises:
      ValueError: the warm-up is longer than the run.
    """
    if settings.recipe == "compat":
        cycle = schedules.onecycle(settings.learning_rate, warmup=settings.warmup_steps, steps=steps)
        return lambda step: dict(zip(("learning_rate", "beta1"), cycle(step), strict=True))
    rate = schedules.warmup_cosine(settings.learning_rate, warmup=settings.warmup_steps, steps=steps)
    return lambda step: {"learning_rate": jnp.asarray(rate(step))}


def optimizer(settings: SproutSettings, steps: int) -> optax.GradientTransformation:
    """AdamW: that of the published trainer, or one that spares norms, biases and positions from decay.

    Raises:
      ValueError: an impossible number.
    """
    clip = settings.gradient_clip or None
    if settings.recipe == "compat":
        cycle = schedules.onecycle(settings.learning_rate, warmup=settings.warmup_steps, steps=steps)
        return cycled_adamw(cycle, weight_decay=settings.weight_decay, max_norm=clip)
    return adamw(
        schedules.warmup_cosine(settings.learning_rate, warmup=settings.warmup_steps, steps=steps),
        weight_decay=settings.weight_decay,
        groups=(
            Group(r"/router/(.*/)?(scale|bias)$", rate=settings.router_lr_multiplier),
            Group("/router/", decays=True, rate=settings.router_lr_multiplier),
            Group("^position_embedding/"),
            NORMS_AND_BIASES,
        ),
        max_norm=clip,
    )


def training_step(objective: Objective, steps: int) -> TrainingStep:
    """One optimiser step, pure; jit it with a traced ``top_k``, or with a static one.

    Args:
      objective: what is minimised.
      steps: of the run in all.

    Returns:
      (state, batch, top_k) -> (state, record); the batch has ``tokens`` (b, t). The record's ``loss`` is the
      language model's alone.
    """
    chain = optimizer(objective.settings, steps)

    def step(state: GradientState, batch: Any, top_k: Any) -> tuple[GradientState, dict[str, jax.Array]]:
        loss = partial(objective.training_loss, top_k=top_k, step=state.step)
        state, record = gradient_step(loss, chain)(state, batch)
        record["loss"] = record.pop(MLM_LOSS)
        return state, record

    return step


def compiled_training_steps(
    objective: Objective, batches: Iterator[Any], placement: Any, *, start: int, steps: int
) -> Callable[[GradientState, int], tuple[GradientState, Any]]:
    """Steps for `sparsejax.training.loop.run_rounds`, compiled once, or once per number of neurons.

    Args:
      objective: what is minimised.
      batches: of the steps from ``start`` on.
      placement: tree of the state's shardings.
      start: first step.
      steps: of the run in all.
    """
    settings = objective.settings
    static = settings.schedule == "bucketed"
    compiled = jax.jit(
        training_step(objective, steps),
        donate_argnums=0,
        static_argnums=2 if static else (),
        out_shardings=(placement, None),
    )
    schedule = top_k_schedule(settings)
    top_k = schedule if static else traced_top_k(schedule, settings.d_ff)
    return called_steps(compiled, ((batch, top_k(start + n)) for n, batch in enumerate(batches)))


def first_state(config: SproutConfig, settings: SproutSettings, steps: int, key: jax.Array) -> GradientState:
    """The state before the first step; pure."""
    return initial_state(partial(initial_params, config), optimizer(settings, steps), key)


def initial_params(config: SproutConfig, key: jax.Array) -> Params:
    """Parameters to begin with; pure."""
    tokens: Any = jnp.zeros((1, 1), jnp.int32)
    params: Params = SproutLM(config).init(key, tokens)["params"]
    return params
