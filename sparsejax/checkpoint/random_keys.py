"""PRNG keys as arrays that can be stored, and back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def key_free(leaf: Any) -> Any:
    """The numbers of a PRNG key; any other array as it is.

    Example:
      >>> key_free(jax.random.key(3)).tolist(), key_free(1.5)
      ([0, 3], 1.5)
    """
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def as_keys(like: Any, leaf: Any) -> Any:
    """An array, made a PRNG key of the same kind where ``like`` is one: the inverse of `key_free`.

    Example:
      >>> key = jax.random.key(3)
      >>> bool(as_keys(key, key_free(key)) == key)
      True
    """
    return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like)) if _is_key(like) else leaf


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
