"""What the machine is, and three of its rates, which say what bounds a measurement."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sparsejax.bench.timing import race
from sparsejax.ops import backends

_LIBRARIES = ("jax", "numpy", "numba", "torch", "llama_cpp_python")
_ELEMENTS = 65_536
_MEMORY_BYTES, _CACHE_BYTES = 256 << 20, 4 << 20
_FITS_CACHE = 8 << 20


@dataclass(frozen=True)
class Machine:
    """A run's surroundings.

    Attributes:
      device: in words.
      threads: of every contestant.
      versions: of the libraries that are installed.
      dispatch_us: an empty jitted function on one number: what no smaller program can beat.
      tanh_ns: one float32 tanh in a compiled loop over the cache.
      memory_gb_s: reading 256 MiB from end to end in a compiled sum.
      cache_gb_s: the same with 4 MiB, over and over.
    """

    device: str
    threads: int
    versions: Mapping[str, str]
    dispatch_us: float
    tanh_ns: float
    memory_gb_s: float
    cache_gb_s: float

    @classmethod
    def describe(cls, threads: int) -> Machine:
        """Measure the rates of this process's machine (about two seconds)."""
        import jax
        import jax.numpy as jnp

        one, many = jnp.ones(1), jnp.linspace(-3, 3, _ELEMENTS)
        large, small = (
            jax.device_put(np.ones(size // 4, np.float32)) for size in (_MEMORY_BYTES, _CACHE_BYTES)
        )
        step, tanh, total = jax.jit(lambda x: x + 1), jax.jit(jnp.tanh), jax.jit(jnp.sum)
        times = race(
            {
                "dispatch": lambda: step(one),
                "tanh": lambda: tanh(many),
                "memory": lambda: total(large),
                "cache": lambda: total(small),
            },
            repetitions=11,
        )
        dispatch = times["dispatch"].median
        return cls(
            device=f"{jax.devices()[0].platform} ({_processor()})",
            threads=threads,
            versions={"python": platform.python_version(), **_versions()},
            dispatch_us=1e6 * dispatch,
            tanh_ns=1e9 * max(0.0, times["tanh"].median - dispatch) / _ELEMENTS,
            memory_gb_s=1e-9 * _MEMORY_BYTES / times["memory"].median,
            cache_gb_s=1e-9 * _CACHE_BYTES / times["cache"].median,
        )

    @classmethod
    def of_gpu(cls, threads: int) -> Machine | None:
        """The same of a machine whose GPU jax uses, by the name of that; None where there is none."""
        import jax

        if backends.platform() != "gpu":
            return None
        return replace(cls.describe(threads), device=f"{jax.devices()[0].device_kind} (gpu)")

    def dispatch_bound(self) -> str:
        """Words for a call that does next to nothing."""
        return f"dispatch: an empty jitted function takes {self.dispatch_us:.1f} us"

    def work_bound(self, nbytes: float, tanhs: float) -> str:
        """Words for a call that reads so many bytes and evaluates so many tanh."""
        place, rate = ("cache", self.cache_gb_s) if nbytes <= _FITS_CACHE else ("memory", self.memory_gb_s)
        return (
            f"tanh: {tanhs:,.0f} at {self.tanh_ns:.2f} ns = {tanhs * self.tanh_ns / 1e3:,.0f} us; "
            f"{place}: {nbytes / 1e6:.1f} MB at {rate:.0f} GB/s = {nbytes / rate / 1e3:,.0f} us"
        )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
