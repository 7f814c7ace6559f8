"""What the training of a Temporal Eigenstate Network is put together from: loss, optimiser, placement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from sparsejax.models.ten import TemporalEigenstateConfig, TemporalEigenstateNetwork, head_kernel
from sparsejax.models.ten.losses import energy_penalty
from sparsejax.training import schedules
from sparsejax.training.cross_entropy import CHUNK_TOKENS, TokenLoss, chunked_cross_entropy
from sparsejax.training.gradient_step import LossFunction
from sparsejax.training.optimizer import NORMS_AND_BIASES, Group, adamw
from sparsejax.training.recipes.ten.settings import TenSettings
from sparsejax.training.sharding import MODEL_AXIS, Rule
from sparsejax.typing import Params


def next_token_loss(
    config: TemporalEigenstateConfig,
    *,
    dtype: jax.typing.DTypeLike | None = None,
    train: bool,
    chunk_tokens: int = CHUNK_TOKENS,
) -> LossFunction:
    """Cross entropy of the next token, by `chunked_cross_entropy`.

    Args:
      config: of the network.
      dtype: of the computation; None is that of the parameters.
      train: with dropout and truncated gradients, if the config has them.
      chunk_tokens: tokens whose logits are held at a time.

    Returns:
      function (params, batch, key) -> `TokenLoss`; the batch has ``inputs``, ``targets`` and, unless every
      row is one document, ``segment_ids``, each (b, t).
    """
    model = TemporalEigenstateNetwork(config, dtype=dtype)

    def loss(params: Params, batch: dict[str, jax.Array], key: jax.Array) -> TokenLoss:
        hidden, _ = model.apply(
            {"params": params},
            batch["inputs"],
            segment_ids=batch.get("segment_ids"),
            train=train,
            rngs={"dropout": key} if train else None,
            method="hidden",
        )
        kernel = head_kernel(config, params)
        return chunked_cross_entropy(hidden, kernel, batch["targets"], chunk_tokens=chunk_tokens)

    return loss


def penalty(config: TemporalEigenstateConfig) -> Callable[[Params], jax.Array] | None:
    """The weighted regularisation of the published blocks, if the config has one."""
    if config.variant == "modern" or not config.energy_reg_weight:
        return None
    return lambda params: config.energy_reg_weight * energy_penalty(config, params)


def schedule(settings: TenSettings) -> optax.Schedule:
    """The learning rate by step.

    Raises:
      ValueError: the warm-up does not fit the run or the schedule.
    """
    if settings.schedule == "torch_cosine":
        if settings.warmup:
            raise ValueError("the schedule torch_cosine has no warm-up: leave --warmup away")
        return schedules.cosine_annealing(settings.learning_rate, steps=settings.steps)
    warmup = schedules.usual_warmup(settings.steps) if settings.warmup is None else settings.warmup
    kinds = {"cosine": schedules.warmup_cosine, "constant": schedules.warmup_constant}
    return kinds[settings.schedule](settings.learning_rate, warmup=warmup, steps=settings.steps)


def optimizer(settings: TenSettings, config: TemporalEigenstateConfig) -> optax.GradientTransformation:
    """AdamW with the groups of this family.

    Raises:
      ValueError: an impossible number.
    """
    return adamw(
        schedule(settings),
        weight_decay=settings.weight_decay,
        decay=settings.decay,
        groups=groups(config, settings.eigenvalue_rate),
        max_norm=settings.clip or None,
    )


def groups(config: TemporalEigenstateConfig, eigenvalue_rate: float = 1.0) -> tuple[Group, ...]:
    """Parameters that are no weights: eigenvalues, positions, norms, biases; and those that never train.

    Example:
      >>> [group.pattern for group in groups(TemporalEigenstateConfig())][1]
      '(^|/)(decay_logit|frequency)$'
    """
    fixed = "band_gates|position_embedding" if config.pos_emb_type == "sinusoidal" else "band_gates"
    return (
        Group(f"(^|/)({fixed})/", rate=0.0),
        Group("(^|/)(decay_logit|frequency)$", rate=eigenvalue_rate),
        Group("(^|/)(position_embedding/embedding|memory_gate|coupling_scale)$"),
        NORMS_AND_BIASES,
    )


def sharding_rules(config: TemporalEigenstateConfig, parts: int) -> Sequence[Rule]:
    """Tensor parallelism: pairs of matrices cut along their hidden side, the token table along its rows.

    The table stays whole where the vocabulary does not divide. So do eigenstates: they are few, and coupled.

    Args:
      config: of the network.
      parts: that matrices are cut into.
    """
    columns, rows = PartitionSpec(None, MODEL_AXIS), PartitionSpec(MODEL_AXIS, None)
    rules = [
        Rule(r"(ffn_in|attention/(query|key|value))/kernel$", columns),
        Rule(r"(ffn_in|attention/(query|key|value))/bias$", PartitionSpec(MODEL_AXIS)),
        Rule(r"(ffn_out|attention/out)/kernel$", rows),
    ]
    if config.vocab_size % parts == 0:
        rules += [Rule("token_embedding/embedding$", rows), Rule("head/kernel$", columns)]
    return rules


def initial_params(config: TemporalEigenstateConfig, key: jax.Array) -> Params:
    """Parameters to begin with; pure."""
    tokens: Any = jnp.zeros((1, 1), jnp.int32)
    params: Params = TemporalEigenstateNetwork(config).init(key, tokens)["params"]
    return params
