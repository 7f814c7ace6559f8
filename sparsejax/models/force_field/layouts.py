"""The file layout of the family as a conversion table, both ways; the published one and ours share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsejax.checkpoint.layer_rules import linear_rules
from sparsejax.checkpoint.rules import Rule
from sparsejax.models.force_field.config import ForceFieldConfig

EMBEDDING = "embedding.weight"
CENTERS, WIDTHS = "rbf.centers", "rbf.widths"
MIXING = "interactions.{i}.update.mixing_matrix"
"""The key whose shape tells the variant: (3, 3), or one row and column per channel."""

REFERENCE_ENERGIES = "reference_energies"
"""A key of our own: an energy per element, in files of networks that have them."""

_LINEAR = (
    *(f"interactions.{{i}}.message.rbf_to_scalar.{number}" for number in (0, 2)),
    *(f"interactions.{{i}}.update.update_mlp.{number}" for number in (0, 2)),
    *(f"energy_head.{number}" for number in (0, 2, 4)),
)
_KEYS = (
    *(EMBEDDING, CENTERS, WIDTHS, MIXING),
    *(f"{name}.{part}" for name in _LINEAR for part in ("weight", "bias")),
)

LAYOUTS: Mapping[str, Sequence[str]] = {"cartesian": _KEYS, "equivariant": _KEYS}
"""Keys by variant (specs/force_field.md section 3)."""


def rules(variant: str, config: ForceFieldConfig) -> tuple[Rule, ...]:
    """The conversion table of a network, in the order that the published files have.

    Args:
      variant: "cartesian", whose mixing matrix is applied from the left to x, y and z, or "equivariant",
        whose is applied from the right to channels; both are stored as they are.
      config: of the network.

    Example:
      >>> [rule.source for rule in rules("cartesian", ForceFieldConfig())][:3]
      ['embedding.weight', 'rbf.centers', 'rbf.widths']
    """
    del variant
    table = [
        Rule(EMBEDDING, "embedding/embedding"),
        Rule(CENTERS, "rbf/centers"),
        Rule(WIDTHS, "rbf/widths"),
    ]
    for layer in range(config.num_interactions):
        table += _interaction(layer)
    for number, name in ((0, "hidden_0"), (2, "hidden_1"), (4, "energy")):
        table += linear_rules(f"energy_head.{number}", f"readout/{name}")
    if config.reference_energies:
        table.append(Rule(REFERENCE_ENERGIES, "reference_energies"))
    return tuple(table)


def _interaction(layer: int) -> list[Rule]:
    source, target = f"interactions.{layer}", f"interaction_{layer}"
    return [
        *linear_rules(f"{source}.message.rbf_to_scalar.0", f"{target}/message/hidden"),
        *linear_rules(f"{source}.message.rbf_to_scalar.2", f"{target}/message/filter"),
        Rule(MIXING.format(i=layer), f"{target}/update/mixing"),
        *linear_rules(f"{source}.update.update_mlp.0", f"{target}/update/hidden"),
        *linear_rules(f"{source}.update.update_mlp.2", f"{target}/update/gates"),
    ]
