"""Which neurons stand side by side: those that act together, so that active ones fall into few blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

PAIRWISE = 2048
"""Neurons, or units of them, up to which every pair is compared.

In a quarter of the blocks, pairs hold 2 % more of the strength of the shipped SPROUT network than the split
does, and up to 6 % more of made-up groups; 2,048 neurons take 27 s on one core, against 0.4 s.
"""

_ROUNDS = 20  # of improvement; it ends by itself long before
_SWEEPS = 200  # each swaps up to half as many pairs as there are blocks; far fewer are needed in practice
_LEAST_GAIN = 1e-6  # of the whole, below which a round or a swap has found nothing


def coactivation_order(strengths: Any, block_size: int, *, hot: int = 0, unit: int = 1) -> np.ndarray:
    """An order of neurons whose blocks hold neurons that are strong for the same samples.

    It climbs to a large sum, over samples and blocks, of the squared strength of a block: the strength of a
    sample is then in few blocks. Up to `PAIRWISE` neurons, or units, blocks are filled greedily, then pairs
    are swapped until no swap helps. More are split into halves by the main direction in which neurons differ,
    until blocks are left; then neurons move between blocks while that helps.

    Args:
      strengths: (n, f) of neurons for samples, none negative, such as ``|h_j|``, or that times the norm of
        the neuron's output row. A few hundred samples are enough.
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
    neurons = strengths.shape[1]
    units = strengths.reshape(len(strengths), -1, unit).sum(axis=-1, dtype=np.float64).T
    per_block = block_size // unit
    count = min(len(units), -(-hot // block_size) * per_block)
    often = np.argsort(-(units > 0).mean(axis=1), kind="stable")
    order = []
    for part in (often[:count], np.sort(often[count:])):
        if len(part):
            blocks = _pairwise if len(part) <= PAIRWISE else _halved
            order.append(part[np.argsort(blocks(units[part], per_block), kind="stable")])
    places = np.concatenate(order)
    return (places[:, None] * unit + np.arange(unit)).reshape(neurons)


def check_order(order: Any, neurons: int, *, unit: int = 1, of: str = "the FFN") -> np.ndarray:
    """An order of all neurons, as integers.

    Args:
      order: (f,) the neuron that comes to each place.
      neurons: f.
      unit: neurons that must stay together, in their order.
      of: whose neurons they are, for the message.

    Raises:
      ValueError: it is no permutation, or it tears apart a unit.

    Example:
      >>> check_order([2, 3, 0, 1], 4, unit=2).tolist()
      [2, 3, 0, 1]
    """
    order = np.asarray(order)
    if order.shape != (neurons,) or not np.array_equal(np.sort(order), np.arange(neurons)):
        raise ValueError(f"the order of {of} is no permutation of its {neurons} neurons")
    whole = order.reshape(-1, unit) if neurons % unit == 0 else None
    if whole is None or (whole[:, :1] % unit).any() or (whole != whole[:, :1] + np.arange(unit)).any():
        raise ValueError(
            f"the order of {of} tears apart blocks of {unit} neurons, which quantised weights keep together; "
            f"make it with unit={unit}"
        )
    return np.asarray(order, np.int32)


def _check(strengths: np.ndarray, block_size: int, hot: int, unit: int) -> None:
    if strengths.ndim != 2 or not np.isfinite(strengths).all() or (strengths < 0).any():
        raise ValueError("strengths must be a finite matrix (samples, neurons) without negative values")
    if unit < 1 or block_size < 1 or block_size % unit or strengths.shape[1] % unit:
        raise ValueError(
            f"unit {unit} must divide block_size {block_size} and the {strengths.shape[1]} neurons"
        )
    if not 0 <= hot <= strengths.shape[1]:
        raise ValueError(f"hot must be 0 to {strengths.shape[1]}, the neurons, not {hot}")


def _pairwise(rows: np.ndarray, size: int) -> np.ndarray:
    """(f,) the block of each row, of all pairs."""
    together = rows @ rows.T
    return _swapped(together, _filled(together, size))


def _filled(together: np.ndarray, block_size: int) -> np.ndarray:
    """The block (f,) of each neuron: each starts with the strongest one left, and takes what acts with it."""
    neurons = len(together)
    block_of, size = np.full(neurons, -1), np.sqrt(np.diagonal(together))
    alike = together / np.maximum(np.outer(size, size), np.finfo(float).tiny)
    for place in range(neurons):
        if place % block_size == 0:
            wanted, newest = size, None
        else:
            wanted = alike[newest] if place % block_size == 1 else wanted + alike[newest]
        newest = int(np.argmax(np.where(block_of < 0, wanted, -np.inf)))
        block_of[newest] = place // block_size
    return block_of


def _swapped(together: np.ndarray, block_of: np.ndarray) -> np.ndarray:
    """Neurons of different blocks exchanged while it helps; the pairs of one sweep share no block."""
    blocks, least = int(block_of.max()) + 1, _LEAST_GAIN * together.sum()
    own = np.diagonal(together)
    for _ in range(_SWEEPS):
        with_block = together @ np.eye(blocks)[block_of]
        at_home = with_block[np.arange(len(block_of)), block_of] - own
        toward = with_block[:, block_of] - at_home[:, None]
        gains = toward + toward.T - 2 * together
        gains[block_of[:, None] == block_of] = 0
        partner = gains.argmax(axis=1)
        best = gains.max(axis=1)
        touched: set[int] = set()
        for neuron in np.argsort(-best):
            other = partner[neuron]
            pair = {int(block_of[neuron]), int(block_of[other])}
            if best[neuron] <= least:
                break
            if not pair & touched:
                touched |= pair
                block_of[[neuron, other]] = block_of[[other, neuron]]
        if not touched:
            break
    return block_of


def _halved(rows: np.ndarray, size: int) -> np.ndarray:
    """(f,) the block of each row, of products with blocks alone."""
    rows = rows.astype(np.float32)
    return _by_first(_improved(rows, _split(rows, size), size))


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
    """The same blocks, numbered by their first member; the shortest one last."""
    blocks = np.arange(block_of.max() + 1)
    first = np.full(len(blocks), len(block_of))
    np.minimum.at(first, block_of, np.arange(len(block_of)))
    short = np.bincount(block_of) < np.bincount(block_of).max()
    rank = np.zeros(len(blocks), np.int64)
    rank[np.lexsort((first, short))] = blocks
    return np.take(rank, block_of)
