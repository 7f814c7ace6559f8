"""What is measured: molecules, silicon, networks of the three published sizes, and the calls of all sides."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparsejax.bench.contest import Call
from sparsejax.bench.peers import torch_force_field as peer
from sparsejax.bench.peers.torch_force_field_weights import (
    Pairs,
    pairs,
    random_params,
    weights_of_params,
)
from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.structure import Structure, as_structure

SIZES: dict[str, dict[str, Any]] = {
    "Original": {"hidden_dim": 128, "num_interactions": 3, "num_rbf": 20},
    "Tiny": {"hidden_dim": 64, "num_interactions": 2, "num_rbf": 12},
    "Ultra-tiny": {"hidden_dim": 32, "num_interactions": 2, "num_rbf": 10},
}
"""As published; cutoff 5 A, table of 100 elements."""

MOLECULES = (
    "Benzene-ammonia_complex",
    "isobutane",
    "Pyrazine_dimer",
    "C3H9N",
    "CH3CH2OCH3",
    "Benzene-methane_complex",
    "trans-butane",
    "C2H6CHOH",
    "Benzene-water_complex",
    "C6H6",
    "C5H8",
    "Formamide_dimer",
    "Benzene-HCN_complex",
    "isobutene",
    "cyclobutane",
    "Ethene_dimer",
)
"""12 to 20 atoms, 14.0 on average: names of the sets G2 and S22, as ASE has them."""

TWENTY_ATOMS = "Pyrazine_dimer"
_RATTLE = 0.05  # A


class Network(NamedTuple):
    """One force field that is measured.

    Attributes:
      name: "Original", "Tiny", "Ultra-tiny", or that of a file.
      config: its sizes.
      params: as `StudentForceField` has them.
      trained: whether they come from a file; otherwise they are random.
    """

    name: str
    config: ForceFieldConfig
    params: Any
    trained: bool


def networks(checkpoints: Sequence[str | Path] = ()) -> list[Network]:
    """The three published sizes, and whatever else the files hold.

    Args:
      checkpoints: each replaces the random network of its size; one of another size comes in addition.

    Raises:
      CheckpointError: a file cannot be read, or is no force field.
    """
    from sparsejax.checkpoint.load import load

    found = {name: _random(name) for name in SIZES}
    for path in checkpoints:
        ck = load(path, kind="force_field")
        name = _size_of(ck.config) or Path(path).stem
        found[name] = Network(name, ck.config, ck.params, True)
    return list(found.values())


def molecules(count: int, seed: int = 0) -> list[Structure]:
    """The first molecules of `MOLECULES`, over and over, each with its atoms moved a little."""
    draws = np.random.default_rng(seed)
    found = []
    for number in range(count):
        structure = _molecule(MOLECULES[number % len(MOLECULES)])
        moved = structure.positions + _RATTLE * draws.standard_normal(structure.positions.shape)
        found.append(structure._replace(positions=moved))
    return found


def silicon(repeats: int, seed: int = 0) -> Structure:
    """Diamond silicon of 8 repeats^3 atoms, each moved a little."""
    from ase.build import bulk

    structure = as_structure(bulk("Si", cubic=True).repeat(repeats))
    moves = np.random.default_rng(seed).standard_normal(structure.positions.shape)
    return structure._replace(positions=structure.positions + _RATTLE * moves)


@dataclass(frozen=True)
class Task:
    """A network and the structures that one call computes together.

    Attributes:
      network: which.
      structures: molecules, or one crystal.
    """

    network: Network
    structures: tuple[Structure, ...]

    @property
    def atoms(self) -> int:
        """Of all structures."""
        return sum(structure.num_atoms for structure in self.structures)

    @property
    def owners(self) -> np.ndarray:
        """(n,) the structure of each atom."""
        return np.repeat(np.arange(len(self.structures)), [one.num_atoms for one in self.structures])

    @property
    def edges(self) -> int:
        """Directed edges of all structures."""
        return len(_edges(self)[0])


Result = tuple[Any, Any]
"""Energies (g,) in eV and forces (n, 3) in eV/A, in the order of the structures."""


def usual_filters(network: Network) -> str:
    """What "auto" comes to for this network on this machine: "exact" or "table"."""
    from sparsejax.models.force_field.tables import choose_filters

    return "exact" if choose_filters(network.config, network.params) is None else "table"


def ours(task: Task, filters: str, *, backend: str = "auto") -> tuple[Call, Callable[[Any], Result]]:
    """A compiled call over packed structures on the device, and the way to read what it gives.

    Args:
      task: what to compute; in the precision of the network's parameters.
      filters: "exact" or "table".
      backend: of `edge_conv`.
    """
    import jax

    from sparsejax.models.force_field.packing import pack
    from sparsejax.models.force_field.potential import predict_rows
    from sparsejax.models.force_field.tables import choose_filters

    config, params = task.network.config, jax.device_put(task.network.params)
    tables = choose_filters(config, params, filters)  # type: ignore[arg-type]
    packs = list(pack(task.structures, config.cutoff, params["embedding"]["embedding"].dtype))

    @jax.jit
    def step(params: Any, tables: Any, packed: Any) -> Any:
        return [
            predict_rows(
                config,
                params,
                one.species,
                one.positions,
                one.neighbors,
                graph_of_atom=one.graph_of_atom,
                num_graphs=len(one.starts),
                cell=one.cell,
                filters=tables,
                backend=backend,
            )
            for one in packed
        ]

    placed = jax.device_put([_arrays(packed) for packed, _ in packs])

    def call() -> Any:
        return jax.block_until_ready(step(params, tables, placed))

    def read(found: Any) -> Result:
        energies, forces = np.zeros(len(task.structures)), [np.zeros((0, 3))] * len(task.structures)
        for (packed, places), prediction in zip(packs, jax.device_get(found), strict=True):
            for number, place in enumerate(places):
                start, count = packed.starts[number], packed.counts[number]
                energies[place] = prediction.energy[number]
                forces[place] = prediction.forces[start : start + count]
        return energies, np.concatenate(forces)

    return call, read


def predict(task: Task) -> Call:
    """`ForceField.predict` of the structures: lists of neighbours, packing and copies are part of it."""
    import jax

    from sparsejax.models.force_field.potential import ForceField
    from sparsejax.models.force_field.tables import choose_filters

    config, params = task.network.config, jax.device_put(task.network.params)
    field, structures = ForceField(config, params, choose_filters(config, params)), list(task.structures)
    return lambda: field.predict(structures)


def read_predict(found: Any) -> Result:
    """Energies and forces of what `predict` gives."""
    return np.array([one.energy for one in found]), np.concatenate([one.forces for one in found])


def torch_peers(task: Task, *, compiled: bool, device: str = "cpu") -> dict[str, Callable[[], Call]]:
    """By name: functions that build the calls of the torch networks over the same edges.

    Args:
      task: what to compute.
      compiled: with ``torch.compile`` too, which takes its time.
      device: of the tensors.
    """
    kinds = {"torch as published": "published", "torch": "tuned", "torch, filters shared": "shared"}
    builders: dict[str, Callable[[], Call]] = {}
    for name, kind in kinds.items():
        builders[name] = partial(_torch_call, task, kind, device=device)
        if compiled:
            builders[f"{name}, compiled"] = partial(_torch_call, task, kind, device=device, compiled=True)
    return builders


def read_torch(found: Any) -> Result:
    """Energies and forces of what a torch peer gives."""
    energies, forces = (np.asarray(part.cpu(), np.float64) for part in found)
    return energies, forces


def exact(task: Task) -> Result:
    """Energies and forces in float64: by torch as published, or by our own network where that cannot be."""
    try:
        return read_torch(_torch_call(task, "published", dtype="float64")())
    except (ModuleNotFoundError, peer.PeerError):
        return _exact_ours(task)


def _exact_ours(task: Task) -> Result:
    """By flat sums over edges, with computed filters."""
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), task.network.params)
        network = task.network._replace(params=wide)
        call, read = ours(Task(network, task.structures), "exact", backend="reference")
        return read(call())


def _torch_call(
    task: Task, kind: str, *, dtype: str = "float32", device: str = "cpu", compiled: bool = False
) -> Call:
    import torch

    network, cutoff = task.network, task.network.config.cutoff
    if network.config.variant != "cartesian":
        raise peer.PeerError("the published network is the variant 'cartesian' only")
    weights = weights_of_params(network.params, dtype=dtype, device=device)
    listed = _torch_pairs(task, dtype, device)
    if kind == "published":
        call = peer.energy_and_forces_of_positions(peer.published(weights, listed, cutoff=cutoff), listed)
    else:
        energies = peer.tuned(weights, listed, cutoff=cutoff, share=kind == "shared")
        call = peer.energy_and_forces(energies, listed)
    places = np.concatenate([_centred(structure) for structure in task.structures])
    positions = torch.as_tensor(places, dtype=getattr(torch, dtype), device=device)
    fast = peer.compiled(call, positions) if compiled else call
    return lambda: fast(positions)


def _torch_pairs(task: Task, dtype: str, device: str) -> Pairs:
    species = np.concatenate([structure.species for structure in task.structures])
    senders, receivers, shifts = _edges(task)
    return pairs(species, senders, receivers, graph=task.owners, shifts=shifts, dtype=dtype, device=device)


def _edges(task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Senders, receivers and, of crystals, shifts in A: the list that all sides have."""
    from sparsejax.models.force_field.neighbors import edge_list

    parts, first, periodic = [], 0, False
    for structure in task.structures:
        edges = edge_list(structure, task.network.config.cutoff)
        cell = np.zeros((3, 3)) if structure.cell is None else structure.cell
        periodic |= structure.periodic
        parts.append((edges.senders + first, edges.receivers + first, edges.shifts @ cell))
        first += structure.num_atoms
    senders, receivers, shifts = (np.concatenate(part) for part in zip(*parts, strict=True))
    return senders, receivers, shifts if periodic else None


def _arrays(packed: Any) -> Any:
    """What `ours` hands to its compiled call: starts keep their shape only."""
    return dataclasses.replace(packed, counts=packed.starts)


def _centred(structure: Structure) -> np.ndarray:
    """Positions near the origin, where single precision is finest; all sides get these."""
    return structure.positions - structure.positions.mean(0)


@cache
def _random(name: str) -> Network:
    config = ForceFieldConfig(**SIZES[name], max_z=100, variant="cartesian")
    return Network(name, config, random_params(0, **SIZES[name]), False)


def _size_of(config: ForceFieldConfig) -> str | None:
    return next(
        (name for name, sizes in SIZES.items() if all(getattr(config, key) == n for key, n in sizes.items())),
        None,
    )


@cache
def _molecule(name: str) -> Structure:
    from ase.build import molecule
    from ase.collections import s22

    return as_structure(s22[name] if name in s22.names else molecule(name))
