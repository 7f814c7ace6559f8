"""What a network carries from one call to the next: a few vectors per layer, whatever the length so far."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.models.ten.config import EigenstateLayer, Stack, TemporalEigenstateConfig


@flax.struct.dataclass
class AttentionCache:
    """The last keys and values of a layer with sliding attention.

    Attributes:
      keys: (b, w, d), oldest first.
      values: (b, w, d).
      visible: (b, w); false where the document is not that old.
    """

    keys: jax.Array
    values: jax.Array
    visible: jax.Array


@flax.struct.dataclass
class LayerState:
    """The state of one layer.

    Attributes:
      eigenstates: real and imaginary (b, k), or (b, cells, k), float32.
      convolution: (b, taps - 1, 2k) latest inputs of the short convolution; None without one.
      attention: keys and values; None without attention.
    """

    eigenstates: tuple[jax.Array, jax.Array]
    convolution: jax.Array | None = None
    attention: AttentionCache | None = None


@flax.struct.dataclass
class TenState:
    """The state of a network.

    Attributes:
      position: (b,) int32 tokens read of the current document.
      short: a state per layer of the (first) stack; empty if it is not carried.
      long: likewise of the second stack.
    """

    position: jax.Array
    short: tuple[LayerState, ...] = ()
    long: tuple[LayerState, ...] = ()

    @property
    def stack(self) -> Stack:
        """Which stacks are carried."""
        if self.short and self.long:
            return "both"
        return "long" if self.long else "short"


def initial_state(
    config: TemporalEigenstateConfig,
    batch: int,
    *,
    stack: Stack = "short",
    dtype: jax.typing.DTypeLike = "float32",
) -> TenState:
    """The state before the first token.

    Args:
      config: of the network.
      batch: rows.
      stack: stacks to carry; "short" is all of a network that has one.
      dtype: of the kept inputs of convolutions and attention; eigenstates are float32 at least.

    Returns:
      `TenState` of zeros.

    Raises:
      ValueError: the network cannot be streamed, or has no second stack.

    Example:
      >>> state = initial_state(TemporalEigenstateConfig(num_eigenstates=8, n_layers=3), 2)
      >>> len(state.short), state.short[0].eigenstates[0].shape
      (3, (2, 2, 8))
    """
    if not config.streams:
        raise ValueError("this network looks ahead inside a chunk (a published bug): it has no state")
    if stack != "short" and config.long_layer is None:
        raise ValueError(f"stack={stack!r} needs a network with two stacks")
    layers = [
        tuple(_layer_state(config, layer, number, batch, dtype) for number in range(config.n_layers))
        for layer in config.stacks
    ]
    short, long = layers if len(layers) > 1 else (layers[0], ())
    position = jnp.zeros((batch,), jnp.int32)
    return TenState(position, short if stack != "long" else (), long if stack != "short" else ())


def check_state(config: TemporalEigenstateConfig, state: TenState, batch: int) -> None:
    """Refuse a state of another network or batch.

    Raises:
      ValueError: names what differs.
    """
    if not isinstance(state, TenState):
        raise ValueError(f"state must be the .state of an earlier output, not {type(state).__name__}")
    stack = state.stack
    needed = jax.eval_shape(lambda: initial_state(config, batch, stack=stack))
    if str(jax.tree.structure(needed)) != str(jax.tree.structure(state)):
        raise ValueError("the state is of a network with other layers; start with state=None")
    for expected, found in zip(jax.tree.leaves(needed), jax.tree.leaves(state), strict=True):
        if expected.shape != found.shape:
            raise ValueError(
                f"the state has an array of shape {found.shape} where this network and batch need "
                f"{expected.shape}; start with state=None"
            )


def _layer_state(
    config: TemporalEigenstateConfig,
    layer: EigenstateLayer,
    number: int,
    batch: int,
    dtype: jax.typing.DTypeLike,
) -> LayerState:
    wide = jnp.promote_types(dtype, jnp.float32)
    if config.variant != "modern":
        shape: tuple[int, ...] = (batch, config.num_cells, config.num_eigenstates)
        return LayerState((jnp.zeros(shape, wide), jnp.zeros(shape, wide)))
    shape = (batch, config.num_eigenstates)
    eigenstates = (jnp.zeros(shape, wide), jnp.zeros(shape, wide))
    convolution = None
    if layer.short_conv:
        convolution = jnp.zeros((batch, layer.short_conv - 1, 2 * config.num_eigenstates), dtype)
    attention = None
    if number in layer.attention_layers:
        kept = jnp.zeros((batch, layer.attention_window, config.dim), dtype)
        attention = AttentionCache(kept, kept, jnp.zeros(kept.shape[:2], bool))
    return LayerState(eigenstates, convolution, attention)
