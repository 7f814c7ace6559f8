"""Merging of the characters of a text by the scores of the tokens they make."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence


def merge_by_score(text: str, ids: Mapping[str, int], scores: Sequence[float]) -> list[str]:
    """Pieces of a text: again and again, the adjacent two whose token has the highest score become one.

    Of equal scores the leftmost two are merged first. The time grows as n log n.

    Args:
      text: as the vocabulary spells it.
      ids: of the tokens, by text.
      scores: by id.

    Returns:
      the pieces in order; only single characters may be without a token.

    Example:
      >>> merge_by_score("abab", {"a": 0, "b": 1, "ab": 2, "ba": 3}, [0.0, 0.0, -2.0, -1.0])
      ['a', 'ba', 'b']

    Source: the published SentencePiece BPE, as specs/sparse_inference.md section 13 states it.
    """
    count = len(text)
    ends = list(range(1, count + 1))  # of the piece that begins here; 0 where none does any more
    before = list(range(-1, count - 1))  # where the piece on the left begins
    heap: list[tuple[float, int, int, int]] = []

    def offer(left: int, right: int) -> None:
        token = ids.get(text[left : ends[right]])
        if token is not None:
            heapq.heappush(heap, (-scores[token], left, right, ends[right]))

    for right in range(1, count):
        offer(right - 1, right)
    while heap:
        _, left, right, end = heapq.heappop(heap)
        if ends[left] != right or ends[right] != end:
            continue  # one of the two has been merged with another since
        ends[left], ends[right] = end, 0
        if end < count:
            before[end] = left
            offer(left, end)
        if left:
            offer(before[left], left)
    pieces, start = [], 0
    while start < count:
        pieces.append(text[start : ends[start]])
        start = ends[start]
    return pieces
