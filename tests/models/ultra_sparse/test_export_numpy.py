"""An exported Python file runs without JAX and computes what JAX computes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import sparsejax
from sparsejax.models.ultra_sparse.export_numpy import export_numpy
from tests.models.ultra_sparse import nets
from tests.models.ultra_sparse.test_export_c import ROWS, SINE, by_jax, make


def predictor(path):
    names = {}
    exec(path.read_text(), names)
    return names["predict"]


@pytest.mark.parametrize("name", nets.ARCHITECTURES)
@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
def test_every_kind_of_net_in_numpy(tmp_path, name, int8):
    net = make(name, int8=int8)
    predict, expected = predictor(export_numpy(net, tmp_path / "net.py")), by_jax(net, ROWS)
    found = predict(ROWS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(predict(ROWS[3].astype(np.float64)), expected[3], rtol=0, atol=2e-6)
    assert predict(ROWS[:0]).shape == (0, net.config.output_size)


def test_sign_nets_in_numpy(tmp_path):
    net = make("deep", int8=True, sign=True)
    found = predictor(export_numpy(net, tmp_path / "net.py"))(ROWS)
    np.testing.assert_allclose(found, by_jax(net, ROWS), rtol=0, atol=2e-6)


def test_the_file_runs_alone_and_without_jax(tmp_path):
    ck = sparsejax.load(SINE)
    rows = np.random.default_rng(0).uniform(-1, 1, (50, 256)).astype(np.float32)
    export_numpy(ck, tmp_path / "sine_net.py")
    np.save(tmp_path / "rows.npy", rows)
    program = (
        "import sys, numpy as np, sine_net\n"
        "np.save('found.npy', sine_net.predict(np.load('rows.npy')))\n"
        "print(*{name.split('.')[0] for name in sys.modules} & {'jax', 'flax', 'sparsejax'})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert not loaded.split()
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), ck.apply(rows), rtol=0, atol=1e-6)


def test_columns_that_nobody_reads_cannot_spoil_the_outputs(tmp_path):
    net = make("variable_k")
    path = export_numpy(net, tmp_path / "net.py")
    names = {}
    exec(path.read_text(), names)
    assert 0 < len(names["COLUMNS"]) < 12
    for column in range(12):
        row = ROWS[0].copy()
        row[column] = np.nan
        assert np.isnan(names["predict"](row)).any() == (column in names["COLUMNS"])


def test_rows_of_another_width_are_refused(tmp_path):
    predict = predictor(export_numpy(make("fixed_k"), tmp_path / "net.py"))
    for shape in ((13,), (2, 11), (), (1, 2, 12)):
        with pytest.raises(ValueError, match="do not fit a net of 12 inputs"):
            predict(np.zeros(shape))


def test_equal_nets_give_equal_bytes_and_bad_targets_are_refused(tmp_path):
    net = make("retinal")
    first = export_numpy(net, tmp_path / "net.py").read_bytes()
    assert export_numpy(net, tmp_path / "net.py").read_bytes() == first
    with pytest.raises(ValueError, match="is a directory"):
        export_numpy(net, tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        export_numpy(net, tmp_path / "missing" / "net.py")
    net.params["layer_2"]["bias"][0] = np.nan
    with pytest.raises(ValueError, match="layer_2/bias holds a number that is not finite"):
        export_numpy(net, tmp_path / "net.py")
    assert (tmp_path / "net.py").read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["net.py"]
