"""Where a state dict sits inside a file: its container, its prefix, and what lies beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sparsejax.checkpoint.errors import UnexpectedKeyError, UnknownFormatError, shown
from sparsejax.checkpoint.torch_format.storages import TensorRef

CONTAINERS = ("state_dict", "model_state_dict")
PREFIXES = ("model.", "module.", "_orig_mod.")


@runtime_checkable
class LazyArray(Protocol):
    """An array whose data is read when `view` is called; NumPy arrays are one themselves."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype:
        """Its dtype."""

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""

    def view(self) -> Any:
        """The array, a read-only view of the file where that is possible; of blocks a `QuantizedTensor`."""


def is_array(value: Any) -> bool:
    """Whether a value is a tensor of the file; NumPy scalars, which look like one, are not."""
    return isinstance(value, LazyArray) and not isinstance(value, np.generic)


@dataclass(frozen=True)
class Layout:
    """All that is needed to write the same file again.

    Attributes:
      file_format: "zip" or "legacy" (torch), "npz", "onnx", "gguf", "json".
      container: top-level key that held the state dict; None for a bare one.
      prefix: what stood before every key, such as ``"_orig_mod.module."``.
      keys: keys in file order, without prefix; none where the model came from no state dict.
      beside: top-level keys in file order, the container included.
      integer_dtypes: dtype by key of integer tensors, which JAX holds as int32.
      dropped: tied or derivable keys that the file had; None writes all that are not optional.
      ties: metadata keys that are the same tensor as a key of the state dict.
      details: what else the format needs to be written again, as plain JSON: types of metadata, versions.
    """

    file_format: str = "zip"
    container: str | None = None
    prefix: str = ""
    keys: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    integer_dtypes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dropped: tuple[str, ...] | None = None
    ties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Layout:
        """The layout that `to_json` wrote."""
        lists = {
            name: tuple(fields[name]) for name in ("keys", "beside", "dropped") if fields[name] is not None
        }
        return cls(**{**fields, **lists})

    def to_json(self) -> dict[str, Any]:
        """Plain nested dict."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


def unpack(tree: Any, file_format: str) -> tuple[dict[str, LazyArray], dict[str, Any], Layout]:
    """Split what a file holds into its state dict and the rest.

    Args:
      tree: the unpickled object, with `LazyArray` leaves.
      file_format: how the file was packed.

    Returns:
      arrays by key without prefix, metadata (everything beside the state dict, as found), layout.

    Raises:
      UnknownFormatError: there is no state dict.
      UnexpectedKeyError: the state dict holds something that is no tensor.

    Example:
      >>> state, metadata, layout = unpack({"state_dict": {"module.w": np.ones(2)}, "epoch": 3}, "zip")
      >>> sorted(state), metadata, layout.prefix
      (['w'], {'epoch': 3}, 'module.')
    """
    container, state, metadata = _find(tree)
    if strangers := [key for key, value in state.items() if not isinstance(key, str) or not is_array(value)]:
        raise UnexpectedKeyError(
            f"the state dict holds {shown(strangers)}, which are not named tensors; remove them"
        )
    prefix = common_prefix(state)
    bare = {key[len(prefix) :]: value for key, value in state.items()}
    integers = {key: value.dtype.name for key, value in bare.items() if value.dtype.kind in "iu"}
    twins = {_identity(value): key for key, value in bare.items()}
    ties = {key: twins[_identity(value)] for key, value in metadata.items() if _identity(value) in twins}
    layout = Layout(file_format, container, prefix, tuple(bare), tuple(map(str, tree)), integers, ties=ties)
    return bare, metadata, layout


def pack(state: Mapping[str, np.ndarray], metadata: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """The tree of a file from its state dict and what lies beside it: the inverse of `unpack`."""
    order = {key: position for position, key in enumerate(layout.keys)}
    keys = sorted(state, key=lambda key: order.get(key, len(order)))
    typed = {key: _with_dtype(state[key], layout.integer_dtypes.get(key)) for key in keys}
    inner = {layout.prefix + key: array for key, array in typed.items()}
    beside = {**metadata, **{key: typed[twin] for key, twin in layout.ties.items() if twin in typed}}
    tree = {**beside, layout.container: inner} if layout.container else {**inner, **beside}
    position = {key: place for place, key in enumerate(layout.beside)}
    return dict(sorted(tree.items(), key=lambda item: position.get(str(item[0]), len(position))))


def common_prefix(keys: Mapping[str, Any]) -> str:
    """The wrapper names, repeated or mixed, that stand before every key.

    Example:
      >>> common_prefix({"_orig_mod.module.w": 0, "_orig_mod.module.b": 0})
      '_orig_mod.module.'
    """
    prefix = ""
    while keys:
        longer = [prefix + name for name in PREFIXES if all(key.startswith(prefix + name) for key in keys)]
        if not longer:
            break
        prefix = longer[0]
    return prefix


def same_tensor(left: Any, right: Any) -> bool:
    """Whether two entries of a file are one tensor, as tied weights are."""
    return bool(_identity(left) == _identity(right))


def _find(tree: Any) -> tuple[str | None, Mapping[Any, Any], dict[Any, Any]]:
    if not isinstance(tree, Mapping):
        raise UnknownFormatError(f"holds a {type(tree).__name__}, not a state dict; save model.state_dict()")
    for name in CONTAINERS:
        if isinstance(tree.get(name), Mapping):
            return name, tree[name], {key: value for key, value in tree.items() if key != name}
    tensors = {
        key: value for key, value in tree.items() if isinstance(key, str) and isinstance(value, LazyArray)
    }
    if not tensors:
        raise UnknownFormatError(
            f"holds no state dict: its top-level keys are {shown(map(str, tree))}; "
            f"tensors are looked for at the top or under {shown(CONTAINERS)}"
        )
    return None, tensors, {key: value for key, value in tree.items() if key not in tensors}


def _identity(value: Any) -> Any:
    """Equal for two entries that are one tensor: tied tensors are pickled as two views of one storage."""
    return (id(value.storage), *value.identity) if isinstance(value, TensorRef) else id(value)


def _with_dtype(array: np.ndarray, dtype: str | None) -> np.ndarray:
    return array if dtype is None or array.dtype.name == dtype else array.astype(dtype)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
