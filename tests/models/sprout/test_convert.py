"""Every layout in and out again: variant, config, parameters, and the file that comes back."""

from __future__ import annotations

import dataclasses
import random

import jax
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint import errors, torch_file
from sparsejax.checkpoint.checkpoint import Checkpoint, template
from sparsejax.checkpoint.container import Layout
from sparsejax.checkpoint.registry import configure, find
from sparsejax.checkpoint.tree import flatten, unflatten
from sparsejax.checkpoint.verification import compare_outputs
from sparsejax.models.sprout import DeepSets, SproutConfig, SproutFFNConfig
from sparsejax.models.sprout.convert import config_from, detect, overrides_for, same_function
from tests.models.sprout import files
from tests.time_limits import cpu_seconds

MODEL = SproutConfig(
    vocab_size=files.VOCAB,
    d_model=files.DIM,
    d_ff=files.FF,
    n_heads=files.HEADS,
    n_layers=files.LAYERS,
    max_len=files.ROWS,
)
SETS = DeepSets(files.NEURON, files.HIDDEN)
CHANGES = {
    "v0": {"router_init": "random"},
    "v1": {},
    "v1_biases": {"use_bias": True},
    "v2": {"router": "mlp"},
    "v3": {"router": "mlp", "mixer_hidden": files.MIXER},
    "v3_linear": {"mixer_hidden": files.MIXER},
    "v4a": {"router": "mlp", "deep_sets": dataclasses.replace(SETS, normalize_sum=False)},
    "v4b": {"router": "mlp", "deep_sets": SETS},
    "v4b_context": {"router": "mlp", "deep_sets": dataclasses.replace(SETS, use_context=True)},
    "v4c": {"router": "mlp", "deep_sets": SETS},
    "low_rank": {"router": "low_rank", "router_rank": files.RANK},
    "low_rank_mixer": {"router": "low_rank", "router_rank": files.RANK, "mixer_hidden": files.MIXER},
    "block": {"router": "block", "block_size": files.BLOCK},
    "block_mlp": {"router": "mlp_block", "block_size": files.BLOCK},
}
every_layout = pytest.mark.parametrize("name", files.FFNS)


def write(folder, tree, name="model.pt"):
    torch_file.write(tree, folder / name)
    return folder / name


def made(config, variant, layout=None):
    """A checkpoint with parameters of its own, as training leaves it."""
    shapes = flatten(template(find("sprout"), config))
    params = unflatten({path: files.normal(path, *leaf.shape) for path, leaf in shapes.items()})
    return Checkpoint("sprout", variant, config, params, layout=layout or Layout(container="state_dict"))


def same_trees(left, right):
    """Equal names in equal order, equal bits."""
    if not isinstance(left, dict):
        return np.array_equal(left, right) and np.asarray(left).dtype == np.asarray(right).dtype
    return list(left) == list(right) and all(same_trees(left[key], right[key]) for key in left)


@every_layout
def test_a_trainers_file_loads_and_comes_back_bit_for_bit(tmp_path, name):
    state = files.model(name)
    path = write(tmp_path, files.wrapped(state, "_orig_mod.module."))
    ck = sj.load(path)
    assert (ck.kind, ck.variant) == ("sprout", files.variant_of(name))
    assert ck.config == dataclasses.replace(MODEL, **CHANGES[name])
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert same_trees(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))


@every_layout
def test_a_bare_feed_forward_part_does_so_too(tmp_path, name):
    path = write(tmp_path, files.ffn(name))
    ck = sj.load(path)
    assert isinstance(ck.config, SproutFFNConfig) and ck.variant == files.variant_of(name)
    assert ck.config == dataclasses.replace(MODEL, **CHANGES[name]).ffn
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert same_trees(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))


def test_neurons_stand_in_the_order_of_their_numbers(tmp_path):
    state = files.model("v0")
    keys = list(state)
    random.Random(0).shuffle(keys)
    ck = sj.load(write(tmp_path, files.wrapped({key: state[key] for key in keys})))
    for layer in range(files.LAYERS):
        ffn, stem = ck.params[f"layer_{layer}"]["ffn"], f"layers.{layer}.ffn"
        for neuron in range(files.FF):
            np.testing.assert_array_equal(ffn["w_in"][neuron], state[f"{stem}.middle_neurons.{neuron}.W_in"])
        for row in range(files.DIM):
            np.testing.assert_array_equal(ffn["w_out"][:, row], state[f"{stem}.output_neurons.{row}.W"])


def test_parameters_stand_where_the_model_has_them(tmp_path):
    state = files.model("v2")
    params = sj.load(write(tmp_path, files.wrapped(state))).params
    layer = params["layer_1"]
    stacked = state["layers.1.attention.in_proj_weight"]
    np.testing.assert_array_equal(layer["attention"]["key"]["kernel"], stacked[files.DIM : 2 * files.DIM].T)
    np.testing.assert_array_equal(layer["ffn"]["w_out"], state["layers.1.ffn.W2"].T)
    router = layer["ffn"]["router"]
    np.testing.assert_array_equal(router["hidden_kernel"], state["layers.1.ffn.router.W_router_1"].T)
    np.testing.assert_array_equal(router["kernel"], state["layers.1.ffn.router.W_router_2"].T)
    np.testing.assert_array_equal(params["head"]["kernel"], state["output_projection.weight"].T)


def test_what_no_tensor_tells_comes_from_args_config_or_overrides(tmp_path):
    state = files.model("v1")
    bare = write(tmp_path, state)
    with pytest.raises(errors.AmbiguousVariantError, match=r"overrides=\{'n_heads': N\}") as caught:
        sj.load(bare)
    assert caught.value.choices == ("n_heads",) and "\n" not in str(caught.value)
    assert sj.inspect(bare).problem is not None
    assert sj.load(bare, overrides={"n_heads": 2, "max_seq_len": files.ROWS}).config.n_heads == 2
    args = {"n_heads": 3, "max_len": files.ROWS, "sparse_k": 5, "dropout": 0.25}
    told = sj.load(write(tmp_path, {"state_dict": state, "config": args}, "told.pt"))
    assert told.config == dataclasses.replace(MODEL, sparse_k=5, dropout=0.25)
    assert sj.load(tmp_path / "told.pt", overrides={"sparse_k": 2, "n_heads": 1}).config.sparse_k == 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"n_heads": 4}, "does not divide into n_heads=4"),
        ({"n_heads": "3"}, "n_heads must be a whole number"),
        ({"max_len": 8}, "max_len=8 contradicts the 9 rows"),
        ({"max_seq_len": 10}, "max_seq_len=10 contradicts"),
        ({"d_ff": 12}, "overrides has no 'd_ff'; it takes 'sparse_k'"),
        ({"activation": "swoosh"}, "activation 'swoosh'"),
    ],
)
def test_overrides_that_cannot_be_are_refused(overrides, words):
    with pytest.raises(errors.AmbiguousVariantError, match=words):
        find_config(files.model("v1"), overrides)


def find_config(state, overrides):
    return configure(find("sprout"), "v1", state, {"args": {"n_heads": 3}}, overrides)


def test_a_part_on_its_own_has_no_heads():
    with pytest.raises(errors.AmbiguousVariantError, match="overrides has no 'n_heads'"):
        config_from("v1", files.ffn("v1"), {}, {"n_heads": 2})
    assert config_from("v1", files.ffn("v1"), {}, {"sparse_k": 2}).sparse_k == 2


def test_modules_and_matrices_are_one_model(tmp_path):
    ck = sj.load(write(tmp_path, files.wrapped(files.model("v0"))))
    sj.export_pt(ck, tmp_path / "v1.pt", variant="v1")
    stacked = sj.load(tmp_path / "v1.pt")
    assert stacked.variant == "v1" and same_function(stacked.config, ck.config)
    sj.export_pt(stacked, tmp_path / "v0.pt", variant="v0")
    again = torch_file.read(tmp_path / "v0.pt")["state_dict"]
    assert again.keys() == files.model("v0").keys()
    for key, array in files.model("v0").items():
        np.testing.assert_array_equal(again[key], array)


@every_layout
def test_what_training_leaves_is_written_with_what_the_file_must_say(tmp_path, name):
    config = dataclasses.replace(MODEL, **CHANGES[name], sparse_k=3, activation="gelu_tanh")
    ck = made(config, files.variant_of(name))
    sj.export_pt(ck, tmp_path / "model.pt")
    found = sj.load(tmp_path / "model.pt")
    assert found.variant == ck.variant and same_function(found.config, config)
    for path, leaf in flatten(found.params).items():
        np.testing.assert_array_equal(leaf, flatten(ck.params)[path])
    bare = dataclasses.replace(MODEL, **CHANGES[name])
    sj.export_pt(made(bare, ck.variant, Layout()), tmp_path / "new.pt")
    assert same_function(sj.load(tmp_path / "new.pt").config, bare)
    keys = tuple(files.model(name))
    sj.export_pt(made(bare, ck.variant, Layout(keys=keys)), tmp_path / "bare.pt")
    assert torch_file.read(tmp_path / "bare.pt").keys() == files.model(name).keys()
    assert sj.load(tmp_path / "bare.pt", overrides=overrides_for(bare)).config == dataclasses.replace(
        bare, router_init="random" if ck.variant == "v0" else "w_in"
    )


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("v2", "v1"),
        ("v1", "v2"),
        ("v1_biases", "v0"),
        ("v3", "v2"),
        ("v2", "v3"),
        ("v3_linear", "v0"),
        ("v4b", "v4a"),
        ("v4b", "v2"),
        ("low_rank", "v1"),
        ("block", "v1"),
        ("block", "low_rank"),
        ("v1", "block"),
        ("v1", "v4c"),
    ],
)
def test_a_layout_that_would_mean_another_function_is_refused(tmp_path, name, variant):
    ck = made(dataclasses.replace(MODEL, **CHANGES[name]), files.variant_of(name))
    with pytest.raises(errors.ExportError, match=f"'{variant}'") as caught:
        sj.export_pt(ck, tmp_path / "model.pt", variant=variant)
    assert "\n" not in str(caught.value) and not (tmp_path / "model.pt").exists()


def test_a_bare_file_cannot_say_another_activation(tmp_path):
    config = dataclasses.replace(MODEL, activation="relu").ffn
    with pytest.raises(errors.ExportError, match="cannot say"):
        sj.export_pt(made(config, "v1", Layout()), tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("name", "lost", "words"),
    [
        ("v0", "layers.1.ffn.middle_neurons.7.W_in", r"layers.1.ffn.middle_neurons.7.W_in"),
        ("v0", "layers.0.ffn.middle_neurons.7.W_in", r"layers.0.ffn.middle_neurons.7"),
        ("v1", "layers.1.ffn.W2", r"layers.1.ffn.W2"),
        ("v2", "layers.0.ffn.router.norm.bias", r"layers.0.ffn.router.norm.bias"),
        ("v3", "layers.0.ffn.router.W_router_1", r"matrices of the router 'layers.0.ffn.router' are missing"),
        ("v1", "position_embedding.weight", "position_embedding.weight"),
        ("v3", "layers.1.ffn.manifold_mixer.rho.3.bias", "manifold_mixer.rho.3.bias"),
    ],
)
def test_a_lost_tensor_is_named(tmp_path, name, lost, words):
    state = files.model(name)
    del state[lost]
    with pytest.raises(errors.MissingKeyError, match=words):
        sj.load(write(tmp_path, files.wrapped(state)))


def test_strange_tensors_and_shapes_are_refused(tmp_path):
    more = files.model("v1") | {"layers.0.ffn.W3": np.ones(2, np.float32)}
    with pytest.raises(errors.UnexpectedKeyError, match=r"layers.0.ffn.W3"):
        sj.load(write(tmp_path, files.wrapped(more)))
    wide = files.model("v1") | {"layers.1.ffn.W1": np.ones((13, files.DIM), np.float32)}
    with pytest.raises(errors.ShapeError, match=r"layers.1.ffn.W1"):
        sj.load(write(tmp_path, files.wrapped(wide)))
    flat = files.model("v1") | {"token_embedding.weight": np.ones(66, np.float32)}
    with pytest.raises(errors.CorruptFileError, match="2 axes"):
        sj.load(write(tmp_path, files.wrapped(flat)))
    odd = files.ffn("v4b") | {"phi.0.weight": np.ones((files.HIDDEN, 9), np.float32)}
    with pytest.raises(errors.CorruptFileError, match="reads 9 numbers; 8, or with context 21"):
        sj.load(write(tmp_path, odd))


def test_other_families_files_are_not_taken():
    assert detect({"w1": np.ones((2, 2)), "b1": np.ones(2)}, {}) is None
    assert detect({"W1": np.ones((2, 2)), "W2": np.ones((2, 2))}, {}) is None
    assert detect({"model.shared": np.ones(1), "router.neuron_router.neuron_emb": np.ones(1)}, {}) == "dawn"


def test_a_reference_says_what_a_file_must_compute(tmp_path):
    ck = sj.load(write(tmp_path, files.wrapped(files.model("v1"))))
    ids = np.array([[1, 2, 3]])
    reference = {"ids": ids, "top_k": np.array([4, -1]), "logits": ck.apply(ids, top_k=(4, None)).logits}
    np.savez(tmp_path / "reference.npz", **jax.device_get(reference))
    assert compare_outputs(ck, tmp_path / "reference.npz").passed
    np.savez(tmp_path / "reference.npz", **jax.device_get(reference | {"top_k": np.array(2)}))
    assert not compare_outputs(ck, tmp_path / "reference.npz").passed


def test_a_file_of_fifteen_thousand_tensors_is_read_in_time(tmp_path):
    rng = np.random.default_rng(0)
    narrow = {"middle_neurons": (2048, "W_in", 16), "output_neurons": (16, "W", 2048)}
    state = files.model("v0")
    small = {key: array for key, array in state.items() if not key.startswith("layers.")}
    small |= {
        key: rng.normal(size=(len(array), 16)).astype(np.float32)
        for key, array in small.items()
        if array.ndim == 2
    }
    small |= {key: np.ones(16, np.float32) for key in ("norm.weight", "norm.bias")}
    for layer in range(7):
        stem = f"layers.{layer}"
        for kind, (count, name, width) in narrow.items():
            rows = rng.normal(size=(count, width)).astype(np.float32)
            small |= {f"{stem}.ffn.{kind}.{n}.{name}": row for n, row in enumerate(rows)}
        small |= {f"{stem}.ffn.router.W_router": rng.normal(size=(2048, 16)).astype(np.float32)}
        shapes = {"attention.in_proj_weight": (48, 16), "attention.in_proj_bias": (48,)}
        shapes |= (
            files.linear("attention.out_proj", 16, 16) | files.norm("norm1", 16) | files.norm("norm2", 16)
        )
        small |= {f"{stem}.{key}": np.ones(shape, np.float32) for key, shape in shapes.items()}
    path = write(tmp_path, files.wrapped(small) | {"args": {"n_heads": 4}})
    assert len(small) > 14_000
    with cpu_seconds(5):
        ck = sj.load(path)
    expected = small["layers.6.ffn.middle_neurons.1999.W_in"]
    np.testing.assert_array_equal(ck.params["layer_6"]["ffn"]["w_in"][1999], expected)
