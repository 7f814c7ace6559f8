"""Pictures of sparse inference show what was logged, and say what is missing."""

from __future__ import annotations

import json

import pytest

from sparsejax.plots.folder import draw_folder
from sparsejax.plots.sparse_inference import perplexity_curves, training_curves
from sparsejax.training.errors import RunError

pytest.importorskip("matplotlib")

METRICS = [
    {"step": step, "loss": 5 - step / 100, "effective_share": 0.2, **({"active_share": 0.3} if step else {})}
    for step in range(1, 121)
] + [{"step": 120, "validation_loss": 4.0, "validation_effective_share": 0.1}]


def test_training_has_a_panel_for_each_thing_logged():
    axes = training_curves(METRICS, "run").axes
    assert len(axes) == 3
    assert [line.get_label() for line in axes[0].lines][-1] == "validation"
    assert len(training_curves([{"step": 1, "loss": 2.0}]).axes) == 1


def test_every_way_is_a_line_and_the_shaded_band_is_three_percent():
    ways = {
        way: {1.0: 20.0, 0.25: high, 0.05: 2 * high} for way, high in (("predictor", 21), ("random", 300))
    }
    figure = perplexity_curves({"a": ways, "b": ways})
    assert len(figure.axes) == 2
    for axis in figure.axes:
        assert [line.get_label() for line in axis.lines] == ["predictor", "random"]
        assert axis.get_ylim()[1] == pytest.approx(1.05 * 42)  # a random choice leaves the panel
        assert axis.patches[0].get_height() == pytest.approx(20.6)


def test_a_folder_is_drawn_or_told_in_one_line(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"family": "sparse_inference"}}))
    with pytest.raises(RunError, match="holds no metrics of a run of llama"):
        draw_folder(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match="no step is logged yet"):
        draw_folder(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METRICS))
    (path,) = draw_folder(tmp_path)
    assert path.stat().st_size > 20_000
