"""Text from a Llama in a GGUF file, by all of its neurons or by those that predictors choose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.errors import UnknownFormatError, file_name
from sparsejax.checkpoint.load import load
from sparsejax.models.sparse_inference.generation import TokenStream, stream
from sparsejax.models.sparse_inference.llama_config import LlamaConfig
from sparsejax.models.sparse_inference.llama_source import tokenizer_of
from sparsejax.models.sparse_inference.plain_ffn import plain_ffn_bytes, with_plain_ffn
from sparsejax.training.recipes.llama_generate_settings import LlamaGenerateSettings
from sparsejax.training.recipes.llama_predictors import read_predictors
from sparsejax.training.run_folder import best_of
from sparsejax.training.text.pieces import until

_MOST_PLAIN_BYTES = 4 << 30
"""Matrices of FFNs that "auto" keeps without quantisation, so that single neurons can be computed."""


def generated_text(settings: LlamaGenerateSettings) -> Iterator[str]:
    """The continuation of a prompt, piece by piece.

    Args:
      settings: of the command.

    Returns:
      an iterator; it ends at the tokenizer's stop tokens, too. The model is loaded and the prompt read when
      this returns.

    Raises:
      CheckpointError: the model, its tokenizer or the predictors cannot be read, or do not belong together.
      ValueError: the prompt or an option does not fit.
    """
    share = settings.active_fraction
    if share is not None and settings.predictors is None:
        raise ValueError("--active-fraction needs --predictors DIR, which sparsejax calibrate writes")
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"--active-fraction must be above 0 and at most 1, not {share}")
    if any(not text for text in settings.stop):
        raise ValueError("--stop is empty; give a text to end at")
    if not settings.prompt:
        raise ValueError("the prompt is empty; give at least one character")
    ck = load_llama(settings.model)
    tokenizer = tokenizer_of(ck)
    if tokenizer is None:
        raise UnknownFormatError(f"{file_name(settings.model)}: has no tokenizer, so it takes no text")
    selection: dict[str, Any] = {}
    if settings.predictors is not None:
        found = read_predictors(settings.predictors, ck)
        selection = {"predictors": list(found.each), "active_fraction": share or found.active_fraction}
        if settings.select == "neurons" or (
            settings.select == "auto" and plain_ffn_bytes(ck.config) <= _MOST_PLAIN_BYTES
        ):
            ck = with_plain_ffn(ck)
    tokens = stream(
        ck,
        settings.prompt,
        tokenizer=tokenizer,
        max_new_tokens=settings.max_new_tokens,
        key=jax.random.key(settings.seed),
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        repetition_penalty=settings.repetition_penalty,
        **selection,
    )
    return until(text_of(tokens), settings.stop)


def load_llama(path: Path) -> Checkpoint:
    """A network in a GGUF file, a sparsejax directory of one, or the best of a run's folder.

    Raises:
      CheckpointError: it cannot be read, or holds something else.
    """
    path = best_of(path)
    ck = load(path, kind="sparse_inference")
    if not isinstance(ck.config, LlamaConfig):
        raise UnknownFormatError(f"{file_name(path)}: holds {ck.kind}/{ck.variant}, no Llama")
    return ck


def text_of(tokens: TokenStream) -> Iterator[str]:
    """The characters that each token of the only row completes.

    Args:
      tokens: from `sparsejax.models.sparse_inference.generation.stream`, with a tokenizer.
    """
    assert tokens.tokenizer is not None
    decoder = tokens.tokenizer.text_stream()
    for newest in tokens:
        if piece := decoder.feed(int(newest[0])):
            yield piece
    if piece := decoder.finish():
        yield piece
