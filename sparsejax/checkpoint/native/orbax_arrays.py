"""Arrays by path in one Orbax folder: the only place that calls Orbax.

Orbax neither stores arrays without elements nor tells names with dots from nested ones; both are the caller's
concern. It is imported inside functions: it takes a second.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
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


def span_processes(leaves: Iterable[Any]) -> bool:
    """Whether any of these arrays, or of their templates, lies on devices of several processes."""
    places = (getattr(leaf, "sharding", None) for leaf in leaves)
    return any(place is not None and not place.is_fully_addressable for place in places)


def save(folder: Path, arrays: Mapping[str, Any]) -> None:
    """Writes NumPy and JAX arrays, each with at least one element, to a new folder and waits until done.

    Arrays that span processes are written by all of these, which must all call it; others by this one alone.
    Weights hardly shrink (8 % of random float32) and saving them compressed takes four times as long.
    """
    together = span_processes(arrays.values())
    if not together and jax.process_count() > 1:  # Orbax would not know which process's array to write
        arrays = {path: np.asarray(array) for path, array in arrays.items()}
    with _checkpointer(together=together, use_compression=False) as (_, checkpointer):
        checkpointer.save(folder, unflatten(arrays))


def restore(folder: Path, leaves: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Reads exactly these arrays, each onto its leaf's sharding; what spans processes by all of these."""
    with _checkpointer(together=span_processes(leaves.values())) as (ocp, checkpointer):
        arguments = {
            path: ocp.ArrayRestoreArgs(sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype)
            for path, leaf in leaves.items()
        }
        request = ocp.args.PyTreeRestore(item=unflatten(leaves), restore_args=unflatten(arguments))
        return flatten(checkpointer.restore(folder, args=request))


def restore_numpy(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Reads exactly these arrays into host memory, in the dtype they were saved in."""
    with _checkpointer(together=False) as (ocp, checkpointer):
        arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
        request = ocp.args.PyTreeRestore(item=dict.fromkeys(names, 0), restore_args=arguments)
        arrays: dict[str, np.ndarray] = checkpointer.restore(folder, args=request)
        return arrays


@contextmanager
def _checkpointer(*, together: bool, **options: Any) -> Iterator[tuple[Any, Any]]:
    """Orbax and a checkpointer of it: of all processes, or of this one, which waits for no other."""
    own = jax.process_index()
    with _orbax() as ocp:
        processes = ocp.options.MultiprocessingOptions(
            primary_host=0 if together else own, active_processes=None if together else {own}
        )
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=processes, **options)
        with ocp.Checkpointer(handler, multiprocessing_options=processes) as checkpointer:
            yield ocp, checkpointer


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
