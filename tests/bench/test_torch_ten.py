"""The torch peers of the eigenstate networks: every form of the recurrence, values and gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.bench.peers import torch_ten, torch_ten_paper, torch_transformer
from sparsejax.bench.peers.torch_ten_weights import inference, leaves, tensors, training_step
from sparsejax.models.ten import EigenstateLayer, TemporalEigenstateConfig, TemporalEigenstateNetwork

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # at these sizes a second one only waits

SIZES = {
    "vocab_size": 11,
    "dim": 8,
    "n_layers": 2,
    "num_eigenstates": 4,
    "n_heads": 2,
    "dropout": 0.0,
    "use_gradient_checkpointing": False,
}
RECURRENCES = [
    torch_ten.loop,
    torch_ten.loop_as_published,
    torch_ten.fft,
    torch_ten.hand_differentiated_loop,
]
CELLS = [torch_ten_paper.loop, torch_ten_paper.loop_as_published]


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def exact(drive, decay, mixing=None):
    """c_t = (lambda c_{t-1} + drive_t) R, step by step in complex128."""
    states, state = [], 0
    for step in np.moveaxis(drive, 1, 0):
        state = decay * state + step
        state = state if mixing is None else state @ mixing
        states.append(state)
    return np.stack(states, 1)


@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("length", [1, 2, 33])
def test_diagonal_recurrences_equal_the_sum_over_time(recurrence, length):
    drive, logit, angle = draw(0, 2, length, 6), draw(1, 3) - 1, draw(2, 3)
    found = recurrence(*(torch.from_numpy(array) for array in (drive, logit, angle))).numpy()
    states = exact(drive[..., :3] + 1j * drive[..., 3:], np.exp(logit + 1j * angle))
    np.testing.assert_allclose(found, np.concatenate([states.real, states.imag], -1), atol=1e-9)


@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda f: f.__name__)
def test_diagonal_recurrences_have_the_right_gradient(recurrence):
    inputs = [torch.from_numpy(array) for array in (draw(0, 2, 5, 4), draw(1, 2) - 1, draw(2, 2))]
    assert torch.autograd.gradcheck(recurrence, [value.requires_grad_() for value in inputs])


@pytest.mark.parametrize("cells", CELLS, ids=lambda f: f.__name__)
def test_mixed_recurrences_equal_the_sum_over_time(cells):
    drive, angle, mixing = draw(0, 2, 3, 9, 4), draw(2, 2, 4), 0.4 * draw(3, 2, 4, 4)
    magnitude = np.random.default_rng(1).uniform(0.3, 0.9, (2, 4))
    found = cells(*(torch.from_numpy(array) for array in (drive, magnitude, angle, mixing))).numpy()
    decay = magnitude * np.exp(1j * angle)
    expected = [exact(*cell).real for cell in zip(drive, decay, mixing, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def ours(config, tokens, targets):
    """Our parameters, logits, loss and gradients."""
    model = TemporalEigenstateNetwork(config)
    params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
    params = jax.tree.map(lambda leaf: np.float32(leaf + 0.02 * draw(1, *leaf.shape)), params)

    def loss(params):
        logits = model.apply({"params": params}, tokens).logits
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)
        return -chosen.mean(), logits

    (value, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return params, logits, value, gradients


def check_equal(peer, params, expected, tokens, targets):
    logits, loss, gradients = expected
    ids, goal = (torch.from_numpy(np.array(array, np.int64)) for array in (tokens, targets))
    forward = inference(peer(tensors(params)))
    np.testing.assert_allclose(forward(ids).numpy(), logits, atol=2e-5)
    trained = tensors(params, gradients=True)
    found_loss, found = training_step(peer(trained), trained, ids, goal)()
    assert float(found_loss) == pytest.approx(float(loss), abs=2e-6)
    wanted = leaves(gradients)
    assert found.keys() == wanted.keys()
    for path, gradient in found.items():
        np.testing.assert_allclose(gradient, wanted[path], atol=2e-5, err_msg=path)


def test_the_diagonal_network_is_ours_in_value_and_gradient():
    layer = EigenstateLayer(normalize_input=True)
    config = TemporalEigenstateConfig.modern(**SIZES, layer=layer)
    tokens, targets = np.random.default_rng(0).integers(0, 11, (2, 2, 13))
    params, *expected = ours(config, tokens, targets)
    for recurrence in (torch_ten.loop, torch_ten.fft, torch_ten.hand_differentiated_loop):
        check_equal(
            lambda weights, recurrence=recurrence: torch_ten.network(
                weights, recurrence, normalize_input=True
            ),
            params,
            expected,
            tokens,
            targets,
        )


@pytest.mark.parametrize(("variant", "other"), [("paper", {}), ("seed", {"tie_weights": False})])
def test_the_mixed_network_is_ours_in_value_and_gradient(variant, other):
    config = TemporalEigenstateConfig(**SIZES, variant=variant, max_seq_len=16, **other)
    tokens, targets = np.random.default_rng(0).integers(0, 11, (2, 2, 13))
    params, *expected = ours(config, tokens, targets)

    def network(weights):
        return torch_ten_paper.network(weights, torch_ten_paper.loop, variant=variant)

    check_equal(network, params, expected, tokens, targets)


@pytest.fixture(scope="module")
def transformer():
    params = torch_transformer.random_params(0, vocab_size=11, dim=8, n_layers=2, length=12)
    params = {**params, "final_norm": {"scale": draw(1, 8), "bias": draw(2, 8)}}
    return tensors(params, dtype="float64")


def test_the_transformer_is_causal_and_sees_its_past(transformer):
    forward = inference(torch_transformer.network(transformer, heads=2))
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 11, (2, 12)))
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    difference = (forward(tokens) - forward(changed)).abs().amax((0, 2))
    assert float(difference[:5].max()) < 1e-12
    assert float(difference[5:].min()) > 1e-9


def test_one_block_of_the_transformer_is_its_formula(transformer):
    from scipy.special import erf

    weights = {path: leaf.numpy() for path, leaf in leaves(transformer).items()}
    tokens = np.array([[3, 1, 4, 1, 5]])

    def norm(x, name):
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return scaled * weights[f"{name}/scale"] + weights[f"{name}/bias"]

    def dense(x, name):
        return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    x = weights["token_embedding/embedding"][tokens] + weights["position_embedding/embedding"][:5]
    for layer in ("layer_0", "layer_1"):
        query, key, value = np.split(dense(norm(x, f"{layer}/norm1"), f"{layer}/attention_in"), 3, -1)
        mixed = []
        for head in (slice(0, 4), slice(4, 8)):
            scores = query[..., head] @ np.swapaxes(key[..., head], 1, 2) / 2
            shares = np.exp(scores) * np.tri(5)
            mixed.append(shares / shares.sum(-1, keepdims=True) @ value[..., head])
        x = x + dense(np.concatenate(mixed, -1), f"{layer}/attention_out")
        hidden = dense(norm(x, f"{layer}/norm2"), f"{layer}/ffn_in")
        x = x + dense(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, f"{layer}/ffn_out")
    expected = norm(x, "final_norm") @ weights["token_embedding/embedding"].T
    found = inference(torch_transformer.network(transformer, heads=2))(torch.from_numpy(tokens))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-10)


def test_cached_keys_and_values_give_the_logits_of_the_whole(transformer):
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 11, (1, 6)))
    expected = inference(torch_transformer.network(transformer, heads=2))(tokens)
    kept = [torch.empty(2, 1, 2, 0, 4, dtype=torch.float64) for _ in range(2)]
    with torch.inference_mode():
        for position in range(6):
            kept = [torch.cat((buffer, torch.zeros(2, 1, 2, 1, 4)), 3) for buffer in kept]
            step = torch_transformer.cached_step(transformer, kept)
            found = step(tokens[:, position : position + 1])
            np.testing.assert_allclose(found[:, 0], expected[:, position], atol=1e-12)
    shapes = [
        tuple(buffer.shape) for buffer in torch_transformer.random_cache(transformer, heads=2, prefix=5)
    ]
    assert shapes == [tuple(buffer.shape) for buffer in kept]
