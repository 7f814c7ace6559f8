"""How well blocks of neurons fit the samples: what a few of them hold of all that the neurons do."""

from __future__ import annotations

from typing import Any

import numpy as np


def strength_kept(strengths: Any, block_size: int, blocks: int) -> float:
    """The part of the samples' strength that lies in their ``blocks`` strongest blocks.

    Args:
      strengths: (n, f) of neurons for samples, in their order.
      block_size: neurons per block; the last block may be shorter.
      blocks: how many are taken for each sample, from 0.

    Returns:
      0 to 1; 1 where there is no strength, of which nothing can be lost.

    Example:
      >>> strength_kept(np.asarray([[3.0, 1.0, 0.0, 0.0], [0.0, 2.0, 1.0, 1.0]]), 2, 1)
      0.75
    """
    strengths = np.asarray(strengths, np.float64)
    padded = np.pad(strengths, ((0, 0), (0, -strengths.shape[1] % block_size)))
    units = padded.shape[1] // block_size
    sums = np.sort(padded.reshape(len(padded), units, block_size).sum(axis=-1), axis=-1)[:, ::-1]
    whole = sums.sum()
    return float(sums[:, :blocks].sum() / whole) if whole else 1.0
