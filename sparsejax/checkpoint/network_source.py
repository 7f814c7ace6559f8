"""What callers give as a network: a checkpoint, or a module with its parameters."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from sparsejax.typing import Params

Module = TypeVar("Module")


def model_and_params(source: Any, kind: type[Module]) -> tuple[Module, Params]:
    """The module and its parameters.

    Args:
      source: a checkpoint, or ``(model, params)``.
      kind: class that the module is to have.

    Raises:
      ValueError: it is neither, or another module.

    Example:
      >>> model_and_params(("a model", {"w": 1.0}), str)[0]
      'a model'
    """
    try:
        model, params = source if isinstance(source, tuple | list) else (source.model, source.params)
    except (AttributeError, ValueError) as error:
        raise ValueError("give a checkpoint, or (model, params)") from error
    if not isinstance(model, kind):
        raise ValueError(f"{type(model).__name__} is no {kind.__name__}: it cannot be used here")
    return model, jax.tree.map(jnp.asarray, params)
