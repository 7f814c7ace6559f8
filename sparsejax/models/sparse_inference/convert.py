"""Files of the family: GGUF networks; published FFNs, predictors, matrices in JSON; PowerInfer's ``.pt``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sparsejax.checkpoint.accepted_names import check_overrides
from sparsejax.checkpoint.container import Layout
from sparsejax.checkpoint.errors import (
    AmbiguousVariantError,
    CorruptFileError,
    MissingKeyError,
    ShapeError,
    UnsupportedTensorError,
    shown,
)
from sparsejax.checkpoint.registry import Family, Tensors, register
from sparsejax.checkpoint.sizes import require, shape_of
from sparsejax.models.sparse_inference import parts
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.layouts import (
    FILE_FORMATS,
    GGUF,
    LAYOUTS,
    PUBLISHED_ACTIVATIONS,
    rules,
)
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.metadata import llama_config, llama_metadata
from sparsejax.models.sparse_inference.llama.names import tensor_places
from sparsejax.models.sparse_inference.part_configs import FFNConfig, ScorerConfig, WeightsConfig
from sparsejax.ops.quantized import FORMATS

_SPARSITY_FIELDS = ("threshold", "top_k", "target_sparsity", "adaptive_threshold")


def detect(tensors: Tensors, metadata: Mapping[str, Any]) -> str | None:
    """The variant whose telling keys are there; None for files of other families."""
    if "general.architecture" in metadata:
        return GGUF  # whether the architecture is one of ours, `config_from` tells by name
    keys = set(tensors)
    if {"w1", "w2_t"} <= keys:
        return "ffn_v2"
    activation = metadata.get("activation")
    if {"w1", "w2"} <= keys and isinstance(activation, str) and activation in PUBLISHED_ACTIVATIONS:
        return "ffn_v1"
    if keys == {"fc1.weight", "fc2.weight"}:
        return "powerinfer"
    telling = {"predictor": {"p_matrix", "q_matrix"}, "quantized_weights": {"data", "scales", "zero_points"}}
    return next((variant for variant, needed in telling.items() if needed <= keys), None)


def config_from(
    variant: str,
    tensors: Mapping[str, Any],
    metadata: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> Any:
    """What the tensors and the metadata of a file make.

    Args:
      variant: of `LAYOUTS`.
      tensors: by key, of a file or about to be written; only shapes and formats are read.
      metadata: what lies beside them.
      overrides: ``activation`` of an FFN, ``threshold`` of a PowerInfer predictor, which files may not tell.

    Returns:
      `LlamaConfig`, `FFNConfig`, `ScorerConfig` or `WeightsConfig`.

    Raises:
      CheckpointError: a subclass that names what is missing, unknown or contradicts itself.
    """
    known = {"ffn_v1": ("activation",), "ffn_v2": ("activation",), "powerinfer": ("threshold",)}.get(
        variant, ()
    )
    check_overrides(overrides, known)
    if variant == GGUF:
        return llama_config(metadata, _described(tensors))
    require(tensors, LAYOUTS[variant])
    if variant.startswith("ffn"):
        return _ffn_config(variant, tensors, metadata, overrides)
    if variant == "quantized_weights":
        return _weights_config(tensors, metadata)
    return _scorer_config(variant, tensors, metadata, overrides)


def beside(variant: str, config: Any) -> Mapping[str, Any]:
    """What a file of the variant says beside its tensors."""
    if isinstance(config, LlamaConfig):
        return llama_metadata(config)
    if isinstance(config, FFNConfig):
        names = {ours: published for published, ours in reversed(PUBLISHED_ACTIVATIONS.items())}
        published = names.get(config.activation)
        told = {"activation": published} if published else {}
        return told | ({"output_dim": config.d_out} if variant == "ffn_v2" else {})
    if isinstance(config, WeightsConfig):
        return {"group_size": config.group_size, "bits": config.bits}
    if variant == "predictor":
        return {"config": config.sparsity.to_json()}
    return {}


def overrides_for(config: Any) -> Mapping[str, Any]:
    """The overrides that give this config back from a file that holds tensors only."""
    if isinstance(config, ScorerConfig) and config.hidden_activation is not None:
        return {"threshold": config.sparsity.threshold}
    return {}


def same_function(left: Any, right: Any) -> bool:
    """Whether models with these configs compute the same from equal parameters.

    In what format weights are kept, the parameters say themselves.
    """
    if isinstance(left, LlamaConfig) and isinstance(right, LlamaConfig):
        return parts.without_formats(left) == parts.without_formats(right)
    return left == right


def new_file(config: Any) -> tuple[Layout, Mapping[str, Any]]:
    """Layout and metadata of the file of a model that came from none."""
    if isinstance(config, LlamaConfig):
        keys = tuple(place.name for place in tensor_places(config))
        return Layout("gguf", keys=keys), llama_metadata(config)
    if isinstance(config, FFNConfig):
        return Layout("json", keys=("w1", "w2", "w2_t", "b1", "b2")), beside("ffn_v1", config)
    if isinstance(config, WeightsConfig):
        lists = ["data", "scales", "zero_points", "shape"]
        return Layout("json", keys=tuple(lists[:3]), details={"lists": lists}), beside(
            "quantized_weights", config
        )
    if config.hidden_activation is not None:
        return Layout("zip", keys=("fc1.weight", "fc2.weight")), {}
    return Layout("json", keys=("p_matrix", "q_matrix", "bias")), beside("predictor", config)


def check_params(config: Any, params: Mapping[str, Any]) -> None:
    """Refuse codes that the config cannot have; the rest is in the shapes."""
    if isinstance(config, WeightsConfig) and config.bits == 4 and config.shape[0] * config.shape[1] % 2:
        if int(params["data"][-1]) > 15:
            raise CorruptFileError("the last byte of 'data' holds a code for an element that is not there")


# What files of one variant say


class _Described(NamedTuple):
    shape: tuple[int, ...]
    format: str


def _described(tensors: Mapping[str, Any]) -> dict[str, _Described]:
    """Shapes and formats, of the tensors of a file as of those that are about to be written."""
    found = {}
    for name, tensor in tensors.items():
        kind = getattr(tensor, "format", None) or np.dtype(tensor.dtype).name
        kind = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}.get(kind, kind)
        if kind not in FORMATS:
            raise UnsupportedTensorError(
                f"tensor {name!r} holds {kind} numbers; weights are one of {tuple(FORMATS)}"
            )
        found[name] = _Described(tuple(int(size) for size in tensor.shape), kind)
    return found


def _ffn_config(
    variant: str, tensors: Tensors, metadata: Mapping[str, Any], overrides: Mapping[str, Any]
) -> FFNConfig:
    d_ff, d_model = shape_of(tensors, "w1", 2)
    d_out, columns = shape_of(tensors, "w2" if variant == "ffn_v1" else "w2_t", 2)
    if columns != d_ff:
        raise ShapeError(
            f"{'w2' if variant == 'ffn_v1' else 'w2_t'!r} has shape {(d_out, columns)}; {d_ff} columns are "
            "needed, one for each row of 'w1'"
        )
    told = metadata.get("output_dim")
    if variant == "ffn_v2" and told is None:
        raise MissingKeyError("'output_dim' is missing; it lies beside the matrices in files of this layout")
    if told is not None and (type(told) is not int or told != d_out):
        raise ShapeError(f"'output_dim' is {str(told)[:80]}, the second matrix has {d_out} rows")
    activation = overrides.get("activation", metadata.get("activation"))
    if not isinstance(activation, str) or activation not in PUBLISHED_ACTIVATIONS:
        raise AmbiguousVariantError(
            f"activation {str(activation)[:80]!r} is none of {shown(PUBLISHED_ACTIVATIONS)}; give overrides="
            '{"activation": ...} (--override activation=NAME)',
            tuple(PUBLISHED_ACTIVATIONS),
        )
    return FFNConfig(d_model, d_ff, d_out, PUBLISHED_ACTIVATIONS[activation])


def _scorer_config(
    variant: str, tensors: Tensors, metadata: Mapping[str, Any], overrides: Mapping[str, Any]
) -> ScorerConfig:
    first, second = LAYOUTS[variant]
    rank, d_model = shape_of(tensors, first, 2)
    d_ff, columns = shape_of(tensors, second, 2)
    if columns != rank:
        raise ShapeError(f"{second!r} has {columns} columns, {first!r} has {rank} rows; both are the rank")
    if variant == "powerinfer":
        stored = metadata.get("config")
        stored = stored if isinstance(stored, Mapping) else {}
        threshold = overrides.get("threshold", stored.get("sparse_threshold", 0.0))
        low = isinstance(threshold, int | float) and threshold < 0
        sparsity = _sparsity({"threshold": threshold, "adaptive_threshold": low})
        return ScorerConfig(d_model, d_ff, rank, "relu", False, sparsity)
    told = metadata.get("config")
    if not isinstance(told, Mapping):
        raise MissingKeyError(
            "'config' is missing: it says how scores choose neurons; save the whole predictor"
        )
    return ScorerConfig(d_model, d_ff, rank, None, "bias" in tensors, _sparsity(told))


def _sparsity(told: Mapping[str, Any]) -> SparsityConfig:
    fields = {name: told[name] for name in _SPARSITY_FIELDS if told.get(name) is not None}
    try:
        return SparsityConfig(**{"threshold": None, **fields})
    except (TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise CorruptFileError(f"'config' is no choice of neurons: {said}") from error


def _weights_config(tensors: Tensors, metadata: Mapping[str, Any]) -> WeightsConfig:
    numbers = {name: metadata.get(name) for name in ("bits", "group_size")}
    if missing := [name for name, value in numbers.items() if value is None]:
        raise MissingKeyError(f"{shown(missing)} beside the codes are missing; save the whole matrix")
    bits, group = numbers["bits"], numbers["group_size"]
    if type(bits) is not int or bits not in (4, 8) or type(group) is not int or not 1 <= group < 1 << 31:
        raise CorruptFileError(f"codes of bits={str(bits)[:40]!r} in groups of {str(group)[:40]!r}")
    shape_of(tensors, "shape", 1)
    sizes = [int(size) for size in tensors["shape"].view()]
    if len(sizes) != 2 or min(sizes) < 1:
        raise CorruptFileError(f"'shape' is {str(sizes)[:80]}; rows and columns are needed")
    (codes,) = shape_of(tensors, "data", 1)
    if sizes[0] * sizes[1] > codes * 8 // bits:
        raise CorruptFileError(f"{codes} bytes of codes are too few for the shape {sizes}")
    return WeightsConfig((sizes[0], sizes[1]), bits, group)


register(
    Family(
        kind="sparse_inference",
        layouts=LAYOUTS,
        detect=detect,
        config_from=config_from,
        rules=rules,
        beside=beside,
        overrides_for=overrides_for,
        same_function=same_function,
        build=parts.build,
        example_inputs=parts.example_inputs,
        shapes=parts.shapes,
        config_to_json=parts.config_to_json,
        config_from_json=parts.config_from_json,
        check_params=check_params,
        check_inputs=parts.check_inputs,
        evaluate=parts.evaluate,
        outputs=("outputs", "output", "logits", "logits_transformers", "scores"),
        file_formats=FILE_FORMATS,
        reads=("zip", "legacy", "gguf", "json"),
        new_file=new_file,
    )
)
