"""How close sparse outputs are to those of all neurons, by the router and by better and worse selections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sprout.analysis.observation import Observation, observe, paired
from sparsejax.models.sprout.config import Path
from sparsejax.models.sprout.ffn import SproutFFN
from sparsejax.models.sprout.model import SproutOutput
from sparsejax.models.sprout.oracle import SELECTIONS, Selection, selecting
from sparsejax.typing import Params


class Quality(NamedTuple):
    """Closeness of sparse outputs to dense ones, taken as two long vectors.

    Attributes:
      mse: mean squared difference.
      cosine: of the two vectors.
      norm_ratio: length of the sparse one over that of the dense one.
    """

    mse: np.ndarray
    cosine: np.ndarray
    norm_ratio: np.ndarray


class QualityTable(NamedTuple):
    """Quality at several numbers of neurons, of several selections.

    Attributes:
      top_k: (k,) neurons per token.
      selections: (s,) "router", "oracle" (the largest activations) and "random".
      quality: of (s, k) for logits, (s, l, k) for FFNs.
    """

    top_k: tuple[int, ...]
    selections: tuple[Selection, ...]
    quality: Quality


def approximation(sparse: Any, dense: Any) -> Quality:
    """How close one array is to another.

    Args:
      sparse: (*s).
      dense: (*s).

    Example:
      >>> found = approximation(np.asarray([1.0, 0]), np.asarray([1.0, 1]))
      >>> [round(float(part), 3) for part in found]
      [0.5, 0.707, 0.707]
    """
    return _from_moments(_moments(jnp.asarray(sparse), jnp.asarray(dense)))


def random_cosine(top_k: int, d_ff: int) -> float:
    """Cosine, and norm ratio, that a random selection is expected to have.

    Example:
      >>> round(random_cosine(512, 2048), 3)
      0.5

    Source: specs/sprout.md section 6.
    """
    return float(np.sqrt(top_k / d_ff))


def shares_of(d_ff: int, shares: Sequence[float] = (0.75, 0.5, 0.25, 0.1, 0.05)) -> tuple[int, ...]:
    """Numbers of neurons that are these shares of all, as the published scripts round: down, at least 1.

    Example:
      >>> shares_of(64)
      (48, 32, 16, 6, 3)
    """
    return tuple(max(1, int(share * d_ff)) for share in shares)


def logit_quality(
    key: jax.Array,
    model: Any,
    params: Params,
    batches: Any,
    top_k: Sequence[int],
    *,
    attention_masks: Iterable[Any] | None = None,
    selections: Sequence[Selection] = SELECTIONS,
    path: Path = "masked",
) -> QualityTable:
    """Quality of the logits of a whole network.

    One program is compiled for all numbers of neurons and all selections.

    Args:
      key: of the random selection.
      model: `SproutLM`.
      params: its parameters.
      batches: ids (b, t), or an iterable or array of such.
      top_k: numbers of neurons per token.
      attention_masks: one (b, t) for each batch, 1 = keep; the others are not counted.
      selections: what picks the neurons, in every layer.
      path: "block" selects whole blocks.

    Returns:
      `QualityTable` of (s, k).

    Source: specs/sprout.md sections 5 and 9.
    """
    total: Any = 0.0
    kinds = jnp.asarray([SELECTIONS.index(kind) for kind in selections])
    counts = jnp.asarray(_checked(top_k), jnp.int32)
    for number, (batch, mask) in enumerate(paired(model, batches, attention_masks)):
        own = jax.random.fold_in(key, number)
        total = total + _wide(_logit_moments(model, path, params, (batch, mask), (counts, kinds, own)))
    return QualityTable(tuple(top_k), tuple(selections), _from_moments(total))


def ffn_quality(
    key: jax.Array,
    model: Any,
    params: Params,
    batches: Any,
    top_k: Sequence[int],
    *,
    attention_masks: Iterable[Any] | None = None,
    selections: Sequence[Selection] = SELECTIONS,
    path: Path = "masked",
) -> QualityTable:
    """Quality of every FFN's output on what it reads when all neurons work.

    Args:
      key: of the random selection.
      model: `SproutLM`, or `SproutFFN`, which is one layer.
      params: its parameters.
      batches: ids (b, t), or an iterable or array of such; inputs (*b, d) of a bare FFN.
      top_k: numbers of neurons per token.
      attention_masks: one (b, t) for each batch, 1 = keep; the others are not counted.
      selections: what picks the neurons.
      path: "block" selects whole blocks.

    Returns:
      `QualityTable` of (s, l, k).

    Example:
      >>> from sparsejax.models.sprout import SproutFFNConfig
      >>> ffn = SproutFFN(SproutFFNConfig(d_model=2, d_ff=4))
      >>> params = jax.jit(ffn.init)(jax.random.key(0), jnp.ones((3, 2)))["params"]
      >>> ffn_quality(jax.random.key(0), ffn, params, jnp.ones((3, 2)), [4]).quality.cosine.shape
      (3, 1, 1)

    Source: specs/sprout.md section 3.1 (the table of routers).
    """
    total: Any = 0.0
    kinds = jnp.asarray([SELECTIONS.index(kind) for kind in selections])
    counts = jnp.asarray(_checked(top_k), jnp.int32)
    for number, (batch, mask) in enumerate(paired(model, batches, attention_masks)):
        own = jax.random.fold_in(key, number)
        total = total + _wide(_ffn_moments(model, path, params, (batch, mask), (counts, kinds, own)))
    return QualityTable(tuple(top_k), tuple(selections), _from_moments(total))


@partial(jax.jit, static_argnums=(0, 1))
def _logit_moments(
    model: Any, path: Path, params: Params, data: tuple[Any, Any], asked: tuple[Any, Any, jax.Array]
) -> jax.Array:
    (batch, mask), (counts, kinds, key) = data, asked

    def logits(top_k: jax.Array, kind: jax.Array) -> jax.Array:
        with selecting(kind, key):
            options = {"top_k": top_k, "path": path, "attention_mask": mask}
            out = cast(SproutOutput, model.apply({"params": params}, batch, **options))
        return out.logits

    dense = logits(jnp.asarray(model.config.d_ff), kinds[0])
    keep = None if mask is None else mask != 0

    def at(kind: jax.Array) -> jax.Array:
        return jax.lax.map(lambda top_k: _moments(logits(top_k, kind), dense, keep), counts)

    return jax.lax.map(at, kinds)


@partial(jax.jit, static_argnums=(0, 1))
def _ffn_moments(
    model: Any, path: Path, params: Params, data: tuple[Any, Any], asked: tuple[Any, Any, jax.Array]
) -> jax.Array:
    (batch, mask), (counts, kinds, key) = data, asked

    is_ffn = isinstance(model, SproutFFN)
    layers = 1 if is_ffn else model.config.n_layers
    config = model.config if is_ffn else model.config.ffn
    every = jnp.full(layers, config.d_ff, jnp.int32)
    seen: Observation = observe(model, params, batch, every, attention_mask=mask, path=path)
    ffn = SproutFFN(config, dtype=model.dtype)
    own = [params] if is_ffn else [params[f"layer_{number}"]["ffn"] for number in range(layers)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)

    def moments(kind: jax.Array, layer: Any, top_k: jax.Array) -> jax.Array:
        weights, inputs, dense, number = layer
        with selecting(kind, jax.random.fold_in(key, number)):
            sparse = cast(jax.Array, ffn.apply({"params": weights}, inputs, top_k=top_k, path=path))
        return _moments(sparse, dense, seen.counted)

    def of_layer(kind: jax.Array, layer: Any) -> jax.Array:
        return jax.lax.map(lambda top_k: moments(kind, layer, top_k), counts)

    rows = (stacked, seen.inputs, seen.outputs, jnp.arange(layers))
    return jax.lax.map(lambda kind: jax.lax.map(partial(of_layer, kind), rows), kinds)


def _moments(sparse: jax.Array, dense: jax.Array, keep: jax.Array | None = None) -> jax.Array:
    """Squared difference, product, both squares and their number, summed: (5,)."""
    wide = jnp.promote_types(sparse.dtype, jnp.float32)
    sparse, dense = sparse.astype(wide), dense.astype(wide)
    weights = jnp.ones(sparse.shape[:-1], wide) if keep is None else keep.astype(wide)
    products = ((sparse - dense) ** 2, sparse * dense, sparse**2, dense**2, jnp.ones_like(sparse))
    return jnp.stack([(product * weights[..., None]).sum() for product in products])


def _from_moments(moments: Any) -> Quality:
    error, product, sparse, dense, count = np.moveaxis(np.asarray(moments, np.float64), -1, 0)
    lengths = np.sqrt(sparse * dense)
    cosine = np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)
    ratio = np.sqrt(np.divide(sparse, dense, out=np.zeros_like(dense), where=dense > 0))
    return Quality(error / np.maximum(count, 1), cosine, ratio)


def _wide(array: jax.Array) -> np.ndarray:
    return np.asarray(array, np.float64)


def _checked(top_k: Sequence[int]) -> Sequence[int]:
    if not top_k or min(top_k) < 0:
        raise ValueError(f"top_k must be numbers of neurons, none negative, not {list(top_k)}")
    return top_k
