"""Damages torch files at random and judges what reading them gives.

The judge of a file that still reads is `reference`, which shares no code with the reader: the standard
library's pickle and zipfile, and NumPy.
"""

from __future__ import annotations

import codecs
import io
import os
import pickle
import random
import struct
import sys
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from sparsejax.checkpoint import torch_file
from sparsejax.checkpoint.torch_format.torch_types import (
    DTYPES,
    STORAGE_DTYPES,
    TorchDevice,
    TorchDtype,
    TorchSize,
)
from tests import golden
from tests.checkpoint import torch_forge as forge

MAX_GOLDEN_BYTES = 40_000
_WATCHED = (
    "os.",
    "subprocess.",
    "socket.",
    "shutil.",
    "ctypes.",
    "pickle.",
    "exec",
    "compile",
    "import",
    "open",
)
_watching: list[list[str]] = []
codecs.lookup("cp437")  # the encoding of names in zip files, which Python imports at the first use


def _audit(event: str, args: tuple) -> None:
    if not _watching or not event.startswith(_WATCHED):
        return
    if event == "open":
        _, mode, flags = args
        writes = isinstance(mode, str) and any(letter in mode for letter in "wax+")
        if not writes and not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
    _watching[-1].append(f"{event} {args[:2]!r}")


_hooked: list[bool] = []


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collects every call to the system, import, compilation and writing open made inside."""
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked.append(True)
    _watching.append([])
    try:
        yield _watching[-1]
    finally:
        _watching.pop()


# the judge


def reference(path: Path) -> object:
    """The content of a torch file as the standard library reads it, which may warn of odd NumPy arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _reference(path)


def _reference(path: Path) -> object:
    content = path.read_bytes()
    if content[:4] != b"PK\x03\x04":
        return _Legacy(content).value
    with zipfile.ZipFile(path) as archive:
        records = {name.partition("/")[2]: name for name in archive.namelist()}
        order = ">" if "byteorder" in records and _record(archive, records["byteorder"]) == b"big" else "<"
        unpickler = _Unpickler(io.BytesIO(_record(archive, records["data.pkl"])), encoding="utf-8")
        unpickler.raw = lambda key: (_record(archive, records[f"data/{key}"]), order)
        return _settled(unpickler.load())


def _record(archive: zipfile.ZipFile, name: str) -> bytes:
    """A record's bytes, whatever its checksum says."""
    with archive.open(name) as stream:
        stream._expected_crc = None
        return stream.read()


class _Stored:
    def __init__(self, raw: bytes, order: str, dtype: np.dtype):
        self.raw, self.order, self.dtype = raw, order, dtype

    def tensor(self, offset, shape, strides, dtype=None) -> np.ndarray:
        dtype = dtype or self.dtype
        flat = np.frombuffer(self.raw[: len(self.raw) // dtype.itemsize * dtype.itemsize], dtype)
        if self.order == ">":
            flat = np.frombuffer(flat.view(dtype.newbyteorder(">")).byteswap().tobytes(), dtype)
        places = np.full(shape, offset)
        for axis, stride in enumerate(strides):
            steps = np.arange(shape[axis]) * (stride if shape[axis] > 1 else 0)
            places += steps.reshape([-1 if other == axis else 1 for other in range(len(shape))])
        return np.array(flat[places], dtype)


class _Window:
    """Part of a storage, which very old files could name."""

    def __init__(self, stored: _Stored, start: int, count: int):
        self.stored, self.start, self.count = stored, start, count

    def tensor(self, offset, shape, strides, dtype=None) -> np.ndarray:
        return self.stored.tensor(offset + self.start, shape, strides, dtype)


class _Later:
    """A tensor of a legacy file, whose data comes after the pickle."""

    def __init__(self, stored, fields):
        self.stored, self.fields = stored, fields


class _Flagged:
    def __init__(self, array, metadata):
        self.array, self.metadata = array, metadata


class _Layout(str):
    pass


class _State(OrderedDict):
    def __setstate__(self, state):
        if isinstance(state, dict) and isinstance(state.get("_metadata"), dict):
            self.metadata = state["_metadata"]


class _Unpickler(pickle._Unpickler):
    dispatch = pickle._Unpickler.dispatch | {
        pickle.FRAME[0]: lambda self: self.read(8)
    }  # no buffering, no limit

    def persistent_load(self, identity):
        if identity[0] == "module":
            return identity[1]
        _, kind, key, _, numel, *_ = identity
        if key not in self.known:
            raw, order = self.raw(key)
            self.known[key] = _Stored(raw[: numel * kind.itemsize], order, kind)
        if len(identity) == 6 and identity[5] is not None:
            return _Window(self.known[key], *identity[5][1:])
        return self.known[key]

    @property
    def known(self) -> dict:
        return self.__dict__.setdefault("_known", {})

    def find_class(self, module, name):
        full = f"{module}.{name}"
        if full in _NAMES:
            return _NAMES[full]
        if module.split(".")[0] in ("numpy", "collections", "_codecs", "builtins", "__builtin__"):
            module = module.replace("numpy.core", "numpy._core").replace("__builtin__", "builtins")
            return super().find_class(module, name)
        return _Layout(full)


def _v2(stored, *fields):
    offset, shape, strides, _grad, _hooks, *metadata = fields
    return _made(stored, (offset, shape, strides), *metadata)


def _v3(stored, *fields):
    offset, shape, strides, _grad, _hooks, dtype, *metadata = fields
    return _made(stored, (offset, shape, strides, DTYPES[dtype.removeprefix("torch.")]), *metadata)


def _made(stored, fields, metadata=None):
    value = _Later(stored, fields)
    return _Flagged(value, metadata) if metadata else value


_NAMES = {
    "collections.OrderedDict": _State,
    "collections.defaultdict": lambda _factory=None: {},
    "torch._utils._rebuild_tensor": lambda stored, *fields: _made(stored, fields),
    "torch._utils._rebuild_tensor_v2": _v2,
    "torch._utils._rebuild_tensor_v3": _v3,
    "torch._utils._rebuild_parameter": lambda tensor, _grad, _hooks: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, _grad, _hooks, _state: tensor,
    "torch.Size": TorchSize,
    "torch.device": lambda kind, index=None: TorchDevice(kind if index is None else f"{kind}:{index}"),
    "torch.serialization._get_layout": str,
}
for _module in ("pathlib", "pathlib._local"):
    _NAMES |= {
        f"{_module}.{kind}": lambda *p: str(PurePosixPath(*p)) for kind in ("PosixPath", "PurePosixPath")
    }
    _NAMES |= {
        f"{_module}.{kind}": lambda *p: str(PureWindowsPath(*p))
        for kind in ("WindowsPath", "PureWindowsPath")
    }
_NAMES |= {f"torch.{name}": TorchDtype(f"torch.{name}") for name in DTYPES}
for _module in ("torch", "torch.cuda"):
    _NAMES |= {f"{_module}.{kind}": DTYPES[dtype] for kind, dtype in STORAGE_DTYPES.items()}
    _NAMES[f"{_module}.UntypedStorage"] = DTYPES["uint8"]
_NAMES["torch.storage.UntypedStorage"] = DTYPES["uint8"]


class _Legacy:
    def __init__(self, content: bytes):
        stream = io.BytesIO(content)
        known: dict = {}
        for _ in range(3):
            _Unpickler(stream, encoding="utf-8").load()
        unpickler = _Unpickler(stream, encoding="utf-8")
        unpickler.__dict__["_known"] = known
        unpickler.raw = lambda _key: (b"", "<")
        tree = unpickler.load()
        for key in _Unpickler(stream).load():
            (count,) = struct.unpack("<q", stream.read(8))
            known[key].raw = stream.read(count * known[key].dtype.itemsize)
        self.value = _settled(tree)


def _settled(value: object) -> object:
    if isinstance(value, dict):
        return {key: _settled(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, TorchSize):
        return type(value)([_settled(item) for item in value])
    return _leaf(value)


def _leaf(value: object) -> object:
    if isinstance(value, _Flagged):
        array = _leaf(value.array)
        array = array.conj() if value.metadata.get("conj") is True else array
        return -array if value.metadata.get("neg") is True else array
    if isinstance(value, _Later):
        return value.stored.tensor(*value.fields)
    if isinstance(value, _Window):
        return value.tensor(0, (value.count,), (1,))
    if isinstance(value, _Stored):
        return value.tensor(0, (len(value.raw) // value.dtype.itemsize,), (1,))
    return value.astype(value.dtype.newbyteorder("=")) if isinstance(value, np.ndarray) else value


def same(found: object, expected: object) -> bool:
    """Whether two read trees are equal, arrays bit for bit."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return same([*found.keys()], [*expected.keys()]) and same([*found.values()], [*expected.values()])
    if isinstance(found, list | tuple) and isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(same(a, b) for a, b in zip(found, expected, strict=True))
    if isinstance(found, str) and not isinstance(expected, str):
        return "." in found and (callable(expected) or isinstance(expected, np.dtype))  # a global: its name
    return _exact(found) == _exact(expected)


def _exact(value: object) -> object:
    """What two equal leaves have in common, NaN included."""
    if isinstance(value, np.ndarray | np.generic):
        return (isinstance(value, np.ndarray), value.dtype, value.shape, value.tobytes())
    if isinstance(value, float | complex):
        return (type(value), struct.pack("<2d", value.real, value.imag))
    return value


# the corpus


def corpus(folder: Path) -> list[Path]:
    """Small files of every layout: our own always, golden ones where they are found."""
    made = []
    for name, content in _own().items():
        (folder / name).write_bytes(content)
        made.append(folder / name)
    torch_file.write(_rich_object(), folder / "written.pt")
    made.append(folder / "written.pt")
    found = sorted(golden.ROOT.glob("*/*.pt")) if golden.AVAILABLE else []
    return made + [path for path in found if path.stat().st_size <= MAX_GOLDEN_BYTES]


def _rich_object() -> object:
    weights = np.arange(60, dtype=np.float32).reshape(6, 10)
    return OrderedDict(
        arrays={
            "a": weights,
            "turned": weights.T,
            "tied": weights,
            "row": weights[2],
            "empty": np.zeros((0, 3)),
        },
        half=weights.astype(DTYPES["bfloat16"]),
        wide=np.arange(4, dtype=np.uint16),
        torch=[TorchSize((2, 3)), TorchDevice("cuda:1"), TorchDtype("torch.int8")],
        nested=[{"lr": 0.1, 3: (1, -(2**70))}, {1, "x"}, b"\xff", 1 + 2j],
        count=Counter("aab"),
    )


def _own() -> dict[str, bytes]:
    floats = np.arange(24, dtype=np.float32).tobytes()
    stored, old = forge.storage("0", 24), forge.storage("0", 24, legacy=True)
    view = b"(" + forge.text("v") + forge.number(4) + forge.number(8) + b"t"
    values = {
        "lr": 0.1,
        "betas": (0.9, 0.999),
        "n": [np.float64(3), np.arange(5), np.float32(2)],
        "t": True,
        "big": 2**80,
    }
    body = forge.mapping(
        a=forge.tensor(stored, (4, 6), (6, 1)),
        b=forge.tensor(stored, (6, 4), (1, 6)),
        c=forge.call(
            "torch._utils",
            "_rebuild_parameter",
            forge.tensor(stored, (5,), (2,), 3),
            b"\x88",
            forge.ordered_dict(),
        ),
        p=forge.call("pathlib", "PosixPath", forge.text("/"), forge.text("x")),
    )
    legacy = forge.mapping(
        a=forge.tensor(old, (4, 6), (6, 1)),
        v=forge.tensor(forge.storage("0", 24, legacy=True, view=view), (8,), (1,)),
        b=forge.tensor(forge.storage("1", 8, "LongStorage", legacy=True), (2, 2), (4, 1)),
    )
    return {
        "tensors.pt": forge.zip_bytes(forge.whole(body), {"0": floats}),
        "big.pt": forge.zip_bytes(forge.whole(body), {"0": floats}, byteorder=b"big"),
        "values2.pt": forge.zip_bytes(pickle.dumps(values, 2)),
        "values5.pt": forge.zip_bytes(pickle.dumps(values, 5)),
        "unchecked.pt": forge.without_checksums(forge.zip_bytes(forge.whole(body), {"0": floats})),
        "legacy.pt": forge.legacy_bytes(legacy, {"0": (24, floats), "1": (8, bytes(range(64)))}),
    }


# damage


def damaged(content: bytes, entries: dict[str, bytes] | None, rng: random.Random) -> tuple[bytes, bool]:
    """One damaged version, and whether what it holds may differ from the original."""
    if entries is not None and rng.random() < 0.5:
        name = next(name for name in entries if name.endswith("data.pkl"))
        return forge.pack(entries | {name: _bent_pickle(entries[name], rng)}), True
    if entries is not None and rng.random() < 0.3:
        return _bent_directory(content, rng), False
    return _bent(content, rng), entries is None


def _bent(content: bytes, rng: random.Random) -> bytes:
    out = bytearray(content)
    kind = rng.randrange(6)
    if kind == 0:
        return bytes(out[: rng.randrange(len(out))])
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(out))
        length = rng.choice((1, 2, 4, 8, 30, 64, 300))
        if kind in (1, 2):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            source = rng.randrange(len(out))
            out[at : at + length] = out[source : source + length]
        elif kind == 4:
            del out[at : at + length]
        else:
            out[at:at] = rng.choice((rng.randbytes(length), bytes(length), out[at : at + length]))
        if not out:
            break
    return bytes(out)


_OPCODES = bytes(code for code in range(256) if chr(code) in "(.012FNIJKLMPQRSTUVXabcdeghijlopqrstu}]GCB)")
_OPCODES += bytes(range(0x80, 0x98))
_NAMED = (
    "os system",
    "builtins eval",
    "torch FloatStorage",
    "torch Size",
    "numpy dtype",
    "collections OrderedDict",
)
_SNIPPETS = (
    *(
        b"c" + name.replace(" ", "\n").encode() + b"\n"
        for name in (*_NAMED, "torch._utils _rebuild_tensor_v2")
    ),
    *(b"h\0", b"h\1", b"q\0", b"]q\1h\1a", b"}(", b"(tQ", b"X\xff\xff\xff\x7f"),
    *(b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff"),
)


def _bent_pickle(content: bytes, rng: random.Random) -> bytes:
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        kind = rng.randrange(7)
        at = rng.randrange(2, max(3, len(out)))
        if kind == 0:
            out[at : at + 1] = bytes([rng.choice(_OPCODES)])
        elif kind == 1:
            out[at:at] = rng.choice(_SNIPPETS)
        elif kind == 2:
            integers = [place for place, byte in enumerate(out) if byte in b"KMJ"]
            place = rng.choice(integers) if integers else at
            out[place + 1 : place + 2] = bytes([rng.choice((0, 1, 2, 5, 127, 255))])
        elif kind == 3:
            other = rng.randrange(2, max(3, len(out)))
            low, high = sorted((at, other))
            out[low:low] = out[low : min(high, low + 40)]
        elif kind == 4:
            del out[at : at + rng.choice((1, 2, 5, 20))]
        else:
            out = (
                bytearray(_bent(bytes(out), rng))
                if kind == 5
                else out[:at] + bytes([out[at % len(out)] ^ 1]) + out[at + 1 :]
            )
        if not out:
            break
    return bytes(out)


def _bent_directory(content: bytes, rng: random.Random) -> bytes:
    """Bytes of the directory, the end record or a local header changed."""
    out = bytearray(content)
    marks = [at for at in range(len(out) - 4) if out[at : at + 2] == b"PK" and out[at + 2] in (1, 3, 5, 6)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = min(rng.choice(marks) + rng.randrange(48), len(out) - 5)
        value = rng.choice((0, 1, 2, 8, 0xFF, 0xFFFF, 0xFFFFFFFF, rng.getrandbits(32)))
        out[at : at + 1] = bytes([value & 0xFF])
        if rng.random() < 0.3:
            out[at : at + 4] = struct.pack("<L", value)
    return bytes(out)
