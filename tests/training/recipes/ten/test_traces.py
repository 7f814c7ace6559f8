"""The published trainers, replayed: losses, gradient norms, rates and final parameters of 20 steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint.rules import to_state
from sparsejax.models.ten.layouts import rules
from sparsejax.training.gradient_step import gradient_step, start_state
from sparsejax.training.recipes.ten import parts as ten_parts
from sparsejax.training.recipes.ten.settings import TenSettings
from tests import golden

COMMON = {"data": Path(), "out": Path(), "learning_rate": 3e-4, "steps": 40, "decay": "all"}
FFT = {"warmup": 4, "weight_decay": 0.1, "clip": 1.0}
SEED = {"schedule": "torch_cosine", "weight_decay": 0.01, "clip": 0.0}
TOLERANCE = 2e-5


def _replayed(name, variant, given, **changes):
    """Records of all steps, and the final parameters under the names of the file."""
    arrays = golden.arrays("ten", name)
    ck = sj.load(golden.path("ten", f"{name}_init.pt"), variant=variant)
    config = dataclasses.replace(ck.config, use_gradient_checkpointing=False, **changes)
    settings = TenSettings(**COMMON, **given)
    optimizer = ten_parts.optimizer(settings, config)
    loss = ten_parts.next_token_loss(config, train=True, chunk_tokens=32)
    step = gradient_step(loss, optimizer, penalty=ten_parts.penalty(config))
    batches = jnp.asarray(arrays["batches"])
    state = start_state(jax.random.key(0), ck.params, optimizer)
    state, records = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches))(
        state, {"inputs": batches[:, :, :-1], "targets": batches[:, :, 1:]}
    )
    rates = [float(ten_parts.schedule(settings)(number)) for number in range(len(batches))]
    np.testing.assert_allclose(rates, arrays["lrs"], rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(records["gradient_norm"], arrays["grad_norms"], rtol=1e-4)
    np.testing.assert_allclose(records["loss"], arrays["losses"], atol=TOLERANCE, rtol=0)
    return arrays, to_state(rules(ck.variant, config), jax.device_get(state.params))


def _check_final(arrays, state):
    names = [name.removeprefix("final/") for name in arrays if name.startswith("final/")]
    assert len(names) > 20
    for name in names:
        np.testing.assert_allclose(state[name], arrays[f"final/{name}"], atol=TOLERANCE, rtol=0, err_msg=name)


@pytest.mark.golden("train_trace_fft")
def test_fft_trainer_is_replayed():
    _check_final(*_replayed("train_trace_fft", "fft", FFT))


@pytest.mark.golden("train_trace_src_seed")
def test_seed_trainer_is_replayed_with_gradients_cut_every_16_steps():
    cut = {"chunk_size": 16, "truncate_at_chunks": True, "energy_reg_weight": 0.0}
    _check_final(*_replayed("train_trace_src_seed", "seed", SEED, **cut))
