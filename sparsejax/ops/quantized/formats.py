"""What a block of each format holds: sizes, bits of a code, and which elements share a scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SUPER_BLOCK = 256
"""Elements of a block of the K formats."""

SUB_BLOCK = 32
"""Elements that lie together in memory, in every format of blocks."""


class BlockFormat(NamedTuple):
    """One way to store numbers.

    Attributes:
      name: in lower case, as ``FORMATS`` has it.
      type_id: of ggml, as GGUF files have it.
      block: elements that are stored together; a row holds a whole number of them.
      bytes: of a block.
      bits: of one code; 0 for plain numbers.
      zero: the code of 0 where no minimum is stored.
      group: elements that share a scale.

    Example:
      >>> FORMATS["q4_k"].block, FORMATS["q4_k"].bytes, FORMATS["q4_k"].group
      (256, 144, 32)
    """

    name: str
    type_id: int
    block: int
    bytes: int
    bits: int = 0
    zero: int = 0
    group: int = 0

    @property
    def plain(self) -> bool:
        """Whether the numbers are stored as they are, without codes."""
        return self.bits == 0

    @property
    def low_bits(self) -> int:
        """Bits of a code that lie in the plane "low"; the others lie in "high"."""
        return 2 if self.bits < 4 else min(self.bits, 4) if self.bits < 8 else 8


FORMATS: Mapping[str, BlockFormat] = {
    layout.name: layout
    for layout in (
        BlockFormat("f32", 0, 1, 4),
        BlockFormat("f16", 1, 1, 2),
        BlockFormat("bf16", 30, 1, 2),
        BlockFormat("q4_0", 2, 32, 18, bits=4, zero=8, group=32),
        BlockFormat("q4_1", 3, 32, 20, bits=4, group=32),
        BlockFormat("q5_0", 6, 32, 22, bits=5, zero=16, group=32),
        BlockFormat("q5_1", 7, 32, 24, bits=5, group=32),
        BlockFormat("q8_0", 8, 32, 34, bits=8, group=32),
        BlockFormat("q2_k", 10, 256, 84, bits=2, group=16),
        BlockFormat("q3_k", 11, 256, 110, bits=3, zero=4, group=16),
        BlockFormat("q4_k", 12, 256, 144, bits=4, group=32),
        BlockFormat("q5_k", 13, 256, 176, bits=5, group=32),
        BlockFormat("q6_k", 14, 256, 210, bits=6, zero=32, group=16),
    )
}
"""By name. Source: the block layouts of ggml, specs/sparse_inference.md section 6."""


def format_named(name: str | BlockFormat) -> BlockFormat:
    """The layout of a name in any case, or of itself.

    Args:
      name: a key of ``FORMATS`` in any case.

    Raises:
      ValueError: no such format.

    Example:
      >>> format_named("Q8_0").bytes
      34
    """
    if isinstance(name, BlockFormat):
        return name
    found = FORMATS.get(name.lower())
    if found is None and name.lower() in ("int8", "int4"):
        raise ValueError("int8 and int4 are formats of AffineTensor; call AffineTensor.quantize(x, bits)")
    if found is None:
        raise ValueError(f"no format {name!r}; choose one of {tuple(FORMATS)}")
    return found


def byte_count(layout: BlockFormat, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor in a file.

    Args:
      layout: its format.
      shape: its shape, rows last.

    Raises:
      ValueError: a row is not a whole number of blocks.

    Example:
      >>> byte_count(FORMATS["q4_0"], (3, 64))
      108
    """
    row = shape[-1] if shape else 1
    if row % layout.block:
        raise ValueError(
            f"rows of {row} elements are not whole blocks of {layout.block}, as {layout.name} needs; "
            "pad them or choose another format"
        )
    count = 1
    for size in shape:
        count *= int(size)
    return count // layout.block * layout.bytes
