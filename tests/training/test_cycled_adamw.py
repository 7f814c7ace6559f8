"""AdamW under a cycle, and parameters without a gradient: torch's own steps."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.training.cycled_adamw import cycled_adamw
from sparsejax.training.optimizer import Group
from sparsejax.training.schedules import onecycle

STEPS, WARMUP = 8, 3


@pytest.mark.torch
def test_steps_are_those_of_torch_with_gradients_that_come_and_go():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    start = {name: random.normal(size=3).astype(np.float32) for name in ("always", "late", "never")}
    gradients = random.normal(size=(2, STEPS, 3)).astype(np.float32)
    late = [False, False, True, True, False, True, False, True]
    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    reference = torch.optim.AdamW(theirs.values(), lr=0.1, weight_decay=0.1)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        reference, max_lr=0.1, total_steps=STEPS, pct_start=WARMUP / STEPS, anneal_strategy="cos"
    )
    optimizer = cycled_adamw(onecycle(0.1, warmup=WARMUP, steps=STEPS), weight_decay=0.1, max_norm=1.0)
    params = {name: jnp.asarray(value) for name, value in start.items()}
    state = optimizer.init(params)
    for step in range(STEPS):
        given = {"always": gradients[0, step], "late": gradients[1, step] * late[step], "never": np.zeros(3)}
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(given[name]) if given[name].any() else None
        torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)
        reference.step()
        cycle.step()
        updates, state = optimizer.update(
            {name: jnp.asarray(gradient, jnp.float32) for name, gradient in given.items()}, state, params
        )
        params = optax.apply_updates(params, updates)
        for name, parameter in theirs.items():
            np.testing.assert_allclose(params[name], parameter.detach().numpy(), atol=2e-6, err_msg=name)
    assert params["never"].tolist() == start["never"].tolist()


@pytest.mark.torch
@pytest.mark.parametrize(("warmup", "steps"), [(5, 20), (0, 6), (6, 6), (1000, 3000)])
def test_cycle_is_that_of_torch(warmup, steps):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=3e-3, total_steps=steps, pct_start=warmup / steps, anneal_strategy="cos"
    )
    expected = []
    beyond = int(warmup < steps)  # torch lets the step after the last one pass, with the curve gone on
    for step in range(steps + beyond):
        expected.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]))
        if step < steps + beyond - 1:
            optimizer.step()
            cycle.step()
    found = onecycle(3e-3, warmup=warmup, steps=steps)(np.arange(steps + beyond))
    np.testing.assert_allclose(np.transpose(found), expected, rtol=2e-6)


def test_cycle_of_one_step_of_warmup_starts_at_the_top():
    rate, beta1 = onecycle(1.0, warmup=1, steps=3)(0)
    assert (float(rate), float(beta1)) == pytest.approx((1.0, 0.85))


def test_groups_are_spared_from_decay():
    schedule = onecycle(0.1, warmup=1, steps=2)
    optimizer = cycled_adamw(schedule, weight_decay=0.5, decay="weights", groups=[Group("bias")])
    params = {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    gradients = {name: jnp.full(1, 1e-3) for name in params}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    assert float(updates["bias"][0]) == pytest.approx(-0.1, rel=1e-4)
    assert float(updates["kernel"][0]) == pytest.approx(-0.15, rel=1e-4)


@pytest.mark.parametrize("wrong", [{"weight_decay": -1.0}, {"epsilon": -1.0}, {"beta2": 1.0}])
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="must be at least 0"):
        cycled_adamw(onecycle(0.1, warmup=1, steps=2), **wrong)
