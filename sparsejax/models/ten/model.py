"""The network: embeddings, layers, the vocabulary head, and the state that streams through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.models.ten import init as initial
from sparsejax.models.ten.config import Stack, TemporalEigenstateConfig
from sparsejax.models.ten.eigenstates import Evolution, Pair
from sparsejax.models.ten.inputs import check_call
from sparsejax.models.ten.layers import Context, EigenstateBlock, LayerOutput, layer_norm
from sparsejax.models.ten.positions import sinusoidal_init
from sparsejax.models.ten.resonance import ResonanceBlock
from sparsejax.models.ten.segments import Segments, find_segments, positions_of
from sparsejax.models.ten.state import LayerState, TenState
from sparsejax.ops.flat_matmul import wide_matmul
from sparsejax.ops.linear_recurrence import RecurrenceBackend
from sparsejax.typing import Params


@flax.struct.dataclass
class TenOutput:
    """What a network gives.

    Attributes:
      logits: (b, t, v) float32 at least.
      state: to pass as ``state`` with the tokens that follow; None where the network cannot be streamed.
    """

    logits: jax.Array
    state: TenState | None


class TemporalEigenstateNetwork(nn.Module):
    """A language model of complex eigenstates: linear in length, with a state of constant size.

    Attributes:
      config: sizes and kind.
      dtype: of the computation, such as bfloat16; None is that of the parameters. Recurrences, norms,
        attention weights and logits are float32 at least.

    Example:
      >>> config = TemporalEigenstateConfig.modern(vocab_size=7, dim=8, n_layers=1, num_eigenstates=4)
      >>> model, tokens = TemporalEigenstateNetwork(config), jnp.array([[1, 2, 3, 4]])
      >>> params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
      >>> apply = jax.jit(model.apply)
      >>> whole = apply({"params": params}, tokens)
      >>> first = apply({"params": params}, tokens[:, :3])
      >>> second = apply({"params": params}, tokens[:, 3:], state=first.state)
      >>> bool(jnp.allclose(second.logits[:, 0], whole.logits[:, 3], atol=1e-5))
      True

    Source: specs/ten.md sections 2 and 3.
    """

    config: TemporalEigenstateConfig = TemporalEigenstateConfig()
    dtype: jax.typing.DTypeLike | None = None

    def setup(self):
        """``token_embedding``, ``layer_0`` and so on, ``long_layer_0`` of a second stack, ``final_norm``."""
        config = self.config
        self.token_embedding = nn.Embed(
            config.vocab_size, config.dim, dtype=self.dtype, embedding_init=initial.token_init(config)
        )
        if config.pos_emb_type != "none":
            table = initial.position_init() if config.pos_emb_type == "learned" else sinusoidal_init
            self.position_embedding = nn.Embed(
                config.max_seq_len, config.dim, dtype=self.dtype, embedding_init=table
            )
        self.layer = [self._layer(0, number) for number in range(config.n_layers)]
        if config.long_layer is not None:
            self.long_layer = [self._layer(1, number) for number in range(config.n_layers)]
        self.final_norm = layer_norm("final_norm", self.dtype)
        self.embedding_dropout = nn.Dropout(config.dropout)
        if not config.tie_weights:
            self.head = HeadKernel(config)

    def _layer(self, stack: int, number: int) -> nn.Module:
        config = self.config
        of_this: dict[str, Any] = {"config": config, "number": number, "dtype": self.dtype}
        kind: Any = ResonanceBlock
        if config.variant == "modern":
            kind, of_this["layer"] = EigenstateBlock, config.stacks[stack]
        if config.use_gradient_checkpointing:
            kind = nn.remat(kind, static_argnums=(3, 4))
        return kind(**of_this)

    def __call__(
        self,
        tokens: jax.Array,
        state: TenState | None = None,
        segment_ids: jax.Array | None = None,
        **options: Any,
    ) -> TenOutput:
        """Logits of the next token at every position.

        Args:
          tokens: (b, t) integer ids, or (b, t, d) floating embeddings.
          state: of the call before; None at the beginning.
          segment_ids: (b, t) documents, see `hidden`.
          options: see `hidden`.

        Returns:
          `TenOutput`.
        """
        hidden, state = self.hidden(tokens, state, segment_ids, **options)
        kernel = self.head() if not self.config.tie_weights else self.token_embedding.embedding.T
        return TenOutput(vocabulary_logits(hidden, kernel, self.dtype), state)

    def hidden(
        self,
        tokens: jax.Array,
        state: TenState | None = None,
        segment_ids: jax.Array | None = None,
        *,
        train: bool = False,
        stack: Stack | None = None,
        backend: RecurrenceBackend = "auto",
    ) -> tuple[jax.Array, TenState | None]:
        """The residual stream after the last norm, before the vocabulary head.

        Args:
          tokens: (b, t) integer ids, or (b, t, d) floating embeddings.
          state: of the call before; None at the beginning.
          segment_ids: (b, t) integers; where the id differs from the one before, a document begins that sees
            nothing of those before it. The first token continues a ``state``, whatever its id.
          train: with dropout and, if the config says so, gradients cut at chunk boundaries.
          stack: of a network with two: "short", "long", or "both", which takes at every position the one that
            an input ending there would have. None is "long" for inputs above ``context_threshold`` tokens, as
            published, or what ``state`` carries.
          backend: of the recurrences.

        Returns:
          hidden (b, t, d), and the state for the next call; None where the network cannot be streamed.

        Raises:
          ValueError: shapes that do not fit, or a state that this network cannot use.
        """
        outputs, position = self._layers(
            tokens, state, segment_ids, train=train, stack=stack, backend=backend
        )
        hidden = self._chosen(outputs, position)
        kept = {name: tuple(output.state for output in layers) for name, layers in outputs.items()}
        after = TenState(position[:, -1] + 1, **kept) if self.config.streams else None
        return self.final_norm(hidden), after

    def trajectory(self, tokens: jax.Array, *, stack: Stack | None = None) -> list[Pair]:
        """Eigenstates of every layer at every position: real and imaginary (b, t, k) or (b, t, cells, k).

        Args:
          tokens: (b, t) ids.
          stack: see `hidden`.
        """
        outputs, _ = self._layers(tokens, None, None, train=False, stack=stack, backend="auto")
        return [output.states for layers in outputs.values() for output in layers]

    def _layers(
        self,
        tokens: jax.Array,
        state: TenState | None,
        segment_ids: jax.Array | None,
        *,
        train: bool,
        stack: Stack | None,
        backend: RecurrenceBackend,
    ) -> tuple[dict[str, list[LayerOutput]], jax.Array]:
        """Outputs of all layers by stack, and the positions (b, t)."""
        check_call(self.config, tokens, state, segment_ids, stack=stack)
        batch, steps = tokens.shape[:2]
        all_stacks: Stack = "both" if self.config.long_layer else "short"
        stack = all_stacks if self.is_initializing() else _stack(self.config, steps, state, stack)
        segments = None if segment_ids is None else find_segments(segment_ids, continued=state is not None)
        position = positions_of(segments, None if state is None else state.position, (batch, steps))
        embedded = self._embed(tokens, position, train)
        how = Evolution(backend, self.config.truncated_steps if train else None)
        outputs = {}
        for name in ("short", "long") if stack == "both" else (stack,):
            layers = self.layer if name == "short" else self.long_layer
            before = None if state is None else getattr(state, name)
            outputs[name] = _run(layers, embedded, before, segments, how=how, train=train)
        return outputs, jnp.broadcast_to(position, (batch, steps))

    def _embed(self, tokens: jax.Array, position: jax.Array, train: bool) -> jax.Array:
        config = self.config
        if jnp.issubdtype(tokens.dtype, jnp.floating):
            embedded = tokens if self.dtype is None else tokens.astype(self.dtype)
        else:
            embedded = self.token_embedding(tokens)
        if config.pos_emb_type != "none":
            rows = self.position_embedding(position)
            learned = config.pos_emb_type == "learned"
            embedded = embedded + (rows if learned else jax.lax.stop_gradient(rows))
        if config.variant != "modern":  # the published blocks drop nothing here
            return embedded
        return self.embedding_dropout(embedded, deterministic=not train)

    def _chosen(self, outputs: dict[str, list[LayerOutput]], position: jax.Array) -> jax.Array:
        """The residual stream of the only stack, or of the one that each position's length asks for."""
        last = {name: layers[-1].hidden for name, layers in outputs.items()}
        if len(last) == 1:
            return next(iter(last.values()))
        is_long = position + 1 > self.config.context_threshold
        return jnp.where(is_long[..., None], last["long"], last["short"])


class HeadKernel(nn.Module):
    """The vocabulary head of a network that does not share the token table."""

    config: TemporalEigenstateConfig

    @nn.compact
    def __call__(self) -> jax.Array:
        """(d, v)."""
        shape = (self.config.dim, self.config.vocab_size)
        return self.param("kernel", initial.kernel_init(self.config), shape)


def head_kernel(config: TemporalEigenstateConfig, params: Params) -> jax.Array:
    """The matrix (d, v) from hidden states to logits, for losses that never hold all logits."""
    return params["token_embedding"]["embedding"].T if config.tie_weights else params["head"]["kernel"]


def vocabulary_logits(
    hidden: jax.Array, kernel: jax.Array, dtype: jax.typing.DTypeLike | None = None
) -> jax.Array:
    """Logits (..., v), float32 at least, from hidden states (..., d) and the head's kernel (d, v).

    Args:
      hidden: after the final norm.
      kernel: see `head_kernel`.
      dtype: of the product's factors; None is that of the arguments.
    """
    return wide_matmul(hidden, kernel, dtype)


def _run(
    layers: Sequence[Any],
    hidden: jax.Array,
    before: tuple[LayerState, ...] | None,
    segments: Segments | None,
    *,
    how: Evolution,
    train: bool,
) -> list[LayerOutput]:
    outputs: list[LayerOutput] = []
    below = None
    for number, layer in enumerate(layers):
        state = None if before is None else before[number]
        output = layer(hidden, Context(below, state, segments), how, train)
        hidden, below = output.hidden, output.coupled
        outputs.append(output)
    return outputs


def _stack(
    config: TemporalEigenstateConfig, steps: int, state: TenState | None, stack: Stack | None
) -> Stack:
    if config.long_layer is None:
        return "short"
    if state is not None:
        return state.stack
    return stack or ("long" if steps > config.context_threshold else "short")
