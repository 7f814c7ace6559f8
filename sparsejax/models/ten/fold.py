"""Input normalisation folded into the coupling, for the published layouts, which have no place for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from sparsejax.models.ten.config import TemporalEigenstateConfig
from sparsejax.models.ten.eigenstates import drive_scale, eigenvalues
from sparsejax.typing import Params


def fold_normalization(
    config: TemporalEigenstateConfig, params: Params
) -> tuple[TemporalEigenstateConfig, dict[str, Any]]:
    """The same function without ``normalize_input``: what scaled the drive scales the read-out.

    A recurrence with constant eigenvalues is linear in every eigenstate, so that scaling its drive scales its
    states, and the coupling is the only one that reads them.

    Args:
      config: of variant ``modern``.
      params: of the network.

    Returns:
      config and parameters. States of the two networks differ by that scale.

    Raises:
      ValueError: a normalised layer is selective, or has no coupling to fold into.

    Example:
      >>> from sparsejax.models.ten.config import EigenstateLayer
      >>> layer = EigenstateLayer(normalize_input=True)
      >>> config = TemporalEigenstateConfig.modern(n_layers=1, num_eigenstates=2, n_heads=1, layer=layer)
      >>> own = {"decay_logit": jnp.zeros(2), "frequency": jnp.zeros(2), "coupling": jnp.ones((1, 2, 2))}
      >>> folded, changed = fold_normalization(config, {"layer_0": own})
      >>> folded.layer.normalize_input, round(float(changed["layer_0"]["coupling"][0, 0, 0]), 3)
      (False, 0.866)

    Source: derivation above; specs/ten.md section 9.8 for the normalisation.
    """
    changed = dict(params)
    for stem, layer in zip(("layer", "long_layer"), config.stacks, strict=False):
        if not layer.normalize_input:
            continue
        if layer.selective or layer.coupling not in ("blocks", "full"):
            raise ValueError("only constant eigenvalues with a coupling of blocks or in full can be folded")
        for number in range(config.n_layers):
            name = f"{stem}_{number}"
            changed[name] = {**changed[name], "coupling": _scaled(changed[name])}
    stacks: dict[str, Any] = {
        "layer": dataclasses.replace(config.layer, normalize_input=False),
        "long_layer": config.long_layer and dataclasses.replace(config.long_layer, normalize_input=False),
    }
    return dataclasses.replace(config, **stacks), changed


def _scaled(layer: Params) -> jax.Array:
    """The coupling (h, j, k) with its inputs k scaled as the drive was."""
    coupling = layer["coupling"]
    scale = drive_scale(eigenvalues(layer["decay_logit"], layer["frequency"]))
    return coupling * scale.reshape(coupling.shape[0], 1, -1).astype(coupling.dtype)
