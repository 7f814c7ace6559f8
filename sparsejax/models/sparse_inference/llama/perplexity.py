"""How well a network predicts a text, with all of its neurons or some."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan
from sparsejax.models.sparse_inference.llama.ffn import SparseOptions, sparse_options
from sparsejax.models.sparse_inference.llama.model import LlamaLM, LlamaOutput
from sparsejax.models.sparse_inference.llama.source import model_and_params
from sparsejax.models.sparse_inference.llama.text_rows import batches, token_rows
from sparsejax.typing import Tokens


def perplexity(
    source: Any,
    tokens: Any,
    *,
    predictors: Any = None,
    active_fraction: float | Sequence[float] | None = None,
    sparsity: SparsityConfig | Sequence[SparsityConfig] | None = None,
    plan: FFNPlan | None = None,
    fitted: Any = None,
    context: int | None = None,
) -> float:
    """The exponential of the mean negative log-likelihood of the tokens, each but a row's first.

    Every token counts the same, however long its row is.

    Args:
      source: a checkpoint as `sparsejax.load` gives it, or ``(model, params)``.
      tokens: one text or sequence of ids, or several. Those longer than ``context`` are cut into pieces, and
        each piece is read from its beginning.
      predictors: one per block, which say what neurons a token computes; see `LlamaLM`.
      active_fraction: of the neurons, with predictors; for all blocks, or one each.
      sparsity: a `SparsityConfig` instead.
      plan: how neurons are selected.
      fitted: one `Compensation` or None per block.
      context: tokens of a row at most; None is what the network was trained for.

    Returns:
      at least 1; the size of the vocabulary is what guessing gives.

    Raises:
      ValueError: no row has two tokens, or arguments that cannot be right.

    Example:
      >>> from sparsejax.models.sparse_inference.llama.config import LlamaConfig
      >>> model = LlamaLM(LlamaConfig(vocab_size=9, d_model=8, d_ff=8, n_layers=1, n_heads=2))
      >>> params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
      >>> 8.5 < perplexity((model, params), [1, 2, 3, 4]) < 9.5
      True
    """
    model, params = model_and_params(source)
    config = model.config
    options = sparse_options(predictors, active_fraction, sparsity, config.n_layers, plan)
    length = config.context_length if context is None else context
    if length < 2:
        raise ValueError(f"a context of {length} tokens predicts nothing; give at least 2")
    rows = [
        row
        for row in token_rows(source, tokens, vocab_size=config.vocab_size, context=length)
        if len(row) > 1
    ]
    if not rows:
        raise ValueError("no row has two tokens: there is nothing to predict")
    total = 0.0
    for batch, counts in batches(rows, vocab_size=config.vocab_size):
        found = _surprise(model, options, (params, predictors, fitted), batch, counts)
        total += float(np.asarray(found, np.float64).sum())
    return math.exp(total / sum(len(row) - 1 for row in rows))


def token_losses(logits: jax.Array, tokens: Tokens, counts: jax.Array) -> jax.Array:
    """Negative log-likelihoods of rows of tokens, the first of each left out.

    Args:
      logits: (b, t, vocab_size) of a network that read ``tokens``.
      tokens: (b, t) ids, each row padded at its end.
      counts: (b,) tokens of each row.

    Returns:
      (b,) nats, float32 of float32 logits.

    Example:
      >>> tokens, counts = jnp.asarray([[3, 1, 2, 0]]), jnp.asarray([3])
      >>> bool(jnp.allclose(token_losses(jnp.zeros((1, 4, 8)), tokens, counts), 2 * jnp.log(8)))
      True
    """
    ahead = jax.nn.log_softmax(logits[:, :-1], axis=-1)
    picked = jnp.take_along_axis(ahead, tokens[:, 1:, None], axis=-1)[..., 0]
    there = jnp.arange(1, tokens.shape[1]) < counts[:, None]
    return -jnp.where(there, picked, 0).sum(axis=1)


@partial(jax.jit, static_argnums=(0, 1))
def _surprise(
    model: LlamaLM,
    options: SparseOptions,
    arrays: tuple[Any, Any, Any],
    tokens: jax.Array,
    counts: jax.Array,
) -> jax.Array:
    """Negative log-likelihood (b,) of the tokens of each row but the first."""
    params, predictors, fitted = arrays
    more = {"capacity": 0, "predictors": predictors, "fitted": fitted, **options.as_options()}
    found = cast(LlamaOutput, model.apply({"params": params}, tokens, **more))
    return token_losses(found.logits, tokens, counts)
