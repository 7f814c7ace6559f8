"""The kinds of models that a checkpoint of the family may be, each with its module and its inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.accepted_names import check_options
from sparsejax.checkpoint.errors import CorruptFileError
from sparsejax.checkpoint.reference_arrays import FEATURE_NAMES, TOKEN_NAMES, named
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.state import check_state
from sparsejax.models.sparse_inference.part_configs import FFNConfig, ScorerConfig, WeightsConfig
from sparsejax.ops.token_ids import check_token_ids

CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig,
    "ffn": FFNConfig,
    "predictor": ScorerConfig,
    "weights": WeightsConfig,
}
"""Configs by the name that a checkpoint directory has for them."""

_OPTIONS: Mapping[type, tuple[str, ...]] = {
    LlamaConfig: (
        "state",
        "counts",
        "capacity",
        "predictors",
        "active_fraction",
        "sparsity",
        "plan",
        "fitted",
        "method",
    ),
    FFNConfig: ("scores", "predictor", "indices", "sparsity", "strict"),
}


def build(config: Any) -> Any:
    """The module of a config."""
    if isinstance(config, LlamaConfig):
        from sparsejax.models.sparse_inference.llama.model import (
            LlamaLM,  # a file of another family needs none
        )

        return LlamaLM(config)
    if isinstance(config, FFNConfig):
        from sparsejax.models.sparse_inference.ffn.module import SparseFFN

        return SparseFFN(config.d_model, config.d_ff, config.d_out, activation=config.activation)
    from sparsejax.models.sparse_inference.part_modules import AffineMatrix, Scorer

    return Scorer(config) if isinstance(config, ScorerConfig) else AffineMatrix(config)


def example_inputs(config: Any) -> tuple[Any, ...]:
    """Inputs that make the module's parameters."""
    if isinstance(config, LlamaConfig):
        return (jnp.zeros((1, 1), jnp.int32),)
    return (jnp.zeros((_width(config),)),)


def shapes(config: Any) -> dict[str, Any] | None:
    """Shapes of the parameters of a network, whose module takes long to trace; None of other parts."""
    if not isinstance(config, LlamaConfig):
        return None
    from sparsejax.models.sparse_inference.llama.weights import llama_shapes

    return llama_shapes(config)


def config_to_json(config: Any) -> dict[str, Any]:
    """Plain values, with the kind of the config among them."""
    name = next(name for name, kind in CONFIGS.items() if isinstance(config, kind))
    return {"part": name, **config.to_json()}


def config_from_json(document: Mapping[str, Any]) -> Any:
    """The inverse of `config_to_json`.

    Raises:
      CorruptFileError: it is none.
    """
    fields = dict(document)
    kind = CONFIGS.get(fields.pop("part", None))
    if kind is None:
        raise CorruptFileError("the config does not say which part it is of; convert the file again")
    try:
        return kind.from_json(fields)
    except (TypeError, ValueError, KeyError) as error:
        raise CorruptFileError(f"the config is none of {kind.__name__}: {error}") from error


def without_formats(config: LlamaConfig) -> LlamaConfig:
    """The config with all weights plain."""
    return dataclasses.replace(config, formats=())


def check_inputs(config: Any, *inputs: Any, **options: Any) -> None:
    """Refuse inputs of a shape or type that the module cannot take.

    Raises:
      ValueError: says what is needed.
    """
    if len(inputs) not in ((1, 2) if isinstance(config, LlamaConfig) else (1,)):
        raise ValueError(f"one array of inputs is needed, not {len(inputs)} arguments")
    check_options(options, _OPTIONS.get(type(config), ()))
    if isinstance(config, LlamaConfig):
        check_token_ids(inputs[0], config.vocab_size)
        state = inputs[1] if len(inputs) > 1 else options.get("state")
        if state is not None:
            check_state(config, state, *inputs[0].shape)
        return
    (first,) = inputs
    if not isinstance(first, np.ndarray | jax.Array) or not jnp.issubdtype(first.dtype, jnp.floating):
        raise ValueError("inputs must be an array of floating numbers (..., d)")
    if not first.ndim or first.shape[-1] != _width(config):
        raise ValueError(f"inputs of shape {first.shape} do not fit: (..., {_width(config)}) is needed")


def evaluate(ck: Any, inputs: Mapping[str, Any]) -> jax.Array:
    """Outputs on a reference's tokens of a network, or features of a part.

    Args:
      ck: checkpoint of the family.
      inputs: an array named as one of `TOKEN_NAMES`, or of `FEATURE_NAMES`.

    Raises:
      MissingKeyError: there are none.
    """
    is_network = isinstance(ck.config, LlamaConfig)
    values = jnp.asarray(named(inputs, TOKEN_NAMES if is_network else FEATURE_NAMES))
    if not is_network:
        return ck.apply(values)
    logits = ck.apply(jnp.atleast_2d(values), capacity=0).logits
    return logits if values.ndim > 1 else logits[0]


def _width(config: Any) -> int:
    return config.shape[1] if isinstance(config, WeightsConfig) else config.d_model
