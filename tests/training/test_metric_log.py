"""Metrics as JSON lines: order, non-finite values, resumption after a kill."""

from __future__ import annotations

import pytest

from sparsejax.training.errors import RunError
from sparsejax.training.metric_log import MetricLog, read_metrics


def _write(path, steps, keep=0):
    with MetricLog(path, keep) as log:
        for step in steps:
            log.append(step, {"loss": 1 / step})
            if step % 2 == 0:
                log.append(step, {"validation_loss": float("nan")})
        log.sync()


def test_resumed_log_is_that_of_an_uninterrupted_run(tmp_path):
    _write(tmp_path / "whole", range(1, 7))
    _write(tmp_path / "killed", range(1, 6))
    with open(tmp_path / "killed", "a") as file:
        file.write('{"step": 6, "los')
    _write(tmp_path / "killed", range(5, 7), keep=4)
    assert (tmp_path / "killed").read_text() == (tmp_path / "whole").read_text()
    assert read_metrics(tmp_path / "whole")[2] == {"step": 2, "validation_loss": None}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "is gone, and with it the metrics of 4 steps"),
        ('{"step": 3}\n', "lacks metrics of the 4 steps"),
    ],
)
def test_log_that_lacks_steps_is_refused(text, told, tmp_path):
    path = tmp_path / "metrics.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RunError, match=told):
        MetricLog(path, keep=4)


@pytest.mark.parametrize("text", ["{", "[1]", '{"loss": 1}'])
def test_other_files_are_no_logs(text, tmp_path):
    (tmp_path / "file").write_text(text)
    with pytest.raises(RunError, match="is not a log of metrics"):
        read_metrics(tmp_path / "file")
