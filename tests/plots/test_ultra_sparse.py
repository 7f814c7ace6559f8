"""Pictures of training runs: what they show, not how they look."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sparsejax.plots import ultra_sparse as plots
from sparsejax.training.errors import RunError

pytest.importorskip("matplotlib")

RUN = {
    "settings": {"family": "ultra_sparse", "problem": "toy", "trainer": "anneal", "seeds": 3},
    "proposals_per_round": 500,
}
NAMES = ("loss", "current", "validation_loss", "accepted", "saturation")


def _log(rounds=4, **changes):
    log = {"round": np.arange(1.0, rounds + 1)}
    for name in NAMES:
        mean = np.linspace(0.5, 0.1, rounds)
        log |= {name: mean, f"{name}_low": mean - 0.2, f"{name}_high": mean + 0.2}
    return {
        **log,
        "loss_smallest": np.full(rounds, 0.02),
        "temperature": np.geomspace(1, 1e-3, rounds),
        **changes,
    }


def _write(folder, log, report=None):
    (folder / "run.json").write_text(json.dumps(RUN))
    rows = [",".join(log)] + [",".join(map(str, row)) for row in zip(*log.values(), strict=True)]
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    if report is not None:
        (folder / "report.json").write_text(json.dumps(report))


def test_convergence_is_logarithmic_with_the_interval_cut_at_the_best_seed():
    axis = plots.convergence(_log(), RUN).axes[0]
    assert axis.get_yscale() == "log"
    lines = {line.get_label(): line.get_ydata() for line in axis.get_lines()}
    np.testing.assert_allclose(lines["training, mean"], np.linspace(0.5, 0.1, 4))
    np.testing.assert_allclose(lines["training, best seed"], 0.02)
    edges = np.concatenate([path.vertices[:, 1] for band in axis.collections for path in band.get_paths()])
    assert edges.min() == pytest.approx(0.02)
    assert edges.max() == pytest.approx(0.7)
    assert "500 proposals" in axis.get_xlabel()


def test_searches_without_temperature_show_acceptance_alone():
    assert len(plots.temperature_and_acceptance(_log(), RUN).axes) == 2
    figure = plots.temperature_and_acceptance(_log(temperature=np.zeros(4)), RUN)
    assert len(figure.axes) == 1
    np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_ydata(), np.linspace(50, 10, 4))


def test_selection_marks_true_inputs_and_shows_missed_ones():
    report = {"selection": {"x3": 1.0, "x1": 0.5}, "true_features": ["x3", "x7"], "seeds": [0, 0]}
    axis = plots.selection_frequency(report, RUN).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["x3", "x1", "x7"]
    assert [bar.get_width() for bar in axis.patches] == [100, 50, 0]
    colors = [bar.get_facecolor() for bar in axis.patches]
    assert colors[0] == colors[2] != colors[1]


def test_saturation_is_a_percentage():
    axis = plots.saturation(_log(), RUN).axes[0]
    assert axis.get_ylim() == (0, 100)
    assert axis.get_lines()[0].get_ydata()[0] == 50


@pytest.mark.parametrize("rounds", [1, 40])
def test_run_is_drawn_from_its_files(rounds, tmp_path):
    log = _log(rounds)
    log |= {f"validation_accuracy{end}": log[f"loss{end}"] for end in ("", "_low", "_high")}
    _write(tmp_path, log, {"selection": {"x0": 1.0}, "true_features": None, "seeds": [0]})
    paths = plots.draw_folder(tmp_path)
    assert {path.stem for path in paths} == {
        "convergence",
        "temperature_and_acceptance",
        "saturation",
        "validation_accuracy",
        "selection_frequency",
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_one_seed_has_no_band():
    log = {name: np.full(4, np.nan) if name.endswith(("_low", "_high")) else v for name, v in _log().items()}
    assert not plots.convergence(log, RUN).axes[0].collections


def test_folders_without_rounds_are_refused(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        plots.draw_folder(tmp_path)
    _write(tmp_path, _log(0))
    with pytest.raises(RunError, match="no round is logged"):
        plots.draw_folder(tmp_path)
    (tmp_path / "log.csv").unlink()
    with pytest.raises(RunError, match="holds no log of an ultra-sparse run"):
        plots.draw_folder(tmp_path)
    assert not (tmp_path / "plots").exists()
