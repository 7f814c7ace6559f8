"""What routers learn from: published losses, distillation, balance, small scores."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sprout.config import SproutFFNConfig
from sparsejax.models.sprout.losses import distillation_loss, load_balance_loss, router_loss, z_loss
from sparsejax.models.sprout.routing import Router
from sparsejax.ops.sparse_ffn import top_k_mask
from tests import golden


@pytest.mark.golden("ffn_v2_f7979e0", "ffn_v2_fe5444d")
@pytest.mark.parametrize(
    ("case", "version"), [("ffn_v2_f7979e0", "cross_entropy"), ("ffn_v2_fe5444d", "three_terms")]
)
def test_published_losses_and_their_gradients(case, version):
    arrays = golden.arrays("sprout", case)
    router = Router(SproutFFNConfig(d_model=64, d_ff=256, router="mlp"))
    x, w_in = arrays["x"], arrays["W1"]
    activations = jax.nn.gelu(x @ w_in.T, approximate=False)
    norm = {"scale": arrays["router.norm.weight"], "bias": arrays["router.norm.bias"]}
    kernels = {"hidden_kernel": arrays["router.W_router_1"].T, "kernel": arrays["router.W_router_2"].T}

    @jax.jit
    def loss(params, top_k):
        return router_loss(router.apply({"params": params}, x, w_in), activations, top_k, version=version)

    params = {**kernels, "norm": norm}
    for top_k in (128, 25, 1, 255):
        np.testing.assert_allclose(loss(params, top_k), arrays[f"router_loss__k{top_k}"], rtol=1e-6)
    found = jax.grad(loss)(params, 25)
    expected = {
        "W_router_1": found["hidden_kernel"].T,
        "W_router_2": found["kernel"].T,
        "norm.weight": found["norm"]["scale"],
        "norm.bias": found["norm"]["bias"],
    }
    for name, gradient in expected.items():
        np.testing.assert_allclose(gradient, arrays[f"router_loss_grad__router.{name}__k25"], atol=1e-6)


@pytest.mark.parametrize("block_size", [1, 4])
def test_distilled_scores_order_units_as_their_energies_do(block_size):
    activations = jax.random.normal(jax.random.key(0), (3, 10))
    energies = np.square(np.pad(activations, ((0, 0), (0, -10 % block_size))))
    energies = energies.reshape(3, -1, block_size).sum(axis=-1)
    scores = jnp.zeros(energies.shape)
    for _ in range(300):
        scores -= 5 * jax.grad(distillation_loss)(scores, activations, block_size=block_size)
    assert (np.argsort(scores) == np.argsort(energies)).all()
    assert 0 <= float(distillation_loss(scores, activations, block_size=block_size)) < 0.01


def test_distillation_reaches_scores_only_and_leaves_out_tokens_without_weight():
    scores, activations = jax.random.normal(jax.random.key(0), (2, 2, 6))
    to_activations = jax.grad(lambda values: distillation_loss(scores, values))(activations)
    assert float(jnp.abs(to_activations).max()) == 0
    weights = jnp.asarray([True, False])
    first = distillation_loss(scores[:1], activations[:1])
    assert float(distillation_loss(scores, activations, weights)) == pytest.approx(float(first), rel=1e-6)
    assert float(distillation_loss(scores, activations, jnp.zeros(2))) == 0
    assert np.isfinite(float(distillation_loss(scores, jnp.zeros((2, 6)))))


def test_balance_is_least_for_even_use_and_pulls_towards_it():
    even = load_balance_loss(jnp.zeros((4, 4)), jnp.eye(4, dtype=bool))
    scores = jnp.asarray([[3.0, 0, 0, 0]] * 4)
    uneven = load_balance_loss(scores, top_k_mask(scores, 1))
    assert float(even) == pytest.approx(1)
    assert float(uneven) == pytest.approx(4 * np.exp(3) / (np.exp(3) + 3), rel=1e-5)
    gradient = jax.grad(load_balance_loss)(scores, top_k_mask(scores, 1))
    assert (np.asarray(gradient)[:, 0] > 0).all()
    assert (np.asarray(gradient)[:, 1:] < 0).all()
    alone = load_balance_loss(scores, jnp.eye(4, dtype=bool), jnp.asarray([1, 0, 0, 0]))
    assert float(alone) == pytest.approx(float(uneven), rel=1e-6)


def test_z_loss_is_the_square_of_the_log_denominator():
    scores = jax.random.normal(jax.random.key(0), (3, 5))
    expected = np.log(np.exp(np.asarray(scores)).sum(axis=-1)) ** 2
    assert float(z_loss(scores)) == pytest.approx(expected.mean(), rel=1e-5)
    assert float(z_loss(scores, jnp.asarray([0, 1, 0]))) == pytest.approx(expected[1], rel=1e-5)
