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
    # so there is no crossover to name. On GPU and TPU the kernel is one pass over memory; not measured yet.
    auto={"cpu": "scan", "gpu": "pallas_gpu", "tpu": "pallas_tpu"},
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


def platform() -> Platform:
    """The platform that compiled code runs on: JAX's default one, or the one `target_platform` names."""
    named = _TARGET.value
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
      ...     resolve("auto", LINEAR_RECURRENCE, dtype=jnp.float32)
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
      dtype: of the op's input. "auto" means "xla" for float64, which TPU kernels do not have.

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
