"""Our parameters as torch tensors, and the training step that every torch peer is timed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Tree = dict[str, Any]
Forward = Callable[[Any], Any]
"""Token ids (b, t) to logits (b, t, v), both tensors."""

EPSILON = 1e-5
"""Of every LayerNorm."""


def tensors(
    params: Mapping[str, Any], *, dtype: str = "float32", device: str = "cpu", gradients: bool = False
) -> Tree:
    """The same tree of torch tensors.

    Args:
      params: nested dict of arrays; a kernel is (inputs, outputs), as in our models.
      dtype: name of a torch dtype.
      device: name of a torch device.
      gradients: whether a backward pass is to reach them.
    """
    import torch

    def convert(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {name: convert(child) for name, child in node.items()}
        array = np.array(node, np.float64 if dtype == "float64" else np.float32)
        return torch.from_numpy(array).to(device).requires_grad_(gradients)

    tree: Tree = convert(params)
    return tree


def leaves(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Tensors or arrays by their path, in the tree's order."""
    found: dict[str, Any] = {}
    for name, child in tree.items():
        here = f"{path}/{name}" if path else str(name)
        found |= leaves(child, here) if isinstance(child, Mapping) else {here: child}
    return found


def linear(x: Any, layer: Mapping[str, Any]) -> Any:
    """A dense layer with or without bias, in one call of the matrix product."""
    from torch.nn.functional import linear as product

    return product(x, layer["kernel"].T, layer.get("bias"))


def layer_norm(x: Any, layer: Mapping[str, Any]) -> Any:
    """LayerNorm over the last axis."""
    from torch.nn.functional import layer_norm as normalise

    return normalise(x, x.shape[-1:], layer["scale"], layer["bias"], EPSILON)


def head(x: Any, weights: Mapping[str, Any]) -> Any:
    """The final norm and the vocabulary head, which is the token table where there is no other."""
    from torch.nn.functional import linear as product

    table = weights["head"]["kernel"].T if "head" in weights else weights["token_embedding"]["embedding"]
    return product(layer_norm(x, weights["final_norm"]), table)


def embedded(tokens: Any, weights: Mapping[str, Any]) -> Any:
    """Rows of the token table, and of the position table where there is one."""
    from torch.nn.functional import embedding

    x = embedding(tokens, weights["token_embedding"]["embedding"])
    positions = weights.get("position_embedding")
    return x if positions is None else x + positions["embedding"][: tokens.shape[1]]


def inference(forward: Forward) -> Forward:
    """The function without gradients."""
    import torch

    def without_gradients(tokens: Any) -> Any:
        with torch.inference_mode():
            return forward(tokens)

    return without_gradients


def training_step(
    forward: Forward, weights: Tree, tokens: Any, targets: Any
) -> Callable[[], tuple[Any, dict[str, Any]]]:
    """A call that gives the mean cross entropy and its gradient by every weight.

    Args:
      forward: of the network over these weights.
      weights: made with ``gradients=True``.
      tokens: (b, t) ids.
      targets: (b, t) ids.
    """
    import torch
    from torch.nn.functional import cross_entropy

    trained = leaves(weights)

    def step() -> tuple[Any, dict[str, Any]]:
        logits = forward(tokens)
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
        found = torch.autograd.grad(loss, list(trained.values()))
        return loss.detach(), dict(zip(trained, found, strict=True))

    return step
