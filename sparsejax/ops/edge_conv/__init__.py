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
from sparsejax.ops.edge_conv.layout import EdgeLayout, Edges, Pairs, RowLayout, of_senders, pairs_of

__all__ = [
    "EdgeLayout",
    "Edges",
    "MLPFilter",
    "Pairs",
    "RadialFilter",
    "RowLayout",
    "TableError",
    "TableFilter",
    "edge_conv",
    "evaluate",
    "of_senders",
    "pairs_of",
    "table_error",
    "tabulate",
]
