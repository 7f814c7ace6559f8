"""Arrays by path in one Orbax folder: the only place that calls Orbax.

Orbax neither stores arrays without elements nor tells names with dots from nested ones; both are the caller's
concern. It is imported inside functions: it takes a second.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparsejax.checkpoint.tree import flatten, unflatten


def can_store(dtype: Any) -> bool:
    """Whether arrays of this dtype can be stored; JAX's own PRNG key dtypes cannot."""
    import tensorstore

    try:
        tensorstore.dtype(np.dtype(dtype))
    except (TypeError, ValueError):
        return False
    return True


def save(folder: Path, arrays: Mapping[str, Any]) -> None:
    """Writes NumPy and JAX arrays, each with at least one element, to a new folder and waits until done.

    Weights hardly shrink (8 % of random float32) and saving them compressed takes four times as long.
    """
    with _orbax() as ocp, ocp.PyTreeCheckpointer(use_compression=False) as checkpointer:
        checkpointer.save(folder, unflatten(arrays))


def restore(folder: Path, leaves: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Reads exactly these arrays, each onto the sharding of its leaf."""
    with _orbax() as ocp, ocp.PyTreeCheckpointer() as checkpointer:
        arguments = {
            path: ocp.ArrayRestoreArgs(sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype)
            for path, leaf in leaves.items()
        }
        request = ocp.args.PyTreeRestore(item=unflatten(leaves), restore_args=unflatten(arguments))
        return flatten(checkpointer.restore(folder, args=request))


def restore_numpy(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Reads exactly these arrays into host memory, in the dtype they were saved in."""
    with _orbax() as ocp, ocp.PyTreeCheckpointer() as checkpointer:
        arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
        request = ocp.args.PyTreeRestore(item=dict.fromkeys(names, 0), restore_args=arguments)
        arrays: dict[str, np.ndarray] = checkpointer.restore(folder, args=request)
        return arrays


@contextmanager
def _orbax() -> Iterator[Any]:
    """Orbax, kept from giving the root logger a handler: absl does so at each message if it has none."""
    silent = logging.NullHandler()
    logging.root.addHandler(silent)
    try:
        import orbax.checkpoint as ocp

        yield ocp
    finally:
        logging.root.removeHandler(silent)
