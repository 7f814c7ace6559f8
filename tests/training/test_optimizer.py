"""AdamW: clipping, decay by group, rates by group."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.training.optimizer import NORMS_AND_BIASES, Group, adamw, clip_by_norm
from sparsejax.training.tree_paths import map_paths

PARAMS = {
    "layer_0": {
        "decay_logit": jnp.array([1.0, -2.0]),
        "norm1": {"scale": jnp.array([1.0]), "bias": jnp.array([0.5])},
        "out_proj": {"kernel": jnp.array([[2.0], [3.0]])},
    }
}
GROUPS = (Group("decay_logit$", rate=0.25), NORMS_AND_BIASES)


def _decayed(**options):
    """What a step without gradients leaves of each parameter, as a factor."""
    optimizer = adamw(optax.constant_schedule(0.1), weight_decay=0.5, groups=GROUPS, **options)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
    factors = jax.tree.map(lambda old, change: float(1 + change.ravel()[0] / old.ravel()[0]), PARAMS, updates)
    found = {}
    map_paths(lambda path, factor: found.update({path.split("/")[-1]: round(factor, 6)}), factors)
    return found


def test_decay_spares_the_groups_that_say_so():
    assert _decayed() == {"decay_logit": 1, "scale": 1, "bias": 1, "kernel": 0.95}


def test_decay_of_all_has_the_rate_of_the_group():
    assert _decayed(decay="all") == {"decay_logit": 0.9875, "scale": 0.95, "bias": 0.95, "kernel": 0.95}


def test_rate_of_a_group_scales_its_step():
    optimizer = adamw(optax.constant_schedule(0.1), weight_decay=0.0, groups=GROUPS)
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = optimizer.update(ones, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["layer_0"]["decay_logit"], -0.025, rtol=1e-5)
    np.testing.assert_allclose(updates["layer_0"]["out_proj"]["kernel"], -0.1, rtol=1e-5)


@pytest.mark.torch
def test_steps_are_those_of_torch():
    torch = pytest.importorskip("torch")
    start = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    gradients = np.random.default_rng(1).normal(size=(6, 2, 3)).astype(np.float32) * 2
    rates = [0.0, 0.05, 0.1, 0.1, 0.05, 0.02]
    theirs = torch.nn.Parameter(torch.tensor(start))
    reference = torch.optim.AdamW([theirs], lr=0.0, weight_decay=0.1)
    optimizer = adamw(lambda step: jnp.array(rates)[step], weight_decay=0.1, max_norm=1.0)
    params = {"kernel": jnp.asarray(start)}
    state = optimizer.init(params)
    for rate, gradient in zip(rates, gradients, strict=True):
        reference.param_groups[0]["lr"] = rate
        theirs.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        reference.step()
        updates, state = optimizer.update({"kernel": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["kernel"], theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_clipping_leaves_short_gradients_and_zeros():
    clip = clip_by_norm(5.0)
    for gradient in ([3.0, 0.0], [0.0, 0.0]):
        clipped, _ = clip.update({"w": jnp.array(gradient)}, clip.init(None))
        assert clipped["w"].tolist() == gradient
    clipped, _ = clip.update({"a": jnp.array([6.0]), "b": jnp.array([8.0])}, clip.init(None))
    assert (float(clipped["a"][0]), float(clipped["b"][0])) == pytest.approx((3.0, 4.0), rel=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"weight_decay": -1.0}, {"max_norm": 0.0}, {"epsilon": -1.0}, {"betas": (1.0, 0.9)}]
)
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="must be at least 0"):
        adamw(optax.constant_schedule(0.1), **wrong)
