"""Every layout in and out again: variant, config, parameters, and the file that comes back."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint import errors, torch_file
from sparsejax.checkpoint.checkpoint import Checkpoint, template
from sparsejax.checkpoint.container import Layout
from sparsejax.checkpoint.registry import find
from sparsejax.checkpoint.rules import to_params
from sparsejax.checkpoint.tree import flatten
from sparsejax.checkpoint.verification import compare_outputs, verify
from sparsejax.models.ten import EigenstateLayer, TemporalEigenstateConfig
from sparsejax.models.ten.convert import _multiplier, overrides_for, same_function, stored_config
from sparsejax.models.ten.layouts import rules
from tests import golden
from tests.models.ten import files

SIZES = TemporalEigenstateConfig(
    vocab_size=files.VOCAB,
    dim=files.DIM,
    n_layers=files.LAYERS,
    num_eigenstates=files.STATES,
    max_seq_len=files.ROWS,
    ffn_multiplier=2.5,
    dropout=0.0,
    init="legacy",
)
MODERN = dataclasses.replace(SIZES, variant="modern", n_heads=files.HEADS, use_gradient_checkpointing=False)
CELLS = dataclasses.replace(SIZES, num_cells=files.CELLS)
PRO = EigenstateLayer(memory=True, band_gates=files.BANDS)
CONFIGS = {
    "sequential": dataclasses.replace(
        MODERN,
        n_heads=4,
        layer=EigenstateLayer("eigenvectors", coupling="scaled", gate=False, activation="gelu"),
    ),
    "fft": MODERN,
    "selective": dataclasses.replace(MODERN, layer=EigenstateLayer(selective=True)),
    "final_full": dataclasses.replace(MODERN, n_heads=4, layer=EigenstateLayer(coupling="full")),
    "final_none": dataclasses.replace(
        MODERN, n_heads=4, layer=EigenstateLayer(coupling="none", selective=True)
    ),
    "pro": dataclasses.replace(MODERN, layer=PRO),
    "hybrid": dataclasses.replace(MODERN, layer=dataclasses.replace(PRO, attention_layers=(1,))),
    "ssd": dataclasses.replace(MODERN, layer=EigenstateLayer(memory=True, short_conv=files.TAPS)),
    "ssd_without_conv": dataclasses.replace(MODERN, layer=EigenstateLayer(memory=True)),
    "unified": dataclasses.replace(MODERN, long_layer=PRO),
    "v03": dataclasses.replace(MODERN, long_layer=EigenstateLayer(memory=True, short_conv=files.TAPS)),
    "seed": dataclasses.replace(CELLS, variant="seed"),
    "seed_sinusoidal": dataclasses.replace(CELLS, variant="seed", pos_emb_type="sinusoidal"),
    "paper_untied": dataclasses.replace(CELLS, variant="paper", tie_weights=False),
    "paper_without_resonance": dataclasses.replace(CELLS, variant="paper", use_resonance=False),
}
GOLDEN = {
    "mit_sequential": "sequential",
    "mit_fft": "fft",
    "mit_fft_selective": "selective",
    "mit_chunked_legacy": "fft",
    "mit_final": "selective",
    "mit_final_full": "final",
    "mit_final_none": "final",
    "mit_pro": "pro",
    "mit_pro_hybrid": "hybrid",
    "mit_ssd_legacy": "ssd",
    "mit_unified": "unified",
    "mit_v03": "v03",
    "src_seed": "seed",
    "src_paper": "paper",
    "train_trace_fft_init": "fft",
    "train_trace_src_seed_init": "seed",
}

names = pytest.mark.parametrize("name", files.STATE_DICTS)


def same_bits(left, right):
    left, right = np.asarray(left), np.asarray(right)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def assert_same_file(found, expected):
    """Equal in keys, order, values, array bits and shared tensors."""
    assert list(found) == list(expected)
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_same_file(found[key], value)
        elif isinstance(value, np.ndarray):
            assert same_bits(found[key], value), key
        else:
            assert type(found[key]) is type(value) and found[key] == value, key
    arrays = [key for key, value in expected.items() if isinstance(value, np.ndarray)]
    assert [[a for a in arrays if found[a] is found[b]] for b in arrays] == [
        [a for a in arrays if expected[a] is expected[b]] for b in arrays
    ]


@functools.cache
def loaded(folder, name):
    path = files.write(folder, files.STATE_DICTS[name](), f"{name}.pt")
    return path, sj.load(path, **files.options_of(name))


@pytest.fixture(scope="module")
def forged(tmp_path_factory):
    """A forged file by name, loaded once: its path and checkpoint."""
    return functools.partial(loaded, tmp_path_factory.mktemp("forged"))


# Forged files of every layout


@names
def test_keys_and_shapes_tell_variant_and_config(forged, name):
    _, ck = forged(name)
    assert (ck.kind, ck.variant) == ("ten", files.variant_of(name))
    assert ck.config == CONFIGS[name]


@names
def test_the_file_comes_back_bit_for_bit(forged, tmp_path, name):
    path, ck = forged(name)
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert_same_file(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))


@names
def test_there_are_as_many_parameters_as_the_config_says(forged, name):
    _, ck = forged(name)
    table = files.ROWS * files.DIM if name == "seed_sinusoidal" else 0
    assert sum(leaf.size for leaf in jax.tree.leaves(ck.params)) - table == ck.config.num_parameters


def test_values_are_where_they_belong(forged):
    state, params = files.STATE_DICTS["hybrid"](), forged("hybrid")[1].params
    layer, packed = params["layer_1"], state["layers.1.attn.in_proj_weight"]
    d = files.DIM
    assert same_bits(layer["attention"]["query"]["kernel"], packed[:d].T)
    assert same_bits(layer["attention"]["key"]["kernel"], packed[d : 2 * d].T)
    assert same_bits(layer["attention"]["value"]["kernel"], packed[2 * d :].T)
    assert same_bits(layer["attention"]["key"]["bias"], state["layers.1.attn.in_proj_bias"][d : 2 * d])
    assert same_bits(layer["gate"]["kernel"], state["layers.1.spectral_gate.main_gate.weight"].T)
    assert same_bits(layer["band_gates"]["bias"], state["layers.1.spectral_gate.band_gates.bias"])
    assert same_bits(layer["coupling"][1], state["layers.1.coupling_blocks.1"])
    assert same_bits(layer["memory_gate"], state["layers.1.memory_gate"])
    assert "memory_gate" not in params["layer_0"] and "attention" not in params["layer_0"]


def test_values_of_the_other_layouts_are_where_they_belong(forged):
    state, params = files.STATE_DICTS["v03"](), forged("v03")[1].params
    taps = state["pro_layers.1.conv.weight"]
    assert same_bits(params["long_layer_1"]["short_conv"]["kernel"], taps[:, 0].T)
    assert same_bits(params["long_layer_1"]["memory_proj"]["kernel"], state["pro_layers.1.mem_proj.weight"].T)
    assert same_bits(params["layer_0"]["norm2"]["scale"], state["fft_layers.0.n2.weight"])
    assert same_bits(params["token_embedding"]["embedding"], state["tok_emb.weight"])
    state, params = files.STATE_DICTS["final_full"](), forged("final_full")[1].params
    assert same_bits(params["layer_1"]["coupling"][0], state["layers.1.coupling"])
    state, layer = files.STATE_DICTS["sequential"](), forged("sequential")[1].params["layer_1"]
    assert same_bits(layer["eigenvectors_imag"], state["layers.1.eigvec_imag"])
    assert same_bits(layer["decay_logit"], state["layers.1.alpha"])
    assert same_bits(layer["coupling_scale"], state["layers.1.resonance_eps"])
    assert same_bits(layer["ffn_out"]["kernel"], state["layers.1.mlp.3.weight"].T)
    state, params = files.STATE_DICTS["seed_sinusoidal"](), forged("seed_sinusoidal")[1].params
    assert same_bits(params["position_embedding"]["embedding"], state["pos_emb.pe"][0])
    state, params = files.STATE_DICTS["paper_untied"](), forged("paper_untied")[1].params
    cells = params["layer_1"]["cells"]
    assert same_bits(cells["in_proj"][2], state["blocks.1.cells.2.input_proj.weight"].T)
    assert same_bits(cells["out_proj"][2], state["blocks.1.cells.2.output_proj.weight"].T)
    assert same_bits(cells["resonance"][2], state["blocks.1.cells.2.resonance_M"])
    assert same_bits(params["head"]["kernel"], state["output.weight"].T)


def test_every_ratio_gives_the_hidden_size_again():
    for dim in (1, 3, 48, 49, 100, 768, 1000):
        for hidden in range(1, 4 * dim + 2):
            assert int(dim * _multiplier(hidden, dim)) == hidden


# Golden files


@golden.needs_golden
@pytest.mark.golden("mit_fft")
@pytest.mark.parametrize("name", GOLDEN)
def test_published_file_is_recognised_and_comes_back(tmp_path, name):
    path = golden.path("ten", f"{name}.pt")
    variant = GOLDEN[name]
    ck = sj.load(path, variant=variant if variant in ("seed", "paper") else None)
    assert (ck.kind, ck.variant) == ("ten", variant)
    sizes = (ck.config.vocab_size, ck.config.dim, ck.config.n_layers, ck.config.num_eigenstates)
    assert sizes == (101, 32, 2, 8)
    assert (ck.config.max_seq_len, ck.config.ffn_multiplier, ck.config.dropout) == (160, 4.0, 0.0)
    assert ck.config.num_cells == 2 and ck.config.tie_weights
    if variant not in ("sequential", "final"):
        assert ck.config.n_heads == (4 if variant in ("seed", "paper") or name == "mit_fft_selective" else 2)
    if name in ("src_seed", "src_paper"):
        assert ck.config.chunk_size == 16
        assert ck.config.energy_reg_weight == (0.01 if name == "src_seed" else 0.0)
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert_same_file(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))


@golden.needs_golden
def test_golden_logits_can_be_verified_as_a_reference(tmp_path):
    arrays = golden.arrays("ten", "mit_fft")
    np.savez(tmp_path / "r.npz", ids=arrays["T7/ids"], logits=arrays["T7/logits"], loss=arrays["T7/loss"])
    checks = verify(golden.path("ten", "mit_fft.pt"), tmp_path / "r.npz")
    assert [check.name for check in checks if check.passed] == [
        *("read", "sparsejax directory", "original layout", "reference")
    ]
    np.savez(tmp_path / "off.npz", tokens=arrays["T7/ids"], logits=arrays["T7/logits"] + 1e-3)
    ck = sj.load(golden.path("ten", "mit_fft.pt"))
    assert not compare_outputs(ck, tmp_path / "off.npz").passed
    np.savez(tmp_path / "none.npz", logits=arrays["T7/logits"])
    with pytest.raises(errors.MissingKeyError, match="'ids', 'input_ids', 'tokens' is needed"):
        compare_outputs(ck, tmp_path / "none.npz")


@pytest.mark.torch
@golden.needs_golden
@pytest.mark.parametrize("name", ["mit_pro_hybrid", "src_seed"])
def test_torch_reads_the_export_as_it_reads_the_original(tmp_path, name):
    import torch

    path = golden.path("ten", f"{name}.pt")
    sj.export_pt(sj.load(path, variant="seed" if name == "src_seed" else None), tmp_path / "copy.pt")
    expected = torch.load(path, weights_only=True)
    found = torch.load(tmp_path / "copy.pt", weights_only=True)
    assert list(found) == list(expected)
    for key in expected.keys() - {"model_state_dict"}:
        assert found[key] is not None and (name != "src_seed" or found[key] == expected[key])
    inner = "model_state_dict" if name == "src_seed" else None
    found, expected = (tree[inner] if inner else tree for tree in (found, expected))
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    head, table = list(expected)[-1], "token_emb.weight"
    assert found[head].untyped_storage().data_ptr() == found[table].untyped_storage().data_ptr()


# Wrappers and what lies beside


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_trainers_wrapper_survives_the_round_trip(tmp_path, prefix):
    moments = {
        "state": {0: {"exp_avg": files.normal("moments", 4), "step": 7}},
        "param_groups": [{"lr": 0.1}],
    }
    beside = {"optimizer_state_dict": moments, "config": files.PRESET}
    path = files.write(tmp_path, files.wrapped(files.published(), prefix, **beside))
    ck = sj.load(path, variant="paper")
    assert (ck.layout.container, ck.layout.prefix) == ("model_state_dict", prefix)
    assert ck.metadata["config"] == files.PRESET and ck.metadata["epoch"] == 3
    assert (ck.config.chunk_size, ck.config.energy_reg_weight) == (16, 0.25)
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert list(torch_file.read(tmp_path / "copy.pt")) == list(torch_file.read(path))
    again = sj.load(tmp_path / "copy.pt", variant="paper")
    assert again.config == ck.config and again.layout == ck.layout
    assert np.array_equal(
        again.metadata["optimizer_state_dict"]["state"][0]["exp_avg"], moments["state"][0]["exp_avg"]
    )
    assert jax.tree.all(jax.tree.map(same_bits, again.params, ck.params))


def test_a_native_directory_keeps_config_and_layout(forged, tmp_path):
    path, ck = forged("hybrid")
    sj.save(ck, tmp_path / "native")
    again = sj.load(tmp_path / "native")
    assert (again.config, again.variant, again.layout) == (ck.config, "hybrid", ck.layout)
    sj.export_pt(again, tmp_path / "copy.pt")
    assert_same_file(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))


def test_the_files_config_tells_what_no_shape_does(tmp_path):
    told = {"eigenvalue_clip": 0.9, "resonance_epsilon": 0.05, "dropout": 0.2, "chunk_size": None}
    ck = sj.load(files.write(tmp_path, files.wrapped(files.published(), config=told)), variant="seed")
    assert (ck.config.eigenvalue_clip, ck.config.resonance_epsilon) == (0.9, 0.05)
    assert (ck.config.dropout, ck.config.chunk_size) == (0.2, 64)
    given = sj.load(tmp_path / "model.pt", variant="seed", overrides={"eigenvalue_clip": 0.8})
    assert given.config.eigenvalue_clip == 0.8, "an override goes before the file"


def test_shapes_go_before_sizes_in_the_files_config(tmp_path):
    wrong = files.PRESET | {"d_model": 99, "num_eigenstates": 99, "max_seq_len": 99, "num_cells": 99}
    ck = sj.load(files.write(tmp_path, files.wrapped(files.published(), config=wrong)), variant="seed")
    assert (ck.config.dim, ck.config.num_eigenstates) == (files.DIM, files.STATES)
    assert (ck.config.max_seq_len, ck.config.num_cells) == (files.ROWS, files.CELLS)
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert torch_file.read(tmp_path / "copy.pt")["config"] == wrong, "left as it was found"


# Variants by name, and overrides


def test_seed_and_paper_have_to_be_told_apart(tmp_path):
    path = files.write(tmp_path, files.wrapped(files.published(), config=files.PRESET))
    with pytest.raises(errors.AmbiguousVariantError, match="'seed', 'paper'.*give variant=") as caught:
        sj.load(path)
    assert caught.value.choices == ("seed", "paper") and path.name in str(caught.value)
    report = sj.inspect(path)
    assert (report.kind, report.variant, report.config) == ("ten", None, None)
    assert isinstance(report.problem, errors.AmbiguousVariantError)
    assert len(report.tensors) == len(files.published()) and "config" in report.metadata
    assert [sj.load(path, variant=name).config.variant for name in ("seed", "paper")] == ["seed", "paper"]


@names
def test_inspect_reads_headers_only(forged, name):
    path, ck = forged(name)
    report = sj.inspect(path)
    if files.variant_of(name) not in ("seed", "paper"):
        assert (report.kind, report.variant, report.problem) == ("ten", ck.variant, None)
        assert report.config == ck.config


@pytest.mark.parametrize(
    ("name", "variant"),
    [("fft", "final"), ("selective", "final"), ("pro", "hybrid"), ("hybrid", "pro"), ("fft", "ssd")],
)
def test_one_function_may_go_by_two_names(forged, tmp_path, name, variant):
    path, ck = forged(name)
    assert sj.load(path, variant=variant).config == ck.config
    sj.export_pt(ck, tmp_path / "copy.pt", variant=variant)
    assert sj.load(tmp_path / "copy.pt", variant=variant).config == ck.config


@pytest.mark.parametrize(("name", "legacy"), [("fft", "chunked_legacy"), ("ssd", "ssd_legacy")])
def test_the_mistake_inside_chunks_exists_only_by_name(forged, tmp_path, name, legacy):
    path, causal = forged(name)
    assert causal.config.layer.anticausal_chunk == 0 and causal.config.streams
    ck = sj.load(path, variant=legacy)
    assert ck.config.layer == dataclasses.replace(causal.config.layer, anticausal_chunk=64)
    assert not ck.config.streams
    ck = sj.load(path, variant=legacy, overrides={"chunk_size": 5})
    assert (ck.config.layer.anticausal_chunk, ck.config.chunk_size) == (5, 5)
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert_same_file(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))
    with pytest.raises(errors.ExportError, match=f"'{name}' cannot say"):
        sj.export_pt(ck, tmp_path / "causal.pt", variant=name)


def test_overrides_reach_the_config(forged):
    path, _ = forged("hybrid")
    ck = sj.load(path, overrides={"attention_window": 5, "n_heads": files.HEADS, "tie_weights": True})
    assert ck.config.layer.attention_window == 5
    assert sj.load(forged("v03")[0], overrides={"context_threshold": 7}).config.context_threshold == 7
    assert sj.load(forged("final_none")[0], overrides={"n_heads": 2}).config.n_heads == 2
    path, _ = forged("paper_untied")
    assert sj.load(path, variant="seed", overrides={"resonance_epsilon": 0.5}).config.resonance_epsilon == 0.5


def test_overridden_fields_do_not_change_a_bare_file(forged, tmp_path):
    for name, told in (("hybrid", {"attention_window": 5}), ("v03", {"context_threshold": 7})):
        path, _ = forged(name)
        sj.export_pt(sj.load(path, overrides=told), tmp_path / "copy.pt")
        assert_same_file(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))


def test_overridden_fields_are_written_into_a_wrapped_file(tmp_path):
    path = files.write(tmp_path, files.wrapped(files.published(), config=files.PRESET))
    ck = sj.load(path, variant="seed", overrides={"eigenvalue_clip": 0.9})
    sj.export_pt(ck, tmp_path / "copy.pt")
    again = sj.load(tmp_path / "copy.pt", variant="seed")
    assert again.config == ck.config
    assert again.metadata["config"]["description"] == "forged"
    assert again.metadata["config"]["d_model"] == files.DIM


def test_a_head_with_the_tables_values_but_its_own_storage_is_a_choice(tmp_path):
    state = files.published()
    state["output.weight"] = state["output.weight"].copy()
    path = files.write(tmp_path, state)
    ck = sj.load(path, variant="seed")
    assert not ck.config.tie_weights and "head" in ck.params
    tied = sj.load(path, variant="seed", overrides={"tie_weights": True})
    assert tied.config.tie_weights and "head" not in tied.params


# Networks that were made here


@functools.cache
def ones(config):
    shapes = template(find("ten"), config)
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)


def made(config, variant, **options):
    """A checkpoint of ones; no network is run."""
    return Checkpoint("ten", variant, config, ones(config), **options)


def test_a_trained_network_is_exported_although_no_file_tells_how_it_trained(tmp_path):
    config = dataclasses.replace(
        MODERN, init="ring", dropout=0.1, use_gradient_checkpointing=True, num_cells=1
    )
    config = dataclasses.replace(config, ffn_multiplier=2.6)  # 15.6: the same 15 hidden units
    sj.export_pt(made(config, "fft"), tmp_path / "model.pt")
    assert set(torch_file.read(tmp_path / "model.pt")) == set(files.one_stack())
    found = sj.load(tmp_path / "model.pt")
    assert found.variant == "fft" and same_function(found.config, config)


def test_a_network_of_cells_is_exported_with_the_preset_dict(tmp_path):
    config = dataclasses.replace(CONFIGS["seed"], eigenvalue_clip=0.95, energy_reg_weight=0.5, init="ring")
    layout = Layout(container="model_state_dict")
    sj.export_pt(made(config, "seed", layout=layout), tmp_path / "model.pt")
    tree = torch_file.read(tmp_path / "model.pt")
    assert tree["config"] == dict(stored_config(config))
    assert tree["config"].keys() >= {"d_model", "n_layers", "num_eigenstates", "max_seq_len", "use_hten"}
    assert tree["model_state_dict"]["output.weight"] is tree["model_state_dict"]["token_emb.weight"]
    assert sj.load(tmp_path / "model.pt", variant="seed").config == dataclasses.replace(config, init="legacy")


@pytest.mark.parametrize(
    ("changes", "variant"),
    [
        ({"layer": EigenstateLayer(normalize_input=True)}, "fft"),
        ({"pos_emb_type": "none"}, "fft"),
        ({"pos_emb_type": "sinusoidal"}, "fft"),
        ({"tie_weights": False}, "fft"),
        ({"layer": EigenstateLayer(short_conv=3)}, "fft"),
        ({"layer": EigenstateLayer(coupling="full")}, "fft"),
        ({"layer": EigenstateLayer(coupling="none")}, "ssd"),
        ({"long_layer": PRO}, "v03"),
        ({"long_layer": PRO}, "pro"),
        ({}, "pro"),
        ({}, "seed"),
        ({}, "chunked_legacy"),
        ({}, "sequential"),
    ],
)
def test_a_layout_that_would_mean_another_function_is_refused(tmp_path, changes, variant):
    ck = made(dataclasses.replace(MODERN, **changes), "fft")
    with pytest.raises(errors.ExportError, match=f"'{variant}'") as caught:
        sj.export_pt(ck, tmp_path / "model.pt", variant=variant)
    assert "\n" not in str(caught.value) and not (tmp_path / "model.pt").exists()


def test_seed_and_paper_are_not_written_for_each_other(forged, tmp_path):
    _, ck = forged("seed")
    with pytest.raises(errors.ExportError, match="'paper' cannot say"):
        sj.export_pt(ck, tmp_path / "copy.pt", variant="paper")


def test_without_positions_none_are_counted():
    endless = dataclasses.replace(MODERN, pos_emb_type="none")
    assert same_function(endless, dataclasses.replace(endless, max_seq_len=7))
    assert not same_function(MODERN, dataclasses.replace(MODERN, max_seq_len=7))


@pytest.mark.parametrize("name", CONFIGS)
def test_overrides_say_all_that_a_bare_file_does_not(name):
    config = dataclasses.replace(CONFIGS[name], chunk_size=5, context_threshold=7, eigenvalue_clip=0.5)
    state = files.STATE_DICTS[name]()
    variant = files.variant_of(name)
    found = find("ten").config_from(variant, state, {}, overrides_for(config))
    assert same_function(found, config)
    params = to_params(rules(variant, found), state)
    assert sum(leaf.size for leaf in flatten(params).values()) >= config.num_parameters
