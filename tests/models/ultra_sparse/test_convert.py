"""Every layout in and out again, and every file that cannot be right."""

from __future__ import annotations

from collections import OrderedDict

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint import errors, npz_file, torch_file
from sparsejax.checkpoint.tree import flatten
from sparsejax.models.ultra_sparse import UltraSparseConfig, dense, sparse
from tests import golden
from tests.models.ultra_sparse import files

layouts = pytest.mark.parametrize("layout", files.LAYOUTS)


def load(path, layout="sparse", **options):
    return sj.load(path, overrides=files.overrides_of(layout), **options)


def same_bits(left, right):
    left, right = np.asarray(left), np.asarray(right)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def assert_same_checkpoint(found, expected):
    assert (found.kind, found.variant, found.config) == (expected.kind, expected.variant, expected.config)
    ours, theirs = flatten(found.params), flatten(expected.params)
    assert list(ours) == list(theirs)
    assert all(same_bits(ours[path], theirs[path]) for path in ours)
    assert_same_tree(found.metadata, expected.metadata)


def assert_same_tree(found, expected):
    """Equal in keys, order, values and array dtypes."""
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray) and same_bits(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same_tree(found[key], value)
    else:
        assert type(found) is type(expected) and found == expected


def raised(error, path, *words, **options):
    """The error of loading ``path``: one line of this kind that names the file and holds all the words."""
    with pytest.raises(error) as caught:
        sj.load(path, **options)
    text = str(caught.value)
    assert type(caught.value) is error
    assert "\n" not in text
    assert path.name in text
    for word in words:
        assert word in text, (word, text)
    return text


# Round trips


@layouts
def test_values_and_config_of_every_layout(tmp_path, layout):
    ck, state = load(files.write_layout(tmp_path, layout), layout), files.state_of(layout)
    assert (ck.kind, ck.variant) == ("ultra_sparse", files.variant_of(layout))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(ck.params))
    first, last = ck.params["layer_0"], ck.params[f"layer_{len(ck.config.layers) - 1}"]
    if layout in ("sparse", "sparse_with_live_counts", "library"):
        table, w1 = ("indices", "W1") if layout == "library" else ("input_indices", "w1")
        variable = layout == "sparse_with_live_counts"
        hidden = sparse(files.HIDDEN, files.FAN_IN, variable_fan_in=variable)
        inputs = 300 if layout == "library" else files.INPUTS
        assert ck.config == UltraSparseConfig(inputs, (hidden, dense(files.OUTPUTS)))
        assert same_bits(first["indices"], state[table].astype(np.int32))
        assert same_bits(first["weights"], state[w1])
        assert same_bits(last["kernel"], state["W2" if layout == "library" else "w2"].T)
        assert not variable or same_bits(first["live"], state["k"])
    elif layout == "dense":
        assert ck.config == UltraSparseConfig.dense(7, files.HIDDEN, files.OUTPUTS)
        assert same_bits(first["kernel"], state["w1"].T)
    elif layout == "mlp":
        hidden = (dense(6, "relu"), dense(5, "relu"))
        assert ck.config == UltraSparseConfig(7, (*hidden, dense(2, "linear")))
        assert same_bits(ck.params["layer_1"]["kernel"], state["fc2.weight"].T)
        assert same_bits(ck.params["layer_1"]["bias"], state["fc2.bias"])
    else:
        assert ck.config == UltraSparseConfig.dense(7, 5, 2, "relu", "linear")
        assert same_bits(first["kernel"], state["hidden.weight"].T)
        assert same_bits(last["bias"], state["output.bias"])


@layouts
def test_load_export_load_is_bit_identical(tmp_path, layout):
    path = files.write_layout(tmp_path, layout)
    ck = load(path, layout)
    copy = path.with_stem("copy")
    sj.export_pt(ck, copy)
    assert_same_checkpoint(load(copy, layout), ck)


@layouts
def test_exported_file_is_arranged_like_the_original(tmp_path, layout):
    path = files.write_layout(tmp_path, layout)
    copy = path.with_stem("copy")
    sj.export_pt(load(path, layout), copy)
    if layout == "library":
        with np.load(path) as original, np.load(copy) as exported:
            assert_same_tree(dict(exported), dict(original))
        return
    original, exported = torch_file.read(path), torch_file.read(copy)
    assert_same_tree(exported, original)
    if layout == "sparse":
        assert exported["input_indices"] is exported["state_dict"]["input_indices"], "tied: stored once"
        assert exported["input_indices"].dtype == np.int64


@golden.needs_golden
@pytest.mark.parametrize(
    "name",
    [
        *("ultra_sparse_mse0.000303", "standard_sa_mse0.009155", "backprop_mse0.000003"),
        *("format_bare_sparse", "format_inference_benchmark_sparse", "format_inference_benchmark_dense"),
        *("format_parameters_dense", "format_legacy_zip_off_sparse", "us_digits_64_32_10_k4"),
        "legacy_session_20260124_050912",
    ],
)
def test_published_file_comes_back_as_it_was(tmp_path, name):
    original, copy = golden.path("ultra_sparse", f"{name}.pt"), tmp_path / "copy.pt"
    ck = sj.load(original)
    sj.export_pt(ck, copy)
    assert_same_checkpoint(sj.load(copy), ck)
    assert_same_tree(torch_file.read(copy), torch_file.read(original))


@pytest.mark.torch
@golden.needs_golden
@pytest.mark.parametrize(
    "name", ["ultra_sparse_mse0.000303", "format_bare_sparse", "format_legacy_zip_off_sparse"]
)
def test_torch_reads_the_export_as_it_reads_the_original(tmp_path, name):
    import torch

    original, copy = golden.path("ultra_sparse", f"{name}.pt"), tmp_path / "copy.pt"
    sj.export_pt(sj.load(original), copy)
    expected, found = torch.load(original, weights_only=True), torch.load(copy, weights_only=True)
    assert list(found) == list(expected)
    for holder, theirs in ((found, expected), (found.get("state_dict", {}), expected.get("state_dict", {}))):
        assert list(holder) == list(theirs)
        for key, value in theirs.items():
            if isinstance(value, torch.Tensor):
                assert holder[key].dtype == value.dtype and torch.equal(holder[key], value)
            elif not isinstance(value, dict):
                assert holder[key] == value
    if "state_dict" in expected:
        table, inner = found["input_indices"], found["state_dict"]["input_indices"]
        assert table.untyped_storage().data_ptr() == inner.untyped_storage().data_ptr()


@pytest.mark.torch
@layouts
def test_torch_loads_what_we_export(tmp_path, layout):
    import torch

    if layout == "library":
        pytest.skip("an .npz file")
    path = files.write_layout(tmp_path, layout)
    sj.export_pt(load(path, layout), tmp_path / "copy.pt")
    found = torch.load(tmp_path / "copy.pt", weights_only=True)
    found = found.get("state_dict", found)
    for key, value in files.state_of(layout).items():
        assert same_bits(found[key].numpy(), value)


@pytest.mark.parametrize(
    "prefix", ["", "model.", "module.", "_orig_mod.", "_orig_mod.module.", "module.module."]
)
@pytest.mark.parametrize("container", [None, "state_dict", "model_state_dict"])
def test_wrapper_prefixes_and_containers_are_remembered(tmp_path, prefix, container):
    state = {prefix + key: value for key, value in files.sparse_state().items()}
    tree = {"epoch": 3, container: OrderedDict(state), "stats": {"mse": 0.5}} if container else state
    path = files.write(tmp_path, tree)
    ck = sj.load(path)
    assert (ck.layout.prefix, ck.layout.container) == (prefix, container)
    assert ck.metadata == ({"epoch": 3, "stats": {"mse": 0.5}} if container else {})
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert_same_tree(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))


def test_metadata_beside_a_bare_state_dict_stays_beside_it(tmp_path):
    path = files.write(tmp_path, {"epoch": 3, **files.sparse_state(), "note": "x"})
    ck = sj.load(path)
    assert ck.metadata == {"epoch": 3, "note": "x"}
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert_same_tree(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))


def test_arrays_and_optimiser_state_in_the_metadata_survive(tmp_path):
    moments = {
        "state": {0: {"exp_avg": files.normal(4), "step": 7}},
        "param_groups": [{"lr": 0.01, "params": [0]}],
    }
    path = files.write(tmp_path, {"model_state_dict": files.sparse_state(), "optimizer_state_dict": moments})
    ck = sj.load(path)
    assert_same_tree(ck.metadata["optimizer_state_dict"], moments)
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert_same_tree(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))


def test_one_layout_can_be_written_as_another(tmp_path):
    ck = sj.load(files.write_layout(tmp_path, "sparse"))
    sj.export_pt(ck, tmp_path / "copy.npz", variant="library")
    copy = sj.load(tmp_path / "copy.npz")
    assert copy.variant == "library"
    assert jax.tree.all(jax.tree.map(same_bits, copy.params, ck.params))
    plain = load(files.write_layout(tmp_path, "sgd"), "sgd")
    sj.export_pt(plain, tmp_path / "mlp.pt", variant="mlp")
    assert list(torch_file.read(tmp_path / "mlp.pt")["state_dict"]) == [
        *("fc1.weight", "fc2.weight"),
        *("fc1.bias", "fc2.bias"),
    ]


@pytest.mark.parametrize(
    ("layout", "variant", "words"),
    [
        ("sparse", "dense", ("layer_0/indices", "'dense'")),
        ("dense", "sparse", ("layer_0/kernel", "'sparse'")),
        ("mlp", "sgd", ("layer_2", "'sgd'")),
        ("sparse", "attention", ("'attention'",)),
        ("sparse_with_live_counts", "library", ("layer_0/live",)),
    ],
)
def test_exports_that_cannot_hold_the_net_are_refused(tmp_path, layout, variant, words):
    ck = load(files.write_layout(tmp_path, layout), layout)
    target = tmp_path / ("copy.npz" if variant == "library" else "copy.pt")
    with pytest.raises(errors.ExportError) as caught:
        sj.export_pt(ck, target, variant=variant)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not target.exists()


@pytest.mark.parametrize(("variant", "name"), [("library", "x.pt"), ("sparse", "x.npz")])
def test_a_suffix_that_does_not_fit_the_format_is_refused(tmp_path, variant, name):
    ck = sj.load(files.write_layout(tmp_path, "sparse"))
    with pytest.raises(errors.ExportError, match="change the suffix"):
        sj.export_pt(ck, tmp_path / name, variant=variant)


def test_an_unknown_export_variant_names_the_known_ones(tmp_path):
    ck = sj.load(files.write_layout(tmp_path, "sparse"))
    with pytest.raises(errors.UnknownFormatError, match="'sparse', 'dense', 'library'"):
        sj.export_pt(ck, tmp_path / "x.pt", variant="seed")


# Arguments of load


def test_overrides_set_what_the_file_does_not_say(tmp_path):
    path = files.write_layout(tmp_path, "sparse")
    given = {"input_size": 1000, "hidden_activation": "sign", "output_activation": "linear"}
    ck = sj.load(path, overrides=given)
    assert ck.config == UltraSparseConfig(1000, (sparse(5, 3, "sign"), dense(2, "linear")))
    raised(errors.AmbiguousVariantError, path, "'width'", "'input_size'", overrides={"width": 3})
    raised(errors.AmbiguousVariantError, path, "'gelu'", overrides={"output_activation": "gelu"})
    raised(errors.AmbiguousVariantError, path, "'wide'", overrides={"input_size": "wide"})


def test_the_input_size_comes_from_the_config_in_the_file(tmp_path):
    state = files.sparse_state() | {"input_indices": np.full((5, 3), 299)}
    path = files.write(tmp_path, {"state_dict": state, "config": {"input_size": 300, "hidden_size": 5}})
    assert sj.load(path).config.input_size == 300


def test_a_table_beyond_the_familys_inputs_asks_for_their_number(tmp_path):
    path = files.write(tmp_path, files.sparse_state() | {"input_indices": np.full((5, 3), 256)})
    with pytest.raises(errors.AmbiguousVariantError) as caught:
        sj.load(path)
    assert caught.value.choices == ("input_size",)
    assert "256" in str(caught.value) and 'overrides={"input_size": ...}' in str(caught.value)
    assert sj.load(path, overrides={"input_size": 257}).config.input_size == 257, "and takes the answer"


@pytest.mark.parametrize("layout", ["mlp", "sgd"])
def test_plain_mlps_ask_for_their_activations(tmp_path, layout):
    path = files.write_layout(tmp_path, layout)
    with pytest.raises(errors.AmbiguousVariantError) as caught:
        sj.load(path)
    assert caught.value.choices == ("hidden_activation", "output_activation")
    assert str(path.name) in str(caught.value) and "overrides=" in str(caught.value)
    raised(errors.AmbiguousVariantError, path, overrides={"hidden_activation": "relu"})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", jnp.bfloat16, np.float16])
def test_dtype_changes_the_floats_and_nothing_else(tmp_path, dtype):
    path = files.write_layout(tmp_path, "sparse_with_live_counts")
    ck, plain = sj.load(path, dtype=dtype), sj.load(path)
    for name, array in flatten(ck.params).items():
        original = flatten(plain.params)[name]
        integer = name.endswith(("indices", "live"))
        assert array.dtype == (np.int32 if integer else jnp.dtype(dtype))
        assert same_bits(array, original.astype(array.dtype))
    assert ck.apply(np.zeros((2, 256), np.float32)).shape == (2, 2)


def test_kind_and_variant_can_be_given(tmp_path):
    path = files.write_layout(tmp_path, "sparse")
    assert_same_checkpoint(sj.load(path, kind="ultra_sparse", variant="sparse"), sj.load(path))
    raised(errors.UnknownFormatError, path, "'sprouts'", "'ultra_sparse'", kind="sprouts")
    raised(errors.UnknownFormatError, path, "'seed'", "'sparse'", variant="seed")


@pytest.mark.parametrize(
    ("layout", "variant", "key"),
    [("dense", "sparse", "input_indices"), ("sparse", "mlp", "fc1.weight"), ("sparse", "library", "W1")],
)
def test_a_variant_that_the_file_is_not_names_what_it_lacks(tmp_path, layout, variant, key):
    path = files.write_layout(tmp_path, layout)
    raised(errors.MissingKeyError, path, repr(key), variant=variant, overrides=files.ACTIVATIONS)


def test_a_sparse_file_read_as_dense_has_a_tensor_too_many(tmp_path):
    path = files.write_layout(tmp_path, "sparse")
    raised(errors.UnexpectedKeyError, path, "'input_indices'", variant="dense")


@pytest.mark.parametrize("variant", ["attention", "parameter_list"])
def test_training_baselines_are_recognised_but_not_evaluated(tmp_path, variant):
    states = {
        "attention": {"attention_logits": files.normal(8, 256), "w1": files.normal(8, 256)},
        "parameter_list": {f"W1.{h}": files.normal(3) for h in range(4)},
    }
    rest = {"b1": files.normal(4), "w2": files.normal(1, 4), "W2": files.normal(1, 4), "b2": files.normal(1)}
    path = files.write(tmp_path, states[variant] | rest)
    raised(errors.MissingKeyError, path, variant, "input_indices, w1, b1, w2, b2")


# Files that cannot be right


@layouts
def test_every_missing_key_is_named(tmp_path, layout):
    state = files.state_of(layout)
    # Without its telling keys a file is of another layout or of none; without k the slots all live.
    untold = {"input_indices", "w1", "w2", "indices", "W1", "hidden.weight", "output.weight", "k"}
    untold |= {"fc1.weight", "fc1.bias"}
    for key in state:
        if key in untold:
            continue
        rest = {name: value for name, value in state.items() if name != key}
        path = files.write(tmp_path, rest, "model.npz" if layout == "library" else "model.pt")
        advice = "save the whole state dict"
        raised(errors.MissingKeyError, path, repr(key), advice, overrides=files.overrides_of(layout))


def test_several_missing_keys_are_named_together(tmp_path):
    state = files.sparse_state()
    path = files.write(tmp_path, {key: state[key] for key in ("w1", "w2", "input_indices")})
    raised(errors.MissingKeyError, path, "'b1'", "'b2'")


@layouts
def test_an_unexpected_key_is_named(tmp_path, layout):
    name = "model.npz" if layout == "library" else "model.pt"
    path = files.write(tmp_path, files.state_of(layout) | {"w3": files.normal(2)}, name)
    raised(errors.UnexpectedKeyError, path, "'w3'", "remove", overrides=files.overrides_of(layout))


@pytest.mark.parametrize(
    ("layout", "key", "shape", "words"),
    [
        ("sparse", "b1", (6,), ("(6,)", "(5,)")),
        ("sparse", "b2", (2, 1), ("(2, 1)", "(2,)")),
        ("sparse", "input_indices", (5, 2), ("(5, 2)", "(5, 3)")),
        ("sparse", "w2", (2, 4), ("(4, 2)", "(5, 2)")),
        ("sparse_with_live_counts", "k", (4,), ("(4,)", "(5,)")),
        ("dense", "b1", (), ("()", "(5,)")),
        ("library", "b2", (3,), ("(3,)", "(2,)")),
        ("mlp", "fc2.weight", (5, 7), ("(7, 5)", "(6, 5)")),
    ],
)
def test_a_wrong_shape_names_key_and_both_shapes(tmp_path, layout, key, shape, words):
    state = files.state_of(layout)
    state[key] = np.zeros(shape, state[key].dtype)
    path = files.write(tmp_path, state, "model.npz" if layout == "library" else "model.pt")
    raised(errors.ShapeError, path, repr(key), *words, overrides=files.overrides_of(layout))


@pytest.mark.parametrize("key", ["w1", "w2"])
@pytest.mark.parametrize("shape", [(5,), (5, 3, 1), ()])
def test_weights_that_are_no_matrix_are_refused(tmp_path, key, shape):
    path = files.write(tmp_path, files.sparse_state() | {key: np.zeros(shape, np.float32)})
    raised(errors.CorruptFileError, path, repr(key), "2 axes of at least one are needed")


@pytest.mark.parametrize("shape", [(0, 3), (5, 0)])
def test_empty_layers_are_refused(tmp_path, shape):
    state = files.sparse_state() | {
        "w1": np.zeros(shape, np.float32),
        "input_indices": np.zeros(shape, np.int64),
    }
    raised(errors.CorruptFileError, files.write(tmp_path, state), "'w1'", "2 axes of at least one")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", ["w1", "b1", "w2", "b2"])
def test_one_weight_that_is_not_finite_is_found(tmp_path, key, value):
    state = files.sparse_state()
    state[key] = state[key].copy()
    state[key].flat[-1] = value
    raised(errors.NonFiniteError, files.write(tmp_path, state), repr(key), f"1 of {state[key].size}")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("input_indices", -1, ("layer 0", "-1", "0 to 255")),
        ("k", -1, ("live counts", "-1", "0 to 3")),
        ("k", 4, ("live counts", "4", "0 to 3")),
    ],
)
def test_indices_and_counts_outside_of_their_range_are_refused(tmp_path, key, value, words):
    state = files.variable_state()
    state[key] = state[key].copy()
    state[key].flat[0] = value
    raised(errors.CorruptFileError, files.write(tmp_path, state), *words)


def test_an_index_beyond_the_stated_inputs_is_refused(tmp_path):
    path = files.write(tmp_path, files.sparse_state() | {"input_indices": np.full((5, 3), 7)})
    raised(
        errors.CorruptFileError, path, "index table of layer 0", "7", "0 to 5", overrides={"input_size": 6}
    )
    library = files.library_state() | {"indices": np.full((5, 3), 300)}
    raised(errors.CorruptFileError, files.write(tmp_path, library, "model.npz"), "300", "0 to 299")


def test_an_index_beyond_int32_is_refused(tmp_path):
    path = files.write(tmp_path, files.sparse_state() | {"input_indices": np.full((5, 3), 2**40)})
    raised(
        errors.CorruptFileError, path, "'input_indices'", "do not fit int32", overrides={"input_size": 300}
    )


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_float_types_in_the_file(tmp_path, dtype):
    target = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    state = {k: v if v.dtype.kind == "i" else v.astype(target) for k, v in files.sparse_state().items()}
    path = files.write(tmp_path, state)
    ck = sj.load(path)
    assert ck.params["layer_0"]["weights"].dtype == ("float32" if dtype == "float64" else dtype)
    np.testing.assert_array_equal(ck.params["layer_0"]["weights"], state["w1"].astype(np.float32))
    outputs = ck.apply(np.ones((2, 256), np.float32))
    assert outputs.shape == (2, 2) and bool(jnp.isfinite(outputs).all())
    with jax.enable_x64(True):
        assert sj.load(path).params["layer_0"]["weights"].dtype == dtype


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_bad_value_is_found_in_half_precision_too(tmp_path, value):
    state = files.sparse_state()
    weights = state["w1"].astype(ml_dtypes.bfloat16)
    weights[2, 1] = value
    raised(errors.NonFiniteError, files.write(tmp_path, state | {"w1": weights}), "'w1'", "1 of 15")


def test_float64_values_beyond_float32_are_refused(tmp_path):
    state = files.sparse_state()
    weights = state["w1"].astype(np.float64)
    weights[0, 0] = 1e300
    path = files.write(tmp_path, state | {"w1": weights})
    raised(errors.NonFiniteError, path, "'w1'")
    with jax.enable_x64(True):
        assert sj.load(path).params["layer_0"]["weights"][0, 0] == 1e300


@pytest.mark.parametrize("dtype", ["int32", "int16", "uint8"])
def test_narrow_index_types_come_back_as_they_were(tmp_path, dtype):
    path = files.write(tmp_path, files.sparse_state() | {"input_indices": np.ones((5, 3), dtype)})
    ck = sj.load(path)
    assert ck.params["layer_0"]["indices"].dtype == np.int32
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert_same_tree(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_an_index_table_of_no_integers_is_refused(tmp_path, dtype):
    path = files.write(tmp_path, files.sparse_state() | {"input_indices": np.ones((5, 3), dtype)})
    with pytest.raises(errors.CheckpointError, match="input_indices"):
        sj.load(path)


def test_big_endian_and_fortran_ordered_npz_files(tmp_path):
    state = files.library_state()
    foreign = {key: value.astype(value.dtype.newbyteorder(">"), order="F") for key, value in state.items()}
    ck = sj.load(files.write(tmp_path, foreign, "foreign.npz"))
    assert_same_checkpoint(ck, sj.load(files.write(tmp_path, state, "model.npz")))


CONV_NET = {
    "conv1.weight": np.zeros((4, 3, 3, 3), np.float32),
    "conv1.bias": np.zeros(4, np.float32),
    "bn1.running_mean": np.zeros(4, np.float32),
    "fc.weight": np.zeros((10, 4), np.float32),
}


def test_another_architecture_names_the_nearest_layouts(tmp_path):
    path = files.write(tmp_path, CONV_NET)
    text = raised(errors.UnknownFormatError, path, "'conv1.weight'", "nearest: ultra_sparse/")
    assert text.count("ultra_sparse/") == 2
    almost = {"input_indices": np.zeros((5, 3), np.int64), "b1": files.normal(5), "w2": files.normal(1, 5)}
    text = raised(errors.UnknownFormatError, files.write(tmp_path, almost), "nearest: ultra_sparse/sparse")
    assert "(without 'w1', 'b2')" in text


@pytest.mark.parametrize(
    ("tree", "word"),
    [
        ([1, 2], "list"),
        (np.zeros(3), "state dict"),
        ({"epoch": 3}, "'epoch'"),
        ({"state_dict": {"w1": np.zeros((2, 2), np.float32), "name": "x"}}, "'name'"),
        ({"state_dict": {0: np.zeros(2, np.float32)}}, "0"),
        ({}, "no state dict"),
    ],
)
def test_trees_that_are_no_state_dict(tmp_path, tree, word):
    path = files.write(tmp_path, tree)
    with pytest.raises(errors.CheckpointError) as caught:
        sj.load(path)
    assert word in str(caught.value) and path.name in str(caught.value)


def test_an_npz_that_is_no_library_net(tmp_path):
    path = files.write(tmp_path, {"x": np.zeros(3)}, "arrays.npz")
    raised(errors.UnknownFormatError, path, "'x'", "nearest")


def test_library_sizes_must_agree_with_the_arrays(tmp_path):
    path = files.write(tmp_path, files.library_state() | {"H": np.array(9)}, "model.npz")
    raised(errors.UnexpectedKeyError, path, "'H'")


# inspect


@layouts
def test_inspect_describes_every_layout_without_loading_it(tmp_path, layout):
    path, state = files.write_layout(tmp_path, layout), files.state_of(layout)
    report = sj.inspect(path)
    assert (report.kind, report.variant) == ("ultra_sparse", files.variant_of(layout))
    assert report.file_format == ("npz" if layout == "library" else "zip")
    rows = [(row.key, row.shape, row.dtype, row.nbytes) for row in report.tensors]
    assert rows == [(key, value.shape, value.dtype.name, value.nbytes) for key, value in state.items()]
    assert report.num_values == sum(value.size for value in state.values())
    assert report.nbytes == sum(value.nbytes for value in state.values())
    if files.overrides_of(layout):
        assert isinstance(report.problem, errors.AmbiguousVariantError) and report.config is None
    else:
        assert report.problem is None and report.config == load(path, layout).config
    if layout == "sparse":
        assert (report.container, report.prefix) == ("state_dict", "")
        assert report.metadata == ("stats", "input_indices")
    assert all(name.startswith(("torch", "collections")) for name in report.pickle_globals)
    assert bool(report.pickle_globals) == (layout != "library")


def test_inspect_tells_the_prefix_and_the_pickles_names(tmp_path):
    state = {f"_orig_mod.module.{key}": value for key, value in files.sparse_state().items()}
    report = sj.inspect(files.write(tmp_path, {"model_state_dict": OrderedDict(state)}))
    assert (report.container, report.prefix) == ("model_state_dict", "_orig_mod.module.")
    assert [row.key for row in report.tensors] == list(files.sparse_state())
    assert "torch._utils._rebuild_tensor_v2" in report.pickle_globals
    assert "collections.OrderedDict" in report.pickle_globals


def test_inspect_describes_files_of_no_family(tmp_path):
    report = sj.inspect(files.write(tmp_path, CONV_NET))
    assert (report.kind, report.variant, report.config) == (None, None, None)
    assert isinstance(report.problem, errors.UnknownFormatError)
    assert [row.shape for row in report.tensors] == [value.shape for value in CONV_NET.values()]


@golden.needs_golden
def test_inspect_of_the_published_net():
    report = sj.inspect(golden.path("ultra_sparse", "ultra_sparse_mse0.000303.pt"))
    assert report.config == UltraSparseConfig()
    assert report.metadata == ("stats", "input_indices", "selection")
    assert report.pickle_globals == (
        *("collections.OrderedDict", "torch.FloatStorage", "torch.LongStorage"),
        "torch._utils._rebuild_tensor_v2",
    )
    legacy = sj.inspect(golden.path("ultra_sparse", "format_legacy_zip_off_sparse.pt"))
    assert (legacy.file_format, legacy.variant) == ("legacy", "sparse")


def test_npz_writer_used_here_is_numpys_own_format(tmp_path):
    npz_file.write({"a": np.arange(3)}, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        assert same_bits(file["a"], np.arange(3))
