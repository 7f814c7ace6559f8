"""How wide the vectors are that XLA compiles programs of the command line for."""

from __future__ import annotations

import os
from collections.abc import Mapping

WIDE = "--xla_cpu_prefer_vector_width=512"
"""XLA prefers 256 bits on CPU. With 512, where the CPU has them, products with one token take less: 2.8 ms
instead of 3.6 in Q8_0 and 2.0 instead of 2.9 in Q4_0 (11,008 x 4,096, two cores)."""


def with_wide_vectors(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which XLA prefers wide vectors, unless its ``XLA_FLAGS`` say how wide.

    Example:
      >>> with_wide_vectors({"XLA_FLAGS": "--xla_dump_to=/tmp"})["XLA_FLAGS"]
      '--xla_cpu_prefer_vector_width=512 --xla_dump_to=/tmp'
    """
    return {**environment, "XLA_FLAGS": f"{WIDE} {environment.get('XLA_FLAGS', '')}".strip()}


def prefer_wide_vectors() -> None:
    """`with_wide_vectors` for this process; of use before JAX compiles anything."""
    os.environ.update(with_wide_vectors(os.environ))
