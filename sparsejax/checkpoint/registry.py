"""Families register what they can read; a file is matched with them by keys and shapes.

`declare` names a module that registers a family when it is imported, so that importing sparsejax stays
light and this room needs to know no model.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparsejax.checkpoint.container import Layout, LazyArray
from sparsejax.checkpoint.errors import AmbiguousVariantError, UnknownFormatError, shown
from sparsejax.checkpoint.rules import Rule

Tensors = Mapping[str, LazyArray]
"""Arrays by key; a family looks at shapes and dtypes, and at values only where a few of them tell a size."""


def _accept(config: Any, *values: Any, **options: Any) -> None:
    del config, values, options


def _nothing(config: Any) -> Mapping[str, Any]:
    del config
    return {}


def _nothing_beside(variant: str, config: Any) -> Mapping[str, Any]:
    del variant, config
    return {}


def _unknown(config: Any) -> None:
    del config


def _bare_file(config: Any) -> tuple[Layout, Mapping[str, Any]]:
    del config
    return Layout(), {}


def _none_pruned(tensors: Tensors) -> Mapping[str, Any]:
    del tensors
    return {}


def _no_checks(ck: Any) -> Sequence[Any]:
    del ck
    return ()


def _apply_in_order(ck: Any, inputs: Mapping[str, Any]) -> Any:
    return ck.apply(*inputs.values())


@dataclass(frozen=True)
class Family:
    """What the importer must know about a model family.

    Attributes:
      kind: the family's name, such as "ultra_sparse".
      layouts: key patterns by variant; files that fit none are compared with them in the error.
      detect: (tensors, metadata) -> variant; all that it may be, where only the caller can tell; or None if
        the file is not of this family. Looks at the keys that make a layout, not at completeness: what is
        missing is told by name later.
      config_from: (variant, tensors, metadata, overrides) -> config; raises `AmbiguousVariantError`
        with the override to give where neither shapes nor metadata tell.
      rules: (variant, config) -> conversion table.
      stored_config: config -> what a file may hold under "config" to say what its shapes do not; written
        on export only where it is needed.
      beside: (variant, config) -> what a file says beside its tensors, not under "config" but at its top.
      overrides_for: config -> overrides that its reader gives to a bare state dict, for families whose own
        projects refuse to find anything else in one; None: ``stored_config`` is put into bare ones too.
      same_function: (config, config) -> whether networks with them compute the same from equal parameters, so
        that a file which says one may be written for the other.
      build: config -> linen module.
      example_inputs: config -> positional inputs that initialise the module (shapes suffice).
      shapes: config -> nested shapes and dtypes of the parameters, for modules that take long to trace; None
        where the module is to be asked.
      config_to_json: config -> plain dict.
      config_from_json: its inverse.
      check_params: (config, params as NumPy arrays) raises a `CheckpointError` where a value cannot be right,
        such as an index beyond the inputs.
      check_inputs: (config, *inputs, **options) raises ValueError where a call cannot be right.
      evaluate: (checkpoint, arrays of a reference file by name) -> outputs, for `verify`; by name where the
        family has several.
      outputs: names that the outputs may have in a reference file.
      report: checkpoint -> further checks (`verification.Check`) of the family's own, for `verify`.
      file_formats: variant -> file format that `export_pt` writes, where it is not "zip".
      reads: file formats that its files have; those of others are not compared with its layouts.
      new_file: config -> layout, and what lies beside the state dict, of a torch file for a model that came
        from none.
      pruned: tensors of an ``.onnx`` file -> those that its writer left out because no output depends on
        them, with values to take for them.
    """

    kind: str
    layouts: Mapping[str, Sequence[str]]
    detect: Callable[[Tensors, Mapping[str, Any]], str | tuple[str, ...] | None]
    config_from: Callable[[str, Tensors, Mapping[str, Any], Mapping[str, Any]], Any]
    rules: Callable[[str, Any], Sequence[Rule]]
    build: Callable[[Any], Any]
    example_inputs: Callable[[Any], tuple[Any, ...]]
    config_to_json: Callable[[Any], Mapping[str, Any]]
    config_from_json: Callable[[Mapping[str, Any]], Any]
    shapes: Callable[[Any], dict[str, Any] | None] = _unknown
    stored_config: Callable[[Any], Mapping[str, Any]] = _nothing
    beside: Callable[[str, Any], Mapping[str, Any]] = _nothing_beside
    overrides_for: Callable[[Any], Mapping[str, Any]] | None = None
    same_function: Callable[[Any, Any], bool] = operator.eq
    check_params: Callable[..., None] = _accept
    check_inputs: Callable[..., None] = _accept
    evaluate: Callable[[Any, Mapping[str, Any]], Any] = _apply_in_order
    outputs: Sequence[str] = ("outputs", "output", "output_f32", "logits")
    report: Callable[[Any], Sequence[Any]] = _no_checks
    file_formats: Mapping[str, str] = field(default_factory=dict)
    reads: Sequence[str] = ("zip", "legacy", "npz", "onnx")
    new_file: Callable[[Any], tuple[Layout, Mapping[str, Any]]] = _bare_file
    pruned: Callable[[Tensors], Mapping[str, Any]] = _none_pruned


_families: dict[str, Family] = {}
_declared: list[str] = []


def declare(module: str) -> None:
    """Name a module that calls `register` when it is imported."""
    if module not in _declared:
        _declared.append(module)


def register(family: Family) -> None:
    """Make a family known to `load`, `inspect` and the rest.

    Raises:
      ValueError: another family has this kind already.
    """
    if _families.get(family.kind, family) is not family:
        raise ValueError(f"the family {family.kind!r} is registered already")
    _families[family.kind] = family


def families() -> dict[str, Family]:
    """All families by kind, in the order of declaration, whichever module was imported first."""
    for module in _declared:
        importlib.import_module(module)
    place = {module: number for number, module in enumerate(_declared)}
    ordered = sorted(_families.items(), key=lambda entry: place.get(entry[1].detect.__module__, len(place)))
    return dict(ordered)


def find(kind: str) -> Family:
    """The family of this kind.

    Raises:
      UnknownFormatError: there is none; names those that are.
    """
    known = families()
    if kind not in known:
        raise UnknownFormatError(f"kind {kind!r} is not known; give one of {shown(known)}")
    return known[kind]


def identify(
    tensors: Tensors,
    metadata: Mapping[str, Any],
    kind: str | None = None,
    variant: str | None = None,
    file_format: str | None = None,
) -> tuple[Family, str]:
    """The family and variant of a file.

    Args:
      tensors: by key.
      metadata: what lies beside them.
      kind: the only family to consider.
      variant: taken instead of the detected one.
      file_format: of the file; families that read no such files are left out. None asks all.

    Raises:
      UnknownFormatError: no family recognises the keys or reads the format, or ``variant`` does not exist;
        names the nearest.
      AmbiguousVariantError: several families do, or a family needs to be told the variant.
    """
    every = families()
    candidates = _readers(every if kind is None else {kind: find(kind)}, file_format)
    matches = _matches(candidates, tensors, metadata)
    others = {} if matches or variant else _matches(_readers(every, file_format), tensors, metadata)
    if others:
        raise UnknownFormatError(f"is of kind {shown(others)}, not {kind!r}")
    if not candidates:
        which = "any family" if kind is None else f"kind {kind!r}"
        raise UnknownFormatError(f"no {file_format} file is of {which}")
    if variant is not None:
        named = [name for name in (matches or candidates) if variant in candidates[name].layouts]
        if not named:
            known = [known for family in candidates.values() for known in family.layouts]
            raise UnknownFormatError(f"variant {variant!r} is not known here; give one of {shown(known, 20)}")
        return candidates[named[0]], variant
    if not matches:
        raise UnknownFormatError(
            f"no known layout has the tensors {shown(tensors)}; nearest: {nearest(tensors, candidates)}"
        )
    if len(matches) > 1:
        raise AmbiguousVariantError(f"the tensors fit the kinds {shown(matches)}; give kind=", tuple(matches))
    ((name, detected),) = matches.items()
    if isinstance(detected, tuple):
        raise AmbiguousVariantError(
            f"the tensors fit the variants {shown(detected)} of {name!r}, which use them differently; "
            "give variant= (--variant NAME)",
            detected,
            name,
        )
    return candidates[name], detected


def _readers(candidates: Mapping[str, Family], file_format: str | None) -> dict[str, Family]:
    return {
        name: family
        for name, family in candidates.items()
        if file_format is None or file_format in family.reads
    }


def _matches(
    candidates: Mapping[str, Family], tensors: Tensors, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    found = {name: family.detect(tensors, metadata) for name, family in candidates.items()}
    return {name: detected for name, detected in found.items() if detected is not None}


def configure(
    family: Family, variant: str, tensors: Tensors, metadata: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Any:
    """The config of a file.

    Raises:
      AmbiguousVariantError: an override is needed, or what shapes, metadata and overrides say is no config.
    """
    try:
        return family.config_from(variant, tensors, metadata, overrides)
    except (TypeError, ValueError, OverflowError) as error:
        raise AmbiguousVariantError(
            f"shapes, metadata and overrides give no valid config: {error}"
        ) from error


def completed(family: Family, tensors: Tensors, file_format: str) -> Tensors:
    """The tensors of a file with those that its format leaves out where no output depends on them."""
    return {**family.pruned(tensors), **tensors} if file_format == "onnx" else tensors


def nearest(tensors: Tensors, candidates: Mapping[str, Family], limit: int = 2) -> str:
    """The layouts that share most keys with a file, and what the file lacks of them."""
    scored = []
    for name, family in candidates.items():
        for variant, patterns in family.layouts.items():
            rules = [Rule(pattern) for pattern in patterns]
            hit = [rule.sources[0] for rule in rules if any(rule.match_source(key) for key in tensors)]
            lacking = [pattern for pattern in patterns if pattern not in hit]
            lacks = f" (without {shown(lacking, 3)})" if lacking else ""
            scored.append((len(hit) / len(patterns), f"{name}/{variant}{lacks}"))
    best = sorted(scored, key=lambda entry: -entry[0])[:limit]
    return ", ".join(text for _, text in best) or "none is registered"
