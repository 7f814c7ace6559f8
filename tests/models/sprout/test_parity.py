"""Every imported version against the originals' own tensors: logits, parts, selections, losses, gradients."""

from __future__ import annotations

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint.errors import UnknownFormatError
from sparsejax.checkpoint.rules import to_state
from sparsejax.models.sprout import SproutFFN, SproutFFNConfig, SproutLM
from sparsejax.models.sprout.inputs import check_inputs
from sparsejax.models.sprout.layouts import rules
from sparsejax.ops.sparse_ffn import top_k_mask
from tests import golden
from tests.models.sprout import quick

MODELS = {
    "v0_modules": "v0",
    "v0_modules_pristine_init": "v0",
    "v1_params": "v1",
    "v2_mlp_router": "v2",
    "v3_manifold_eval": "v3",
    "v3_manifold_trainmode": "v3",
    "v4_deepsets_7d94b36": "v4a",
    "v4_deepsets_60b156f": "v4c",
}
FFNS = {"ffn_v0_modules": "v0", "ffn_v2_f7979e0": "v2", "ffn_v2_fe5444d": "v2"}
OTHERS = {
    "analysis_v1": "v1",
    "analysis_v2": "v2",
    "train_v0_start": "v0",
    "train_v0_end": "v0",
    "train_v2_router_all_end": "v2",
    "train_v2_router_first10_end": "v2",
}
LOGITS = {"atol": 2e-5, "rtol": 1e-4}  # of the manifest, as are the rest
GRADIENTS = {"atol": 2e-6, "rtol": 1e-3}
FFN_OUTPUTS = {"atol": 2e-5, "rtol": 1e-4}
FFN_GRADIENTS = {"atol": 5e-5, "rtol": 1e-4}

every_model = pytest.mark.parametrize("case", MODELS)
every_ffn = pytest.mark.parametrize("case", FFNS)
covers_models = pytest.mark.golden(*MODELS)
covers_ffns = pytest.mark.golden(*FFNS)


@cache
def checkpoint(case):
    """Without dropout, so that what the originals computed in training mode can be computed again."""
    return sj.load(golden.path("sprout", f"{case}.pt"), overrides={"dropout": 0.0})


@cache
def arrays(case):
    return golden.arrays("sprout", case)


def counts(case):
    """(top_k, its name) of the case."""
    listed = golden.manifest("sprout").get(case, {}).get("top_k", ())
    return [(top_k, "knone" if top_k is None else f"k{top_k}") for top_k in listed]


@partial(quick.jit, static_argnums=0)
def run(call, params, batch, top_k):
    """Loss and logits, what every layer put out, and gradients; one compilation serves all counts."""
    config, train, dense = call
    model, (ids, mask, labels) = SproutLM(config), batch

    def loss(params):
        out, seen = model.apply(
            {"params": params},
            ids,
            top_k=None if dense else top_k,
            key_padding_mask=mask,
            train=train,
            mutable=["intermediates"],
        )
        chances = jax.nn.log_softmax(out.logits)
        kept = labels >= 0
        picked = jnp.take_along_axis(chances, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
        return -(picked * kept).sum() / kept.sum(), (out, seen["intermediates"])

    (value, (out, seen)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return value, out, seen, gradient


def run_case(case, top_k, *, masked=False):
    ck, stored = checkpoint(case), arrays(case)
    config = dataclasses.replace(ck.config, router_init="w_in")  # v0 and v1 share their compilations
    mask = stored["key_padding_mask"] if masked else np.zeros_like(stored["key_padding_mask"])
    train = "trainmode" in case
    # All neurons are a count like any other, but where the mixer acts in sparse calls only.
    call = config, train, train and top_k is None
    count = jnp.asarray(config.d_ff if top_k is None else top_k)
    return run(call, ck.params, (stored["input_ids"], mask, stored["labels"]), count)


@covers_models
@every_model
def test_logits_losses_parts_and_gradients(case):
    ck, stored = checkpoint(case), arrays(case)
    assert ck.variant == MODELS[case]
    compared = 0
    for top_k, name in counts(case):
        value, out, seen, gradient = run_case(case, top_k)
        np.testing.assert_allclose(out.logits, stored[f"logits__{name}__nomask"], **LOGITS)
        np.testing.assert_allclose(out.logits, stored[f"logits64__{name}__nomask"], **LOGITS)
        assert abs(float(value) - stored[f"loss__{name}__nomask"]) <= 2e-5
        masked_value, masked, _, _ = run_case(case, top_k, masked=True)
        np.testing.assert_allclose(masked.logits, stored[f"logits__{name}__mask"], **LOGITS)
        assert abs(float(masked_value) - stored[f"loss__{name}__mask"]) <= 2e-5
        compare_layers(ck.config, stored, seen, top_k, name)
        compared += compare_gradients(ck, stored, gradient, name)
    assert compared == sum(name.startswith("grad__") for name in stored)


def compare_layers(config, stored, seen, top_k, name):
    for number in range(config.n_layers):
        layer, stem = seen[f"layer_{number}"], f"L{number}"
        parts = {
            "attn_out": layer["attention_out"],
            "ffn_in": layer["ffn"]["ffn_in"],
            "ffn_out": layer["ffn_out"],
            "out": layer["out"],
        }
        for part, (found,) in parts.items():
            if f"{stem}_{part}__{name}" in stored:
                np.testing.assert_allclose(found, stored[f"{stem}_{part}__{name}"], **LOGITS)
        if top_k is None:
            continue
        (scores,) = layer["ffn"]["scores"]
        flat = scores.reshape(-1, config.d_ff)
        if f"{stem}_scores__{name}" in stored:
            np.testing.assert_allclose(flat, stored[f"{stem}_scores__{name}"], **LOGITS)
        best = np.argsort(-np.asarray(flat), axis=-1, kind="stable")[:, :top_k]
        np.testing.assert_array_equal(np.sort(best), stored[f"{stem}_topk_sorted__{name}"])


def compare_gradients(ck, stored, gradient, name):
    """How many were compared; routers get none, as published."""
    for number in range(ck.config.n_layers):
        router = jax.tree.leaves(gradient[f"layer_{number}"]["ffn"]["router"])
        assert any(bool(leaf.any()) for leaf in router) == bool(stored[f"router_has_grad__{name}"][number])
    # The manifest stacks the gradients of single neurons.
    state = to_state(rules("v1" if ck.variant == "v0" else ck.variant, ck.config), jax.device_get(gradient))
    wanted = [key for key in stored if key.startswith("grad__") and key.endswith(f"__{name}")]
    for key in wanted:
        middle = key.removeprefix("grad__").removesuffix(f"__{name}")
        short = middle if middle in state else f"layers.{middle[1]}.ffn.{middle[3:]}"
        np.testing.assert_allclose(state[short], stored[key], err_msg=key, **GRADIENTS)
    return len(wanted)


@covers_models
@pytest.mark.parametrize(
    "case", ["v1_params", "v2_mlp_router", "v3_manifold_trainmode", "v4_deepsets_7d94b36"]
)
def test_a_loaded_checkpoint_gathers_to_the_same(case):
    ck, stored, top_k = checkpoint(case), arrays(case), 16
    options = {"path": "gather", "train": "trainmode" in case}
    found = ck.apply(stored["input_ids"], top_k=(top_k,) * ck.config.n_layers, **options).logits
    np.testing.assert_allclose(found, stored[f"logits__k{top_k}__nomask"], **LOGITS)


@pytest.mark.golden("v0_modules")
def test_both_masks_mean_the_same_and_auto_is_the_published_function():
    ck, stored = checkpoint("v0_modules"), arrays("v0_modules")
    ids, ignored = stored["input_ids"], stored["key_padding_mask"]
    expected = stored["logits__k16__mask"]
    kept = ck.apply(ids, top_k=16, attention_mask=(~ignored).astype(np.int64)).logits
    np.testing.assert_allclose(kept, expected, **LOGITS)
    ignored = ck.apply(ids, top_k=16, key_padding_mask=ignored).logits
    np.testing.assert_allclose(ignored, expected, **LOGITS)


@pytest.mark.golden("v0_modules")
def test_a_mask_of_floats_is_refused_since_the_original_adds_it_to_its_scores():
    ck, stored = checkpoint("v0_modules"), arrays("v0_modules")
    floats = 1.0 - stored["key_padding_mask"].astype(np.float32)
    with pytest.raises(ValueError, match="adds floats"):
        check_inputs(ck.config, stored["input_ids"], attention_mask=floats)
    # What the original made of it is neither of the two meanings.
    quirk = stored["logits__knone__floatmask10"]
    assert np.abs(quirk - stored["logits__knone__mask"]).max() > 1e-3


@pytest.mark.golden("v1_params")
def test_in_float64_the_difference_is_rounding():
    ck, stored = checkpoint("v1_params"), arrays("v1_params")
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), ck.params)

        @quick.jit
        def call(top_k):
            return ck.model.apply({"params": params}, stored["input_ids"], top_k=top_k)

        for top_k in (32, 16, 5):
            logits = call(jnp.asarray(top_k)).logits
            assert logits.dtype == jnp.float64
            np.testing.assert_allclose(logits, stored[f"logits64__k{top_k}__nomask"], atol=1e-13, rtol=0)


@pytest.mark.golden(*OTHERS, "train_v0", "train_v2_router_all", "train_v2_router_first10")
@pytest.mark.parametrize("case", OTHERS)
def test_files_around_training_are_known(case):
    report = sj.inspect(golden.path("sprout", f"{case}.pt"))
    assert (report.kind, report.variant, report.problem) == ("sprout", OTHERS[case], None)
    assert (report.config.n_heads, report.config.max_len, report.config.d_ff) == (4, 24, 64)


@pytest.mark.golden("dawn_v17_1_token_routing", "dawn_v17_1_ssm_routing")
@pytest.mark.parametrize("case", ["dawn_v17_1_token_routing", "dawn_v17_1_ssm_routing"])
def test_the_successor_is_refused_by_name(case):
    with pytest.raises(UnknownFormatError, match="DAWN, the successor of SPROUT") as caught:
        sj.load(golden.path("sprout", f"{case}.pt"))
    assert "\n" not in str(caught.value)


@partial(quick.jit, static_argnums=0)
def run_ffn(call, params, inputs, cotangent, top_k):
    """Outputs, usage and scores, and gradients; one compilation serves all counts."""
    config, static, path = call

    def loss(params, inputs):
        options = {"top_k": static or top_k, "path": path, "method": "routed"}
        (outputs, usage), seen = SproutFFN(config).apply(
            {"params": params}, inputs, mutable=["intermediates"], **options
        )
        return (outputs * cotangent).sum(), (outputs, usage, seen["intermediates"]["scores"][0])

    (_, aux), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, inputs)
    return aux, gradients


@covers_ffns
@every_ffn
def test_a_bare_feed_forward_part(case):
    ck, stored = checkpoint(case), arrays(case)
    assert isinstance(ck.config, SproutFFNConfig) and ck.variant == FFNS[case]
    calls = [(top_k, name, None, "masked") for top_k, name in counts(case)]
    for top_k, name, static, path in (*calls, (13, "k13", 13, "gather")):
        count = jnp.asarray(ck.config.d_ff if top_k is None else top_k)
        config = dataclasses.replace(ck.config, router_init="w_in")
        aux, gradients = run_ffn((config, static, path), ck.params, stored["x"], stored["cotangent"], count)
        compare_ffn(stored, name, aux, gradients)


def compare_ffn(stored, name, aux, gradients):
    (outputs, usage, scores), (of_params, of_inputs) = aux, gradients
    np.testing.assert_allclose(scores.reshape(stored["scores"].shape), stored["scores"], **FFN_OUTPUTS)
    np.testing.assert_allclose(outputs, stored[f"out__{name}"], **FFN_OUTPUTS)
    np.testing.assert_allclose(outputs, stored[f"out64__{name}"], **FFN_OUTPUTS)
    np.testing.assert_allclose(of_inputs, stored[f"dx__{name}"], **FFN_GRADIENTS)
    if f"dW1__{name}" in stored:
        np.testing.assert_allclose(of_params["w_in"], stored[f"dW1__{name}"], **FFN_GRADIENTS)
        np.testing.assert_allclose(of_params["w_out"].T, stored[f"dW2__{name}"], **FFN_GRADIENTS)
    if f"usage_frequency__{name}" in stored:
        np.testing.assert_allclose(usage, stored[f"usage_frequency__{name}"], atol=1e-6)
    trained = any(bool(leaf.any()) for leaf in jax.tree.leaves(of_params["router"]))
    assert trained == bool(stored[f"router_has_grad__{name}"])


@pytest.mark.golden("ffn_v0_modules", "ffn_v2_f7979e0")
def test_no_neuron_at_all_and_all_of_them():
    ck, stored = checkpoint("ffn_v0_modules"), arrays("ffn_v0_modules")
    assert not np.asarray(ck.apply(stored["x"], top_k=0)).any() and not stored["out__k0"].any()
    np.testing.assert_array_equal(ck.apply(stored["x"], top_k=256), ck.apply(stored["x"], top_k=10**6))
    np.testing.assert_array_equal(ck.apply(stored["x"], top_k=256), ck.apply(stored["x"]))


@pytest.mark.golden("ffn_ties")
def test_of_equal_scores_the_first_ones_are_taken():
    stored, config = arrays("ffn_ties"), SproutFFNConfig(d_model=16, d_ff=32)
    router = {"kernel": jnp.asarray(stored["W_router"].T)}
    params = {"w_in": jnp.asarray(stored["W1"]), "w_out": jnp.asarray(stored["W2"].T), "router": router}
    for top_k in (1, 3, 7, 16):
        ours = np.asarray(top_k_mask(jnp.asarray(stored["scores"]), jnp.asarray(top_k)))
        theirs = stored[f"torch_mask__k{top_k}"] > 0
        for row, mine, their in zip(stored["scores"], ours, theirs, strict=True):
            assert mine.sum() == top_k
            np.testing.assert_array_equal(np.sort(row[mine]), np.sort(row[their]))
            tied = row == row[mine].min()
            first = np.flatnonzero(tied)[: (mine & tied).sum()]
            np.testing.assert_array_equal(np.flatnonzero(mine & tied), first)
        (outputs, usage, _), _ = run_ffn(
            (config, None, "masked"), params, stored["x"], np.ones_like(stored["x"]), jnp.asarray(top_k)
        )
        same = (ours == theirs).all(axis=-1).reshape(2, 5)
        assert float(usage.sum()) == pytest.approx(top_k)
        np.testing.assert_allclose(outputs[same], stored[f"out__k{top_k}"][same], **FFN_OUTPUTS)
