"""Files that are sound, and that no model here can use: told by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sparsejax.checkpoint.errors import GGUFError
from sparsejax.checkpoint.gguf.tensor import GGUFTensor, unreadable

_EXPERTS = re.compile(
    r"(?:.*_(?:exps|shexp|chexps)(?:\..*)?"  # ffn_up_exps.weight: all experts, or the shared one
    r"|.*\.ffn_gate_inp(?:_shexp)?\.\w+"  # the router
    r"|.*\.ffn_(?:gate|up|down)\.\d+\.\w+)",  # one tensor per expert, as older files have them
    re.DOTALL,
)


def refusal(metadata: Mapping[str, Any], tensors: Mapping[str, GGUFTensor]) -> GGUFError | None:
    """Why no model can be made of a file; None if nothing is known against it.

    Args:
      metadata: values by key.
      tensors: by name.
    """
    parts, number = metadata.get("split.count"), metadata.get("split.no")
    if isinstance(parts, int) and parts > 1:
        which = f"part {number + 1} of" if isinstance(number, int) else "one of"
        return GGUFError(
            f"{which} {parts} of a split model (split.count); merge the parts first: llama-gguf-split --merge"
        )
    for name, tensor in tensors.items():
        if _EXPERTS.fullmatch(name):
            return GGUFError(
                f"tensor {name[:80]!r} at byte {tensor.offset} is of a mixture of experts, which is not "
                "supported; give a model with one FFN per block",
                name,
                tensor.offset,
            )
    for name, tensor in tensors.items():
        if not tensor.kind.readable:
            return unreadable(name, tensor.kind, tensor.offset)
    return None
