"""Compiler options of CPUs that know them, and of no other."""

from __future__ import annotations

from sparsejax.ops import vectors
from sparsejax.ops.backends import target_platform


def test_wide_vectors_are_asked_of_cpus_that_know_them(monkeypatch):
    accepted = vectors._accepted.__wrapped__
    assert accepted()
    with target_platform("gpu"):
        assert not accepted()
    monkeypatch.setattr(vectors, "WIDE_VECTORS", {"xla_cpu_no_such_option": 512})
    assert not accepted()
