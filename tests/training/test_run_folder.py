"""The folder of a run: who may write to it, and what is refused without a trace."""

from __future__ import annotations

import json

import pytest

from sparsejax.training.errors import RunError
from sparsejax.training.run_folder import mark_finished, opened_run, read_run, standing

SETTINGS = {"family": "toy", "net": {"hidden": 3}, "sizes": (1, 2)}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "deep" / "run"
    with opened_run(path, SETTINGS, {"rounds": 5}):
        pass
    return path


@pytest.mark.parametrize("resume", [False, True])
def test_missing_or_empty_folder_is_new(resume, tmp_path):
    assert standing(tmp_path / "none", SETTINGS, resume=resume) == "new"
    (tmp_path / "run.json.0123456789abcdef").write_text("{")  # of a start that was killed
    assert standing(tmp_path, SETTINGS, resume=resume) == "new"
    assert not (tmp_path / "none").exists()


def test_run_is_continued_only_when_asked(folder):
    assert standing(folder, SETTINGS, resume=True) == "unfinished"
    with pytest.raises(RunError, match=r"holds a run already \(unfinished\); continue it with --resume"):
        standing(folder, SETTINGS, resume=False)


def test_what_a_kill_left_half_written_is_removed_at_the_next_start(folder):
    half = folder / "run.json.0123456789abcdef"
    half.write_text("{")
    (folder / "notes.txt").write_text("mine")
    before = (folder / "run.json").read_bytes()
    with opened_run(folder, SETTINGS, {}):
        assert not half.exists()
    assert (folder / "run.json").read_bytes() == before and (folder / "notes.txt").exists()


def test_finished_run_is_told(folder):
    mark_finished(folder, {"seconds": 1.5})
    assert standing(folder, SETTINGS, resume=True) == "finished"
    assert (read_run(folder)["seconds"], read_run(folder)["rounds"]) == (1.5, 5)
    with pytest.raises(RunError, match=r"\(finished\); give another folder"):
        standing(folder, SETTINGS, resume=False)


def test_another_run_is_refused_by_the_first_difference(folder):
    with pytest.raises(RunError, match="net hidden is 3 there and 4 here"):
        standing(folder, {**SETTINGS, "net": {"hidden": 4}}, resume=True)


def test_foreign_files_and_damage_are_refused(folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(RunError, match="holds no run"):
        standing(tmp_path, SETTINGS, resume=True)
    with pytest.raises(RunError, match="is a file"):
        standing(tmp_path / "thesis.tex", SETTINGS, resume=True)
    for text, told in (("{", "damaged"), (json.dumps([1]), "no description")):
        (folder / "run.json").write_text(text)
        with pytest.raises(RunError, match=told):
            standing(folder, SETTINGS, resume=True)


def test_second_process_is_kept_out(folder):
    with (
        opened_run(folder, SETTINGS, {}),
        pytest.raises(RunError, match="another process is training"),
        opened_run(folder, SETTINGS, {}),
    ):
        pass


def test_errors_of_the_run_itself_are_not_blamed_on_another(folder):
    with pytest.raises(BlockingIOError, match="of the run"), opened_run(folder, SETTINGS, {}):
        raise BlockingIOError("of the run")
