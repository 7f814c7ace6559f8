"""Files of the family: which published version they hold, and the config that their shapes tell."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.checkpoint.accepted_names import check_overrides
from sparsejax.checkpoint.container import Layout
from sparsejax.checkpoint.errors import (
    AmbiguousVariantError,
    CorruptFileError,
    MissingKeyError,
    UnknownFormatError,
)
from sparsejax.checkpoint.registry import Family, Tensors, register
from sparsejax.checkpoint.sizes import count_parts, require, shape_of
from sparsejax.checkpoint.verification import Check
from sparsejax.models.sprout.config import DeepSets, SproutConfig, SproutFFNConfig
from sparsejax.models.sprout.inputs import check_inputs, reference_call
from sparsejax.models.sprout.layouts import DEEP_SETS, FFN_KEYS, LAYOUTS, router_kind, rules

Config = SproutConfig | SproutFFNConfig

OVERRIDES = ("sparse_k", "dropout", "block_size", "activation")
"""Config fields that no tensor tells; a file's own ``args`` or ``config`` may."""

MODEL_OVERRIDES = (*OVERRIDES, "n_heads", "gradient_checkpointing", "max_len", "max_seq_len")
"""Those of a whole model. The rows of the position table tell ``max_len``; an override must agree."""

_BESIDE = ("args", "config")  # the published trainer's arguments, and what `stored_config` gives
_TABLE = "token_embedding.weight"
_LAYER = re.compile(r"layers\.(?:0|[1-9][0-9]{0,8})\.ffn\.")
_NEURON = re.compile(r"(middle|output)_neurons\.(?:0|[1-9][0-9]{0,8})\.")
_DAWN = re.compile(r"shared_neurons\..+|router\.neuron_router\..+|layers\.\d+\.attn\.shared_neurons\..+")
_ORDER = ("v0", "v4c", "v4b", "v4a", "low_rank", "block", "v3", "v2", "v1")
"""Variants as `detect` tries them: a mixer with a router of this library is in that router's layout."""


def detect(tensors: Tensors, metadata: Mapping[str, Any]) -> str | None:
    """The variant whose keys are there, in a layer of a model or at the top; None for other families.

    Returns:
      a variant of `LAYOUTS`; "dawn" for files of the successor, which `config_from` refuses.
    """
    del metadata
    if any(_DAWN.fullmatch(key) for key in tensors):
        return "dawn"
    model = _is_model(tensors)
    names = {_ffn_name(key) for key in tensors if not model or _LAYER.match(key)}
    return next(
        (variant for variant in _ORDER if {_ffn_name(key) for key in FFN_KEYS[variant]} <= names), None
    )


def config_from(
    variant: str, tensors: Tensors, metadata: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Config:
    """The model, or feed-forward part, that the tensors make.

    Sizes come from shapes. What no shape tells comes from ``overrides``, else from the ``args`` or ``config``
    beside the tensors, else it is the published default; the number of attention heads has none.

    Args:
      variant: of `LAYOUTS`.
      tensors: by key; only shapes are read.
      metadata: what lies beside them.
      overrides: any of `MODEL_OVERRIDES`, or of `OVERRIDES` for a feed-forward part on its own.

    Raises:
      MissingKeyError: a tensor that makes the variant, or a layer, is not there.
      CorruptFileError: a tensor that sizes are read from has no such axes.
      AmbiguousVariantError: ``n_heads`` is told nowhere; an override is unknown or contradicts the tensors.
      UnknownFormatError: the file is of the successor family.
    """
    if variant not in LAYOUTS:
        raise UnknownFormatError(
            "a file of DAWN, the successor of SPROUT, whose layers share their neurons: it is recognised, "
            "but not modelled here; evaluate it with its own project"
        )
    model = _is_model(tensors)
    known = MODEL_OVERRIDES if model else OVERRIDES
    check_overrides(overrides, known)
    told = {name: value for name, value in (_stored(metadata) | dict(overrides)).items() if name in known}
    told = {name: value for name, value in told.items() if value is not None}
    fields = _ffn_fields(variant, tensors, "layers.0.ffn." if model else "", told)
    if not model:
        return SproutFFNConfig(**fields)
    vocab_size, d_model = shape_of(tensors, _TABLE, 2)
    max_len, _ = shape_of(tensors, "position_embedding.weight", 2)
    _check_max_len(overrides, max_len)
    if "n_heads" not in told:
        raise AmbiguousVariantError(
            "no tensor tells the number of attention heads, nor do args or config beside them; "
            f"give overrides={{'n_heads': N}} (--override n_heads=N), a divisor of {d_model}",
            ("n_heads",),
        )
    return SproutConfig(
        **fields,
        vocab_size=vocab_size,
        max_len=max_len,
        n_layers=count_parts(tensors, "layers"),
        n_heads=told["n_heads"],
        gradient_checkpointing=bool(told.get("gradient_checkpointing", False)),
    )


def same_function(left: Config, right: Config) -> bool:
    """Whether networks with these configs and equal parameters give equal outputs.

    Example:
      >>> same_function(SproutConfig(), SproutConfig(dropout=0.0, router_init="random"))
      True
    """
    return _evaluated(left) == _evaluated(right)


def stored_config(config: Config) -> Mapping[str, Any]:
    """What lies under ``config`` beside the tensors, by the names of the published constructor."""
    sizes = {"d_model": config.d_model, "d_ff": config.d_ff}
    if isinstance(config, SproutFFNConfig):
        return {**sizes, "activation": config.activation, **overrides_for(config)}
    names = ("vocab_size", "n_layers", "max_len", "activation")
    return {**sizes, **{name: getattr(config, name) for name in names}, **overrides_for(config)}


def new_file(config: Config) -> tuple[Layout, Mapping[str, Any]]:
    """How a new model is written: with what no tensor tells beside it. A part on its own needs nothing."""
    if isinstance(config, SproutFFNConfig):
        return Layout(), {}
    return Layout(container="model_state_dict", beside=("model_state_dict", "config")), {
        "config": stored_config(config)
    }


def overrides_for(config: Config) -> Mapping[str, Any]:
    """The overrides that give this config back from a bare state dict.

    The activation is not among them: the published versions have one only, so that a bare file of another
    would be read as another function.
    """
    names = ("sparse_k", "dropout", "block_size")
    model = ("n_heads", "gradient_checkpointing") if isinstance(config, SproutConfig) else ()
    return {name: getattr(config, name) for name in (*names, *model)}


def evaluate(ck: Any, inputs: Mapping[str, Any]) -> jax.Array:
    """Logits on a reference's ``ids``, ``input_ids`` or ``tokens``; a feed-forward part takes ``x``.

    A reference may also hold ``top_k`` and ``key_padding_mask``.

    Raises:
      MissingKeyError: there are no inputs.
    """
    values, options = reference_call(ck.config, inputs)
    outputs = ck.apply(values, **options)
    return getattr(outputs, "logits", outputs)


def _is_model(tensors: Collection[str]) -> bool:
    return _TABLE in tensors or any(_LAYER.match(key) for key in tensors)


def _ffn_name(key: str) -> str:
    """A key without its layer's and neuron's numbers: "middle_neurons.W_in"."""
    return _NEURON.sub(r"\1_neurons.", _LAYER.sub("", key)).replace(".{n}.", ".")


def _stored(metadata: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name in _BESIDE:
        if isinstance(metadata.get(name), Mapping):
            told |= metadata[name]
    return told


def _ffn_fields(variant: str, tensors: Tensors, stem: str, told: Mapping[str, Any]) -> dict[str, Any]:
    require(tensors, (stem + key.format(n=0) for key in FFN_KEYS[variant]))
    if variant == "v0":
        d_ff = count_parts(tensors, f"{stem}middle_neurons")
        (d_model,) = shape_of(tensors, f"{stem}middle_neurons.0.W_in", 1)
    else:
        name = {"v4a": "W_in", "v4b": "W_in", "v4c": "W_in.weight"}.get(variant, "W1")
        d_ff, d_model = shape_of(tensors, stem + name, 2)
    kind = router_kind(tensors, stem)
    if kind is None:
        raise MissingKeyError(f"the matrices of the router {f'{stem}router'!r} are missing; save all of them")
    fields: dict[str, Any] = {name: told[name] for name in OVERRIDES if name in told}
    fields |= {"d_model": d_model, "d_ff": d_ff, "router": kind, "use_bias": f"{stem}b1" in tensors}
    if variant == "v0":
        fields["router_init"] = "random"
    if kind == "low_rank":
        fields["router_rank"] = shape_of(tensors, f"{stem}router.W_down", 2)[0]
    if kind in ("block", "mlp_block"):
        fields["block_size"] = d_ff // shape_of(tensors, f"{stem}router.W_block", 2)[0]
    if f"{stem}manifold_mixer.phi.3.weight" in tensors:
        fields["mixer_hidden"] = shape_of(tensors, f"{stem}manifold_mixer.phi.3.weight", 2)[0]
    if variant in DEEP_SETS:
        fields["deep_sets"] = _deep_sets(variant, tensors, stem, d_model)
    return fields


def _deep_sets(variant: str, tensors: Tensors, stem: str, d_model: int) -> DeepSets:
    _, d_neuron = shape_of(tensors, f"{stem}neuron_vecs" + (".weight" if variant == "v4c" else ""), 2)
    d_hidden, reads = shape_of(tensors, f"{stem}phi.0.weight", 2)
    use_context = reads == 2 * d_neuron + 1 + d_model
    if not use_context and reads != d_neuron + 1:
        raise CorruptFileError(
            f"{stem + 'phi.0.weight'!r} reads {reads} numbers; {d_neuron + 1}, or with context "
            f"{2 * d_neuron + 1 + d_model}, are needed"
        )
    return DeepSets(d_neuron, d_hidden, use_context, normalize_sum=variant != "v4a")


def _check_max_len(overrides: Mapping[str, Any], rows: int) -> None:
    for name in ("max_len", "max_seq_len"):
        if overrides.get(name, rows) != rows:
            raise AmbiguousVariantError(
                f"{name}={overrides[name]!r} contradicts the {rows} rows of the position table", (name,)
            )


def _evaluated(config: Config) -> Config:
    """The config with one value for each field that no output depends on."""
    idle: dict[str, Any] = {"dropout": 0.0, "router_init": "w_in"}
    if config.router != "low_rank":
        idle["router_rank"] = 1
    if isinstance(config, SproutConfig):
        idle["gradient_checkpointing"] = False
    return dataclasses.replace(config, **idle)


def _build(config: Config) -> Any:
    from sparsejax.models.sprout.model import SproutFFN, SproutLM  # a file of another family needs neither

    return SproutFFN(config) if isinstance(config, SproutFFNConfig) else SproutLM(config)


def _example_inputs(config: Config) -> tuple[Any, ...]:
    if isinstance(config, SproutFFNConfig):
        return (jnp.zeros((1, config.d_model)),)
    return (jnp.zeros((1, 1), jnp.int32),)


def _config_from_json(document: Mapping[str, Any]) -> Config:
    return (SproutConfig if "vocab_size" in document else SproutFFNConfig).from_json(document)


def _report(ck: Any) -> Sequence[Check]:
    from sparsejax.models.sprout.equivalence import equivalence_report

    return equivalence_report(ck)


register(
    Family(
        kind="sprout",
        layouts=LAYOUTS,
        detect=detect,
        config_from=config_from,
        rules=rules,
        stored_config=stored_config,
        new_file=new_file,
        overrides_for=overrides_for,
        same_function=same_function,
        build=_build,
        example_inputs=_example_inputs,
        config_to_json=lambda config: config.to_json(),
        config_from_json=_config_from_json,
        check_inputs=check_inputs,
        evaluate=evaluate,
        report=_report,
    )
)
