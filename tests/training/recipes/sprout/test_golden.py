"""The published recipe: runs of the original, replayed step by step."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.models.sprout.mlm import MaskingRule
from sparsejax.models.sprout.schedule import sparsity_schedule, traced_top_k
from sparsejax.training.gradient_step import gradient_step, start_state
from sparsejax.training.recipes.sprout import parts as sprout_parts
from sparsejax.training.recipes.sprout.losses import Objective
from sparsejax.training.recipes.sprout.settings import SproutSettings
from tests import golden

CASES = {
    "train_v0": ("linear", "none"),
    "train_v2_router_all": ("mlp", "all"),
    "train_v2_router_first10": ("mlp", "first10"),
}


def _replayed(name):
    """The records of all steps, the parameters after them, and what the original has."""
    expected, told = golden.arrays("sprout", name), golden.manifest("sprout")[name]["train"]
    ck = sj.load(golden.path("sprout", f"{name}_start.pt"), overrides={"n_heads": 4, "dropout": 0.0})
    router, taught = CASES[name]
    settings = SproutSettings(
        Path(),
        Path(),
        recipe="compat",
        d_ff=ck.config.d_ff,
        router=router,
        router_loss=taught,
        learning_rate=told["lr"],
        warmup_steps=told["warmup_steps"],
        weight_decay=told["weight_decay"],
    )
    objective = Objective(ck.config, settings, MaskingRule(101, 4, (0,)), pad=0)
    chain = sprout_parts.optimizer(settings, told["steps"])

    @jax.jit
    def step(state, batch, top_k):
        loss = partial(_given, objective, top_k=top_k, step=state.step)
        return gradient_step(loss, chain)(state, batch)

    schedule = sparsity_schedule(ck.config.d_ff, None, told["final_top_k"], told["sparsity_warmup_steps"])
    assert [schedule(n) or -1 for n in range(told["steps"])] == expected["top_k"].tolist()
    top_k = traced_top_k(schedule, ck.config.d_ff)
    state, records = start_state(jax.random.key(0), ck.params, chain), []
    for number, batch in enumerate(zip(expected["input_ids"], expected["labels"], strict=True)):
        state, record = step(state, tuple(jnp.asarray(part, jnp.int32) for part in batch), top_k(number))
        records.append(record)
    return jax.tree.map(lambda *rows: np.stack(rows), *records), state.params, (ck, settings, told, expected)


def _given(objective, params, batch, key, **options):
    return objective.masked_loss(params, batch, key, **options)


@pytest.mark.golden("train_v0", "train_v2_router_all", "train_v2_router_first10")
@pytest.mark.parametrize("name", CASES)
def test_a_run_of_the_original_is_replayed(name):
    records, params, (ck, settings, told, expected) = _replayed(name)
    np.testing.assert_allclose(records["mlm_loss"], expected["mlm_loss"], atol=2e-4)
    np.testing.assert_allclose(100 * records["accuracy"], expected["accuracy_pct"], atol=1e-4)
    np.testing.assert_allclose(records["gradient_norm"], expected["grad_norm_before_clip"], rtol=1e-3)
    taught = records.get("router_loss", np.zeros(told["steps"]))
    np.testing.assert_allclose(taught, expected["router_loss"], atol=2e-5)
    rates = sprout_parts.rates(settings, told["steps"])(np.arange(told["steps"]))
    np.testing.assert_allclose(rates["learning_rate"], expected["lr"][:, 0], rtol=1e-6)
    np.testing.assert_allclose(rates["beta1"], expected["beta1"][:, 0], rtol=1e-6)
    for top_k, label in ((None, "none"), (told["final_top_k"], "16")):
        tokens = expected["input_ids"][0].astype(np.int32)
        logits = dataclasses.replace(ck, params=params).apply(tokens, top_k=top_k).logits
        np.testing.assert_allclose(logits, expected[f"final_logits__k{label}"], atol=2e-4)
    end = sj.load(golden.path("sprout", f"{name}_end.pt"), overrides={"n_heads": 4}).params
    for (path, theirs), ours in zip(
        jax.tree_util.tree_leaves_with_path(end), jax.tree.leaves(params), strict=True
    ):
        if "attention/key/bias" not in (name := jax.tree_util.keystr(path, simple=True, separator="/")):
            np.testing.assert_allclose(ours, theirs, atol=2e-5, err_msg=name)
