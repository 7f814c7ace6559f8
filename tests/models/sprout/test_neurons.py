"""Single neurons are rows of the matrices, and make the FFN's output together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sprout import SproutFFN, SproutFFNConfig
from sparsejax.models.sprout.analysis import NeuronUsage
from sparsejax.models.sprout.neurons import least_used, most_used, neuron, output_neuron

CONFIG = SproutFFNConfig(d_model=4, d_ff=6, block_size=3)


def parameters(config):
    params = jax.jit(SproutFFN(config).init)(jax.random.key(0), jnp.ones((1, 4)))["params"]
    return jax.tree.map(lambda leaf: 20 * leaf, params)


def test_contributions_add_up_to_the_output():
    params = parameters(CONFIG)
    inputs = jax.random.normal(jax.random.key(1), (3, 4))
    parts = [neuron({"layer_7": {"ffn": params}}, 7, index).contribution(inputs) for index in range(6)]
    outputs = SproutFFN(CONFIG).apply({"params": params}, inputs)
    np.testing.assert_allclose(sum(parts), outputs, atol=1e-6)
    values = jnp.stack([neuron(params, None, index).activation(inputs) for index in range(6)], axis=-1)
    columns = [output_neuron(params, None, index)(values) for index in range(4)]
    np.testing.assert_allclose(jnp.stack(columns, axis=-1), outputs, atol=1e-6)


def test_a_neuron_shows_its_router_whatever_its_kind():
    params = parameters(CONFIG)
    third = neuron(params, None, 3)
    np.testing.assert_array_equal(third.router, params["router"]["kernel"][:, 3])
    np.testing.assert_array_equal(third.preactivation(jnp.eye(4)), third.w_in)
    low = parameters(SproutFFNConfig(d_model=4, d_ff=6, router="low_rank", router_rank=2))
    product = low["router"]["down_kernel"] @ low["router"]["kernel"]
    np.testing.assert_array_equal(neuron(low, None, 3).router, product[:, 3])
    block = parameters(SproutFFNConfig(d_model=4, d_ff=6, block_size=3, router="block"))
    for index in (3, 5):
        np.testing.assert_array_equal(neuron(block, None, index).router, block["router"]["kernel"][:, 1])


def test_biases_and_other_activations():
    params = parameters(CONFIG) | {"b_in": jnp.arange(6.0) - 3}
    one = neuron(params, None, 1, activation="relu")
    assert one.activation(jnp.zeros(4)).item() == 0
    assert neuron(params, None, 5, activation="relu").activation(jnp.zeros(4)).item() == 2


def test_most_and_least_used_are_in_order():
    usage = NeuronUsage(np.array([[0, 0, 0], [5, 7, 5]]), np.ones((2, 3)), 9, 1)
    assert most_used(usage, 1, 2).tolist() == [1, 0]
    assert least_used(usage, 1).tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda params: neuron(params, None, 6), "neuron 6 is not one of 0 to 5"),
        (lambda params: neuron(params, 2, 0), "no layer 2"),
        (lambda params: neuron({"layer_0": params}, None, 0), "give the number of a layer"),
        (lambda params: output_neuron(params, None, -1), "output neuron -1 is not one of 0 to 3"),
        (lambda params: output_neuron({"w_in": params["w_in"]}, None, 0), "no output matrix"),
        (
            lambda params: neuron(params, None, 0)._replace(w_out=None).contribution(0),
            "no output weights",
        ),
    ],
)
def test_what_does_not_exist(call, message):
    params = {"w_in": np.ones((6, 4)), "w_out": np.ones((6, 4)), "router": {"kernel": np.ones((4, 6))}}
    with pytest.raises(ValueError, match=message):
        call(params)
