"""A worker thread for what can be done ahead, of which only the newest job of a kind is kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

Job = Callable[[], None]


class Prefetcher:
    """Runs jobs one after the other in a thread of its own, which begins with the first job.

    A job must not raise: what goes wrong is its own to keep.

    Example:
      >>> done = []
      >>> with Prefetcher() as worker:
      ...     worker.submit("layer 1", lambda: done.append(1))
      ...     worker.wait()
      >>> done
      [1]
    """

    def __init__(self) -> None:
        """No job waits, no thread runs."""
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Hashable, Job] = OrderedDict()
        self._running, self._closed = False, False
        self._thread: threading.Thread | None = None

    def submit(self, key: Hashable, job: Job) -> None:
        """Run a job when those before it are done; one of the same key that still waits is dropped.

        A closed worker does nothing.
        """
        with self._changed:
            if self._closed:
                return
            self._waiting.pop(key, None)
            self._waiting[key] = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="neuron prefetch", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drop(self, key: Hashable) -> bool:
        """Forget the job of a key that has not begun; whether there was one."""
        with self._changed:
            return self._waiting.pop(key, None) is not None

    def wait(self) -> None:
        """Until no job waits or runs."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not (self._waiting or self._running))

    def close(self) -> None:
        """Drop the jobs that wait, and end the thread after the one that runs; again is no error."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                _, job = self._waiting.popitem(last=False)
                self._running = True
            job()
            del job  # it may hold what the caller wants to let go
