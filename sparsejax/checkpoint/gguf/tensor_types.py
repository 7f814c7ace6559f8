"""The types of tensors: what is read, what ggml has besides, and what it had once."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from sparsejax.ops.quantized.formats import FORMATS


@dataclass(frozen=True)
class TensorType:
    """How a tensor's numbers are stored.

    Attributes:
      code: in the file.
      name: in lower case, such as "q4_0".
      block: numbers that are stored together; rows are whole blocks.
      nbytes: of a block.
      dtype: of plain numbers, little-endian; None for blocks.
      readable: its numbers can be decoded here.
    """

    code: int
    name: str
    block: int
    nbytes: int
    dtype: np.dtype | None = None
    readable: bool = True


_PLAIN = {
    0: ("f32", np.dtype("<f4")),
    1: ("f16", np.dtype("<f2")),
    24: ("i8", np.dtype("<i1")),
    25: ("i16", np.dtype("<i2")),
    26: ("i32", np.dtype("<i4")),
    27: ("i64", np.dtype("<i8")),
    28: ("f64", np.dtype("<f8")),
    30: ("bf16", np.dtype(ml_dtypes.bfloat16)),
}

_UNREAD = {  # numbers and bytes of a block: a file with them can be looked at, not used
    9: ("q8_1", 32, 36),
    15: ("q8_k", 256, 292),
    16: ("iq2_xxs", 256, 66),
    17: ("iq2_xs", 256, 74),
    18: ("iq3_xxs", 256, 98),
    19: ("iq1_s", 256, 50),
    20: ("iq4_nl", 32, 18),
    21: ("iq3_s", 256, 110),
    22: ("iq2_s", 256, 82),
    23: ("iq4_xs", 256, 136),
    29: ("iq1_m", 256, 56),
    34: ("tq1_0", 256, 54),
    35: ("tq2_0", 256, 66),
    39: ("mxfp4", 32, 17),
    40: ("nvfp4", 64, 36),
}

REMOVED = {
    4: "q4_2",
    5: "q4_3",
    31: "q4_0_4_4",
    32: "q4_0_4_8",
    33: "q4_0_8_8",
    36: "iq4_nl_4_4",
    37: "iq4_nl_4_8",
    38: "iq4_nl_8_8",
}
"""Names by code of the types that ggml no longer has."""

TYPES: dict[int, TensorType] = {
    code: TensorType(code, name, 1, dtype.itemsize, dtype) for code, (name, dtype) in _PLAIN.items()
}
TYPES |= {
    layout.type_id: TensorType(layout.type_id, layout.name, layout.block, layout.bytes)
    for layout in FORMATS.values()
    if layout.type_id not in TYPES
}
TYPES |= {
    code: TensorType(code, name, block, nbytes, readable=False)
    for code, (name, block, nbytes) in _UNREAD.items()
}
"""By code."""

BY_NAME = {kind.name: kind for kind in TYPES.values() if kind.readable}
"""Those that are read and written, by name."""

READ = tuple(kind.upper() for kind in BY_NAME)
"""Names as ggml writes them."""
