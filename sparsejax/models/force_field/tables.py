"""Tables of a network's filters: made and verified when a force field is loaded."""

from __future__ import annotations

import logging
from typing import Any, Literal, get_args

from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.network import exact_filters
from sparsejax.ops.backends import platform
from sparsejax.ops.edge_conv import TableFilter, table_error, tabulate
from sparsejax.typing import Params

FilterKind = Literal["auto", "exact", "table"]

VALUE_LIMIT, SLOPE_LIMIT = 1e-6, 1e-5
"""Largest errors of a table, over the largest value and the largest slope."""

_LOG = logging.getLogger("sparsejax.force_field")


def choose_filters(
    config: ForceFieldConfig, params: Params, kind: FilterKind = "auto"
) -> tuple[TableFilter, ...] | None:
    """Tables of the filters of all interactions, or None to compute the filters as the parameters say.

    A force field is read far more often than it is changed, and on CPU reading a table of 1,024 intervals
    takes a quarter of the time of the perceptron (`sparsejax bench force_field`).

    Args:
      config: sizes and kind.
      params: of `StudentForceField`.
      kind: "table", "exact", or "auto": tables on CPU, where they were measured to be faster and if they are
        as exact as they should be.

    Raises:
      ValueError: no such kind, or "table" where a table is not as exact as `VALUE_LIMIT` and `SLOPE_LIMIT`.
    """
    if kind not in get_args(FilterKind):
        raise ValueError(f"no filter {kind!r}; choose one of {get_args(FilterKind)}")
    if kind == "exact" or (kind == "auto" and platform() != "cpu"):
        return None
    tables = []
    for number, exact in enumerate(exact_filters(config, params)):
        table = tabulate(exact)
        error: Any = table_error(table, exact)
        if not (error.values <= VALUE_LIMIT and error.slopes <= SLOPE_LIMIT):
            problem = (
                f"in a table the filter of interaction {number} is off by {error.values:.1e} of its values "
                f"and {error.slopes:.1e} of its slopes; the limits are {VALUE_LIMIT:g} and {SLOPE_LIMIT:g}"
            )
            if kind == "table":
                raise ValueError(f'{problem}; use filter="exact"')
            _LOG.info("%s: the filters are computed instead", problem)
            return None
        tables.append(table)
    return tuple(tables)
