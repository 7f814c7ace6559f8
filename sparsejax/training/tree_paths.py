"""Leaves of a nested tree by path, as rules over parameter names need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def map_paths(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """Apply a function of path and leaf to every leaf.

    Args:
      function: takes the path, keys joined by ``/``, and the leaf.
      tree: any pytree.

    Returns:
      a tree of the same structure.

    Example:
      >>> map_paths(lambda path, leaf: path, {"layer_0": {"norm1": {"scale": 1}}})
      {'layer_0': {'norm1': {'scale': 'layer_0/norm1/scale'}}}
    """

    def named(keys: Any, leaf: Any) -> Any:
        return function(jax.tree_util.keystr(keys, simple=True, separator="/"), leaf)

    return jax.tree_util.tree_map_with_path(named, tree)
