"""The published recipe: a run of the original trainer, replayed step by step."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.checkpoint.rules import to_params, to_state
from sparsejax.models.force_field import ForceFieldConfig, StudentForceField
from sparsejax.models.force_field.batches import LabelledBatch
from sparsejax.models.force_field.graph import Capacity, batch_graphs
from sparsejax.models.force_field.inputs import example_graph
from sparsejax.models.force_field.layouts import rules
from sparsejax.models.force_field.structure import Structure
from sparsejax.training.gradient_step import start_state
from sparsejax.training.recipes.force_field import parts
from sparsejax.training.recipes.force_field.scores import scorer
from sparsejax.training.recipes.force_field.settings import ForceFieldSettings
from tests import golden

CONFIG = ForceFieldConfig(16, 2, 6, 5.0, max_z=20, variant="cartesian")
SETTINGS = ForceFieldSettings(Path(), Path(), recipe="compat", epochs=3, warmup_steps=7)
CAPACITY = Capacity(nodes=32, edges=192, graphs=5)


def _params(case, when):
    state = {name.removeprefix(f"{when}/"): case[name] for name in case if name.startswith(f"{when}/")}
    template = jax.eval_shape(StudentForceField(CONFIG).init, jax.random.key(0), example_graph(CONFIG))
    return to_params(rules("cartesian", CONFIG), state, template["params"])


def _batch(case, name):
    """A batch of the original's as one of ours."""
    species, positions, owner, energy, forces = (
        case[f"{name}/{part}"] for part in ("atomic_numbers", "positions", "batch", "energy", "forces")
    )
    open_box = np.zeros(3, bool)
    structures = [
        Structure(species[owner == number].astype(np.int32), positions[owner == number], None, open_box)
        for number in range(len(energy))
    ]
    labels = {
        "energy": np.pad(energy, (0, 1)),
        "forces": np.pad(forces, ((0, CAPACITY.nodes - len(forces)), (0, 0))),
        "stress": np.zeros((CAPACITY.graphs, 6), np.float32),
        "stress_mask": np.zeros(CAPACITY.graphs, bool),
    }
    return jax.device_put(LabelledBatch(batch_graphs(structures, 5.0, CAPACITY), labels))


@pytest.mark.golden("trainer_warmup_cosine.npz")
def test_a_run_of_the_original_is_replayed():
    case = golden.arrays("force_field", "trainer_warmup_cosine")
    rates, loss = parts.rates(SETTINGS, 5), parts.loss_settings(SETTINGS)
    chain = parts.optimizer(SETTINGS, CONFIG, rates.schedule)
    step = jax.jit(parts.training_step(CONFIG, loss, chain, stress=False))
    score = scorer(CONFIG, loss, stress=False, pooled=False)
    training = [_batch(case, f"train{number}") for number in range(5)]
    held_out = [_batch(case, f"val{number}") for number in range(2)]
    state = start_state(jax.random.key(0), jax.tree.map(jnp.asarray, _params(case, "init")), chain)
    records, validations = [], []
    for number in range(15):
        state, record = step(state, training[number % 5])
        records.append([float(record[name]) for name in ("loss", "energy", "force", "angular")])
        assert rates.at(number) == pytest.approx(case["steps"][number, 4], abs=1e-12)
        if number % 5 == 4:
            validations.append(score(state.params, held_out).loss)
    expected = case["steps"][:, :4]
    np.testing.assert_allclose(records[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(records, expected, rtol=1e-4)
    np.testing.assert_allclose(validations, case["val_total"], rtol=1e-4)
    for name, array in to_state(rules("cartesian", CONFIG), state.params).items():
        # The steps moved most numbers by 1e-2, but neither the radial functions nor the last mixing matrix.
        np.testing.assert_allclose(array, case[f"final/{name}"], atol=5e-6, err_msg=name)
