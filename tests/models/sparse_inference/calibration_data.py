"""Samples on few directions and an FFN that is sparse on them, as the golden sets are, of any size."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from sparsejax.ops.sparse_ffn import FFNWeights

D, F, LATENT = 24, 96, 6


def made(*, gated=False, samples=700, seed=0):
    """Inputs (n, d) and weights."""
    draws = np.random.default_rng(seed)

    def draw(*shape):
        return draws.normal(size=shape).astype(np.float32)

    inputs = draw(samples, LATENT) @ draw(LATENT, D) / LATENT**0.5 + 0.1 * draw(samples, D) + 0.3
    w_in, w_out = draw(F, D) / D**0.5, draw(F, D) / F**0.5
    w_gate = draw(F, D) / D**0.5
    b = -0.8 + 0.3 * draw(F)
    if gated:
        return inputs, FFNWeights(*map(jnp.asarray, (w_in, w_out, w_gate)), None, jnp.asarray(b), None)
    return inputs, FFNWeights(jnp.asarray(w_in), jnp.asarray(w_out), b_in=jnp.asarray(b))
