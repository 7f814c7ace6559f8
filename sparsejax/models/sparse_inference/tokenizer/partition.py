"""Cutting a text at the tokens that are taken whole, such as ``<s>``."""

from __future__ import annotations

from collections.abc import Mapping

Part = str | int
"""Text still to be cut into tokens, or the id of a token."""


def partition(text: str, whole: Mapping[str, int]) -> list[Part]:
    """The text in parts: ids of the given tokens wherever they stand, and what is between them.

    A longer token is looked for before a shorter one, in all of the text.

    Args:
      text: any.
      whole: ids by text, none empty.

    Example:
      >>> partition("a<s>b", {"<s>": 1})
      ['a', 1, 'b']
      >>> partition("<<s>", {"<s>": 1, "<": 2})
      [2, 1]
    """
    parts: list[Part] = [text] if text else []
    for token in sorted(whole, key=len, reverse=True):
        if token in text:
            parts = [piece for part in parts for piece in _cut(part, token, whole[token])]
    return parts


def _cut(part: Part, token: str, number: int) -> list[Part]:
    if isinstance(part, int):
        return [part]
    first, *rest = part.split(token)
    parts: list[Part] = [first]
    for text in rest:
        parts += [number, text]
    return [piece for piece in parts if piece != ""]
