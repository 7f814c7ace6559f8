"""Torch files without torch: open, read and write ``.pt`` files safely.

Reading runs nothing from the file (see `pickle_machine`), and takes its arrays straight from a memory
map. The file must stay whole while they are in use: if another process shortens it, the operating
system ends this process with SIGBUS. Replace such files instead of overwriting them.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

from sparsejax.checkpoint.errors import NotReadableError, file_name
from sparsejax.checkpoint.readable import mapped, opened
from sparsejax.checkpoint.torch_format import bulk
from sparsejax.checkpoint.torch_format.pickle_tree import leaves, rebuild
from sparsejax.checkpoint.torch_format.storages import TensorRef
from sparsejax.checkpoint.torch_format.torch_decode import decode_legacy, decode_zip, is_legacy
from sparsejax.checkpoint.torch_format.torch_writer import write
from sparsejax.checkpoint.torch_format.torch_zip import SIGNATURE, open_archive

__all__ = ["TorchFile", "open_file", "read", "write"]

_OTHER_KINDS = {  # first bytes of files that people mistake for torch files
    b"GGUF": "a GGUF file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy .npy file",
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"version https://git-lfs": "a Git LFS pointer; fetch the real file with 'git lfs pull'",
    b"<!DOCTYPE": "a web page; the download went wrong",
    b"<html": "a web page; the download went wrong",
}


@dataclass(frozen=True, slots=True)
class TorchFile:
    """A torch file, opened and decoded; no tensor data read yet.

    Attributes:
      path: the file.
      format: ``"zip"`` (torch >= 1.6) or ``"legacy"``.
      globals: the names its pickles use, sorted; all are on the allow-list.
      tree: nested dict, list, tuple and Python values with `TensorRef` leaves.
      file_bytes: its size.
    """

    path: Path
    format: Literal["zip", "legacy"]
    globals: tuple[str, ...]
    tree: object
    file_bytes: int

    def tensors(self) -> Iterator[TensorRef]:
        """Every tensor of the tree, in its order; a tied one as often as it occurs."""
        return (leaf for leaf in leaves(self.tree) if isinstance(leaf, TensorRef))


def open_file(path: str | PathLike[str]) -> TorchFile:
    """Opens a torch file and decodes what it says about its tensors, without reading their data.

    Args:
      path: a ``.pt`` / ``.pth`` / ``.bin`` file that ``torch.save`` wrote, zip or legacy.

    Raises:
      NotReadableError: no such file, a directory, no permission, or not a torch file.
      TruncatedFileError: it ends too early.
      CorruptFileError: its records contradict each other or their checksums.
      UnsafePickleError: its pickle asks for a global outside the allow-list; nothing was run.
      UnsupportedTensorError: a sparse, quantised, nested or meta tensor, or a dtype NumPy lacks.

    Example:
      >>> import numpy as np, os, tempfile
      >>> path = os.path.join(tempfile.mkdtemp(), "w.pt")
      >>> write({"w": np.zeros((2, 3), np.float32)}, path)
      >>> open_file(path).tree["w"].shape
      (2, 3)
    """
    path = Path(path)
    where = file_name(path)
    with opened(path) as stream:
        file = mapped(stream, path)
        if file[:4] == SIGNATURE:
            decoded = decode_zip(open_archive(stream, file, where), file, where)
            return TorchFile(path, "zip", decoded.globals, decoded.tree, len(file))
    if is_legacy(file):
        decoded = decode_legacy(file, where)
        return TorchFile(path, "legacy", decoded.globals, decoded.tree, len(file))
    raise NotReadableError(f"{where}: not a torch file but {_kind(file)}")


def read(path: str | PathLike[str], *, verify: bool = True) -> object:
    """Reads a torch file into nested Python values and NumPy arrays.

    Args:
      path: as for `open_file`.
      verify: compare every storage with its checksum (reads the whole file once). Files written
        under ``torch.serialization.set_crc32_options(False)`` and legacy files hold no checksums.

    Returns:
      the saved object: dict, OrderedDict, list, tuple, set and Python values as they were; tensors
      and Parameters as read-only arrays that view the memory-mapped file. Tensors that shared memory
      share it, and a tied tensor is one and the same array. bfloat16 and float8 arrays have ml_dtypes
      dtypes; torch.Size, torch.device and torch.dtype become `TorchSize`, `TorchDevice` and
      `TorchDtype`; paths become text.

    Raises:
      CheckpointError: as `open_file`; CorruptFileError also where data does not match its checksum.

    Example:
      >>> import numpy as np, os, tempfile
      >>> path = os.path.join(tempfile.mkdtemp(), "w.pt")
      >>> write({"w": np.arange(3.0)}, path)
      >>> read(path)
      {'w': array([0., 1., 2.])}
    """
    opened = open_file(path)
    if verify:
        bulk.verify(ref.storage for ref in opened.tensors())
    return rebuild(opened.tree, _array)


def _array(leaf: object) -> object:
    return leaf.view() if isinstance(leaf, TensorRef) else leaf


def _kind(file: mmap.mmap) -> str:
    """What a file that is not torch's seems to be, and what to do."""
    head = file[:512]
    for start, kind in _OTHER_KINDS.items():
        if head.startswith(start):
            return kind
    if head[257:262] == b"ustar":
        return "a tar file, torch's format before 0.1.10; load it with an old torch and save it again"
    if head[8:9] == b"{":
        return "a safetensors file"
    if head[:1] == b"\x80":
        return "a plain pickle; save the weights with torch.save(state_dict, path)"
    if all(byte in b"\t\n\r" or byte >= 32 for byte in head):
        return "a text file"
    return "something unknown; give a file that torch.save wrote"
