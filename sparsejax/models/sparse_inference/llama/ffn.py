"""The gated FFN of a block: all neurons, or those that a predictor's scores choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.models.sparse_inference.calibration.compensation import Compensation, compensated
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.paths import predicted_ffn
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan, chosen
from sparsejax.models.sparse_inference.ffn.quantized import predicted_quantized_ffn, whole_quantized_ffn
from sparsejax.models.sparse_inference.llama.layers import Matrix
from sparsejax.models.sparse_inference.predictor.ahead import scores_of_layer
from sparsejax.ops.quantized import ROW_TILE, QuantizedFFN, QuantizedTensor
from sparsejax.ops.sparse_ffn import FFNWeights, dense_ffn, masked_ffn


class GatedWeights(NamedTuple):
    """The matrices of an FFN, each plain or quantised.

    Attributes:
      gate: (f, d).
      up: (f, d).
      down: (f, d), a neuron's numbers side by side; quantised (d, f), as in the file.
      b_gate: (f,) or None, likewise the rest.
      b_up: (f,).
      b_down: (d,).
    """

    gate: Matrix
    up: Matrix
    down: Matrix
    b_gate: jax.Array | None = None
    b_up: jax.Array | None = None
    b_down: jax.Array | None = None

    @property
    def neurons(self) -> int:
        """Their number."""
        return self.gate.shape[0]

    @property
    def is_plain(self) -> bool:
        """Whether no matrix is quantised."""
        return not any(isinstance(part, QuantizedTensor) for part in self)

    def quantised(self) -> QuantizedFFN:
        """The same as weights of `sparsejax.ops.quantized`, plain matrices among them."""
        return QuantizedFFN(self.up, self.down, self.gate, self.b_up, self.b_gate, self.b_down)  # type: ignore[arg-type]

    def narrowed(self, dtype: jax.typing.DTypeLike) -> GatedWeights:
        """The same with plain matrices of wider numbers cast; narrower ones are widened when read."""

        def cast(matrix: Matrix) -> Matrix:
            if isinstance(matrix, QuantizedTensor) or jnp.promote_types(matrix.dtype, dtype) == dtype:
                return matrix
            return matrix.astype(dtype)

        return self._replace(gate=cast(self.gate), up=cast(self.up), down=cast(self.down))

    def plain(self) -> FFNWeights:
        """The same as weights of `sparsejax.ops.sparse_ffn`."""
        return FFNWeights(self.up, self.down, self.gate, self.b_up, self.b_gate, self.b_down)  # type: ignore[arg-type]


@dataclass(frozen=True)
class SparseOptions:
    """How the blocks of a network select neurons, as a static argument.

    Attributes:
      sparsity: one per block; None computes all neurons.
      plan: of the selection; None is that of `default_plan`.
    """

    sparsity: tuple[SparsityConfig, ...] | None = None
    plan: FFNPlan | None = None

    def as_options(self) -> dict[str, Any]:
        """Arguments of `LlamaLM`."""
        return {"sparsity": self.sparsity, "plan": self.plan}


class Selection(NamedTuple):
    """How one block selects neurons.

    Attributes:
      predictor: of their scores.
      sparsity: how many of them; or a traced active fraction.
      plan: of the selection; None is that of `default_plan`, and with a traced fraction single neurons.
      fitted: added to what the selected neurons give, where they are not all; None for nothing.
    """

    predictor: Any
    sparsity: SparsityConfig | jax.Array
    plan: FFNPlan | None
    fitted: Compensation | None = None


def sparse_options(
    predictors: Any, active_fraction: Any, sparsity: Any, layers: int, plan: FFNPlan | None = None
) -> SparseOptions:
    """Static options of a network of so many blocks.

    Args:
      predictors: one per block, or None.
      active_fraction: above 0, at most 1, for all blocks or one each.
      sparsity: a `SparsityConfig` instead, for all blocks or one each.
      layers: blocks.
      plan: of the selection.

    Raises:
      ValueError: numbers that cannot be right; predictors without a number, or a number without predictors.

    Example:
      >>> sparse_options(None, None, None, 2)
      SparseOptions(sparsity=None, plan=None)
    """
    if (predictors is None) != (active_fraction is None and sparsity is None):
        raise ValueError("predictors and active_fraction (or sparsity) belong together; give both or none")
    if predictors is None:
        return SparseOptions(None, plan)
    _check_count("predictors", predictors, layers)
    if (active_fraction is None) == (sparsity is None):
        raise ValueError("give active_fraction or sparsity, only one of them")
    name = "sparsity" if active_fraction is None else "active_fraction"
    each = _each(name, sparsity if active_fraction is None else active_fraction, layers)
    return SparseOptions(tuple(_sparsity(entry) for entry in each), plan)


def per_layer(
    predictors: Sequence[Any] | Mapping[int, Any] | None,
    active_fraction: Any,
    sparsity: Any,
    plan: FFNPlan | None,
    fitted: Sequence[Any] | None,
    *,
    layers: int,
) -> list[Selection | None]:
    """The selection of each block; None where all neurons are computed.

    Args:
      predictors: one per block, None for a block that computes all; or a mapping from some blocks.
      active_fraction: number, traced number, or one per block.
      sparsity: a `SparsityConfig`, or one per block.
      plan: of the selection.
      fitted: one `Compensation` or None per block.
      layers: blocks.
    """
    if predictors is None:
        if active_fraction is not None or sparsity is not None:
            raise ValueError("active_fraction and sparsity need predictors, one per block")
        return [None] * layers
    if (active_fraction is None) == (sparsity is None):
        raise ValueError("predictors need active_fraction or sparsity, only one of them")
    _check_count("predictors", predictors, layers)
    if isinstance(predictors, Mapping):
        predictors = [predictors.get(number) for number in range(layers)]
    wanted = _each("active_fraction", active_fraction, layers) if sparsity is None else sparsity
    amounts = [_amount(amount) for amount in _each("sparsity", wanted, layers)]
    corrections = [None] * layers if fitted is None else _each("fitted", fitted, layers)
    return [
        None if predictor is None else Selection(predictor, amount, plan, correction)
        for predictor, amount, correction in zip(predictors, amounts, corrections, strict=True)
    ]


def feed_forward(
    inputs: jax.Array,
    weights: GatedWeights,
    activation: str,
    selection: Selection | None,
    earlier: Sequence[jax.Array] = (),
) -> jax.Array:
    """Outputs (b, t, d) of an FFN.

    Args:
      inputs: (b, t, d).
      weights: plain or quantised.
      activation: a name in `ACTIVATIONS` or `GATED_ACTIVATIONS`.
      selection: of the neurons; None, and a plan with the path "dense", compute all.
      earlier: inputs of the blocks before, which a `LookAhead` reads.
    """
    weights = weights.narrowed(inputs.dtype)
    if selection is None or (selection.plan is not None and selection.plan.path == "dense"):
        return (
            dense_ffn(inputs, weights.plain(), activation=activation)
            if weights.is_plain
            else whole_quantized_ffn(inputs, weights.quantised(), activation=activation)
        )
    scores = scores_of_layer(selection.predictor, (*earlier, inputs), len(earlier))
    plan = default_plan(weights) if selection.plan is None else selection.plan
    if isinstance(selection.sparsity, jax.Array):
        return _of_traced(inputs, weights, activation, scores, selection)
    options: dict[str, Any] = {"activation": activation, "plan": plan, "fitted": selection.fitted}
    if weights.is_plain:
        return predicted_ffn(inputs, weights.plain(), scores, selection.sparsity, **options)
    return predicted_quantized_ffn(inputs, weights.quantised(), scores, selection.sparsity, **options)


def default_plan(weights: GatedWeights) -> FFNPlan:
    """Single neurons of plain weights; tiles of quantised ones, which are read as a whole.

    Example:
      >>> default_plan(GatedWeights(*[jnp.ones((8, 4))] * 3)).block_size
      1
    """
    if not isinstance(weights.down, QuantizedTensor):
        return FFNPlan()
    return FFNPlan(block_size=ROW_TILE)


def _of_traced(
    inputs: jax.Array, weights: GatedWeights, activation: str, scores: jax.Array, selection: Selection
) -> jax.Array:
    """A traced fraction of the neurons: all are computed and masked."""
    plan = FFNPlan() if selection.plan is None else selection.plan
    mask = chosen(scores.reshape(-1, weights.neurons), selection.sparsity, plan).reshape(scores.shape)
    if weights.is_plain:
        outputs = masked_ffn(inputs, weights.plain(), mask, activation=activation)
    else:
        outputs = whole_quantized_ffn(inputs, weights.quantised(), activation=activation, mask=mask)
    if selection.fitted is None:
        return outputs
    return compensated(outputs, inputs, selection.fitted, mask)


def _amount(amount: Any) -> SparsityConfig | jax.Array:
    """A traced number as it is, anything else as a config."""
    is_traced = isinstance(amount, jax.core.Tracer) and amount.ndim == 0
    return amount if is_traced else _sparsity(amount)


def _sparsity(amount: Any) -> SparsityConfig:
    if isinstance(amount, SparsityConfig):
        return amount
    if jnp.ndim(amount) > 0:
        raise ValueError(
            "active_fraction must be one number for all blocks or a list of one each, not an array of shape "
            f"{jnp.shape(amount)}"
        )
    if not 0 < amount <= 1:
        raise ValueError(f"active_fraction must be above 0 and at most 1, not {amount}")
    return SparsityConfig.with_active_fraction(float(amount))


def _each(name: str, value: Any, layers: int) -> list[Any]:
    if not isinstance(value, list | tuple):
        return [value] * layers
    _check_count(name, value, layers)
    return list(value)


def _check_count(name: str, values: Any, layers: int) -> None:
    if isinstance(values, Mapping):
        if unknown := [number for number in values if number not in range(layers)]:
            raise ValueError(f"{name} name block {unknown[0]!r}; the network has blocks 0 to {layers - 1}")
    elif len(values) != layers:
        raise ValueError(f"{len(values)} {name} do not fit {layers} blocks; give one for each")
