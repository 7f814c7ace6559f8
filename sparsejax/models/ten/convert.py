"""Files of the family: which published network they hold, and the config that their shapes tell."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.checkpoint.accepted_names import check_overrides
from sparsejax.checkpoint.container import same_tensor
from sparsejax.checkpoint.errors import (
    AmbiguousVariantError,
    MissingKeyError,
    UnknownFormatError,
)
from sparsejax.checkpoint.reference_arrays import TOKEN_NAMES, named
from sparsejax.checkpoint.registry import Family, Tensors, register
from sparsejax.checkpoint.sizes import count_parts, require, shape_of
from sparsejax.models.ten.config import EigenstateLayer, TemporalEigenstateConfig
from sparsejax.models.ten.inputs import check_inputs
from sparsejax.models.ten.layouts import (
    CELL_KEYS,
    LAYOUTS,
    LEGACY,
    PUBLISHED,
    STACKS,
    StackLayout,
    rules,
    token_table,
)

OVERRIDES = (
    "attention_window",
    "context_threshold",
    "chunk_size",
    "eigenvalue_clip",
    "resonance_epsilon",
    "tie_weights",
    "n_heads",
)
"""Config fields that no tensor tells; a file's own ``config`` may."""

_TOLD = (*OVERRIDES, "dropout", "energy_reg_weight")
_MULTISCALE = re.compile(r"blocks\.\d+\.(?:scale_weights|scale_blocks|upsample_projs)(?:\..+)?")
_REFUSED = {
    "hten": "blocks of several time scales (HTEN) are recognised, but not modelled here; evaluate the file "
    "with its own project: only single-scale blocks (blocks.{i}.cells.{c}) can be imported",
    "early": "a position table named 'pos_emb' is of the generations v1 to v2b, whose cells compute another "
    "function; evaluate the file with its own project: only 'seed' and 'paper' can be imported",
}

_LAYERS = frozenset({"layers.log_decay", "layers.in_proj.weight"})
_SHORT_STACK = frozenset({"fft_layers.log_decay", "fft_layers.in_proj.weight"})
_TELLING: tuple[tuple[str, frozenset[str]], ...] = (
    ("sequential", frozenset({"layers.eigvec_real"})),
    ("v03", _SHORT_STACK | {"tok_emb.weight"}),
    ("unified", _SHORT_STACK | {"token_emb.weight"}),
    ("hybrid", _LAYERS | {"layers.spectral_gate.band_gates.weight", "layers.attn.in_proj_weight"}),
    ("pro", _LAYERS | {"layers.spectral_gate.band_gates.weight"}),
    ("ssd", _LAYERS | {"layers.short_conv.weight"}),
    ("ssd", _LAYERS | {"layers.memory_gate"}),
    ("ssd", _LAYERS | {"layers.memory_proj.weight"}),
    (
        "selective",
        _LAYERS | {"layers.gate_proj.weight", "layers.coupling_blocks", "layers.select_proj.weight"},
    ),
    ("fft", _LAYERS | {"layers.gate_proj.weight", "layers.coupling_blocks"}),
    ("final", _LAYERS | {"layers.gate_proj.weight"}),
)
"""Keys without their numbers that make a variant; the first that fits is taken."""


def detect(tensors: Tensors, metadata: Mapping[str, Any]) -> str | tuple[str, ...] | None:
    """The variant whose telling keys are there; None for files of other families.

    Chunked networks have the keys of ``fft`` and are taken for it: both are meant to compute the same. So is
    an ``ssd`` network of one layer without a convolution.

    Returns:
      a variant; ``("seed", "paper")`` where only ``variant=`` can tell; "hten" or "early" for generations
      that `config_from` refuses.
    """
    del metadata
    if refused := _refused_generation(tensors):
        return refused
    names = {re.sub(r"\.\d+(?=\.|$)", "", key) for key in tensors}  # layers.0.mlp.2.bias: layers.mlp.bias
    if "blocks.cells.alpha_raw" in names:
        return PUBLISHED
    return next((variant for variant, telling in _TELLING if telling <= names), None)


def config_from(
    variant: str, tensors: Tensors, metadata: Mapping[str, Any], overrides: Mapping[str, Any]
) -> TemporalEigenstateConfig:
    """The network that the tensors make.

    Sizes come from shapes, whatever a ``config`` beside the tensors says, except that the file must hold
    every layer that its config counts. What no shape tells comes from ``overrides``, else from the file's
    config, else it is the published default.

    Args:
      variant: of `LAYOUTS`.
      tensors: by key; only shapes are read.
      metadata: what lies beside them.
      overrides: any of `OVERRIDES`.

    Raises:
      MissingKeyError: a tensor that makes the variant, or a layer, is not there.
      CorruptFileError: a tensor that sizes are read from has no such axes.
      AmbiguousVariantError: an override is unknown, or contradicts the tensors.
      UnknownFormatError: the generation is not modelled.
    """
    check_overrides(overrides, OVERRIDES)
    if refused := _refused_generation(tensors):
        raise UnknownFormatError(_REFUSED[refused])
    require(tensors, (pattern.format(i=0, h=0, c=0) for pattern in LAYOUTS[variant]))
    stored = metadata.get("config")
    stored = stored if isinstance(stored, Mapping) else {}
    told = {name: stored[name] for name in _TOLD if stored.get(name) is not None} | dict(overrides)
    read = _published_fields if variant in PUBLISHED else _modern_fields
    sizes = read(variant, tensors, told)
    _check_layers(stored.get("n_layers"), sizes["n_layers"])
    _check_heads(overrides.get("n_heads"), sizes.get("n_heads"))
    told.pop("attention_window", None)  # of a layer, not of the network
    return TemporalEigenstateConfig(**{"dropout": 0.0, "init": "legacy", **told, **sizes})


def same_function(left: TemporalEigenstateConfig, right: TemporalEigenstateConfig) -> bool:
    """Whether networks with these configs and equal parameters give equal outputs.

    Example:
      >>> config = TemporalEigenstateConfig()
      >>> same_function(config, dataclasses.replace(config, init="legacy", dropout=0.5))
      True
    """
    return _evaluated(left) == _evaluated(right)


def stored_config(config: TemporalEigenstateConfig) -> Mapping[str, Any]:
    """What the published trainers, or we, put under ``config`` beside the tensors."""
    sizes = {"d_model": config.dim, "n_layers": config.n_layers, "num_eigenstates": config.num_eigenstates}
    told = {"max_seq_len": config.max_seq_len, **overrides_for(config)}
    if config.variant == "modern":
        return {**sizes, **told}
    training = {"use_hten": False, "energy_reg_weight": config.energy_reg_weight}
    return {**sizes, "num_cells": config.num_cells, **told, **training}


def overrides_for(config: TemporalEigenstateConfig) -> Mapping[str, Any]:
    """The overrides that give this config back from a file that holds tensors only."""
    told: dict[str, Any] = {"chunk_size": config.layer.anticausal_chunk or config.chunk_size}
    if config.variant != "modern":
        fields = ("eigenvalue_clip", "resonance_epsilon", "tie_weights")
        return told | {name: getattr(config, name) for name in fields}
    told |= {"n_heads": config.n_heads, "attention_window": config.layer.attention_window}
    return told | ({"context_threshold": config.context_threshold} if config.long_layer else {})


def evaluate(ck: Any, inputs: Mapping[str, Any]) -> jax.Array:
    """Logits on a reference's tokens (b, t), with ``segment_ids`` if there are any.

    Args:
      ck: checkpoint of the family.
      inputs: an array named as one of `TOKEN_NAMES`.

    Raises:
      MissingKeyError: there are no tokens.
    """
    return ck.apply(named(inputs, TOKEN_NAMES), segment_ids=inputs.get("segment_ids")).logits


def _modern_fields(variant: str, tensors: Tensors, told: Mapping[str, Any]) -> dict[str, Any]:
    if not told.get("tie_weights", True):
        raise AmbiguousVariantError(f"tie_weights=False: the variant {variant!r} always ties its head")
    stacks = STACKS.get(variant, (StackLayout(),))
    first = stacks[0]
    vocab_size, dim = shape_of(tensors, token_table(variant), 2)
    max_seq_len, _ = shape_of(tensors, "pos_emb.weight", 2)
    name = "alpha" if variant == "sequential" else "log_decay"
    (num_eigenstates,) = shape_of(tensors, first.key(name), 1)
    hidden, _ = shape_of(tensors, first.key("mlp.0.weight"), 2)
    fields: dict[str, Any] = {
        "vocab_size": vocab_size,
        "dim": dim,
        "max_seq_len": max_seq_len,
        "num_eigenstates": num_eigenstates,
        "n_layers": max(count_parts(tensors, stack.stem) for stack in stacks),
        "ffn_multiplier": _multiplier(hidden, dim),
        "variant": "modern",
        "use_gradient_checkpointing": False,
        "tie_weights": True,
    }
    if variant == "sequential":
        layer = EigenstateLayer(projection="eigenvectors", coupling="scaled", gate=False, activation="gelu")
        return fields | {"layer": layer}
    layers = [_layer(variant, tensors, stack, told) for stack in stacks]
    fields |= {"layer": layers[0], "long_layer": layers[1] if len(layers) > 1 else None}
    if layers[0].coupling == "blocks":
        parts = [
            stack.key(stack.coupling, n) for stack in stacks for n in range(count_parts(tensors, stack.stem))
        ]
        fields["n_heads"] = heads = max(count_parts(tensors, part) for part in parts)
        require(tensors, (f"{part}.{head}" for part in parts for head in range(heads)))
    return fields


def _layer(variant: str, tensors: Tensors, stack: StackLayout, told: Mapping[str, Any]) -> EigenstateLayer:
    def having(*names: str) -> tuple[int, ...]:
        numbers = range(count_parts(tensors, stack.stem))
        return tuple(n for n in numbers if any(stack.key(name, n) in tensors for name in names))

    fields: dict[str, Any] = {}
    if stack.bands:
        fields["band_gates"] = shape_of(tensors, stack.key(f"{stack.bands}.weight"), 2)[0]
    if stack.convolution and having(f"{stack.convolution}.weight", f"{stack.convolution}.bias"):
        fields["short_conv"] = shape_of(tensors, stack.key(f"{stack.convolution}.weight"), 3)[2]
    if stack.attention:
        fields["attention_layers"] = having("attn.in_proj_weight", "attn_norm.weight")
        fields["attention_window"] = told.get("attention_window", EigenstateLayer.attention_window)
    if stack.memory:
        fields["memory"] = bool(having(f"{stack.memory}_gate", f"{stack.memory}_proj.weight"))
    if stack.selection:
        fields["selective"] = bool(having("select_proj.weight", "select_proj.bias"))
    if variant == "final":
        blocks = f"{stack.coupling}.0"
        fields["coupling"] = "blocks" if having(blocks) else "full" if having("coupling") else "none"
    if variant in LEGACY:
        fields["anticausal_chunk"] = told.get("chunk_size", TemporalEigenstateConfig.chunk_size)
    return EigenstateLayer(**fields)


def _published_fields(variant: str, tensors: Tensors, told: Mapping[str, Any]) -> dict[str, Any]:
    vocab_size, dim = shape_of(tensors, "token_emb.weight", 2)
    sinusoidal = "pos_emb.pe" in tensors
    table = (
        shape_of(tensors, "pos_emb.pe", 3)[1:] if sinusoidal else shape_of(tensors, "pos_emb.emb.weight", 2)
    )
    (num_eigenstates,) = shape_of(tensors, "blocks.0.cells.0.alpha_raw", 1)
    hidden, _ = shape_of(tensors, "blocks.0.ffn1.weight", 2)
    n_layers, num_cells = count_parts(tensors, "blocks"), count_parts(tensors, "blocks.0.cells")
    cells = [f"blocks.{block}.cells.{cell}" for block in range(n_layers) for cell in range(num_cells)]
    resonance = "blocks.0.cells.0.resonance_M" in tensors
    names = (*CELL_KEYS, "resonance_M") if resonance else CELL_KEYS
    require(tensors, (f"{stem}.{name}" for stem in cells for name in names))
    tied = told.get("tie_weights", same_tensor(tensors["output.weight"], tensors["token_emb.weight"]))
    if not isinstance(tied, bool):
        raise AmbiguousVariantError(f"tie_weights must be True or False, not {tied!r}", ("tie_weights",))
    return {
        "vocab_size": vocab_size,
        "dim": dim,
        "max_seq_len": table[0],
        "num_eigenstates": num_eigenstates,
        "n_layers": n_layers,
        "num_cells": num_cells,
        "use_resonance": resonance,
        "ffn_multiplier": _multiplier(hidden, dim),
        "pos_emb_type": "sinusoidal" if sinusoidal else "learned",
        "tie_weights": tied,
        "variant": variant,
    }


def _refused_generation(tensors: Tensors) -> str | None:
    if any(_MULTISCALE.fullmatch(key) for key in tensors):
        return "hten"
    if "pos_emb" in tensors and any(key.startswith("blocks.") for key in tensors):
        return "early"
    return None


def _check_layers(told: Any, found: int) -> None:
    if isinstance(told, int) and told > found:
        raise MissingKeyError(
            f"the file's config counts {told} layers, its tensors are of {found}; save the whole state dict"
        )


def _check_heads(given: Any, found: int | None) -> None:
    if None not in (given, found) and given != found:
        raise AmbiguousVariantError(f"n_heads={given!r} contradicts the {found} coupling blocks per layer")


def _multiplier(hidden: int, dim: int) -> float:
    """The ratio that gives ``hidden`` again when its product with ``dim`` is cut to an integer."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def _evaluated(config: TemporalEigenstateConfig) -> TemporalEigenstateConfig:
    """The config with one value for each field that no output depends on."""
    idle: dict[str, Any] = {
        "dropout": 0.0,
        "chunk_size": 1,
        "use_gradient_checkpointing": False,
        "energy_reg_weight": 0.0,
        "init": "legacy",
        "truncate_at_chunks": False,
        "ffn_multiplier": _multiplier(config.ffn_size, config.dim),
    }
    if config.pos_emb_type == "none":
        idle["max_seq_len"] = 1
    if config.variant != "modern":
        idle |= {"n_heads": 1, "layer": EigenstateLayer(), "context_threshold": 1}
        idle |= {} if config.use_resonance else {"resonance_epsilon": 0.0}
        return dataclasses.replace(config, **idle)
    idle |= {"num_cells": 1, "use_resonance": False, "resonance_epsilon": 0.0, "eigenvalue_clip": 1.0}
    if not any(layer.coupling == "blocks" or layer.attention_layers for layer in config.stacks):
        idle["n_heads"] = 1
    if config.long_layer is None:
        idle["context_threshold"] = 1
    else:
        idle["long_layer"] = _evaluated_layer(config.long_layer, config.n_layers)
    return dataclasses.replace(config, layer=_evaluated_layer(config.layer, config.n_layers), **idle)


def _evaluated_layer(layer: EigenstateLayer, n_layers: int) -> EigenstateLayer:
    window = layer.attention_window if layer.attention_layers else 1
    return dataclasses.replace(layer, attention_window=window, memory=layer.memory and n_layers > 1)


def _build(config: TemporalEigenstateConfig) -> Any:
    from sparsejax.models.ten.model import TemporalEigenstateNetwork  # a file of another family needs none

    return TemporalEigenstateNetwork(config)


def _example_inputs(config: TemporalEigenstateConfig) -> tuple[Any, ...]:
    del config
    return (jnp.zeros((1, 1), jnp.int32),)


register(
    Family(
        kind="ten",
        layouts=LAYOUTS,
        detect=detect,
        config_from=config_from,
        rules=rules,
        stored_config=stored_config,
        overrides_for=overrides_for,
        same_function=same_function,
        build=_build,
        example_inputs=_example_inputs,
        config_to_json=TemporalEigenstateConfig.to_json,
        config_from_json=TemporalEigenstateConfig.from_json,
        check_inputs=check_inputs,
        evaluate=evaluate,
    )
)
