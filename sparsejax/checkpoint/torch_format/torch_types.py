"""Values of a torch file that NumPy lacks, as inert Python types, and the tables of dtypes."""

from __future__ import annotations

import ml_dtypes
import numpy as np


class TorchSize(tuple[int, ...]):
    """A ``torch.Size``: a tuple of ints that is written back as what it was."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"TorchSize({list(self)})"


class _TorchName(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class TorchDevice(_TorchName):
    """A ``torch.device`` as text, such as ``"cuda:0"``."""

    __slots__ = ()


class TorchDtype(_TorchName):
    """A ``torch.dtype`` as text, such as ``"torch.float32"``."""

    __slots__ = ()

    def numpy(self) -> np.dtype | None:
        """The NumPy or ml_dtypes dtype of the same bits; None if there is none."""
        return DTYPES.get(self.removeprefix("torch."))


BYTE = np.dtype(np.uint8)
DTYPES: dict[str, np.dtype] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "float8_e8m0fnu": np.dtype(ml_dtypes.float8_e8m0fnu),
    "int8": np.dtype(np.int8),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "uint8": np.dtype(np.uint8),
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "bool": np.dtype(np.bool_),
    "complex64": np.dtype(np.complex64),
    "complex128": np.dtype(np.complex128),
}

# Names that torch pickles as values, without a counterpart here: fine as values, not as tensors.
OTHER_DTYPES = (
    *("complex32", "quint8", "qint8", "qint32", "quint4x2", "quint2x4", "float4_e2m1fn_x2"),
    *("bits8", "bits16", "bits1x8", "bits2x4", "bits4x2"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)),
)

# torch keeps dtypes that are newer than its typed storages in an untyped storage of bytes.
STORAGE_DTYPES: dict[str, str] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
}
OTHER_STORAGES = ("QUInt8Storage", "QInt8Storage", "QInt32Storage", "QUInt4x2Storage", "QUInt2x4Storage")


def names_by_dtype() -> dict[np.dtype, str]:
    """Give torch's dtype name of each supported dtype."""
    return {dtype: name for name, dtype in DTYPES.items()}


def storages_by_dtype() -> dict[str, str]:
    """The typed storage class of each torch dtype name that has one."""
    return {dtype: storage for storage, dtype in STORAGE_DTYPES.items()}
