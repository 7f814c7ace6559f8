"""The network: streaming, packed documents, both stacks, precision, and what it refuses."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ten import EigenstateLayer, TemporalEigenstateConfig, TemporalEigenstateNetwork
from sparsejax.models.ten.init import RING
from sparsejax.models.ten.state import check_state, initial_state

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 32, (2, 9)))
SEQUENTIAL = EigenstateLayer("eigenvectors", coupling="scaled", gate=False, activation="gelu")
EVERYTHING = EigenstateLayer(
    selective=True, memory=True, short_conv=3, attention_layers=(1,), attention_window=2, normalize_input=True
)
NETWORKS = {
    "paper": {},
    "seed": {"variant": "seed"},
    "no resonance": {"use_resonance": False, "pos_emb_type": "sinusoidal", "tie_weights": False},
    "sequential": {"variant": "modern", "layer": SEQUENTIAL},
    "everything": {"variant": "modern", "layer": EVERYTHING, "pos_emb_type": "none"},
    "two stacks": {
        "variant": "modern",
        "layer": EigenstateLayer(coupling="full"),
        "long_layer": EigenstateLayer(coupling="none", memory=True, band_gates=4, short_conv=4),
        "context_threshold": 6,
    },
}
every_network = pytest.mark.parametrize("name", NETWORKS)
every_kind = pytest.mark.parametrize("name", ["paper", "sequential", "everything", "two stacks"])


def build(name, **fields):
    sizes = {"vocab_size": 32, "dim": 8, "n_layers": 2, "num_eigenstates": 4, "n_heads": 2}
    config = TemporalEigenstateConfig(
        **{**sizes, "max_seq_len": 16, "dropout": 0.0, "use_gradient_checkpointing": False}
        | {**NETWORKS[name], **fields}
    )
    return config, TemporalEigenstateNetwork(config)


@functools.cache
def start(name, **fields):
    config, model = build(name, **fields)
    return config, model, jax.jit(model.init)(jax.random.key(1), TOKENS)["params"]


@functools.partial(jax.jit, static_argnums=0, static_argnames="stack")
def run(model, params, tokens, state=None, *, segment_ids=None, stack=None):
    """The network's output; tests of one network and shape share a program."""
    return model.apply({"params": params}, tokens, state, segment_ids, stack=stack)


def worst(left, right):
    return float(np.abs(np.asarray(left, np.float64) - np.asarray(right, np.float64)).max())


@every_network
def test_counts_its_parameters_and_survives_json(name):
    config, model = build(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS)["params"]
    table = config.pos_emb_type == "sinusoidal" and shapes.pop("position_embedding")
    assert bool(table) == (name == "no resonance")
    assert config.num_parameters == sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert TemporalEigenstateConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@every_kind
def test_parts_with_a_carried_state_give_what_the_whole_gives(name):
    config, model, params = start(name)
    stack = None if config.long_layer is None else "both"
    whole = run(model, params, TOKENS, stack=stack)
    first = run(model, params, TOKENS[:, :7], stack=stack)
    second = run(model, params, TOKENS[:, 7:8], first.state)
    third = run(model, params, TOKENS[:, 8:], second.state)
    parts = [first.logits, second.logits, third.logits]
    assert worst(np.concatenate(parts, axis=1), whole.logits) < 1e-5
    assert jax.tree.structure(third.state) == jax.tree.structure(whole.state)
    for left, right in zip(jax.tree.leaves(third.state), jax.tree.leaves(whole.state), strict=True):
        assert worst(left, right) < 1e-5
    check_state(config, third.state, 2)


@every_kind
def test_packed_documents_do_not_see_each_other(name):
    _, model, params = start(name)
    stack = "long" if name == "two stacks" else None
    ids = jnp.array([[5, 5, 9, 9, 9, 9, 9, 9, 9], [1, 2, 3, 3, 3, 3, 3, 3, 3]])
    packed = run(model, params, TOKENS, segment_ids=ids, stack=stack)
    alone = run(model, params, TOKENS[:, 2:], stack=stack)
    assert worst(packed.logits[:, 2:], alone.logits) < 1e-5
    for left, right in zip(jax.tree.leaves(packed.state), jax.tree.leaves(alone.state), strict=True):
        assert worst(left, right) < 1e-5
    assert packed.state.position.tolist() == [7, 7]
    second = run(model, params, TOKENS[:, 1:8], stack=stack)  # the documents that begin at the second token
    assert worst(packed.logits[1, 1], second.logits[1, 0]) < 1e-5
    assert worst(packed.logits[0, 1], second.logits[0, 0]) > 1e-5


def test_a_state_and_segments_together():
    """The first document goes on; the second, which begins inside the call, knows nothing of it."""
    _, model, params = start("everything")
    past, following = TOKENS[:, :7], TOKENS[:, 2:]
    ids = jnp.array([[0, 0, 1, 1, 1, 1, 1]] * 2)
    after = run(model, params, following, run(model, params, past).state, segment_ids=ids)
    whole = run(model, params, jnp.concatenate([past, following[:, :2]], axis=1))
    assert worst(after.logits[:, :2], whole.logits[:, 7:]) < 1e-5
    alone = run(model, params, jnp.roll(following, -2, axis=1))
    assert worst(after.logits[:, 2:], alone.logits[:, :5]) < 1e-5


def test_two_stacks_switch_by_length_as_published():
    _, model, params = start("two stacks")
    logits = {stack: run(model, params, TOKENS, stack=stack).logits for stack in ("short", "long")}
    assert worst(run(model, params, TOKENS).logits, logits["long"]) == 0
    assert worst(run(model, params, TOKENS[:, :6]).logits, logits["short"][:, :6]) < 1e-6
    both = run(model, params, TOKENS, stack="both")
    assert worst(both.logits[:, :6], logits["short"][:, :6]) < 1e-6
    assert worst(both.logits[:, 6:], logits["long"][:, 6:]) < 1e-6
    assert (len(both.state.short), len(both.state.long), both.state.stack) == (2, 2, "both")


@every_kind
def test_the_past_alone_matters(name):
    _, model, params = start(name)
    stack = "both" if name == "two stacks" else None
    changed = TOKENS.at[:, 5].set((TOKENS[:, 5] + 1) % 32)
    before, after = (run(model, params, ids, stack=stack).logits for ids in (TOKENS, changed))
    assert worst(before[:, :5], after[:, :5]) == 0
    assert worst(before[:, 5:], after[:, 5:]) > 1e-4


def test_legacy_chunks_look_ahead_and_have_no_state():
    config, model, params = start("sequential", layer=EigenstateLayer(anticausal_chunk=8))
    before, after = (run(model, params, ids) for ids in (TOKENS, TOKENS.at[:, 5].set(0)))
    assert before.state is None
    assert worst(before.logits[:, 0], after.logits[:, 0]) > 1e-6
    with pytest.raises(ValueError, match="cannot be streamed or packed"):
        model.apply({"params": params}, TOKENS, segment_ids=TOKENS)
    with pytest.raises(ValueError, match="has no state"):
        initial_state(config, 2)


def test_bfloat16_computes_in_it_and_keeps_states_and_logits_wide():
    config, _, params = start("everything")
    model = TemporalEigenstateNetwork(config, dtype=jnp.bfloat16)
    out = run(model, params, TOKENS)
    hidden = jax.eval_shape(lambda: model.apply({"params": params}, TOKENS, method="hidden"))[0]
    assert hidden.dtype == jnp.bfloat16
    assert out.logits.dtype == out.state.short[0].eigenstates[0].dtype == jnp.float32
    exact = run(TemporalEigenstateNetwork(config), params, TOKENS).logits
    assert 0 < worst(out.logits, exact) < 0.03 * float(np.abs(exact).max())


def test_gradients_are_finite_and_checkpointing_changes_none():
    config, model, params = start("everything")
    again = TemporalEigenstateNetwork(dataclasses.replace(config, use_gradient_checkpointing=True))

    def gradient(model):
        def loss(params):
            return jnp.mean(jax.nn.log_softmax(model.apply({"params": params}, TOKENS).logits)[..., 0])

        return jax.jit(jax.grad(loss))

    of_plain = gradient(model)
    plain, recomputed = of_plain(params), gradient(again)(params)
    for left, right in zip(jax.tree.leaves(plain), jax.tree.leaves(recomputed), strict=True):
        assert np.isfinite(left).all() and worst(left, right) < 1e-6
    saturated = jnp.full_like(params["layer_1"]["decay_logit"], 200.0)
    params = {**params, "layer_1": {**params["layer_1"], "decay_logit": saturated}}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(of_plain(params)))


def test_embeddings_instead_of_ids_and_dropout_in_training():
    _, model, params = start("paper", dropout=0.5, pos_emb_type="none", n_layers=1)
    embedded = params["token_embedding"]["embedding"][TOKENS]
    ids, floats = (run(model, params, x).logits for x in (TOKENS, embedded))
    assert worst(ids, floats) == 0

    @jax.jit
    def dropped(params, key):
        return model.apply({"params": params}, TOKENS, train=True, rngs={"dropout": key}).logits

    assert worst(dropped(params, jax.random.key(2)), ids) > 1e-3


@pytest.mark.parametrize(("variant", "clip"), [("modern", 1.0), ("paper", 0.99)])
def test_ring_starts_slow_and_legacy_forgets(variant, clip):
    for init, low, high in (("ring", RING[0], min(RING[1], clip)), ("legacy", 0.0, 0.5)):
        config = TemporalEigenstateConfig(
            variant=variant, init=init, dim=4, vocab_size=3, num_eigenstates=256, n_layers=1, max_seq_len=4
        )
        model = TemporalEigenstateNetwork(config)

        @jax.jit
        def magnitudes_of(key, model=model):
            layer = model.init(key, jnp.zeros((1, 1), int))["params"]["layer_0"]
            logits = layer["decay_logit"] if variant == "modern" else layer["cells"]["decay_logit"]
            return clip * jax.nn.sigmoid(logits)

        magnitudes = magnitudes_of(jax.random.key(0))
        assert low <= float(magnitudes.min()) <= float(magnitudes.max()) <= high
        assert float(magnitudes.max()) > 0.9 * high


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": 0}, "dim must be a whole number of at least 1"),
        ({"n_layers": True}, "n_layers must be"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"eigenvalue_clip": 0.0}, "eigenvalue_clip"),
        ({"resonance_epsilon": -0.1}, "resonance_epsilon"),
        ({"energy_reg_weight": float("nan")}, "energy_reg_weight"),
        ({"ffn_multiplier": 0.0}, "ffn_multiplier"),
        ({"variant": "v1"}, "variant 'v1' is not one of"),
        ({"pos_emb_type": "rotary"}, "pos_emb_type 'rotary'"),
        ({"long_layer": EigenstateLayer()}, "belongs to the variant 'modern'"),
        ({"variant": "modern", "n_heads": 3}, "does not divide among n_heads=3"),
        ({"variant": "modern", "layer": EigenstateLayer(attention_layers=(9,))}, "attention_layers has 9"),
        (
            {"variant": "modern", "dim": 30, "n_heads": 4, "layer": EigenstateLayer(attention_layers=(0,))},
            "dim=30 does not divide among n_heads=4",
        ),
    ],
)
def test_impossible_networks_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TemporalEigenstateConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"coupling": "scaled"}, "goes with coupling 'scaled'"),
        ({"projection": "eigenvectors", "coupling": "scaled", "memory": True}, "no selection, convolution"),
        ({"anticausal_chunk": 4, "selective": True}, "constant eigenvalues"),
        ({"attention_window": 0}, "attention_window"),
        ({"activation": "relu"}, "activation 'relu'"),
    ],
)
def test_impossible_layers_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EigenstateLayer(**fields)


def test_calls_that_cannot_be_right_are_refused():
    config, model = build("paper")
    variables = {"params": jax.eval_shape(model.init, jax.random.key(0), TOKENS)["params"]}
    calls = {
        "an empty sequence": (TOKENS[:, :0],),
        "is needed": (TOKENS[0],),
        "segment_ids of shape": (TOKENS, None, TOKENS[:, :4]),
    }
    for message, inputs in calls.items():
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(model.apply, variables, *inputs)
    with pytest.raises(ValueError, match="needs a network with two stacks"):
        jax.eval_shape(lambda: model.apply(variables, TOKENS, stack="long"))
    with pytest.raises(ValueError, match="shape"):
        check_state(config, initial_state(config, 3), 2)
    with pytest.raises(ValueError, match="other layers"):
        check_state(dataclasses.replace(config, n_layers=3), initial_state(config, 2), 2)
    with pytest.raises(ValueError, match="earlier output"):
        check_state(config, "state", 2)


def test_positions_beyond_the_table_are_never_garbage():
    _, model, params = start("paper")
    state = initial_state(build("paper")[0], 2).replace(position=jnp.array([15, 3]))
    logits = np.asarray(run(model, params, TOKENS[:, :2], state).logits)
    assert np.isnan(logits[0, 1]).all(), "position 16 of a table of 16"
    assert np.isfinite(logits[0, 0]).all() and np.isfinite(logits[1]).all()
