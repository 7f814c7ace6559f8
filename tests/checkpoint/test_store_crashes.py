"""A save that is killed anywhere leaves the old checkpoint or the new one, never a mix.

Run as a script, this file is a child of its own tests that forks savers and kills them.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import sparsejax
from sparsejax.checkpoint import store
from sparsejax.checkpoint.errors import NotReadableError, TruncatedFileError


def numbered(version):
    """Params and metadata that all say which version they are."""
    params = {f"layer_{i}": {"w": np.full((64, 1024), version, np.float32)} for i in range(8)}
    return params, {"version": version, "m": np.full(1000, version)}


def save_version(directory, version):
    params, metadata = numbered(version)
    store.write_directory(directory, {"version": version}, params, metadata)


def loaded_version(directory):
    """The version of a checkpoint; fails if it is a mix."""
    header = store.read_header(directory)
    version = header.fields["version"]
    params, _ = numbered(version)
    found = store.read_arrays(header, store.array_shapes(header))
    assert jax.tree.structure(found) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    metadata = store.read_metadata(header)
    assert metadata["version"] == version and (metadata["m"] == version).all()
    return version


def serve_saves():
    """Answers each request on stdin by a fork that saves and is killed on the way.

    Everything is imported before the forks, and nothing is started.
    """
    import orbax.checkpoint  # noqa: F401

    assert threading.active_count() == 1
    for line in sys.stdin:
        print(json.dumps(killed_save(**json.loads(line))), flush=True)


def killed_save(directory, version, *, delay=None, event=None, path="", count=1):
    """Saves in a fork, killed after ``delay`` seconds or before its ``count``-th event under the path."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        jax.devices()
        if event:
            kill_before(event, directory + path, count)
        os.write(writer, b".")
        save_version(directory, version)
        os._exit(0)
    os.close(writer)
    os.read(reader, 1)
    start = time.perf_counter()
    select.select([reader], [], [], delay)  # ready when the child has ended
    seconds = time.perf_counter() - start
    os.kill(process, signal.SIGKILL)
    os.close(reader)
    status = os.waitpid(process, 0)[1]
    return {"finished": status == 0, "killed": os.WTERMSIG(status) == signal.SIGKILL, "seconds": seconds}


WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "open")


def kill_before(event, path, count):
    seen = 0

    def watch(name, arguments):
        nonlocal seen
        if name in (WRITES if event == "any" else (event,)) and str(arguments[0]).startswith(path):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


@pytest.fixture(scope="module")
def saver():
    environment = os.environ | {
        "PYTHONPATH": str(Path(sparsejax.__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-W", "ignore", __file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:

        def ask(directory, version, **how):
            process.stdin.write(json.dumps({"directory": str(directory), "version": version, **how}) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert answer["finished"] or answer["killed"]
            return answer

        yield ask
        process.stdin.close()


def after_a_kill(directory, old, new, finished):
    """Which version survived, and whether the killed save left something behind."""
    try:
        version = loaded_version(directory)
        current = {"sparsejax.json", store.read_header(directory).payload.name}
    except (NotReadableError, TruncatedFileError) as error:
        assert old is None, error
        assert "no such directory" in str(error) or "an unfinished save" in str(error)
        version, current = None, set()
    assert version == new if finished else version in (old, new)
    return version, bool(directory.exists() and set(os.listdir(directory)) - current)


def clean_save(directory, version):
    save_version(directory, version)
    assert loaded_version(directory) == version
    assert set(os.listdir(directory)) == {"sparsejax.json", store.read_header(directory).payload.name}


def kill_often(saver, parent, trials):
    """Kills saves at moments spread over their measured duration; every fifth is a first save."""
    measured = parent / "measured"
    clean_save(measured, 1)
    duration = sorted(saver(measured, version)["seconds"] for version in (2, 3, 4))[1]
    assert loaded_version(measured) == 4
    moments = [(trial + random.Random(trial).random()) / trials * 1.1 for trial in range(trials)]
    random.Random(0).shuffle(moments)
    outcomes = []
    for trial, moment in enumerate(moments):
        directory, old = parent / "model", 10 * trial + 1
        if trial % 5 == 4:
            directory, old = parent / f"first_{trial}" / "model", None
        else:
            clean_save(directory, old)
        answer = saver(directory, 10 * trial + 2, delay=moment * duration)
        version, leftovers = after_a_kill(directory, old, 10 * trial + 2, answer["finished"])
        outcomes.append((answer["finished"], version == old, leftovers))
        clean_save(directory, 10 * trial + 3)
    return outcomes


def test_killed_saves_leave_the_old_or_the_new_version(saver, tmp_path):
    outcomes = kill_often(saver, tmp_path, trials=20)
    in_the_middle = sum(leftovers for finished, _, leftovers in outcomes if not finished)
    assert in_the_middle >= 8, outcomes
    assert sum(old for _, old, _ in outcomes) >= 8, outcomes


@pytest.mark.parametrize(
    ("event", "path", "survivor"),
    [("os.rename", "/sparsejax.json", 1), ("shutil.rmtree", "/arrays-", 2)],
    ids=["before the header is replaced", "before the old payload is removed"],
)
def test_killed_on_either_side_of_the_decisive_step(saver, tmp_path, event, path, survivor):
    directory = tmp_path / "model"
    clean_save(directory, 1)
    assert saver(directory, 2, event=event, path=path)["killed"]
    assert after_a_kill(directory, 1, 2, finished=False) == (survivor, True)
    clean_save(directory, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("old", "stride"), [(None, 3), (1, 1)], ids=["first save", "later save"])
def test_killed_before_each_file_operation(saver, tmp_path, old, stride):
    """Before every operation of a later save; a first save, which does the same and less, at every third."""
    survivors = []
    if old:
        save_version(tmp_path / "old", old)
    for count in range(1, 200, stride):
        directory = tmp_path / str(count)
        if old:
            shutil.copytree(tmp_path / "old", directory)
        answer = saver(directory, 2, event="any", count=count)
        survivors.append(after_a_kill(directory, old, 2, answer["finished"])[0])
        if answer["finished"] or len(survivors) % 4 == 0:
            clean_save(directory, 3)
        shutil.rmtree(directory, ignore_errors=True)
        if answer["finished"]:
            break
    assert answer["finished"] and count > 20
    # Orbax's threads make the number of operations vary a little between saves: near the replacement one
    # more operation may still find the old version. Every survivor was whole, the first old, the last new.
    assert survivors[0] == old and survivors[-1] == 2
    assert set(survivors) == {old, 2}


if __name__ == "__main__":
    serve_saves()
