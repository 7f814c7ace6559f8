"""The sine nets of this project: annealed sparse ones and Adam-trained dense ones.

``python -m sparsejax.training.recipes.ultra_sparse.checkpoints FOLDER`` makes the shipped checkpoints again.
"""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.container import Layout
from sparsejax.checkpoint.save import export_pt
from sparsejax.models.ultra_sparse import (
    UltraSparseConfig,
    UltraSparseNet,
    expand_input,
    fuse,
    network_stats,
    selection_stats,
)
from sparsejax.models.ultra_sparse.evolve import anneal, evaluate, objective
from sparsejax.training.recipes.manifest import described, record
from sparsejax.typing import Params

GRID_POINTS = 100


def sine_grid(points: int = GRID_POINTS) -> tuple[jax.Array, jax.Array]:
    """The published data, for training and scoring alike: x (n,) on [-2 pi, 2 pi] and sin(x) (n, 1)."""
    x = jnp.linspace(-2 * jnp.pi, 2 * jnp.pi, points)
    return x, jnp.sin(x)[:, None]


def anneal_sine(
    key: jax.Array, config: UltraSparseConfig, *, chains: int = 20, steps: int = 20_000
) -> tuple[Params, float]:
    """The best of several annealed chains on the sine grid: parameters and training error."""
    x, targets = sine_grid()
    found = anneal(key, config, objective(expand_input(x), targets), steps=steps, chains=chains)
    best = int(jnp.argmin(found.loss))
    return jax.tree.map(lambda leaf: leaf[best], found.params), float(found.loss[best])


def adam_sine(
    key: jax.Array,
    config: UltraSparseConfig,
    *,
    chains: int = 20,
    epochs: int = 1000,
    learning_rate: float = 0.01,
) -> tuple[Params, float]:
    """The best of several Adam-trained dense nets on the sine grid: parameters and training error."""
    x, targets = sine_grid()
    goal, net, optimizer = (
        objective(expand_input(x), targets),
        UltraSparseNet(config),
        optax.adam(learning_rate),
    )
    error = partial(evaluate, config, goal=goal)

    def epoch(carry: tuple[Params, optax.OptState], _: None) -> tuple[tuple[Params, optax.OptState], None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(error)(params), state)
        return (optax.apply_updates(params, updates), state), None

    def train(chain_key: jax.Array) -> tuple[Params, jax.Array]:
        params = net.init(chain_key, goal.features[:, 0])["params"]
        (params, _), _ = jax.lax.scan(epoch, (params, optimizer.init(params)), None, epochs)
        return params, error(params)

    params, errors = jax.jit(jax.vmap(train))(jax.random.split(key, chains))
    best = int(jnp.argmin(errors))
    return jax.tree.map(lambda leaf: leaf[best], params), float(errors[best])


def published_layout(variant: str, config: UltraSparseConfig, params: Params) -> Checkpoint:
    """A checkpoint with the containers, statistics and selection of the published files."""
    x, targets = sine_grid()
    stats = dataclasses.asdict(network_stats(config, params, expand_input(x), targets))
    names = (
        "mse",
        "saturation",
        "activation_energy",
        "weight_energy",
        "total_energy",
        "parameters",
        "memory_bytes",
    )
    metadata: dict[str, Any] = {"stats": {name: stats[name] for name in names}}
    ties = {}
    if variant == "sparse":
        selection = selection_stats(config, params, range(16))
        metadata["selection"] = {
            "true_ratio": selection.true_ratio,
            "true_inputs": list(selection.true_selected),
        }
        ties = {"input_indices": "input_indices"}
    beside = ("state_dict", "stats", "input_indices", "selection")
    layout = Layout(
        container="state_dict",
        keys=("w1", "b1", "w2", "b2", "input_indices"),
        beside=beside,
        integer_dtypes={"input_indices": "int64"},
        ties=ties,
    )
    return Checkpoint("ultra_sparse", variant, config, params, metadata, layout)


def make_checkpoints(folder: Path, *, chains: int = 20, steps: int = 20_000, epochs: int = 1000) -> None:
    """Train the shipped nets and write them with their expected outputs and ``manifest.json``.

    Args:
      folder: target; created if needed.
      chains: independent runs per net; the best is kept, as in the published files.
      steps: annealing steps per chain.
      epochs: Adam epochs per chain.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sparse_config, dense_config = UltraSparseConfig(), UltraSparseConfig.dense()
    sparse_params, _ = anneal_sine(jax.random.key(0), sparse_config, chains=chains, steps=steps)
    dense_params, _ = adam_sine(jax.random.key(0), dense_config, chains=chains, epochs=epochs)
    sparse_ck = published_layout("sparse", sparse_config, sparse_params)
    bare = sparse_ck.replace(
        metadata={},
        layout=Layout(
            keys=("input_indices", "w1", "b1", "w2", "b2"), integer_dtypes={"input_indices": "int64"}
        ),
    )
    files = {
        "ultra_sparse_sine.pt": (sparse_ck, f"best of {chains} annealing chains of {steps} steps, seed 0"),
        "dense_sine.pt": (
            published_layout("dense", dense_config, dense_params),
            f"best of {chains} Adam runs of {epochs} epochs, learning rate 0.01, seed 0",
        ),
        "ultra_sparse_sine_bare.pt": (bare, "the net of ultra_sparse_sine.pt as a bare state dict"),
        "ultra_sparse_sine_library.npz": (
            bare.replace(variant="library"),
            "the net of ultra_sparse_sine.pt in the NumPy library's layout",
        ),
    }
    entries = [_write(folder, name, ck, made) for name, (ck, made) in files.items()]
    record(folder, *entries)


def _write(folder: Path, name: str, ck: Checkpoint, made: str) -> dict[str, Any]:
    export_pt(ck, folder / name)
    x, targets = sine_grid()
    outputs = np.asarray(fuse(ck)(x))
    return described(
        folder / name,
        ck,
        {"x": np.asarray(x), "outputs": outputs},
        command="python -m sparsejax.training.recipes.ultra_sparse.checkpoints checkpoints",
        made=made,
        mse=float(np.mean((outputs - np.asarray(targets)[:, 0]) ** 2)),
        note="trained and scored on the same 100 points; feature column 4 is the target itself",
    )


if __name__ == "__main__":
    make_checkpoints(Path(sys.argv[1] if len(sys.argv) > 1 else "checkpoints"))
