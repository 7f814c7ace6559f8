"""Training a force field from end to end: what a run leaves, kill and resumption, devices, bad input."""

from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jraph import GraphsTuple

import sparsejax as sj
from sparsejax.console import SHOWN_RUNS
from sparsejax.models.force_field import ForceFieldConfig
from sparsejax.models.force_field.batches import BucketedBatches, LabelledBatch, loss_masks
from sparsejax.models.force_field.dataset import ForceFieldDataset
from sparsejax.models.force_field.losses import LossMasks
from sparsejax.models.force_field.metrics import metric_sums, pooled_metrics
from sparsejax.training.errors import RunError
from sparsejax.training.gradient_step import start_state
from sparsejax.training.optimizer import decay_mask
from sparsejax.training.recipes.force_field import parts, recipe
from sparsejax.training.recipes.force_field.data import read_parts
from sparsejax.training.recipes.force_field.settings import ForceFieldSettings
from sparsejax.training.run_folder import read_run
from tests.models.force_field.samples import SIZES, samples
from tests.training.recipes.runs import check_refused, check_same_run, metrics, train_by_command, train_killed

pytest.importorskip("h5py")

EPOCHS, PER_EPOCH = 2, 6
SAMPLES = samples(SIZES * 4)
TOY = {
    "hidden_dim": 8,
    "num_interactions": 1,
    "num_rbf": 4,
    "cutoff": 3.0,
    "max_z": 10,
    "epochs": EPOCHS,
    "batch_size": 4,
    "buckets": 1,
    "train_ratio": 0.75,
    "lr": 0.02,
    "angular_weight": 0.0,
    "log_interval": 1,
    "plots": False,
}


DYING = """
made = recipe._batches
def deadly(run, batches, start, stop):
    for number, batch in enumerate(made(run, batches, start, stop), start):
        if batches is run.training and number == STEP:
            os.kill(os.getpid(), 9)
        yield batch

recipe._batches = deadly
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from sparsejax.models.force_field.dataset_sources import write_dataset

    path = tmp_path_factory.mktemp("data") / "toy.h5"
    write_dataset(SAMPLES, path)
    return path


def settings(data, folder: Path, **options) -> ForceFieldSettings:
    return ForceFieldSettings(data=data, checkpoint_dir=folder, quiet=True, **{**TOY, **options})


def _train(data, folder, **options):
    return recipe.train(recipe.prepare(settings(data, folder, **options)))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, _train(data, folder)


def test_run_leaves_metrics_and_networks_that_load(whole):
    folder, trained = whole
    rows = metrics(folder)
    validations = [row for row in rows if "validation_loss" in row]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, EPOCHS * PER_EPOCH + 1))
    assert [row["step"] for row in validations] == [PER_EPOCH * n for n in range(1, EPOCHS + 1)]
    rates = [row["learning_rate"] for row in rows if "loss" in row]
    assert rates[0] == 0 and max(rates) == pytest.approx(0.02)
    assert {"energy", "force", "stress", "gradient_norm"} < set(rows[0])
    assert trained.best.score.loss == min(row["validation_loss"] for row in validations)
    score = trained.final.score
    terms = (1000, "energy_per_atom_rmse"), (100, "force_rmse"), (0.1, "stress_rmse")
    expected = sum(weight * score.metrics[name] ** 2 for weight, name in terms)
    assert score.loss == pytest.approx(expected, rel=1e-5)  # means over all structures, not over batches
    for path in (folder / "best", folder / "best.pt", folder / "final.pt"):
        ck = sj.load(path)
        assert (ck.kind, ck.config.species, ck.config.reference_energies) == ("force_field", (1, 6, 8), True)
    assert read_run(folder)["finished"]


def test_a_user_is_told_what_is_trained_and_what_came_of_it(data, whole, capsys):
    folder, trained = whole
    run = recipe.prepare(settings(data, folder, resume=True))
    before, after = SHOWN_RUNS["force_field"]
    before(run)
    after(run, trained)
    structures, network, rest, best, final, where = capsys.readouterr().out.splitlines()
    assert structures.startswith(
        f"{data}: {run.sizes[0]} + {run.sizes[1]} structures (training, validation), H, C, O; "
    )
    sizes = f"{run.config.variant}, {run.config.num_parameters:,} parameters"
    steps = f"{EPOCHS * PER_EPOCH} steps of up to 4 structures in {EPOCHS} epochs"
    assert network == f"force_field: recipe {run.settings.recipe}, {sizes}, {steps}"
    assert re.fullmatch(r"energies of single atoms leave [\d.e+]+ meV/atom to learn", rest)
    force = trained.best.score.metrics["force_rmse"]
    assert best.startswith(
        f"{folder / 'best'}.pt: step {trained.best.step}, validation RMSE: force {force:.3g} eV/A"
    )
    assert final.startswith(f"{folder / 'final'}.pt: step {EPOCHS * PER_EPOCH}, ")
    assert where.endswith(f"networks: {folder}")


def test_pictures_are_of_the_run_s_folder_if_wanted(data, whole, monkeypatch):
    drawn = []
    monkeypatch.setattr("sparsejax.plots.force_field.draw_folder", drawn.append)
    for plots in (False, True):
        recipe._draw(recipe.prepare(settings(data, whole[0], resume=True, plots=plots)))
    assert drawn == [whole[0]]


def test_a_large_data_set_is_cut_alike_and_stays_on_the_disk(data, monkeypatch):
    given = {"train_ratio": 0.75, "seed": 3}
    held = read_parts(data, None, **given)
    monkeypatch.setattr("sparsejax.training.recipes.force_field.data._HELD_ATOMS", 0)
    left = read_parts(data, None, **given)
    assert left.checksum == held.checksum
    for on_disk, in_memory in zip(left[:2], held[:2], strict=True):
        assert isinstance(on_disk, ForceFieldDataset) and isinstance(in_memory, list)
        assert [one.energy for one in on_disk] == [one.energy for one in in_memory]


def test_the_written_network_tells_total_energies(data, whole):
    folder, trained = whole
    ck, run = sj.load(folder / "final.pt"), recipe.prepare(settings(data, folder, resume=True))
    held_out = BucketedBatches(run.held_out._dataset, 3.0, batch_size=4, buckets=1, shuffle=False)
    apply = jax.jit(ck.model.apply)
    found = pooled_metrics(
        metric_sums(vars(apply({"params": ck.params}, batch.graph)), batch.labels, loss_masks(batch.graph))
        for batch in held_out
    )
    for name, rel in (("energy_rmse", 1e-4), ("energy_per_atom_rmse", 1e-4), ("force_rmse", 1e-5)):
        assert found[name] == pytest.approx(trained.final.score.metrics[name], rel=rel)


def test_killed_at_a_random_step_it_goes_on_with_the_same_bits(data, whole, tmp_path):
    folder, step = tmp_path / "run", random.randint(1, EPOCHS * PER_EPOCH - 1)
    train_killed("force_field", settings(data, folder), folder, DYING.replace("STEP", str(step)))
    trained = _train(data, folder, resume=True)
    assert metrics(folder) == metrics(whole[0]), f"killed at step {step}"
    assert trained == dataclasses.replace(whole[1], seconds=trained.seconds)
    for name in ("best.pt", "final.pt"):
        assert (folder / name).read_bytes() == (whole[0] / name).read_bytes()


def test_another_model_or_data_set_is_another_run(data, whole, tmp_path):
    from sparsejax.models.force_field.dataset_sources import write_dataset

    folder, _ = whole
    with pytest.raises(RunError, match="another run: network hidden_dim is 8 there and 16 here; give"):
        recipe.prepare(settings(data, folder, resume=True, hidden_dim=16))
    with pytest.raises(RunError, match=r"lr is 0.02 there and 0.01 here"):
        recipe.prepare(settings(data, folder, resume=True, lr=0.01))
    write_dataset(SAMPLES[1:], tmp_path / "other.h5")
    with pytest.raises(RunError, match="another run: data checksum is"):
        recipe.prepare(settings(tmp_path / "other.h5", folder, resume=True))
    finished = recipe.prepare(settings(data, folder, resume=True, save_interval=2, devices=1))
    assert finished.standing == "finished"


def test_it_stops_early_and_a_kill_before_the_end_changes_nothing(data, tmp_path, monkeypatch):
    run = recipe.prepare(settings(data, tmp_path / "run", epochs=4, early_stopping_patience=1))
    losses = iter([3.0, 4.0])
    score = recipe.ForceFieldScore
    monkeypatch.setattr(recipe, "_evaluation", lambda run: lambda state: score(next(losses), {}))
    end, finish = [], recipe.Plan.__init__

    def killed(plan, **options):
        finish(plan, **{**options, "finish": lambda: end.append(1) or 1 / (len(end) - 1)})

    monkeypatch.setattr(recipe.Plan, "__init__", killed)
    with pytest.raises(ZeroDivisionError):
        recipe.train(run)
    trained = recipe.train(recipe.prepare(dataclasses.replace(run.settings, resume=True)))
    assert (trained.best.step, trained.final.step) == (PER_EPOCH, 2 * PER_EPOCH)
    assert len(metrics(tmp_path / "run")) == 2 * PER_EPOCH + 2


def test_only_kernels_are_decayed_and_the_dead_stay(data, tmp_path):
    config = ForceFieldConfig(8, 2, 4, max_z=5)
    params = jax.eval_shape(
        lambda key: parts.first_state(config, optax.sgd(0.1), key).params, jax.random.key(0)
    )
    mask = decay_mask(params, "weights", parts.groups(config))
    decayed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, on in jax.tree_util.tree_leaves_with_path(mask)
        if on
    }
    assert "interaction_0/update/mixing" in decayed and "interaction_1/update/mixing" not in decayed
    assert {name.rsplit("/", 1)[1] for name in decayed} == {"kernel", "mixing"}
    learned = dataclasses.replace(config, learnable_rbf=True)
    for path, rate in (("rbf/centers", 0), ("interaction_1/update/mixing", 0), ("embedding/embedding", 1)):
        first = next(group for group in parts.groups(config) if re.search(group.pattern, path))
        assert first.rate == rate
    assert next(group for group in parts.groups(learned) if re.search(group.pattern, "rbf/widths")).rate == 1


def test_the_published_recipe_trains_on_raw_totals(data, tmp_path):
    run = recipe.prepare(settings(data, tmp_path / "run", recipe="compat", angular_weight=10.0))
    assert run.references is None and run.config.variant == "cartesian"
    energies = np.concatenate([batch.labels["energy"][batch.graph.globals["mask"]] for batch in run.training])
    assert energies.mean() < -20
    loss = parts.loss_settings(run.settings)
    assert (loss.energy, loss.energy_weight, loss.angular_floor) == ("total", 1.0, 1e-8)
    assert parts.average_decay(run.settings) == 0
    assert parts.rates(run.settings, PER_EPOCH).at(0) == 1e-7


def test_parts_of_an_accumulated_batch_weigh_alike(monkeypatch):
    """However many structures they have, as published."""

    def same_for_all(config, params, batch, *, stress):
        mask = batch.graph.globals.reshape(-1)
        labels = {"energy": batch.labels["energy"].reshape(-1)}
        return {"energy": jnp.full(mask.size, params["w"])}, labels, LossMasks(graphs=mask)

    monkeypatch.setattr(parts, "predicted", same_for_all)
    loss, chain = parts.ForceFieldLoss(energy="total"), optax.sgd(0.5)
    there = jnp.asarray([[True, True], [True, False]])
    graph = GraphsTuple(None, None, None, None, globals=there, n_node=None, n_edge=None)
    batch = LabelledBatch(graph, {"energy": jnp.asarray([[1.0, 3.0], [4.0, 0.0]])})
    step = parts.training_step(ForceFieldConfig(), loss, chain, stress=False, accumulate=2)
    state, record = step(start_state(jax.random.key(0), {"w": jnp.zeros(())}, chain), batch)
    assert float(record["loss"]) == pytest.approx((5 + 16) / 2)
    assert float(state.params["w"]) == pytest.approx((2 + 4) / 2)  # not 8 / 3, the mean over structures


BAD = {
    "data": ({"data": Path("/none/data.h5")}, "/none/data.h5: does not exist"),
    "text": ({"data": Path(__file__)}, "ASE cannot read it"),
    "epochs": ({"epochs": 0}, "--epochs must be at least 1, not 0"),
    "rate": ({"lr": float("nan")}, "--lr must be above 0, not nan"),
    "ratio": ({"train_ratio": 1.0}, "--train-ratio must be between 0 and 1, not 1.0"),
    "nothing": ({"train_ratio": 0.01}, "leaves no structure to train on; give more"),
    "devices": ({"devices": 99, "batch_size": 99}, "99 x 1 devices are asked for"),
    "parts": ({"accumulate": 5}, "--batch-size 4 is too small for 5 parts on 1 devices"),
    "warmup": ({"warmup_steps": 999}, "between 0 and the 12 steps of the run, not 999"),
    "elements": ({"max_z": 7}, "holds O; the table goes up to max_z=7"),
    "width": ({"hidden_dim": 6}, "hidden_dim must be a multiple of 4, not 6"),
    "weight": ({"force_weight": -1.0}, "force_weight must not be negative"),
    "average": ({"ema": 1.0}, "at least 0 and below 1, not 1.0"),
    "seed": ({"seed": -1}, "--seed must be between 0 and 2^32, not -1"),
    "buckets": ({"buckets": 0}, "--buckets must be at least 1, not 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(case, data, tmp_path):
    options, told = BAD[case]
    given = dataclasses.replace(settings(data, tmp_path / "run"), **options)
    check_refused(recipe, given, told, tmp_path / "run")


def test_elements_that_are_never_trained_are_not_validated_on(data, tmp_path):
    from sparsejax.models.force_field.dataset_sources import write_dataset

    odd = SAMPLES[0]._replace(structure=SAMPLES[0].structure._replace(species=np.array([9, 1, 1])))
    write_dataset([odd], tmp_path / "odd.h5")
    with pytest.raises(ValueError, match="held-out structure 0 holds F, which no training structure does"):
        recipe.prepare(settings(data, tmp_path / "run", validation_data=tmp_path / "odd.h5"))


def test_two_devices_train_like_one(data, whole, tmp_path):
    """By the command line, with the published flags."""
    folder = tmp_path / "run"
    given = {"dataset": data, "checkpoint_dir": folder, **TOY, "devices": 2}
    del given["plots"]
    train_by_command("force-field", given, devices=2)
    check_same_run(folder, whole[0], abs=1e-4, rel=1e-3)
