"""Where computing some neurons stops being faster than computing all, as measured."""

from __future__ import annotations

from typing import Literal

from sparsejax.ops import backends

Path = Literal["auto", "dense", "masked", "rows", "union", "shared"]

# CPU, 4,096 x 11,008, float32, two matrices, weights in rotation, 2 cores, minima in ms: all neurons of
# one token 16.5; 10 % by rows 2.2 (15 to 18 GB/s of the 22 of reading all), a predictor of rank 256 and the
# choice 1.0. By these rates rows break even at two thirds of the neurons. 512 tokens: all 672, half by shared
# rows 382.
ROWS = 0.5
"""Largest part of the neurons that one token reads row by row."""

UNION = 0.4
"""Largest part of the neurons, those that any token uses, that a small batch reads: each of its tokens goes
through the rows again in the cache."""

UNION_TOKENS = 8
"""Most tokens whose choices are united."""

SHARED = 0.75
"""Largest part of the neurons that tokens with one choice in common read."""


def choose_path(tokens: int, part: float, *, shared: bool = False) -> Path:
    """The path that "auto" takes.

    Args:
      tokens: rows of the inputs.
      part: of the neurons, that a token computes.
      shared: the tokens compute the same neurons.

    Returns:
      "dense" where nothing would be saved: then all neurons are computed and none is dropped.

    Example:
      >>> choose_path(1, 0.1), choose_path(1, 0.9), choose_path(512, 0.5, shared=True)
      ('rows', 'dense', 'shared')
    """
    if backends.platform() != "cpu":
        return "dense" if part >= 1 else "rows" if tokens == 1 else "shared" if shared else "masked"
    if shared and tokens > 1:
        return "shared" if part <= SHARED else "dense"
    if tokens == 1:
        return "rows" if part <= ROWS else "dense"
    return "union" if tokens <= UNION_TOKENS and part <= UNION else "dense" if part >= 1 else "masked"
