"""What is known of a GGUF file once its head is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsejax.checkpoint.errors import GGUFError
from sparsejax.checkpoint.gguf.string_array import StringArray
from sparsejax.checkpoint.gguf.tensor import GGUFTensor


@dataclass(frozen=True)
class GGUFFile:
    """An open GGUF file; no tensor of it has been read.

    Attributes:
      path: as given.
      version: of the format, 2 or 3.
      alignment: every tensor begins at a multiple of it, counted from `data_offset`.
      data_offset: byte of the file at which the data of the tensors begin.
      metadata: values by key in the file's order: int, float, bool, str, NumPy arrays of numbers, and
        `StringArray` for texts.
      types: of the values by key: "u32", "f32", "str", "[str]", ... `write_gguf` takes them again.
      tensors: by name, in the file's order.
      problem: why no model can be made of the file, if it was read with ``strict=False``.

    Example:
      >>> import os, tempfile
      >>> from sparsejax.checkpoint.gguf import read_gguf, write_gguf
      >>> path = os.path.join(tempfile.mkdtemp(), "w.gguf")
      >>> write_gguf(path, {"general.name": "toy"}, {"w": np.zeros(8, np.float32)})
      >>> file = read_gguf(path)
      >>> file.metadata, file.types, file.tensors["w"].dequantize().shape
      ({'general.name': 'toy'}, {'general.name': 'str'}, (8,))
    """

    path: Path
    version: int
    alignment: int
    data_offset: int
    metadata: dict[str, Any]
    types: dict[str, str]
    tensors: Mapping[str, GGUFTensor]
    problem: GGUFError | None = field(default=None, compare=False)

    @property
    def architecture(self) -> str | None:
        """What the file says it is, such as "llama"; None if it does not."""
        found = self.metadata.get("general.architecture")
        return found if isinstance(found, str) else None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def facts(self) -> dict[str, str]:
        """What a reader wants to know first, as short texts by name."""
        told = {"GGUF version": str(self.version), "architecture": self.architecture or "not told"}
        if isinstance(name := self.metadata.get("general.name"), str):
            told["name"] = name[:80]
        formats = Counter(tensor.format for tensor in self.tensors.values())
        told["formats"] = ", ".join(f"{count} {name}" for name, count in formats.most_common())
        told["tokenizer"] = self._tokenizer()
        return told

    def _tokenizer(self) -> str:
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if not isinstance(tokens, StringArray):
            return "none"
        model = self.metadata.get("tokenizer.ggml.model")
        merges = self.metadata.get("tokenizer.ggml.merges")
        merged = f", {len(merges):,} merges" if isinstance(merges, StringArray) else ""
        return f"{model if isinstance(model, str) else 'unnamed'}, {len(tokens):,} tokens{merged}"
