"""The mixing of a modern layer as pure functions: eigenvalues, evolution of the eigenstates, coupling."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.models.ten.config import EigenstateLayer
from sparsejax.ops.flat_matmul import flat_matmul
from sparsejax.ops.linear_recurrence import Decay, RecurrenceBackend, linear_recurrence
from sparsejax.ops.linear_recurrence.legacy_chunked import anticausal_chunked

Pair = tuple[jax.Array, jax.Array]

_DECAY_RANGE, _FREQUENCY_RANGE = 0.1, 0.05
"""How far a token moves an eigenvalue: the logit of its magnitude, and its angle in radians."""

_LEAST_SCALE = 1e-12  # squared; below it the square root has no useful gradient


class Evolution(NamedTuple):
    """How the recurrence is to be computed.

    Attributes:
      backend: of the op.
      truncated_steps: steps between points where gradients stop; None for nowhere.
    """

    backend: RecurrenceBackend = "auto"
    truncated_steps: int | None = None


def eigenvalues(decay_logit: jax.Array, frequency: jax.Array, selection: jax.Array | None = None) -> Decay:
    """Eigenvalues sigmoid(logit) exp(i frequency), moved a little by the token if they are selective.

    Args:
      decay_logit: (k,).
      frequency: (k,) radians per step.
      selection: (b, t, 2k), changes of logit and angle before their tanh; None for constant eigenvalues.

    Returns:
      `Decay` of (k,) or (b, t, k), float32 at least.

    Example:
      >>> decay = eigenvalues(jnp.zeros(2), jnp.array([0.0, 1.0]))
      >>> jnp.exp(decay.log_magnitude).tolist()
      [0.5, 0.5]

    Source: specs/ten.md section 2 (0.1 and 0.05, where the paper says 0.1 for both).
    """
    wide = jnp.promote_types(decay_logit.dtype, jnp.float32)
    decay_logit, frequency = decay_logit.astype(wide), frequency.astype(wide)
    if selection is not None:
        change, turn = jnp.split(jnp.tanh(selection.astype(wide)), 2, axis=-1)
        decay_logit, frequency = decay_logit + _DECAY_RANGE * change, frequency + _FREQUENCY_RANGE * turn
    return Decay(jax.nn.log_sigmoid(decay_logit), frequency)


def drive_scale(decay: Decay) -> jax.Array:
    """sqrt(1 - |lambda|^2), shaped as the decay: states then keep the size of a drive of white noise."""
    return jnp.sqrt(jnp.maximum(-jnp.expm1(2 * decay.log_magnitude), _LEAST_SCALE))


def evolve(
    layer: EigenstateLayer,
    drive: jax.Array,
    decay: Decay,
    state: Pair | None,
    *,
    reset: jax.Array | None,
    how: Evolution,
) -> tuple[Pair, Pair]:
    """The eigenstates at every step.

    Args:
      layer: kind of layer.
      drive: (b, t, 2k), real parts before imaginary ones.
      decay: eigenvalues.
      state: real and imaginary (b, k) before the first step; zeros if None.
      reset: (b, t) where documents begin; None for nowhere.
      how: see `Evolution`.

    Returns:
      states (b, t, k) and the last one (b, k), as real and imaginary parts.
    """
    if layer.normalize_input:
        scale = drive_scale(decay)
        drive = drive * jnp.concatenate([scale, scale], axis=-1).astype(drive.dtype)
    real, imag = jnp.split(drive, 2, axis=-1)
    if layer.anticausal_chunk:
        states = anticausal_chunked((real, imag), decay, chunk_size=layer.anticausal_chunk)
        return states, (states[0][:, -1], states[1][:, -1])
    return linear_recurrence(
        (real, imag),
        decay,
        initial_state=state,
        reset=reset,
        truncated_steps=how.truncated_steps,
        backend=how.backend,
    )


def couple(states: Pair, coupling: jax.Array) -> jax.Array:
    """Real mixing of both parts alike, block by block.

    Args:
      states: real and imaginary (b, t, k).
      coupling: (h, k/h, k/h); out_j = sum_k coupling[j, k] state_k.

    Returns:
      (b, t, 2k), real parts before imaginary ones.
    """
    mixing = jax.scipy.linalg.block_diag(*coupling).T.astype(states[0].dtype)
    return jnp.concatenate([flat_matmul(part, mixing) for part in states], axis=-1)


def couple_scaled(states: Pair, scale: jax.Array, mixing: jax.Array) -> jax.Array:
    """States plus a multiple of their mixture: (b, t, k) twice to (b, t, 2k)."""
    matrix = (scale * mixing).T.astype(states[0].dtype)
    return jnp.concatenate([part + flat_matmul(part, matrix) for part in states], axis=-1)
