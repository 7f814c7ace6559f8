"""A checkpoint is of no device: what any number of devices saved, any other number loads.

Run as a script, this file is a child of its own test.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

import sparsejax
from sparsejax.checkpoint import store


def template_of(params):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)


def load(directory, params):
    return store.read_arrays(store.read_header(directory), template_of(params))


def assert_same(loaded, params):
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for found, wanted in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        assert isinstance(found, jax.Array)
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        assert np.asarray(found).tobytes() == np.asarray(wanted).tobytes()


def grid():
    return {
        "w": np.arange(64, dtype=np.float32).reshape(8, 8),
        "b": np.arange(4, dtype=np.int8),
        "s": np.float32(3),
    }


def sharded_child(devices, target, *sources):
    """Loads each source onto one device and sharded over all, then saves the sharded arrays."""
    assert jax.device_count() == int(devices)
    mesh = jax.make_mesh((int(devices),), ("x",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shardings = {"w": spread, "b": spread, "s": whole}
    for source in sources:
        one = load(source, grid())
        assert_same(one, grid())
        assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(one))
        template = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings[name])
            for name, leaf in grid().items()
        }
        many = store.read_arrays(store.read_header(source), template)
        assert_same(many, grid())
        assert all(many[name].sharding == shardings[name] for name in many)
    store.write_directory(target, {"devices": devices}, jax.device_put(grid(), shardings))
    assert logging.root.handlers == []


def test_other_device_counts_load_it_both_ways(tmp_path):
    assert jax.device_count() == 1
    one, two, four = (tmp_path / name for name in ("one", "two", "four"))
    store.write_directory(one, {}, jax.device_put(grid()))
    for arguments in ((4, four, one), (2, two, one, four)):
        environment = os.environ | {
            "PYTHONPATH": str(Path(sparsejax.__file__).parents[1]),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={arguments[0]}",
        }
        command = [sys.executable, "-W", "error", __file__, *map(str, arguments)]
        child = subprocess.run(
            command, env=environment, text=True, stderr=subprocess.PIPE, timeout=120, check=False
        )
        assert (child.stderr, child.returncode) == ("", 0)
    for directory in (two, four):
        assert_same(load(directory, grid()), grid())


if __name__ == "__main__":
    sharded_child(*sys.argv[1:])
