"""A trained net as one small Python file that needs NumPy alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sparsejax.checkpoint.export_file import checked_target, write_export
from sparsejax.models.ultra_sparse.connections import Connections, net_connections
from sparsejax.models.ultra_sparse.fuse import Trained
from sparsejax.version import __version__


def export_numpy(trained: Trained, path: str | os.PathLike[str]) -> Path:
    """Write a net as one Python file with its arrays and ``predict(features)``.

    The file imports NumPy and nothing else. It computes in float32 (layers of int8 weights keep their
    codes), touches the columns that the net reads and no others, and hands NaN in one of them on. Features
    go in, not raw x: an expansion such as `expand_input` is the caller's. Equal nets give equal bytes.

    Args:
      trained: a checkpoint, or anything with ``config`` and ``params``.
      path: the file, replaced in one step.

    Returns:
      the path. ``predict`` takes (i,) or (b, i) and gives (o,) or (b, o), float32.

    Raises:
      ValueError: a net that cannot be exported (see `net_connections`), a path that is a directory or in
        none, or a file that cannot be written.

    Example:
      >>> import tempfile
      >>> ck = sparsejax.load("checkpoints/ultra_sparse_sine.pt")
      >>> names = {}
      >>> exec(export_numpy(ck, tempfile.mkdtemp() + "/sine.py").read_text(), names)
      >>> names["predict"](np.zeros((5, 256))).shape
      (5, 1)
    """
    path = checked_target(path)
    columns, layers = net_connections(trained)
    module = _module(trained.config.input_size, columns, layers)
    return write_export(module.encode("ascii"), path)


_TEMPLATE = '''"""A net that reads {used} of {features} features, written by sparsejax {version}."""

import numpy as np

FEATURES = {features}
COLUMNS = {columns}
"""The features that the net reads."""

LAYERS = [{layers}]
"""Per layer: sources (h, k) and weights (h, k), or None and a kernel (k, h); bias (h,), activation."""

ACTIVATIONS = {{
    "tanh": np.tanh,
    "linear": lambda values: values,
    "relu": lambda values: np.maximum(values, np.float32(0)),
    "sign": np.sign,
}}


def predict(features):
    """Outputs (o,) or (b, o) in float32 for features (i,) or (b, i)."""
    features = np.asarray(features, np.float32)
    if features.ndim not in (1, 2) or features.shape[-1] != FEATURES:
        raise ValueError(f"features of shape {{features.shape}} do not fit a net of {{FEATURES}} inputs")
    values = features[..., COLUMNS]
    for sources, weights, bias, activation in LAYERS:
        if sources is None:
            sums = values @ weights
        else:
            sums = (values[..., sources] * weights).sum(axis=-1)
        values = ACTIVATIONS[activation](sums + bias)
    return values
'''


def _module(features: int, columns: np.ndarray, layers: tuple[Connections, ...]) -> str:
    return _TEMPLATE.format(
        used=len(columns),
        features=features,
        version=__version__,
        columns=columns.tolist(),
        layers="".join(f"\n{_layer(layer)}," for layer in layers) + "\n",
    )


def _layer(layer: Connections) -> str:
    """The layer as a tuple."""
    if all(np.array_equal(sources, np.arange(layer.width)) for sources in layer.sources):
        table, weights = "None", np.stack(layer.weights, axis=1)
    else:
        sources, weights = _padded(layer)
        table = f"np.array({sources.tolist()})"
    scale = "" if layer.step is None else f" * np.float32({layer.step:.9g})"
    numbers = f"{_float32(weights)}{scale}"
    return f'    ({table},\n     {numbers},\n     {_float32(layer.bias)}, "{layer.activation}")'


def _padded(layer: Connections) -> tuple[np.ndarray, np.ndarray]:
    """Sources and weights (h, k); where a neuron has fewer connections, weights of zero."""
    shape = len(layer.bias), max(len(sources) for sources in layer.sources)
    table, weights = np.zeros(shape, int), np.zeros(shape, layer.weights[0].dtype)
    for neuron, (sources, own) in enumerate(zip(layer.sources, layer.weights, strict=True)):
        # Padding reads what the neuron reads anyway, so that NaN elsewhere cannot reach it.
        table[neuron] = sources[0] if len(sources) else 0
        table[neuron, : len(sources)], weights[neuron, : len(own)] = sources, own
    return table, weights


def _float32(values: np.ndarray) -> str:
    return f"np.array({_nested(values)}, np.float32)"


def _nested(values: np.ndarray) -> str:
    """Nested lists of exactly these numbers (9 digits tell all float32 numbers apart)."""
    if values.ndim > 1:
        return "[" + ",\n      ".join(_nested(row) for row in values) + "]"
    return "[" + ", ".join(f"{value:.9g}" for value in values.tolist()) + "]"
