"""Which implementation of an op runs: the backend names, and the only look at the platform.

An op describes its choices once as an `OpBackends` table; `resolve` turns the caller's ``backend`` argument
into one of the op's own implementations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple, cast, get_args

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

Backend = Literal["auto", "reference", "xla", "pallas"]
"""Names that every op accepts; an op may add names of its own (`OpBackends.specific`)."""

Platform = Literal["cpu", "gpu", "tpu"]

_TARGET = jax.make_user_context(None)  # a part of the key of jit's caches, unlike a plain context variable


class OpBackends(NamedTuple):
    """The implementations of one op and which of them each platform prefers.

    Attributes:
      op: name of the op in error messages.
      auto: implementation that "auto" means on each platform.
      xla: implementation that "xla" means: the best one on that platform without a hand-written kernel.
      pallas: implementation that "pallas" means; the one under "cpu" runs in interpret mode.
      specific: every implementation that can also be asked for by its own name.
    """

    op: str
    auto: Mapping[Platform, str]
    xla: Mapping[Platform, str]
    pallas: Mapping[Platform, str]
    specific: tuple[str, ...]


LINEAR_RECURRENCE = OpBackends(
    op="linear_recurrence",
    # CPU, B=2, K=128, one decay, 2 cores, best of 25 in ms, forward / forward and backward:
    #   T=1024: scan 0.7 / 2.9, associative 4.6 / 18, chunked 17 / 57, fft 15 / 51
    #   T=4096: scan 4.3 / 18, associative 25 / 135, chunked 46 / 241, fft 95 / 255
    # so there is no crossover to name. On GPU and TPU the kernel would be one pass over memory; none
    # has run it yet.
    auto={"cpu": "scan", "gpu": "associative", "tpu": "associative"},
    xla={"cpu": "scan", "gpu": "associative", "tpu": "associative"},
    pallas={"cpu": "pallas_tpu", "gpu": "pallas_gpu", "tpu": "pallas_tpu"},
    specific=("scan", "associative", "chunked", "fft", "pallas_gpu", "pallas_tpu"),
)

DENSE_RECURRENCE = OpBackends(
    op="dense_recurrence",
    # CPU, B=2, K=64, likewise:
    #   T=1024: scan 2.1 / 4.9, chunked 2.4 / 8.5; T=4096: scan 8.7 / 26, chunked 9.9 / 33.
    # Chunks turn T dependent matrix products into 2 * 32 + T / 32 larger ones, which GPU and TPU need.
    auto={"cpu": "scan", "gpu": "chunked", "tpu": "chunked"},
    xla={"cpu": "scan", "gpu": "chunked", "tpu": "chunked"},
    pallas={},
    specific=("scan", "chunked", "diagonal"),
)

SPARSE_FFN = OpBackends(
    op="sparse_ffn",
    # The paths of "xla" have crossovers of their own, below. The kernels are not measured on hardware yet.
    auto={"cpu": "xla", "gpu": "xla", "tpu": "xla"},
    xla={"cpu": "xla", "gpu": "xla", "tpu": "xla"},
    pallas={"cpu": "pallas_tpu", "gpu": "pallas_gpu", "tpu": "pallas_tpu"},
    specific=("xla", "pallas_gpu", "pallas_tpu"),
)

EDGE_CONV = OpBackends(
    op="edge_conv",
    # The kernels are not measured on hardware yet.
    auto={"cpu": "xla", "gpu": "xla", "tpu": "xla"},
    xla={"cpu": "xla", "gpu": "xla", "tpu": "xla"},
    pallas={"cpu": "pallas_tpu", "gpu": "pallas_gpu", "tpu": "pallas_tpu"},
    specific=("xla", "pallas_gpu", "pallas_tpu"),
)

QUANTIZED = OpBackends(
    op="quantized_matmul",
    # The kernels are not measured on hardware yet.
    auto={"cpu": "xla", "gpu": "xla", "tpu": "xla"},
    xla={"cpu": "xla", "gpu": "xla", "tpu": "xla"},
    pallas={"cpu": "pallas_tpu", "gpu": "pallas_gpu", "tpu": "pallas_tpu"},
    specific=("xla", "pallas_gpu", "pallas_tpu"),
)

# Crossovers of "xla" on CPU, float32, d 512, f 2,048, a router of blocks included, 2 cores, in ms (tokens;
# dense; 16 / 8 / 3 blocks of 64):
#   1: 0.64; gather 0.38 / 0.21 / 0.12     1, neurons of a rank-64 router, 1,024 / 512 / 205: see the constant
# with the dense products masked:
#   64: 3.5; block - / 2.8 / 2.7       128: 5.2; 5.0 / 3.5 / 2.6       256: 7.3; 6.6 / 4.5 / -
#   512: 14.6; 15.1 / 8.3 / 4.8        1,024: 36.9; 32.0 / - / -       2,048: 64.5; 45.5 / - / -
# and with the gradient (masked; block):
#   64: 7.4; - / 7.0 / 7.4             128: 11.7; 12.7 / 8.6 / 6.0
#   256: 19.5; 21.0 / 10.9 / -         512: 46.8; 62.7 / 23.5 / 10.7
SPARSE_FFN_BLOCK = 16
"""Fewest neurons of a block for which "gather" and "block" are taken."""

SPARSE_FFN_GATHER_TOKENS = 8
"""Most tokens for which "gather" is taken, with blocks."""

SPARSE_FFN_GATHER_PART = 0.5
"""Largest part of the neurons, summed over the tokens, for which "gather" is taken, with blocks."""

SPARSE_FFN_GATHER_NEURONS = 0.5
"""Largest part of the neurons of one token for which "gather" is taken, without blocks: with a rank-64 router
0.22 ms at 205 of 2,048 neurons, 0.32 at 512 and 0.51 at 1,024, against 0.64 of all."""

SPARSE_FFN_BLOCK_PART = ((1024, 0.5), (64, 0.25))
"""(Least tokens, largest part of the neurons) for which "block" is taken. Below 128 tokens it is faster where
`sparse_ffn.batched.fits`, and about as fast as "masked" by tiles."""


def platform() -> Platform:
    """The platform that compiled code runs on: JAX's default one, or the one `target_platform` names."""
    named: Platform | None = _TARGET.value
    if named is not None:
        return named
    name = jax.default_backend()
    return cast(Platform, name) if name in get_args(Platform) else "gpu"


@contextmanager
def target_platform(name: Platform) -> Iterator[None]:
    """Choose backends for another platform than this machine's, for ahead-of-time lowering and export.

    Args:
      name: "cpu", "gpu" or "tpu".

    Example:
      >>> with target_platform("tpu"):
      ...     resolve("pallas", LINEAR_RECURRENCE, dtype=jnp.float32)
      'pallas_tpu'
    """
    with _TARGET(name):
        yield


def interpret() -> bool:
    """Whether Pallas kernels run in the interpreter: on CPU, which has no compiler for them."""
    return platform() == "cpu"


def resolve(backend: str, table: OpBackends, *, dtype: DTypeLike) -> str:
    """The implementation that ``backend`` means here.

    Args:
      backend: "auto", "reference", "xla", "pallas", or one of ``table.specific``.
      table: the op's implementations.
      dtype: of the op's input. "auto" takes no kernel for float64, which TPU kernels do not have.

    Returns:
      "reference" or one of ``table.specific``.

    Raises:
      ValueError: no such backend, or "pallas" for an op without a kernel.

    Example:
      >>> resolve("chunked", LINEAR_RECURRENCE, dtype=jnp.float32)
      'chunked'
    """
    if backend == "reference" or backend in table.specific:
        return backend
    here, wide = platform(), jnp.dtype(dtype) == jnp.float64
    if backend == "xla" or (backend == "auto" and wide):
        return table.xla[here]
    if backend == "auto":
        return table.auto[here]
    if backend == "pallas" and table.pallas:
        return table.pallas[here]
    kernels = ("pallas",) if table.pallas else ()
    known = ("auto", "reference", "xla", *kernels, *table.specific)
    raise ValueError(f"{table.op} has no backend {backend!r}; choose one of {known}")
