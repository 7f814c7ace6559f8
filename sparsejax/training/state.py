"""Training states on disk: any pytree of arrays, written so that a kill leaves the last whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax

from sparsejax.checkpoint import store
from sparsejax.checkpoint.random_keys import as_keys, key_free

KIND = "training_state"


class Saved(NamedTuple):
    """A state as it was saved.

    Attributes:
      states: the pytree.
      rounds: done at that time.
      seconds: of training until then.
    """

    states: Any
    rounds: int
    seconds: float


def save_state(folder: Path, states: Any, *, rounds: int, seconds: float) -> None:
    """Write a state by Orbax; the one saved before stays valid until the new one is complete.

    Args:
      folder: for this alone.
      states: pytree of arrays that `flax.serialization` takes apart: dicts, tuples, flax dataclasses; PRNG
        keys too.
      rounds: done.
      seconds: of training.

    Raises:
      CheckpointError: the disk refuses, or the folder holds something else.
    """
    arrays = flax.serialization.to_state_dict(jax.tree.map(key_free, states))
    store.write_directory(folder, {"kind": KIND, "rounds": rounds, "seconds": seconds}, arrays)


def restore_state(folder: Path, like: Any) -> Saved:
    """Read a state.

    Args:
      folder: that `save_state` wrote to.
      like: a state of the same structure, such as the first one; its leaves' shardings are taken over.

    Raises:
      CheckpointError: there is none, it is damaged, or it has another structure.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp()) / "state"
      >>> state = {"key": jax.random.key(1), "loss": jnp.ones(3)}
      >>> save_state(folder, state, rounds=7, seconds=1.5)
      >>> restore_state(folder, state).rounds
      7
    """
    header = store.read_header(folder)
    plain = jax.tree.map(_plain_like, like)
    arrays = store.read_arrays(header, flax.serialization.to_state_dict(plain))
    states = flax.serialization.from_state_dict(plain, arrays)
    states = jax.tree.map(as_keys, like, states)
    return Saved(states, int(header.fields["rounds"]), float(header.fields["seconds"]))


def _plain_like(leaf: Any) -> jax.ShapeDtypeStruct:
    plain = key_free(leaf)
    return jax.ShapeDtypeStruct(plain.shape, plain.dtype, sharding=plain.sharding)
