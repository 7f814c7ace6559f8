"""The originals' files and numbers, with the tolerances that the manifest gives them."""

from __future__ import annotations

import re
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from sparsejax.models.ultra_sparse import UltraSparseConfig
from tests import golden

FAMILY = "ultra_sparse"
_NUMBER = re.compile(r"\d+(?:\.\d+)?e-\d+")


@lru_cache
def arrays(name):
    return golden.arrays(FAMILY, name)


@lru_cache
def document(name):
    return golden.document(FAMILY, name)


@lru_cache
def case(name):
    return golden.manifest(FAMILY)[name]


@lru_cache
def checkpoint(name):
    """A published file as `sj.load` returns it."""
    return sj.load(golden.path(FAMILY, name))


def allowed(name, what=None, *, note=False):
    """The numbers in the manifest's tolerance of a case, in their order."""
    entry = case(name)["tolerance_notes" if note else "tolerance"]
    entry = entry if what is None else entry[what]
    return [entry] if isinstance(entry, float) else [float(number) for number in _NUMBER.findall(entry)]


def worst(found, expected):
    """Largest absolute difference; the shapes must be the same, up to a trailing axis of one."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape == (*expected.shape, 1):
        found = found[..., 0]
    assert found.shape == expected.shape
    return float(np.max(np.abs(found - expected), initial=0.0))


def sparse_params(stored, prefix="", *, names=("input_indices", "w1", "b1", "w2", "b2")):
    """Our nested parameters from the originals' arrays."""
    indices, w1, b1, w2, b2 = (stored[prefix + name] for name in names)
    first = {"indices": indices.astype(np.int32), "weights": w1, "bias": b1}
    return {"layer_0": first, "layer_1": {"kernel": w2.T, "bias": b2}}


def sparse_config(stored, prefix, input_size, *, names=("w1", "w2"), output_activation="tanh"):
    (hidden, fan_in), (outputs, _) = (stored[prefix + name].shape for name in names)
    return UltraSparseConfig.fixed_k(input_size, hidden, outputs, fan_in, output_activation)


def activations(ck, features):
    """Hidden and output activations of a checkpoint, jitted."""
    return _activations(ck.model, ck.params, features)


_activations = jax.jit(
    lambda model, params, features: model.apply({"params": params}, features, method="activations"),
    static_argnums=0,
)


def mse_gradients(ck, features, targets):
    """d mse / d (w1, b1, w2, b2) in the originals' orientation."""

    def loss(params):
        outputs = ck.model.apply({"params": params}, features)
        return jnp.mean((outputs - targets) ** 2)

    found = jax.jit(jax.grad(loss, allow_int=True))(ck.params)
    first, last = found["layer_0"], found["layer_1"]
    w1 = first["weights"] if "weights" in first else first["kernel"].T
    return {"w1": w1, "b1": first["bias"], "w2": last["kernel"].T, "b2": last["bias"]}


def check_gradients(ck, features, targets, stored, name):
    rtol, atol = allowed(name, "grads")
    for weight, gradient in mse_gradients(ck, features, targets).items():
        np.testing.assert_allclose(gradient, stored[f"grad_{weight}"], rtol=rtol, atol=atol, err_msg=weight)
