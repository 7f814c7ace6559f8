"""Data and tensor parallelism on four virtual devices, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from sparsejax.training.sharding import (
    MODEL_AXIS,
    Rule,
    batch_sharding,
    first_devices,
    shardings,
    training_mesh,
)

RULES = (
    Rule("Dense_0/kernel$", PartitionSpec(None, MODEL_AXIS)),
    Rule("Dense_0/bias$", PartitionSpec(MODEL_AXIS)),
)

PROGRAM = """
import jax, numpy as np
from tests.training.test_gradient_step import OPTIMIZER, toy_batch, toy_loss, toy_start
from tests.training.test_sharding import RULES
from sparsejax.training.gradient_step import compiled_steps, gradient_step
from sparsejax.training.sharding import batch_sharding, shardings, training_mesh

found = []
for data, model in ((1, 1), (4, 1), (2, 2)):
    mesh = training_mesh(data, model)
    place = shardings(jax.eval_shape(toy_start_all := lambda: toy_start(OPTIMIZER)), RULES, mesh)
    state = jax.jit(toy_start_all, out_shardings=place)()
    rows = batch_sharding(mesh, 4)
    batches = (jax.device_put(toy_batch(number), rows) for number in range(4))
    step = gradient_step(toy_loss(), OPTIMIZER, accumulate=1 if data == 4 else 2)
    state, records = compiled_steps(step, batches, place)(state, 4)
    kernel = state.params["Dense_0"]["kernel"]
    moment = state.optimizer[1].mu["Dense_0"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (6, 6 // model), kernel.sharding
    assert moment.sharding == kernel.sharding and len(kernel.sharding.device_set) == data * model
    found.append(np.asarray(records["loss"]))
print(max(float(np.abs(losses - found[0]).max()) for losses in found[1:]))
"""


def test_losses_on_four_devices_are_those_of_one():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert float(ran.stdout) < 1e-5


def test_meshes_of_too_many_devices_are_refused():
    with pytest.raises(ValueError, match="99 x 1 devices are asked for"):
        training_mesh(99)
    with pytest.raises(ValueError, match="at least 1 device along each axis, not 0 x 1"):
        training_mesh(0)


class _Mesh:
    shape = {"data": 4, "model": 2}


def test_every_process_of_a_job_needs_a_device(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    there = len(jax.devices())
    with pytest.raises(ValueError, match=f"^1 devices are those of 1 of 2 processes: give all {there}$"):
        first_devices(1, "1")


def test_sizes_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match="6 rows of a batch do not divide among 4 devices"):
        batch_sharding(_Mesh, 6)
    with pytest.raises(ValueError, match=r"Dense_0/kernel of shape \(2, 5\): 5 does not divide among the 2"):
        shardings({"Dense_0": {"kernel": np.zeros((2, 5))}}, RULES, _Mesh)


def test_the_first_rule_that_fits_the_axes_is_taken():
    tree = {"Dense_0": {"kernel": np.zeros((2, 4)), "bias": np.zeros(4)}, "other": np.zeros(3)}
    found = shardings(tree, (Rule("bias", PartitionSpec(None, MODEL_AXIS)), *RULES), training_mesh())
    assert found["Dense_0"]["kernel"].spec == PartitionSpec(None, MODEL_AXIS)
    assert found["Dense_0"]["bias"].spec == PartitionSpec(MODEL_AXIS)
    assert found["other"].spec == PartitionSpec()
