"""The keys and values that a decoder remembers, in a cache of a fixed number of slots."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.llama.config import LlamaConfig

_LEAST_CAPACITY = 64


@flax.struct.dataclass
class LlamaState:
    """What a network has read.

    Attributes:
      keys: of every block (b, g, s, c), turned already, for g key heads and s slots.
      values: of every block (b, g, s, c).
      lengths: (b,) int32 slots in use, from the first on; what the others hold is never seen.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    lengths: jax.Array

    @property
    def capacity(self) -> int:
        """Slots of every row."""
        return self.keys[0].shape[2]


def bucket(tokens: int) -> int:
    """Slots for so many tokens: a power of two, so that caches have few shapes.

    Example:
      >>> bucket(1), bucket(64), bucket(65)
      (64, 64, 128)
    """
    return max(_LEAST_CAPACITY, 1 << (tokens - 1).bit_length())


def initial_state(
    config: LlamaConfig, batch: int, capacity: int, dtype: jax.typing.DTypeLike = jnp.float32
) -> LlamaState:
    """Nothing read yet.

    Args:
      config: of the network.
      batch: rows.
      capacity: slots of every row; see `bucket`.
      dtype: of the cache; "float16" halves its memory.

    Example:
      >>> config = LlamaConfig(vocab_size=9, d_model=8, d_ff=8, n_layers=3, n_heads=4, n_kv_heads=2)
      >>> state = initial_state(config, 5, 64)
      >>> len(state.keys), state.keys[0].shape
      (3, (5, 2, 64, 2))
    """
    shape = (batch, config.n_kv_heads, capacity, config.head_dim)
    keys, values = (tuple(jnp.zeros(shape, dtype) for _ in range(config.n_layers)) for _ in range(2))
    return LlamaState(keys, values, jnp.zeros(batch, jnp.int32))


def check_state(config: LlamaConfig, state: LlamaState, batch: int, steps: int) -> None:
    """Refuse a state that cannot take the tokens of a call; traced lengths pass.

    Args:
      config: of the network.
      state: what was read before.
      batch: rows of the call.
      steps: tokens of each row.

    Raises:
      ValueError: it is no state, of another network or batch, or has too few free slots.

    Example:
      >>> config = LlamaConfig(vocab_size=9, d_model=8, d_ff=8, n_layers=1, n_heads=2)
      >>> check_state(config, initial_state(config, 1, 4), 1, 5)
      Traceback (most recent call last):
      ValueError: 5 more tokens do not fit: of the state's 4 slots 0 are in use; grow_state makes room
    """
    if not isinstance(state, LlamaState):
        raise ValueError(f"state is a {type(state).__name__}; give the one of an earlier output, or None")
    wanted = (batch, config.n_kv_heads, state.capacity, config.head_dim)
    if len(state.keys) != config.n_layers or state.keys[0].shape != wanted:
        raise ValueError(
            f"a state of {len(state.keys)} blocks of shape {state.keys[0].shape} does not fit: "
            f"{config.n_layers} of {wanted} are needed"
        )
    if isinstance(state.lengths, jax.core.Tracer):
        return
    used = int(np.max(state.lengths, initial=0))
    if used + steps > state.capacity:
        raise ValueError(
            f"{steps} more tokens do not fit: of the state's {state.capacity} slots {used} are in use; "
            "grow_state makes room"
        )


def grow_state(state: LlamaState, capacity: int) -> LlamaState:
    """The same state with room for more tokens.

    Args:
      state: with fewer slots, or as many.
      capacity: slots of every row.

    Raises:
      ValueError: the state has more slots.
    """
    more = capacity - state.capacity
    if more < 0:
        raise ValueError(f"the cache has {state.capacity} slots; it cannot shrink to {capacity}")
    if more == 0:
        return state
    keys, values = (
        tuple(jnp.pad(part, ((0, 0), (0, 0), (0, more), (0, 0))) for part in parts)
        for parts in (state.keys, state.values)
    )
    return LlamaState(keys, values, state.lengths)
