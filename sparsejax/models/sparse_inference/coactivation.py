"""Which neurons stand side by side: those that act together, so that active ones fall into few blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

_ROUNDS = 20  # of improvement; it ends by itself long before
_LEAST_GAIN = 1e-6  # of the whole, below which a round has found nothing


def coactivation_order(strengths: Any, block_size: int, *, hot: int = 0, unit: int = 1) -> np.ndarray:
    """An order of neurons whose blocks hold neurons that are strong for the same samples.

    It climbs to a large sum, over samples and blocks, of the squared strength of a block: the strength of a
    sample is then in few blocks. Halves are split by the main direction in which their neurons differ, until
    blocks are left; then neurons move between blocks while that helps.

    Args:
      strengths: (n, f) of neurons for samples, none negative, such as ``|h_j|`` times the norm of the
        neuron's output row. A few hundred samples are enough.
      block_size: neurons per block; the last block may be shorter.
      hot: so many neurons, those that are active for the most samples, come first, in whole blocks of their
        own; rounded up to whole blocks.
      unit: neurons that stay together, in their order: 32 where weights are quantised in blocks along the
        neurons (256 for K formats). It must divide ``block_size`` and the neurons.

    Returns:
      (f,) integers: the neuron that comes to each place.

    Raises:
      ValueError: strengths that are no finite matrix without negative values, or sizes that do not fit.

    Example:
      >>> coactivation_order(np.asarray([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]), 2).tolist()
      [0, 2, 1, 3]

    Source: PowerInfer's hot and cold neurons, and MoEfication's clusters of neurons of one size (Zhang et
    al. 2022); the climb is our own.
    """
    strengths = np.asarray(strengths)
    _check(strengths, block_size, hot, unit)
    strengths = strengths.astype(np.float32)
    neurons = strengths.shape[1]
    units = strengths.reshape(len(strengths), -1, unit).sum(axis=-1).T
    per_block = block_size // unit
    count = min(len(units), -(-hot // block_size) * per_block)
    often = np.argsort(-(units > 0).mean(axis=1), kind="stable")
    order = []
    for part in (often[:count], np.sort(often[count:])):
        if len(part):
            block_of = _improved(units[part], _split(units[part], per_block), per_block)
            order.append(part[_by_first(block_of)])
    places = np.concatenate(order)
    return (places[:, None] * unit + np.arange(unit)).reshape(neurons)


def check_order(order: Any, neurons: int, *, unit: int = 1) -> np.ndarray:
    """An order of all neurons, as integers.

    Args:
      order: (f,) the neuron that comes to each place.
      neurons: f.
      unit: neurons that must stay together, in their order.

    Raises:
      ValueError: it is no permutation, or it tears apart a unit.

    Example:
      >>> check_order([2, 3, 0, 1], 4, unit=2).tolist()
      [2, 3, 0, 1]
    """
    order = np.asarray(order)
    if order.shape != (neurons,) or not np.array_equal(np.sort(order), np.arange(neurons)):
        raise ValueError(f"the order is no permutation of {neurons} neurons")
    whole = order.reshape(-1, unit) if neurons % unit == 0 else None
    if whole is None or (whole[:, :1] % unit).any() or (whole != whole[:, :1] + np.arange(unit)).any():
        raise ValueError(
            f"the order tears apart blocks of {unit} neurons, which quantised weights keep together; "
            f"make it with unit={unit}"
        )
    return order.astype(np.int32)


def _check(strengths: np.ndarray, block_size: int, hot: int, unit: int) -> None:
    if strengths.ndim != 2 or not np.isfinite(strengths).all() or (strengths < 0).any():
        raise ValueError("strengths must be a finite matrix (samples, neurons) without negative values")
    if unit < 1 or block_size < 1 or block_size % unit or strengths.shape[1] % unit:
        raise ValueError(
            f"unit {unit} must divide block_size {block_size} and the {strengths.shape[1]} neurons"
        )
    if not 0 <= hot <= strengths.shape[1]:
        raise ValueError(f"hot must be 0 to {strengths.shape[1]}, the neurons, not {hot}")


def _split(rows: np.ndarray, size: int) -> np.ndarray:
    """(f,) the block of each row: halves of whole blocks, split along their main direction."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    alike = rows / np.maximum(length, np.finfo(np.float32).tiny)
    block_of = np.zeros(len(rows), np.int64)
    todo, block = [np.arange(len(rows))], 0
    while todo:
        part = todo.pop()
        blocks = -(-len(part) // size)
        if blocks == 1:
            block_of[part] = block
            block += 1
            continue
        ranked = part[np.argsort(_main_direction(alike[part]), kind="stable")]
        left = blocks // 2 * size
        todo += [ranked[left:], ranked[:left]]
    return block_of


def _main_direction(rows: np.ndarray) -> np.ndarray:
    """(f,) where each row stands along the direction of largest variance."""
    centred = rows - rows.mean(axis=0)
    place = np.random.default_rng(0).standard_normal(len(rows)).astype(np.float32)
    for _ in range(12):
        direction = place @ centred
        place = centred @ (direction / max(float(np.linalg.norm(direction)), 1e-30))
    return place


def _improved(rows: np.ndarray, block_of: np.ndarray, size: int) -> np.ndarray:
    """Blocks of the same sizes, chosen anew for all rows while the sum of squared strengths grows."""
    room = np.bincount(block_of)
    best, total = block_of, _squares(rows, block_of)
    for _ in range(_ROUNDS if len(room) > 1 and size > 1 else 0):
        tried = _placed(rows, best, room)
        found = _squares(rows, tried)
        if found <= total * (1 + _LEAST_GAIN):
            break
        best, total = tried, found
    return best


def _placed(rows: np.ndarray, block_of: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Every row into the block whose strength is most along it, those that gain the most first."""
    sums = _block_sums(rows, block_of)
    own = (rows * rows).sum(axis=1)
    wish = rows @ sums.T
    wish[np.arange(len(rows)), block_of] -= own  # what a row adds to its own block's sum says nothing
    left, new = room.copy(), np.full(len(rows), -1)
    waiting = np.arange(len(rows))
    while len(waiting):
        open_blocks = np.flatnonzero(left)
        choice = open_blocks[wish[np.ix_(waiting, open_blocks)].argmax(axis=1)]
        gain = wish[waiting, choice]
        ranked = np.lexsort((-gain, choice))
        start = np.searchsorted(choice[ranked], choice[ranked])
        taken = ranked[np.arange(len(ranked)) - start < left[choice[ranked]]]
        new[waiting[taken]] = choice[taken]
        left -= np.bincount(choice[taken], minlength=len(left))
        waiting = waiting[new[waiting] < 0]
    return new


def _block_sums(rows: np.ndarray, block_of: np.ndarray) -> np.ndarray:
    ranked = np.argsort(block_of, kind="stable")
    starts = np.searchsorted(block_of[ranked], np.arange(block_of.max() + 1))
    return np.add.reduceat(rows[ranked], starts, axis=0)


def _squares(rows: np.ndarray, block_of: np.ndarray) -> float:
    sums = _block_sums(rows, block_of)
    return float((sums * sums).sum(dtype=np.float64))


def _by_first(block_of: np.ndarray) -> np.ndarray:
    """Places in the order of their blocks, and those by their first member; the shortest block last."""
    blocks = np.arange(block_of.max() + 1)
    first = np.full(len(blocks), len(block_of))
    np.minimum.at(first, block_of, np.arange(len(block_of)))
    short = np.bincount(block_of) < np.bincount(block_of).max()
    rank = np.empty(len(blocks), np.int64)
    rank[np.lexsort((first, short))] = blocks
    return np.argsort(rank[block_of], kind="stable")
