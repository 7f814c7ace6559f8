"""Draws the pictures of the start page from the shipped checkpoints and the stored benchmarks.

Run from the root of a checkout with the extras plots and force-field: ``python docs/draw_pictures.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import sparsejax as sj
from sparsejax.bench.report import read_rows

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
DPI = 90


def ultra_sparse() -> Any:
    """Predictions of the sparse and the dense sine net, on points that they were not trained on."""
    from sparsejax.models.ultra_sparse import fuse
    from sparsejax.plots.ultra_sparse import target_and_prediction

    x = np.linspace(-2 * np.pi, 2 * np.pi, 601, dtype=np.float32)
    nets = {
        name: sj.load(ROOT / "checkpoints" / f"{name}.pt") for name in ("ultra_sparse_sine", "dense_sine")
    }
    return target_and_prediction(
        {
            f"{ck.config.num_parameters:,} parameters, {ck.variant}": (x, np.asarray(fuse(ck)(x)))
            for ck in nets.values()
        }
    )


def ten() -> Any:
    """Eigenvalues of the byte model."""
    from sparsejax.models.ten import spectrum
    from sparsejax.plots.ten import eigenvalues

    ck = sj.load(ROOT / "checkpoints" / "ten_bytes.pt")
    return eigenvalues(spectrum(ck.config, ck.params), "ten_bytes.pt")


def sprout() -> Any:
    """Quality against sparsity on text that the network was not trained on."""
    from sparsejax.models.sprout import analyse
    from sparsejax.plots.sprout_network import quality

    ck = sj.load(ROOT / "checkpoints" / "sprout_words.pt")
    with np.load(ROOT / "checkpoints" / "sprout_words.held_out.npz") as text:
        tokens = text["read"][:16].astype(np.int32)
    found = analyse(jax.random.key(0), ck.model, ck.params, {"held out": [tokens]})
    return quality(found, "sprout_words.pt")


def force_field() -> Any:
    """Two picoseconds of ethanol at constant energy."""
    from ase.build import molecule

    from sparsejax.models.force_field import ForceField, md
    from sparsejax.plots.force_field import energy_drift

    field = ForceField.from_checkpoint(sj.load(ROOT / "checkpoints" / "ultra_tiny_gfn2.pt"))
    start = md.minimize(field, molecule("CH3CH2OH"), fmax=0.02)
    run = md.nve(field, start.atoms, steps=4000, timestep=0.5, temperature=600)
    return energy_drift(run.time / 1000, run.total, 9, run.temperature, "ethanol, ultra_tiny_gfn2.pt")


def sparse_inference() -> Any:
    """Perplexity against active neurons, as the benchmark stored it."""
    from sparsejax.plots.sparse_inference import perplexity_curves

    curves: dict[str, dict[str, dict[float, float]]] = {}
    case = re.compile(r"(\w+)\.gguf: rise of the perplexity, (\d+)% of the neurons")
    for row in read_rows(ROOT / "sparsejax" / "bench" / "results" / "sparse_inference.json"):
        if found := case.fullmatch(row.case):
            dense = float(row.quality["perplexity"].rpartition(" ")[2])
            rises = {"predictor": row.ours, "oracle": float(row.quality["oracle"].split()[0])}
            ways = curves.setdefault(found[1], {way: {1.0: dense} for way in rises})
            for way, rise in rises.items():
                ways[way][int(found[2]) / 100] = dense * (1 + rise / 100)
    return perplexity_curves(curves)


FIGURES: dict[str, Callable[[], Any]] = {
    drawn.__name__: drawn for drawn in (ultra_sparse, ten, sprout, force_field, sparse_inference)
}
"""By file name."""


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, drawn in FIGURES.items():
        drawn().savefig(PICTURES / f"{name}.png", dpi=DPI)
