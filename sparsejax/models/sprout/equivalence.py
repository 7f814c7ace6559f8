"""The published equivalence test of a network, with true numbers: what ``sparsejax verify`` says of it.

A check passes where the network computes what it is defined to; how well a router approximates all neurons is
told beside what a random and the best selection reach, and is no reason to fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.tree import flatten
from sparsejax.checkpoint.verification import Check
from sparsejax.models.sprout.analysis.layers import LayerStatistics, layer_sums, layers_from
from sparsejax.models.sprout.analysis.observation import neuron_counts, observe
from sparsejax.models.sprout.analysis.usage import NeuronUsage, usage_from, usage_statistics, usage_sums
from sparsejax.models.sprout.config import SproutFFNConfig
from sparsejax.models.sprout.ffn import SproutFFN
from sparsejax.models.sprout.quality import QualityTable, ffn_quality, random_cosine, shares_of
from sparsejax.models.sprout.reference_ffn import reference_ffn
from sparsejax.typing import Params

SHARES = (0.1, 0.2, 0.5)
LIMIT = 1e-5
"""Largest difference to the independent FFN, over its largest output: the published limit."""

_TOKENS = (4, 32)
_RARE_TOKENS = 5  # the published test calls a neuron rare below it


def equivalence_report(ck: Any) -> list[Check]:
    """Check a network's FFNs, routers and gradients on random tokens, or an FFN's on random inputs.

    Args:
      ck: checkpoint of a `SproutLM` or a `SproutFFN`.

    Returns:
      the checks in the order of the published test.

    Source: specs/sprout.md sections 5 and 6.
    """
    model, params = ck.model, ck.params
    inputs = _inputs(model)
    config = model.config if isinstance(model, SproutFFN) else model.config.ffn
    counts = shares_of(config.d_ff, SHARES)
    checks = [_dense_equivalence(model, params, inputs)]
    if config.deep_sets is None:
        checks += [_selected_equivalence(model, params, inputs, counts)]
    tables = ffn_quality(jax.random.key(1), model, params, [inputs], counts)
    checks += [_approximation(config, tables, place) for place in range(len(counts))]
    checks += _routing(model, params, inputs, counts[1])
    checks.append(_gradient_flow(model, params, inputs, counts[1]))
    if not isinstance(model, SproutFFN):
        checks.append(_forward(model, params, inputs, counts))
    return checks


def _inputs(model: Any) -> jax.Array:
    batch, length = _TOKENS
    if isinstance(model, SproutFFN):
        return jax.random.normal(jax.random.key(0), (*_TOKENS, model.config.d_model))
    length = min(length, model.config.max_len)
    return jax.random.randint(jax.random.key(0), (batch, length), 0, model.config.vocab_size)


def _dense_equivalence(model: Any, params: Params, inputs: jax.Array) -> Check:
    """All neurons against a plain FFN of the same matrices, in float64 without JAX."""
    name = "dense equivalence"
    worst = _worst(model, params, inputs, None)
    if worst is None:
        return Check(name, True, "a DeepSets FFN has no output matrix, hence no plain FFN to be equal to")
    return Check(name, worst <= LIMIT, f"{_difference(worst)} with all neurons to a plain float64 FFN")


def _selected_equivalence(model: Any, params: Params, inputs: jax.Array, counts: tuple[int, ...]) -> Check:
    found = [_worst(model, params, inputs, count) for count in counts]
    worst = float(np.max([value for value in found if value is not None]))  # max() would lose NaN
    told = ", ".join(f"top_k {count}" for count in counts)
    return Check(
        "sparse equivalence",
        worst <= LIMIT,
        f"{_difference(worst)} at {told} to a float64 FFN that reads the selected neurons only",
    )


def _worst(model: Any, params: Params, inputs: jax.Array, top_k: int | None) -> float | None:
    """Largest difference over the layers, over each one's largest output."""
    is_ffn = isinstance(model, SproutFFN)
    config = model.config if is_ffn else model.config.ffn
    if config.deep_sets is not None:
        return None
    layers = 1 if is_ffn else model.config.n_layers
    count = neuron_counts(model, config.d_ff if top_k is None else top_k)
    seen = jax.device_get(_observe(model, params, inputs, count)[0])
    worst = 0.0
    for number in range(layers):
        own = params if is_ffn else params[f"layer_{number}"]["ffn"]
        used = None if top_k is None else seen.used[number]
        wanted = reference_ffn(config, jax.device_get(own), seen.inputs[number], used)
        size = max(float(np.abs(wanted).max()), float(np.finfo(np.float32).tiny))
        worst = np.maximum(worst, float(np.abs(seen.outputs[number] - wanted).max()) / size)
    return float(worst)


def _approximation(config: SproutFFNConfig, table: QualityTable, place: int) -> Check:
    top_k, d_ff, quality = table.top_k[place], config.d_ff, table.quality
    router, oracle, drawn = (
        {name: float(values[kind, :, place].mean()) for name, values in quality._asdict().items()}
        for kind in range(len(table.selections))
    )
    expected = f", expected of random {random_cosine(top_k, d_ff):.3f}" if config.deep_sets is None else ""
    finite = all(np.isfinite([*router.values(), *oracle.values()]))
    return Check(
        f"sparse approximation, {top_k / d_ff:.0%}",
        finite,
        f"top_k {top_k} of {d_ff}: MSE {router['mse']:.3g}, cosine {router['cosine']:.3f} "
        f"(oracle {oracle['cosine']:.3f}, random {drawn['cosine']:.3f}{expected}), "
        f"norm {router['norm_ratio']:.1%} of dense",
    )


def _routing(model: Any, params: Params, inputs: jax.Array, top_k: int) -> Iterator[Check]:
    sums = jax.tree.map(np.asarray, _observe(model, params, inputs, neuron_counts(model, top_k))[1])
    usage, layers = usage_from(sums["usage"]), layers_from(sums["layers"])
    config = model.config if isinstance(model, SproutFFN) else model.config.ffn
    unit = config.block_size if config.selects_blocks else 1
    expected = usage.tokens * min(max(top_k // unit, 1) * unit, config.d_ff)
    for number in range(len(usage.counts)):
        yield _layer_routing(usage, layers, number, expected)


def _layer_routing(usage: NeuronUsage, layers: LayerStatistics, number: int, expected: int) -> Check:
    d_ff = usage.counts.shape[1]
    mean = max(expected / d_ff, 1e-9)
    statistics = usage_statistics(usage, rare=_RARE_TOKENS / mean)
    unique, never, rare, common, most, least, _, _, uneven = (part[number] for part in statistics)
    total = int(usage.counts[number].sum())
    return Check(
        f"router statistics, layer {number}",
        total == expected,
        f"{total} selections on {usage.tokens} tokens ({expected} asked for); {unique} of {d_ff} neurons "
        f"used: {never} never, {rare} rare (fewer than {_RARE_TOKENS} tokens), {common} common; usage "
        f"{least:.1%} to {most:.1%}, Gini {uneven:.3f}; {layers.oracle_overlap[number]:.1%} of the oracle's "
        f"neurons ({expected / usage.tokens / d_ff:.1%} by chance)",
    )


def _gradient_flow(model: Any, params: Params, inputs: jax.Array, top_k: int) -> Check:
    plain = _gradient_sizes(model, params, inputs, jnp.asarray(top_k), straight_through=False)
    through = _gradient_sizes(model, params, inputs, jnp.asarray(top_k), straight_through=True)
    plain, through = flatten(jax.device_get(plain)), flatten(jax.device_get(through))
    routers = [name for name in plain if "router" in name.split("/")]
    fed = [name for name in plain if name not in routers and plain[name] > 0]
    silent = sorted({_part(name) for name in plain if name not in routers and not plain[name] > 0})
    moved = [name for name in routers if plain[name] > 0]
    learn = sum(through[name] > 0 for name in routers)
    without = f" (none: {', '.join(silent)})" if silent else ""
    finite = all(np.isfinite(value) for value in (*plain.values(), *through.values()))
    return Check(
        "gradient flow",
        finite and not moved,
        f"top_k {top_k}: {len(fed)} of {len(plain) - len(routers)} parameters beside the routers' have a "
        f"gradient{without}; of {len(routers)} router parameters "
        f"{len(moved)} have one (limit 0: the loss teaches no router), {learn} with straight_through=True",
    )


def _forward(model: Any, params: Params, tokens: jax.Array, counts: tuple[int, ...]) -> Check:
    dense, *sparse = (
        np.asarray(_observe(model, params, tokens, neuron_counts(model, count))[0].result)
        for count in (model.config.d_ff, *counts)
    )
    told = ", ".join(
        f"{count / model.config.d_ff:.0%} {_cosine(logits, dense):.4f}"
        for count, logits in zip(counts, sparse, strict=True)
    )
    shape = (*tokens.shape, model.config.vocab_size)
    sound = all(logits.shape == shape and np.isfinite(logits).all() for logits in (dense, *sparse))
    return Check(
        "full-model forward", sound, f"logits {shape}, all finite; cosine to those of all neurons: {told}"
    )


@partial(jax.jit, static_argnums=0)
def _observe(model: Any, params: Params, inputs: jax.Array, top_k: jax.Array) -> Any:
    seen = observe(model, params, inputs, top_k)
    return seen, {"usage": usage_sums(model, seen), "layers": layer_sums(model, seen)}


@partial(jax.jit, static_argnums=0, static_argnames="straight_through")
def _gradient_sizes(
    model: Any, params: Params, inputs: jax.Array, top_k: jax.Array, *, straight_through: bool
) -> Any:
    """Largest absolute gradient of every parameter."""

    def loss(params: Params) -> jax.Array:
        out = model.apply({"params": params}, inputs, top_k=top_k, straight_through=straight_through)
        if isinstance(model, SproutFFN):
            return jnp.square(out).mean()
        chance = jax.nn.log_softmax(out.logits)
        return -jnp.take_along_axis(chance, jnp.flip(inputs)[..., None], axis=-1).mean()

    return jax.tree.map(lambda leaf: jnp.abs(leaf).max(), jax.grad(loss)(params))


def _part(name: str) -> str:
    """The part of a layer, or of the network, that a parameter belongs to."""
    parts = name.split("/")
    return "/".join(parts[parts[0].startswith("layer_") :][:2])


def _difference(worst: float) -> str:
    return f"largest relative difference {worst:.2g} (limit {LIMIT:g})"


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    left, right = left.ravel().astype(np.float64), right.ravel().astype(np.float64)
    lengths = np.linalg.norm(left) * np.linalg.norm(right)
    return float(left @ right / lengths) if lengths else 0.0
