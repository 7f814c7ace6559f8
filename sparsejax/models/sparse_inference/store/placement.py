"""Which neurons stay on the device: those used most per byte, under a budget."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsejax.checkpoint import torch_file
from sparsejax.checkpoint.errors import CorruptFileError, NotReadableError, file_name

_NAME = re.compile(r"activation_(0|[1-9][0-9]{0,5})\.pt")


@dataclass(frozen=True)
class Placement:
    """Hot neurons of every layer.

    Attributes:
      hot: by layer, ids of the neurons that stay on the device, ascending.
      neurons: by layer, how many there are.
      nbytes: of the hot neurons.
      covered: share of all counted uses that are theirs; 1 where nothing was counted.
      bound: share that no placement under this budget exceeds. It equals ``covered`` where all neurons
        take equally many bytes and a placement could be proved best.

    Example:
      >>> place([[5, 1], [3, 4]], 10, budget=20).masks
      (array([ True, False]), array([False,  True]))
    """

    hot: tuple[np.ndarray, ...]
    neurons: tuple[int, ...]
    nbytes: int
    covered: float
    bound: float

    @property
    def masks(self) -> tuple[np.ndarray, ...]:
        """By layer, bool (f,): whether a neuron is hot."""
        found = tuple(np.zeros(count, bool) for count in self.neurons)
        for mask, ids in zip(found, self.hot, strict=True):
            mask[ids] = True
        return found

    def tensors(self) -> dict[str, np.ndarray]:
        """As PowerInfer has them: "blk.N.gpu_idx" int32 (f,) of 0 and 1, "blk.N.gpu_bucket" int32 (hot,)."""
        found = {}
        for layer, (mask, ids) in enumerate(zip(self.masks, self.hot, strict=True)):
            found[f"blk.{layer}.gpu_idx"] = mask.astype(np.int32)
            found[f"blk.{layer}.gpu_bucket"] = ids.astype(np.int32)
        return found


def place(
    counts: Sequence[np.ndarray | Sequence[float]],
    bytes_per_neuron: int | Sequence[int],
    *,
    budget: int,
    block: int = 1,
) -> Placement:
    """Keep those neurons on the device that are used most per byte, until the budget is spent.

    Where all neurons take equally many bytes, no placement covers more uses: exchanging a kept neuron for
    another one exchanges a larger count for a smaller. Where sizes differ, a best placement is a knapsack
    problem, of which this is the greedy solution: it misses less than one block's uses, and
    `Placement.bound` says how much at most. Neurons that are never used stay off the device. Of equals,
    the first layer and the lowest neuron win.

    Args:
      counts: by layer, (f,) how often each neuron was used.
      bytes_per_neuron: of one neuron of every layer, or by layer.
      budget: bytes.
      block: neurons that are kept together, as quantised ones must be; the last block may be shorter.

    Returns:
      the hot neurons of every layer.

    Raises:
      ValueError: counts that are no finite vectors or negative, or sizes that make no sense.

    Example:
      >>> placed = place([[9, 0, 4, 1], [8, 2]], [10, 20], budget=45)
      >>> [ids.tolist() for ids in placed.hot], placed.nbytes, round(placed.covered, 3)
      ([[0, 2], [0]], 40, 0.875)

    Source: PowerInfer (Song et al. 2023) section 6.3, whose integer program this solves greedily;
    specs/sparse_inference.md section 11.
    """
    layers = [_checked(layer, number) for number, layer in enumerate(counts)]
    sizes = [bytes_per_neuron] * len(layers) if isinstance(bytes_per_neuron, int) else [*bytes_per_neuron]
    if len(sizes) != len(layers) or any(size < 1 for size in sizes):
        raise ValueError(f"bytes_per_neuron must be positive, one for each of {len(layers)} layers: {sizes}")
    if budget < 0 or block < 1:
        raise ValueError(f"budget must be at least 0 and block at least 1, not {budget} and {block}")
    uses, nbytes, layer_of, block_of = _items(layers, sizes, block)
    chosen, bound = _greedy(uses, nbytes, budget)
    total = float(uses.sum())
    hot = tuple(
        _members(block_of[chosen & (layer_of == number)], block, len(layer))
        for number, layer in enumerate(layers)
    )
    return Placement(
        hot,
        tuple(map(len, layers)),
        int(nbytes[chosen].sum()),
        float(uses[chosen].sum()) / total if total else 1.0,
        bound / total if total else 1.0,
    )


def read_activation_counts(folder: str | os.PathLike[str]) -> tuple[np.ndarray, ...]:
    """The counts of PowerInfer's ``activation_0.pt``, ``activation_1.pt``, ... in a folder.

    Args:
      folder: with one file per layer, a vector of counts in each.

    Returns:
      by layer, float64 (f,).

    Raises:
      CheckpointError: there are no such files, one is left out or unreadable, or is no vector of counts.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotReadableError(
            f"{file_name(folder)}: no such folder; give the one that holds activation_0.pt"
        )
    found = {int(match[1]): path for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    absent = next(number for number in range(len(found) + 1) if number not in found)
    if not found or absent < len(found):
        raise NotReadableError(
            f"{file_name(folder)}: activation_{absent}.pt is missing; every layer's counts are needed"
        )
    return tuple(_read(found[number]) for number in range(len(found)))


def _read(path: Path) -> np.ndarray:
    value = torch_file.read(path)
    if not isinstance(value, np.ndarray):
        raise CorruptFileError(f"{file_name(path)}: holds {type(value).__name__}, not one tensor of counts")
    try:
        return _checked(value, path.stem)
    except ValueError as error:
        raise CorruptFileError(f"{file_name(path)}: {error}") from error


def _checked(counts: np.ndarray | Sequence[float], layer: int | str) -> np.ndarray:
    values = np.asarray(counts)
    if values.ndim != 1 or not values.size or values.dtype.kind not in "biuf":
        raise ValueError(f"the counts of layer {layer} must be a vector of numbers, not {values.shape}")
    values = values.astype(np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"the counts of layer {layer} must be finite and not negative")
    return values


def _items(layers: list[np.ndarray], sizes: list[int], block: int) -> tuple[np.ndarray, ...]:
    """Uses, bytes, layer and number of every block of all layers."""
    starts = [np.arange(0, len(layer), block) for layer in layers]
    uses = [np.add.reduceat(layer, start) for layer, start in zip(layers, starts, strict=True)]
    nbytes = [
        np.minimum(block, len(layer) - start) * size
        for layer, start, size in zip(layers, starts, sizes, strict=True)
    ]
    layer_of = [np.full(len(start), number) for number, start in enumerate(starts)]
    block_of = [np.arange(len(start)) for start in starts]
    if not layers:
        return np.zeros(0), *(np.zeros(0, np.int64) for _ in range(3))
    return tuple(np.concatenate(parts) for parts in (uses, nbytes, layer_of, block_of))


def _greedy(uses: np.ndarray, nbytes: np.ndarray, budget: int) -> tuple[np.ndarray, float]:
    """Which items are taken, and the uses that no choice exceeds: those of the best cut of items."""
    chosen, left = np.zeros(len(uses), bool), budget
    order = np.argsort(-uses / nbytes, kind="stable")
    order = order[uses[order] > 0]
    whole = int(np.searchsorted(np.cumsum(nbytes[order]), budget, side="right"))
    chosen[order[:whole]] = True
    left = budget - int(nbytes[order[:whole]].sum())
    bound = float(uses[chosen].sum())
    if whole == len(order):
        return chosen, bound
    following = order[whole]
    bound += left * float(uses[following] / nbytes[following])
    least = int(nbytes.min())
    for item in order[whole + 1 :]:
        if left < least:
            break
        if nbytes[item] <= left:
            chosen[item] = True
            left -= int(nbytes[item])
    if len(set(nbytes.tolist())) == 1:
        bound = float(uses[chosen].sum())  # equal sizes leave nothing to gain
    return chosen, bound


def _members(blocks: np.ndarray, block: int, neurons: int) -> np.ndarray:
    """The neurons of blocks, ascending."""
    ids = (np.sort(blocks)[:, None] * block + np.arange(block)).ravel()
    return ids[ids < neurons]
