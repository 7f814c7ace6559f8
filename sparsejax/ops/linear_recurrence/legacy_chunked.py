"""The published chunked evolution as it was shipped, which looks into the future inside each chunk.

Its decay matrix is transposed, so a chunk's output j sums the drives from j to the end of the chunk. It is
here to reproduce models trained with it; specs/ten.md section 5 has the details.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from sparsejax.ops.linear_recurrence.decay import Decay, Pair, add
from sparsejax.ops.linear_recurrence.powers import powers


def anticausal_chunked(drive: Pair, decay: Decay, chunk_size: int) -> Pair:
    """Sums over s >= j in the chunk of lambda^(s-j) drive_s, plus a carry on each chunk's first output.

    The carry is the last output of the chunk before, unchanged. That is the chunk's last drive alone, except
    that a chunk of one step hands on the carry it was given as well.

    Args:
      drive: real and imaginary parts (b, t, k), float32 or float64.
      decay: (k,).
      chunk_size: steps in a chunk; the last chunk may be shorter.

    Returns:
      Outputs (b, t, k). There is no final state: the formula cannot be streamed.

    Raises:
      ValueError: a chunk size below 1.

    Example:
      >>> drive = jnp.array([[[1.0], [1.0], [1.0]]]), jnp.zeros((1, 3, 1))
      >>> half = Decay(jnp.log(jnp.array([0.5])), jnp.zeros(1))
      >>> anticausal_chunked(drive, half, chunk_size=2)[0][0, :, 0].tolist()
      [1.5, 1.0, 2.0]

    Source: specs/ten.md section 5.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    batch, length, width = drive[0].shape
    if drive[0].size == 0:
        return drive
    late = -length % chunk_size
    chunks = tuple(
        jnp.pad(part, ((0, 0), (0, late), (0, 0))).reshape(batch, -1, chunk_size, width) for part in drive
    )
    outputs = _future_sums((chunks[0], chunks[1]), decay)
    carried = (_carries(outputs[0], chunk_size), _carries(outputs[1], chunk_size))
    outputs = outputs[0].at[:, :, 0].add(carried[0]), outputs[1].at[:, :, 0].add(carried[1])
    real, imaginary = (part.reshape(batch, -1, width)[:, :length] for part in outputs)
    return real, imaginary


def _future_sums(drive: Pair, decay: Decay) -> Pair:
    size = drive[0].shape[2]
    distance = jnp.arange(size)[None, :] - jnp.arange(size)[:, None]
    table = powers(decay, jnp.arange(size))
    later = (distance >= 0)[..., None]
    real, imaginary = (jnp.where(later, part[jnp.maximum(distance, 0)], 0) for part in table)

    def product(matrix: Array, part: Array) -> Array:
        return jnp.einsum("tsk,bnsk->bntk", matrix, part, precision="highest")

    turned = -product(imaginary, drive[1]), product(imaginary, drive[0])
    return add((product(real, drive[0]), product(real, drive[1])), turned)


def _carries(outputs: Array, chunk_size: int) -> Array:
    """What each chunk is handed: the last output of the one before; (b, n, k)."""
    last = outputs[:, :, -1]
    if chunk_size == 1:
        last = jnp.cumsum(last, axis=1)
    return jnp.concatenate((jnp.zeros_like(last[:, :1]), last[:, :-1]), axis=1)
