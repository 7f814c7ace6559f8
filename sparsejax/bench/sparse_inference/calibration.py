"""How long the closed form takes to calibrate the predictor of a large layer, and what it then finds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row, Target

_SECONDS = 60.0
_NOTE = (
    "Calibration: once, compilation included. Inputs are mixtures of fewer latent variables than they have "
    "numbers, and a tenth of noise; recall is that of the tenth of the neurons with the largest activations, "
    "of samples that were not seen."
)


@dataclass(frozen=True)
class Sizes:
    """Of the layer and the samples.

    Attributes:
      d_model: d.
      d_ff: f.
      rank: of the predictor.
      samples: that it is fitted to.
      held_out: that it is judged by.
      batch: samples that come at a time.
    """

    d_model: int = 4096
    d_ff: int = 11_008
    rank: int = 256
    samples: int = 8192
    held_out: int = 256
    batch: int = 1024


QUICK = Sizes(128, 256, 16, 256, 64, 64)


def measure(sizes: Sizes, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """The one row."""
    from sparsejax.models.sparse_inference import SparsityConfig, predictor_statistics
    from sparsejax.models.sparse_inference.calibration.calibrate import calibrate

    weights, samples, held_out = _layer(sizes)
    chosen = SparsityConfig.with_active_fraction(0.1)
    start = time.perf_counter()
    batches = (samples[at : at + sizes.batch] for at in range(0, sizes.samples, sizes.batch))
    found = calibrate(batches, weights, chosen, activation="relu", rank=sizes.rank)
    seconds = time.perf_counter() - start
    judged = predictor_statistics(held_out, found.predictor, weights, found.sparsity, activation="relu")
    products = 2.0 * sizes.samples * sizes.d_model**2 + 2.0 * sizes.d_ff * sizes.d_model**2
    yield Row(
        case=(
            f"calibration of {sizes.d_model:,} x {sizes.d_ff:,}, rank {sizes.rank}, {sizes.samples:,} samples"
        ),
        unit="s",
        ours=seconds,
        peers={},
        quality={"recall of a tenth": round(float(judged.recall), 4)},
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=() if quick else (Target(at_most=_SECONDS),),
        bound=f"products of samples, and of weights with them: {products / 1e12:.2f} TFLOP",
        notes=[_NOTE],
    )


def _layer(sizes: Sizes) -> tuple[Any, np.ndarray, np.ndarray]:
    """Weights, samples and held-out samples."""
    import jax.numpy as jnp

    from sparsejax.ops.sparse_ffn import FFNWeights

    draws = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return draws.standard_normal(shape, np.float32)

    latent = sizes.rank // 2
    mixing = normal(latent, sizes.d_model) / np.float32(np.sqrt(latent))
    x = normal(sizes.samples + sizes.held_out, latent) @ mixing
    x += 0.1 * normal(*x.shape)
    scale = np.float32(1 / np.sqrt(sizes.d_model))
    w_in, w_out = (scale * normal(sizes.d_ff, sizes.d_model) for _ in range(2))
    return FFNWeights(jnp.asarray(w_in), jnp.asarray(w_out)), x[: sizes.samples], x[sizes.samples :]
