"""Pictures of sparse FFNs and the report on a text: what they show, not how they look."""

from __future__ import annotations

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax import cli
from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.models.sprout import SproutConfig, SproutFFNConfig, SproutLM
from sparsejax.models.sprout.analysis import (
    Analysis,
    Coactivation,
    LayerStatistics,
    NeuronUsage,
    SenseOverlap,
    neuron_similarity,
    topic_specialisation,
    usage_statistics,
)
from sparsejax.models.sprout.quality import Quality, QualityTable
from sparsejax.plots import sprout_network as plots
from sparsejax.plots import sprout_report
from sparsejax.plots.folder import draw_folder
from sparsejax.plots.sprout import training_curves
from sparsejax.plots.sprout_report import TextSource, draw_report, topic_windows
from sparsejax.training.errors import RunError

pytest.importorskip("matplotlib")

METRICS = [
    *(
        {
            "step": step,
            "loss": 3.0 / step,
            "accuracy": step / 100,
            "top_k": 65 - step // 2,
            "router_loss": 1.0,
        }
        for step in range(1, 101)
    ),
    {"step": 100, "validation_loss": 0.5, "validation_accuracy": 0.25},
    {"step": 101, "loss": None},
]


def table(*shape):
    values = np.linspace(0.2, 1, 3 * np.prod(shape)).reshape(3, *shape)
    return QualityTable((1, 2, 4), ("router", "oracle", "random"), Quality(1 - values, values, values))


@pytest.fixture
def analysis():
    """Two layers of four neurons, of which the second of each is never used; 10 tokens of two topics."""
    used = np.array([[1, 0, 1, 0], [1, 0, 0, 1]] * 5, bool)
    counts = np.stack([used.sum(axis=0), used[:5].sum(axis=0) * 2])
    usage = NeuronUsage(counts, (counts > 0).astype(int), 10, 1)
    frequency = np.stack([counts / 10, counts[:, ::-1] / 10])
    pairs = used.T.astype(int) @ used
    vectors = np.random.default_rng(0).normal(size=(4, 3))
    return Analysis(
        top_k=(2, 2),
        choices=4,
        tokens=10,
        usage=usage,
        usage_statistics=usage_statistics(usage),
        layers=LayerStatistics(*np.arange(1.0, 9).reshape(4, 2) / 8),
        coactivation=Coactivation(np.stack([pairs, pairs]), 10),
        similarity=(neuron_similarity(vectors), neuron_similarity(-2 * vectors)),
        router_cosines=np.array([[1, -0.001], [-0.001, 1]]),
        quality={"logits": table(3), "ffn": table(2, 3)},
        topics=("weather", "a rather long name of a topic"),
        topic_frequency=frequency,
        specialisation=topic_specialisation(frequency, smoothing=0.1),
        senses=SenseOverlap(np.array([0.9, 0.8]), np.array([0.2, 0.1]), np.array([1 / 3, 1 / 3])),
    )


def heights(axis):
    return [round(bar.get_height(), 6) for bar in axis.patches]


def test_usage_runs_from_the_most_to_the_least_used(analysis):
    left, right = plots.usage(analysis, "toy").axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), [100, 50, 50, 0])
    assert left.lines[-1].get_ydata()[0] == right.lines[-1].get_xdata()[0] == 50
    assert "toy" in left.figure.get_suptitle()


def test_evenness_shows_gini_and_shares_that_make_all_neurons(analysis):
    left, right = plots.evenness(analysis).axes
    np.testing.assert_allclose(heights(left), analysis.usage_statistics.gini, atol=1e-6)
    assert np.reshape(heights(right), (3, 2)).sum(axis=0).tolist() == [100, 100]


def test_quality_has_a_line_for_every_selection_and_chance_for_ffns_only(analysis):
    ffn, logits = plots.quality(analysis).axes
    assert [len(axis.lines) for axis in (ffn, logits)] == [4, 3]
    np.testing.assert_allclose(ffn.lines[0].get_ydata(), table(2, 3).quality.cosine[0].mean(axis=0))
    np.testing.assert_allclose(logits.lines[1].get_xydata()[:, 0], [25, 50, 100])
    np.testing.assert_allclose(ffn.lines[3].get_ydata()[[0, -1]], [0.5, 1])
    both = dataclasses.replace(
        analysis, quality={**analysis.quality, "block logits": table(3), "block ffn": table(2, 3)}
    )
    assert len(plots.quality(both).axes) == 4


def test_layers_show_their_numbers_and_what_to_expect(analysis):
    entropy, overlap, sparsity, norm = plots.layers(analysis).axes
    assert heights(entropy) == [0.125, 0.25]
    assert heights(overlap) == [87.5, 100]
    assert heights(sparsity) == [37.5, 50]
    assert heights(norm) == [0.625, 0.75]
    assert entropy.lines[0].get_ydata()[0] == pytest.approx(np.log(4))
    assert overlap.lines[0].get_ydata()[0] == 50


def test_coactivation_puts_neurons_that_exclude_each_other_apart(analysis):
    image = plots.coactivation(analysis).axes[0].images[0].get_array()
    assert np.trace(image) == 0
    assert (image == -1).sum() == 2  # the third and the fourth neuron


def test_layers_fill_a_grid(analysis):
    layers = plots._COLUMNS + 1
    usage = analysis.usage._replace(counts=np.repeat(analysis.usage.counts[:1], layers, axis=0))
    pairs = analysis.coactivation._replace(counts=np.repeat(analysis.coactivation.counts[:1], layers, axis=0))
    figure = plots.coactivation(dataclasses.replace(analysis, usage=usage, coactivation=pairs))
    shown = [axis for axis in figure.axes if axis.get_visible() and axis.get_title()]
    assert [axis.get_title() for axis in shown] == [f"layer {number}" for number in range(layers)]
    assert sum(not axis.get_visible() for axis in figure.axes) == plots._COLUMNS - 1


def test_similarity_counts_pairs_of_neurons(analysis):
    axis = plots.similarity(analysis).axes[0]
    assert len(axis.patches) == 2
    assert f"{analysis.similarity[0].max:.2f}" in axis.get_legend().get_texts()[0].get_text()


def test_topics_stack_specialists_and_compare_patterns(analysis):
    left, right, _ = plots.topics(analysis).axes
    shares = 100 * analysis.specialisation.specialists.T.ravel() / 4
    assert heights(left) == shares.tolist()
    assert right.get_xticklabels()[1].get_text() == "a rather long n…"
    with pytest.raises(ValueError, match="one topic only"):
        plots.topics(dataclasses.replace(analysis, specialisation=None, topic_frequency=None))


def test_senses_and_routers(analysis):
    assert heights(plots.senses(analysis).axes[0]) == [0.9, 0.8, 0.2, 0.1]
    texts = [text.get_text() for text in plots.router_similarity(analysis).axes[0].texts]
    assert texts == ["1.00", "0.00", "0.00", "1.00"]


def test_training_curves_show_loss_accuracy_and_neurons():
    loss, accuracy, router, top_k = training_curves(METRICS).axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), 3 / np.arange(1, 101))
    np.testing.assert_allclose(loss.lines[1].get_ydata()[0], (3 + 1.5) / 2)
    np.testing.assert_allclose(accuracy.lines[-1].get_xydata(), [[100, 0.25]])
    assert router.get_ylabel() == "router loss"
    np.testing.assert_allclose(top_k.lines[0].get_ydata()[[0, -1]], [65, 15])
    parts = training_curves([{"step": 1, "loss": 2.0, "mlm_loss": 1.5}]).axes
    assert parts[0].lines[0].get_ydata() == [1.5]
    bare = [{"step": row["step"], "loss": row["loss"]} for row in METRICS[:3]]
    assert len(training_curves(bare).axes) == 1


def test_run_is_drawn_from_its_metrics(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"family": "sprout"}}))
    with pytest.raises(RunError, match="holds no metrics"):
        draw_folder(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match="no step is logged"):
        draw_folder(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METRICS))
    assert [path.name for path in draw_folder(tmp_path)] == ["training.png"]
    cli.main(["plot", str(tmp_path), "--out", str(tmp_path / "figures")])
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["training.png"]


@pytest.fixture(scope="module")
def network():
    config = SproutConfig(vocab_size=256, d_model=8, d_ff=16, n_heads=2, n_layers=1, max_len=16, block_size=4)
    params = jax.jit(SproutLM(config).init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    return Checkpoint("sprout", "v1", config, params)


def test_report_on_a_folder_of_texts(network, tmp_path, capsys):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "sea.txt").write_text("waves and <b>salt</b> and wind. " * 20)
    (texts / "land.txt").write_text("hills, woods; fields, towns; " * 20)
    sj.save(network, tmp_path / "net")
    out = tmp_path / "out"
    options = ["--data", str(texts), "--out", str(out), "--top-k", "3", "--tokens", "600"]
    cli.main(["plot", "sprout", "--checkpoint", str(tmp_path / "net"), *options])
    printed = capsys.readouterr().out.split()
    assert printed[0] == str(out / "report.html")
    pictures = {path.stem for path in out.glob("*.png")}
    assert pictures == set(plots_of(network))
    page = (out / "report.html").read_text()
    assert page.count("<img ") == len(pictures)
    assert "600" not in page.split("</p>")[0]  # whole batches of one shape only
    assert "512 tokens of texts; 3 of 16 neurons per token" in page
    found = json.loads((out / "analysis.json").read_text())
    assert (found["topics"], found["top_k"], found["tokens"]) == (["land", "sea"], [3], 512)
    assert set(found["quality"]) == {"logits", "ffn", "block logits", "block ffn"}
    with open(out / "neurons.csv") as file:
        assert sum(int(row["tokens"]) for row in csv.DictReader(file)) == 3 * 512


def plots_of(network):
    del network
    drawn = (plots.usage, plots.evenness, plots.quality, plots.layers, plots.coactivation, plots.similarity)
    return [function.__name__ for function in (*drawn, plots.senses, plots.router_similarity, plots.topics)]


def test_a_saved_network_is_looked_at_on_random_tokens(network, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        sprout_report, "draw_report", lambda *given, **named: seen.append((given, named)) or ()
    )
    sj.save(network, tmp_path / "net")
    draw_folder(tmp_path / "net")
    ((ck, out), named) = seen[0]
    assert (ck.config, out, named) == (network.config, tmp_path / "net" / "plots", {"name": "net"})
    (batches,) = sprout_report._topics(ck, TextSource(tokens=96)).values()
    assert sum(batch.size for batch in batches) == 96 and batches[0].max() < 256
    assert len(np.unique(batches[0])) > 30


def test_windows_are_of_one_shape_and_equal_shares():
    found = topic_windows({"a": np.arange(5000), "b": np.arange(900)}, tokens=4000, max_len=100)
    assert {name: [batch.shape for batch in batches] for name, batches in found.items()} == {
        "a": [(8, 100)] * 2,
        "b": [(8, 100)],
    }
    with pytest.raises(RunError, match="b: 1 of 50 tokens are too few"):
        topic_windows({"a": np.arange(50), "b": np.arange(1)}, tokens=100, max_len=100)


def stub(vocab_size, metadata=None):
    config = SproutConfig(vocab_size=vocab_size, d_model=4, d_ff=8, n_heads=1, n_layers=1, block_size=4)
    return Checkpoint("sprout", "v2", config, {}, metadata or {})


def test_text_needs_a_tokenizer(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("some words")
    with pytest.raises(RunError, match="vocabulary of 30522 tokens is not that of bytes: give its tokenizer"):
        draw_report(stub(30522), tmp_path / "out", TextSource(text))
    with pytest.raises(RunError, match="missing.json: cannot be read"):
        draw_report(stub(258), tmp_path / "out", TextSource(text, tmp_path / "missing.json"))


@pytest.mark.parametrize(
    ("content", "vocab_size", "message"),
    [
        ("", 256, "holds no text"),
        (None, 256, "no such file or folder"),
        ("né", 100, "has another tokenizer"),
        ("x", 256, "too few"),
    ],
)
def test_texts_that_cannot_be_used(tmp_path, content, vocab_size, message):
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_text(content)
    ck = stub(vocab_size, {"tokenizer": "bytes"})
    with pytest.raises(RunError, match=message):
        draw_report(ck, tmp_path / "out", TextSource(file))
    assert not (tmp_path / "out").exists()


def test_an_ffn_on_its_own_and_an_empty_folder_are_refused(tmp_path):
    ck = Checkpoint("sprout", "v2", SproutFFNConfig(4, 8), {})
    with pytest.raises(RunError, match="reads no text"):
        draw_report(ck, tmp_path)
    with pytest.raises(RunError, match="holds no .txt file"):
        draw_report(stub(256), tmp_path / "out", TextSource(tmp_path))
    with pytest.raises(RunError, match="top_k must be at least 1"):
        draw_report(stub(256), tmp_path / "out", top_k=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sprout"], "plot sprout needs --checkpoint FILE"),
        (["somewhere", "--data", "x.txt"], "--data goes with --checkpoint"),
        (["somewhere", "--tokenizer", "x.json"], "--tokenizer goes with --checkpoint FILE"),
        (["somewhere", "--top-k", "0"], "--top-k goes with --checkpoint FILE"),
        (["somewhere", "--tokens", "8192"], "--tokens goes with --checkpoint FILE"),
        (["somewhere", "--override", "n_heads=2"], "--override goes with --checkpoint FILE"),
        (["ten", "--checkpoint", "x.pt"], "no reports on checkpoints of ten"),
        (["sprout", "--checkpoint", "missing.pt"], "missing.pt"),
    ],
)
def test_wrong_use_is_told_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["plot", *arguments])
    assert stopped.value.code == 1
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told
