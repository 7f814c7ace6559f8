"""Many structures screened: batches of like sizes, spread over the devices of all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparsejax.checkpoint.native.barrier import wait_for_all
from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.packing import MOST_ATOMS, Packed, block_of, in_blocks, in_lists, padded
from sparsejax.models.force_field.potential import (
    ForceField,
    Prediction,
    checked,
    predict_packed,
    unpacked,
)
from sparsejax.models.force_field.prediction import Filters
from sparsejax.models.force_field.structure import Structure, as_structure, check_structure
from sparsejax.typing import Params

Told = Callable[[int], Any]
"""Called now and then with the structures that this process has done."""

_AXIS = "batches"
_Weights = tuple[Params, Filters | None]


class _Kind(NamedTuple):
    """What structures must share to be computed side by side.

    Attributes:
      block: atoms that molecules are padded to; None for structures with lists of neighbours.
      repeats: whether any direction repeats.
      stress: whether all three do.
    """

    block: int | None
    repeats: bool
    stress: bool


class _Round(NamedTuple):
    """Batches that the devices compute side by side.

    Attributes:
      kind: of all of their structures.
      batches: places of the structures of each device's batch, in the order of the devices; the last ones
        may be empty.
      graphs: structures that a batch has room for.
    """

    kind: _Kind
    batches: list[list[int]]
    graphs: int


def screen(
    field: ForceField,
    structures: Sequence[Any],
    *,
    devices: Sequence[jax.Device] | None = None,
    told: Told | None = None,
) -> list[Prediction]:
    """Energies, forces and stress of many structures, computed by all devices of all processes.

    Every process makes the same call with the same structures and gets all results. Structures of like sizes
    form batches of few shapes, the batches go around the devices, and nothing is exchanged before the end,
    when every process sends the results of its own devices to all others.

    Args:
      field: network and parameters.
      structures: ``ase.Atoms`` or `Structure`.
      devices: that compute; those of all processes if not given.
      told: see `Told`.

    Returns:
      what `ForceField.predict` returns for them, in their order.

    Raises:
      ValueError: no structures; one that the network cannot answer for; or a result that is no number. The
        message has the structure's place in the list, counted from 0. Nothing is computed before all
        structures have been looked at.

    Example:
      >>> import sparsejax as sj
      >>> from ase.build import molecule
      >>> field = ForceField.from_checkpoint(sj.load("checkpoints/ultra_tiny_gfn2.pt"))
      >>> found = screen(field, [molecule("H2O"), molecule("CH4"), molecule("CO2")])
      >>> [prediction.forces.shape for prediction in found]
      [(3, 3), (5, 3), (3, 3)]
    """
    if not len(structures):
        raise ValueError("there are no structures to screen")
    given = [_looked_at(number, atoms, field.config) for number, atoms in enumerate(structures)]
    devices = jax.devices() if devices is None else devices
    rounds = _rounds(given, len(devices))
    own = dict(_computed(field, given, rounds, devices, told or (lambda done: None)))
    found = _of_all_processes(own, given, rounds, devices, field.dtype)
    return [checked(found[place], name=f"structure {place}") for place in range(len(given))]


def _looked_at(number: int, atoms: Any, config: ForceFieldConfig) -> Structure:
    name = f"structure {number}"
    try:
        structure = as_structure(atoms)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    check_structure(structure, config, name=name)
    return structure


def _rounds(structures: Sequence[Structure], parts: int) -> list[_Round]:
    """Who computes what: the same plan in every process, made of the sizes alone."""
    groups: dict[_Kind, list[int]] = {}
    for place, structure in enumerate(structures):
        kind = _Kind(block_of(structure), structure.periodic, bool(structure.pbc.all()))
        groups.setdefault(kind, []).append(place)
    rounds = []
    for kind, places in groups.items():
        graphs = 1
        if kind.block is None:  # neighbours in this order share a shape
            places.sort(key=lambda place: structures[place].num_atoms)
        else:
            share = -(-len(places) // parts)
            graphs = min(max(1, MOST_ATOMS // kind.block), padded(share))
        batches = [places[at : at + graphs] for at in range(0, len(places), graphs)]
        for at in range(0, len(batches), parts):
            some = batches[at : at + parts]
            rounds.append(_Round(kind, some + [[]] * (parts - len(some)), graphs))
    return rounds


def _parts_of(process: int, devices: Sequence[jax.Device]) -> list[int]:
    """Numbers of the devices that belong to a process."""
    return [part for part, device in enumerate(devices) if device.process_index == process]


def _computed(
    field: ForceField,
    structures: Sequence[Structure],
    rounds: Sequence[_Round],
    devices: Sequence[jax.Device],
    told: Told,
) -> Iterator[tuple[int, Prediction]]:
    """Places and predictions of this process's batches."""
    mine = _parts_of(jax.process_index(), devices)
    if not mine:
        return
    mesh = Mesh(np.array([devices[part] for part in mine]), (_AXIS,))
    weights = jax.device_put((field.params, field.filters), NamedSharding(mesh, PartitionSpec()))

    def launched() -> Iterator[_Launched]:
        for one in rounds:
            batches = [one.batches[part] for part in mine if one.batches[part]]
            if batches:
                packed = _packed(field, [[structures[place] for place in own] for own in batches], one)
                yield _Launched(_launch(field, one, packed, mesh, weights), packed, batches)

    on_their_way, done = launched(), 0
    before = next(on_their_way, None)
    while before is not None:
        after = next(on_their_way, None)  # packed while the devices compute the one before
        for place, prediction in _fetched(before):
            done += 1
            yield place, prediction
        told(done)
        before = after


class _Launched(NamedTuple):
    """A round on its way.

    Attributes:
      found: predictions of all batches, perhaps not yet computed.
      packed: what the devices were given.
      batches: places of their structures.
    """

    found: Prediction
    packed: list[Packed]
    batches: list[list[int]]


def _packed(field: ForceField, batches: Sequence[Sequence[Structure]], one: _Round) -> list[Packed]:
    """Batches of one shape."""
    cutoff, block = field.config.cutoff, one.kind.block
    if block is None:
        return in_lists([structure for (structure,) in batches], cutoff, field.dtype)
    return [in_blocks(batch, block, field.dtype, graphs=one.graphs) for batch in batches]


def _launch(field: ForceField, one: _Round, packed: Sequence[Packed], mesh: Mesh, weights: _Weights) -> Any:
    idle = mesh.size - len(packed)  # they have no batch and compute another's
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *packed, *[packed[0]] * idle)
    placed = jax.device_put(stacked, NamedSharding(mesh, PartitionSpec(_AXIS)))
    return _predict_batches(field.config, one.kind.stress, mesh, weights, placed)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _predict_batches(
    config: ForceFieldConfig, stress: bool, mesh: Mesh, weights: _Weights, packed: Packed
) -> Prediction:
    """A batch on each device; one program for all of them."""

    def body(weights: _Weights, packed: Packed) -> Prediction:
        own = jax.tree.map(lambda leaf: leaf[0], packed)
        return jax.tree.map(lambda leaf: leaf[None], predict_packed(config, stress, *weights, own))

    whole, spread = PartitionSpec(), PartitionSpec(_AXIS)
    each = jax.shard_map(body, mesh=mesh, in_specs=(whole, spread), out_specs=spread, check_vma=False)
    found: Prediction = each(weights, packed)
    return found


def _fetched(launched: _Launched) -> Iterator[tuple[int, Prediction]]:
    found = jax.device_get(launched.found)
    for row, (packed, places) in enumerate(zip(launched.packed, launched.batches, strict=True)):
        of_batch = jax.tree.map(lambda leaf, row=row: leaf[row], found)
        yield from ((place, unpacked(of_batch, packed, number)) for number, place in enumerate(places))


def _of_all_processes(
    own: dict[int, Prediction],
    structures: Sequence[Structure],
    rounds: Sequence[_Round],
    devices: Sequence[jax.Device],
    dtype: np.dtype,
) -> dict[int, Prediction]:
    """The predictions of all structures, from those that each process computed."""
    processes = range(jax.process_count())
    if len(processes) == 1:
        return own
    from jax.experimental.multihost_utils import process_allgather

    places = [_places_of(_parts_of(process, devices), rounds) for process in processes]
    lengths = [[_length(structures[place]) for place in some] for some in places]
    sent = np.zeros(max(sum(some) for some in lengths), dtype)
    mine = [_as_vector(own[place]) for place in places[jax.process_index()]]
    if mine:
        together = np.concatenate(mine)
        sent[: len(together)] = together
    wait_for_all("screened")
    found: dict[int, Prediction] = {}
    for some, sizes, vector in zip(places, lengths, process_allgather(sent), strict=True):
        for place, values in zip(some, np.split(vector, np.cumsum(sizes)), strict=False):
            found[place] = _of_vector(values, structures[place])
    return found


def _places_of(parts: Sequence[int], rounds: Sequence[_Round]) -> list[int]:
    return [place for one in rounds for part in parts for place in one.batches[part]]


def _length(structure: Structure) -> int:
    """Numbers of a prediction: energy, stress, and of each atom energy and force."""
    return 1 + 6 + 4 * structure.num_atoms


def _as_vector(prediction: Prediction) -> np.ndarray:
    stress = np.zeros(6) if prediction.stress is None else prediction.stress
    parts = (prediction.energy, stress, prediction.atomic_energies, prediction.forces)
    return np.concatenate([np.ravel(part) for part in parts])


def _of_vector(values: np.ndarray, structure: Structure) -> Prediction:
    parts: list[Any] = np.split(values, np.cumsum((1, 6, structure.num_atoms)))
    energy, stress, atomic, forces = parts
    whole = bool(structure.pbc.all())
    return Prediction(energy[0], forces.reshape(-1, 3), stress if whole else None, atomic)
