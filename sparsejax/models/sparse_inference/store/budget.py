"""How a budget of bytes is shared: rows on their way, hot units, and slots for cold ones."""

from __future__ import annotations

from collections.abc import Sequence

from sparsejax.models.sparse_inference.store.units import UnitLayout

PIECE_BYTES = 4 << 20
"""Most that is sent at once: large enough for a bus's full rate, small beside any budget."""

PIECE_PART = 16
"""Of a small budget, one of so many parts is the most that is sent at once."""

_MOST_ROWS = 4096
_GRAIN = 32  # of a layer's units: slots are whole numbers of such parts, so that layers share programs


def piece_of(layouts: Sequence[UnitLayout], budget: int | None) -> int:
    """Most units that are sent at once, a power of two.

    Args:
      layouts: of the layers.
      budget: bytes, or None.

    Example:
      >>> from sparsejax.models.sparse_inference.store.units import FieldLayout, PlaneLayout
      >>> layout = UnitLayout(64, 1, (FieldLayout("w_in", 256, (PlaneLayout("", (1, 256), "float32"),)),))
      >>> piece_of([layout], None), piece_of([layout], 100_000)
      (64, 4)
    """
    size = max(layout.unit_bytes for layout in layouts)
    nbytes = PIECE_BYTES if budget is None else min(PIECE_BYTES, budget // PIECE_PART)
    most = min(_MOST_ROWS, max(layout.units for layout in layouts), nbytes // size)
    return 1 << (max(1, most).bit_length() - 1)


def cold_capacity(layout: UnitLayout, neurons: int) -> int:
    """Units that hold at most so many neurons, one at least."""
    return max(1, neurons // layout.unit)


def slot_counts(
    layouts: Sequence[UnitLayout], hot: Sequence[int], caps: Sequence[int], nbytes: int | None
) -> list[int]:
    """Slots of each layer: for its hot units, and for an equal part of each layer's others.

    Args:
      layouts: of the layers.
      hot: by layer, units that stay.
      caps: by layer, most slots for others.
      nbytes: for all slots; None gives every unit one.

    Raises:
      ValueError: the hot units, or one unit of each layer beside them, do not fit.
    """
    if nbytes is None:
        return [layout.units for layout in layouts]
    others = [layout.units - count for layout, count in zip(layouts, hot, strict=True)]
    sizes = [layout.unit_bytes for layout in layouts]
    of_hot = sum(count * size for count, size in zip(hot, sizes, strict=True))
    of_others = sum(count * size for count, size in zip(others, sizes, strict=True))
    least = of_hot + sum(size for size, count in zip(sizes, others, strict=True) if count)
    if least > nbytes:
        raise ValueError(
            f"the budget leaves {max(0, nbytes)} bytes for neurons; {least} are needed for the hot ones and "
            f"one more of each layer: give at least {least - nbytes} bytes more"
        )
    part = min(1.0, (nbytes - of_hot) / of_others) if of_others else 1.0
    found = []
    for layout, kept, count, cap in zip(layouts, hot, others, caps, strict=True):
        cold = min(count, max(1, min(cap, int(part * count))))
        grain = max(1, layout.units // _GRAIN)
        rounded = (kept + cold) // grain * grain
        found.append(rounded if rounded > kept and cold < count else kept + cold)
    return found
