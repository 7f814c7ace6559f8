"""Text of tokens that come one by one: no half characters, and an end at given words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sparsejax.training.text.tokenizer import Tokenizer

_INCOMPLETE = "\ufffd"


def text_pieces(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """The text of tokens as it grows; a piece never ends within a character, but for the last.

    Args:
      tokenizer: of the tokens.
      tokens: ids, one after another.

    Returns:
      pieces that make the text of all tokens together.

    Example:
      >>> from sparsejax.training.text.tokenizer import ByteTokenizer
      >>> list(text_pieces(ByteTokenizer(), "né".encode()))
      ['n', 'é']
    """
    # Tokens of the piece before are decoded again: a first token loses its leading space in some tokenizers.
    before: list[int] = []
    newest: list[int] = []
    for token in tokens:
        newest.append(token)
        piece = _continuation(tokenizer, before, newest)
        if piece and not piece.endswith(_INCOMPLETE):
            yield piece
            before, newest = newest, []
    if piece := _continuation(tokenizer, before, newest):
        yield piece


def until(pieces: Iterable[str], ends: Sequence[str]) -> Iterator[str]:
    """Pieces of text up to the first of some words; what may be the beginning of one is held back.

    Args:
      pieces: of a text.
      ends: words, none of them empty.

    Example:
      >>> list(until(["ab", "c. ", "Q", ": d"], ["Q:"]))
      ['ab', 'c. ']
    """
    held = ""
    for piece in pieces:
        held += piece
        found = [place for place in map(held.find, ends) if place >= 0]
        if found:
            held = held[: min(found)]
            break
        kept = max((_overlap(held, end) for end in ends), default=0)
        if told := held[: len(held) - kept]:
            yield told
        held = held[len(held) - kept :]
    if held:
        yield held


def _continuation(tokenizer: Tokenizer, before: Sequence[int], newest: Sequence[int]) -> str:
    return tokenizer.decode([*before, *newest])[len(tokenizer.decode(before)) :]


def _overlap(text: str, end: str) -> int:
    """Letters at the end of the text that the end begins with."""
    return next((n for n in range(min(len(text), len(end) - 1), 0, -1) if text.endswith(end[:n])), 0)
