"""Every published arrangement in and out again: variant, config, parameters, and the file that comes back."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint import errors, torch_file
from sparsejax.checkpoint.registry import find
from sparsejax.checkpoint.rules import to_params, to_state
from sparsejax.checkpoint.tree import flatten
from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.convert import (
    config_from,
    detect,
    overrides_for,
    same_function,
    stored_config,
)
from sparsejax.models.force_field.layouts import rules
from tests import golden
from tests.models.force_field import files

SMALL = ForceFieldConfig(**files.SIZES, variant="cartesian")
CONFIGS = dict.fromkeys(files.WRAPPERS, SMALL) | {
    "equivariant": dataclasses.replace(
        SMALL,
        variant="equivariant",
        norm_epsilon=0.05,
        learnable_rbf=True,
        reference_energies=True,
        species=(1, 6, 8),
    )
}
GOLDEN = {
    "original_427k": (128, 3, 20, 5.0, 100),
    "tiny_77k": (64, 2, 12, 5.0, 100),
    "tiny_77k_trainer_prefixed": (64, 2, 12, 5.0, 100),
    "ultra_tiny_21k": (32, 2, 10, 5.0, 100),
    "ultra_tiny_21k_compact_script": (32, 2, 10, 5.0, 100),
    "random_a": (16, 2, 6, 4.0, 20),
    "random_b": (24, 3, 8, 5.0, 118),
    "trainer_warmup_cosine": (16, 2, 6, 5.0, 20),
}
"""Files of the originals: channels, interactions, radial functions, cutoff, largest atomic number."""


def same_bits(left, right):
    left, right = np.asarray(left), np.asarray(right)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def assert_same_file(found, expected):
    """Equal in keys, order, values and array bits."""
    assert list(found) == list(expected)
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_same_file(found[key], value)
        elif isinstance(value, np.ndarray):
            assert same_bits(found[key], value), key
        else:
            assert type(found[key]) is type(value) and found[key] == value, key


def reread(ck, folder, **options):
    """The checkpoint after it was written to a file and read again."""
    sj.export_pt(ck, folder / "copy.pt")
    return sj.load(folder / "copy.pt", **options)


def inferred(state, metadata=None, **overrides):
    return config_from(detect(state, {}), state, metadata or {}, overrides)


# Forged files of every arrangement


@pytest.mark.parametrize("name", files.WRAPPERS)
def test_file_is_recognised_and_comes_back(tmp_path, name):
    tree = files.WRAPPERS[name]()
    path = files.write(tmp_path, tree)
    ck = sj.load(path)
    assert (ck.kind, ck.variant, ck.config) == ("force_field", CONFIGS[name].variant, CONFIGS[name])
    assert ck.num_values == ck.config.num_parameters + (0 if ck.config.learnable_rbf else 2 * files.RADIAL)
    beside = set(tree) - {"model_state_dict", "state_dict"} if name != "bare" else set()
    assert ck.metadata.keys() == beside
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert_same_file(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))


@pytest.mark.parametrize(
    "prefix", ["model.", "_orig_mod.", "model._orig_mod.", "module.", "module.model._orig_mod."]
)
def test_prefixes_go_at_the_front_and_come_back(tmp_path, prefix):
    tree = files.saved(files.prefixed(files.state_dict(), prefix))
    path = files.write(tmp_path, tree)
    ck = sj.load(path)
    assert (ck.layout.prefix, ck.config) == (prefix, SMALL)
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert_same_file(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))


@pytest.mark.parametrize(
    "key", ["submodel.weight", "interactions.0.model.weight", "energy_head.model.0.bias"]
)
def test_a_prefix_in_the_middle_of_a_key_stays(tmp_path, key):
    """The published repair removes "model." anywhere; here the key is told as it stands in the file."""
    path = files.write(tmp_path, files.saved(files.state_dict() | {key: files.normal(key, 2)}))
    with pytest.raises(errors.UnexpectedKeyError, match=f"'{key}'"):
        sj.load(path)
    state = files.prefixed(files.state_dict() | {key: files.normal(key, 2)}, "model.")
    with pytest.raises(errors.UnexpectedKeyError, match=f"'{key}'"):
        sj.load(files.write(tmp_path, files.saved(state)))


def test_a_prefix_of_some_keys_only_is_none(tmp_path):
    state = {f"model.{key}" if "energy_head" in key else key: a for key, a in files.state_dict().items()}
    with pytest.raises(errors.UnexpectedKeyError, match=r"'model\.energy_head"):
        sj.load(files.write(tmp_path, state))


def test_values_are_where_they_belong():
    state = files.state_dict(equivariant=True, reference_energies=True)
    config = CONFIGS["equivariant"]
    params = to_params(rules("equivariant", config), state)
    part, key = params["interaction_1"], "interactions.1"
    for path, source in (
        (("message", "hidden"), "message.rbf_to_scalar.0"),
        (("message", "filter"), "message.rbf_to_scalar.2"),
        (("update", "hidden"), "update.update_mlp.0"),
        (("update", "gates"), "update.update_mlp.2"),
    ):
        found = part[path[0]][path[1]]
        assert same_bits(found["kernel"], state[f"{key}.{source}.weight"].T)
        assert same_bits(found["bias"], state[f"{key}.{source}.bias"])
    assert same_bits(part["update"]["mixing"], state[f"{key}.update.mixing_matrix"])
    assert same_bits(params["embedding"]["embedding"], state["embedding.weight"])
    assert same_bits(params["rbf"]["centers"], state["rbf.centers"])
    assert same_bits(params["rbf"]["widths"], state["rbf.widths"])
    for number, name in ((0, "hidden_0"), (2, "hidden_1"), (4, "energy")):
        assert same_bits(params["readout"][name]["kernel"], state[f"energy_head.{number}.weight"].T)
        assert same_bits(params["readout"][name]["bias"], state[f"energy_head.{number}.bias"])
    assert same_bits(params["reference_energies"], state["reference_energies"])
    assert len(flatten(params)) == len(state)
    assert list(to_state(rules("equivariant", config), params)) == list(state)


# What no shape tells


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("cutoff", "count"), [(5.0, 1), (5.0, 12), (4.2, 20), (0.7, 2), (12.35, 9)])
def test_the_cutoff_is_where_published_radial_functions_end(dtype, count, cutoff):
    """Also after the network was cast, as float64 ones are from float32."""
    radial = {key: array.astype(dtype) for key, array in files.radial(cutoff, count).items()}
    assert inferred(files.state_dict() | radial).cutoff == cutoff


@pytest.mark.parametrize("case", ["a moved centre", "a wider one", "zero", "infinite", "integers"])
def test_the_cutoff_of_other_radial_functions_has_to_be_told(case):
    state = files.state_dict()
    centers, widths = state["rbf.centers"].copy(), state["rbf.widths"].copy()
    if case == "a moved centre":
        centers[2] += 1e-3
    elif case == "a wider one":
        widths[0] *= 1.01
    elif case == "integers":
        centers = np.arange(files.RADIAL)
    else:
        centers[-1] = {"zero": 0.0, "infinite": np.inf}[case]
    state |= {"rbf.centers": centers, "rbf.widths": widths}
    with pytest.raises(errors.AmbiguousVariantError, match="cutoff=") as caught:
        inferred(state)
    assert caught.value.choices == ("cutoff",)
    assert inferred(state, cutoff=6).cutoff == 6.0
    assert inferred(state, {"config": {"cutoff": 5.5}}).cutoff == 5.5


def test_overrides_go_before_the_files_own_words(tmp_path):
    path = files.write(tmp_path, files.saved())
    given = {"cutoff": 3, "species": [8, 1], "learnable_rbf": True, "norm_epsilon": 0.1}
    ck = sj.load(path, overrides=given)
    assert ck.config == dataclasses.replace(SMALL, **{**given, "cutoff": 3.0, "species": (1, 8)})
    again = reread(ck, tmp_path)
    assert again.config == dataclasses.replace(ck.config, norm_epsilon=SMALL.norm_epsilon)
    assert same_function(again.config, ck.config)


@pytest.mark.parametrize("name", ["bare", "state_dict", "trainer"])
def test_what_a_caller_told_survives_where_the_layout_can_say_it(tmp_path, name):
    ck = sj.load(files.write(tmp_path, files.WRAPPERS[name]()), overrides={"species": (6, 1)})
    sj.export_pt(ck, tmp_path / "copy.pt")
    written = torch_file.read(tmp_path / "copy.pt")
    if name == "bare":
        assert list(written) == list(files.state_dict())  # its readers take tensors only
        assert sj.load(tmp_path / "copy.pt", overrides=overrides_for(ck.config)).config == ck.config
    else:
        assert sj.load(tmp_path / "copy.pt").config == ck.config
        assert written["config"].items() >= ck.metadata.get("config", {}).items()


def test_a_new_model_gets_the_published_arrangement(tmp_path):
    for name in ("saved", "equivariant"):
        ck = sj.load(files.write(tmp_path, files.WRAPPERS[name]()))
        new = sj.Checkpoint("force_field", ck.variant, ck.config, ck.params, {"teacher": "GFN2-xTB"})
        sj.export_pt(new, tmp_path / "new.pt")
        written = torch_file.read(tmp_path / "new.pt")
        assert list(written) == ["model_state_dict", "config", "num_parameters", "teacher"]
        assert list(written["model_state_dict"]) == list(files.WRAPPERS[name]()["model_state_dict"])
        assert written["config"] == stored_config(ck.config)
        assert written["num_parameters"] == ck.config.num_parameters
        again = sj.load(tmp_path / "new.pt")
        assert again.config == ck.config and jax.tree.all(jax.tree.map(same_bits, again.params, ck.params))


def test_a_changed_model_is_not_described_by_the_old_words(tmp_path):
    """Fewer elements than the file's own config says: the config that is written says the new number."""
    ck = sj.load(files.write(tmp_path, files.saved()))
    table = {"embedding": ck.params["embedding"]["embedding"][:7]}
    smaller = ck.replace(
        config=dataclasses.replace(ck.config, max_z=6), params={**ck.params, "embedding": table}
    )
    assert reread(smaller, tmp_path).config.max_z == 6


def test_a_sparsejax_directory_keeps_everything(tmp_path):
    ck = sj.load(files.write(tmp_path, files.WRAPPERS["equivariant"]()))
    sj.save(ck, tmp_path / "native")
    again = sj.load(tmp_path / "native")
    assert (again.config, again.layout, again.metadata) == (ck.config, ck.layout, ck.metadata)
    assert jax.tree.all(jax.tree.map(same_bits, again.params, ck.params))


def test_variants_are_told_by_the_mixing_matrix_and_are_no_layouts_of_each_other(tmp_path):
    cartesian, other = files.state_dict(), files.state_dict(equivariant=True)
    assert (detect(cartesian, {}), detect(other, {})) == ("cartesian", "equivariant")
    path = files.write(tmp_path, files.saved())
    with pytest.raises(
        errors.ShapeError, match=r"has shape \(3, 3\); the variant 'equivariant' needs \(8, 8\)"
    ):
        sj.load(path, variant="equivariant")
    with pytest.raises(errors.ExportError, match="cannot say"):
        sj.export_pt(sj.load(path), tmp_path / "x.pt", variant="equivariant")


def test_files_of_other_families_are_not_taken():
    strangers = (("embedding.weight", "rbf.centers"), ("interactions.0.weight",), ("layers.0.weight",), ())
    assert [detect(dict.fromkeys(keys, np.zeros((3, 3))), {}) for keys in strangers] == [None] * 4


def test_same_function_looks_past_what_no_energy_depends_on():
    other = dataclasses.replace(SMALL, norm_epsilon=0.5, learnable_rbf=True, species=(1,))
    assert same_function(SMALL, other)
    assert not same_function(SMALL, dataclasses.replace(SMALL, cutoff=4.0))
    rounded = dataclasses.replace(SMALL, variant="equivariant")
    assert not same_function(rounded, dataclasses.replace(rounded, norm_epsilon=0.5))


# Files that cannot be right


@pytest.mark.parametrize("name", ["hidden_dim", "num_interactions", "num_rbf", "max_z"])
@pytest.mark.parametrize("beside", ["config", "model_config"])
def test_a_config_that_contradicts_the_shapes_is_told(tmp_path, name, beside):
    for wrong in (1, "8", [3]):
        tree = files.saved(config=files.CONFIG) | {beside: {**files.SIZES, name: wrong}}
        path = files.write(tmp_path, tree)
        with pytest.raises(errors.ShapeError) as caught:
            sj.load(path)
        text = str(caught.value)
        assert text.startswith((str(path), f".../{path.name}")) and "\n" not in text  # long paths are cut
        assert f"config says {name}={wrong!r}, its tensors say {files.SIZES[name]}" in text
    assert isinstance(sj.inspect(path).problem, errors.ShapeError)


def test_more_interactions_than_the_file_holds(tmp_path):
    path = files.write(tmp_path, files.saved(config={**files.CONFIG, "num_interactions": 3}))
    with pytest.raises(errors.MissingKeyError, match="num_interactions=3, its tensors say 2; save the whole"):
        sj.load(path)
    path = files.write(tmp_path, files.saved(config={**files.CONFIG, "reference_energies": True}))
    with pytest.raises(errors.MissingKeyError, match="reference_energies=True, its tensors say False"):
        sj.load(path)
    path = files.write(tmp_path, files.saved(config={**files.CONFIG, "variant": "equivariant"}))
    with pytest.raises(errors.ShapeError, match="variant='equivariant', its tensors say 'cartesian'"):
        sj.load(path)


def test_variants_of_other_projects_are_no_contradiction(tmp_path):
    path = files.write(tmp_path, files.saved(config={**files.CONFIG, "variant": "painn"}))
    assert sj.load(path).variant == "cartesian"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cutoff", -1.0, "cutoff must be a positive number of A, not -1.0"),
        ("cutoff", float("nan"), "cutoff must be a positive number, not nan"),
        ("cutoff", "5", "cutoff must be a positive number, not '5'"),
        ("cutoff", True, "cutoff must be a positive number, not True"),
        ("cutoff", 10**400, "no valid config"),
        ("cutoff", np.ones(2), "cutoff must be a positive number, not a "),
        ("norm_epsilon", 0, "norm_epsilon must be positive"),
        ("learnable_rbf", 1, "learnable_rbf must be True or False, not 1"),
        ("species", 6, "species must be a list of atomic numbers such as"),
        ("species", [1.5], "species must be a list of atomic numbers such as"),
        ("species", [], "species must be a list of atomic numbers such as"),
        ("species", "HC", "species must be a list of atomic numbers such as"),
        ("species", [1, 10], "species must lie between 1 and max_z=9"),
    ],
    ids=str,
)
def test_words_that_are_no_value_are_told(tmp_path, name, value, words):
    path = files.write(tmp_path, files.saved())
    with pytest.raises(errors.AmbiguousVariantError) as given:
        sj.load(path, overrides={name: value})
    path = files.write(tmp_path, files.saved(config={**files.CONFIG, name: value}))
    with pytest.raises(errors.AmbiguousVariantError) as stored:
        sj.load(path)
    for caught in (given, stored):
        assert words in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_overrides_are_told(tmp_path):
    with pytest.raises(errors.AmbiguousVariantError, match="no 'max_z'; it takes 'cutoff', 'species'"):
        sj.load(files.write(tmp_path, files.saved()), overrides={"max_z": 3})


def test_every_missing_key_is_named():
    state = files.state_dict()
    complete = to_params(rules("cartesian", SMALL), state)
    for key in state:
        lacking = files.without(state, key)
        try:
            config = inferred(lacking, {"config": files.CONFIG})
            params = to_params(rules("cartesian", config), lacking, complete)
        except errors.MissingKeyError as error:
            assert repr(key) in str(error)
        else:
            raise AssertionError(f"{key} was not missed: {flatten(params).keys()}")


@pytest.mark.parametrize(
    ("key", "shape", "error", "words"),
    [
        ("embedding.weight", (10, 6), "AmbiguousVariantError", "hidden_dim must be a multiple of 4, not 6"),
        ("embedding.weight", (80,), "CorruptFileError", "2 axes"),
        (
            "embedding.weight",
            (1, 8),
            "AmbiguousVariantError",
            "max_z must be a whole number of at least 1, not 0",
        ),
        ("rbf.centers", (0,), "CorruptFileError", "1 axes"),
        ("rbf.widths", (4,), "ShapeError", "'rbf.widths'"),
        ("interactions.0.update.mixing_matrix", (4, 4), "ShapeError", "needs (8, 8)"),
        (
            "interactions.1.update.mixing_matrix",
            (8, 8),
            "ShapeError",
            "'interactions.1.update.mixing_matrix'",
        ),
        ("interactions.1.update.update_mlp.0.weight", (8, 8), "ShapeError", "update_mlp.0.weight"),
        ("energy_head.4.weight", (2, 2), "ShapeError", "'energy_head.4.weight'"),
    ],
)
def test_wrong_shapes_are_told(tmp_path, key, shape, error, words):
    state = files.state_dict() | {key: np.ones(shape, np.float32)}
    path = files.write(tmp_path, {"model_state_dict": state, "config": {"cutoff": 5.0}})
    with pytest.raises(getattr(errors, error)) as caught:
        sj.load(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0.0, -0.84])
def test_radial_functions_without_a_width_are_refused(tmp_path, value):
    state = files.state_dict()
    state["rbf.widths"][3] = value
    with pytest.raises(errors.CorruptFileError, match=rf"'rbf\.widths' holds {value:g}; the widths"):
        sj.load(files.write(tmp_path, files.saved(state)))


# Golden files


@pytest.mark.golden()
@pytest.mark.parametrize("name", GOLDEN)
def test_published_file_is_recognised_and_comes_back(tmp_path, name):
    path = golden.path("force_field", f"{name}.pt")
    ck = sj.load(path)
    names = ("hidden_dim", "num_interactions", "num_rbf", "cutoff", "max_z")
    assert tuple(getattr(ck.config, each) for each in names) == GOLDEN[name]
    assert (ck.kind, ck.variant, ck.config.learnable_rbf) == ("force_field", "cartesian", False)
    assert ck.num_values - 2 * ck.config.num_rbf == ck.config.num_parameters
    sj.export_pt(ck, tmp_path / "copy.pt")
    assert_same_file(torch_file.read(tmp_path / "copy.pt"), torch_file.read(path))


@pytest.mark.golden()
def test_published_parameter_counts():
    counts = {"original_427k": 427292, "tiny_77k": 77203, "ultra_tiny_21k": 21459}
    for name, count in counts.items():
        report = sj.inspect(golden.path("force_field", f"{name}.pt"))
        assert (report.problem, report.config.num_parameters) == (None, count)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["saved", "trainer", "equivariant"])
def test_torch_accepts_exports(tmp_path, name):
    """Also of trainer files, whose originals torch itself refuses for their paths."""
    import torch

    tree = files.WRAPPERS[name]()
    sj.export_pt(sj.load(files.write(tmp_path, tree)), tmp_path / "copy.pt")
    found = torch.load(tmp_path / "copy.pt", weights_only=True)
    assert list(found) == list(tree) and found["config"] == tree["config"]
    assert list(found["model_state_dict"]) == list(tree["model_state_dict"])
    for key, array in tree["model_state_dict"].items():
        assert torch.equal(found["model_state_dict"][key], torch.from_numpy(array))


@pytest.mark.torch
@pytest.mark.golden()
def test_torch_accepts_the_export_of_a_trainers_file(tmp_path):
    import torch

    path = golden.path("force_field", "tiny_77k_trainer_prefixed.pt")
    sj.export_pt(sj.load(path), tmp_path / "copy.pt")
    found = torch.load(tmp_path / "copy.pt", weights_only=True)
    expected = torch.load(path, weights_only=False)
    assert list(found) == list(expected)
    for key, tensor in expected["model_state_dict"].items():
        assert torch.equal(found["model_state_dict"][key], tensor)


def test_family_is_registered_with_its_outputs():
    family = find("force_field")
    assert family.outputs == ("energy", "forces", "stress", "outputs")
    assert family.config_from_json(family.config_to_json(CONFIGS["equivariant"])) == CONFIGS["equivariant"]
