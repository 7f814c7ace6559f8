"""The published block: cells whose mixing is fed back at every step, and normalisation after each part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparsejax.models.ten import init as initial
from sparsejax.models.ten.config import TemporalEigenstateConfig
from sparsejax.models.ten.eigenstates import Evolution, Pair
from sparsejax.models.ten.layers import Context, LayerOutput, dense, dropped, layer_norm
from sparsejax.models.ten.state import LayerState
from sparsejax.ops.flat_matmul import flat_matmul
from sparsejax.ops.linear_recurrence import Decay, dense_recurrence, linear_recurrence

_LEAST_NORM = 1e-8


def resonance_matrix(mixing: jax.Array, epsilon: float) -> jax.Array:
    """The identity plus ``epsilon`` times a matrix of Frobenius norm 1.

    Args:
      mixing: (..., k, k) learned.
      epsilon: distance from the identity.

    Example:
      >>> resonance_matrix(jnp.ones((2, 2)), 0.5)[0].tolist()
      [1.25, 0.25]

    Source: specs/ten.md section 3.
    """
    norm = jnp.linalg.norm(mixing, axis=(-2, -1), keepdims=True)
    return jnp.eye(mixing.shape[-1], dtype=mixing.dtype) + epsilon * mixing / (norm + _LEAST_NORM)


def cell_decay(decay_logit: jax.Array, frequency: jax.Array, clip: float) -> Decay:
    """Eigenvalues clip * sigmoid(logit) * exp(i frequency) of cells, (c, k)."""
    wide = jnp.promote_types(decay_logit.dtype, jnp.float32)
    return Decay(jnp.log(clip) + jax.nn.log_sigmoid(decay_logit.astype(wide)), frequency.astype(wide))


def evolve_cells(
    drive: tuple[jax.Array, jax.Array | None],
    decay: Decay,
    resonance: jax.Array | None,
    context: Context,
    how: Evolution,
) -> tuple[Pair, Pair]:
    """Eigenstates of all cells at every step.

    Args:
      drive: real and imaginary (b, t, c, k); None for imaginary parts of zero.
      decay: (c, k).
      resonance: (c, k, k) fed back, row vectors from the left; None for none.
      context: carried eigenstates (b, c, k) and documents.
      how: see `Evolution`.

    Returns:
      states (b, t, c, k) and the last (b, c, k), as real and imaginary parts.
    """
    state = context.eigenstates
    options: dict[str, Any] = {"reset": context.reset, "truncated_steps": how.truncated_steps}
    if resonance is None:
        cells = drive[0].shape[2:]
        real = _flat(drive[0])
        states, last = linear_recurrence(
            (real, jnp.zeros_like(real) if drive[1] is None else _flat(drive[1])),
            Decay(*map(_flat, decay)),
            initial_state=None if state is None else (_flat(state[0]), _flat(state[1])),
            backend=how.backend,
            **options,
        )
        return _cells(states, cells), _cells(last, cells)

    def one_cell(drive: Any, decay: Decay, mixing: jax.Array, state: Pair | None) -> tuple[Pair, Pair]:
        return dense_recurrence(drive, decay, mixing, initial_state=state, **options)

    return jax.vmap(one_cell, in_axes=(2, 0, 0, 1), out_axes=(2, 1))(drive, decay, resonance, state)


def _flat(part: jax.Array) -> jax.Array:
    return part.reshape(*part.shape[:-2], math.prod(part.shape[-2:]))


def _cells(pair: Sequence[jax.Array], cells: tuple[int, ...]) -> Pair:
    real, imag = pair
    return real.reshape(*real.shape[:-1], *cells), imag.reshape(*imag.shape[:-1], *cells)


class ResonanceBlock(nn.Module):
    """One block of ``paper`` or ``seed``; `LayerOutput` of the residual stream (b, t, d).

    Source: specs/ten.md section 3.
    """

    config: TemporalEigenstateConfig
    number: int
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, context: Context, how: Evolution, train: bool) -> LayerOutput:
        """Mix over time, then feed forward; normalise after adding each to the residual."""
        if self.number in self.config.diagonal_blocks:
            cells: nn.Module = DiagonalCells(self.config, self.dtype, name="diagonal")
        else:
            cells = Cells(self.config, self.dtype, name="cells")
        mixed, states, last = cells(inputs, context, how)
        hidden = layer_norm("norm1", self.dtype)(inputs + dropped(self.config, mixed, train))
        options = (self.config, self.dtype)
        wide = dense(self.config.ffn_size, "ffn_in", *options)(hidden)
        gelu = nn.gelu(wide, approximate=self.config.variant == "seed")
        fed = dense(self.config.dim, "ffn_out", *options)(gelu)
        hidden = layer_norm("norm2", self.dtype)(hidden + dropped(self.config, fed, train))
        return LayerOutput(hidden, None, states, LayerState(last))


class Cells(nn.Module):
    """The cells of a block: project, evolve, read out, average."""

    config: TemporalEigenstateConfig
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, context: Context, how: Evolution) -> tuple[jax.Array, Pair, Pair]:
        """(b, t, d) to (b, t, d), with the eigenstates of every step and the last."""
        config = self.config
        c, k, d = config.num_cells, config.num_eigenstates, config.dim
        decay = cell_decay(
            self.param("decay_logit", initial.decay_init(config, None, 0), (c, k)),
            self.param("frequency", initial.frequency_init, (c, k)),
            config.eigenvalue_clip,
        )
        resonance = None
        if config.use_resonance:
            mixing = self.param("resonance", initial.resonance_init, (c, k, k))
            resonance = resonance_matrix(mixing, config.resonance_epsilon)
        into = self.param("in_proj", initial.cell_kernel_init(config), (c, d, k))
        out_of = self.param("out_proj", initial.cell_kernel_init(config), (c, k, d))
        if config.variant == "seed" and resonance is not None:
            out_of = resonance @ out_of  # the accident: mixed once more on read-out
        inputs, into, out_of = nn.dtypes.promote_dtype(inputs, into, out_of, dtype=self.dtype)
        drive = flat_matmul(inputs, into.swapaxes(0, 1).reshape(d, c * k))
        cells = drive.reshape(*drive.shape[:2], c, k)
        states, last = evolve_cells((cells, None), decay, resonance, context, how)
        return flat_matmul(_flat(states[0]), out_of.reshape(c * k, d) / c), states, last


class DiagonalCells(nn.Module):
    """The cells of a block after `diagonalise`; its parameters come from there."""

    config: TemporalEigenstateConfig
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, context: Context, how: Evolution) -> tuple[jax.Array, Pair, Pair]:
        """(b, t, d) to (b, t, d), with the eigenstates of every step and the last, in the diagonal basis."""
        c, k, d = self.config.num_cells, self.config.num_eigenstates, self.config.dim
        zeros = nn.initializers.zeros
        decay = Decay(self.param("log_magnitude", zeros, (c, k)), self.param("frequency", zeros, (c, k)))
        into = self.param("in_proj", zeros, (d, 2 * c * k))
        out_of = self.param("out_proj", zeros, (2 * c * k, d))
        inputs, into, out_of = nn.dtypes.promote_dtype(inputs, into, out_of, dtype=self.dtype)
        drive = _cells(jnp.split(flat_matmul(inputs, into), 2, axis=-1), (c, k))
        states, last = evolve_cells(drive, decay, None, context, how)
        return flat_matmul(jnp.concatenate([*map(_flat, states)], axis=-1), out_of), states, last
