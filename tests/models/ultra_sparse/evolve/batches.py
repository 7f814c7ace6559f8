"""Small batches and nets that the search tests share."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from sparsejax.models.ultra_sparse.config import UltraSparseConfig, dense, sparse
from sparsejax.models.ultra_sparse.evolve import objective
from sparsejax.models.ultra_sparse.features import expand_input
from sparsejax.models.ultra_sparse.model import UltraSparseNet

SINE_NET = UltraSparseConfig()
VARIABLE_NET = UltraSparseConfig(256, (sparse(8, 4, variable_fan_in=True), dense(1)))


@functools.partial(jax.jit, static_argnums=0)
def random_net(config, seed=0):
    return UltraSparseNet(config).init(jax.random.key(seed), jnp.zeros(config.input_size))["params"]


@functools.cache
def sine_batch():
    """The published one: 100 points, 256 columns."""
    x = jnp.linspace(-2 * jnp.pi, 2 * jnp.pi, 100)
    return objective(expand_input(x), jnp.sin(x))
