"""Pictures of Temporal Eigenstate Networks: what they show, not how they look."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.models.ten.config import TemporalEigenstateConfig
from sparsejax.models.ten.model import TemporalEigenstateNetwork
from sparsejax.models.ten.spectrum import Spectrum
from sparsejax.plots import ten as plots
from sparsejax.plots.folder import draw_folder
from sparsejax.training.errors import RunError

pytest.importorskip("matplotlib")

MAGNITUDES = np.array([[[0.5, 0.9], [0.8, 0.99]], [[0.1, 0.2], [0.3, 1.0]]])
PHASES = np.array([[[0.0, np.pi / 2], [1.0, 2.0]], [[0.0, 7.0], [1.0, 2.0]]])
with np.errstate(divide="ignore"):
    SPECTRUM = Spectrum(
        MAGNITUDES, PHASES, np.log(2) / -np.log(MAGNITUDES), PHASES / 2 / np.pi, np.array([[1.0, 2], [3, 4]])
    )
METRICS = [
    *({"step": step, "loss": 3.0 / step, "seconds": 1.0} for step in range(1, 101)),
    {"step": 100, "validation_loss": 0.5},
    {"step": 101, "loss": None},
]
SIZES = {"dim": 16, "n_layers": 2, "num_eigenstates": 4, "n_heads": 2}
NETWORK = {"eigenvalues", "half_lives", "state_over_time", "resonance_norms"}


@pytest.fixture(scope="module")
def checkpoint():
    config = TemporalEigenstateConfig.modern(vocab_size=258, **SIZES)
    init = jax.jit(TemporalEigenstateNetwork(config).init)
    params = init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    return Checkpoint("ten", "modern", config, params, {"tokenizer": "bytes"})


def test_eigenvalues_lie_where_magnitude_and_phase_say():
    figure = plots.eigenvalues(SPECTRUM, "toy")
    assert [axis.get_title() for axis in figure.axes] == ["layer 0", "layer 1"]
    first_cell, second_cell = figure.axes[0].collections
    np.testing.assert_allclose(first_cell.get_offsets(), [[0.5, 0], [0, 0.9]], atol=1e-12)
    np.testing.assert_allclose(np.hypot(*second_cell.get_offsets().T), [0.8, 0.99])
    assert "toy" in figure.get_suptitle()


def test_many_layers_fill_a_grid():
    many = Spectrum(*(np.repeat(part[:1, 0], 6, axis=0) for part in SPECTRUM[:4]), np.ones((6, 1)))
    figure = plots.eigenvalues(many)
    assert sum(axis.get_visible() for axis in figure.axes) == 6


def test_half_lives_are_counted_on_a_logarithmic_axis():
    axis = plots.half_lives(SPECTRUM).axes[0]
    assert axis.get_xscale() == "log"
    assert "1 eigenstates never forget" in axis.get_title()
    tops = {}
    for bar in axis.patches:
        tops[bar.get_x()] = max(tops.get(bar.get_x(), 0), bar.get_y() + bar.get_height())
    assert sum(tops.values()) == 7


def test_half_lives_of_states_that_all_last_are_drawn():
    lasting = SPECTRUM._replace(half_life=np.full((2, 2), np.inf))
    assert "4 eigenstates never forget" in plots.half_lives(lasting).axes[0].get_title()


def test_states_over_time_are_sorted_by_half_life():
    magnitudes = np.arange(30.0).reshape(1, 10, 3) * [1, 100, 10]
    figure = plots.state_over_time(magnitudes, np.array([[5.0, 90.0, 20.0]]))
    left, right = figure.axes[:2]
    np.testing.assert_array_equal(right.images[0].get_array(), magnitudes[0][:, [0, 2, 1]].T)
    np.testing.assert_array_equal(left.lines[-1].get_ydata(), magnitudes[0, :, 1])
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["5", "20", "90"]


def test_resonance_has_a_bar_per_cell_and_layer():
    axis = plots.resonance_norms(SPECTRUM).axes[0]
    assert [bar.get_height() for bar in axis.patches] == [1, 3, 2, 4]


def test_loss_curve_shows_training_its_mean_and_validation():
    axis = plots.loss_curve(METRICS).axes[0]
    training, mean, validation = axis.lines
    np.testing.assert_allclose(training.get_ydata(), 3 / np.arange(1, 101))
    np.testing.assert_allclose(mean.get_ydata()[0], (3 + 1.5) / 2)
    np.testing.assert_allclose(validation.get_xydata(), [[100, 0.5]])


def test_checkpoint_directory_is_drawn(checkpoint, tmp_path):
    sj.save(checkpoint, tmp_path / "network")
    paths = draw_folder(tmp_path / "network")
    assert {path.stem for path in paths} == NETWORK
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert sj.load(tmp_path / "network").config == checkpoint.config  # pictures do no harm


def test_run_is_drawn_from_its_metrics_and_best_network(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "network_figures", lambda ck, name: {name: plots.loss_curve(METRICS)})
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"family": "ten"}}))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METRICS))
    assert {path.stem for path in draw_folder(tmp_path)} == {"loss"}
    assert draw_folder(tmp_path, tmp_path / "figures") == (tmp_path / "figures" / "loss.png",)
    sj.save(checkpoint, tmp_path / "best")
    assert {path.stem for path in draw_folder(tmp_path)} == {"loss", f"{tmp_path.name}, best network"}


def test_the_sample_fits_the_network(checkpoint):
    assert bytes(plots._sample(checkpoint).tolist()) == plots._SAMPLE[: plots._SAMPLE_TOKENS]
    short = TemporalEigenstateConfig.modern(
        **{**SIZES, "vocab_size": 20}, pos_emb_type="learned", max_seq_len=12
    )
    sample = plots._sample(Checkpoint("ten", "modern", short, {}, {}))
    assert sample.shape == (12,) and sample.max() < 20 and len(np.unique(sample)) > 3


def test_folders_with_nothing_to_draw_are_refused(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        draw_folder(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"family": "other"}}))
    with pytest.raises(RunError, match="no plots of other runs"):
        draw_folder(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"family": "ten"}}))
    with pytest.raises(RunError, match="holds no metrics"):
        draw_folder(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match="no step is logged"):
        draw_folder(tmp_path)
    sj.save(sj.load("checkpoints/ultra_sparse_sine.pt"), tmp_path / "sine")
    with pytest.raises(RunError, match="no plots of ultra_sparse checkpoints"):
        draw_folder(tmp_path / "sine")
