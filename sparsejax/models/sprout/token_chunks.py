"""Calls of a module that makes many values per token, a chunk of tokens at a time."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

VALUES = 2**24
"""Most values of one intermediate array of a chunk: 64 MiB in float32."""


def in_chunks(module: nn.Module, arrays: tuple[Any, ...], *, per_token: int, train: bool) -> jax.Array:
    """``module(*arrays, train=train)``, in chunks whose intermediates are computed again for gradients.

    Args:
      module: maps rows to rows.
      arrays: (n, ...) each, or None.
      per_token: values of the largest intermediate array, for one row.
      train: as the module takes it.

    Returns:
      (n, ...) what the module gives for all rows.
    """
    rows = arrays[0].shape[0]
    size = max(1, VALUES // max(1, per_token))
    if rows <= size:
        return module(*arrays, train=train)

    def cut(array: jax.Array) -> jax.Array:
        padded = jnp.pad(array, [(0, -rows % size)] + [(0, 0)] * (array.ndim - 1))
        return padded.reshape(-1, size, *array.shape[1:])

    def step(module: nn.Module, carry: None, chunk: tuple[Any, ...]) -> tuple[None, jax.Array]:
        return carry, module(*chunk, train=train)

    again = nn.remat(step, prevent_cse=False)
    rngs: Any = {"params": False, "dropout": True}
    scan = nn.scan(again, variable_broadcast="params", split_rngs=rngs)
    _, outputs = scan(module, None, jax.tree.map(cut, arrays))
    return outputs.reshape(-1, *outputs.shape[2:])[:rows]
