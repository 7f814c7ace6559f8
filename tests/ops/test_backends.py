"""Names resolve by platform; unknown ones are refused."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from sparsejax.ops.backends import (
    DENSE_RECURRENCE,
    EDGE_CONV,
    LINEAR_RECURRENCE,
    QUANTIZED,
    SPARSE_FFN,
    interpret,
    platform,
    resolve,
    target_platform,
)

TABLES = (LINEAR_RECURRENCE, DENSE_RECURRENCE, SPARSE_FFN, EDGE_CONV, QUANTIZED)


@pytest.mark.parametrize(
    ("name", "backend", "expected"),
    [
        ("cpu", "auto", "scan"),
        ("cpu", "xla", "scan"),
        ("gpu", "auto", "associative"),
        ("gpu", "pallas", "pallas_gpu"),
        ("tpu", "auto", "associative"),
        ("tpu", "pallas", "pallas_tpu"),
        ("tpu", "xla", "associative"),
        ("tpu", "reference", "reference"),
        ("gpu", "fft", "fft"),
    ],
)
def test_a_name_means_the_best_of_the_platform(name, backend, expected):
    with target_platform(name):
        assert platform() == name
        assert interpret() == (name == "cpu")
        assert resolve(backend, LINEAR_RECURRENCE, dtype=jnp.bfloat16) == expected


def test_auto_takes_no_kernel_for_float64():
    preferred = LINEAR_RECURRENCE._replace(auto=LINEAR_RECURRENCE.pallas)
    with target_platform("tpu"):
        assert resolve("auto", preferred, dtype=jnp.float32) == "pallas_tpu"
        assert resolve("auto", preferred, dtype=jnp.float64) == "associative"


def test_the_target_ends_with_its_block():
    before = platform()
    with pytest.raises(KeyError), target_platform("tpu"):
        raise KeyError
    assert platform() == before


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.op)
def test_every_choice_of_a_table_can_be_named(table):
    for choices in (table.auto, table.xla, table.pallas):
        assert set(choices.values()) <= set(table.specific)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"linear_recurrence has no backend 'cuda'.*'pallas'.*'chunked'"):
        resolve("cuda", LINEAR_RECURRENCE, dtype=jnp.float32)
    with pytest.raises(ValueError, match="dense_recurrence has no backend 'pallas'"):
        resolve("pallas", DENSE_RECURRENCE, dtype=jnp.float32)
