"""Writes small ``.onnx`` files byte by byte, from the published wire format alone."""

from __future__ import annotations

import struct

import ml_dtypes
import numpy as np

CODES = {
    "float32": 1,
    "uint8": 2,
    "int32": 6,
    "int64": 7,
    "float16": 10,
    "float64": 11,
    "bfloat16": 16,
    "complex64": 14,
}


def varint(number):
    out = b""
    while number >= 128:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


def number(field, value):
    return varint(field * 8) + varint(value % (1 << 64))


def run(field, content):
    content = content.encode() if isinstance(content, str) else content
    return varint(field * 8 + 2) + varint(len(content)) + content


def tensor(name, array, *, packed_shape=False, values=9, extra=b"", shape=None, code=None):
    """A TensorProto, in the order in which protobuf writes its fields."""
    array = np.asarray(array)
    shape = array.shape if shape is None else shape
    dims = run(1, b"".join(map(varint, shape))) if packed_shape else b"".join(number(1, n) for n in shape)
    kind = number(2, CODES[array.dtype.name] if code is None else code)
    content = np.ascontiguousarray(array)
    content = content.astype(content.dtype.newbyteorder("<")) if array.dtype.kind in "fiu" else content
    raw = run(values, content.tobytes())
    parts = {values: raw, 8: run(8, name)}
    return dims + kind + b"".join(parts[field] for field in sorted(parts)) + extra


def model(*tensors, nodes=2):
    """A ModelProto as torch writes it: version, producer, the graph, the set of operators."""
    node = (
        run(1, "positions") + run(2, "energy") + run(3, "/model/ScatterElements") + run(4, "ScatterElements")
    )
    graph = b"".join(run(1, node) for _ in range(nodes)) + run(2, "main_graph")
    graph += b"".join(run(5, each) for each in tensors)
    graph += run(11, run(1, "positions")) + run(12, run(1, "energy"))
    header = number(1, 8) + run(2, "pytorch") + run(3, "2.1.0")
    return header + run(7, graph) + run(8, number(2, 17))


def of_state(state, prefix=""):
    return model(*(tensor(prefix + key, array) for key, array in state.items()))


def floats(values):
    """Unpacked 32-bit values, as old writers leave them."""
    return b"".join(varint(4 * 8 + 5) + struct.pack("<f", value) for value in values)


BFLOAT16 = ml_dtypes.bfloat16
