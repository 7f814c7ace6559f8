"""One number per layer: how decided its router is, how sparse its activations, how large its output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sprout.analysis.observation import Neurons, Observation, summed
from sparsejax.models.sprout.config import Path
from sparsejax.models.sprout.oracle import oracle_scores
from sparsejax.ops.sparse_ffn import top_k_mask
from sparsejax.typing import Params

QUIET = 0.01
"""An activation below it, whatever its sign, counts as sparse."""

_PUBLISHED_EPSILON = 1e-8


class LayerStatistics(NamedTuple):
    """Means over tokens, of every layer: (l,) each.

    Attributes:
      entropy: of the softmax of the router's scores, in nats; the logarithm of their number where the
        router prefers nothing.
      activation_sparsity: part of all activations, of unused neurons too, that are below `QUIET`.
      output_norm: Euclidean norm of a token's FFN output.
      oracle_overlap: part of the neurons used that are among as many with the largest activations.
    """

    entropy: np.ndarray
    activation_sparsity: np.ndarray
    output_norm: np.ndarray
    oracle_overlap: np.ndarray


def layer_statistics(
    model: Any,
    params: Params,
    batches: Any,
    *,
    top_k: Neurons = None,
    attention_masks: Iterable[Any] | None = None,
    path: Path = "masked",
    published: bool = False,
) -> LayerStatistics:
    """What the router and the activations of each layer are like.

    Args:
      model: `SproutLM`, or `SproutFFN`, which is one layer.
      params: its parameters.
      batches: ids (b, t), or an iterable or array of such; inputs (*b, d) of a bare FFN.
      top_k: neurons per token; None is the network's ``sparse_k``, else all.
      attention_masks: one (b, t) for each batch, 1 = keep; the others are not counted.
      path: "block" selects whole blocks.
      published: numbers of the published script: the entropy has 1e-8 within its logarithm, and the norm is
        that of the whole output of a batch, so that it grows with the batch.

    Returns:
      `LayerStatistics`.

    Example:
      >>> from sparsejax.models.sprout import SproutFFN, SproutFFNConfig
      >>> ffn = SproutFFN(SproutFFNConfig(d_model=2, d_ff=4))
      >>> params = {"w_in": jnp.eye(4, 2), "w_out": jnp.eye(4, 2), "router": {"kernel": jnp.zeros((2, 4))}}
      >>> found = layer_statistics(ffn, params, jnp.ones((3, 2)), top_k=2)
      >>> found.entropy.round(3).tolist(), found.oracle_overlap.tolist()
      ([1.386], [1.0])

    Source: specs/sprout.md section 5.
    """
    options: dict[str, Any] = {"top_k": top_k, "attention_masks": attention_masks, "path": path}
    return layers_from(summed(layer_sums, model, params, batches, **options), published=published)


def layer_sums(model: Any, seen: Observation) -> dict[str, jax.Array]:
    """What `layers_from` needs, of one batch."""
    del model
    log_chance = jax.nn.log_softmax(seen.scores, axis=-1)
    chance = jnp.exp(log_chance)
    per_token = {
        "entropy": -(chance * log_chance).sum(axis=-1),
        "published_entropy": -(chance * jnp.log(chance + _PUBLISHED_EPSILON)).sum(axis=-1),
        "sparsity": (jnp.abs(seen.activations) < QUIET).mean(axis=-1),
        "norm": jnp.linalg.norm(seen.outputs, axis=-1),
        "overlap": oracle_overlap(seen.used, seen.activations),
    }
    sums = {name: jnp.where(seen.counted, value, 0).sum(axis=-1) for name, value in per_token.items()}
    outputs = jnp.where(seen.counted[:, None], seen.outputs, 0)
    return sums | {
        "batch_norm": jnp.linalg.norm(outputs, axis=(-2, -1)),
        "tokens": seen.counted.sum(),
        "batches": jnp.asarray(1),
    }


def layers_from(sums: dict[str, Any], *, published: bool = False) -> LayerStatistics:
    """From the sums of all batches."""
    tokens = max(int(sums["tokens"]), 1)
    entropy = sums["published_entropy" if published else "entropy"] / tokens
    norm = sums["batch_norm"] / sums["batches"] if published else sums["norm"] / tokens
    return LayerStatistics(entropy, sums["sparsity"] / tokens, norm, sums["overlap"] / tokens)


def oracle_overlap(used: jax.Array, values: jax.Array) -> jax.Array:
    """Part (*b) of the neurons used that are among as many with the largest absolute activations.

    Args:
      used: (*b, f) bool; rows of one array use as many neurons.
      values: (*b, f) activations.

    Example:
      >>> oracle_overlap(jnp.asarray([True, True, False]), jnp.asarray([3.0, 0.0, -2.0])).item()
      0.5
    """
    count = used.sum(axis=-1)
    # The mask takes one number per call: rows are ranked by themselves.
    rows = jax.vmap(top_k_mask)(
        oracle_scores(values).reshape(-1, values.shape[-1]), count.reshape(-1)
    ).reshape(used.shape)
    return (used & rows).sum(axis=-1) / jnp.maximum(count, 1)


def router_kernel(ffn: Params) -> jax.Array:
    """The matrix (h, f) or (h, blocks) that makes a router's scores; of a low-rank one the product (d, f).

    Args:
      ffn: parameters of an FFN.
    """
    router = ffn["router"]
    return router["down_kernel"] @ router["kernel"] if "down_kernel" in router else router["kernel"]


def router_cosines(params: Params) -> np.ndarray:
    """Cosine (l, l) of the router matrices of every two layers of a network.

    Args:
      params: of `SproutLM`.

    Example:
      >>> layer = {"ffn": {"router": {"kernel": jnp.ones((2, 3))}}}
      >>> router_cosines({"layer_0": layer, "layer_1": layer}).round(3).tolist()
      [[1.0, 1.0], [1.0, 1.0]]

    Source: specs/sprout.md section 5.
    """
    names = sorted((name for name in params if name.startswith("layer_")), key=lambda name: int(name[6:]))
    flat = np.stack([np.ravel(router_kernel(params[name]["ffn"])) for name in names]).astype(np.float64)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    unit = flat / np.where(norms, norms, 1)
    return unit @ unit.T
