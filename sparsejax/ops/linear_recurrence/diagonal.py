"""The dense recurrence in the basis of its own eigenvectors, where the transition is diagonal again.

For inference: the basis is found once, on the host in float64, and the two changes of basis can be folded
into the projections before and after.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from sparsejax.ops.linear_recurrence.decay import Decay, Pair

WORST_CONDITION = 100.0
"""Largest condition number of the eigenvectors that `dense_recurrence` accepts in float32: it multiplies the
rounding error, 6e-8 by this."""


Matrices = tuple[np.ndarray, np.ndarray]


class Diagonal(NamedTuple):
    """c_t = (lambda c_{t-1} + drive_t) @ mixing as z_t = decay z_{t-1} + drive_t @ mixing @ into.

    Attributes:
      decay: eigenvalues of diag(lambda) @ mixing as log-magnitude and angle, (k,) float64.
      into: (k, k) real and imaginary parts; z = c @ into.
      out_of: (k, k) real and imaginary parts; c = z @ out_of.
      condition: condition number of ``into`` in the 2-norm.
    """

    decay: Decay
    into: Matrices
    out_of: Matrices
    condition: float


def diagonalise(decay: Decay, mixing: ArrayLike) -> Diagonal:
    """Eigenvalues and eigenvectors of diag(lambda) @ mixing, in float64 numpy arrays.

    Args:
      decay: (k,), concrete.
      mixing: real (k, k), concrete.

    Raises:
      ValueError: values that are not finite.

    Example:
      >>> swap = np.array([[0.0, 1.0], [1.0, 0.0]])
      >>> diagonal = diagonalise(Decay(np.log([0.5, 0.5]), np.zeros(2)), swap)
      >>> np.round(np.exp(diagonal.decay.log_magnitude), 6).tolist(), round(diagonal.condition, 6)
      ([0.5, 0.5], 1.0)

    Source: specs/ten.md section 9.3.
    """
    magnitude, frequency = (np.asarray(part, np.float64) for part in decay)
    matrix = np.exp(magnitude + 1j * frequency)[:, None] * np.asarray(mixing, np.float64)
    if not np.isfinite(matrix).all():
        raise ValueError("diagonalise: decay or mixing holds values that are not finite")
    values, into = np.linalg.eig(matrix)
    condition = float(np.linalg.cond(into))
    out_of = np.linalg.inv(into) if np.isfinite(condition) else np.full_like(into, np.nan)
    size = np.maximum(np.abs(values), np.finfo(np.float64).tiny)
    return Diagonal(
        decay=Decay(np.log(size), np.angle(values)),
        into=(into.real, into.imag),
        out_of=(out_of.real, out_of.imag),
        condition=condition,
    )


def change_basis(pair: tuple[Array, Array | None], basis: tuple[ArrayLike, ArrayLike]) -> Pair:
    """``pair @ basis`` of complex pairs (..., k) and (k, k); an imaginary part of None is zero."""
    real, imaginary = pair
    both = jnp.concatenate([jnp.asarray(part, real.dtype) for part in basis], axis=1)
    if imaginary is None:
        product = jnp.matmul(real, both, precision="highest")
    else:
        turned = jnp.concatenate([both[:, both.shape[0] :] * -1, both[:, : both.shape[0]]], axis=1)
        stacked = jnp.concatenate((real, imaginary), axis=-1)
        product = jnp.matmul(stacked, jnp.concatenate((both, turned)), precision="highest")
    parts = jnp.split(product, 2, axis=-1)
    return parts[0], parts[1]
