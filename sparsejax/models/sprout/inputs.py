"""What a call may look like: inputs that cannot be right are refused before anything is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.accepted_names import check_options
from sparsejax.checkpoint.errors import shown
from sparsejax.checkpoint.reference_arrays import FEATURE_NAMES, TOKEN_NAMES, named
from sparsejax.models.sprout.config import Mixer, Path, SproutConfig, SproutFFNConfig
from sparsejax.ops.token_ids import check_token_ids

_OPTIONS = ("top_k", "path", "mixer", "train", "straight_through")
_MODEL_OPTIONS = (*_OPTIONS, "key_padding_mask", "attention_mask", "method")


def check_inputs(config: SproutConfig | SproutFFNConfig, *inputs: Any, **options: Any) -> None:
    """Refuse tokens, masks and options that this network cannot take.

    Values are looked at only where they are there: inside another ``jit`` shapes alone are checked.

    Args:
      config: of the model, or of a feed-forward part on its own.
      inputs: tokens (b, t) of integers; for a feed-forward part its inputs (*b, d) of floats.
      options: as the network takes them.

    Raises:
      ValueError: says what is needed.

    Example:
      >>> check_inputs(SproutConfig(vocab_size=5, d_model=8), np.array([[0, 4]]), top_k=3)
    """
    model = isinstance(config, SproutConfig)
    if len(inputs) != 1:
        needed = "array of tokens" if model else "array of inputs"
        raise ValueError(f"one {needed} is needed, options by name, not {len(inputs)} arrays")
    known = _MODEL_OPTIONS if model else _OPTIONS
    check_options(options, known)
    for name, choices in (("path", get_args(Path)), ("mixer", get_args(Mixer))):
        if name in options and options[name] not in choices:
            raise ValueError(f"{name}={options[name]!r} is not known; give one of {shown(choices)}")
    for name in ("train", "straight_through"):
        if not isinstance(options.get(name, False), bool):
            raise ValueError(f"{name} must be True or False, not {options[name]!r}")
    if options.get("train") and config.dropout and (model or config.mixer_hidden or config.deep_sets):
        raise ValueError(
            'train=True drops out at random and needs a key: use model.apply(..., rngs={"dropout": key})'
        )
    if not isinstance(config, SproutConfig):
        _check_features(config, inputs[0])
        _check_top_k(options.get("top_k"))
        return
    _check_tokens(config, inputs[0])
    _check_top_ks(options.get("top_k"), config.n_layers)
    _check_masks(options, inputs[0].shape)


def reference_call(
    config: SproutConfig | SproutFFNConfig, arrays: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Inputs and options that the arrays of a reference file mean, by their names.

    Args:
      config: of the model, or of a feed-forward part on its own.
      arrays: named as one of `TOKEN_NAMES` (b, t); for a feed-forward part of `FEATURE_NAMES` (*b, d).
        Optional: "top_k" () or (layers,), below 0 for None, and "key_padding_mask" (b, t).

    Raises:
      MissingKeyError: there are no inputs.

    Example:
      >>> reference_call(SproutConfig(), {"ids": np.zeros((1, 2), int), "top_k": np.array(8)})[1]
      {'top_k': 8}
    """
    inputs = named(arrays, TOKEN_NAMES if isinstance(config, SproutConfig) else FEATURE_NAMES)
    options: dict[str, Any] = {}
    if "top_k" in arrays:
        counts = [None if count < 0 else count for count in np.ravel(arrays["top_k"]).tolist()]
        options["top_k"] = tuple(counts) if np.ndim(arrays["top_k"]) else counts[0]
    if "key_padding_mask" in arrays:
        options["key_padding_mask"] = arrays["key_padding_mask"]
    return inputs, options


def _check_tokens(config: SproutConfig, tokens: Any) -> None:
    check_token_ids(tokens, config.vocab_size)
    if tokens.shape[1] > config.max_len:
        raise ValueError(
            f"{tokens.shape[1]} tokens; the position table has max_len={config.max_len}: shorten the text"
        )


def _check_features(config: SproutFFNConfig, inputs: Any) -> None:
    if not isinstance(inputs, np.ndarray | jax.Array) or not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError("inputs must be an array of floating numbers (..., d)")
    if not inputs.ndim or inputs.shape[-1] != config.d_model:
        raise ValueError(f"inputs of shape {inputs.shape} do not fit: (..., {config.d_model}) is needed")


def _check_top_ks(top_k: Any, n_layers: int) -> None:
    """One number for all layers, a tuple of one per layer, or an array of either kind."""
    if isinstance(top_k, list):
        raise ValueError(f"top_k={top_k} is a list; give a tuple, which can be a static argument")
    several = isinstance(top_k, tuple) or (isinstance(top_k, np.ndarray | jax.Array) and top_k.ndim == 1)
    if not several:
        return _check_top_k(top_k)
    if len(top_k) != n_layers:
        raise ValueError(f"top_k has {len(top_k)} entries; the network has {n_layers} layers")
    if isinstance(top_k, tuple):
        for count in top_k:
            _check_top_k(count)
        return None
    return _check_array(top_k)


def _check_top_k(top_k: Any) -> None:
    if top_k is None:
        return
    if isinstance(top_k, np.ndarray | jax.Array):
        if top_k.ndim:
            raise ValueError(f"top_k of shape {top_k.shape} does not fit: one integer is needed")
        _check_array(top_k)
        return
    if isinstance(top_k, bool | np.bool_) or not isinstance(top_k, int | np.integer):
        raise ValueError(f"top_k must be None or a whole number, not {top_k!r}")
    if top_k < 0:
        raise ValueError(f"top_k must be at least 0, not {top_k}")


def _check_array(top_k: Any) -> None:
    if top_k.dtype.kind not in "iu":
        raise ValueError(f"top_k is an array of {top_k.dtype}; integers are needed")
    if isinstance(top_k, jax.core.Tracer):
        return
    if least := int(np.asarray(top_k).min(initial=0)):
        raise ValueError(f"top_k must be at least 0, not {least}")


def _check_masks(options: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    for name in ("key_padding_mask", "attention_mask"):
        mask = options.get(name)
        if mask is None:
            continue
        if not isinstance(mask, np.ndarray | jax.Array):
            raise ValueError(f"{name} is a {type(mask).__name__}; an array (b, t) is needed")
        if mask.shape != shape:
            raise ValueError(f"{name} of shape {mask.shape} does not fit tokens of shape {shape}")
        check_mask(name, mask)


def check_mask(name: str, mask: Any) -> None:
    """Refuse a mask whose numbers could mean something else.

    The published model handed its one mask to torch's attention as it was: bool meant True = ignore, floats
    were added to the scores, and integers failed. Two names with one meaning each leave no doubt.

    Args:
      name: "key_padding_mask" or "attention_mask".
      mask: (b, t).

    Raises:
      ValueError: says what is needed.
    """
    if name == "key_padding_mask":
        if mask.dtype != jnp.bool_:
            raise ValueError(
                f"key_padding_mask is {mask.dtype}; bool is needed, True = ignore (a mask of 1 = keep is "
                "attention_mask)"
            )
        return
    if mask.dtype.kind not in "biu":
        raise ValueError(
            f"attention_mask is {mask.dtype}; bool or integers are needed, 1 = keep: the published model "
            "adds floats to its scores, so that a mask of 1.0 and 0.0 hides nothing"
        )
    if mask.dtype.kind in "iu" and not isinstance(mask, jax.core.Tracer) and ((mask < 0) | (mask > 1)).any():
        raise ValueError("attention_mask holds other numbers than 0 and 1")
