"""Checkpoint files of every layout, forged from a seed."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from sparsejax.checkpoint import npz_file, torch_file

INPUTS, HIDDEN, FAN_IN, OUTPUTS = 256, 5, 3, 2
ACTIVATIONS = {"hidden_activation": "relu", "output_activation": "linear"}


def normal(*shape, seed=0):
    return np.random.default_rng(sum(shape) + seed).normal(size=shape).astype(np.float32)


def sparse_state():
    indices = np.random.default_rng(3).integers(0, INPUTS, (HIDDEN, FAN_IN))
    return {
        "w1": normal(HIDDEN, FAN_IN),
        "b1": normal(HIDDEN),
        "w2": normal(OUTPUTS, HIDDEN),
        "b2": normal(OUTPUTS),
        "input_indices": indices,
    }


def variable_state():
    return sparse_state() | {"k": np.array([1, 2, 3, 3, 1], np.int32)}


def dense_state():
    return sparse_state() | {"w1": normal(HIDDEN, 7)} | {"input_indices": None}


def library_state():
    state = sparse_state()
    sizes = {"input_dim": 300, "H": HIDDEN, "K": FAN_IN, "output_dim": OUTPUTS}
    scalars = {name: np.array(size, np.int64) for name, size in sizes.items()}
    return scalars | {
        "indices": state["input_indices"],
        "W1": state["w1"],
        "b1": state["b1"],
        "W2": state["w2"],
        "b2": state["b2"],
    }


def mlp_state():
    sizes = {"fc1": (6, 7), "fc2": (5, 6), "fc3": (2, 5)}
    return {
        f"{name}.{part}": normal(*shape) if part == "weight" else normal(shape[0])
        for name, shape in sizes.items()
        for part in ("weight", "bias")
    }


def sgd_state():
    shapes = {"hidden.weight": (5, 7), "hidden.bias": (5,), "output.weight": (2, 5), "output.bias": (2,)}
    return {name: normal(*shape) for name, shape in shapes.items()}


def _without_none(state):
    return {key: value for key, value in state.items() if value is not None}


LAYOUTS = {
    "sparse": (sparse_state, {}),
    "sparse_with_live_counts": (variable_state, {}),
    "dense": (lambda: _without_none(dense_state()), {}),
    "library": (library_state, {}),
    "mlp": (mlp_state, ACTIVATIONS),
    "sgd": (sgd_state, ACTIVATIONS),
}
VARIANT = {"sparse_with_live_counts": "sparse"}


def variant_of(layout):
    return VARIANT.get(layout, layout)


def overrides_of(layout):
    return LAYOUTS[layout][1]


def state_of(layout):
    return LAYOUTS[layout][0]()


def write(folder, tree, name="model.pt"):
    path = folder / name
    (npz_file.write if name.endswith(".npz") else torch_file.write)(tree, path)
    return path


def write_layout(folder, layout):
    """As its originals write it: sparse nets wrapped with a tied copy of the table, others bare."""
    state = state_of(layout)
    if layout == "library":
        return write(folder, state, "model.npz")
    if layout == "sparse":
        stats = {"mse": 0.5, "saturation": 0.25, "history": [1, 2.5, None, "x"]}
        return write(
            folder,
            {"state_dict": OrderedDict(state), "stats": stats, "input_indices": state["input_indices"]},
        )
    return write(folder, state)
