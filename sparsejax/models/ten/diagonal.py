"""The inference form of ``paper`` and ``seed``: cells in the basis where their feedback is diagonal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.ten.config import TemporalEigenstateConfig
from sparsejax.models.ten.resonance import cell_decay, resonance_matrix
from sparsejax.ops.linear_recurrence.diagonal import WORST_CONDITION, Diagonal
from sparsejax.ops.linear_recurrence.diagonal import diagonalise as diagonalise_cell
from sparsejax.typing import Params


def diagonalise(
    config: TemporalEigenstateConfig, params: Params
) -> tuple[TemporalEigenstateConfig, dict[str, Any]]:
    """The same function with a diagonal recurrence, for inference: exact but for rounding.

    The mixing that a cell feeds back at every step is diagonalised once, on the host in float64, and the
    changes of basis are folded into the projections, so that a step is a multiply-add per eigenstate. A
    block whose eigenvectors are ill conditioned (beyond 100) stays as it is.

    Args:
      config: of variant ``paper`` or ``seed``.
      params: of the network, concrete.

    Returns:
      config with ``diagonal_blocks``, and its parameters. States of the two networks are not
      interchangeable.

    Raises:
      ValueError: the variant is ``modern``, which is diagonal already.

    Example:
      >>> from sparsejax.models.ten import TemporalEigenstateNetwork
      >>> config = TemporalEigenstateConfig(vocab_size=5, dim=8, n_layers=1, num_eigenstates=4)
      >>> tokens = jnp.array([[1, 2, 3]])
      >>> params = jax.jit(TemporalEigenstateNetwork(config).init)(jax.random.key(0), tokens)["params"]
      >>> faster, folded = diagonalise(config, params)
      >>> faster.diagonal_blocks
      (0,)

    Source: specs/ten.md section 9.3.
    """
    if config.variant == "modern":
        raise ValueError("the variant 'modern' is diagonal already")
    host = jax.device_get(params)
    folded, blocks = dict(host), []
    for number in range(config.n_layers):
        name = f"layer_{number}"
        if not config.use_resonance or number in config.diagonal_blocks:
            continue
        found = _folded(config, host[name]["cells"])
        if found is not None:
            others = {key: value for key, value in host[name].items() if key != "cells"}
            folded[name] = {**others, "diagonal": found}
            blocks.append(number)
    changed = dataclasses.replace(config, diagonal_blocks=tuple(sorted({*config.diagonal_blocks, *blocks})))
    return changed, jax.tree.map(jnp.asarray, folded)


def _folded(
    config: TemporalEigenstateConfig, cells: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray] | None:
    dtype = cells["in_proj"].dtype
    wide = {name: np.asarray(value, np.float64) for name, value in cells.items()}
    with jax.enable_x64(True):
        logits, angles, mixing = (
            jnp.asarray(wide[name]) for name in ("decay_logit", "frequency", "resonance")
        )
        decay = cell_decay(logits, angles, config.eigenvalue_clip)
        resonance = np.asarray(resonance_matrix(mixing, config.resonance_epsilon))
    diagonals = [
        diagonalise_cell(jax.tree.map(lambda part, cell=cell: part[cell], decay), resonance[cell])
        for cell in range(config.num_cells)
    ]
    if max(diagonal.condition for diagonal in diagonals) > WORST_CONDITION:
        return None
    read = resonance @ wide["out_proj"] if config.variant == "seed" else wide["out_proj"]
    found = {
        "log_magnitude": np.stack([diagonal.decay.log_magnitude for diagonal in diagonals]),
        "frequency": np.stack([diagonal.decay.frequency for diagonal in diagonals]),
        "in_proj": _into(wide["in_proj"] @ resonance, diagonals),
        "out_proj": _out_of(read / config.num_cells, diagonals),
    }
    return {name: value.astype(dtype) for name, value in found.items()}


def _into(kernels: np.ndarray, diagonals: list[Diagonal]) -> np.ndarray:
    """(c, d, k) real to (d, 2ck): real parts of all cells, then imaginary ones."""
    real = [kernel @ diagonal.into[0] for kernel, diagonal in zip(kernels, diagonals, strict=True)]
    imag = [kernel @ diagonal.into[1] for kernel, diagonal in zip(kernels, diagonals, strict=True)]
    return np.concatenate([*real, *imag], axis=1)


def _out_of(kernels: np.ndarray, diagonals: list[Diagonal]) -> np.ndarray:
    """(c, k, d) to (2ck, d): a product with both parts is the real part of the complex one."""
    real = [diagonal.out_of[0] @ kernel for kernel, diagonal in zip(kernels, diagonals, strict=True)]
    imag = [diagonal.out_of[1] @ kernel for kernel, diagonal in zip(kernels, diagonals, strict=True)]
    return np.concatenate([*real, *(-part for part in imag)])
