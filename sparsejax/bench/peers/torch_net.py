"""The forward pass and the expansion in PyTorch, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sparsejax.bench.peers.numpy_expansion import constants
from sparsejax.bench.peers.weights import DenseWeights, SparseWeights

Forward = Callable[[Any], Any]


def tensor(array: np.ndarray) -> Any:
    """A torch tensor over the same memory, or over a copy if that is read-only."""
    import torch

    return torch.from_numpy(array if array.flags.writeable else array.copy())


def sparse_rows(net: SparseWeights) -> Forward:
    """(b, i) -> (b, o) tensors, in place after one gather per slot."""
    import torch

    slots = [
        (tensor(net.indices[:, k].copy()), tensor(net.w1[:, k].copy())) for k in range(net.indices.shape[1])
    ]
    b1, w2, b2 = tensor(net.b1), tensor(np.ascontiguousarray(net.w2.T)), tensor(net.b2)

    def forward(x: Any) -> Any:
        hidden = b1
        for indices, weights in slots:
            hidden = torch.addcmul(hidden, x.index_select(1, indices), weights)
        return torch.addmm(b2, hidden.tanh_(), w2).tanh_()

    return forward


def sparse_features_first(net: SparseWeights) -> Forward:
    """(i, b) -> (o, b) tensors."""
    import torch

    slots = [
        (tensor(net.indices[:, k].copy()), tensor(net.w1[:, k].copy())[:, None])
        for k in range(net.indices.shape[1])
    ]
    b1, w2, b2 = tensor(net.b1)[:, None], tensor(net.w2), tensor(net.b2)[:, None]

    def forward(x: Any) -> Any:
        hidden = b1
        for indices, weights in slots:
            hidden = torch.addcmul(hidden, x.index_select(0, indices), weights)
        return torch.addmm(b2, w2, hidden.tanh_()).tanh_()

    return forward


def dense_rows(net: DenseWeights) -> Forward:
    """(b, i) -> (b, o) tensors."""
    import torch

    w1, b1 = tensor(np.ascontiguousarray(net.w1.T)), tensor(net.b1)
    w2, b2 = tensor(np.ascontiguousarray(net.w2.T)), tensor(net.b2)
    return lambda x: torch.addmm(b2, torch.addmm(b1, x, w1).tanh_(), w2).tanh_()


def expansion() -> Forward:
    """(b,) -> (b, 256) tensors, one expression per group of columns."""
    import torch

    c = constants()
    f, p, s, low, high = (tensor(array) for array in (c.f, c.p, c.s, c.low, c.high))
    exponents = torch.arange(4, 24)
    bump = 0.3 * s[20:40]

    def expand(x: Any) -> Any:
        column = x[:, None]
        n = column / (2 * np.pi)
        square = n * n
        columns = (
            n,
            square,
            square * n,
            torch.sin(column * low),
            torch.cos(column * low),
            torch.zeros_like(column),
            torch.sin(column * f[:50] + p[:50]),
            torch.cos(column * f[50:] + p[50:]),
            -torch.sin(column * high),
            -torch.cos(column * high),
            n**exponents,
            torch.sin(column * f[:20]) * torch.cos(column * f[20:40]),
            torch.tanh(column * s[:20]),
            torch.exp(-torch.abs(column * bump)) - 0.5,
            torch.sign(torch.sin(column * f[40:60])),
            torch.fmod(column * f[60:80] + p[60:80], 2.0) - 1.0,
        )
        return torch.cat(columns, dim=1)

    return expand


def eager(forward: Forward) -> Forward:
    """The function without gradients."""
    import torch

    def without_gradients(x: Any) -> Any:
        with torch.inference_mode():
            return forward(x)

    return without_gradients


def compiled(forward: Forward, example: Any) -> Forward:
    """The function through ``torch.compile``, compiled for the example's shape.

    Raises:
      PeerError: it does not work here: a C++ compiler is missing, for example.
    """
    import torch

    fast = eager(torch.compile(forward, dynamic=False))
    try:
        fast(example)
    except Exception as error:
        raise PeerError(f"torch.compile failed ({type(error).__name__})") from error
    return fast


class PeerError(Exception):
    """A peer that is installed, but does not work here; the message says why."""
