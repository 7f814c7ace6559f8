"""A decoder whose neurons live in a store: the rest is on the device, and runs block by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.models.sparse_inference.llama import LlamaBlock, LlamaLM, LlamaOutput, Reading
from sparsejax.models.sparse_inference.llama_config import LlamaConfig
from sparsejax.models.sparse_inference.llama_layers import lookup, rms_norm
from sparsejax.models.sparse_inference.llama_state import LlamaState, bucket
from sparsejax.models.sparse_inference.rope import rotation
from sparsejax.models.sparse_inference.store_ffn import StoredFFN
from sparsejax.ops.sparse_ffn import FFNWeights
from sparsejax.typing import Params

_FFN = ("ffn_gate", "ffn_up", "ffn_down")


class StoredLlama:
    """A `LlamaLM` whose FFN layers are a `StoredFFN`.

    Logits and states are those of the network with the same predictors. Whoever builds it from parameters in
    host memory never has more of the FFNs on the device than the store's budget.

    Args:
      model: the network.
      params: of the network; those of the FFNs are not looked at.
      ffn: its FFN layers, from `llama_ffn_layers`, with the activation of ``model.config``.

    Raises:
      ValueError: another number of layers or another activation.

    Example:
      >>> from sparsejax.models.sparse_inference.config import SparsityConfig
      >>> from sparsejax.models.sparse_inference.predictor import LowRankPredictor
      >>> from sparsejax.models.sparse_inference.store import NeuronStore
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

    def __init__(self, model: LlamaLM, params: Params, ffn: StoredFFN):
        """See the class."""
        config = model.config
        if len(ffn.predictors) != config.n_layers or ffn.activation != config.activation:
            raise ValueError(
                f"{len(ffn.predictors)} stored layers with activation {ffn.activation!r} do not fit a "
                f"network of {config.n_layers} with {config.activation!r}"
            )
        self.model, self.ffn = model, ffn
        self._params = jax.device_put(
            {name: part for name, part in params.items() if not name.startswith("blk_")}
        )
        self._blocks = [
            jax.device_put(_without_neurons(params[f"blk_{number}"])) for number in range(config.n_layers)
        ]

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
        logits = _finish(self.model, self._params, hidden, outputs)
        if state is None and room == 0:
            return LlamaOutput(logits, None)
        keys, values = zip(*kept, strict=True)
        after = LlamaState(keys, values, starts + (steps if counts is None else counts))
        if state is not None:
            fits = starts + steps <= after.capacity
            logits = jnp.where(fits[:, None, None], logits, jnp.nan)
        return LlamaOutput(logits, after)


def llama_ffn_layers(config: LlamaConfig, params: Params) -> list[FFNWeights]:
    """The FFN layers of a network, for a store.

    Args:
      config: of the network.
      params: of the network, in host memory or not; quantised matrices stay so.
    """
    found = []
    for number in range(config.n_layers):
        block = params[f"blk_{number}"]
        gate, up, down = (block[name]["weight"] for name in _FFN)
        b_gate, b_up, b_down = (block[name].get("bias") for name in _FFN)
        found.append(FFNWeights(up, down, gate, b_up, b_gate, b_down))
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
def _finish(model: LlamaLM, params: Params, hidden: Array, outputs: Array) -> Array:
    """The logits."""
    last = rms_norm(hidden + outputs, params["output_norm"]["weight"], model.config.norm_eps)
    return cast(Array, model.apply({"params": params}, last, method="logits"))
