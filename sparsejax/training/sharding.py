"""Batches spread over devices, and parameters by rules over their names: data and tensor parallelism."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparsejax.training.tree_paths import map_paths

DATA_AXIS = "data"
MODEL_AXIS = "model"


class Rule(NamedTuple):
    """How the parameters of some names are cut.

    Attributes:
      pattern: regular expression, searched for in a path such as ``layer_0/ffn_in/kernel``.
      spec: mesh axis, or None, per axis of the array.
    """

    pattern: str
    spec: PartitionSpec


def training_mesh(data: int = 1, model: int = 1) -> Mesh:
    """A mesh of the first ``data * model`` devices, with the axes "data" and "model".

    Args:
      data: parts that a batch is cut into.
      model: parts that a parameter is cut into.

    Raises:
      ValueError: a number is below 1, there are not so many devices, or a process of the job has none.

    Example:
      >>> training_mesh().axis_names
      ('data', 'model')
    """
    if data < 1 or model < 1:
        raise ValueError(f"a mesh has at least 1 device along each axis, not {data} x {model}")
    chosen = first_devices(data * model, f"{data} x {model}")
    return Mesh(np.asarray(chosen).reshape(data, model), (DATA_AXIS, MODEL_AXIS))


def first_devices(count: int, told: str) -> list[jax.Device]:
    """The first devices of the job, some of every process.

    Args:
      count: of them.
      told: the same in words, for errors.

    Raises:
      ValueError: there are not so many, or a process has none of them.

    Example:
      >>> len(first_devices(1, "1"))
      1
    """
    # A process makes one run of rows, so its devices stand together; `jax.devices` may mix those of hosts.
    available = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if count > len(available):
        raise ValueError(f"{told} devices are asked for, there are {len(available)}")
    if (processes := len({device.process_index for device in available[:count]})) < jax.process_count():
        raise ValueError(
            f"{told} devices are those of {processes} of {jax.process_count()} processes: give all "
            f"{len(available)}"
        )
    return available[:count]


def batch_sharding(mesh: Mesh, rows: int) -> NamedSharding:
    """Rows, the leading axis of every array of a batch, spread over the mesh's data axis.

    Raises:
      ValueError: they do not divide among the devices.
    """
    if rows % mesh.shape[DATA_AXIS]:
        raise ValueError(f"{rows} rows of a batch do not divide among {mesh.shape[DATA_AXIS]} devices")
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def shardings(tree: Any, rules: Sequence[Rule], mesh: Mesh) -> Any:
    """Where each array of a tree lives: by the first rule that matches its path, or whole on every device.

    The moments of an optimiser carry the paths of their parameters at the end, so that one list of rules is
    enough for a whole training state.

    Args:
      tree: arrays or their shapes.
      rules: tried in order; one whose spec has more axes than the array does not match.
      mesh: with the axes that the rules name.

    Returns:
      a tree of `NamedSharding`.

    Raises:
      ValueError: an axis does not divide among the devices that its rule gives it.

    Example:
      >>> rules = [Rule("ffn_in/kernel$", PartitionSpec(None, MODEL_AXIS))]
      >>> tree = {"ffn_in": {"kernel": np.zeros((2, 4)), "bias": np.zeros(4)}}
      >>> shardings(tree, rules, training_mesh())["ffn_in"]["kernel"].spec == rules[0].spec
      True
    """

    def place(path: str, leaf: Any) -> NamedSharding:
        matching = (rule.spec for rule in rules if re.search(rule.pattern, path))
        spec = next((spec for spec in matching if len(spec) <= np.ndim(leaf)), PartitionSpec())
        for size, axis in zip(np.shape(leaf), spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                raise ValueError(
                    f"{path} of shape {np.shape(leaf)}: {size} does not divide among the {mesh.shape[axis]}"
                    f" devices of the mesh's axis {axis!r}"
                )
        return NamedSharding(mesh, spec)

    return map_paths(place, tree)
