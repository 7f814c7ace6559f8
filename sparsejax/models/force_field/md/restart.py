"""A run on the disk: everything that it goes on from, bit for bit."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparsejax.checkpoint import store
from sparsejax.checkpoint.errors import CheckpointError
from sparsejax.checkpoint.native.header import HEADER_FILE
from sparsejax.checkpoint.random_keys import as_keys, key_free
from sparsejax.models.force_field.md.run import Simulation
from sparsejax.models.force_field.neighbors_in_jit.cells import Grid
from sparsejax.models.force_field.neighbors_in_jit.plan import Plan

KIND = "molecular_dynamics"


def save_run(folder: Path, simulation: Simulation, settings: Mapping[str, Any]) -> None:
    """Write state, neighbour list, thermostat and key; what was saved before stays valid until this is whole.

    Args:
      folder: for this alone.
      simulation: between two calls of the loop.
      settings: plain JSON, everything that the next steps depend on; see `fingerprint`.

    Raises:
      CheckpointError: the disk refuses, or the folder holds something else.
    """
    header = {
        "kind": KIND,
        "step": simulation.step,
        "settings": dict(settings),
        "plan": dataclasses.asdict(simulation.lists.plan),
    }
    store.write_directory(folder, header, _arrays(simulation))


def saved_step(folder: Path) -> int | None:
    """Steps done by the run in a folder; None where there is none.

    Raises:
      CheckpointError: the folder is damaged or holds something else.
    """
    if not (folder / HEADER_FILE).exists():
        return None
    return int(_header(folder).fields["step"])


def restore_run(folder: Path, simulation: Simulation, settings: Mapping[str, Any]) -> None:
    """Put a saved run into a simulation that was started in the same way.

    Args:
      folder: that `save_run` wrote to.
      simulation: as it would start anew; is changed.
      settings: of this run.

    Raises:
      CheckpointError: there is none, it is damaged, or it was another run: other atoms, another network,
        ensemble or time step.
    """
    header = _header(folder)
    _check_settings(folder, header.fields["settings"], settings)
    simulation.lists = dataclasses.replace(simulation.lists, plan=_plan(header.fields["plan"]))
    arrays = store.read_arrays(header, store.array_shapes(header))
    paths, structure = jax.tree.flatten_with_path(_parts(simulation))
    leaves = []
    for path, like in paths:
        name = _name(path)
        if name not in arrays:
            raise CheckpointError(f"{folder}: holds no {name!r}; it was saved by another version, start anew")
        leaves.append(as_keys(like, arrays[name]))
    state, lists, integrator = jax.tree.unflatten(structure, leaves)
    simulation.state, simulation.lists, simulation.integrator = state, lists, integrator


def fingerprint(parameters: Any) -> str:
    """A checksum of all arrays, which another network does not share.

    Example:
      >>> fingerprint({"w": np.ones(3)}) == fingerprint({"w": np.zeros(3)})
      False
    """
    check = 0
    for leaf in jax.tree.leaves(parameters):
        array = np.asarray(leaf)
        check = zlib.crc32(
            np.ascontiguousarray(array).tobytes(), zlib.crc32(str(array.dtype).encode(), check)
        )
    return f"{check:08x}"


def _parts(simulation: Simulation) -> tuple[Any, Any, Any]:
    return simulation.state, simulation.lists, simulation.integrator


def _arrays(simulation: Simulation) -> dict[str, Any]:
    paths, _ = jax.tree.flatten_with_path(_parts(simulation))
    return {_name(path): key_free(leaf) for path, leaf in paths}


def _plan(fields: Mapping[str, Any]) -> Plan:
    """How the list was built in the end: it may have grown since the run began."""
    if fields["method"] == "cell_list":
        import jax_md  # noqa: F401  what it makes at import must not be made while jit traces
    values: dict[str, Any]
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    if values["grid"] is not None:
        counts, capacity = values["grid"]
        values["grid"] = Grid(tuple(counts), capacity)
    return Plan(**values)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _header(folder: Path) -> store.Header:
    header = store.read_header(folder)
    if header.fields.get("kind") != KIND:
        raise CheckpointError(
            f"{folder}: holds a {header.fields.get('kind')!r}, not a run of molecular dynamics"
        )
    return header


def _check_settings(folder: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name, value in now.items():
        if saved.get(name) != value:
            raise CheckpointError(
                f"{folder}: was run with {name} {_short(saved.get(name))}, not {_short(value)}; go on with "
                "what it was started with, or start anew in another folder"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]} ..."
