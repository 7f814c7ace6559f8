"""Files of the family: which network they hold, and the config that their shapes and own words tell."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.accepted_names import check_overrides
from sparsejax.checkpoint.container import Layout
from sparsejax.checkpoint.errors import (
    AmbiguousVariantError,
    CorruptFileError,
    MissingKeyError,
    ShapeError,
)
from sparsejax.checkpoint.registry import Family, Tensors, register
from sparsejax.checkpoint.sizes import count_parts, shape_of
from sparsejax.models.force_field.config import ForceFieldConfig, Variant
from sparsejax.models.force_field.layouts import (
    CENTERS,
    EMBEDDING,
    LAYOUTS,
    MIXING,
    REFERENCE_ENERGIES,
    WIDTHS,
    rules,
)
from sparsejax.models.force_field.onnx_weights import pruned

OVERRIDES = ("cutoff", "species", "learnable_rbf", "norm_epsilon")
"""Config fields that no tensor tells; a file's own ``config`` may."""


_BESIDE = ("config", "model_config")  # the second is of the published generic calculator
_FILTERS = re.compile(r"interactions\.\d+\.message\.rbf_to_scalar\.\d+\.(?:weight|bias)")


def detect(tensors: Tensors, metadata: Mapping[str, Any]) -> str | None:
    """The variant by the shape of the first mixing matrix; None for files of other families.

    The two cannot be taken for each other, since there are 3 axes but a multiple of 4 channels. A published
    ``.onnx`` file of one interaction has no mixing matrix: that is "cartesian".
    """
    del metadata
    if not any(_FILTERS.fullmatch(key) for key in tensors):
        return None
    mixing = tensors.get(MIXING.format(i=0))
    return "cartesian" if mixing is None or tuple(mixing.shape) == (3, 3) else "equivariant"


def config_from(
    variant: str, tensors: Tensors, metadata: Mapping[str, Any], overrides: Mapping[str, Any]
) -> ForceFieldConfig:
    """The network that the tensors make.

    Sizes come from shapes, and the file's own ``config`` or ``model_config`` must agree with them where it
    names them. What no shape tells comes from ``overrides``, else from the file's config, else it is the
    default; the cutoff then is where the radial functions end, if those are the published ones. Whether
    radial functions were learned is told by no published file.

    Args:
      variant: of `LAYOUTS`.
      tensors: by key; only shapes, and the values of the radial functions, are read.
      metadata: what lies beside them.
      overrides: any of `OVERRIDES`.

    Raises:
      MissingKeyError: a tensor that sizes are read from, or an interaction, is not there.
      CorruptFileError: a tensor that sizes are read from has no such axes.
      ShapeError: the file's config, or the variant, contradicts the shapes.
      AmbiguousVariantError: an override is unknown or is none of its kind, or the cutoff is told nowhere.
    """
    check_overrides(overrides, OVERRIDES)
    rows, hidden_dim = shape_of(tensors, EMBEDDING, 2)
    (num_rbf,) = shape_of(tensors, CENTERS, 1)
    layers = count_parts(tensors, "interactions")
    sizes: dict[str, Any] = {"hidden_dim": hidden_dim, "num_interactions": layers, "num_rbf": num_rbf}
    sizes |= {"max_z": rows - 1, "variant": variant, "reference_energies": REFERENCE_ENERGIES in tensors}
    _check_mixing(variant, tensors, hidden_dim)
    told: dict[str, Any] = {}
    for stored in (metadata.get(name) for name in _BESIDE):
        if isinstance(stored, Mapping):
            _check_told(stored, sizes)
            told |= {name: stored[name] for name in OVERRIDES if stored.get(name) is not None}
    told |= {name: value for name, value in overrides.items() if value is not None}
    _check_kinds(told)
    told["cutoff"] = float(told["cutoff"]) if "cutoff" in told else _cutoff_of(tensors, num_rbf)
    return ForceFieldConfig(**sizes, **told)


def same_function(left: ForceFieldConfig, right: ForceFieldConfig) -> bool:
    """Whether networks with these configs and equal parameters give equal energies.

    Example:
      >>> same_function(ForceFieldConfig(), ForceFieldConfig(learnable_rbf=True, species=(1, 6)))
      True
    """
    return _evaluated(left) == _evaluated(right)


def stored_config(config: ForceFieldConfig) -> Mapping[str, Any]:
    """What lies under ``config`` beside the tensors: the published names, and ours where they are needed.

    Example:
      >>> list(stored_config(ForceFieldConfig(variant="cartesian")))
      ['hidden_dim', 'num_interactions', 'num_rbf', 'cutoff', 'max_z', 'use_torch_cluster']
    """
    names = ("hidden_dim", "num_interactions", "num_rbf", "cutoff", "max_z")
    told = {name: getattr(config, name) for name in names} | {"use_torch_cluster": True}
    if config.learnable_rbf:
        told["learnable_rbf"] = True
    if config.variant != "cartesian":
        told |= {"variant": config.variant, "norm_epsilon": config.norm_epsilon}
    if config.reference_energies:
        told["reference_energies"] = True
    if config.species is not None:
        told["species"] = list(config.species)
    return told


def new_file(config: ForceFieldConfig) -> tuple[Layout, Mapping[str, Any]]:
    """The arrangement that the published ``save`` method gives a file, and what lies beside the tensors."""
    beside = {"config": stored_config(config), "num_parameters": config.num_parameters}
    return Layout(container="model_state_dict", beside=("model_state_dict", *beside)), beside


def overrides_for(config: ForceFieldConfig) -> Mapping[str, Any]:
    """The overrides that give this config back from a bare state dict."""
    return {name: getattr(config, name) for name in OVERRIDES}


def check_params(config: ForceFieldConfig, params: Mapping[str, Any]) -> None:
    """Refuse radial functions without a width.

    Raises:
      CorruptFileError: names the tensor and the value.
    """
    del config
    least = float(np.min(params["rbf"]["widths"].astype(np.float64)))
    if least <= 0:
        raise CorruptFileError(f"{WIDTHS!r} holds {least:g}; the widths of radial functions are positive")


def _check_mixing(variant: str, tensors: Tensors, hidden_dim: int) -> None:
    needed = (3, 3) if variant == "cartesian" else (hidden_dim, hidden_dim)
    mixing = tensors.get(MIXING.format(i=0))
    if mixing is not None and tuple(mixing.shape) != needed:
        shape = str(tuple(mixing.shape))[:80]
        raise ShapeError(f"{MIXING.format(i=0)!r} has shape {shape}; the variant {variant!r} needs {needed}")


def _check_told(stored: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse a file whose own words contradict its tensors."""
    for name, value in found.items():
        told = stored.get(name)
        if told is None or (isinstance(told, numbers.Number | str) and told == value):
            continue
        if name == "variant" and told not in get_args(Variant):
            continue  # another project's word for something else
        contradiction = f"the file's config says {name}={_short(told)}, its tensors say {value!r}"
        if name in ("num_interactions", "reference_energies") and isinstance(told, int) and told > value:
            raise MissingKeyError(f"{contradiction}; save the whole state dict")
        raise ShapeError(f"{contradiction}; correct the config, or save the whole state dict")


def _check_kinds(told: Mapping[str, Any]) -> None:
    """Refuse words that are no value of their field, before they are taken for one."""
    for name, value in told.items():
        if name == "learnable_rbf":
            fits, kind = isinstance(value, bool), "True or False"
        elif name == "species":
            listed = isinstance(value, Collection) and len(value) > 0
            fits, kind = listed and all(map(_is_whole, value)), "a list of atomic numbers such as [1, 6, 8]"
        else:
            real = isinstance(value, numbers.Real) and not isinstance(value, bool)
            fits, kind = real and math.isfinite(value), "a positive number"
        if not fits:
            raise AmbiguousVariantError(f"{name} must be {kind}, not {_short(value)}", (name,))


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _short(value: Any) -> str:
    """A value on one line, whatever a file holds there."""
    plain = value is None or isinstance(value, numbers.Number | str | list | tuple)
    return ascii(value)[:60] if plain else f"a {type(value).__name__}"


def _cutoff_of(tensors: Tensors, num_rbf: int) -> float:
    """Where the radial functions end, if they are spaced as published.

    Raises:
      AmbiguousVariantError: they are not, as after they were learned.
    """
    shape_of(tensors, WIDTHS, 1)
    centers, widths = (tensors[key].view() for key in (CENTERS, WIDTHS))
    if jnp.issubdtype(centers.dtype, jnp.floating) and centers.dtype == widths.dtype:
        end = _shortest((centers if num_rbf > 1 else widths)[-1])
        if math.isfinite(end) and end > 0:
            # Networks of float64 were cast from float32 as a rule, after the spacing was computed.
            limit = 4 * end * max(float(jnp.finfo(dtype).eps) for dtype in (centers.dtype, jnp.float32))
            spaced = np.abs(centers.astype(np.float64) - np.linspace(0.0, end, num_rbf)) <= limit
            wide = np.abs(widths.astype(np.float64) - end / num_rbf) <= limit
            if spaced.all() and wide.all():
                return end
    raise AmbiguousVariantError(
        "the file does not say the cutoff, and its radial functions are not spaced as published; "
        "give overrides={'cutoff': A} (--override cutoff=A)",
        ("cutoff",),
    )


def _shortest(value: Any) -> float:
    """The number of fewest digits that is stored as this one: 4.2, not 4.199999809."""
    if value.dtype == np.float64:
        with np.errstate(over="ignore", under="ignore"):
            narrow = value.astype(np.float32)
        value = narrow if narrow == value else value
    return float(str(value))


def _evaluated(config: ForceFieldConfig) -> ForceFieldConfig:
    """The config with one value for each field that no output depends on."""
    idle: dict[str, Any] = {"learnable_rbf": False, "species": None}
    if config.variant == "cartesian":
        idle["norm_epsilon"] = 1.0
    return dataclasses.replace(config, **idle)


def _build(config: ForceFieldConfig) -> Any:
    from sparsejax.models.force_field.model import StudentForceField  # a file of another family needs none

    return StudentForceField(config)


def _example_inputs(config: ForceFieldConfig) -> tuple[Any, ...]:
    from sparsejax.models.force_field.inputs import example_graph

    return (example_graph(config),)


def _check_inputs(config: ForceFieldConfig, *inputs: Any, **options: Any) -> None:
    from sparsejax.models.force_field.inputs import check_inputs

    check_inputs(config, *inputs, **options)


def _evaluate(ck: Any, inputs: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    from sparsejax.models.force_field.reference import evaluate

    return evaluate(ck, inputs)


def _report(ck: Any) -> Sequence[Any]:
    from sparsejax.models.force_field.soundness import soundness_report

    return soundness_report(ck)


register(
    Family(
        kind="force_field",
        layouts=LAYOUTS,
        detect=detect,
        config_from=config_from,
        rules=rules,
        stored_config=stored_config,
        overrides_for=overrides_for,
        same_function=same_function,
        build=_build,
        example_inputs=_example_inputs,
        config_to_json=ForceFieldConfig.to_json,
        config_from_json=ForceFieldConfig.from_json,
        check_params=check_params,
        check_inputs=_check_inputs,
        evaluate=_evaluate,
        outputs=("energy", "forces", "stress", "outputs"),
        report=_report,
        new_file=new_file,
        pruned=pruned,
    )
)
