"""Arithmetic of 256 chips: what a step sends, how long that takes, and where it takes longer than the work.

Data parallelism adds up the gradients of all chips in every step, in a ring: each chip sends each number
about twice, however many chips there are. What a chip computes shrinks with its part of the batch, so that
below some part the step is as long as the sending. Nothing here is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row
from sparsejax.bench.scaling.steps import ATOMS, force_field

CHIPS = 256
SENT_PER_SECOND = 200e9
"""Bytes that a TPU v5e sends: published are 400 GB/s for both directions together."""

PEAK = 197e12
"""Of a TPU v5e in bfloat16, as published."""

SHARE = 0.4
"""Of the peak that is reached; a guess that the reader may replace."""

_BYTES = 4  # of a gradient
_NOTE = (
    f"Limits: arithmetic, not measured. {CHIPS} TPU v5e chips; 197 TFLOP/s of bfloat16 and 400 GB/s of "
    f"interconnect, both directions together, as published by Google; {SHARE:.0%} of the peak assumed to be "
    "reached; gradients of float32 added up in a ring; sending does not overlap with computing."
)


@dataclass(frozen=True)
class Network:
    """What is trained.

    Attributes:
      words: name and size.
      rows: what the work is counted in.
      parameters: numbers whose gradients are added up.
      flops: of a row, forward and backward.
    """

    words: str
    rows: str
    parameters: int
    flops: float


def ring_bytes(parameters: int, chips: int) -> float:
    """Bytes that each chip sends to add up gradients in a ring.

    Args:
      parameters: how many.
      chips: in the ring.

    Example:
      >>> ring_bytes(1_000_000, 4)
      6000000.0
    """
    return 2 * (chips - 1) / chips * _BYTES * parameters


def break_even(network: Network, chips: int = CHIPS) -> float:
    """Rows per chip for which computing takes as long as sending.

    Args:
      network: what is trained.
      chips: in the ring.

    Example:
      >>> round(break_even(Network("any matrices", "tokens", 1000, 6 * 1000)))
      523
    """
    sending = ring_bytes(network.parameters, chips) / SENT_PER_SECOND
    return sending / (network.flops / (SHARE * PEAK))


def networks() -> list[Network]:
    """Of each family that is trained by gradients, at a size that is known of it."""
    import jax

    from sparsejax.models.sparse_inference.llama.config import LlamaConfig
    from sparsejax.models.ten.config import TemporalEigenstateConfig
    from sparsejax.models.ten.presets import PUBLISHED
    from sparsejax.training.recipes.llama import parts as llama_parts
    from sparsejax.training.recipes.sprout import parts as sprout_parts
    from sparsejax.training.recipes.sprout.settings import SproutSettings
    from sparsejax.training.recipes.ten import parts as ten_parts

    key = jax.random.key(0)
    large = TemporalEigenstateConfig(**PUBLISHED["large"])
    bert = sprout_parts.network_config(SproutSettings(Path("unused"), Path("unused")), 30_522)
    tiny = LlamaConfig(
        vocab_size=32_000,
        d_model=2048,
        d_ff=5632,
        n_layers=22,
        n_heads=32,
        n_kv_heads=4,
        context_length=2048,
        tied_output=False,
    )
    of_text = {
        "TEN large": partial(ten_parts.initial_params, large),
        "SPROUT of the published size": partial(sprout_parts.initial_params, bert),
        "Llama of 22 layers, width 2,048": partial(llama_parts.initial_params, tiny),
    }
    found = [_of_text(words, jax.eval_shape(init, key)) for words, init in of_text.items()]
    return [*found, _published_force_field()]


def _of_text(words: str, params: Any) -> Network:
    """A language model: each number of a matrix is multiplied once per token, thrice with the gradients."""
    import jax

    sizes = {
        jax.tree_util.keystr(path): leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    tables = sum(size for path, size in sizes.items() if "embedding" in path or "token_embd" in path)
    has_head = any("head" in path or "output'" in path for path in sizes)
    every = sum(sizes.values())
    return Network(words, "tokens", every, 6.0 * (every - tables if has_head else every))


def _published_force_field() -> Network:
    """As XLA counts the work of a step, of 32 molecules."""
    import jax

    work, molecules = force_field(interactions=3), 32
    assert work.first is not None
    state = jax.eval_shape(work.first, jax.random.key(0))
    counted: Any = jax.jit(work.step).lower(state, work.batch(molecules, 1)).cost_analysis()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    words, rows = "force field of the published size", f"molecules of {ATOMS} atoms"
    return Network(words, rows, parameters, counted["flops"] / molecules)


def limit_rows(machine: Machine) -> list[Row]:
    """A row for each of `networks`.

    Args:
      machine: that the other rows are measured on.
    """
    return [_row(network, machine) for network in networks()]


def _row(network: Network, machine: Machine) -> Row:
    sent = ring_bytes(network.parameters, CHIPS)
    return Row(
        case=f"{network.words}: {network.rows} per chip for which computing takes as long as sending",
        unit=network.rows.split()[0],
        ours=break_even(network),
        peers={},
        quality={
            "sent per step and chip": f"{sent / 1e6:,.1f} MB, {1e3 * sent / SENT_PER_SECOND:.3g} ms",
            "work": f"{network.flops / 1e9:.3g} GFLOP for one of the {network.rows.split()[0]}",
            "parameters": f"{network.parameters:,}",
        },
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        notes=(_NOTE,),
    )
