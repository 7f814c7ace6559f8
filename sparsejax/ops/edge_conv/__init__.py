"""Message passing along edges, through filters of the distance alone."""

from sparsejax.ops.edge_conv.api import edge_conv
from sparsejax.ops.edge_conv.filters import (
    MLPFilter,
    RadialFilter,
    TableError,
    TableFilter,
    evaluate,
    table_error,
    tabulate,
)
from sparsejax.ops.edge_conv.layout import (
    EdgeLayout,
    Edges,
    PairLayout,
    collect,
    ends,
    pairs_of_blocks,
    pairs_of_rows,
)

__all__ = [
    "EdgeLayout",
    "Edges",
    "MLPFilter",
    "PairLayout",
    "RadialFilter",
    "TableError",
    "TableFilter",
    "collect",
    "edge_conv",
    "ends",
    "evaluate",
    "pairs_of_blocks",
    "pairs_of_rows",
    "table_error",
    "tabulate",
]
