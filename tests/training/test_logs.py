"""Logs of rounds: rows, and what a resumed run makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.training.errors import RunError
from sparsejax.training.logs import RoundLog, read_log


def _write(path, rows, keep=0, columns=("loss", "accepted")):
    with RoundLog(path, columns, keep) as log:
        log.append(keep, {"loss": np.asarray(rows, np.float32), "accepted": np.full(len(rows), np.nan)})


def test_rows_come_back_as_float32_had_them(tmp_path):
    values = np.float32([1 / 3, 1e-30, np.inf])
    _write(tmp_path / "log.csv", values)
    found = read_log(tmp_path / "log.csv")
    assert list(found) == ["round", "loss", "accepted"]
    assert found["round"].tolist() == [1, 2, 3]
    assert np.array_equal(found["loss"].astype(np.float32), values)
    assert np.isnan(found["accepted"]).all()


@pytest.mark.parametrize("torn", ["", "4,0.1", "4,0.1,0.2\n5,", "\x00\x00"])
def test_resumed_log_has_every_round_once(torn, tmp_path):
    path = tmp_path / "log.csv"
    _write(path, [0.5, 0.4, 0.3])
    with path.open("a") as file:
        file.write(torn)
    _write(path, [0.35, 0.2], keep=2)
    assert read_log(path)["round"].tolist() == [1, 2, 3, 4]
    assert read_log(path)["loss"].astype(np.float32).tolist() == np.float32([0.5, 0.4, 0.35, 0.2]).tolist()
    assert list(tmp_path.iterdir()) == [path]


def test_log_that_lacks_rounds_is_refused_and_kept(tmp_path):
    path = tmp_path / "log.csv"
    _write(path, [0.5])
    before = path.read_bytes()
    with pytest.raises(RunError, match="lacks rows of the 2 rounds"):
        RoundLog(path, ("loss", "accepted"), 2)
    with pytest.raises(RunError, match="columns are not those"):
        RoundLog(path, ("loss",), 1)
    assert path.read_bytes() == before
    with pytest.raises(RunError, match="is gone"):
        RoundLog(tmp_path / "none.csv", ("loss",), 1)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "round,loss\n1\n", "round,loss\n1,x\n"])
def test_text_that_is_no_log_is_refused(text, tmp_path):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(RunError, match="not a log of rounds"):
        read_log(tmp_path / "log.csv")
