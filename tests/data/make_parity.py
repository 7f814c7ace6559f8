"""Writes the parity set of this folder with NumPy and torch alone: ``python -m tests.data.make_parity``.

It stands in for the originals' golden tensors on machines that lack them. Nothing here uses sparsejax,
except to name the architectures; the formulas are those of tests/models/ultra_sparse/oracle.py and, for
gradients and files, torch's.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from tests.models.ultra_sparse import nets, oracle

HERE = Path(__file__).parent
NETS = ("fixed_k_of_many_outputs", "variable_k", "deep", "sensor_flip")
X = np.array([-6.1, -0.7, 0.0, 2.3, 5.9])  # away from every jump of the trained recipe (asserted below)
COLUMNS = (0, 7, 8, 15, 16, 17, 100, 255)


def expansion():
    assert np.sort(oracle.jump_distance(X[X != 0]).ravel())[0] > 1e-4
    some = {name: oracle.expand(X, name)[:, COLUMNS] for name in ("readme", "sine_problem", "library")}
    trained = oracle.expand(X)
    np.savez_compressed(HERE / "ultra_sparse_expansion.npz", x=X, columns=COLUMNS, trained=trained, **some)


def networks():
    arrays = {"x": np.random.default_rng(7).normal(size=(4, 12)).astype(np.float32)}
    for name in NETS:
        config = nets.ARCHITECTURES[name]
        params = nets.make(config, seed=len(arrays))
        arrays |= {f"{name}/{layer}/{part}": a for layer, own in params.items() for part, a in own.items()}
        arrays[f"{name}/outputs"] = oracle.forward(config, params, arrays["x"])
    np.savez_compressed(HERE / "ultra_sparse_nets.npz", **arrays)


def torch_files():
    """The published layout with its real container, tie and dtypes; and the format before torch 1.6."""
    rng = np.random.default_rng(11)
    indices = torch.tensor(rng.integers(0, 256, (4, 3)))
    names = {"w1": (4, 3), "b1": (4,), "w2": (2, 4), "b2": (2,)}
    weights = {name: torch.tensor(rng.normal(size=shape).astype(np.float32)) for name, shape in names.items()}
    state = OrderedDict(**weights, input_indices=indices)
    stats = {"mse": 0.25, "parameters": 26}
    torch.save({"state_dict": state, "stats": stats, "input_indices": indices}, HERE / "ultra_sparse_zip.pt")
    torch.save(dict(state), HERE / "ultra_sparse_legacy.pt", _use_new_zipfile_serialization=False)
    x = torch.tensor(rng.normal(size=(3, 256)).astype(np.float32))
    leaves = {name: weight.double().requires_grad_() for name, weight in weights.items()}
    hidden = torch.tanh((x.double()[:, indices] * leaves["w1"]).sum(-1) + leaves["b1"])
    outputs = torch.tanh(hidden @ leaves["w2"].T + leaves["b2"])
    (outputs**2).mean().backward()
    np.savez_compressed(
        HERE / "ultra_sparse_torch.npz",
        columns=np.unique(indices),
        features=x[:, np.unique(indices)].numpy(),  # the other columns are not read
        outputs=outputs.detach().numpy(),
        **{f"grad_{name}": leaf.grad.numpy() for name, leaf in leaves.items()},
    )


if __name__ == "__main__":
    expansion()
    networks()
    torch_files()
