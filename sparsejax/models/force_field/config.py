"""Sizes and kind of a force field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sparsejax.ops.counts import check_count

Variant = Literal["cartesian", "equivariant"]
"""How vector features mix: by a 3 x 3 matrix on x, y, z as published, or channel by channel."""

_COUNTS = ("hidden_dim", "num_interactions", "num_rbf", "max_z")


@dataclass(frozen=True)
class ForceFieldConfig:
    """Sizes and kind of a message-passing force field.

    Attributes:
      hidden_dim: channels c of the scalar and vector features of an atom; a multiple of 4.
      num_interactions: message and update steps.
      num_rbf: radial functions of the distance.
      cutoff: A, up to which atoms see each other; an atom at exactly this distance is seen.
      max_z: largest atomic number that the table of elements has a row for.
      learnable_rbf: train the centres and widths of the radial functions.
      variant: "cartesian" is the published network: it mixes x, y and z, so that energies change when a
        molecule is turned; its filters do not vanish at the cutoff; its norms have kinks. Imported weights
        need it. "equivariant" mixes channels, lets the filters vanish, and rounds the norms off.
      norm_epsilon: by how much the norms of "equivariant" are rounded off, in their own units.
      reference_energies: add a trained energy per element to that of each atom.
      species: atomic numbers that the network was trained on; None where nobody knows.

    Raises:
      ValueError: a size that is not positive, or an unknown variant.

    Source: specs/force_field.md section 1; section 2 for what "equivariant" mends.
    """

    hidden_dim: int = 128
    num_interactions: int = 3
    num_rbf: int = 20
    cutoff: float = 5.0
    max_z: int = 118
    learnable_rbf: bool = False
    variant: Variant = "equivariant"
    norm_epsilon: float = 1e-2
    reference_energies: bool = False
    species: tuple[int, ...] | None = None

    def __post_init__(self):
        """Check the sizes."""
        for name in _COUNTS:
            check_count(name, getattr(self, name), 1)
        if self.hidden_dim % 4:
            raise ValueError(f"hidden_dim must be a multiple of 4, not {self.hidden_dim}")
        if not (isinstance(self.cutoff, int | float) and math.isfinite(self.cutoff) and self.cutoff > 0):
            raise ValueError(f"cutoff must be a positive number of A, not {self.cutoff!r}")
        if not self.norm_epsilon > 0:
            raise ValueError(f"norm_epsilon must be positive, not {self.norm_epsilon!r}")
        if self.variant not in get_args(Variant):
            raise ValueError(f"no variant {self.variant!r}; choose one of {get_args(Variant)}")
        if self.species is not None:
            object.__setattr__(self, "species", tuple(sorted({int(number) for number in self.species})))
            if any(not 0 < number <= self.max_z for number in self.species):
                raise ValueError(f"species must lie between 1 and max_z={self.max_z}, not {self.species}")

    @property
    def num_parameters(self) -> int:
        """Trained numbers, counted as published: without the radial functions unless they are learned.

        Example:
          >>> ForceFieldConfig(max_z=100, variant="cartesian").num_parameters
          427292
        """
        c, k, layers = self.hidden_dim, self.num_rbf, self.num_interactions
        mixing = 9 if self.variant == "cartesian" else c * c
        layer = (k * c + c) + 2 * (3 * c * c + 3 * c) + (2 * c * c + c) + mixing
        readout = (c * (c // 2) + c // 2) + ((c // 2) * (c // 4) + c // 4) + (c // 4 + 1)
        rows = (self.max_z + 1) * (c + self.reference_energies)
        return rows + layers * layer + readout + (2 * k if self.learnable_rbf else 0)

    def to_json(self) -> dict[str, Any]:
        """As a dict that JSON can carry."""
        return dataclasses.asdict(self) | {"species": None if self.species is None else list(self.species)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ForceFieldConfig:
        """The inverse of `to_json`."""
        species = fields.get("species")
        return cls(**{**fields, "species": None if species is None else tuple(species)})
