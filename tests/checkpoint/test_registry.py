"""Files find their family, or an error that says what comes nearest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsejax.checkpoint import registry
from sparsejax.checkpoint.errors import AmbiguousVariantError, UnknownFormatError
from sparsejax.checkpoint.registry import Family, identify, nearest
from sparsejax.checkpoint.source_file import open_source

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints" / "ultra_sparse_sine.pt"


def family(kind, layouts, detect=None):
    def by_first_key(tensors, metadata):
        return next((name for name, keys in layouts.items() if keys[0] in tensors), None)

    unused = dict.fromkeys(
        ("config_from", "rules", "build", "example_inputs", "config_to_json", "config_from_json")
    )
    return Family(kind=kind, layouts=layouts, detect=detect or by_first_key, **unused)


ALPHA = family("alpha", {"one": ("a", "b"), "two": ("c", "layers.{i}.w")})
BETA = family("beta", {"three": ("x", "y", "z")})
GREEDY = family("greedy", {"all": ("q",)}, detect=lambda tensors, metadata: metadata.get("says"))


@pytest.fixture
def known(monkeypatch):
    """Three families instead of the real ones."""
    monkeypatch.setattr(registry, "_families", {f.kind: f for f in (ALPHA, BETA, GREEDY)})
    monkeypatch.setattr(registry, "_declared", [])


def tensors(*keys):
    return dict.fromkeys(keys, np.zeros(2))


@pytest.mark.parametrize(
    ("keys", "kind", "variant"), [("ab", "alpha", "one"), ("c", "alpha", "two"), ("xyz", "beta", "three")]
)
def test_a_file_is_told_by_its_keys(known, keys, kind, variant):
    found, name = identify(tensors(*keys), {})
    assert (found.kind, name) == (kind, variant)


def test_metadata_may_tell_too(known):
    assert identify(tensors("q"), {"says": "all"})[0] is GREEDY


def test_several_families_ask_for_the_kind(known):
    with pytest.raises(AmbiguousVariantError, match="'alpha', 'greedy'; give kind=") as caught:
        identify(tensors("a"), {"says": "all"})
    assert caught.value.choices == ("alpha", "greedy")
    assert identify(tensors("a"), {"says": "all"}, kind="alpha") == (ALPHA, "one")
    assert identify(tensors("a"), {"says": "all"}, variant="all") == (GREEDY, "all")


def test_a_given_variant_replaces_the_detected_one(known):
    assert identify(tensors("a"), {}, variant="two") == (ALPHA, "two")
    assert identify(tensors("q"), {}, variant="three") == (BETA, "three")


def test_unknown_kinds_and_variants_name_the_known_ones(known):
    with pytest.raises(
        UnknownFormatError, match="'gamma' is not known; give one of 'alpha', 'beta', 'greedy'"
    ):
        identify(tensors("a"), {}, kind="gamma")
    with pytest.raises(
        UnknownFormatError, match="'four' is not known here; give one of 'one', 'two', 'three', 'all'"
    ):
        identify(tensors("a"), {}, variant="four")
    with pytest.raises(UnknownFormatError, match="give one of 'three'$"):
        identify(tensors("a"), {}, kind="beta", variant="one")


def test_a_file_of_no_family_names_its_keys_and_the_nearest_layouts(known):
    with pytest.raises(UnknownFormatError) as caught:
        identify(tensors("y", "z", "b"), {})
    text = str(caught.value)
    assert "'y', 'z', 'b'" in text
    assert text.index("beta/three (without 'x')") < text.index("alpha/one (without 'a')")


def test_nearest_counts_patterns_and_says_nothing_of_what_is_there(known):
    families = registry.families()
    assert nearest(tensors("layers.0.w", "layers.1.w"), families, limit=1) == "alpha/two (without 'c')"
    assert nearest(tensors("q"), families, limit=1) == "greedy/all"
    assert nearest(tensors("q"), {}) == "none is registered"


def test_variants_that_only_the_caller_can_tell_are_asked_for(known):
    registry.register(family("twins", {"left": ("t",), "right": ("t",)}, detect=_twins))
    with pytest.raises(AmbiguousVariantError, match="'left', 'right' of 'twins'.*give variant=") as caught:
        identify(tensors("t"), {})
    assert (caught.value.choices, caught.value.kind) == (("left", "right"), "twins")
    assert identify(tensors("t"), {}, variant="right")[1] == "right"


def _twins(tensors, metadata):
    return ("left", "right") if "t" in tensors else None


def test_families_come_in_the_order_of_declaration(monkeypatch):
    registry.families()
    backwards = dict(reversed(registry._families.items()))
    monkeypatch.setattr(registry, "_families", backwards)
    assert [f"sparsejax.models.{kind}.convert" for kind in registry.families()] == registry._declared


def test_a_family_without_a_way_of_its_own_takes_inputs_in_order_and_no_pruned_tensors():
    class Subtraction:
        def apply(self, a, b):
            return a - b

    assert ALPHA.evaluate(Subtraction(), {"x": 5, "y": 3}) == 2
    file = open_source(SHIPPED)
    assert registry.completed(ALPHA, file.tensors, "onnx") == file.tensors


def test_a_kind_is_registered_once(known):
    registry.register(ALPHA)  # the same again does no harm
    with pytest.raises(ValueError, match="'alpha' is registered already"):
        registry.register(family("alpha", {"other": ("o",)}))
    assert registry.find("alpha") is ALPHA


def test_declared_families_are_imported_when_they_are_first_asked_for():
    program = (
        "import sys, sparsejax; from sparsejax.checkpoint import registry;"
        "assert 'sparsejax.models.ultra_sparse.convert' not in sys.modules;"
        "assert 'ultra_sparse' in registry.families();"
        "assert 'sparsejax.models.ultra_sparse.convert' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_file_of_another_kind_is_told_what_it_is(known):
    with pytest.raises(UnknownFormatError, match="is of kind 'alpha', not 'beta'") as caught:
        identify(tensors("a"), {}, kind="beta")
    assert "nearest" not in str(caught.value)
