"""Kernels lowered for hardware that this machine need not have."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
from jax.export import DisabledSafetyCheck
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from sparsejax.ops.backends import target_platform

TARGETS = {"tpu": ("tpu", "tpu_custom_call"), "gpu": ("cuda", "__gpu$xla.gpu.triton")}
_GPU = AbstractMesh((), (), abstract_device=AbstractDevice("NVIDIA H200", num_cores=None, platform="gpu"))


def kernels_in(platform: str, run: Callable[..., Any], *arguments: Any) -> int:
    """How many kernels a function holds where it is compiled for a platform.

    Args:
      platform: of `TARGETS`.
      run: jitted here.
      arguments: arrays, or their shapes and dtypes.
    """
    lowered_for, call = TARGETS[platform]
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    # Since jax 0.12 a kernel for a GPU asks which one it is for.
    with target_platform(platform), use_abstract_mesh(_GPU) if platform == "gpu" else nullcontext():
        exported = jax.export.export(
            jax.jit(run),
            platforms=[lowered_for],
            disabled_checks=[DisabledSafetyCheck.custom_call(call)],
        )(*shapes)
    return exported.mlir_module().count(f"custom_call @{call}")
