"""Text from a Llama in a GGUF file, by all of its neurons or by those that predictors choose."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.errors import UnknownFormatError, file_name
from sparsejax.checkpoint.load import load
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.generation import TokenStream, stream
from sparsejax.models.sparse_inference.llama.plain_ffn import plain_ffn_bytes, with_plain_ffn
from sparsejax.models.sparse_inference.llama.source import tokenizer_of
from sparsejax.models.sparse_inference.store.llama import StoredLlama
from sparsejax.training.recipes.llama.generate_settings import LlamaGenerateSettings
from sparsejax.training.recipes.llama.predictors import PredictorSet, read_predictors
from sparsejax.training.run_folder import best_of
from sparsejax.training.text.pieces import until

_MOST_PLAIN_BYTES = 4 << 30
"""Matrices of FFNs that "auto" keeps without quantisation, so that single neurons can be computed."""


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def generated_text(
    settings: LlamaGenerateSettings, on_store: Callable[[StoredLlama], Any] | None = None
) -> Iterator[str]:
    """The continuation of a prompt, piece by piece.

    Args:
      settings: of the command.
      on_store: takes the network after the last piece, if its neurons are in a store, which is closed then.

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
    if settings.select_by == "threshold" and (share is not None or settings.predictors is None):
        raise ValueError(
            "--select-by threshold takes the thresholds of --predictors DIR, and no --active-fraction"
        )
    if any(not text for text in settings.stop):
        raise ValueError("--stop is empty; give a text to end at")
    if not settings.prompt:
        raise ValueError("the prompt is empty; give at least one character")
    budget = None if settings.device_budget is None else byte_count(settings.device_budget)
    with contextlib.nullcontext() if budget is None else _in_host_memory():
        ck, selection = _network(settings)
    tokenizer = tokenizer_of(ck)
    if tokenizer is None:
        raise UnknownFormatError(f"{file_name(settings.model)}: has no tokenizer, so it takes no text")
    options: dict[str, Any] = {
        "tokenizer": tokenizer,
        "max_new_tokens": settings.max_new_tokens,
        "key": jax.random.key(settings.seed),
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "repetition_penalty": settings.repetition_penalty,
    }
    if budget is None:
        return until(text_of(stream(ck, settings.prompt, **options, **selection)), settings.stop)
    stored = StoredLlama.from_checkpoint(ck, budget, **selection)
    try:
        pieces = until(text_of(stream(stored, settings.prompt, **options)), settings.stop)
    except BaseException:
        stored.close()
        raise
    return _closing(stored, pieces, on_store)


def _network(settings: LlamaGenerateSettings) -> tuple[Checkpoint, dict[str, Any]]:
    """The network, and how its tokens choose neurons."""
    ck = load_llama(settings.model)
    if settings.predictors is None:
        return ck, {}
    found = read_predictors(settings.predictors, ck)
    fits = plain_ffn_bytes(ck.config) <= _MOST_PLAIN_BYTES
    if settings.select == "neurons" or (settings.select == "auto" and fits):
        ck = with_plain_ffn(ck)
    return ck, {"predictors": list(found.each), **_amount(settings, found)}


def byte_count(text: str) -> int:
    """Bytes that a text such as "500MB" tells.

    Args:
      text: a number, and K, M or G, of which Ki, Mi and Gi are powers of 1,024; B may follow.

    Raises:
      ValueError: it is no such text, or less than a byte.

    Example:
      >>> byte_count("1.5 GB"), byte_count("64MiB"), byte_count("1000")
      (1500000000, 67108864, 1000)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?|)B?", text.strip().upper())
    count = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if count < 1:
        raise ValueError(f"--device-budget takes bytes such as 500MB or 2GB, not {text!r}")
    return count


def _closing(
    stored: StoredLlama, pieces: Iterator[str], on_store: Callable[[StoredLlama], Any] | None
) -> Iterator[str]:
    with stored:
        yield from pieces
    if on_store is not None:
        on_store(stored)


def _in_host_memory() -> contextlib.AbstractContextManager[Any]:
    """Arrays that are made within stay off the accelerator, where the CPU is one of JAX's devices."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return contextlib.nullcontext()
    found: contextlib.AbstractContextManager[Any] = jax.default_device(host)
    return found


def _amount(settings: LlamaGenerateSettings, found: PredictorSet) -> dict[str, Any]:
    """How many neurons: a share of them, or those above each block's threshold."""
    if settings.select_by == "count":
        return {"active_fraction": settings.active_fraction or found.active_fraction}
    wanted = SparsityConfig.with_target_sparsity(1 - found.active_fraction)
    return {"sparsity": [wanted.calibrated(threshold) for threshold in found.thresholds]}


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
      tokens: from `sparsejax.models.sparse_inference.llama.generation.stream`, with a tokenizer.
    """
    assert tokens.tokenizer is not None
    decoder = tokens.tokenizer.text_stream()
    for newest in tokens:
        if piece := decoder.feed(int(newest[0])):
            yield piece
    if piece := decoder.finish():
        yield piece
