"""Small layers for the tests of the store, and a source that counts what is read from it."""

from __future__ import annotations

import numpy as np

from sparsejax.models.sparse_inference.store.memory import HostUnits
from sparsejax.models.sparse_inference.store.units import unit_layout
from sparsejax.ops.quantized import QuantizedTensor
from sparsejax.ops.sparse_ffn import FFNWeights


def drawn(seed, *shape):
    return (np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)


def plain_layer(seed=0, neurons=64, width=8, *, gated=False, bias=False):
    layer = FFNWeights(drawn(seed, neurons, width), drawn(seed + 1, neurons, width))
    if gated:
        layer = layer._replace(w_gate=drawn(seed + 2, neurons, width))
    if bias:
        layer = layer._replace(b_in=drawn(seed + 3, neurons), b_out=drawn(seed + 4, width))
    if gated and bias:
        layer = layer._replace(b_gate=drawn(seed + 5, neurons))
    return layer


def quantized_layer(kind="q8_0", seed=0, neurons=128, width=64):
    """With the output matrix as files have it, (d, f)."""
    up, gate = (QuantizedTensor.quantize(drawn(seed + n, neurons, width), kind) for n in (0, 1))
    down = QuantizedTensor.quantize(drawn(seed + 2, width, neurons), kind)
    return FFNWeights(up, down, gate)


class CountingUnits(HostUnits):
    """Host units that note every read, and fail when told to."""

    def __init__(self, layers, unit=None):
        super().__init__(layers, [unit_layout(layer, unit) for layer in layers])
        self.reads, self.failing, self.closed = [], None, 0

    def read(self, layer, units, into):
        if self.failing is not None:
            raise self.failing
        self.reads.append((layer, units.tolist()))
        super().read(layer, units, into)

    def close(self):
        self.closed += 1
