"""Rules of the layers that torch files of all families have."""

from __future__ import annotations

from sparsejax.checkpoint.rules import Rule
from sparsejax.checkpoint.transforms import transpose


def linear_rules(source: str, target: str) -> tuple[Rule, ...]:
    """A linear layer with its bias.

    Args:
      source: its name in the file.
      target: its path in the parameters.

    Example:
      >>> [rule.target for rule in linear_rules("mlp.0", "ffn_in")]
      ['ffn_in/kernel', 'ffn_in/bias']
    """
    return (
        Rule(f"{source}.weight", f"{target}/kernel", transpose),
        Rule(f"{source}.bias", f"{target}/bias"),
    )


def norm_rules(source: str, target: str) -> tuple[Rule, ...]:
    """A normalisation with scale and bias.

    Args:
      source: its name in the file.
      target: its path in the parameters.

    Example:
      >>> [rule.target for rule in norm_rules("norm", "final_norm")]
      ['final_norm/scale', 'final_norm/bias']
    """
    return Rule(f"{source}.weight", f"{target}/scale"), Rule(f"{source}.bias", f"{target}/bias")
