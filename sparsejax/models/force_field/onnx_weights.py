"""What the published ``.onnx`` files leave out: the mixing matrix of the last interaction.

No energy depends on it, since nobody reads the vectors after the last interaction, and so the exporter
dropped it. The weights of these files are used, their graphs never: those overwrite where they should add,
and give energies that are wrong by 0.1 to 96 eV (specs/force_field.md section 2, row 8).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sparsejax.checkpoint.registry import Tensors
from sparsejax.checkpoint.sizes import count_parts
from sparsejax.models.force_field.layouts import EMBEDDING, MIXING


def pruned(tensors: Tensors) -> Mapping[str, np.ndarray]:
    """The dead mixing matrix of the last interaction, as an identity of the shape that the others have.

    Args:
      tensors: of an ``.onnx`` file, by key; only shapes and dtypes are read.

    Returns:
      one array by its key. Written to a ``.pt`` file, it stands for the one that nobody can know.

    Raises:
      MissingKeyError: there is no interaction at all, or one is left out.

    Example:
      >>> keys = ("embedding.weight", "interactions.0.update.update_mlp.0.bias")
      >>> pruned(dict.fromkeys(keys, np.zeros((2, 4))))["interactions.0.update.mixing_matrix"].shape
      (3, 3)
    """
    last = count_parts(tensors, "interactions") - 1
    first = tensors.get(MIXING.format(i=0))
    shape = (3, 3) if first is None else first.shape
    return {MIXING.format(i=last): np.eye(*shape, dtype=tensors[EMBEDDING].dtype)}
