"""Weights and pair lists of the torch force fields, from our parameters or from a published file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

Weights = dict[str, Any]
"""Tensors by the keys of a published file, matrices (out, in)."""

_WRAPPERS = ("_orig_mod.", "model.", "_orig_mod.")
_READOUT = {"hidden_0": 0, "hidden_1": 2, "energy": 4}


class Pairs(NamedTuple):
    """Directed edges sorted by receiver, as tensors; n atoms, e edges, p = e / 2 pairs, g graphs.

    Attributes:
      species: (n,) int64 atomic numbers.
      graph: (n,) int64, of each atom.
      num_graphs: g.
      senders: (e,) int64.
      receivers: (e,) int64, ascending.
      shifts: (e, 3) A, added to the sender's position; None where nothing is periodic.
      offsets: (n,) int64, each receiver's first edge.
      edges: (e,) int64: 0, 1, 2, ...
      reverse: (e,) int64, the edge back.
      firsts: (p,) int64, one edge of each pair.
      pair: (e,) int64, the pair that an edge belongs to.
    """

    species: Any
    graph: Any
    num_graphs: int
    senders: Any
    receivers: Any
    shifts: Any
    offsets: Any
    edges: Any
    reverse: Any
    firsts: Any
    pair: Any


def weights_of_params(
    params: Mapping[str, Any], *, dtype: str = "float32", device: str = "cpu", gradients: bool = False
) -> Weights:
    """The weights of a published network in our parameter tree, whose kernels are (in, out).

    Args:
      params: of a `StudentForceField` of the variant "cartesian".
      dtype: name of a torch dtype.
      device: name of a torch device.
      gradients: whether a backward pass is to reach them.
    """
    found = {"embedding.weight": params["embedding"]["embedding"]}
    found |= {f"rbf.{name}": params["rbf"][name] for name in ("centers", "widths")}
    for layer in range(sum(name.startswith("interaction_") for name in params)):
        ours, key = params[f"interaction_{layer}"], f"interactions.{layer}"
        found[f"{key}.update.mixing_matrix"] = ours["update"]["mixing"]
        found |= _dense(ours["message"]["hidden"], f"{key}.message.rbf_to_scalar.0")
        found |= _dense(ours["message"]["filter"], f"{key}.message.rbf_to_scalar.2")
        found |= _dense(ours["update"]["hidden"], f"{key}.update.update_mlp.0")
        found |= _dense(ours["update"]["gates"], f"{key}.update.update_mlp.2")
    for name, place in _READOUT.items():
        found |= _dense(params["readout"][name], f"energy_head.{place}")
    return _tensors(found, dtype=dtype, device=device, gradients=gradients)


def weights_of_state(
    state: Mapping[str, Any], *, dtype: str = "float32", device: str = "cpu", gradients: bool = False
) -> Weights:
    """The weights of a published state dict of arrays or tensors, whose keys may have a wrapper's prefix."""
    found = {_plain(key): value for key, value in state.items()}
    return _tensors(found, dtype=dtype, device=device, gradients=gradients)


def sizes(weights: Weights) -> tuple[int, int]:
    """Channels and interactions."""
    layers = {key.split(".")[1] for key in weights if key.startswith("interactions.")}
    return weights["embedding.weight"].shape[1], len(layers)


def pairs(
    species: Any,
    senders: Any,
    receivers: Any,
    *,
    graph: Any = None,
    shifts: Any = None,
    dtype: str = "float32",
    device: str = "cpu",
) -> Pairs:
    """Sort a list of edges and find out which of them are opposite.

    Args:
      species: (n,) atomic numbers.
      senders: (e,).
      receivers: (e,).
      graph: (n,) ascending, of each atom; one graph if None.
      shifts: (e, 3) in A: cell shifts times the cell.
      dtype: of the shifts.
      device: of all tensors.

    Raises:
      ValueError: an edge has no opposite.
    """
    import torch

    species, senders, receivers = (np.asarray(array, np.int64) for array in (species, senders, receivers))
    graph = np.zeros(len(species), np.int64) if graph is None else np.asarray(graph, np.int64)
    moved = np.zeros((len(senders), 3)) if shifts is None else np.asarray(shifts, np.float64)
    order = np.lexsort((*_keys(moved), senders, receivers))
    senders, receivers, moved = senders[order], receivers[order], moved[order]
    cells = np.stack(_keys(moved), 1)
    # The opposite edges in the order of their own keys are the edges in that of their opposites' keys.
    opposite = np.lexsort((*-cells.T, receivers, senders))
    reverse = np.empty_like(opposite)
    reverse[opposite] = np.arange(len(order))
    if not (np.array_equal(senders[reverse], receivers) and np.array_equal(cells[reverse], -cells)):
        raise ValueError("the list of edges is not symmetric: every edge needs its opposite")
    firsts = np.flatnonzero(np.arange(len(order)) < reverse)
    pair = np.empty_like(reverse)
    pair[firsts] = pair[reverse[firsts]] = np.arange(len(firsts))
    offsets = np.searchsorted(receivers, np.arange(len(species)))

    def place(array: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return Pairs(
        species=place(species),
        graph=place(graph),
        num_graphs=int(graph.max()) + 1,
        senders=place(senders),
        receivers=place(receivers),
        shifts=None if shifts is None else place(moved).to(getattr(torch, dtype)),
        offsets=place(offsets),
        edges=place(np.arange(len(order))),
        reverse=place(reverse),
        firsts=place(firsts),
        pair=place(pair),
    )


def random_params(
    key: int, *, hidden_dim: int, num_interactions: int, num_rbf: int, cutoff: float = 5.0, max_z: int = 100
) -> dict[str, Any]:
    """A published network as it is drawn before training, in our parameter tree, float32."""
    draws, c = np.random.default_rng(key), hidden_dim

    def dense(inputs: int, outputs: int) -> dict[str, np.ndarray]:
        bound = math.sqrt(6 / (inputs + outputs))
        # A bias of zero would leave out that filters do not vanish where the radial functions do.
        bias = 0.1 * draws.standard_normal(outputs)
        return {"kernel": _f32(draws.uniform(-bound, bound, (inputs, outputs))), "bias": _f32(bias)}

    params: dict[str, Any] = {
        "embedding": {"embedding": _f32(draws.uniform(-math.sqrt(3), math.sqrt(3), (max_z + 1, c)))},
        "rbf": {
            "centers": _f32(np.linspace(0, cutoff, num_rbf)),
            "widths": np.full(num_rbf, cutoff / num_rbf, np.float32),
        },
    }
    for layer in range(num_interactions):
        params[f"interaction_{layer}"] = {
            "message": {"hidden": dense(num_rbf, c), "filter": dense(c, 3 * c)},
            "update": {
                "mixing": _f32(draws.standard_normal((3, 3)) / math.sqrt(3)),
                "hidden": dense(2 * c, c),
                "gates": dense(c, 3 * c),
            },
        }
    readout = (("hidden_0", c, c // 2), ("hidden_1", c // 2, c // 4), ("energy", c // 4, 1))
    params["readout"] = {name: dense(*shape) for name, *shape in readout}
    return params


def _keys(shifts: np.ndarray) -> Any:
    """(3, e) integers, alike where shifts are alike but for rounding."""
    return np.round(1e6 * shifts).astype(np.int64).T


def _dense(layer: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {f"{key}.weight": np.asarray(layer["kernel"]).T, f"{key}.bias": layer["bias"]}


def _plain(key: str) -> str:
    for prefix in _WRAPPERS:
        key = key.removeprefix(prefix)
    return key


def _f32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32)


def _tensors(arrays: Mapping[str, Any], *, dtype: str, device: str, gradients: bool) -> Weights:
    import torch

    def place(array: Any) -> Any:
        values = array.detach() if torch.is_tensor(array) else torch.from_numpy(np.array(array, order="C"))
        placed = values.to(device, getattr(torch, dtype), copy=True).contiguous()
        return placed.requires_grad_(gradients)

    return {key: place(array) for key, array in arrays.items()}
