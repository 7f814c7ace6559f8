"""Text from a Temporal Eigenstate Network: checkpoint, tokenizer and generation put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax

from sparsejax.checkpoint.load import load
from sparsejax.models.ten.generate import stream
from sparsejax.training.recipes.ten.generate_settings import TenGenerateSettings
from sparsejax.training.run_folder import best_of
from sparsejax.training.text.checkpoint_tokenizer import tokenizer_of
from sparsejax.training.text.pieces import text_pieces, until


def generated_text(
    settings: TenGenerateSettings, overrides: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """The continuation of a prompt, piece by piece.

    Args:
      settings: of the command.
      overrides: ``settings.override`` as values.

    Returns:
      an iterator; it ends at the tokenizer's end of a document, too. The checkpoint is loaded and the prompt
      read when this returns.

    Raises:
      CheckpointError: the checkpoint cannot be read.
      ValueError: the prompt, an option or the tokenizer does not fit.
    """
    path = best_of(settings.checkpoint)
    ck = load(path, kind="ten", variant=settings.variant, overrides=overrides)
    tokenizer = tokenizer_of(ck, settings.tokenizer)
    vocabulary = ck.config.vocab_size
    if any(not text for text in settings.stop):
        raise ValueError("--stop is empty; give a text to end at")
    prompt = tokenizer.encode(settings.prompt.encode("utf-8", "surrogateescape"))
    if not len(prompt):
        raise ValueError("the prompt is empty; give at least one character")
    tokens = stream(
        ck,
        [prompt],
        max_new_tokens=settings.max_new_tokens,
        key=jax.random.key(settings.seed),
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        repetition_penalty=settings.repetition_penalty,
        stop_tokens=[] if tokenizer.end is None or tokenizer.end >= vocabulary else [tokenizer.end],
        stack=settings.stack,
    )
    return until(text_pieces(tokenizer, (int(token[0]) for token in tokens)), settings.stop)
