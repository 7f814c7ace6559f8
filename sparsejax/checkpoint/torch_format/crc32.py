"""CRC-32 of a whole from the CRC-32 of its parts, so that parts can be summed in parallel.

Source: the combination rule of zlib (Adler): appending n bytes multiplies the register, a polynomial
over GF(2), by x^(8n) modulo the CRC polynomial.
"""

from __future__ import annotations

from functools import lru_cache

_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31  # the polynomial 1, bits reflected


def combine(first: int, second: int, second_nbytes: int) -> int:
    """The CRC-32 of two byte strings one after the other.

    Args:
      first: CRC-32 of the first.
      second: CRC-32 of the second.
      second_nbytes: length of the second.

    Returns:
      the CRC-32 of the joined string.

    Example:
      >>> import zlib
      >>> combine(zlib.crc32(b"spar"), zlib.crc32(b"sejax"), 5) == zlib.crc32(b"sparsejax")
      True
    """
    return _multiply(_shift(second_nbytes), first) ^ second


def _multiply(a: int, b: int) -> int:
    product = 0
    mask = _ONE
    while a:
        if a & mask:
            product ^= b
            a ^= mask
        mask >>= 1
        b = b >> 1 ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


@lru_cache(maxsize=256)
def _shift(nbytes: int) -> int:
    """x^(8 nbytes) modulo the polynomial."""
    power = _ONE >> 8  # x^8
    result = _ONE
    while nbytes:
        if nbytes & 1:
            result = _multiply(power, result)
        power = _multiply(power, power)
        nbytes >>= 1
    return result
