"""A decoder whose neurons live in a store: the rest is on the device, and runs block by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.models.sparse_inference.calibration.compensation import Compensation
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.ffn import GatedWeights, default_plan, sparse_options
from sparsejax.models.sparse_inference.llama.layers import lookup, rms_norm
from sparsejax.models.sparse_inference.llama.model import LlamaBlock, LlamaLM, LlamaOutput, Reading
from sparsejax.models.sparse_inference.llama.rope import rotation
from sparsejax.models.sparse_inference.llama.source import model_and_params
from sparsejax.models.sparse_inference.llama.state import LlamaState, bucket
from sparsejax.models.sparse_inference.store.cache_statistics import CacheStatistics
from sparsejax.models.sparse_inference.store.ffn import StoredFFN
from sparsejax.models.sparse_inference.store.neuron_store import NeuronStore
from sparsejax.ops.sparse_ffn import FFNWeights
from sparsejax.typing import Params

_FFN = ("ffn_gate", "ffn_up", "ffn_down")


class StoredLlama:
    """A `LlamaLM` whose FFN layers are a `StoredFFN`.

    Logits and states are those of the network with the same predictors. Whoever builds it from parameters in
    host memory never has more of the FFNs on the device than the store's budget. `generate` takes it in place
    of a checkpoint; as a context manager it closes the store.

    Args:
      model: the network.
      params: of the network; those of the FFNs are not looked at.
      ffn: its FFN layers, from `llama_ffn_layers`, with the activation of ``model.config``.
      metadata: of the file, for its tokenizer.

    Raises:
      ValueError: another number of layers or another activation.

    Example:
      >>> from sparsejax.models.sparse_inference.config import SparsityConfig
      >>> from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor
      >>> from sparsejax.models.sparse_inference.store.neuron_store import NeuronStore
      >>> config = LlamaConfig(vocab_size=32, d_model=16, d_ff=64, n_layers=1, n_heads=2, activation="relu")
      >>> model, tokens = LlamaLM(config), jnp.arange(3)[None]
      >>> params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
      >>> layers = llama_ffn_layers(config, params)
      >>> predictors, few = [LowRankPredictor(jnp.eye(16), layers[0].w_gate)], SparsityConfig.with_top_k(6)
      >>> with NeuronStore.from_layers(layers, budget=4000) as store:
      ...     stored = StoredLlama(model, params, StoredFFN(store, predictors, few, activation="relu"))
      ...     found = stored(tokens)
      >>> apply = jax.jit(model.apply, static_argnames="sparsity")
      >>> expected = apply({"params": params}, tokens, predictors=predictors, sparsity=few)
      >>> bool(jnp.allclose(found.logits, expected.logits, atol=1e-6))
      True

    Source: specs/sparse_inference.md sections 12.6 and 13.
    """

    def __init__(
        self, model: LlamaLM, params: Params, ffn: StoredFFN, *, metadata: Mapping[str, Any] | None = None
    ):
        """See the class."""
        config = model.config
        if len(ffn.predictors) != config.n_layers or ffn.activation != config.activation:
            raise ValueError(
                f"{len(ffn.predictors)} stored layers with activation {ffn.activation!r} do not fit a "
                f"network of {config.n_layers} with {config.activation!r}"
            )
        self.model, self.ffn, self.metadata = model, ffn, {} if metadata is None else metadata
        place = ffn.store.device
        self._params = jax.device_put(
            {name: part for name, part in params.items() if not name.startswith("blk_")}, place
        )
        self._blocks = [
            jax.device_put(_without_neurons(params[f"blk_{number}"]), place)
            for number in range(config.n_layers)
        ]

    @classmethod
    def from_checkpoint(
        cls,
        source: Any,
        budget: int | None,
        *,
        predictors: Sequence[Any] | None = None,
        active_fraction: float | Sequence[float] | None = None,
        sparsity: SparsityConfig | Sequence[SparsityConfig] | None = None,
        plan: FFNPlan | None = None,
        fitted: Sequence[Compensation | None] | None = None,
        **options: Any,
    ) -> StoredLlama:
        """The network of a checkpoint with its neurons in a store of their own.

        Args:
          source: a checkpoint as `sparsejax.load` gives it, or ``(model, params)``.
          budget: bytes of the FFNs on the device.
          predictors: one per block; without them every token computes all neurons, which come and go.
          active_fraction: of the neurons, with predictors; for all blocks, or one each.
          sparsity: a `SparsityConfig` instead.
          plan: how neurons are selected; None is that of `LlamaLM`.
          fitted: one `Compensation` or None per block.
          options: of `NeuronStore.from_layers`: path, config, hot, adaptive, device.

        Raises:
          ValueError: the budget is too small, or arguments that do not belong together.

        Example:
          >>> config = LlamaConfig(vocab_size=32, d_model=16, d_ff=64, n_layers=1, n_heads=2)
          >>> model = LlamaLM(config)
          >>> params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), int))["params"]
          >>> with StoredLlama.from_checkpoint((model, params), budget=4000) as stored:
          ...     stored(jnp.arange(3)[None]).logits.shape, stored.ffn.store.peak_device_bytes <= 4000
          ((1, 3, 32), True)
        """
        model, params = model_and_params(source)
        layers = llama_ffn_layers(model.config, params, dtype=model.dtype)
        told = sparse_options(predictors, active_fraction, sparsity, len(layers), plan).sparsity
        few = SparsityConfig.with_active_fraction(1.0) if told is None else told
        up, down, *_ = layers[0]
        store = NeuronStore.from_layers(layers, budget, **options)
        try:
            ffn = StoredFFN(
                store,
                [None] * len(layers) if predictors is None else predictors,
                few,
                activation=model.config.activation,
                plan=default_plan(GatedWeights(up, up, down)) if plan is None else plan,
                fitted=fitted,
            )
            return cls(model, params, ffn, metadata=getattr(source, "metadata", None))
        except BaseException:
            store.close()
            raise

    def __call__(
        self,
        tokens: Array,
        state: LlamaState | None = None,
        *,
        counts: Array | None = None,
        capacity: int | None = None,
    ) -> LlamaOutput:
        """Logits of the token after each, and the state; arguments as of `LlamaLM.hidden`.

        Args:
          tokens: (b, t) ids.
          state: what was read before, or None.
          counts: (b,) tokens of each row that are no padding.
          capacity: slots of a state to begin; 0 keeps none.
        """
        stream, after = self._read(tokens, state, counts, capacity)
        return LlamaOutput(_finish(self.model, self._params, stream), after)

    def next_logits(self, tokens: Array, state: LlamaState, counts: Array) -> tuple[Array, LlamaState]:
        """Logits (b, v) after each row's last token alone, and the state.

        Args:
          tokens: (b, t) ids.
          state: what was read before.
          counts: (b,) tokens of each row that are no padding.
        """
        stream, after = self._read(tokens, state, counts, None)
        assert after is not None
        return _finish_last(self.model, self._params, stream, counts), after

    @property
    def statistics(self) -> CacheStatistics:
        """What the store was asked for, and what it moved."""
        return self.ffn.store.statistics

    def close(self) -> None:
        """Close the store."""
        self.ffn.store.close()

    def __enter__(self) -> StoredLlama:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(
        self, tokens: Array, state: LlamaState | None, counts: Array | None, capacity: int | None
    ) -> tuple[tuple[Array, Array], LlamaState | None]:
        """The residual stream before the last FFN and what that gives, and the state."""
        if tokens.ndim != 2:
            raise ValueError(f"tokens of shape {tokens.shape} do not fit: (b, t) is needed")
        steps = tokens.shape[1]
        starts = jnp.zeros(len(tokens), jnp.int32) if state is None else state.lengths
        room = bucket(steps + 1) if capacity is None else capacity
        hidden, positions, turn = _begin(self.model, self._params, tokens, starts)
        outputs, kept = jnp.zeros_like(hidden), []
        for number, block in enumerate(self._blocks):
            cache = None if state is None else (state.keys[number], state.values[number])
            reading = Reading(positions, starts, turn, 0)
            hidden, inputs, own = _attend(
                self.model.config,
                0 if state is not None else room,
                block,
                (hidden, outputs),
                (cache, reading),
            )
            outputs = self.ffn.layer(number, inputs)
            kept.append(own)
        if state is None and room == 0:
            return (hidden, outputs), None
        keys, values = zip(*kept, strict=True)
        after = LlamaState(keys, values, starts + (steps if counts is None else counts))
        if state is not None:
            fits = starts + steps <= after.capacity
            hidden = jnp.where(fits[:, None, None], hidden, jnp.nan)
        return (hidden, outputs), after


def llama_ffn_layers(
    config: LlamaConfig, params: Params, *, dtype: jax.typing.DTypeLike | None = None
) -> list[FFNWeights]:
    """The FFN layers of a network, for a store.

    Args:
      config: of the network.
      params: of the network, in host memory or not; quantised matrices stay so.
      dtype: of the computation: wider matrices are cast, as `LlamaLM` does; None is that of the norms.
    """
    dtype = params["output_norm"]["weight"].dtype if dtype is None else dtype
    found = []
    for number in range(config.n_layers):
        block = params[f"blk_{number}"]
        gate, up, down = (block[name]["weight"] for name in _FFN)
        b_gate, b_up, b_down = (block[name].get("bias") for name in _FFN)
        found.append(GatedWeights(gate, up, down, b_gate, b_up, b_down).narrowed(dtype).plain())
    return found


def _without_neurons(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block's parameters with one neuron, which gives nothing."""
    width = block["ffn_norm"]["weight"].shape[0]
    none = {"weight": jnp.zeros((1, width), block["ffn_norm"]["weight"].dtype)}
    return {**block, **dict.fromkeys(_FFN, none)}


@partial(jax.jit, static_argnums=0)
def _begin(
    model: LlamaLM, params: Params, tokens: Array, starts: Array
) -> tuple[Array, Array, tuple[Array, Array]]:
    """The residual stream, positions, and cosines and sines."""
    norm = params["output_norm"]["weight"]
    hidden = lookup(params["token_embd"]["weight"], tokens)
    positions = starts[:, None] + jnp.arange(tokens.shape[1])
    factors = params["rope_freqs"]["weight"] if model.config.rope_factors else None
    turn = rotation(positions, model.config.rotary, factors)
    return hidden.astype(norm.dtype if model.dtype is None else model.dtype), positions, turn


@partial(jax.jit, static_argnums=(0, 1))
def _attend(
    config: LlamaConfig,
    capacity: int,
    block: Params,
    stream: tuple[Array, Array],
    before: tuple[tuple[Array, Array] | None, Reading],
) -> tuple[Array, Array, tuple[Array, Array] | None]:
    """The residual stream after attention, the inputs of the FFN, and keys and values for the state.

    All blocks run the same program: that of a network with one block, and one neuron in it.
    """
    biases = tuple(name for name in config.biases if name not in _FFN)
    hollow = dataclasses.replace(config, d_ff=1, n_layers=1, biases=biases, formats=())
    (hidden, outputs), (cache, reading) = stream, before
    found, seen = LlamaBlock(hollow, name="blk_0").apply(
        {"params": block},
        hidden + outputs,
        cache,
        reading._replace(capacity=capacity),
        None,
        mutable=["intermediates"],
    )
    return found[0], seen["intermediates"]["ffn_inputs"][0], found[1]


@partial(jax.jit, static_argnums=0)
def _finish(model: LlamaLM, params: Params, stream: tuple[Array, Array]) -> Array:
    """The logits (*b, v)."""
    last = rms_norm(stream[0] + stream[1], params["output_norm"]["weight"], model.config.norm_eps)
    return cast(Array, model.apply({"params": params}, last, method="logits"))


@partial(jax.jit, static_argnums=0)
def _finish_last(model: LlamaLM, params: Params, stream: tuple[Array, Array], counts: Array) -> Array:
    """The logits (b, v) after each row's last token."""
    place = jnp.maximum(counts - 1, 0)[:, None, None]
    hidden, outputs = (jnp.take_along_axis(part, place, axis=1)[:, 0] for part in stream)
    return _finish(model, params, (hidden, outputs))
