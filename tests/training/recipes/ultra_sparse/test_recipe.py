"""Training runs of ultra-sparse nets: what they leave behind, and that a kill changes none of it."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import sparsejax as sj
from sparsejax import console
from sparsejax.checkpoint import store
from sparsejax.models.ultra_sparse.evolve import run
from sparsejax.models.ultra_sparse.problems import make_problem
from sparsejax.training.errors import RunError
from sparsejax.training.recipes.ultra_sparse import recipe
from sparsejax.training.recipes.ultra_sparse.settings import UltraSparseSettings
from sparsejax.training.run_folder import read_run

SMALL = {
    "seeds": 2,
    "steps": 700,
    "hidden_size": 3,
    "problem_option": ("samples=60",),
    "trainer_option": ("steps_per_round=100",),
    "baselines": False,
    "plots": False,
    "quiet": True,
    "save_seconds": 0.0,
}


def _settings(out, **changes):
    return UltraSparseSettings(out=out, **{**SMALL, **changes})


def _train(out, **changes):
    return recipe.train(recipe.prepare(_settings(out, **changes)))


def _results(folder):
    """Everything that has to be the same, killed or not."""
    header = store.read_header(folder / "state")
    arrays = store.read_arrays(header, store.array_shapes(header))
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(arrays)]
    files = [(folder / name).read_bytes() for name in ("log.csv", "report.json", "report.md")]
    return [*files, *leaves]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, _train(folder).report


def test_log_is_the_history_of_the_search_with_the_scores_of_the_report(whole):
    folder, report = whole
    with open(folder / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["round"]) for row in rows] == list(range(1, 8))
    prepared = recipe.prepare(_settings(folder, resume=True))
    keys = jax.vmap(jax.random.key)(np.arange(2))
    chains = jax.jit(
        jax.vmap(lambda key: run(key, prepared.chosen.search, prepared.goal, prepared.chosen.hyper))
    )
    history = chains(keys).history
    expected = np.mean(history.loss, axis=0)
    np.testing.assert_allclose([float(row["loss"]) for row in rows], expected, rtol=1e-5)
    np.testing.assert_allclose([float(row["temperature"]) for row in rows], history.temperature[0], rtol=1e-6)
    assert float(rows[-1]["loss"]) == pytest.approx(report.train.mean, rel=1e-5)
    assert float(rows[-1]["loss_low"]) == pytest.approx(report.train.low, rel=1e-4)
    assert float(rows[-1]["loss_smallest"]) == pytest.approx(report.train.smallest, rel=1e-5)
    validation = np.mean([seed.validation for seed in report.seeds])
    assert float(rows[-1]["validation_loss"]) == pytest.approx(validation, rel=1e-5)
    losses = [float(row["loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)


def test_best_net_is_a_checkpoint_with_the_reported_test_score(whole):
    folder, report = whole
    ck = sj.load(folder / "best")
    test = make_problem("friedman1", samples=60).test
    error = np.mean((np.asarray(ck.apply(test.features)) - test.targets) ** 2)
    chosen = next(seed for seed in report.seeds if seed.seed == report.chosen)
    assert error == pytest.approx(chosen.test, rel=1e-5)
    assert chosen.validation == min(seed.validation for seed in report.seeds)
    assert ck.metadata["feature_names"][:2] == ["x0", "x1"]
    assert ck.metadata["feature_scale"].shape == (20,)
    stored = json.loads((folder / "report.json").read_text())
    assert stored["parameters"] == ck.config.num_parameters == 13
    assert stored["storage_bits"] > 32 * 13
    assert stored["true_features"] == ["x0", "x1", "x2", "x3", "x4"]
    assert read_run(folder)["finished"] is True


def test_the_table_says_what_a_tanh_output_cannot_reach(whole, capsys):
    folder, report = whole
    trained = recipe.Trained(dataclasses.replace(report, tanh_floor=0.25), 1.5, ())
    console.show_training(recipe.prepare(_settings(folder, resume=True)), trained)
    *table, floor, last = capsys.readouterr().out.splitlines()
    assert any(f"{report.test.mean:.4g}" in line for line in table)
    assert floor == "a tanh output cannot go below 0.25 on the test part"
    assert last == f"1.5 s of training; report, log, plots and the best net: {folder}"


def test_a_state_of_more_rounds_than_the_run_has_is_refused(whole, monkeypatch):
    prepared, real = recipe.prepare(_settings(whole[0], resume=True)), recipe.restore_state
    assert recipe._saved(prepared).rounds == 7
    monkeypatch.setattr(recipe, "restore_state", lambda *given: real(*given)._replace(rounds=8))
    with pytest.raises(RunError, match="state: was saved after 8 rounds of 7$"):
        recipe._saved(prepared)


@pytest.mark.parametrize("saves", [0, 3])
def test_interrupted_run_continues_bit_for_bit(saves, whole, tmp_path, monkeypatch):
    """Stopped between a log row and the save of its state: the row is written again, once."""
    real, left = recipe.save_state, [saves]

    def save_or_stop(*arguments, **options):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(*arguments, **options)

    monkeypatch.setattr(recipe, "save_state", save_or_stop)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "run")
    monkeypatch.undo()
    assert not read_run(tmp_path / "run")["finished"]
    _train(tmp_path / "run", resume=True)
    assert _results(tmp_path / "run") == _results(whole[0])


def test_run_stopped_before_its_report_only_reports(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "_reported", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _train(tmp_path / "run")
    monkeypatch.undo()
    run = recipe.prepare(_settings(tmp_path / "run", resume=True))
    monkeypatch.setattr(recipe.loop, "compiled_rounds", lambda *_, **__: lambda *_: 1 / 0)
    recipe.train(run)
    assert _results(tmp_path / "run") == _results(whole[0])


@pytest.mark.slow
def test_killed_process_leaves_a_folder_that_continues_bit_for_bit(whole, tmp_path):
    folder = tmp_path / "run"
    options = {**SMALL, "trainer_option": "('steps_per_round=100',)", "problem_option": "('samples=60',)"}
    program = (
        "from pathlib import Path\n"
        "from sparsejax.training.recipes.ultra_sparse import recipe\n"
        "from sparsejax.training.recipes.ultra_sparse.settings import UltraSparseSettings\n"
        f"settings = UltraSparseSettings(out=Path({str(folder)!r}), "
        + ", ".join(f"{name}={value}" for name, value in options.items())
        + ")\nrecipe.train(recipe.prepare(settings))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (folder / "state" / store.HEADER_FILE).exists():
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not read_run(folder)["finished"]
    _train(folder, resume=True)
    assert _results(folder) == _results(whole[0])


def test_log_without_the_rounds_of_the_state_is_refused(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "_reported", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _train(tmp_path / "run")
    monkeypatch.undo()
    (tmp_path / "run" / "log.csv").write_text("round\n")
    with pytest.raises(RunError, match="columns are not those"):
        _train(tmp_path / "run", resume=True)


def test_classes_are_trained_with_accuracy_in_the_log(tmp_path):
    options = {"problem": "threshold_labels", "trainer": "genetic", "steps": None, "generations": 30}
    columns = ("samples=80", "columns=6", "true_features=[0,1]")
    report = _train(
        tmp_path / "run", **options, problem_option=columns, trainer_option=("population_size=20",)
    ).report
    assert report.metric == "accuracy"
    assert report.test.mean > 0.75
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    validation = np.mean([seed.validation for seed in report.seeds])
    assert float(last["validation_accuracy"]) == pytest.approx(validation, abs=1e-6)


def test_tanh_outputs_get_the_published_class_targets(tmp_path):
    settings = _settings(
        tmp_path, problem="threshold_labels", problem_option=("samples=80",), output_activation="tanh"
    )
    goal = recipe.prepare(settings).goal
    assert goal.loss == "mse"
    assert set(np.unique(goal.targets).tolist()) == set(np.float32([-0.8, 0.8]).tolist())


def test_sparse_fit_is_a_trainer(tmp_path):
    options = ("steps=4", "final_steps=8", "moves_per_round=5", "ridge=1e-5")
    report = _train(
        tmp_path / "run", trainer="sparse_fit", steps=None, rounds=18, trainer_option=options
    ).report
    assert report.train.mean < 0.3  # the variance of the targets is 0.64
    # 5 moves that only polish, 18, and 2 for the final steps, in blocks of 5.
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 1 + 5
