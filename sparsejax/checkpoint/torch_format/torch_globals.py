"""The names that a torch pickle may use, and our own inert constructor for each."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from sparsejax.checkpoint.errors import UnsupportedTensorError
from sparsejax.checkpoint.torch_format import numpy_pickles
from sparsejax.checkpoint.torch_format.pickle_machine import Constructor
from sparsejax.checkpoint.torch_format.storages import StorageHandle, TensorRef, tensor_ref
from sparsejax.checkpoint.torch_format.torch_types import (
    BYTE,
    DTYPES,
    OTHER_DTYPES,
    OTHER_STORAGES,
    STORAGE_DTYPES,
    TorchDevice,
    TorchDtype,
    TorchSize,
)

MAX_PATH_PARTS = 64


class StorageType:
    """A torch storage class: what a persistent id says about the elements of a storage.

    Attributes:
      name: such as ``"torch.FloatStorage"``.
      dtype: the elements; uint8 for an untyped storage.
      supported: False where NumPy has no such elements.
    """

    __slots__ = ("dtype", "name", "supported")

    def __init__(self, name: str, dtype: np.dtype, supported: bool = True):
        self.name = name
        self.dtype = dtype
        self.supported = supported


def build(target: object, state: object) -> None:
    """The BUILD opcode: only for what defines it here.

    An OrderedDict keeps the ``_metadata`` of a state dict (module versions) as an attribute, and
    nothing else; NumPy dtypes and arrays take their state.

    Raises:
      TypeError: ``target`` is anything else.
    """
    if isinstance(target, numpy_pickles.PickledArray | numpy_pickles.PickledDtype):
        target.build(state)
    elif type(target) is OrderedDict:
        metadata = state.get("_metadata") if isinstance(state, dict) else None
        if isinstance(metadata, dict):
            # A plain OrderedDict declares no such attribute; torch sets it all the same.
            target._metadata = metadata  # type: ignore[attr-defined]
    else:
        raise TypeError(f"a state is set on a {type(target).__name__}")


# containers and Python values


def _ordered_dict(*items: object) -> OrderedDict[str, object]:
    made: OrderedDict[str, object] = OrderedDict()
    for pair in _listed(items):
        key, value = pair
        if not isinstance(key, str):
            raise TypeError("an OrderedDict made of pairs has a key that is not text")
        made[key] = value
    return made


def _counter(counts: object = None) -> Counter[object]:
    if counts is not None and type(counts) is not dict:
        raise TypeError("a Counter of something else than counts")
    return Counter(counts)


def _default_dict(_factory: object = None) -> dict[object, object]:
    return {}


def _set(*members: object) -> set[object]:
    return set(_listed(members))


def _frozenset(*members: object) -> frozenset[object]:
    return frozenset(_listed(members))


def _listed(args: tuple[object, ...]) -> list[Any]:
    """The only argument, a list; an empty one if there is none."""
    if not args:
        return []
    (items,) = args
    if not isinstance(items, list):
        raise TypeError("a container made of something else than a list")
    return items


def _bytes(*args: object) -> bytes:
    if args:
        raise TypeError("bytes made from something")
    return b""


def _bytearray(content: object = b"", encoding: object = "latin-1") -> bytearray:
    if isinstance(content, str):
        content = _encode(content, encoding)
    if not isinstance(content, bytes):
        raise TypeError("a bytearray of something else than bytes")
    return bytearray(content)


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError("_codecs.encode of something else than latin1 text")
    return text.encode("latin1")


def _complex(real: object, imaginary: object) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise TypeError("a complex number of something else than two floats")
    return complex(real, imaginary)


def _posix_path(*parts: object) -> str:
    return _joined(PurePosixPath, _checked_parts(parts))


def _windows_path(*parts: object) -> str:
    return _joined(PureWindowsPath, _checked_parts(parts))


def _checked_parts(parts: tuple[Any, ...]) -> tuple[str, ...]:
    if len(parts) > MAX_PATH_PARTS or not all(isinstance(part, str) for part in parts):
        raise TypeError("a path of too many parts, or of something else than text")
    return parts


@lru_cache  # the slowest thing a pickle may ask for again and again in a few bytes
def _joined(kind: type[PurePath], parts: tuple[str, ...]) -> str:
    return str(kind(*parts))


def _size(lengths: object) -> TorchSize:
    if not isinstance(lengths, tuple | list) or not all(type(length) is int for length in lengths):
        raise TypeError("a torch.Size of something else than integers")
    return TorchSize(lengths)


def _device(kind: object, index: object = None) -> TorchDevice:
    if not isinstance(kind, str) or not (index is None or type(index) is int):
        raise TypeError("a torch.device of something else than a name and a number")
    return TorchDevice(kind if index is None else f"{kind}:{index}")


def _layout(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError("a layout's name is not text")
    return name


# tensors


def _rebuild_tensor(*fields: object) -> TensorRef:
    handle, *layout = fields
    return _tensor(handle, layout, _stored_dtype(handle))


def _rebuild_tensor_v2(*fields: object) -> TensorRef:
    handle, offset, shape, strides, requires_grad, _hooks, *metadata = fields
    return _tensor(handle, (offset, shape, strides), _stored_dtype(handle), requires_grad, metadata)


def _rebuild_tensor_v3(*fields: object) -> TensorRef:
    handle, offset, shape, strides, requires_grad, _hooks, dtype, *metadata = fields
    if type(dtype) is not TorchDtype:
        raise TypeError("a tensor without a dtype")
    return _tensor(handle, (offset, shape, strides), _supported(dtype), requires_grad, metadata)


def _stored_dtype(handle: object) -> np.dtype:
    if not isinstance(handle, StorageHandle):
        raise TypeError("a tensor without a storage")
    return handle.dtype


def _supported(name: TorchDtype) -> np.dtype:
    dtype = name.numpy()
    if dtype is None:
        raise UnsupportedTensorError(
            f"a tensor of dtype {name} has no counterpart in NumPy and ml_dtypes; "
            "save it as another dtype, such as tensor.float()"
        )
    return dtype


def _tensor(
    handle: object,
    layout: Sequence[Any],
    dtype: np.dtype,
    requires_grad: object = False,
    metadata: Sequence[object] = (),
) -> TensorRef:
    offset, shape, strides = layout
    if (
        not isinstance(handle, StorageHandle)
        or not isinstance(shape, tuple)
        or not isinstance(strides, tuple)
    ):
        raise TypeError("a tensor without storage, shape or strides")
    ref = tensor_ref(handle, offset, tuple(shape), tuple(strides), dtype)
    if requires_grad is not True and not metadata:
        return ref
    (flags,) = metadata or ({},)
    if not isinstance(flags, dict):
        raise TypeError("a tensor whose flags are not a dict")
    conjugated, negated = flags.get("conj") is True, flags.get("neg") is True
    if (conjugated and dtype.kind != "c") or (negated and dtype.kind not in "cf"):
        raise ValueError("a conjugate or negative of a dtype without signs")
    return ref.marked(requires_grad is True, conjugated, negated)


def _rebuild_parameter_with_state(
    tensor: object, requires_grad: object, hooks: object, _state: object
) -> TensorRef:
    return _rebuild_parameter(tensor, requires_grad, hooks)


def _rebuild_parameter(tensor: object, requires_grad: object, _hooks: object) -> TensorRef:
    if not isinstance(tensor, TensorRef):
        raise TypeError("a Parameter of something else than a tensor")
    return tensor.as_parameter(requires_grad is True)


def _rebuild_from_type(function: object, _kind: object, args: object, _state: object) -> object:
    """A tensor with Python attributes: the tensor, without them."""
    if (
        not isinstance(function, Constructor)
        or function.name not in _TENSOR_MAKERS
        or type(args) is not tuple
    ):
        raise TypeError("a tensor made by something else than a tensor function")
    return _TENSOR_MAKERS[function.name](*args)


def _unsupported(what: str) -> Callable[..., object]:
    def refuse(*_args: object) -> object:
        raise UnsupportedTensorError(
            f"{what} is not supported; save a dense tensor instead, such as tensor.to_dense()"
        )

    return refuse


_TENSOR_MAKERS: dict[str, Callable[..., TensorRef]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter_with_state,
}
_MAKERS: dict[str, Callable[..., object]] = {
    **_TENSOR_MAKERS,
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    "collections.defaultdict": _default_dict,
    "_codecs.encode": _encode,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.serialization._get_layout": _layout,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch._utils._rebuild_sparse_tensor": _unsupported("a sparse tensor"),
    "torch._utils._rebuild_sparse_csr_tensor": _unsupported("a sparse tensor"),
    "torch._utils._rebuild_nested_tensor": _unsupported("a nested tensor"),
    "torch._utils._rebuild_qtensor": _unsupported("a quantised tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unsupported(
        "a tensor on the meta device, which holds no data,"
    ),
    "torch._utils._rebuild_device_tensor_from_numpy": _unsupported(
        "a tensor of another device kept as NumPy"
    ),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _unsupported(
        "a tensor of another device kept on CPU"
    ),
    "numpy.ndarray": numpy_pickles.reconstruct,
    "numpy.dtype": numpy_pickles.PickledDtype,
}
for _module in ("builtins", "__builtin__"):
    _MAKERS |= {
        f"{_module}.set": _set,
        f"{_module}.frozenset": _frozenset,
        f"{_module}.complex": _complex,
        f"{_module}.bytes": _bytes,
        f"{_module}.bytearray": _bytearray,
    }
for _core in ("numpy.core", "numpy._core"):
    _MAKERS |= {
        f"{_core}.multiarray.scalar": numpy_pickles.scalar,
        f"{_core}.multiarray._reconstruct": numpy_pickles.reconstruct,
        f"{_core}.numeric._frombuffer": numpy_pickles.from_buffer,
    }
for _module in ("pathlib", "pathlib._local"):
    _MAKERS |= {f"{_module}.{_kind}": _posix_path for _kind in ("PosixPath", "PurePosixPath")}
    _MAKERS |= {f"{_module}.{_kind}": _windows_path for _kind in ("WindowsPath", "PureWindowsPath")}

_NAMES = (  # values only: nothing happens when a pickle calls them
    *(f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in ("list", "dict", "tuple")),
    *(
        f"{module}.{kind}"
        for module in ("builtins", "__builtin__")
        for kind in ("int", "float", "str", "bool")
    ),
    *("torch.Tensor", "torch.nn.parameter.Parameter", "torch.strided"),
    *("torch.per_tensor_affine", "torch.per_tensor_symmetric", "torch.per_channel_affine"),
    *("torch.per_channel_symmetric", "torch.per_channel_affine_float_qparams"),
)


def _allowed() -> dict[str, object]:
    allowed: dict[str, object] = {
        name: Constructor(name, call, hashes=call in (_set, _frozenset)) for name, call in _MAKERS.items()
    }
    allowed |= {name: Constructor(name) for name in _NAMES}
    allowed |= {f"torch.{name}": TorchDtype(f"torch.{name}") for name in (*DTYPES, *OTHER_DTYPES)}
    for module in ("torch", "torch.cuda"):
        for kind, dtype in STORAGE_DTYPES.items():
            allowed[f"{module}.{kind}"] = StorageType(f"{module}.{kind}", DTYPES[dtype])
        for kind in OTHER_STORAGES:
            allowed[f"{module}.{kind}"] = StorageType(f"{module}.{kind}", BYTE, supported=False)
    for name in ("torch.storage.UntypedStorage", "torch.UntypedStorage", "torch.cuda.UntypedStorage"):
        allowed[name] = StorageType(name, BYTE)
    return allowed


ALLOWED: dict[str, object] = _allowed()
