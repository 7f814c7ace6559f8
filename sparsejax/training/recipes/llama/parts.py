"""What the training of a Llama is put together from: network, loss, sparsity, optimiser, placement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.layers import linear
from sparsejax.models.sparse_inference.llama.model import LlamaLM
from sparsejax.ops.sparse_ffn.weights import activated
from sparsejax.training import schedules
from sparsejax.training.cross_entropy import CHUNK_TOKENS, TokenLoss, chunked_cross_entropy
from sparsejax.training.gradient_step import GradientState, LossFunction, Step, gradient_step
from sparsejax.training.optimizer import Group, adamw
from sparsejax.training.recipes.llama.settings import LlamaSettings
from sparsejax.training.sharding import MODEL_AXIS, Rule
from sparsejax.typing import Params

LANGUAGE_LOSS = "language_loss"
"""Metric: the cross entropy alone, where the loss is more."""

EFFECTIVE_SHARE = "effective_share"
"""Metric: `effective_share` of the neurons, the mean over tokens and layers."""

ACTIVE_SHARE = "active_share"
"""Metric of ReGLU: the part of the neurons whose gate is open."""

_BETAS = (0.9, 0.95)


def network_config(settings: LlamaSettings, vocab_size: int) -> LlamaConfig:
    """The network that the settings describe.

    Raises:
      ValueError: sizes that do not go together.
    """
    if settings.d_model % settings.n_heads:
        raise ValueError(f"--d-model {settings.d_model} does not divide into --n-heads {settings.n_heads}")
    if (settings.d_model // settings.n_heads) % 2:
        raise ValueError("a head has an even number of channels: --d-model over --n-heads is odd")
    return LlamaConfig(
        vocab_size=vocab_size,
        d_model=settings.d_model,
        d_ff=settings.d_ff,
        n_layers=settings.n_layers,
        n_heads=settings.n_heads,
        n_kv_heads=settings.n_heads if settings.n_kv_heads is None else settings.n_kv_heads,
        context_length=settings.seq_len,
        activation=settings.activation,
        tied_output=settings.tied_output,
    )


def effective_share(hidden: jax.Array) -> jax.Array:
    """How many neurons share the work, over all: ``(sum |h|)^2 / (f sum h^2)``.

    1 where all are alike, 1 / f where one does everything. It does not change with the scale of ``hidden``:
    minding it makes neurons few, not small.

    Args:
      hidden: (*b, f) values of the neurons.

    Returns:
      (*b,); 1 where all are 0.

    Example:
      >>> effective_share(jnp.asarray([[2.0, 2.0], [3.0, 0.0], [0.0, 0.0]])).tolist()
      [1.0, 0.5, 1.0]

    Source: Yang, Wen and Li 2020, DeepHoyer (the Hoyer-square measure).
    """
    powers = jnp.sum(jnp.square(hidden), axis=-1)
    some = powers > 0
    sums = jnp.square(jnp.sum(jnp.abs(hidden), axis=-1))
    return jnp.where(some, sums / jnp.where(some, powers * hidden.shape[-1], 1), 1)


def neuron_values(
    inputs: jax.Array, block: Mapping[str, Any], activation: str
) -> tuple[jax.Array, jax.Array]:
    """Gates, and values of the neurons, of a block.

    Args:
      inputs: (*b, d) what its FFN reads.
      block: its parameters.
      activation: of the gates.

    Returns:
      gates before their activation, and values: (*b, f) each.
    """
    gates, ups = (
        linear(inputs, block[name]["weight"], block[name].get("bias")) for name in ("ffn_gate", "ffn_up")
    )
    return gates, activated(activation, ups, gates)


def next_token_loss(
    config: LlamaConfig,
    *,
    dtype: jax.typing.DTypeLike | None = None,
    sparsity_weight: float = 0.0,
    chunk_tokens: int = CHUNK_TOKENS,
) -> LossFunction:
    """Cross entropy of the next token, and ``sparsity_weight`` times the effective share of the neurons.

    Args:
      config: of the network.
      dtype: of the computation; None is that of the parameters.
      sparsity_weight: nats per token where all neurons work alike.
      chunk_tokens: tokens whose logits are held at a time.

    Returns:
      function (params, batch, key) -> `TokenLoss`; the batch has ``inputs`` and ``targets``, each (b, t).
    """
    model = LlamaLM(config)
    head = "token_embd" if config.tied_output else "output"

    def loss(params: Params, batch: Mapping[str, jax.Array], key: jax.Array) -> TokenLoss:
        del key
        if dtype is not None:
            params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        (hidden, _), kept = model.apply(
            {"params": params}, batch["inputs"], capacity=0, method="hidden", mutable=["intermediates"]
        )
        kernel = params[head]["weight"].T
        found = chunked_cross_entropy(hidden, kernel, batch["targets"], chunk_tokens=chunk_tokens)
        shares: dict[str, Any] = {EFFECTIVE_SHARE: [], ACTIVE_SHARE: []}
        for number in range(config.n_layers):
            block = params[f"blk_{number}"]
            (inputs,) = kept["intermediates"][f"blk_{number}"]["ffn_inputs"]
            # The products are those of the network, which the compiler computes once.
            gates, values = neuron_values(inputs, block, config.activation)
            shares[EFFECTIVE_SHARE].append(effective_share(values.astype(jnp.float32)).mean())
            shares[ACTIVE_SHARE].append((gates > 0).mean(dtype=jnp.float32))
        if config.activation != "relu":
            del shares[ACTIVE_SHARE]
        means = {name: sum(parts) / len(parts) for name, parts in shares.items()}
        metrics = {name: mean * found.weight for name, mean in means.items()}
        total = found.total + sparsity_weight * metrics[EFFECTIVE_SHARE]
        return TokenLoss(total, found.weight, {**metrics, LANGUAGE_LOSS: found.total})

    return loss


def training_step(settings: LlamaSettings, config: LlamaConfig, dtype: Any) -> Step:
    """One optimiser step, pure; the record's ``loss`` is the language model's alone."""
    of_batch = gradient_step(
        next_token_loss(config, dtype=dtype, sparsity_weight=settings.sparsity_weight),
        optimizer(settings),
        accumulate=settings.accumulate,
    )

    def step(state: GradientState, batch: Any) -> tuple[GradientState, dict[str, jax.Array]]:
        state, record = of_batch(state, batch)
        record["loss"] = record.pop(LANGUAGE_LOSS)
        return state, record

    return step


def validation_loss(config: LlamaConfig, dtype: Any) -> LossFunction:
    """`next_token_loss` without the weight of sparsity, which is the language model's alone."""
    loss = next_token_loss(config, dtype=dtype)

    def plain(params: Params, batch: Mapping[str, jax.Array], key: jax.Array) -> TokenLoss:
        found = loss(params, batch, key)
        metrics = {**(found.metrics or {})}
        del metrics[LANGUAGE_LOSS]  # the loss itself here
        return found._replace(metrics=metrics)

    return plain


def schedule(settings: LlamaSettings) -> optax.Schedule:
    """The learning rate by step.

    Raises:
      ValueError: the warm-up does not fit the run.
    """
    warmup = schedules.usual_warmup(settings.steps) if settings.warmup is None else settings.warmup
    kinds = {"cosine": schedules.warmup_cosine, "constant": schedules.warmup_constant}
    return kinds[settings.schedule](settings.learning_rate, warmup=warmup, steps=settings.steps)


def optimizer(settings: LlamaSettings) -> optax.GradientTransformation:
    """AdamW that spares norms and biases from decay.

    Raises:
      ValueError: an impossible number.
    """
    return adamw(
        schedule(settings),
        weight_decay=settings.weight_decay,
        groups=(Group("(^|/)[a-z]*_norm/weight$"), Group("(^|/)bias$")),
        betas=_BETAS,
        max_norm=settings.clip or None,
    )


def sharding_rules(config: LlamaConfig, parts: int) -> Sequence[Rule]:
    """Tensor parallelism: matrices cut by heads and neurons, the token table by rows where it divides.

    Args:
      config: of the network.
      parts: that matrices are cut into.
    """
    rows, columns = PartitionSpec(MODEL_AXIS, None), PartitionSpec(None, MODEL_AXIS)
    rules = [
        Rule("(ffn_gate|ffn_up|ffn_down)/weight$", rows),  # all three have a row per neuron
        Rule("attn_q/weight$", rows),
        Rule("attn_output/weight$", columns),
    ]
    if math.gcd(config.n_kv_heads, parts) == parts:
        rules.append(Rule("attn_[kv]/weight$", rows))
    if config.vocab_size % parts == 0:
        rules.append(Rule("(token_embd|output)/weight$", rows))
    return rules


def initial_params(config: LlamaConfig, key: jax.Array) -> Params:
    """Parameters to begin with; pure."""
    tokens: Any = jnp.zeros((1, 1), jnp.int32)
    params: Params = LlamaLM(config).init(key, tokens)["params"]
    return params
