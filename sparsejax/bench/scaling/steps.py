"""One training step of each family, small, over a mesh of devices: what the scaling benchmark runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

WINDOW = 128
"""Tokens of a row of the language models."""

ATOMS = 12
"""Of a molecule."""

_STEPS = 1000  # of the run, which sets the learning rate only
_VOCABULARY, _WIDTH, _LAYERS, _HEADS = 512, 128, 1, 4
_SIZES: dict[str, Any] = {"d_model": _WIDTH, "d_ff": 4 * _WIDTH, "n_layers": _LAYERS, "n_heads": _HEADS}
_PROPOSALS = 5000  # of a search: its whole run is the step
_NOWHERE = Path("unused")


@dataclass(frozen=True)
class Work:
    """A family's step.

    Attributes:
      words: what the step is.
      rows: what a batch is made of, for so many.
      each: rows of a device, where every device keeps as many.
      first: state before the first step; pure. None for a search, which has none.
      step: (state, batch) -> (state, record); of a search (keys, mesh) -> its result.
      batch: of so many rows, in so many parts: arrays whose first axis is spread over the devices.
    """

    words: str
    rows: str
    each: int
    first: Callable[[Any], Any] | None
    step: Callable[..., Any]
    batch: Callable[[int, int], Any]


@dataclass(frozen=True)
class Program:
    """A step compiled for a mesh.

    Attributes:
      call: takes the step, and gives what to wait for.
      moved: bytes that collectives give each device.
      collectives: how many.
      parameters: numbers that are trained; 0 of a search.
      flops: of a device, as XLA counts them.
    """

    call: Callable[[], Any]
    moved: int
    collectives: int
    parameters: int
    flops: float


def compiled_step(work: Work, devices: int, rows: int) -> Program:
    """A step for the first ``devices`` devices, of this process or of all processes of a job.

    Args:
      work: of `WORKS`.
      devices: that the rows are spread over.
      rows: of a batch, over all devices.
    """
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    from sparsejax.training.sharding import batch_sharding, training_mesh

    mesh = training_mesh(devices)
    if work.first is None:
        search = jax.jit(partial(work.step, mesh=mesh, chains=rows)).lower(jax.random.key(0)).compile()
        return _program(search, (jax.random.key(0),), 0)
    whole = NamedSharding(mesh, PartitionSpec())
    state = jax.jit(work.first, out_shardings=whole)(jax.random.key(0))
    batch = jax.device_put(work.batch(rows, devices), batch_sharding(mesh, rows if devices > 1 else 1))
    step = jax.jit(work.step, out_shardings=whole).lower(state, batch).compile()
    return _program(step, (state, batch), sum(leaf.size for leaf in jax.tree.leaves(state.params)))


def _program(compiled: Any, arguments: tuple[Any, ...], parameters: int) -> Program:
    import jax

    sizes = list(collective_bytes(compiled.as_text()))
    flops = float(compiled.cost_analysis().get("flops", 0.0))

    def call() -> Any:
        return jax.block_until_ready(compiled(*arguments))

    return Program(call, sum(sizes), len(sizes), parameters, flops)


_COLLECTIVE = re.compile(
    r"= (.+?) (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_ARRAY = re.compile(r"\b(pred|[su]\d+|bf16|f\d+|c\d+)\[([\d,]*)\]")


def collective_bytes(program: str) -> Iterator[int]:
    """Bytes that each collective of a compiled program gives a device; those in a loop count once.

    Args:
      program: HLO text.

    Example:
      >>> line = "%sum = (f32[4,2]{1,0}, bf16[3]{0}) all-reduce(%a, %b), replica_groups={}"
      >>> list(collective_bytes(line))
      [38]
    """
    for result in _COLLECTIVE.findall(program):
        yield sum(
            _width(kind) * int(np.prod([int(size) for size in shape.split(",") if size], dtype=np.int64))
            for kind, shape in _ARRAY.findall(result)
        )


def _width(kind: str) -> int:
    """Bytes of a number of this kind, such as f32."""
    return 1 if kind == "pred" else max(1, int(re.sub(r"\D", "", kind.removeprefix("b"))) // 8)


def ten() -> Work:
    """Temporal Eigenstate Network."""
    from sparsejax.models.ten.config import TemporalEigenstateConfig
    from sparsejax.training.gradient_step import gradient_step, initial_state
    from sparsejax.training.recipes.ten import parts as ten_parts
    from sparsejax.training.recipes.ten.settings import TenSettings

    config = TemporalEigenstateConfig(
        vocab_size=_VOCABULARY, dim=_WIDTH, n_layers=_LAYERS, num_eigenstates=32, max_seq_len=WINDOW
    )
    chain = ten_parts.optimizer(TenSettings(_NOWHERE, _NOWHERE, steps=_STEPS), config)
    step = gradient_step(ten_parts.next_token_loss(config, train=True), chain)
    first = partial(initial_state, partial(ten_parts.initial_params, config), chain)
    return Work("training step of a TEN", f"rows of {WINDOW} tokens", 4, first, step, _next_tokens)


def sprout() -> Work:
    """SPROUT, with half of the neurons and the router that learns."""
    from sparsejax.models.sprout.mlm import MaskingRule
    from sparsejax.training.recipes.sprout import parts as sprout_parts
    from sparsejax.training.recipes.sprout.losses import Objective
    from sparsejax.training.recipes.sprout.settings import SproutSettings

    settings = SproutSettings(
        _NOWHERE, _NOWHERE, **_SIZES, max_seq_len=WINDOW, final_top_k=_WIDTH, dropout=0.0
    )
    config = sprout_parts.network_config(settings, _VOCABULARY)
    objective = Objective(config, settings, MaskingRule(_VOCABULARY, 4, (0, 1, 2, 3, 4)), pad=0)
    trained = sprout_parts.training_step(objective, _STEPS)
    first = partial(sprout_parts.first_state, config, settings, _STEPS)

    def step(state: Any, batch: Any) -> Any:
        return trained(state, batch, 2 * _WIDTH)

    return Work("training step of a SPROUT", f"rows of {WINDOW} tokens", 4, first, step, _masked_tokens)


def llama() -> Work:
    """Llama."""
    import jax.numpy as jnp

    from sparsejax.training.gradient_step import initial_state
    from sparsejax.training.recipes.llama import parts as llama_parts
    from sparsejax.training.recipes.llama.settings import LlamaSettings

    settings = LlamaSettings(_NOWHERE, _NOWHERE, **_SIZES, seq_len=WINDOW, steps=_STEPS)
    config = llama_parts.network_config(settings, _VOCABULARY)
    step = llama_parts.training_step(settings, config, jnp.float32)
    chain = llama_parts.optimizer(settings)
    first = partial(initial_state, partial(llama_parts.initial_params, config), chain)
    return Work("training step of a Llama", f"rows of {WINDOW} tokens", 4, first, step, _next_tokens)


def force_field(interactions: int = 1) -> Work:
    """The force field, its published size but for the number of interactions, of which that has 3."""
    from sparsejax.training.recipes.force_field import parts
    from sparsejax.training.recipes.force_field.settings import ForceFieldSettings

    settings = ForceFieldSettings(_NOWHERE, _NOWHERE, num_interactions=interactions)
    config = parts.network_config(settings, (1, 6, 7, 8))
    chain = parts.optimizer(settings, config, parts.rates(settings, _STEPS).schedule)
    step = parts.training_step(config, parts.loss_settings(settings), chain, stress=False)
    first = partial(parts.first_state, config, chain)
    return Work("training step of a force field", f"molecules of {ATOMS} atoms", 4, first, step, _molecules)


def ultra_sparse() -> Work:
    """A search: annealing of the published net on the published problem."""
    import jax.numpy as jnp

    from sparsejax.models.ultra_sparse import UltraSparseConfig, expand_input
    from sparsejax.models.ultra_sparse.evolve import anneal, objective

    x = jnp.linspace(-jnp.pi, jnp.pi, 100)
    goal = objective(expand_input(x), jnp.sin(x))

    def search(key: Any, *, mesh: Any, chains: int) -> Any:
        return anneal(key, UltraSparseConfig(), goal, steps=_PROPOSALS, chains=chains, mesh=mesh)

    words = f"search by annealing, {_PROPOSALS:,} proposals"
    return Work(words, "chains", 4, None, search, lambda rows, parts: None)


WORKS: dict[str, Callable[[], Work]] = {
    "ten": ten,
    "sprout": sprout,
    "llama": llama,
    "force_field": force_field,
    "ultra_sparse": ultra_sparse,
}
"""Of each family."""


def _masked_tokens(rows: int, parts: int) -> dict[str, np.ndarray]:
    del parts
    ids = np.random.default_rng(0).integers(5, _VOCABULARY, (rows, WINDOW))
    return {"tokens": ids.astype(np.int32)}


def _next_tokens(rows: int, parts: int) -> dict[str, np.ndarray]:
    del parts
    ids = np.random.default_rng(0).integers(0, _VOCABULARY, (rows, WINDOW + 1)).astype(np.int32)
    return {"inputs": ids[:, :-1], "targets": ids[:, 1:]}


def _molecules(rows: int, parts: int) -> Any:
    """A batch in as many parts as there are devices."""
    import jax

    from sparsejax.models.force_field.batches import BucketedBatches
    from sparsejax.models.force_field.dataset import LabelledStructure
    from sparsejax.models.force_field.structure import Structure

    draws = np.random.default_rng(0)
    grid = np.stack(np.unravel_index(np.arange(ATOMS), (3, 2, 2)), axis=1)
    molecules = [
        Structure(
            draws.choice([1, 6, 7, 8], ATOMS).astype(np.int32),
            1.4 * grid + draws.uniform(-0.1, 0.1, (ATOMS, 3)),
            None,
            np.zeros(3, bool),
        )
        for _ in range(rows)
    ]
    dataset = [
        LabelledStructure(one, float(draws.normal()), draws.normal(size=(ATOMS, 3))) for one in molecules
    ]
    batch = BucketedBatches(dataset, 5.0, batch_size=rows, buckets=1, shards=parts)[0]
    return jax.tree.map(lambda leaf: leaf[None], batch) if parts == 1 else batch
