"""What a call may look like: inputs that cannot be right are refused before anything is compiled."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.accepted_names import check_options
from sparsejax.models.ultra_sparse.config import UltraSparseConfig

_OPTIONS = ("features_first",)


def check_inputs(config: UltraSparseConfig, *inputs: Any, **options: Any) -> None:
    """Refuse features of the wrong shape or type.

    Args:
      config: of the network.
      inputs: features (b, i) or (i,); (i, b) with ``features_first``.
      options: as the network takes them.

    Raises:
      ValueError: says what is needed.

    Example:
      >>> check_inputs(UltraSparseConfig(), np.zeros((3, 256)))
    """
    if len(inputs) != 1:
        raise ValueError(f"one array of features is needed, not {len(inputs)} arguments")
    check_options(options, _OPTIONS)
    (features,), features_first = inputs, options.get("features_first", False)
    if not isinstance(features, np.ndarray | jax.Array):
        raise ValueError(f"features are a {type(features).__name__}; an array is needed")
    shape = features.shape
    needed = (
        f"({config.input_size}, b)"
        if features_first
        else f"(b, {config.input_size}) or ({config.input_size},)"
    )
    axis = 0 if features_first else -1
    if not shape or shape[axis] != config.input_size:
        raise ValueError(
            f"features of shape {shape} do not fit: this net reads {needed}; raw x needs expand_input"
        )
    if features.dtype.kind not in "iub" and not jnp.issubdtype(features.dtype, jnp.floating):
        raise ValueError(f"features are {features.dtype}, real numbers are needed")
