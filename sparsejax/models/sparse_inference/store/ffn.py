"""FFN layers whose neurons live in a store: predict, bring, compute, and meanwhile bring the next layer's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sparsejax.models.sparse_inference.calibration.compensation import Compensation, compensated
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan, chosen
from sparsejax.models.sparse_inference.predictor.ahead import lag_of
from sparsejax.models.sparse_inference.store.compute import list_length, slot_outputs
from sparsejax.models.sparse_inference.store.neuron_store import Lease, NeuronStore
from sparsejax.models.sparse_inference.store.units import UnitLayout


class StoredFFN:
    """A stack of FFN layers of which only some neurons are on the device.

    The outputs are those of `predicted_ffn` with the same predictors and the same sparsity: what is cached
    or prefetched changes the time that they take and nothing else. The layers run one after the other,
    driven by the host, which must know the neurons to bring them: this cannot be part of a jitted function.

    What a `LookAhead` predictor says of a later layer is known early, and brought by another thread while the
    layers before it compute. Of other predictors, that of the next layer guesses from this layer's inputs
    what it will say of its own. Wrong guesses cost traffic, never accuracy.

    One caller at a time: a stack remembers what its predictors said of the layers to come.

    Args:
      store: of the layers.
      predictors: one per layer, anything with ``scores(inputs (n, d)) -> (n, f)`` that is a pytree; None for
        a layer that computes all neurons.
      sparsity: how many neurons, or from which score on; for all layers, or one each.
      activation: a name in `ACTIVATIONS` or, of gated FFNs, `GATED_ACTIVATIONS`.
      plan: blocks and hot neurons of the choice; single ones if None.
      fitted: one `Compensation` or None per layer, added to the outputs of tokens that compute some neurons.
      prefetch: whether neurons are brought ahead of use.

    Raises:
      ValueError: predictors, sparsities or compensations are not one per layer, or a predictor looks back to
        where there is no layer.

    Example:
      >>> from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor
      >>> from sparsejax.ops.sparse_ffn import FFNWeights
      >>> rng = np.random.default_rng(0)
      >>> draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
      >>> layers = [FFNWeights(draw(64, 8), draw(64, 8)) for _ in range(2)]
      >>> predictors = [LowRankPredictor(jnp.eye(8), layer.w_in) for layer in layers]
      >>> with NeuronStore.from_layers(layers, budget=2000) as store:
      ...     ffn = StoredFFN(store, predictors, SparsityConfig.with_top_k(6), activation="relu")
      ...     outputs = ffn(jnp.ones((1, 8)), residual=True)
      ...     outputs.shape, store.total_bytes, store.peak_device_bytes < 2000
      ((1, 8), 8192, True)

    Source: specs/sparse_inference.md section 12.6; Deja Vu (Liu et al. 2023) for looking one layer ahead.
    """

    def __init__(
        self,
        store: NeuronStore,
        predictors: Sequence[Any],
        sparsity: SparsityConfig | Sequence[SparsityConfig],
        *,
        activation: str = "gelu_tanh",
        plan: FFNPlan | None = None,
        fitted: Sequence[Compensation | None] | None = None,
        prefetch: bool = True,
    ):
        """See the class."""
        layers = len(store.layouts)
        self.fitted = (None,) * layers if fitted is None else tuple(fitted)
        self.sparsity = (sparsity,) * layers if isinstance(sparsity, SparsityConfig) else tuple(sparsity)
        of_layers = {"predictors": predictors, "fitted": self.fitted, "sparsities": self.sparsity}
        for name, given in of_layers.items():
            if len(given) != layers:
                raise ValueError(f"{len(given)} {name} do not fit {layers} layers")
        for number, predictor in enumerate(predictors):
            if lag_of(predictor) > number:
                raise ValueError(f"the predictor of layer {number} looks back to where there is no layer")
        self._foreseen: dict[int, np.ndarray] = {}
        self.store = store
        self.predictors, self.fitted = jax.device_put((tuple(predictors), self.fitted), store.device)
        self.activation, self.plan = activation, FFNPlan() if plan is None else plan
        self.prefetch = prefetch

    def __call__(self, inputs: Array, *, residual: bool = False) -> Array:
        """All layers, each on the outputs of the one before.

        Args:
          inputs: (*b, d).
          residual: add each layer's inputs to its outputs.

        Returns:
          (*b, o).

        Raises:
          ValueError: shapes that do not fit, or NaN scores.
          CheckpointError: the neurons cannot be read.
        """
        for number in range(len(self.predictors)):
            outputs = self.layer(number, inputs)
            inputs = inputs + outputs if residual else outputs
        return inputs

    def layer(self, number: int, inputs: Array) -> Array:
        """One layer; begins to bring the next one's neurons.

        Args:
          number: of the layer.
          inputs: (*b, d).

        Returns:
          (*b, o) in the dtype of ``inputs``.

        Raises:
          ValueError: shapes that do not fit, or NaN scores.
          CheckpointError: the neurons cannot be read.
        """
        layout = self.store.layouts[number]
        width = layout.fields[0].width
        if inputs.ndim == 0 or inputs.shape[-1] != width:
            raise ValueError(f"inputs of shape {inputs.shape} do not fit: (..., {width}) is needed")
        flat = inputs.reshape(-1, width)
        mask, ahead = self._choices(number, flat)
        neurons = np.arange(layout.neurons) if mask is None else np.flatnonzero(mask.any(axis=0))
        units, few, total = _units(neurons, layout), self.sparsity[number].count(layout.neurons), None
        with self.store.held(number):
            parts = self.store.parts(number, units)
            for place, part in enumerate(parts):
                last = place == len(parts) - 1
                with self.store.lease(number, part) as lease:
                    total = self._added(total, flat, lease, (part, mask), few=few, last=last)
        self.store.record(number, units)
        for following, wanted in ahead.items():
            used = np.flatnonzero(wanted.any(axis=0))
            self.store.prefetch(following, _units(used, self.store.layouts[following]))
        assert total is not None
        if (fitted := self.fitted[number]) is not None and mask is not None and not mask.all():
            total = compensated(total, flat, fitted, None if len(flat) == 1 else jnp.asarray(mask))
        return total.reshape(*inputs.shape[:-1], total.shape[-1])

    def _choices(self, number: int, flat: Array) -> tuple[np.ndarray | None, dict[int, np.ndarray]]:
        """The mask (n, f) of a layer's neurons, and by layer those to be brought ahead of use."""
        own, later = self.predictors[number], range(number + 1, len(self.predictors))
        lags = {layer: lag_of(self.predictors[layer]) for layer in later}
        foreseen = [layer for layer in later if lags[layer] == layer - number]
        guessed = [number + 1] if number + 1 in lags and self.prefetch and not lags[number + 1] else []
        scorers = {layer: self.predictors[layer] for layer in (*foreseen, *guessed)}
        if lag_of(own) == 0:
            scorers[number] = own
        elif number not in self._foreseen or len(self._foreseen[number]) != len(flat):
            raise ValueError(
                f"layer {number} needs what layer {number - lag_of(own)} reads; run that one first"
            )
        asked = [layer for layer, scorer in scorers.items() if scorer is not None]
        few = tuple(self.sparsity[layer] for layer in asked)
        answers = _masks([scorers[layer] for layer in asked], flat, few, self.plan)
        found = dict(zip(asked, jax.device_get(answers), strict=True))
        for layer, (_, broken) in found.items():
            if broken and layer not in guessed:
                raise ValueError(f"the scores of layer {layer} hold NaN; check the inputs and the predictor")
        masks = {layer: mask for layer, (mask, _) in found.items()}
        mask = masks.pop(number) if number in masks else self._foreseen.pop(number, None)
        self._foreseen |= {layer: masks[layer] for layer in foreseen}
        return mask, masks if self.prefetch else {}

    def _added(
        self,
        total: Array | None,
        flat: Array,
        lease: Lease,
        wanted: tuple[np.ndarray, np.ndarray | None],
        *,
        few: int | None,
        last: bool,
    ) -> Array:
        """The sum so far, with what these units of a layer add."""
        (units, mask), layout = wanted, lease.layout
        neurons = (units[:, None] * layout.unit + np.arange(layout.unit)).ravel()
        own = None if mask is None else mask[:, neurons]
        places = (lease.slots[:, None] * layout.unit + np.arange(layout.unit)).ravel()
        if own is not None and not layout.quantized:
            used = own.any(axis=0)
            places, own = places[used], own[:, used]
        exact = len(flat) == 1 and layout.unit == 1 and len(places) == few
        size = len(places) if exact else list_length(len(places), layout.unit)
        beyond = lease.arrays[0].shape[0] * layout.unit
        if total is not None or not last:  # parts of all lengths, for which few programs must do
            size = max(size, 1 << (len(places) - 1).bit_length()) if len(places) else size
            size = -(-size // layout.unit) * layout.unit
        places = np.pad(places, (0, size - len(places)), constant_values=beyond).astype(np.int32)
        if own is None or (len(flat) == 1 and not layout.quantized) or own.all():
            gates = None
        else:
            gates = np.pad(own, ((0, 0), (0, size - own.shape[1])))
        return slot_outputs(
            total,
            flat,
            lease.arrays,
            places,
            gates,
            bias=lease.bias,
            layout=layout,
            activation=self.activation,
            last=last,
        )


def _units(neurons: np.ndarray, layout: UnitLayout) -> np.ndarray:
    """The units that ascending neurons are in, ascending."""
    return neurons if layout.unit == 1 else np.unique(neurons // layout.unit)


@partial(jax.jit, static_argnames=("sparsity", "plan"))
def _masks(
    scorers: list[Any], flat: Array, sparsity: tuple[SparsityConfig, ...], plan: FFNPlan
) -> list[tuple[Array, Array]]:
    """By predictor, which neurons are chosen, and whether the scores hold NaN."""
    scores = [scorer.scores(flat) for scorer in scorers]
    return [
        (chosen(each, few, plan), jnp.isnan(each).any()) for each, few in zip(scores, sparsity, strict=True)
    ]
