"""Small checkpoint files of every layout of the family, forged from a seed without torch."""

from __future__ import annotations

import zlib
from collections import OrderedDict

import numpy as np

from sparsejax.checkpoint import torch_file

CHANNELS, LAYERS, RADIAL, MAX_Z, CUTOFF = 8, 2, 5, 9, 4.2

SIZES = {
    "hidden_dim": CHANNELS,
    "num_interactions": LAYERS,
    "num_rbf": RADIAL,
    "cutoff": CUTOFF,
    "max_z": MAX_Z,
}
CONFIG = {**SIZES, "use_torch_cluster": True}
TRAINING = {
    "max_epochs": 3,
    "optimizer": {"name": "adamw", "betas": (0.9, 0.999)},
    "loss": {"force_weight": 100.0},
    "device": "cpu",
}
"""A part of what the published trainer stores under "config": not one size of the model."""


def normal(name, *shape):
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32) / 3


def linear(name, out, into):
    return {f"{name}.weight": normal(f"{name}.weight", out, into), f"{name}.bias": normal(name, out)}


def radial(cutoff=CUTOFF, count=RADIAL):
    return {
        "rbf.centers": np.linspace(0.0, cutoff, count, dtype=np.float32),
        "rbf.widths": np.full(count, cutoff / count, np.float32),
    }


def state_dict(*, channels=CHANNELS, layers=LAYERS, equivariant=False, reference_energies=False):
    """Tensors by key, in the order of the originals."""
    state = {"embedding.weight": normal("embedding", MAX_Z + 1, channels)} | radial()
    for layer in range(layers):
        message, update = f"interactions.{layer}.message.rbf_to_scalar", f"interactions.{layer}.update"
        state |= linear(f"{message}.0", channels, RADIAL) | linear(f"{message}.2", 3 * channels, channels)
        mixing = (channels, channels) if equivariant else (3, 3)
        state[f"{update}.mixing_matrix"] = normal(f"{update}.mixing", *mixing)
        state |= linear(f"{update}.update_mlp.0", channels, 2 * channels)
        state |= linear(f"{update}.update_mlp.2", 3 * channels, channels)
    state |= linear("energy_head.0", channels // 2, channels)
    state |= linear("energy_head.2", channels // 4, channels // 2) | linear("energy_head.4", 1, channels // 4)
    if reference_energies:
        state["reference_energies"] = normal("reference_energies", MAX_Z + 1)
    return OrderedDict(state)


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


def prefixed(state, prefix):
    return OrderedDict((prefix + key, value) for key, value in state.items())


def saved(state=None, **changes):
    """As the published ``save`` method arranges it."""
    tree = {"model_state_dict": state_dict() if state is None else state, "config": CONFIG}
    return {**tree, "num_parameters": 1599, **changes}


def of_trainer(state=None):
    """As the published trainer arranges it: no size of the model anywhere."""
    moments = {"state": {0: {"step": 3, "exp_avg": normal("moments", 4)}}, "param_groups": [{"lr": 1e-3}]}
    return {
        "epoch": 1,
        "global_step": 30,
        "model_state_dict": prefixed(state_dict(), "model.") if state is None else state,
        "best_val_loss": 1.5,
        "config": TRAINING,
        "training_history": {"train": [{"total": 2.0}], "val": []},
        "optimizer_state_dict": moments,
    }


def of_compact_script():
    described = {**SIZES, "description": "small", "target_accuracy": 0.9}
    return {
        "epoch": 2,
        "model_state_dict": state_dict(),
        "config": described,
        "total_params": 1599,
        "train_losses": [3.0, 2.0],
        "val_losses": [3.5, 2.5],
    }


WRAPPERS = {
    "saved": saved,
    "trainer": of_trainer,
    "compact": of_compact_script,
    "compact_simple": lambda: {"model_state_dict": state_dict(), "config": SIZES, "best_loss": 0.5},
    "fixed": lambda: saved(num_parameters=427626, epoch=7, metrics={"rmse": 0.1}),
    "state_dict": lambda: {"state_dict": state_dict()},
    "bare": state_dict,
    "calculator": lambda: {
        "model_state_dict": state_dict(),
        "model_config": SIZES,
        "model_class": "StudentForceField",
    },
    "equivariant": lambda: saved(
        state_dict(equivariant=True, reference_energies=True),
        config={
            **CONFIG,
            "variant": "equivariant",
            "norm_epsilon": 0.05,
            "learnable_rbf": True,
            "reference_energies": True,
            "species": [1, 6, 8],
        },
    ),
}
"""Files by name, as functions that make them."""


def write(folder, tree, name="model.pt"):
    torch_file.write(tree, folder / name)
    return folder / name
