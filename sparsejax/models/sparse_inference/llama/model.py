"""The Llama-architecture decoder: what LlamaLM, Mistral and Qwen2 files hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.models.sparse_inference.ffn.plan import FFNPlan
from sparsejax.models.sparse_inference.llama.attention import causal_attention, write_slots
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.ffn import GatedWeights, Selection, feed_forward, per_layer
from sparsejax.models.sparse_inference.llama.layers import Matrix, linear, lookup, rms_norm
from sparsejax.models.sparse_inference.llama.names import TensorPlace, tensor_name, tensor_places
from sparsejax.models.sparse_inference.llama.rope import rotate, rotation
from sparsejax.models.sparse_inference.llama.state import LlamaState, bucket
from sparsejax.ops.quantized import QuantizedTensor

_PLAIN = {"f16": jnp.float16, "bf16": jnp.bfloat16}
_STD = 0.02


@flax.struct.dataclass
class LlamaOutput:
    """What the network gives.

    Attributes:
      logits: (b, t, v), float32 at least; NaN where the state had too few slots.
      state: after the tokens; None where ``capacity`` is 0.
    """

    logits: jax.Array
    state: LlamaState | None


class Reading(NamedTuple):
    """What all blocks of a call share.

    Attributes:
      positions: (b, t) of the tokens.
      starts: (b,) slots in use before.
      turn: cosines and sines (b, t, p).
      capacity: slots of a state to begin; 0 for none.
    """

    positions: jax.Array
    starts: jax.Array
    turn: tuple[jax.Array, jax.Array]
    capacity: int


class LlamaBlock(nn.Module):
    """One block of attention and FFN."""

    config: LlamaConfig

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        cache: tuple[jax.Array, jax.Array] | None,
        reading: Reading,
        selection: Selection | None,
        earlier: Sequence[jax.Array] = (),
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None, jax.Array]:
        """From the residual stream, the keys and values before, and how neurons are selected.

        Returns:
          the residual stream, keys and values for the state, and what the FFN has read.
        """
        config = self.config
        parts = {name: self._matrix(name) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        normed = rms_norm(hidden, self._norm("attn_norm"), config.norm_eps)
        heads = {"attn_q": config.n_heads, "attn_k": config.n_kv_heads, "attn_v": config.n_kv_heads}
        queries, keys, values = (
            linear(normed, *parts[name]).reshape(*hidden.shape[:2], count, config.head_dim)
            for name, count in heads.items()
        )
        queries, keys = (
            rotate(part, reading.turn, interleaved=config.rotary.interleaved) for part in (queries, keys)
        )
        seen, kept = remember(keys.swapaxes(1, 2), values.swapaxes(1, 2), cache, reading)
        read = causal_attention(queries, *seen, reading.positions, window=config.sliding_window)
        hidden = hidden + linear(read, *parts["attn_output"])
        normed = rms_norm(hidden, self._norm("ffn_norm"), config.norm_eps)
        self.sow("intermediates", "ffn_inputs", normed)
        (gate, b_gate), (up, b_up), (down, b_down) = (
            self._matrix(name) for name in ("ffn_gate", "ffn_up", "ffn_down")
        )
        weights = GatedWeights(gate, up, down, b_gate, b_up, b_down)
        fed = feed_forward(normed, weights, config.activation, selection, earlier)
        return hidden + fed, kept, normed

    def _matrix(self, name: str) -> tuple[Matrix, jax.Array | None]:
        return MatrixParams(self.config, self.name, use_bias=name in self.config.biases, name=name)()

    def _norm(self, name: str) -> jax.Array:
        return NormParams(self.config.d_model, name=name)()


class LlamaLM(nn.Module):
    """A decoder whose parameters have the names, and matrices the orientation, that GGUF files give them.

    Attributes:
      config: sizes and kind.
      dtype: of the computation, None is that of the norms: plain matrices are cast to it where they are read,
        and products of 16-bit numbers summed in float32; quantised ones are multiplied in float32.

    Example:
      >>> config = LlamaConfig(vocab_size=32, d_model=16, d_ff=24, n_layers=1, n_heads=4, n_kv_heads=2)
      >>> model, tokens = LlamaLM(config), jnp.arange(6)[None]
      >>> params, apply = jax.jit(model.init)(jax.random.key(0), tokens), jax.jit(model.apply)
      >>> whole = apply(params, tokens)
      >>> part = apply(params, tokens[:, :4])
      >>> rest = apply(params, tokens[:, 4:], part.state)
      >>> bool(jnp.allclose(rest.logits, whole.logits[:, 4:], atol=1e-5))
      True

    Source: specs/sparse_inference.md section 13.
    """

    config: LlamaConfig
    dtype: jax.typing.DTypeLike | None = None

    def setup(self):
        """``token_embd``, ``blk_0`` and so on, ``output_norm``, and ``output`` where it is no other's."""
        config = self.config
        self.token_embd = MatrixParams(config)
        self.blk = [LlamaBlock(config) for _ in range(config.n_layers)]
        self.output_norm = NormParams(config.d_model)
        if not config.tied_output:
            self.output = MatrixParams(config)
        if config.rope_factors:
            self.rope_freqs = NormParams(config.rotary.dimension // 2)

    def __call__(self, tokens: jax.Array, state: LlamaState | None = None, **options: Any) -> LlamaOutput:
        """Logits of the token after each; arguments as in `hidden`."""
        hidden, after = self.hidden(tokens, state, **options)
        return LlamaOutput(self.logits(hidden), after)

    def hidden(
        self,
        tokens: jax.Array,
        state: LlamaState | None = None,
        *,
        counts: jax.Array | None = None,
        capacity: int | None = None,
        predictors: Sequence[Any] | Mapping[int, Any] | None = None,
        active_fraction: Any = None,
        sparsity: Any = None,
        plan: FFNPlan | None = None,
        fitted: Sequence[Any] | None = None,
    ) -> tuple[jax.Array, LlamaState | None]:
        """The residual stream (b, t, d) after the last norm, and the state.

        Args:
          tokens: (b, t) ids that follow those of the state.
          state: what was read before; it must have t free slots in each row. None begins.
          counts: (b,) tokens of each row; those behind them are padding, which the state does not count. None
            is t.
          capacity: slots of a state to begin; None is `bucket` of t + 1, and 0 keeps no state.
          predictors: one per block that scores its neurons, None for a block that computes all; or by numbers
            of blocks, of which the others compute all; or None.
          active_fraction: of the neurons that each token computes, by their scores; for all blocks, or one
            each. Arrays may be traced and compute all, masked; ``plan`` and ``fitted`` hold for them too.
          sparsity: a `SparsityConfig` instead, for all blocks or one each.
          plan: how neurons are selected together; None is single neurons, or blocks of quantised weights
            unless the fraction is traced.
          fitted: one `Compensation` or None per block, for what the other neurons would have given.
        """
        if tokens.ndim != 2:
            raise ValueError(f"tokens of shape {tokens.shape} do not fit: (b, t) is needed")
        steps = tokens.shape[1]
        embedding, _ = self.token_embd()
        norm = self.output_norm()
        hidden = lookup(embedding, tokens).astype(norm.dtype if self.dtype is None else self.dtype)
        starts = jnp.zeros(len(tokens), jnp.int32) if state is None else state.lengths
        positions = starts[:, None] + jnp.arange(steps)
        factors = self.rope_freqs() if self.config.rope_factors else None
        turn = rotation(positions, self.config.rotary, factors)
        room = bucket(steps + 1) if capacity is None else capacity
        reading = Reading(positions, starts, turn, 0 if state is not None else room)
        selections = per_layer(
            predictors, active_fraction, sparsity, plan, fitted, layers=self.config.n_layers
        )
        kept: list[Any] = []
        earlier: list[jax.Array] = []
        for number, (block, selection) in enumerate(zip(self.blk, selections, strict=True)):
            cache = None if state is None else (state.keys[number], state.values[number])
            hidden, own, read = block(hidden, cache, reading, selection, earlier)
            kept.append(own)
            earlier.append(read)
        hidden = rms_norm(hidden, norm, self.config.norm_eps)
        if state is None and room == 0:
            return hidden, None
        keys, values = zip(*kept, strict=True)
        after = LlamaState(keys, values, starts + (steps if counts is None else counts))
        if state is not None:
            # Slots written beyond the last would have replaced others: no silent garbage.
            fits = starts + steps <= after.capacity
            hidden = jnp.where(fits[:, None, None], hidden, jnp.nan)
        return hidden, after

    def logits(self, hidden: jax.Array) -> jax.Array:
        """(*b, v) of the residual stream (*b, d) that `hidden` gives."""
        weight, _ = (self.token_embd if self.config.tied_output else self.output)()
        return linear(hidden, weight, wide=True)


class MatrixParams(nn.Module):
    """A matrix as files hold it, plain or quantised, and its bias."""

    config: LlamaConfig
    block: str | None = None
    use_bias: bool = False

    @nn.compact
    def __call__(self) -> tuple[Matrix, jax.Array | None]:
        """The two parameters."""
        path = tuple(name for name in (self.block, self.name) if name is not None)
        place = _places(self.config)[tensor_name((*path, "weight"))]
        shape = place.shape[::-1] if place.transposed else place.shape
        if self.has_variable("params", "weight"):
            weight: Matrix = self.get_variable("params", "weight")
            wanted = place.shape if isinstance(weight, QuantizedTensor) else shape
            if tuple(weight.shape) != wanted:
                raise ValueError(
                    f"{'.'.join(path)}.weight has shape {weight.shape}; the config makes it {wanted}"
                )
        else:
            weight = self.param("weight", initial_weight, place, self.config.format_of(place.name))
        if not self.use_bias:
            return weight, None
        return weight, self.param("bias", nn.initializers.zeros, place.shape[:1])


class NormParams(nn.Module):
    """A vector of scales, ones at first."""

    size: int

    @nn.compact
    def __call__(self) -> jax.Array:
        """The parameter (size,)."""
        return self.param("weight", nn.initializers.ones, (self.size,))


def initial_weight(key: jax.Array, place: TensorPlace, kept: str | None) -> Matrix:
    """A drawn matrix; zeros of a quantised format, which only files have weights for."""
    if kept is not None and kept not in _PLAIN:
        told = QuantizedTensor.described(kept, place.shape, order=place.order)
        return jax.tree.map(lambda plane: jnp.zeros(plane.shape, plane.dtype), told)
    shape = place.shape[::-1] if place.transposed else place.shape
    return (jax.random.normal(key, shape) * _STD).astype(_PLAIN.get(kept or "", jnp.float32))


def remember(
    keys: jax.Array, values: jax.Array, cache: tuple[jax.Array, jax.Array] | None, reading: Reading
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array] | None]:
    """Keys and values to attend to, and those for the state.

    Args:
      keys: (b, g, t, c) of the call.
      values: (b, g, t, c).
      cache: keys and values (b, g, s, c) before; None at the beginning.
      reading: of the call.

    Raises:
      ValueError: a state to begin has fewer slots than there are tokens.
    """
    if cache is not None:
        before, old = cache
        written = write_slots(before, keys, reading.starts), write_slots(old, values, reading.starts)
        return written, written
    if reading.capacity == 0:
        return (keys, values), None
    free = reading.capacity - keys.shape[2]
    if free < 0:
        raise ValueError(f"{keys.shape[2]} tokens do not fit into a state of capacity={reading.capacity}")
    padding = ((0, 0), (0, 0), (0, free), (0, 0))
    return (keys, values), (jnp.pad(keys, padding), jnp.pad(values, padding))


@lru_cache(maxsize=8)
def _places(config: LlamaConfig) -> dict[str, TensorPlace]:
    return {place.name: place for place in tensor_places(config)}
