"""What fewer neurons cost trained Llamas: perplexity of held-out text by the share of the neurons."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.bench.given import networks_with_text
from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row, Target
from sparsejax.shipped import HELD_OUT, PREDICTORS
from sparsejax.training.recipes.llama.quality import FRACTIONS, Way, curves

_QUICK_ROWS = 2
_MOST_RISE = {("relu", 0.25): 3.0}
"""Percent, by activation and share: what was aimed at."""

_NOTE = (
    "Quality: perplexity of held-out text with every FFN of the trained network sparse, each token with "
    "neurons of its own; the oracle chooses by what neurons add to the output, which only computing all of "
    "them tells."
)


@dataclass(frozen=True)
class Measured:
    """Perplexities of a network.

    Attributes:
      name: of the file.
      config: of the network.
      curves: perplexity by active fraction, by how neurons are chosen.
      tokens: of held-out text.
      rank: of the predictors.
    """

    name: str
    config: Any
    curves: Mapping[Way, Mapping[float, float]]
    tokens: int
    rank: int


def measured(path: Path, *, quick: bool = False) -> Measured:
    """Perplexities of the network in a file.

    Args:
      path: of the .gguf; beside it are ``tokens`` (n, t) that it has not seen, and its predictors.
      quick: only so much text as a test needs.

    Raises:
      CheckpointError: the file or its predictors cannot be read.
      FileNotFoundError: there is no text.
    """
    from sparsejax.models.sparse_inference.llama.plain_ffn import with_plain_ffn
    from sparsejax.training.recipes.llama.generate import load_llama
    from sparsejax.training.recipes.llama.predictors import read_predictors

    ck = load_llama(path)
    found = read_predictors(path.with_suffix(PREDICTORS), ck)
    with np.load(path.with_suffix(HELD_OUT)) as arrays:
        tokens = np.asarray(arrays["tokens"], np.int32)
    rows = tokens[:_QUICK_ROWS] if quick else tokens
    # Of the same numbers as the file's, which plain products compute sooner.
    of_ways = curves(with_plain_ffn(ck), list(rows), found.each)
    return Measured(path.name, ck.config, of_ways, rows.size, _rank(found.each[0]))


def measure(machine: Machine, quick: bool, checkpoint: str | None = None) -> Iterator[Row]:
    """Rows of all networks: how much the perplexity rises at each share of the neurons."""
    files = networks_with_text("llama*.gguf", checkpoint)
    if not files:
        print("no trained Llama with held-out text is there: no rows about quality", file=sys.stderr)
    for path in files:
        yield from rows_of(measured(path, quick=quick), machine)


def rows_of(found: Measured, machine: Machine) -> Iterator[Row]:
    """A row for each share of the neurons but all.

    Args:
      found: perplexities; those of share 1.0 among them.
      machine: that measured.
    """
    config = found.config
    about = (
        f"{found.name}: {config.n_layers} blocks, d_model {config.d_model}, {config.d_ff} neurons, gates "
        f"{config.activation}; predictors of rank {found.rank}; {found.tokens:,} held-out tokens."
    )
    dense = found.curves["predictor"][1.0]
    for fraction in FRACTIONS[1:]:
        rise = {way: 100 * (curve[fraction] / dense - 1) for way, curve in found.curves.items()}
        most = _MOST_RISE.get((config.activation, fraction))
        yield Row(
            case=f"{found.name}: rise of the perplexity, {fraction:.0%} of the neurons",
            unit="%",
            ours=rise["predictor"],
            peers={},
            quality={
                "perplexity": f"{found.curves['predictor'][fraction]:.3f}, with all {dense:.3f}",
                "oracle": f"{rise['oracle']:.2f} %",
                "random choice": f"{rise['random']:.3g} %",
            },
            device=machine.device,
            threads=machine.threads,
            versions=machine.versions,
            targets=() if most is None else (Target(at_most=most),),
            bound="what the predictors find; the oracle",
            notes=(_NOTE, about),
        )


def _rank(predictor: Any) -> int:
    matrix = getattr(predictor, "p", None)
    return int((predictor.fc1 if matrix is None else matrix).shape[0])
