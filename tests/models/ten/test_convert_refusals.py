"""Files that cannot be right: one line each that names the file, what is wrong with it and what to do."""

from __future__ import annotations

import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint import errors
from sparsejax.checkpoint.rules import to_params
from sparsejax.checkpoint.tree import flatten
from sparsejax.models.ten.convert import config_from, detect
from sparsejax.models.ten.layouts import rules
from tests.models.ten import files


def raised(error, path, *words, **options):
    """The error of loading ``path``: one line of this kind that names the file and holds all the words."""
    with pytest.raises(error) as caught:
        sj.load(path, **options)
    text = str(caught.value)
    assert type(caught.value) is error, text
    assert "\n" not in text and path.name in text
    for word in words:
        assert word in text, (word, text)


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


# Generations that are not modelled


@pytest.mark.parametrize(
    "key",
    [
        "blocks.0.scale_weights",
        "blocks.1.scale_blocks.scale_4.cells.0.alpha_raw",
        "blocks.0.upsample_projs.scale_2.weight",
    ],
)
def test_hten_is_refused_by_name(tmp_path, key):
    state = files.published() | {key: files.normal(key, 3)}
    path = files.write(tmp_path, files.wrapped(state))
    for options in ({}, {"variant": "seed"}):
        raised(errors.UnknownFormatError, path, "HTEN", "evaluate the file with its own project", **options)
    report = sj.inspect(path)
    assert (report.kind, report.variant, report.config) == ("ten", "hten", None)
    assert isinstance(report.problem, errors.UnknownFormatError)


def test_early_generations_are_refused_by_name(tmp_path):
    state = without(files.published(), "pos_emb.emb.weight") | {"pos_emb": files.normal("p", 1, 9, 6)}
    path = files.write(tmp_path, files.wrapped(state))
    raised(errors.UnknownFormatError, path, "v1 to v2b", "'pos_emb'")
    raised(errors.UnknownFormatError, path, "v1 to v2b", variant="paper")
    assert sj.inspect(path).variant == "early"


def test_files_of_other_families_are_not_taken():
    strangers = [
        ("w1", "w2"),
        ("blocks.0.attn.weight", "token_emb.weight"),
        ("layers.0.gate_proj.weight", "layers.0.up_proj.weight"),
        ("fft_layers.0.weight",),
        (),
    ]
    assert [detect(dict.fromkeys(keys, np.zeros(2)), {}) for keys in strangers] == [None] * 5


# Keys


@pytest.mark.parametrize("name", ["sequential", "selective", "hybrid", "unified", "v03", "seed"])
def test_every_missing_key_is_named(name):
    """By the config, or by the parameters that `load` then misses in comparison with the model."""
    state, variant = files.STATE_DICTS[name](), files.variant_of(name)

    def converted(tensors):
        config = config_from(variant, tensors, {}, {})
        return config, flatten(to_params(rules(variant, config), tensors))

    config, complete = converted(state)
    for key in state:
        try:
            found, params = converted(without(state, key))
        except errors.MissingKeyError as error:
            assert repr(key) in str(error)
        else:
            assert params.keys() < complete.keys(), key
            assert found == config, key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("fft", "layers.1.out_proj.weight"),
        ("fft", "lm_head.weight"),
        ("fft", "pos_emb.weight"),
        ("fft", "layers.1.coupling_blocks.0"),
        ("hybrid", "layers.1.attn.in_proj_weight"),
        ("v03", "pro_layers.0.conv.weight"),
        ("seed", "blocks.1.cells.2.omega"),
        ("seed", "output.weight"),
        ("seed", "pos_emb.emb.weight"),
    ],
)
def test_a_missing_key_is_named_by_load(tmp_path, name, key):
    path = files.write(tmp_path, without(files.STATE_DICTS[name](), key))
    raised(errors.MissingKeyError, path, repr(key), "save the whole state dict", **files.options_of(name))


def test_a_layer_that_is_left_out_is_missed(tmp_path):
    state = files.one_stack(layers=3)
    path = files.write(tmp_path, without(state, *(key for key in state if key.startswith("layers.1."))))
    raised(errors.MissingKeyError, path, "'layers.1'")
    path = files.write(tmp_path, files.one_stack() | {"layers.400000000.log_decay": files.normal("x", 4)})
    raised(errors.MissingKeyError, path, "'layers.2'")


def test_layers_that_the_files_config_counts_are_missed(tmp_path):
    preset = files.PRESET | {"n_layers": 3}
    path = files.write(tmp_path, files.wrapped(files.published(), config=preset))
    raised(errors.MissingKeyError, path, "counts 3 layers, its tensors are of 2", variant="seed")


def test_stacks_of_unequal_depth_are_refused(tmp_path):
    state = files.STATE_DICTS["unified"]()
    gone = [key for key in state if key.startswith("fft_layers.1.")]
    path = files.write(tmp_path, without(state, *gone))
    raised(errors.MissingKeyError, path, "'fft_layers.1.log_decay'")


@pytest.mark.parametrize("key", ["layers.0.dt", "layers.01.log_decay", "blocks.x", "head.weight"])
def test_an_unexpected_key_is_named(tmp_path, key):
    path = files.write(tmp_path, files.one_stack() | {key: files.normal(key, 4)})
    raised(errors.UnexpectedKeyError, path, repr(key), "remove")


@pytest.mark.parametrize(
    ("name", "variant", "error", "key"),
    [
        ("fft", "sequential", errors.MissingKeyError, "layers.0.eigvec_real"),
        ("fft", "selective", errors.MissingKeyError, "layers.0.select_proj.weight"),
        ("fft", "pro", errors.MissingKeyError, "layers.0.spectral_gate.band_gates.weight"),
        ("fft", "seed", errors.MissingKeyError, "blocks.0.cells.0.alpha_raw"),
        ("seed", "final", errors.MissingKeyError, "pos_emb.weight"),
        ("unified", "v03", errors.MissingKeyError, "tok_emb.weight"),
        ("selective", "fft", errors.UnexpectedKeyError, "layers.0.select_proj.weight"),
        ("selective", "chunked_legacy", errors.UnexpectedKeyError, "layers.0.select_proj.weight"),
        ("ssd", "fft", errors.UnexpectedKeyError, "layers.0.short_conv.weight"),
    ],
)
def test_a_variant_that_the_file_is_not_names_the_key(tmp_path, name, variant, error, key):
    path = files.write(tmp_path, files.STATE_DICTS[name]())
    raised(error, path, repr(key), variant=variant)


def test_an_unknown_variant_names_the_known_ones(tmp_path):
    path = files.write(tmp_path, files.one_stack())
    raised(errors.UnknownFormatError, path, "'jit'", "'fft'", "'chunked_legacy'", "'paper'", variant="jit")


# Shapes and values


@pytest.mark.parametrize(
    ("name", "key", "shape", "words"),
    [
        ("fft", "layers.1.log_decay", (5,), ("(5,)", "(4,)")),
        ("fft", "layers.0.gate_proj.weight", (6, 5), ("(5, 6)", "(6, 6)")),
        ("fft", "layers.0.gate_proj.bias", (), ("()", "(6,)")),
        ("fft", "layers.0.coupling_blocks.1", (2, 3), ("(2, 3)", "(2, 2)")),
        ("fft", "layers.0.mlp.2.weight", (6,), ("transpose",)),
        ("ssd", "layers.1.short_conv.weight", (8, 2, 3), ("taps",)),
        ("hybrid", "layers.1.attn.in_proj_weight", (17, 6), ("split",)),
        ("seed_sinusoidal", "pos_emb.pe", (2, 9, 6), ("leading axis",)),
        ("seed", "blocks.1.cells.1.input_proj.weight", (4, 5), ("(4, 5)", "(4, 6)")),
    ],
)
def test_a_wrong_shape_names_the_key(tmp_path, name, key, shape, words):
    state = files.STATE_DICTS[name]() | {key: np.zeros(shape, np.float32)}
    raised(errors.ShapeError, files.write(tmp_path, state), repr(key), *words, **files.options_of(name))


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("fft", "token_emb.weight", (11,)),
        ("fft", "token_emb.weight", (11, 0)),
        ("fft", "layers.0.log_decay", ()),
        ("fft", "pos_emb.weight", (1, 9, 6)),
        ("ssd", "layers.0.short_conv.weight", (8, 3)),
        ("seed", "blocks.0.ffn1.weight", (15,)),
        ("seed_sinusoidal", "pos_emb.pe", (9, 6)),
    ],
)
def test_a_tensor_that_sizes_are_read_from_must_have_its_axes(tmp_path, name, key, shape):
    state = files.STATE_DICTS[name]() | {key: np.zeros(shape, np.float32)}
    words = (repr(key), str(shape), "axes")
    raised(errors.CorruptFileError, files.write(tmp_path, state), *words, **files.options_of(name))


def test_a_published_head_that_is_not_the_table_is_refused(tmp_path):
    path = files.write(tmp_path, files.one_stack() | {"lm_head.weight": files.normal("head", 11, 6)})
    raised(errors.UnexpectedKeyError, path, "'lm_head.weight'", "copy")
    raised(errors.AmbiguousVariantError, path, "always ties", overrides={"tie_weights": False})
    state = files.published(tied=False)
    path = files.write(tmp_path, state, "first.pt")
    options = {"variant": "seed", "overrides": {"tie_weights": True}}
    raised(errors.UnexpectedKeyError, path, "'output.weight'", **options)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_weight_that_is_not_finite_is_found(tmp_path, value):
    state = files.one_stack()
    state["layers.1.coupling_blocks.0"][1, 1] = value
    raised(errors.NonFiniteError, files.write(tmp_path, state), "layers.1.coupling_blocks")


# Overrides


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"window": 3}, ("'window'", "'attention_window'", "'n_heads'", "'tie_weights'")),
        ({"n_heads": 4}, ("n_heads=4", "2 coupling blocks")),
        ({"attention_window": 0}, ("attention_window", "at least 1")),
        ({"chunk_size": "long"}, ("chunk_size", "'long'")),
        ({"context_threshold": 0}, ("context_threshold", "at least 1")),
        ({"eigenvalue_clip": 2.0}, ("eigenvalue_clip", "2.0")),
    ],
)
def test_overrides_that_cannot_be_are_refused(tmp_path, overrides, words):
    path = files.write(tmp_path, files.STATE_DICTS["hybrid"]())
    raised(errors.AmbiguousVariantError, path, *words, overrides=overrides)


def test_tying_is_a_yes_or_no(tmp_path):
    path = files.write(tmp_path, files.wrapped(files.published(), config={"tie_weights": "maybe"}))
    raised(errors.AmbiguousVariantError, path, "True or False", variant="seed")
