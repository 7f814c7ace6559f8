"""The worker's jobs: in order, the newest of a kind, and an end to all of them."""

from __future__ import annotations

import threading

from sparsejax.models.sparse_inference.store.prefetch import Prefetcher


def test_only_the_newest_job_of_a_key_runs():
    done, begun, go = [], threading.Event(), threading.Event()

    def first():
        begun.set()
        go.wait(10)
        done.append("first")

    with Prefetcher() as worker:
        worker.submit("first", first)
        assert begun.wait(10)
        for number, name in enumerate("aba"):
            worker.submit(name, lambda number=number, name=name: done.append((name, number)))
        worker.submit("dropped", lambda: done.append("dropped"))
        assert worker.drop("dropped")
        assert not worker.drop("dropped")
        assert not worker.drop("first")
        go.set()
        worker.wait()
        assert done == ["first", ("b", 1), ("a", 2)]


def test_closing_ends_the_thread_and_forgets_what_waits():
    done, begun, go = [], threading.Event(), threading.Event()
    worker = Prefetcher()
    worker.close()
    worker.submit(0, lambda: done.append("after the end"))
    worker.wait()

    worker = Prefetcher()
    before = threading.active_count()
    worker.submit(0, lambda: (begun.set(), go.wait(10), done.append("running")))
    worker.submit(1, lambda: done.append("waiting"))
    assert begun.wait(10)
    assert threading.active_count() == before + 1
    threading.Timer(0.01, go.set).start()
    worker.close()
    worker.close()
    assert done == ["running"]
    assert "neuron prefetch" not in {thread.name for thread in threading.enumerate()}


def test_a_job_may_close_its_own_worker():
    worker, closed = Prefetcher(), threading.Event()
    worker.submit(0, lambda: (worker.close(), closed.set()))
    assert closed.wait(10)
    worker.close()
