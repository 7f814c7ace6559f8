"""Generation with a decoder: prompts are read once, then each token costs one pass over the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.decoding import (
    Network,
    advance,
    begin_state,
    grow,
    prefill,
    slots_read,
)
from sparsejax.models.sparse_inference.llama.ffn import sparse_options
from sparsejax.models.sparse_inference.llama.source import model_and_params, tokenizer_of
from sparsejax.models.sparse_inference.llama.state import LlamaState, bucket
from sparsejax.models.sparse_inference.store import decoding as store_decoding
from sparsejax.models.sparse_inference.store.llama import StoredLlama
from sparsejax.models.sparse_inference.tokenizer.tokenizer import TextStream, Tokenizer
from sparsejax.ops import decoding
from sparsejax.ops.prompts import read_prompts
from sparsejax.ops.sampling import Rules, sampling_rules

PREFILL_SEGMENT = 512
"""Prompt tokens per call: bounds memory, and is enough to fill the matrix units of any device."""

_FIRST_TOKENS = 256
"""New tokens that a cache has room for at first; it doubles when they are there."""


class Generated(NamedTuple):
    """What was generated.

    Attributes:
      tokens: (b, n) int32 for n = ``max_new_tokens``; ``pad_token`` after the end of a row.
      lengths: (b,) int32 tokens of each row, its stop token included.
      log_probabilities: (b, n) float32 of each token under the model itself, before penalty, temperature and
        filters; 0 after the end of a row.
      state: of the model after each row's last token; ``model.apply`` goes on from there.
      texts: of each row, without the prompt; None where no tokenizer is known.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    log_probabilities: np.ndarray
    state: LlamaState
    texts: list[str] | None


def generate(
    source: Any,
    prompts: Any,
    *,
    max_new_tokens: int,
    on_token: Callable[[int, np.ndarray], Any] | None = None,
    on_text: Callable[[int, str], Any] | None = None,
    **options: Any,
) -> Generated:
    """Continue prompts token by token, until all rows have ended or ``max_new_tokens`` are there.

    Logits equal those of the full forward pass over the same tokens. Rows do not see each other: each gets
    what it would get as the same row of a batch of any other prompts.

    Args:
      source: a checkpoint as `sparsejax.load` gives it, ``(model, params)``, or a `StoredLlama`.
      prompts: a text or a list of texts, or (b, t) integers or a list of token sequences of any lengths; no
        row is empty.
      max_new_tokens: per row.
      on_token: takes the number of the step, from 0, and its tokens (b,), as they come.
      on_text: takes the number of a row and the characters that its newest token completes.
      options: of `stream`: key, temperature, top_k, top_p, repetition_penalty, stop_tokens, pad_token,
        tokenizer, cache_dtype, prefill_segment, predictors, active_fraction, sparsity, plan,
        fitted.

    Returns:
      `Generated`.

    Raises:
      ValueError: see `stream`.

    Example:
      >>> from sparsejax.models.sparse_inference.llama.model import LlamaConfig, LlamaLM
      >>> model = LlamaLM(LlamaConfig(vocab_size=9, d_model=8, d_ff=8, n_layers=1, n_heads=2))
      >>> params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
      >>> found = generate((model, params), [[1, 2, 3], [4]], max_new_tokens=5, temperature=0)
      >>> found.tokens.shape, found.lengths.tolist()
      ((2, 5), [5, 5])
    """
    tokens = stream(source, prompts, max_new_tokens=max_new_tokens, **options)
    if on_text is not None and tokens.tokenizer is None:
        raise ValueError("on_text needs the file's tokenizer; give tokenizer=, or use on_token")
    if on_token is not None or on_text is not None:
        _play(tokens, on_token, on_text)
    return tokens.finish()


def stream(
    source: Any,
    prompts: Any,
    *,
    max_new_tokens: int,
    key: jax.Array | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop_tokens: Sequence[int] | None = None,
    pad_token: int = 0,
    tokenizer: Tokenizer | None = None,
    cache_dtype: jax.typing.DTypeLike = jnp.float32,
    prefill_segment: int = PREFILL_SEGMENT,
    predictors: Any = None,
    active_fraction: float | Sequence[float] | None = None,
    sparsity: SparsityConfig | Sequence[SparsityConfig] | None = None,
    plan: FFNPlan | None = None,
    fitted: Any = None,
) -> TokenStream:
    """The tokens of `generate` as an iterator, one step at a time as they are computed.

    Args:
      source: a checkpoint as `sparsejax.load` gives it, ``(model, params)``, or a `StoredLlama`.
      prompts: a text or a list of texts, or (b, t) integers or a list of token sequences of any lengths; no
        row is empty.
      max_new_tokens: per row.
      key: of the draws; None is ``jax.random.key(0)``, the same each time.
      temperature: logits are divided by it; 0 takes the most probable token.
      top_k: only the k most probable tokens can be drawn.
      top_p: only the most probable tokens can be drawn, as few as reach this probability together.
      repetition_penalty: above 1 makes tokens of the prompt and those generated less likely.
      stop_tokens: a row ends with any of them; None takes those of the tokenizer.
      pad_token: what a row gives after its end.
      tokenizer: for texts; None takes the one in the checkpoint's metadata, if there is one.
      cache_dtype: of keys and values; "float16" halves their memory, as llama.cpp does.
      prefill_segment: prompt tokens per call; the last call is filled up to a power of two, so that prompts
        of all lengths share a few compiled programs.
      predictors: one per block, which say what neurons a token computes; see `LlamaLM`.
      active_fraction: of the neurons, with predictors; for all blocks, or one each.
      sparsity: a `SparsityConfig` instead.
      plan: how neurons are selected.
      fitted: one `Compensation` or None per block.

    Returns:
      `TokenStream`; the prompts are read when this returns.

    Raises:
      ValueError: prompts or options that cannot be right, more positions than the network was trained for, or
        logits that are NaN.
    """
    config, read, go_on = _decoder(source, (predictors, active_fraction, sparsity, plan, fitted))
    tokenizer = tokenizer_of(source, needed=_has_text(prompts)) if tokenizer is None else tokenizer
    if stop_tokens is None:
        stop_tokens = () if tokenizer is None else tokenizer.stop_tokens
    rules = sampling_rules(
        config.vocab_size,
        key=key,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        stop_tokens=stop_tokens,
        pad_token=pad_token,
    )
    decoding.check_counts(max_new_tokens=max_new_tokens, prefill_segment=prefill_segment)
    batch = read_prompts(_encoded(prompts, tokenizer), config.vocab_size)
    longest = batch.tokens.shape[1]
    if longest + max_new_tokens > config.context_length:
        raise ValueError(
            f"the longest prompt ({longest} tokens) and max_new_tokens={max_new_tokens} need "
            f"{longest + max_new_tokens} positions; the network was trained for context_length="
            f"{config.context_length}; shorten one of them, or give a config with more at your own risk"
        )
    room = max(slots_read(longest, prefill_segment), longest + min(max_new_tokens, _FIRST_TOKENS))
    state = begin_state(config, len(batch.tokens), bucket(room), jnp.dtype(cache_dtype).name)
    logits, state = read(batch, state, segment=prefill_segment)
    progress = decoding.begin(logits, state, batch, rules, max_new_tokens)
    return TokenStream(_stepper(go_on, rules, longest), progress, max_new_tokens, pad_token, tokenizer)


def _decoder(
    source: Any, selection: tuple[Any, Any, Any, FFNPlan | None, Any]
) -> tuple[LlamaConfig, Callable[..., Any], Callable[..., Any]]:
    """The network's config, how it reads prompts, and how it goes on by a token."""
    if isinstance(source, StoredLlama):
        if any(given is not None for given in selection):
            raise ValueError(
                "a StoredLlama has its predictors already; give predictors, active_fraction, sparsity, plan "
                "and fitted to StoredLlama.from_checkpoint"
            )
        read, go_on = partial(store_decoding.prefill, source), partial(store_decoding.advance, source)
        return source.model.config, read, go_on
    predictors, active_fraction, sparsity, plan, fitted = selection
    model, params = model_and_params(source)
    options = sparse_options(predictors, active_fraction, sparsity, model.config.n_layers, plan)
    network = Network(model, options, params, predictors, fitted)
    return model.config, partial(prefill, network), partial(advance, network)


def _stepper(go_on: Callable[..., Any], rules: Rules, longest: int) -> decoding.Advance:
    """One token more; a full cache grows first."""

    def step(progress: decoding.Progress, until: int) -> decoding.Progress:
        del until
        capacity = progress.state.capacity
        if longest + int(progress.step) >= capacity:
            progress = progress._replace(state=grow(progress.state, 2 * capacity))
        after: decoding.Progress = go_on(progress, rules)
        return after

    return step


class TokenStream(decoding.TokenStream):
    """An iterator over the tokens (b,) of each step; `stream` makes it.

    Every token is a call of one compiled step, whose cost is that of reading the weights.

    Attributes:
      tokenizer: of the texts; None where none is known.
    """

    def __init__(
        self,
        advance: decoding.Advance,
        progress: decoding.Progress,
        max_new_tokens: int,
        pad_token: int,
        tokenizer: Tokenizer | None,
    ):
        self.tokenizer = tokenizer
        super().__init__(advance, progress, max_new_tokens, pad_token)

    def finish(self) -> Generated:
        """Generate what is left, at once; all tokens, those iterated over included."""
        tokens, lengths, log_probabilities, state = self._rest()
        return Generated(tokens, lengths, log_probabilities, state, self._texts(tokens, lengths))

    def _texts(self, tokens: np.ndarray, lengths: np.ndarray) -> list[str] | None:
        if self.tokenizer is None:
            return None
        rows = zip(tokens, lengths, strict=True)
        return [self.tokenizer.decode(row[:length], continues=True) for row, length in rows]


def _play(
    tokens: TokenStream,
    on_token: Callable[[int, np.ndarray], Any] | None,
    on_text: Callable[[int, str], Any] | None,
) -> None:
    """Hand tokens and texts on as they come."""
    texts: list[TextStream] = []
    ended = tokens.stopped
    for step, newest in enumerate(tokens):
        if on_token is not None:
            on_token(step, newest)
        if on_text is not None and tokens.tokenizer is not None:
            texts = texts or [tokens.tokenizer.text_stream() for _ in newest]
            for row, is_over in enumerate(ended.tolist()):
                if not is_over:
                    _say(on_text, row, texts[row].feed(newest[row]))
        ended = tokens.stopped
    if on_text is not None:
        for row, text in enumerate(texts):
            _say(on_text, row, text.finish())


def _say(on_text: Callable[[int, str], Any], row: int, text: str) -> None:
    if text:
        on_text(row, text)


def _has_text(prompts: Any) -> bool:
    rows = prompts if isinstance(prompts, list | tuple) else [prompts]
    return any(isinstance(row, str) for row in rows)


def _encoded(prompts: Any, tokenizer: Tokenizer | None) -> Any:
    if not _has_text(prompts):
        return prompts
    if tokenizer is None:
        raise ValueError("a prompt is text and no tokenizer is known; give token ids, or tokenizer=")
    rows = [prompts] if isinstance(prompts, str) else prompts
    return [tokenizer.encode(row) if isinstance(row, str) else row for row in rows]
