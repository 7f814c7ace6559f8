"""Generation: the prompt is read once, then every token costs the same, however many came before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.ten.config import Stack, TemporalEigenstateConfig
from sparsejax.models.ten.decoding import Progress, advance, begin, prefill
from sparsejax.models.ten.model import TemporalEigenstateNetwork
from sparsejax.models.ten.state import TenState
from sparsejax.ops.prompts import read_prompts
from sparsejax.ops.sampling import Rules, check_sampling
from sparsejax.typing import Params

PREFILL_SEGMENT = 1024
"""Prompt tokens per call: bounds memory, and is enough to fill the matrix units of any device."""


class Generated(NamedTuple):
    """What was generated.

    Attributes:
      tokens: (b, n) int32 for n = ``max_new_tokens``; ``pad_token`` after the end of a row.
      lengths: (b,) int32 tokens of each row, its stop token included.
      log_probabilities: (b, n) float32 of each token under the model itself, before penalty, temperature and
        filters; 0 after the end of a row.
      state: of the model after each row's last token; ``model.apply`` goes on from there.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    log_probabilities: np.ndarray
    state: TenState


def generate(
    source: Any,
    prompts: Any,
    *,
    max_new_tokens: int,
    on_token: Callable[[int, np.ndarray], Any] | None = None,
    **options: Any,
) -> Generated:
    """Continue prompts token by token, until all rows have ended or ``max_new_tokens`` are there.

    Logits equal those of the full forward pass over the same tokens. Rows do not see each other: each gets
    what it would get as the same row of a batch of any other prompts.

    Args:
      source: a checkpoint as `sparsejax.load` gives it, or ``(model, params)``.
      prompts: (b, t) integers, or a list of token sequences of any lengths; no row is empty.
      max_new_tokens: per row.
      on_token: takes the number of the step, from 0, and its tokens (b,), as they come.
      options: of `stream`: key, temperature, top_k, top_p, repetition_penalty, stop_tokens, pad_token, stack,
        prefill_segment.

    Returns:
      `Generated`.

    Raises:
      ValueError: see `stream`.

    Example:
      >>> from sparsejax.models.ten.config import TemporalEigenstateConfig
      >>> config = TemporalEigenstateConfig.modern(vocab_size=7, dim=8, n_layers=1, num_eigenstates=4)
      >>> model = TemporalEigenstateNetwork(config)
      >>> params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
      >>> found = generate((model, params), [[1, 2, 3], [4]], max_new_tokens=5, temperature=0)
      >>> found.tokens.shape, found.lengths.tolist()
      ((2, 5), [5, 5])

    Source: specs/ten.md section 9.5.
    """
    tokens = stream(source, prompts, max_new_tokens=max_new_tokens, **options)
    if on_token is not None:
        for step, newest in enumerate(tokens):
            on_token(step, newest)
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
    stop_tokens: Sequence[int] = (),
    pad_token: int = 0,
    stack: Stack | None = None,
    prefill_segment: int = PREFILL_SEGMENT,
) -> TokenStream:
    """The tokens of `generate` as an iterator, one step at a time as they are computed.

    Args:
      source: a checkpoint as `sparsejax.load` gives it, or ``(model, params)``.
      prompts: (b, t) integers, or a list of token sequences of any lengths; no row is empty.
      max_new_tokens: per row.
      key: of the draws; None is ``jax.random.key(0)``, the same each time.
      temperature: logits are divided by it; 0 takes the most probable token.
      top_k: only the k most probable tokens can be drawn.
      top_p: only the most probable tokens can be drawn, as few as reach this probability together.
      repetition_penalty: above 1 makes tokens of the prompt and those generated less likely.
      stop_tokens: a row ends with any of them.
      pad_token: what a row gives after its end.
      stack: of a network with two: "short", "long", or "both", which carries both and takes at every length
        the one that the full forward pass would. None takes, from the first token on, the one for the longest
        prompt plus ``max_new_tokens``.
      prefill_segment: prompt tokens per call. The first call is filled up to a power of two, so that prompts
        of all lengths share a few compiled programs.

    Returns:
      `TokenStream`; the prompts are read when this returns.

    Raises:
      ValueError: prompts or options that cannot be right, more positions than the table has, a network that
        cannot be streamed, or logits that are NaN.
    """
    model, params = _model_and_params(source)
    config = model.config
    if not config.streams:
        raise ValueError(
            "this network cannot generate: inside a chunk it looks ahead (a published bug); load the file "
            "without its legacy variant"
        )
    numbers = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    check_sampling(**numbers, repetition_penalty=repetition_penalty)
    for name, count in (("max_new_tokens", max_new_tokens), ("prefill_segment", prefill_segment)):
        if not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {count!r}")
    _check_ids("stop_tokens", stop_tokens, config.vocab_size)
    batch = read_prompts(prompts, config.vocab_size)
    total = batch.tokens.shape[1] + max_new_tokens
    if config.pos_emb_type != "none":
        _check_positions(config, total, max_new_tokens)
        prefill_segment = min(prefill_segment, config.max_seq_len)
    # A penalty of 1 and filters at temperature 0 change nothing: the compiled loop does without them.
    chosen = {name: value for name, value in numbers.items() if temperature > 0 and value is not None}
    seen = None
    if repetition_penalty != 1:
        chosen["repetition_penalty"] = repetition_penalty
        seen = jnp.asarray(batch.seen(config.vocab_size))
    stops = jnp.asarray(stop_tokens, jnp.int32) if len(stop_tokens) else None
    rules = Rules(jax.random.key(0) if key is None else key, chosen, stops, pad_token)
    stack = _stack(config, stack, total)
    logits, state = prefill(model, params, batch, stack=stack, segment=prefill_segment)
    return TokenStream(model, params, rules, begin(logits, state, seen, max_new_tokens), max_new_tokens)


class TokenStream:
    """An iterator over the tokens (b,) of each step; `stream` makes it.

    The compiled loop that generates all tokens at once is called for one at a time here. A callback from
    within the loop would also stream, but could not raise, stop or be interrupted as any Python does.
    """

    def __init__(
        self,
        model: TemporalEigenstateNetwork,
        params: Params,
        rules: Rules,
        progress: Progress,
        max_new_tokens: int,
    ):
        self._model = model
        self._params = params
        self._rules = rules
        self._progress = progress
        self._max_new_tokens = max_new_tokens
        self._step, self._ended = 0, False
        self._look()

    def __iter__(self) -> Iterator[np.ndarray]:
        """The iterator itself."""
        return self

    def __next__(self) -> np.ndarray:
        """The next tokens (b,) int32."""
        if self._ended:
            raise StopIteration
        self._advance(self._step + 1)
        return np.array(self._progress.last)

    def finish(self) -> Generated:
        """Generate what is left, at once; all tokens, those iterated over included."""
        if not self._ended:
            self._advance(self._max_new_tokens)
        progress, count = self._progress, self._max_new_tokens
        tokens = np.array(progress.tokens)[:, :count]
        tokens[:, self._step :] = self._rules.pad_token
        log_probabilities = np.array(progress.log_probabilities)[:, :count]
        # A copy: the loop may reuse the memory of its arrays if somebody goes on.
        state = jax.tree.map(jnp.copy, progress.state)
        return Generated(tokens, np.array(progress.lengths), log_probabilities, state)

    def _advance(self, until: int) -> None:
        self._progress = advance(self._model, self._params, self._progress, self._rules, until)
        self._look()

    def _look(self) -> None:
        progress = self._progress
        step, stopped, is_nan = jax.device_get((progress.step, progress.stopped, progress.is_nan))
        self._step = int(step)
        if is_nan:
            self._ended = True
            raise ValueError(
                f"logits are NaN after {self._step} new tokens: the parameters hold NaN, or the computation "
                "overflows in their dtype"
            )
        self._ended = bool(stopped.all()) or self._step >= self._max_new_tokens


def _model_and_params(source: Any) -> tuple[TemporalEigenstateNetwork, Params]:
    try:
        model, params = source if isinstance(source, tuple | list) else (source.model, source.params)
    except (AttributeError, ValueError) as error:
        raise ValueError("give a checkpoint, or (model, params)") from error
    if not isinstance(model, TemporalEigenstateNetwork):
        raise ValueError(f"{type(model).__name__} is no TemporalEigenstateNetwork: it cannot generate here")
    return model, jax.tree.map(jnp.asarray, params)


def _check_ids(name: str, ids: Sequence[int], vocab_size: int) -> None:
    for token in ids:
        if not isinstance(token, int | np.integer) or not 0 <= token < vocab_size:
            raise ValueError(f"{name} has {token!r}; this vocabulary has the ids 0 to {vocab_size - 1}")


def _check_positions(config: TemporalEigenstateConfig, total: int, new: int) -> None:
    if total > config.max_seq_len:
        raise ValueError(
            f"the longest prompt ({total - new} tokens) and max_new_tokens={new} need {total} positions, the "
            f"table has max_seq_len={config.max_seq_len}; shorten one of them, or train a network with "
            'pos_emb_type="none", which has no limit'
        )


def _stack(config: TemporalEigenstateConfig, stack: Stack | None, total: int) -> Stack:
    if stack is not None and stack not in get_args(Stack):
        raise ValueError(f"stack={stack!r} is not one of {get_args(Stack)}, or None")
    if config.long_layer is None or stack is not None:
        return stack or "short"
    return "long" if total > config.context_threshold else "short"
