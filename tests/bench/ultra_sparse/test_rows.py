"""The benchmark's rows: contestants agree, schema holds, missing peers leave empty columns."""

from __future__ import annotations

import pytest

from sparsejax.bench import contest, loading, pinned
from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row
from sparsejax.bench.timing import race
from sparsejax.bench.ultra_sparse import rows as ultra_sparse

MACHINE = Machine("cpu (test)", 1, {"jax": "1"}, 5.0, 0.5, 10.0, 30.0)


@pytest.fixture(scope="module")
def trained():
    return ultra_sparse.sparse_checkpoint()


@pytest.fixture
def short_race(monkeypatch):
    monkeypatch.setattr(
        contest, "race", lambda calls, **_: race(calls, repetitions=3, repetition_seconds=1e-5)
    )


@pytest.mark.parametrize("batch", [1, 33])
@pytest.mark.parametrize("features_first", [False, True])
def test_contestants_of_the_feature_rows_agree_with_float64(trained, short_race, batch, features_first):
    case = ultra_sparse.from_features(trained, batch, MACHINE, features_first=features_first, quick=True)
    row = contest.decide(case, MACHINE, quick=True)
    check_schema(row)
    assert {"jit(model.apply)", "ck.apply"} == row.variants.keys()


@pytest.mark.parametrize("batch", [1, 33])
def test_contestants_of_the_end_to_end_rows_agree_with_float64(trained, short_race, batch):
    row = contest.decide(ultra_sparse.end_to_end(trained, batch, MACHINE, quick=True), MACHINE, quick=True)
    check_schema(row)
    mse = row.quality["MSE to sin(x)"]
    assert mse["ours"] == pytest.approx(mse["float64 oracle"], abs=1e-6)


def test_contestants_of_the_dense_row_agree_with_float64(short_race):
    check_schema(contest.decide(ultra_sparse.dense_from_features(33), MACHINE, quick=True))


def check_schema(row: Row):
    errors = row.quality["max error to float64"]
    # float32 with arguments up to 60: 4e-6 per column, weights of order one.
    assert max(errors.values()) < 2e-5
    measured = {name for name, value in row.peers.items() if value is not None}
    assert {"ours", *measured} <= errors.keys()
    assert row.ours > 0 and row.unit == "us" and row.bound
    assert all(row.peers[name] > 0 and row.first_call[name] > 0 for name in measured)
    assert (row.device, row.threads, row.versions) == ("cpu (test)", 1, {"jax": "1"})


def test_rows_with_targets_are_those_of_the_issue():
    assert [target.at_least for target in ultra_sparse._END_TO_END_TARGETS[1]] == [20]
    assert [target.at_least for target in ultra_sparse._END_TO_END_TARGETS[4096]] == [10]
    wanted = {key: [t.at_least for t in value] for key, value in ultra_sparse._FEATURE_TARGETS.items()}
    assert wanted == {(4096, False): [5, 1], (65_536, True): [8], (65_536, False): [1.3]}


def test_missing_and_broken_peers_leave_empty_columns_with_notes():
    def missing():
        raise ModuleNotFoundError("No module named 'numba'", name="numba")

    def broken():
        raise contest.PeerError("torch.compile failed (NoCompiler)")

    calls, seconds, notes = contest.build({"a": lambda: print, "b": missing, "c": missing, "d": broken})
    assert [call is None for call in calls.values()] == [False, True, True, True]
    assert seconds.keys() == calls.keys() and min(seconds.values()) >= 0
    assert notes == [
        "numba is not installed: the columns that need it are empty.",
        "d is empty: torch.compile failed (NoCompiler)",
    ]


@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_load_row_measures_a_load_that_is_right(layout):
    state_dict = {"sparse": loading.sparse_state_dict, "dense": loading.dense_state_dict}[layout]
    row = loading.load_row(layout, state_dict(1 << 20), MACHINE, quick=True)
    assert row.quality["largest error"] == 0
    assert row.unit == "GB/s" and row.ours > 0 and row.ratio("np.fromfile") is not None


def test_the_childs_cores_are_the_last_ones_allowed(monkeypatch):
    monkeypatch.setattr(pinned, "allowed_cores", lambda: [1, 4, 6])
    assert pinned.cores(2) == [4, 6]
    for threads in (0, 4):
        with pytest.raises(ValueError, match="3 cores"):
            pinned.cores(threads)
