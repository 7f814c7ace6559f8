"""Generation with a decoder whose neurons live in a store: the host drives it, block by block."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.models.sparse_inference.llama.decoding import segments
from sparsejax.models.sparse_inference.llama.state import LlamaState
from sparsejax.models.sparse_inference.store.llama import StoredLlama
from sparsejax.ops.decoding import Progress, draw, record
from sparsejax.ops.prompts import Prompts
from sparsejax.ops.sampling import Rules
from sparsejax.typing import Logits

_draw, _record, _chosen = jax.jit(draw), jax.jit(record), jax.jit(jnp.where)


def prefill(
    stored: StoredLlama, prompts: Prompts, state: LlamaState, *, segment: int
) -> tuple[Logits, LlamaState]:
    """Read prompts, as `llama.decoding.prefill` does.

    Args:
      stored: what reads.
      prompts: of a batch.
      state: empty, with room for `slots_read`.
      segment: tokens per call at most.

    Returns:
      logits (b, v) of the first new token, and the state.
    """
    logits = jnp.zeros((len(prompts.tokens), stored.model.config.vocab_size), jnp.float32)
    for tokens, counts in segments(prompts, segment):
        found, state = stored.next_logits(jnp.asarray(tokens), state, jnp.asarray(counts))
        logits = _chosen(counts[:, None] > 0, found, logits)
    return logits, state


def advance(stored: StoredLlama, progress: Progress, rules: Rules) -> Progress:
    """One more token per row, as `llama.decoding.advance`."""
    drawn = _draw(rules, progress)
    # Rows that have ended do not count what they read.
    goes_on = (~progress.stopped).astype(jnp.int32)
    found, state = stored.next_logits(drawn[0][:, None], progress.state, goes_on)
    logits = _chosen(progress.stopped[:, None], progress.logits, found)
    return _record(rules, progress, drawn, (logits, state))
