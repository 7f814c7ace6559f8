"""What a call may look like: inputs that cannot be right are refused before anything is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.accepted_names import check_dropout_key, check_options
from sparsejax.checkpoint.errors import shown
from sparsejax.checkpoint.reference_arrays import FEATURE_NAMES, TOKEN_NAMES, named
from sparsejax.models.sprout.config import Mixer, Path, SproutConfig, SproutFFNConfig
from sparsejax.ops.token_ids import check_token_ids

_OPTIONS = ("top_k", "path", "mixer", "train", "straight_through")
_MASKS = ("key_padding_mask", "attention_mask")
_MODEL_OPTIONS = (*_OPTIONS, *_MASKS, "method")


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
    check_options(options, _MODEL_OPTIONS if model else _OPTIONS)
    for name in ("train", "straight_through"):
        if not isinstance(options.get(name, False), bool):
            raise ValueError(f"{name} must be True or False, not {options[name]!r}")
    random = model or config.mixer_hidden or config.deep_sets
    check_dropout_key(options.get("train") and config.dropout and random)
    check_choices(options.get("path", "auto"), options.get("mixer", "published"))
    top_k = options.get("top_k")
    if not isinstance(config, SproutConfig):
        check_features(config, inputs[0])
        check_top_k(top_k)
        return
    if isinstance(top_k, list):
        raise ValueError(f"top_k={top_k} is a list; give a tuple, which can be a static argument")
    check_tokens(config, inputs[0])
    check_top_ks(top_k, config.n_layers)
    check_masks(inputs[0].shape, **{name: options.get(name) for name in _MASKS})


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


def check_choices(path: Any, mixer: Any) -> None:
    """Refuse a path or a use of the mixer that does not exist.

    Args:
      path: of `Path`.
      mixer: of `Mixer`.

    Raises:
      ValueError: names those that do.

    Example:
      >>> check_choices("auto", "off")
    """
    for name, value, known in (("path", path, get_args(Path)), ("mixer", mixer, get_args(Mixer))):
        if value not in known:
            raise ValueError(f"{name}={value!r} is not known; give one of {shown(known)}")


def check_tokens(config: SproutConfig, tokens: Any) -> None:
    """Refuse what are no ids (b, t) of the vocabulary, or more than there are positions.

    Args:
      config: of the model.
      tokens: (b, t) of integers.

    Raises:
      ValueError: says what is needed.

    Example:
      >>> check_tokens(SproutConfig(vocab_size=5), np.array([[0, 4]]))
    """
    check_token_ids(tokens, config.vocab_size)
    if tokens.shape[1] > config.max_len:
        raise ValueError(
            f"{tokens.shape[1]} tokens; the position table has max_len={config.max_len}: shorten the text"
        )


def check_features(config: SproutFFNConfig, inputs: Any) -> None:
    """Refuse what are no inputs of a feed-forward part.

    Args:
      config: of the feed-forward part.
      inputs: (*b, d) of floats.

    Raises:
      ValueError: says what is needed.

    Example:
      >>> check_features(SproutFFNConfig(d_model=8), np.zeros((3, 8), np.float32))
    """
    if not isinstance(inputs, np.ndarray | jax.Array) or not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError("inputs must be an array of floating numbers (..., d)")
    if not inputs.ndim or inputs.shape[-1] != config.d_model:
        raise ValueError(f"inputs of shape {inputs.shape} do not fit: (..., {config.d_model}) is needed")


def check_top_ks(top_k: Any, n_layers: int) -> bool:
    """Refuse what is neither one number of neurons for all layers nor one per layer.

    Args:
      top_k: None or a whole number, a sequence of such, or an array () or (n_layers,) of integers.
      n_layers: of the network.

    Returns:
      whether there is one per layer.

    Raises:
      ValueError: says what is needed.

    Example:
      >>> check_top_ks(4, 2), check_top_ks((4, None), 2)
      (False, True)
    """
    is_array = isinstance(top_k, np.ndarray | jax.Array)
    several = top_k.ndim == 1 if is_array else isinstance(top_k, tuple | list)
    if not several:
        check_top_k(top_k)
        return False
    if len(top_k) != n_layers:
        raise ValueError(f"top_k has {len(top_k)} entries; the network has {n_layers} layers")
    if is_array:
        _check_array(top_k)
        return True
    for count in top_k:
        check_top_k(count)
    return True


def check_top_k(top_k: Any) -> None:
    """Refuse what is no number of neurons.

    Args:
      top_k: None, a whole number, or an integer array ().

    Raises:
      ValueError: says what is needed.

    Example:
      >>> check_top_k(np.array(3))
    """
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


def check_masks(shape: tuple[int, ...], **masks: Any) -> None:
    """Refuse masks that do not fit the tokens, or whose numbers could mean something else.

    Args:
      shape: (b, t) of the tokens.
      masks: ``key_padding_mask`` and ``attention_mask``; None where there is none.

    Raises:
      ValueError: says what is needed.

    Example:
      >>> check_masks((1, 2), key_padding_mask=np.array([[False, True]]), attention_mask=None)
    """
    for name, mask in masks.items():
        if mask is None:
            continue
        if not isinstance(mask, np.ndarray | jax.Array):
            raise ValueError(f"{name} is a {type(mask).__name__}; an array (b, t) is needed")
        if mask.shape != shape:
            raise ValueError(f"{name} of shape {mask.shape} does not fit tokens of shape {shape}")
        _check_mask(name, mask)


def _check_mask(name: str, mask: Any) -> None:
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
