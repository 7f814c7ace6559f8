"""What the training of a force field is put together from: network, loss, optimiser, learning rate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from sparsejax.models.force_field import ForceFieldConfig, StudentForceField
from sparsejax.models.force_field.batches import LabelledBatch, loss_masks
from sparsejax.models.force_field.inputs import example_graph
from sparsejax.models.force_field.losses import ForceFieldLoss, LossMasks, Quantities, force_field_loss
from sparsejax.models.force_field.prediction import predict_graph
from sparsejax.training import schedules
from sparsejax.training.cross_entropy import TokenLoss
from sparsejax.training.ema import average_of, averaged
from sparsejax.training.gradient_step import GradientState, LossFunction, Step, gradient_step, initial_state
from sparsejax.training.optimizer import Group, adamw
from sparsejax.training.recipes.force_field.settings import ForceFieldSettings
from sparsejax.typing import Params

_WARMUP = 1000  # as published
_PER_ATOM_WEIGHT = 1000.0  # on small molecules, half the energy error of 100 for an eighth more in forces
_ANGULAR_FLOOR = 1e-2  # eV/A
_START_RATE = _LOWEST_RATE = 1e-7  # as published


def network_config(settings: ForceFieldSettings, species: tuple[int, ...]) -> ForceFieldConfig:
    """The network that is trained; reference energies are added when it is written.

    Args:
      settings: of the run.
      species: atomic numbers of the training structures.

    Raises:
      ValueError: an impossible size.
    """
    return ForceFieldConfig(
        hidden_dim=settings.hidden_dim,
        num_interactions=settings.num_interactions,
        num_rbf=settings.num_rbf,
        cutoff=settings.cutoff,
        max_z=settings.max_z,
        learnable_rbf=settings.learnable_rbf,
        variant=settings.variant or ("cartesian" if settings.recipe == "compat" else "equivariant"),
        species=species,
    )


def loss_settings(settings: ForceFieldSettings) -> ForceFieldLoss:
    """What is minimised.

    Raises:
      ValueError: a negative weight.
    """
    compat = settings.recipe == "compat"
    weight = settings.energy_weight
    return ForceFieldLoss(
        energy_weight=(1.0 if compat else _PER_ATOM_WEIGHT) if weight is None else weight,
        force_weight=settings.force_weight,
        stress_weight=settings.stress_weight,
        angular_weight=settings.angular_weight,
        energy_loss_type=settings.loss_type,
        force_loss_type=settings.loss_type,
        stress_loss_type=settings.loss_type,
        huber_delta=settings.huber_delta,
        **({"energy": "total"} if compat else {"energy": "per_atom", "angular_floor": _ANGULAR_FLOOR}),
    )


def predicted(
    config: ForceFieldConfig, params: Params, batch: LabelledBatch, *, stress: bool
) -> tuple[Quantities, Quantities, LossMasks]:
    """What the network says of a batch, the labels, and what is real.

    Args:
      config: of the network.
      params: of `StudentForceField`.
      batch: with a first axis of shards, or without.
      stress: predict it.

    Returns:
      predictions, labels and masks of all shards together, without that axis.
    """
    answer = partial(predict_graph, config, params, stress=stress)
    shards = batch.graph.n_node.ndim == 2
    found = jax.vmap(answer)(batch.graph) if shards else answer(batch.graph)
    values: Quantities = {"energy": found.energy, "forces": found.forces, "stress": found.stress}
    labels: Any = batch.labels
    parts = values, labels, loss_masks(batch.graph)
    return jax.tree.map(_merged, parts) if shards else parts


def batch_loss(config: ForceFieldConfig, loss: ForceFieldLoss, *, stress: bool) -> LossFunction:
    """Loss of a batch, for `gradient_step`: parts of an accumulated batch weigh alike, as published.

    Args:
      config: of the network.
      loss: settings.
      stress: learn it.
    """

    def of_batch(params: Params, batch: LabelledBatch, key: Array) -> TokenLoss:
        del key
        found, labels, masks = predicted(config, params, batch, stress=stress)
        total, metrics = force_field_loss(found, labels, loss, masks)
        return TokenLoss(total, jnp.ones(()), metrics)

    return of_batch


def training_step(
    config: ForceFieldConfig,
    loss: ForceFieldLoss,
    chain: optax.GradientTransformation,
    *,
    stress: bool,
    accumulate: int = 1,
) -> Step:
    """One optimiser step, pure.

    Args:
      config: of the network.
      loss: settings.
      chain: from `optimizer`.
      stress: learn it.
      accumulate: parts that the first axis of a batch is cut into.

    Returns:
      (state, batch) -> (state, record); the record has the metrics of `force_field_loss`, its total as
      ``loss``, and ``gradient_norm``.
    """
    step = gradient_step(batch_loss(config, loss, stress=stress), chain, accumulate=accumulate)

    def recorded(state: GradientState, batch: Any) -> tuple[GradientState, dict[str, Array]]:
        state, record = step(state, batch)
        del record["tokens"], record["total"]
        return state, record

    return recorded


class Rates(NamedTuple):
    """Learning rates of a run.

    Attributes:
      schedule: for the optimiser.
      at: by step, on the host; of compat to the last digit of float64.
    """

    schedule: optax.Schedule
    at: Callable[[int], float]


def rates(settings: ForceFieldSettings, steps_per_epoch: int) -> Rates:
    """Warm-up by step and cosine: by epoch as published in compat, else by step.

    Args:
      settings: of the run.
      steps_per_epoch: batches of an epoch.

    Raises:
      ValueError: the warm-up is negative or, but in compat, longer than the run.
    """
    steps, warmup = steps_per_epoch * settings.epochs, settings.warmup_steps
    if settings.recipe == "compat":
        table = schedules.epoch_cosine(
            settings.lr,
            warmup=_WARMUP if warmup is None else warmup,
            steps_per_epoch=steps_per_epoch,
            epochs=settings.epochs,
            start=_START_RATE,
            minimum=_LOWEST_RATE,
        )
        return Rates(schedules.tabulated(table), lambda step: float(table[step]))
    warmup = min(_WARMUP, steps // 10) if warmup is None else warmup
    schedule = schedules.warmup_cosine(settings.lr, warmup=warmup, steps=steps)
    compiled = jax.jit(schedule)
    return Rates(schedule, lambda step: float(compiled(step)))


def optimizer(
    settings: ForceFieldSettings, config: ForceFieldConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """AdamW with clipping, decay of kernels only (of all in compat), and the average of the network.

    Args:
      settings: of the run.
      config: of the network.
      schedule: of the learning rate.

    Raises:
      ValueError: an impossible number.
    """
    chain = adamw(
        schedule,
        weight_decay=settings.weight_decay,
        decay="all" if settings.recipe == "compat" else "weights",
        groups=groups(config),
        max_norm=settings.grad_clip or None,
    )
    return optax.chain(chain, averaged(decay)) if (decay := average_decay(settings)) else chain


def groups(config: ForceFieldConfig) -> tuple[Group, ...]:
    """What never moves, and what is not decayed.

    The radial functions stay unless they are to be learned, and so does the last mixing matrix, which no
    energy depends on: torch, too, passes over parameters that have no gradient.

    Example:
      >>> [group.pattern for group in groups(ForceFieldConfig())][0]
      '(^|/)interaction_2/update/mixing$'
    """
    still = Group(rf"(^|/)interaction_{config.num_interactions - 1}/update/mixing$", rate=0.0)
    radial = Group("(^|/)rbf/", rate=1.0 if config.learnable_rbf else 0.0)
    return (still, radial, Group("(^|/)(bias|embedding)$"))


def average_decay(settings: ForceFieldSettings) -> float:
    """How much of the averaged network a step keeps; 0 for none."""
    if settings.ema is not None:
        return settings.ema
    return 0.0 if settings.recipe == "compat" else 0.999


def network_of(settings: ForceFieldSettings, state: GradientState) -> Params:
    """The parameters to validate and to write: averaged, if they are."""
    params: Params = average_of(state.optimizer) if average_decay(settings) else state.params
    return params


def first_state(config: ForceFieldConfig, chain: optax.GradientTransformation, key: Array) -> GradientState:
    """The state before the first step; pure."""

    def init(key: Array) -> Params:
        params: Params = StudentForceField(config).init(key, example_graph(config))["params"]
        return params

    return initial_state(init, chain, key)


def _merged(leaf: Array) -> Array:
    """Without the first axis, whose parts follow each other."""
    return leaf.reshape(-1, *leaf.shape[2:])
