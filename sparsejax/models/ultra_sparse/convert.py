"""The file layouts of the family: how to tell them apart, and the rules that read and write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.accepted_names import check_overrides
from sparsejax.checkpoint.errors import AmbiguousVariantError, CorruptFileError, MissingKeyError, shown
from sparsejax.checkpoint.registry import Family, Tensors, register
from sparsejax.checkpoint.rules import Rule
from sparsejax.checkpoint.sizes import shape_of
from sparsejax.checkpoint.transforms import stored_as, transpose
from sparsejax.models.ultra_sparse.config import UltraSparseConfig, dense, sparse
from sparsejax.models.ultra_sparse.fuse import Trained, fuse
from sparsejax.models.ultra_sparse.inputs import check_inputs
from sparsejax.models.ultra_sparse.model import UltraSparseNet, forward
from sparsejax.typing import Params

DEFAULT_INPUT_SIZE = 256
"""The sparse files do not say how many features there were; the family's own problem has 256."""

_index = stored_as("int64")
_MLP_KEY = re.compile(r"fc([1-9][0-9]{0,3})\.(?:weight|bias)")

_SPARSE = (
    Rule("input_indices", "layer_0/indices", _index),
    Rule("w1", "layer_0/weights"),
    Rule("b1", "layer_0/bias"),
    Rule("k", "layer_0/live", _index, optional=True),
    Rule("w2", "layer_1/kernel", transpose),
    Rule("b2", "layer_1/bias"),
)
_DENSE = (
    Rule("w1", "layer_0/kernel", transpose),
    Rule("b1", "layer_0/bias"),
    Rule("w2", "layer_1/kernel", transpose),
    Rule("b2", "layer_1/bias"),
)
_SGD = (
    Rule("hidden.weight", "layer_0/kernel", transpose),
    Rule("hidden.bias", "layer_0/bias"),
    Rule("output.weight", "layer_1/kernel", transpose),
    Rule("output.bias", "layer_1/bias"),
)

LAYOUTS: Mapping[str, Sequence[str]] = {
    "sparse": ("input_indices", "w1", "b1", "w2", "b2"),
    "dense": ("w1", "b1", "w2", "b2"),
    "library": ("indices", "W1", "b1", "W2", "b2", "input_dim", "H", "K", "output_dim"),
    "mlp": ("fc{n}.weight", "fc{n}.bias"),
    "sgd": ("hidden.weight", "hidden.bias", "output.weight", "output.bias"),
    "attention": ("attention_logits", "w1", "b1", "w2", "b2"),
    "parameter_list": ("W1.{h}", "b1", "W2", "b2"),
}
"""Keys by variant (specs/ultra_sparse.md section 2). The last two are recognised, but cannot be evaluated."""


def detect(tensors: Tensors, metadata: Mapping[str, Any]) -> str | None:
    """The variant whose telling keys are there; None for files of other families."""
    del metadata
    telling = {
        "attention": ("attention_logits", "w1"),
        "sparse": ("input_indices", "w1"),
        "library": ("indices", "W1"),
        "parameter_list": ("W1.0", "W2"),
        "mlp": ("fc1.weight", "fc1.bias"),
        "sgd": ("hidden.weight", "output.weight"),
        "dense": ("w1", "w2"),
    }
    return next((name for name, keys in telling.items() if all(key in tensors for key in keys)), None)


def config_from(
    variant: str, tensors: Tensors, metadata: Mapping[str, Any], overrides: Mapping[str, Any]
) -> UltraSparseConfig:
    """The stack that fits the tensors.

    Overrides: ``input_size`` (sparse layouts: 256 unless the file's own config says otherwise),
    ``hidden_activation`` and ``output_activation`` (tanh for the family's own layouts; must be given for
    the plain MLPs, whose files do not tell).

    Raises:
      MissingKeyError: a tensor that the shapes are read from is not there.
      AmbiguousVariantError: an override is needed, or unknown.
    """
    known = ("input_size", "hidden_activation", "output_activation")
    check_overrides(overrides, known)
    if variant in ("attention", "parameter_list"):
        raise MissingKeyError(
            f"the {variant!r} layout of the training baselines does not store which inputs were chosen; "
            "export the trained net as input_indices, w1, b1, w2, b2"
        )
    build = {"sparse": _sparse_config, "library": _library_config}.get(variant, _dense_config)
    return build(variant, tensors, metadata, overrides)


def rules(variant: str, config: UltraSparseConfig) -> tuple[Rule, ...]:
    """The conversion table of a variant."""
    if variant == "library":
        return _library_rules(config)
    if variant == "mlp":
        numbers = range(len(config.layers))
        weights = [Rule(f"fc{n + 1}.weight", f"layer_{n}/kernel", transpose) for n in numbers]
        return (*weights, *(Rule(f"fc{n + 1}.bias", f"layer_{n}/bias") for n in numbers))
    return {"sparse": _SPARSE, "dense": _DENSE, "sgd": _SGD}[variant]


def check_params(config: UltraSparseConfig, params: Params) -> None:
    """Refuse index tables and live counts that point outside of what there is.

    Raises:
      CorruptFileError: names the layer and the range found.
      AmbiguousVariantError: the first table reaches beyond the 256 inputs that are assumed where a file
        does not say how many there are.
    """
    width = config.input_size
    for number, layer in enumerate(config.layers):
        own = params[f"layer_{number}"]
        if layer.kind == "sparse" and not _within(own["indices"], width):
            if number == 0 and width == DEFAULT_INPUT_SIZE:
                _check_assumed_inputs(own["indices"])
            _check_range(f"the index table of layer {number}", own["indices"], width)
        if layer.variable_fan_in:
            _check_range(f"the live counts of layer {number}", own["live"], (layer.fan_in or 0) + 1)
        width = layer.features


def evaluate(ck: Trained, inputs: Mapping[str, Any]) -> jax.Array:
    """Outputs on a reference's inputs: ``features`` (b, i), or ``x`` as raw x or as features by its shape.

    Raises:
      MissingKeyError: neither is there.
    """
    if "features" in inputs:
        features = jnp.asarray(inputs["features"])
        check_inputs(ck.config, features)
        return forward(ck.config, ck.params, features)
    name = next((name for name in ("x", "x_f32") if name in inputs), None)
    if name is None:
        raise MissingKeyError(f"an array named 'x' or 'features' is needed; found {shown(inputs)}")
    values = jnp.asarray(inputs[name])
    if values.ndim == 2 and values.shape[-1] == ck.config.input_size:
        return forward(ck.config, ck.params, values)
    return fuse(ck)(values)


def _sparse_config(
    variant: str, tensors: Tensors, metadata: Mapping[str, Any], overrides: Mapping[str, Any]
) -> UltraSparseConfig:
    del variant
    hidden, fan_in = shape_of(tensors, "w1", 2)
    outputs, _ = shape_of(tensors, "w2", 2)
    stored = metadata.get("config")
    in_file = stored.get("input_size") if isinstance(stored, Mapping) else None
    input_size = _input_size(overrides, DEFAULT_INPUT_SIZE if in_file is None else in_file)
    first = sparse(hidden, fan_in, _hidden(overrides), variable_fan_in="k" in tensors)
    return UltraSparseConfig(input_size, (first, dense(outputs, _output(overrides))))


def _library_config(
    variant: str, tensors: Tensors, metadata: Mapping[str, Any], overrides: Mapping[str, Any]
) -> UltraSparseConfig:
    del variant, metadata
    hidden, fan_in = shape_of(tensors, "W1", 2)
    outputs, _ = shape_of(tensors, "W2", 2)
    in_file = int(tensors["input_dim"].view()) if "input_dim" in tensors else DEFAULT_INPUT_SIZE
    input_size = _input_size(overrides, in_file)
    return UltraSparseConfig(
        input_size, (sparse(hidden, fan_in, _hidden(overrides)), dense(outputs, _output(overrides)))
    )


def _dense_config(
    variant: str, tensors: Tensors, metadata: Mapping[str, Any], overrides: Mapping[str, Any]
) -> UltraSparseConfig:
    del metadata
    if variant != "dense" and not {"hidden_activation", "output_activation"} <= overrides.keys():
        raise AmbiguousVariantError(
            f"the {variant!r} layout does not say which activations follow its layers; give overrides="
            '{"hidden_activation": "tanh" or "relu", "output_activation": "tanh" or "linear"} '
            "(--override NAME=VALUE)",
            ("hidden_activation", "output_activation"),
        )
    keys = _weight_keys(variant, tensors)
    shapes = [shape_of(tensors, key, 2) for key in keys]
    input_size = _input_size(overrides, shapes[0][1])
    hidden = (dense(features, _hidden(overrides)) for features, _ in shapes[:-1])
    return UltraSparseConfig(input_size, (*hidden, dense(shapes[-1][0], _output(overrides))))


def _weight_keys(variant: str, tensors: Tensors) -> list[str]:
    if variant == "dense":
        return ["w1", "w2"]
    if variant == "sgd":
        return ["hidden.weight", "output.weight"]
    numbers = [int(found[1]) for key in tensors if (found := _MLP_KEY.fullmatch(key))]
    return [f"fc{number}.weight" for number in range(1, max(numbers, default=1) + 1)]


def _input_size(overrides: Mapping[str, Any], otherwise: Any) -> int:
    value = overrides.get("input_size", otherwise)
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise AmbiguousVariantError(
            f"input_size must be a positive whole number, not {value!r}", ("input_size",)
        )
    return int(value)


def _stored_config(config: UltraSparseConfig) -> Mapping[str, Any]:
    return {"input_size": config.input_size}


def _hidden(overrides: Mapping[str, Any]) -> Any:
    return overrides.get("hidden_activation", "tanh")


def _output(overrides: Mapping[str, Any]) -> Any:
    return overrides.get("output_activation", "tanh")


def _library_rules(config: UltraSparseConfig) -> tuple[Rule, ...]:
    sizes = {
        "input_dim": config.input_size,
        "H": config.layers[0].features,
        "K": config.layers[0].fan_in,
        "output_dim": config.output_size,
    }
    scalars = [Rule(key, derive=partial(_constant, np.array(size, np.int64))) for key, size in sizes.items()]
    return (
        *scalars,
        Rule("indices", "layer_0/indices", _index),
        Rule("W1", "layer_0/weights"),
        Rule("b1", "layer_0/bias"),
        Rule("W2", "layer_1/kernel", transpose),
        Rule("b2", "layer_1/bias"),
    )


def _constant(value: np.ndarray, state: Mapping[str, np.ndarray]) -> np.ndarray:
    del state
    return value


def _check_assumed_inputs(indices: np.ndarray) -> None:
    largest = int(np.max(indices, initial=0))
    if largest >= DEFAULT_INPUT_SIZE:
        raise AmbiguousVariantError(
            f"the index table reaches input {largest}, beyond the family's {DEFAULT_INPUT_SIZE}, and "
            f'the file does not say how many there are; give overrides={{"input_size": ...}} '
            "(--override input_size=N)",
            ("input_size",),
        )


def _within(values: np.ndarray, limit: int) -> bool:
    """Whether all integers are in [0, limit), in one pass: read as unsigned, negative ones are huge."""
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    return int(np.max(values.view(unsigned), initial=0)) < limit


def _check_range(what: str, values: np.ndarray, limit: int) -> None:
    if not _within(values, limit):
        raise CorruptFileError(
            f"{what} holds values from {np.min(values)} to {np.max(values)}; 0 to {limit - 1} are possible"
        )


def _example_inputs(config: UltraSparseConfig) -> tuple[Any, ...]:
    return (jnp.zeros((config.input_size,)),)


register(
    Family(
        kind="ultra_sparse",
        layouts=LAYOUTS,
        detect=detect,
        config_from=config_from,
        rules=rules,
        stored_config=_stored_config,
        build=UltraSparseNet,
        example_inputs=_example_inputs,
        config_to_json=UltraSparseConfig.to_json,
        config_from_json=UltraSparseConfig.from_json,
        check_params=check_params,
        check_inputs=check_inputs,
        evaluate=evaluate,
        file_formats={"library": "npz"},
    )
)
