"""What fewer neurons cost a trained network on text it has not seen: angles of its FFNs, and its loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row, Target
from sparsejax.models.sprout.config import Path as SparsePath
from sparsejax.models.sprout.mlm import mlm_loss
from sparsejax.models.sprout.quality import ffn_quality
from sparsejax.shipped import HELD_OUT

SHARES = (0.5, 0.25, 0.1)
"""Of the neurons."""

MODES: dict[str, SparsePath] = {"neurons": "masked", "blocks": "block"}
"""What is chosen, and the path that chooses it."""

_BATCH = 16
_OF_THE_ORACLE = 0.97
_MOST_RISE = {0.5: 2.0, 0.25: 5.0, 0.1: 12.0}
_MOST_LOSS_OF_BLOCKS = 3.0
_NOTE = (
    "Quality: the trained network of the file, on held-out text; cosines are those of the feed-forward "
    "outputs to the dense ones, the mean over layers; the oracle chooses by the absolute activations, or by "
    "their sums over a block. Losses are of masked tokens, with the whole network sparse."
)


@dataclass(frozen=True)
class HeldOut:
    """A trained network and text that it has not seen.

    Attributes:
      name: of the file.
      model: `SproutLM`.
      params: its parameters.
      read: (n, b, t) ids with some masked.
      labels: (n, b, t) ids to be guessed, -100 elsewhere.
    """

    name: str
    model: Any
    params: Any
    read: np.ndarray
    labels: np.ndarray

    @classmethod
    def of_file(cls, path: Path, *, quick: bool) -> HeldOut:
        """A checkpoint with the text beside it: ``read`` and ``labels`` (n, t) in NAME.held_out.npz.

        Args:
          path: of the checkpoint.
          quick: only so much text as a test needs.

        Raises:
          FileNotFoundError: there is no such text.
        """
        from sparsejax.checkpoint.load import load

        checkpoint = load(path)
        with np.load(path.with_suffix(HELD_OUT)) as arrays:
            read, labels = (_batches(arrays[name]) for name in ("read", "labels"))
        number = 1 if quick else len(read)
        return cls(path.name, checkpoint.model, checkpoint.params, read[:number], labels[:number])

    def top_k(self, share: float) -> int:
        """Neurons per token."""
        return max(1, int(share * self.model.config.d_ff))


def measure(held_out: HeldOut, machine: Machine) -> Iterator[Row]:
    """Cosines and losses of both modes at every share, and the loss of one mode over that of the other."""
    losses = masked_losses(held_out)
    for mode in MODES:
        yield from cosine_rows(held_out, machine, mode)
    for mode in MODES:
        for share in SHARES:
            yield _loss_row(held_out, machine, losses, mode=mode, share=share)
    for share in SHARES:
        yield _blocks_row(held_out, machine, losses, share)


def cosine_rows(held_out: HeldOut, machine: Machine, mode: str) -> Iterator[Row]:
    """The router's cosine over the oracle's, both of the same mode, with a random choice beside them."""
    import jax

    counts = [held_out.top_k(share) for share in SHARES]
    table = ffn_quality(
        jax.random.key(0), held_out.model, held_out.params, held_out.read, counts, path=MODES[mode]
    )
    router, oracle, drawn = table.quality.cosine.mean(axis=1)
    worst = (table.quality.cosine[0] / table.quality.cosine[1]).min(axis=0)
    for number, share in enumerate(SHARES):
        yield _row(
            held_out,
            machine,
            case=f"{held_out.name}: router's cosine to dense over the oracle's, {share:.0%} of the {mode}",
            unit="x",
            ours=float(router[number] / oracle[number]),
            quality={
                "cosine": f"router {router[number]:.3f}, oracle {oracle[number]:.3f}",
                "random choice": f"{drawn[number]:.3f} (expected {share**0.5:.3f})",
                "worst layer": f"{worst[number]:.3f} x",
            },
            target=Target(no_less=_OF_THE_ORACLE),
            bound="a perfect router: 1 x",
        )


def masked_losses(held_out: HeldOut) -> dict[tuple[str, float], float]:
    """Mean loss of the masked tokens by mode and share of neurons; share 1 is dense."""
    import jax
    import jax.numpy as jnp

    @partial(jax.jit, static_argnums=0)
    def losses(path: SparsePath, params: Any, read: Any, labels: Any, top_k: Any) -> Any:
        logits = held_out.model.apply({"params": params}, read, top_k=top_k, path=path).logits
        return mlm_loss(logits, labels)

    found = {}
    for mode, path in MODES.items():
        for share in (1.0, *SHARES):
            top_k = jnp.asarray(held_out.top_k(share), jnp.int32)
            parts = [
                losses(path, held_out.params, read, labels, top_k)
                for read, labels in zip(held_out.read, held_out.labels, strict=True)
            ]
            each, counts = np.asarray(parts, np.float64).T
            found[mode, share] = float((each * counts).sum() / counts.sum())
    return found


def _batches(rows: np.ndarray) -> np.ndarray:
    """Rows (n, t) as (batches, b, t); what does not fill a batch is left out."""
    size = min(_BATCH, len(rows))
    whole = len(rows) // size
    return rows[: whole * size].reshape(whole, size, -1)


def _loss_row(
    held_out: HeldOut, machine: Machine, losses: dict[tuple[str, float], float], *, mode: str, share: float
) -> Row:
    dense, sparse = losses[mode, 1.0], losses[mode, share]
    return _row(
        held_out,
        machine,
        case=f"{held_out.name}: rise of the masked loss, {share:.0%} of the {mode}",
        unit="%",
        ours=100 * (sparse / dense - 1),
        quality={"loss": f"{sparse:.4f}, dense {dense:.4f}"},
        target=Target(at_most=_MOST_RISE[share]),
        bound="the choice of the router",
    )


def _blocks_row(
    held_out: HeldOut, machine: Machine, losses: dict[tuple[str, float], float], share: float
) -> Row:
    of_blocks, of_neurons = losses["blocks", share], losses["neurons", share]
    return _row(
        held_out,
        machine,
        case=f"{held_out.name}: masked loss of blocks over that of neurons, less 1, {share:.0%}",
        unit="%",
        ours=100 * (of_blocks / of_neurons - 1),
        quality={"loss": f"blocks {of_blocks:.4f}, neurons {of_neurons:.4f}"},
        target=Target(at_most=_MOST_LOSS_OF_BLOCKS),
        bound="the choice of the router",
    )


def _row(
    held_out: HeldOut,
    machine: Machine,
    *,
    case: str,
    unit: str,
    ours: float,
    quality: dict[str, Any],
    target: Target,
    bound: str,
) -> Row:
    config = held_out.model.config
    about = (
        f"{held_out.name}: {config.n_layers} layers, d_model {config.d_model}, {config.d_ff} neurons, blocks "
        f"of {config.block_size}, router {config.router}; {held_out.read.size:,} held-out tokens, "
        f"{(held_out.labels >= 0).sum():,} masked."
    )
    return Row(
        case=case,
        unit=unit,
        ours=ours,
        peers={},
        quality=quality,
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=(target,),
        bound=bound,
        notes=(_NOTE, about),
    )
