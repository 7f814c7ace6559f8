"""What fewer neurons cost a Llama on text it has not seen: its perplexity by the share of its neurons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.llama.model import LlamaLM, LlamaOutput
from sparsejax.models.sparse_inference.llama.observe import ffn_weights
from sparsejax.models.sparse_inference.llama.perplexity import token_losses
from sparsejax.models.sparse_inference.llama.source import model_and_params
from sparsejax.models.sparse_inference.llama.text_rows import batches
from sparsejax.models.sparse_inference.predictor.exact import Oracle
from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor

FRACTIONS = (1.0, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
"""Of the neurons, that a token computes."""

Way = Literal["predictor", "oracle", "random"]


def perplexities(
    source: Any,
    rows: Sequence[np.ndarray],
    predictors: Sequence[Any],
    fractions: Sequence[float] = FRACTIONS,
) -> dict[float, float]:
    """Perplexity of the tokens of rows, but the first of each, by the share of the neurons computed.

    One compiled program serves all shares: every neuron is computed and those not chosen are masked.

    Args:
      source: a checkpoint of a Llama, or ``(model, params)``.
      rows: (n,) ids each, at least two in one of them.
      predictors: one per block.
      fractions: above 0, at most 1.

    Raises:
      ValueError: no row has two tokens.
    """
    model, params = model_and_params(source)
    counted = sum(max(0, len(row) - 1) for row in rows)
    if not counted:
        raise ValueError("no row has two tokens: there is nothing to predict")
    parts = list(batches([*rows], vocab_size=model.config.vocab_size))
    found = {}
    for fraction in fractions:
        share = jnp.asarray(fraction, jnp.float32)
        losses = [_losses(model, params, [*predictors], share, part) for part in parts]
        total = math.fsum(float(value) for values in losses for value in values)
        found[fraction] = math.exp(total / counted)
    return found


def curves(
    source: Any,
    rows: Sequence[np.ndarray],
    predictors: Sequence[Any],
    fractions: Sequence[float] = FRACTIONS,
) -> dict[Way, dict[float, float]]:
    """Perplexities by how neurons are chosen: by predictors, by what they do, and at random.

    Args:
      source: a checkpoint of a Llama, or ``(model, params)``.
      rows: (n,) ids each.
      predictors: one per block.
      fractions: of the neurons.
    """
    ways: Mapping[Way, Sequence[Any]] = {
        "predictor": predictors,
        "oracle": oracles(source),
        "random": random_scorers(source),
    }
    return {way: perplexities(source, rows, of_way, fractions) for way, of_way in ways.items()}


def oracles(source: Any) -> list[Oracle]:
    """Scorers that know what each neuron adds to the output, one per block."""
    model, params = model_and_params(source)
    activation = model.config.activation
    return [
        Oracle(ffn_weights(params, layer), activation=activation) for layer in range(model.config.n_layers)
    ]


def random_scorers(source: Any, seed: int = 0) -> list[LowRankPredictor]:
    """Scorers that know nothing: draws of full rank, other neurons for other tokens."""
    config = model_and_params(source)[0].config
    made = []
    for key in jax.random.split(jax.random.key(seed), config.n_layers):
        of_p, of_q = jax.random.split(key)
        width, neurons = config.d_model, config.d_ff
        made.append(
            LowRankPredictor(
                jax.random.normal(of_p, (width, width)), jax.random.normal(of_q, (neurons, width))
            )
        )
    return made


@partial(jax.jit, static_argnums=0)
def _losses(model: LlamaLM, params: Any, predictors: Any, fraction: jax.Array, part: Any) -> jax.Array:
    """Negative log-likelihoods (b,) of the tokens of each row but the first."""
    tokens, counts = part
    options = {"capacity": 0, "predictors": predictors, "active_fraction": fraction}
    logits = cast(LlamaOutput, model.apply({"params": params}, tokens, **options)).logits
    return token_losses(logits, tokens, counts)
