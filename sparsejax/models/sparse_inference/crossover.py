"""Where computing some neurons stops being faster than computing all, as measured."""

from __future__ import annotations

from typing import Literal

from sparsejax.ops import backends

Path = Literal["auto", "dense", "masked", "rows", "union", "shared"]

# CPU, 2 cores, float32, two matrices, weights in rotation, predictor and choice included, medians in ms
# (`sparsejax bench sparse_inference`, group "batches", times every path at its limit):
#
#                          4,096 x 11,008                      512 x 2,048
# 1 token, rows            .5 10.3  .6 12.3  .7 13.7  all 23   .5 0.70  .6 0.78  .7 0.82  all 0.80
# 2 tokens, their union    .2 32    .3 49    .4 60    all 85   .2 0.73  .4 1.10           all 0.89
# 4 tokens                 .2 31    .3 46    .4 64    all 94   .2 0.86  .4 1.17           all 1.10
# 8 tokens                 .2 34    .3 51    .4 66    all 97   .2 0.94  .4 1.34           all 1.12
# 32 tokens, one choice    .5 38    .75 52            all 121  .5 2.05  .6 2.32           all 2.13
# 512 tokens               .6 274   .75 337  .85 374  all 364  .5 9.5   .6 11.5  .75 13.4 all 12.7
#
# One limit serves both sizes: that of the small one, whose products with all neurons are the faster ones.
ROWS = 0.6
"""Largest part of the neurons that one token reads row by row."""

UNION = 0.25
"""Largest part of the neurons, those that any token uses, that a small batch reads: each of its tokens goes
through the rows again in the cache."""

UNION_TOKENS = 8
"""Most tokens whose choices are united."""

SHARED = 0.55
"""Largest part of the neurons that tokens with one choice in common read."""


def choose_path(tokens: int, part: float, *, shared: bool = False) -> Path:
    """The path that "auto" takes.

    Args:
      tokens: rows of the inputs.
      part: of the neurons, that a token computes.
      shared: the tokens compute the same neurons.

    Returns:
      "dense" where all neurons are chosen. Where reading some would save nothing, "masked": the products of
      "dense", in its time but for that of the choice, and none of the neurons that were not chosen. So what
      a token gives does not depend on how many there are.

    Example:
      >>> choose_path(1, 0.1), choose_path(1, 0.9), choose_path(512, 0.5, shared=True)
      ('rows', 'masked', 'shared')
    """
    if backends.platform() != "cpu":
        return "dense" if part >= 1 else "rows" if tokens == 1 else "shared" if shared else "masked"
    if part >= 1:
        return "dense"
    if shared and tokens > 1:
        return "shared" if part <= SHARED else "masked"
    if tokens == 1:
        return "rows" if part <= ROWS else "masked"
    few = tokens <= UNION_TOKENS and union_part(tokens, part) <= UNION
    return "union" if few else "masked"


def union_part(tokens: int, part: float) -> float:
    """Part of the neurons that tokens use together whose choices have nothing to do with each other.

    Tokens of one text share choices: theirs is smaller.

    Args:
      tokens: of a batch.
      part: that each chooses.

    Example:
      >>> round(union_part(4, 0.05), 3)
      0.185
    """
    return float(1 - (1 - part) ** tokens)
