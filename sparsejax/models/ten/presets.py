"""Networks by name: the published sizes, and small ones for reading bytes on a CPU."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from sparsejax.models.ten.config import TemporalEigenstateConfig

PUBLISHED_VOCABULARY = 50257
LONG = 32768

_EIGENSTATE_SHARE = 8  # num_eigenstates = dim / 8 in every published preset


def _published(dim: int, n_layers: int, energy: float, length: int = 2048) -> dict[str, Any]:
    return {
        "vocab_size": PUBLISHED_VOCABULARY,
        "dim": dim,
        "n_layers": n_layers,
        "num_eigenstates": dim // _EIGENSTATE_SHARE,
        "energy_reg_weight": energy,
        "max_seq_len": length,
    }


PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "nano": _published(512, 4, 0.01),
    "micro": _published(768, 6, 0.01),
    "small": _published(1024, 8, 0.01),
    "medium": _published(1280, 12, 0.01),
    "large": _published(1536, 16, 0.02),
    "xlarge": _published(2048, 20, 0.02),
    "small_32k": _published(1024, 8, 0.01, LONG),
    "medium_32k": _published(1280, 12, 0.01, LONG),
    "large_32k": _published(1536, 16, 0.02, LONG),
}
"""Fields over the defaults of `TemporalEigenstateConfig`.

Known of the originals: the names, widths from 512 to 2048, 4 to 20 layers, an eighth of the width in
eigenstates, an energy weight of 0.01 or 0.02, and that ``small_32k`` has 156.7 million parameters, which
width 1024 with 8 layers gives. The sizes between the ends, who has which energy weight, and position tables
other than 32k are this library's choice; the blocks at several time scales that ``large`` had are not there.
"""

OWN: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"dim": 128, "n_layers": 4, "num_eigenstates": 64, "use_gradient_checkpointing": False},
    "mini": {"dim": 256, "n_layers": 6, "num_eigenstates": 128, "use_gradient_checkpointing": False},
}
"""Fields over those of `TemporalEigenstateConfig.modern`, for a byte vocabulary."""

BYTE_VOCABULARY = 258

NAMES = (*OWN, *PUBLISHED)


def preset(name: str, **fields: Any) -> TemporalEigenstateConfig:
    """A config by name.

    Args:
      name: one of `NAMES`.
      fields: any fields of the config, over those of the preset.

    Raises:
      ValueError: there is no such preset, or the fields do not fit together.

    Example:
      >>> preset("small_32k").num_parameters, preset("tiny").num_parameters
      (156662784, 815619)

    Source: specs/ten.md sections 6 and 8.
    """
    if name in OWN:
        return TemporalEigenstateConfig.modern(**{"vocab_size": BYTE_VOCABULARY, **OWN[name], **fields})
    if name in PUBLISHED:
        return TemporalEigenstateConfig(**{**PUBLISHED[name], **fields})
    near = difflib.get_close_matches(name, NAMES, n=2)
    raise ValueError(
        f"no preset is called {name!r}; {'near it' if near else 'there are'}: {', '.join(near or NAMES)}"
    )
