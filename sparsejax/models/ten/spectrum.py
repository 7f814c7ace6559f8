"""What a network's eigenstates are tuned to, and how they move while it reads."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.ten.config import Stack, TemporalEigenstateConfig
from sparsejax.models.ten.eigenstates import eigenvalues
from sparsejax.models.ten.inputs import check_inputs
from sparsejax.models.ten.resonance import cell_decay, resonance_matrix
from sparsejax.typing import Params

if TYPE_CHECKING:
    from sparsejax.models.ten.model import TemporalEigenstateNetwork

SingleStack = Literal["short", "long"]


class Spectrum(NamedTuple):
    """Eigenvalues and resonance of every layer; published blocks have a cell axis after the layers'.

    Attributes:
      magnitudes: (l, [c,] k) of the eigenvalues.
      phases: (l, [c,] k) their angles in radians per token, as learned: not wrapped to one turn.
      half_life: (l, [c,] k) tokens until half of what an eigenstate holds is gone; infinite at magnitude 1.
      frequency_spectrum: (l, [c,] k) turns per token.
      resonance_norms: (l, c), or (l, h) coupling blocks: distance of the mixing from the identity, as a
        Frobenius norm; zero without mixing.
    """

    magnitudes: jax.Array
    phases: jax.Array
    half_life: jax.Array
    frequency_spectrum: jax.Array
    resonance_norms: jax.Array


def spectrum(config: TemporalEigenstateConfig, params: Params, *, stack: SingleStack = "short") -> Spectrum:
    """Eigenvalues of every layer. Those of selective layers are the base values, which tokens move a little.

    Args:
      config: of the network.
      params: its parameters.
      stack: which layers of a network with two stacks.

    Returns:
      `Spectrum`; layers come first.

    Raises:
      ValueError: the network has no second stack.

    Example:
      >>> layer = {"decay_logit": jnp.zeros(2), "frequency": jnp.array([0.0, jnp.pi]),
      ...          "coupling": jnp.eye(2)[None]}
      >>> config = TemporalEigenstateConfig.modern(num_eigenstates=2, n_heads=1, n_layers=1)
      >>> found = spectrum(config, {"layer_0": layer})
      >>> found.magnitudes.tolist(), found.half_life.tolist(), found.frequency_spectrum.tolist()
      ([[0.5, 0.5]], [[1.0, 1.0]], [[0.0, 0.5]])

    Source: specs/ten.md sections 1 and 3 (utilities).
    """
    if stack == "long" and config.long_layer is None:
        raise ValueError('stack="long" needs a network with two stacks; this one has one')
    prefix = "long_layer" if stack == "long" else "layer"
    layers = [params[f"{prefix}_{number}"] for number in range(config.n_layers)]
    rows = [_published(config, layer) if config.variant != "modern" else _modern(layer) for layer in layers]
    log_magnitude, phases, norms = (jnp.stack(column) for column in zip(*rows, strict=True))
    return Spectrum(
        jnp.exp(log_magnitude),
        phases,
        math.log(2) / jnp.abs(log_magnitude),
        phases / (2 * math.pi),
        norms,
    )


def state_trajectory(
    model: TemporalEigenstateNetwork, params: Params, tokens: Any, *, stack: Stack | None = None
) -> jax.Array:
    """Magnitudes of the eigenstates of every layer after every token.

    Args:
      model: the network.
      params: its parameters.
      tokens: (t,) ids, or (b, t).
      stack: of a network with two; None takes the one for this length, "both" gives the layers of the short
        one before those of the long one.

    Returns:
      (l, t, k) for tokens (t,), else (l, b, t, k); the k states of a published block are those of its first
      cell, then of the next.

    Raises:
      ValueError: tokens that the network cannot take.

    Source: specs/ten.md section 5 (the published plot showed the last state only).
    """
    tokens = np.asarray(tokens)
    batch = tokens if tokens.ndim > 1 else tokens[None]
    check_inputs(model.config, batch, stack=stack)
    result = _sizes(model, stack, params, jnp.asarray(batch))
    return result if tokens.ndim > 1 else result[:, 0]


@partial(jax.jit, static_argnums=(0, 1))
def _sizes(
    model: TemporalEigenstateNetwork, stack: Stack | None, params: Params, tokens: jax.Array
) -> jax.Array:
    outputs = model.apply({"params": params}, tokens, stack=stack, method="trajectory")
    layers = cast(list[tuple[jax.Array, jax.Array]], outputs)
    sizes = [jnp.hypot(real, imag) for real, imag in layers]
    return jnp.stack([each.reshape(*tokens.shape, math.prod(each.shape[2:])) for each in sizes])


def _modern(layer: Params) -> tuple[jax.Array, jax.Array, jax.Array]:
    decay = eigenvalues(layer["decay_logit"], layer["frequency"])
    return decay.log_magnitude, decay.frequency, _coupling_norms(layer)


def _published(config: TemporalEigenstateConfig, layer: Params) -> tuple[jax.Array, jax.Array, jax.Array]:
    if "diagonal" in layer:  # the mixing went into the eigenvalues
        own = layer["diagonal"]
        return own["log_magnitude"], own["frequency"], jnp.zeros(config.num_cells)
    cells = layer["cells"]
    decay = cell_decay(cells["decay_logit"], cells["frequency"], config.eigenvalue_clip)
    if "resonance" not in cells:
        return decay.log_magnitude, decay.frequency, jnp.zeros(config.num_cells)
    matrices = resonance_matrix(cells["resonance"], config.resonance_epsilon)
    return decay.log_magnitude, decay.frequency, _from_identity(matrices)


def _coupling_norms(layer: Params) -> jax.Array:
    if "coupling_scale" in layer:
        return jnp.abs(layer["coupling_scale"])[None] * jnp.linalg.norm(layer["coupling_mixing"])
    if "coupling" not in layer:
        return jnp.zeros(1)
    return _from_identity(layer["coupling"])


def _from_identity(matrices: jax.Array) -> jax.Array:
    return jnp.linalg.norm(matrices - jnp.eye(matrices.shape[-1]), axis=(-2, -1))
