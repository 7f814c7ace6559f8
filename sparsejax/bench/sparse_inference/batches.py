"""Where computing some neurons stops paying: small batches, and two paths at the limits that "auto" has.

The limits are those of `sparsejax.models.sparse_inference.ffn.crossover`: there a path is at its worst, about
as fast as our own products of all neurons, which a variant of the row shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from sparsejax.bench.machine import Machine
from sparsejax.bench.pinned import tell
from sparsejax.bench.report import Row
from sparsejax.bench.sparse_inference.ffn import Turning, as_row, dense_calls, dense_errors, relative, timed
from sparsejax.bench.sparse_inference.layers import LARGE, QUICK, SMALL, Layers, Sizes
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.crossover import ROWS, SHARED
from sparsejax.models.sparse_inference.ffn.paths import predicted_ffn
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan, chosen

BATCHES = (2, 4, 8)
TOGETHER = (32, 128, 512)
_ACTIVE = 0.03  # of each token


def measure(*, group: str, quick: bool, threads: int) -> list[Row]:
    """One of the groups "batches" and "batches small" here; the caller limits threads.

    Args:
      group: its name.
      quick: small sizes and fewer repetitions: a test of the benchmark, not a measurement.
      threads: of every contestant.
    """
    machine, rows = Machine.describe(threads), []
    for row in measure_sizes(
        replace(QUICK, quantises=False) if quick else GROUPS[group], machine, quick=quick
    ):
        tell(row)
        rows.append(row)
    return rows


def measure_sizes(sizes: Sizes, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Small batches, whose tokens read their own rows, then the limits.

    Args:
      sizes: of the layers.
      machine: of the run.
      quick: fewer repetitions.
    """
    batches, together = (BATCHES[:2], TOGETHER[:1]) if quick else (BATCHES, TOGETHER)
    layers = Layers(sizes, _ACTIVE, tokens=together[-1])
    whole = layers.inputs
    for tokens in (*batches, 1, *together):
        layers.inputs = [inputs[:tokens] for inputs in whole]
        if tokens in batches:
            yield _batch(layers, tokens, machine, quick=quick)
            continue
        plan = FFNPlan(path="rows") if tokens == 1 else FFNPlan(sizes.block, group=0, path="shared")
        yield _limit(layers, tokens, plan, machine, quick=quick)


def _batch(layers: Layers, tokens: int, machine: Machine, *, quick: bool) -> Row:
    """Tokens that each choose a few neurons."""
    part, words = _ACTIVE, replace(layers.sizes, quantises=False).words
    calls = {"ours": _call(layers, part, FFNPlan())}
    calls |= {f"ours: {path}": _call(layers, part, FFNPlan(path=path)) for path in ("union", "masked")}
    scores = layers.predictors[0].scores(layers.inputs[0])
    kept = np.asarray(chosen(scores, SparsityConfig.with_active_fraction(part), FFNPlan()))
    return _row(
        layers,
        f"{tokens} tokens, {words}, {part:.0%} active for each",
        calls,
        kept,
        machine,
        quick=quick,
        target=1.0,
        bound=f"memory: {tokens * part:.0%} of the neurons, token by token; the union of the choices, which "
        f"the variant reads once, is {kept.any(axis=0).mean():.1%}",
    )


def _limit(layers: Layers, tokens: int, plan: FFNPlan, machine: Machine, *, quick: bool) -> Row:
    """A path at the largest part that "auto" takes it for."""
    part = ROWS if plan.path == "rows" else SHARED
    words = replace(layers.sizes, quantises=layers.sizes.quantises and tokens == 1).words
    calls = {
        "ours": _call(layers, part, plan),
        "ours: masked": _call(layers, part, replace(plan, path="masked")),
    }
    scores = layers.predictors[0].scores(layers.inputs[0])
    kept = np.asarray(chosen(scores, SparsityConfig.with_active_fraction(part), plan))
    return _row(
        layers,
        f"crossover at {tokens} token{'s' * (tokens > 1)}, {words}, {part:.0%} by {plan.path!r}",
        calls,
        kept,
        machine,
        quick=quick,
        target=None,
        bound=f"the largest part that auto takes this path for: {part:.0%}",
    )


def _call(layers: Layers, part: float, plan: FFNPlan) -> Turning:
    import jax

    sparsity, name = SparsityConfig.with_active_fraction(part), layers.activation
    predictors = layers.scorers if len(layers.inputs[0]) == 1 else layers.predictors

    def sparse(group: Any, inputs: Any) -> Any:
        weights, predictor = group
        return predicted_ffn(inputs, weights, predictor.scores(inputs), sparsity, activation=name, plan=plan)

    return Turning(jax.jit(sparse), list(zip(layers.weights, predictors, strict=True)), layers.inputs)


def _row(
    layers: Layers,
    case: str,
    calls: dict[str, Turning],
    kept: np.ndarray,
    machine: Machine,
    *,
    quick: bool,
    target: float | None,
    bound: str,
) -> Row:
    dense, seconds, notes = dense_calls(layers)
    outputs, exact = np.asarray(calls["ours"].first()), layers.exact(0, 0, None)
    of_the_choice = {"ours": relative(outputs, layers.exact(0, 0, kept)), **dense_errors(layers, dense)}
    quality: dict[str, Any] = {
        "relative output error": f"{relative(outputs, exact):.3f}",
        "error to float64, of the same choice": of_the_choice,
    }
    if kept.mean() < 2 * layers.active:
        recall = layers.recall(0, 0, kept)
        quality["recall of the active"] = f"{recall:.3f} (chance {layers.active:.2f})"
    times = timed({**calls, **dense}, quick, few=len(kept) > 32)
    return as_row(
        case,
        "us",
        times,
        dense,
        machine,
        quality=quality,
        target=target,
        bound=bound,
        seconds=seconds,
        notes=notes,
    )


GROUPS: dict[str, Sizes] = {"batches": LARGE, "batches small": SMALL}
"""In the order of the table; predictors of more than a token are in float32."""
