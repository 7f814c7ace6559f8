"""Where computing some neurons stops being faster than computing all, as measured."""

from __future__ import annotations

from typing import Literal

from sparsejax.ops import backends

Path = Literal["auto", "dense", "masked", "rows", "union", "shared"]

# CPU, 2 cores, float32, two matrices, weights in rotation, predictor and choice included, medians in ms
# (`sparsejax bench sparse_inference`, groups "batches", times the limits of one token and of shared choices;
# small batches here are without predictor and choice, and all of this is without gradients):
#
#                          4,096 x 11,008                      512 x 2,048
# 1 token, rows            .5 10.3  .6 12.3  .7 13.7  all 23   .5 0.70  .6 0.78  .7 0.82  all 0.80
# 2 tokens, each its rows  .1 5.4   .3 17              all 121 .1 0.29  .2 0.53  .3 0.56  all 0.87
#           their union    .06 3.5  .19 31   .51 79            .06 0.26 .19 0.42 .50 0.75
# 4 tokens, each its rows  .1 11    .3 31              all 121 .1 0.40  .2 0.66  .3 0.91  all 0.98
#           their union    .11 16   .34 53                     .11 0.33 .34 0.67 .59 0.99
# 8 tokens, each its rows  .1 18    .3 58              all 120 .1 0.65  .2 1.06  .3 1.25  all 1.17
#           their union    .22 36   .57 95                     .21 0.58 .56 1.11
# 32 tokens, one choice    .5 38    .75 52            all 121  .5 2.05  .6 2.32           all 2.13
# 512 tokens               .6 274   .75 337  .85 374  all 364  .5 9.5   .6 11.5  .75 13.4 all 12.7
#
# One limit serves both sizes: that of the small one, whose products with all neurons are the faster ones.
ROWS = 0.6
"""Largest part of the neurons that one token reads row by row."""

BATCH_TOKENS = 8
"""Most tokens of a small batch, which read rows."""

BATCH_ROWS = 1.0
"""Largest part of the neurons, summed over the tokens of a small batch, that they read each for itself."""

UNION = 0.25
"""Largest part of the neurons, those that any token uses, that a small batch reads once where thresholds
choose, so that no token has a list of known length: each goes through the rows again in the cache."""

SHARED = 0.55
"""Largest part of the neurons that tokens with one choice in common read."""


def choose_path(tokens: int, part: float | None, *, shared: bool = False) -> Path:
    """The path that "auto" takes.

    Args:
      tokens: rows of the inputs.
      part: of the neurons, that a token computes; None where a threshold chooses.
      shared: the tokens compute the same neurons.

    Returns:
      "dense" where all neurons are chosen. Where reading some would save nothing, "masked": the products of
      "dense", in its time but for that of the choice, and none of the neurons that were not chosen. So what
      a token gives does not depend on how many there are.

    Example:
      >>> choose_path(4, 0.1), choose_path(4, None), choose_path(4, 0.9), choose_path(512, 0.5, shared=True)
      ('rows', 'union', 'masked', 'shared')
    """
    if part is not None and part >= 1:
        return "dense"
    if backends.platform() != "cpu":
        return "rows" if tokens == 1 else "shared" if shared else "masked"
    if shared and tokens > 1:
        return "shared" if part is None or part <= SHARED else "masked"
    if part is None:
        return "rows" if tokens == 1 else "union" if tokens <= BATCH_TOKENS else "masked"
    largest = ROWS if tokens == 1 else BATCH_ROWS
    return "rows" if tokens <= BATCH_TOKENS and tokens * part <= largest else "masked"
