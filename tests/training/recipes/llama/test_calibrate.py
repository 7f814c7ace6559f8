"""Predictors of a whole Llama: fitted, written, refused to other models; text by fewer neurons; bad input."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint.checkpoint import Checkpoint, template
from sparsejax.checkpoint.registry import find
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.generation import generate
from sparsejax.models.sparse_inference.llama.perplexity import perplexity
from sparsejax.models.sparse_inference.part_configs import ScorerConfig
from sparsejax.models.sparse_inference.predictor.quantized import quantize_predictor
from sparsejax.models.sparse_inference.store.llama import StoredLlama
from sparsejax.training.recipes.llama import generate as llama_generate
from sparsejax.training.recipes.llama import parts as llama_parts
from sparsejax.training.recipes.llama.calibrate import Fit, calibrate_network
from sparsejax.training.recipes.llama.file import write_llama
from sparsejax.training.recipes.llama.predictors import read_predictors, write_predictors
from sparsejax.training.recipes.llama.quality import curves, oracles, perplexities
from sparsejax.training.recipes.llama.vocabulary import vocabulary
from tests.command_line import refused, run

CONFIG = LlamaConfig(
    vocab_size=260,
    d_model=32,
    d_ff=64,
    n_layers=2,
    n_heads=2,
    activation="relu",
    context_length=64,
    tied_output=True,
)
TEXT = "".join(f"{number} times 7 is {7 * number}. " for number in range(120))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A file of a network that was never trained, but whose gates and outputs differ."""
    folder = tmp_path_factory.mktemp("model")
    params = jax.jit(partial(llama_parts.initial_params, CONFIG))(jax.random.key(3))
    params = jax.tree.map(lambda leaf: leaf * 6 if leaf.ndim == 2 else leaf + 0.1, params)
    (folder / "text.txt").write_text(TEXT)
    for kept in ("f32", "q8_0"):
        write_llama(
            folder / f"{kept}.gguf", CONFIG, params, kept_format=kept, also=vocabulary("bytes", (), 0)
        )
    other = jax.tree.map(lambda leaf: leaf if leaf.ndim == 2 else leaf + 0.1, params)
    write_llama(folder / "other.gguf", CONFIG, other, kept_format="f32", also=vocabulary("bytes", (), 0))
    write_llama(folder / "mute.gguf", CONFIG, params, kept_format="f32")
    return folder


@pytest.fixture(scope="module")
def calibrated(model):
    """By the command line, of which the table is kept."""
    pytest.importorskip("matplotlib")
    out = model / "predictors"
    given = ("--data", model / "text.txt", "--out", out, "--rank", 32, "--active-fraction", 0.5, "--plots")
    assert run(["calibrate", model / "f32.gguf", *given]) == 0
    return out


def test_calibrate_writes_predictors_a_report_and_a_picture(model, calibrated):
    ck = sj.load(model / "f32.gguf")
    found = read_predictors(calibrated, ck)
    assert [predictor.shape for predictor in found.each] == [(64, 32)] * 2
    assert found.active_fraction == 0.5
    report = json.loads((calibrated / "report.json").read_text())
    for layer, threshold in zip(report["layers"], found.thresholds, strict=True):
        assert layer["threshold"] == threshold
        # Of full rank they are the gates themselves: what is missed is what the ridge bends.
        assert layer["recall_of_active"] > 0.75
        assert layer["recall"] > 0.75 and layer["output_error"] < 0.3 and layer["energy_kept"] > 0.95
        assert layer["active_at_threshold"] == pytest.approx(0.5, abs=0.06)
    assert report["perplexities"].keys() == {"predictor", "oracle", "random"}
    assert (calibrated / "plots" / "perplexity.png").stat().st_size > 10_000


def test_perplexities_are_those_of_the_network_with_these_neurons(model, calibrated):
    ck = sj.load(model / "f32.gguf")
    each = list(read_predictors(calibrated, ck).each)
    rows = [np.asarray(list(TEXT.encode()[start : start + 40])) + 3 for start in range(0, 200, 40)]
    found = perplexities(ck, rows, each, (1.0, 0.25))
    assert found[1.0] == pytest.approx(perplexity(ck, rows), rel=1e-5)
    assert found[0.25] == pytest.approx(perplexity(ck, rows, predictors=each, active_fraction=0.25), rel=1e-5)
    # Closed gates give nothing: an oracle with as many neurons as have open ones loses nothing.
    assert perplexities(ck, rows, oracles(ck), (0.95,))[0.95] == pytest.approx(found[1.0], rel=1e-4)


def test_a_network_that_computes_few_neurons_is_measured_in_the_order_of_knowledge(model, calibrated):
    ck = sj.load(model / "f32.gguf")
    each = list(read_predictors(calibrated, ck).each)
    rows = generate(ck, [[1]] * 4, max_new_tokens=40, temperature=1.0, stop_tokens=[]).tokens
    found = curves(ck, list(rows), each, (1.0, 0.25))  # text that is the network's own
    assert found["random"][0.25] > found["predictor"][0.25] > 0.9 * found["oracle"][0.25]


def test_predictors_survive_other_formats_and_no_other_model(model, calibrated, tmp_path):
    assert read_predictors(calibrated, sj.load(model / "q8_0.gguf")).each
    with pytest.raises(sj.CheckpointError, match="another model of the same sizes; run sparsejax calibrate"):
        read_predictors(calibrated, sj.load(model / "other.gguf"))
    sj.save(sj.load(model / "f32.gguf"), tmp_path / "native")
    with pytest.raises(sj.CheckpointError, match="holds no predictors"):
        read_predictors(tmp_path / "native", sj.load(model / "f32.gguf"))
    with pytest.raises(sj.CheckpointError, match="kind 'llama_predictors' is not known"):
        sj.load(calibrated)


def test_damaged_predictors_are_refused(model, calibrated, tmp_path):
    ck = sj.load(model / "f32.gguf")
    for number, (field, value, told) in enumerate(
        [
            ("variant", "oracle", "its predictors are damaged: 'oracle'; calibrate again"),
            ("thresholds", [0.5], "predictors and the model they are for differ in size; calibrate again"),
            ("active_fraction", None, "its predictors are damaged"),
            ("model", {"d_ff": 65}, "predictors of another model: n_layers is None there and 2 in this one"),
            ("model", None, "predictors of another model: "),
        ]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(calibrated, folder)
        document = json.loads((folder / "sparsejax.json").read_text())
        (folder / "sparsejax.json").write_text(json.dumps({**document, field: value}))
        with pytest.raises(sj.CheckpointError, match=re.escape(told)):
            read_predictors(folder, ck)


def test_quantised_predictors_are_not_written(model, calibrated, tmp_path):
    ck = sj.load(model / "f32.gguf")
    found = read_predictors(calibrated, ck)
    small = dataclasses.replace(found, each=tuple(quantize_predictor(part) for part in found.each))
    with pytest.raises(ValueError, match="written in float32; quantise them after they are read"):
        write_predictors(tmp_path / "small", small, ck)
    assert not (tmp_path / "small").exists()


def test_numbers_that_cannot_be_right_are_refused_before_any_work(model):
    ck = sj.load(model / "f32.gguf")
    for fraction in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"above 0 and at most 1, not {fraction}"):
            calibrate_network(ck, [], [], Fit(rank=4, active_fraction=fraction))
    with pytest.raises(ValueError, match="no row has two tokens: there is nothing to predict"):
        perplexities(ck, [np.asarray([1]), np.asarray([], int)], [])


def test_a_file_of_something_else_is_no_llama(tmp_path):
    config = ScorerConfig(4, 6, 2)
    shapes = template(find("sparse_inference"), config)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    sj.save(Checkpoint("sparse_inference", "predictor", config, params), tmp_path / "scorer")
    with pytest.raises(sj.CheckpointError, match="scorer: holds sparse_inference/predictor, no Llama"):
        llama_generate.load_llama(tmp_path / "scorer")


def test_arrays_of_the_host_need_a_cpu_beside_the_accelerator(monkeypatch):
    with llama_generate._in_host_memory():
        assert jnp.ones(1).devices() == {jax.local_devices(backend="cpu")[0]}

    def alone(*, backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", alone)
    with llama_generate._in_host_memory() as device:
        assert device is None


def test_mlp_predictors_are_written_and_read(model, tmp_path):
    ck = sj.load(model / "f32.gguf")
    rows = [np.asarray(list(TEXT.encode()[start : start + 64])) + 3 for start in range(0, 640, 64)]
    fit = Fit(rank=16, kind="mlp", fine_tune=5, active_fraction=0.25, recall=0.8)
    found = calibrate_network(ck, rows[:8], rows[8:], fit)
    write_predictors(tmp_path / "mlp", found.predictors, ck)
    again = read_predictors(tmp_path / "mlp", ck)
    inputs = jnp.ones((3, 32))
    for before, after in zip(found.predictors.each, again.each, strict=True):
        np.testing.assert_array_equal(before.scores(inputs), after.scores(inputs))
    assert again.thresholds == found.predictors.thresholds


def _generated(capsys, path, *arguments) -> str:
    command = ["generate", path, "--prompt", "3 times", "--max-new-tokens", 12, "--temperature", 0]
    assert run([*command, *arguments]) == 0
    return capsys.readouterr().out


def test_generation_with_all_neurons_is_that_without_predictors(model, calibrated, capsys):
    path = model / "f32.gguf"
    dense = _generated(capsys, path)
    ck = sj.load(path)
    assert dense == "3 times" + generate(ck, "3 times", max_new_tokens=12, temperature=0).texts[0] + "\n"
    assert _generated(capsys, path, "--predictors", calibrated, "--active-fraction", 1) == dense
    each = list(read_predictors(calibrated, ck).each)
    options = {"max_new_tokens": 12, "temperature": 0, "predictors": each, "active_fraction": 0.25}
    sparse = generate(ck, "3 times", **options).texts[0]
    given = ("--predictors", calibrated, "--active-fraction", 0.25, "--no-echo")
    assert _generated(capsys, path, *given) == sparse + "\n"
    command = ["generate", path, "--prompt", "3 times", "--max-new-tokens", 12, "--temperature", 0, *given]
    assert run([*command, "--device-budget", "20kB"]) == 0
    captured = capsys.readouterr()
    assert captured.out == sparse + "\n"
    assert re.match(r"neurons: \d+\.\d% of \d[\d,]+ asked for were on the device .* of 0.0 MB$", captured.err)


def test_generation_by_thresholds_takes_those_of_the_directory(model, calibrated, monkeypatch, capsys):
    seen, stream = {}, llama_generate.stream
    monkeypatch.setattr(llama_generate, "stream", lambda *a, **told: seen.update(told) or stream(*a, **told))
    path, given = model / "f32.gguf", ("--predictors", calibrated, "--select-by", "threshold")
    text = _generated(capsys, path, *given)
    assert text and _generated(capsys, path, *given, "--device-budget", "20kB") == text
    thresholds = read_predictors(calibrated, sj.load(path)).thresholds
    assert tuple(each.threshold for each in seen["sparsity"]) == thresholds
    assert [each.count(64) for each in seen["sparsity"]] == [None, None]
    assert "active_fraction" not in seen and len(seen["predictors"]) == 2


def test_wrong_input_of_generate_is_told_in_one_line(model, calibrated, tmp_path, capsys, monkeypatch):
    path, with_them = model / "f32.gguf", ("--predictors", calibrated)

    def told(*arguments, prompt="a"):
        return refused(capsys, "generate", *arguments, "--prompt", prompt)

    assert "none.gguf: no such file" in told(tmp_path / "none.gguf")
    assert "text.txt" in told(model / "text.txt")
    assert "the prompt is empty" in told(path, prompt="")
    assert "must be above 0 and at most 1, not 0" in told(path, *with_them, "--active-fraction", 0)
    assert "at most 1, not 1.5" in told(path, *with_them, "--active-fraction", 1.5)
    assert "--active-fraction needs --predictors" in told(path, "--active-fraction", 0.5)
    assert "and no --active-fraction" in told(
        path, *with_them, "--select-by", "threshold", "--active-fraction", 0.5
    )
    assert "thresholds of --predictors DIR" in told(path, "--select-by", "threshold")
    assert "no such directory" in told(path, "--predictors", tmp_path / "none")
    assert "predictors of another model" in told(model / "other.gguf", *with_them)
    assert "has no tokenizer" in told(model / "mute.gguf")
    assert "need 69 positions" in told(path, "--max-new-tokens", 67)
    assert "temperature must be" in told(path, "--temperature", -1)
    assert "--stop is empty" in told(path, "--stop", "")
    assert "--device-budget takes bytes such as 500MB or 2GB, not 'much'" in told(
        path, "--device-budget", "much"
    )
    assert "not '-1'" in told(path, "--device-budget=-1")
    assert "the budget leaves" in told(path, "--device-budget", "9B")
    with monkeypatch.context() as patch:
        close, closed = StoredLlama.close, []
        patch.setattr(StoredLlama, "close", lambda self: closed.append(close(self)))
        assert "need 69 positions" in told(path, "--max-new-tokens", 67, "--device-budget", "1MB")
        assert closed, "what was opened for a text that is refused"
    raw = path.read_bytes().replace(
        b"general.architecture\x08\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00llama",
        (b"general.architecture\x08\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00mamba"),
    )
    (tmp_path / "mamba.gguf").write_bytes(raw)
    assert re.search("architecture 'mamba' is not supported", told(tmp_path / "mamba.gguf"))
    (tmp_path / "short.gguf").write_bytes(raw[:5000])
    assert "short.gguf" in told(tmp_path / "short.gguf")


def test_wrong_input_of_calibrate_is_told_in_one_line_and_writes_nothing(model, tmp_path, capsys):
    path, text, out = model / "f32.gguf", model / "text.txt", tmp_path / "out"

    def told(*arguments, model=path, data=text):
        return refused(capsys, "calibrate", model, "--data", data, "--out", out, *arguments)

    assert "no such file" in told(model=tmp_path / "none.gguf")
    assert "text.txt" in told(model=text)
    assert "there is no such file or folder" in told(data=tmp_path / "none.txt")
    (tmp_path / "short.txt").write_text("a")
    assert "are too few to fit to some" in told(data=tmp_path / "short.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 50)
    assert "latin.txt: is not UTF-8 at byte 3" in told(data=tmp_path / "latin.txt")
    (tmp_path / "blank.txt").write_text(" \n")
    assert "holds no text" in told(data=tmp_path / "blank.txt")
    assert "--active-fraction must be above 0" in told("--active-fraction", 0)
    assert "rank must be 1 to 32" in told("--rank", 33)
    assert "--rank must be at least 1" in told("--rank", 0)
    assert "--recall must be above 0" in told("--recall", 2)
    assert "--held-out must be between" in told("--held-out", 1)
    assert "has no tokenizer" in told(model=model / "mute.gguf")
    both = tmp_path / "both"
    both.mkdir()
    (both / "a.txt").write_text(TEXT)
    (both / "b.txt").write_bytes(b"caf\xe9 " * 50)
    assert "b.txt: is not UTF-8" in told("--rank", 33, data=both)
    assert "rank must be 1 to 32" in told("--rank", 33, "--tokens", 40, data=both)  # from the first alone
    assert not out.exists()
    out.write_text("mine")
    assert "out: is a file; give a directory for the predictors" in told()
    out.unlink()
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "is not empty and not a sparsejax checkpoint" in told("--rank", 4)


def test_wrong_usage_exits_with_2(model, capsys):
    assert run(["generate", model / "f32.gguf"]) == 2
    assert "prompt" in capsys.readouterr().err
    assert run(["calibrate", model / "f32.gguf"]) == 2
    assert "--data" in capsys.readouterr().err
