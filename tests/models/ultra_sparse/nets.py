"""Small nets of every architecture, made from a seed without JAX."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from sparsejax.models.ultra_sparse import UltraSparseConfig, UltraSparseNet, dense, masked, sparse

ARCHITECTURES = {
    "fixed_k": UltraSparseConfig.fixed_k(12, 5, 1, 2),
    "fixed_k_of_many_outputs": UltraSparseConfig.fixed_k(12, 6, 3, 4),
    "fixed_k_linear_output": UltraSparseConfig.fixed_k(12, 5, 2, 3, output_activation="linear"),
    "variable_k": UltraSparseConfig(12, (sparse(5, 6, variable_fan_in=True), dense(2))),
    "dense": UltraSparseConfig.dense(12, 5, 2, hidden_activation="relu"),
    "deep": UltraSparseConfig.deep(12, (7, 6, 5), 2, 3),
    "sensor_dense": UltraSparseConfig(12, (sparse(6, 3), dense(5), dense(2))),
    "sensor_flip": UltraSparseConfig(12, (sparse(6, 3), masked(5), dense(2))),
    "retinal": UltraSparseConfig(12, (masked(6), masked(5), dense(2))),
}


def make(config, seed=0, *, stale=np.nan):
    """Parameters as NumPy arrays; tables draw with replacement, slots beyond a live count hold ``stale``."""
    rng, width, params = np.random.default_rng(seed), config.input_size, {}
    for number, layer in enumerate(config.layers):
        own = {"bias": rng.normal(size=layer.features).astype(np.float32)}
        if layer.kind == "sparse":
            own["indices"] = rng.integers(0, width, (layer.features, layer.fan_in)).astype(np.int32)
            own["weights"] = rng.normal(size=(layer.features, layer.fan_in)).astype(np.float32)
            if layer.variable_fan_in:
                own["live"] = rng.integers(1, layer.fan_in + 1, layer.features).astype(np.int32)
                own["weights"][np.arange(layer.fan_in) >= own["live"][:, None]] = stale
        else:
            own["kernel"] = rng.normal(size=(width, layer.features)).astype(np.float32)
            if layer.kind == "masked":
                own["mask"] = rng.random((width, layer.features)) < 0.4
        params[f"layer_{number}"] = own
        width = layer.features
    return params


def trained(config, params):
    """A net as `fuse` and the tests take it: config, parameters, module."""
    return SimpleNamespace(config=config, params=params, model=UltraSparseNet(config))
