"""A full disk, a folder without permission or a kill leaves what was there whole, and ends in one clear line.

Run as a script, this file is the child of its own tests that forks writers and lets the system kill them.
"""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

for needed in ("ase", "h5py", "matplotlib"):
    pytest.importorskip(needed)

from tests.checkpoint.test_store_crashes import kill_before  # noqa: E402
from tests.disk_faults import full_disk, read_only  # noqa: E402
from tests.writers import APPENDING, DIRECTORIES, WHOLE  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
REPLACING = WHOLE | DIRECTORIES
EVERY = REPLACING | APPENDING


@pytest.fixture
def folder():
    """One that everybody may enter, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="faults-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def checked_line(caught: pytest.ExceptionInfo, path: Path) -> None:
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600, text
    assert path.name in text, text


@pytest.mark.parametrize("name", REPLACING)
def test_a_full_disk_leaves_the_old_file(name, folder):
    writer = REPLACING[name]
    path = folder / writer.name
    writer.write(path, 1)
    before = content(folder)
    for room in (0, 1500):
        with full_disk(room), pytest.raises(writer.error) as caught:
            writer.write(path, 2)
        checked_line(caught, path)
        assert "too large" in str(caught.value), str(caught.value)
        assert content(folder) == before
    writer.write(path, 2)
    assert content(folder) != before


@pytest.mark.parametrize("name", EVERY)
def test_a_folder_without_permission_keeps_what_it_has(name, folder):
    writer = EVERY[name]
    inner = folder / "inner"
    inner.mkdir()
    path = inner / writer.name
    writer.write(path, 1)
    before = content(inner)
    with read_only(inner), pytest.raises(writer.error) as caught:
        writer.write(path, 2)
    checked_line(caught, path)
    assert "ermission denied" in str(caught.value)
    assert content(inner) == before


@pytest.mark.parametrize("name", APPENDING)
def test_a_full_disk_leaves_what_was_appended_before(name, folder):
    writer = APPENDING[name]
    path = folder / writer.name
    writer.write(path, 1)
    before = content(folder)[str(path)]
    with full_disk(len(before) + 30), pytest.raises(writer.error) as caught:
        writer.write(path, 2)
    checked_line(caught, path)
    assert content(folder)[str(path)].startswith(before) or name == "trajectory"
    assert list(folder.iterdir()) == [path]
    writer.write(path, 2)  # goes on after the last whole one
    whole = content(folder)[str(path)]
    again = folder / f"again{path.suffix}"
    for version in (1, 2):
        writer.write(again, version)
    assert whole == again.read_bytes()


@pytest.fixture(scope="module")
def killed():
    """What the child process saw of each writer."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.test_writer_faults"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", WHOLE)
def test_a_kill_leaves_the_old_file_or_the_new_one(name, killed):
    seen = killed[name]
    assert set(seen["in the middle"]) == {"old"} and len(seen["in the middle"]) == 3
    before = seen["before a step"]
    assert before[0] == "old" and before[-1] == "finished"
    assert set(before[:-1]) <= {"old", "new"} and len(before) >= 3


def see_kills() -> None:
    """Each writer in forks of this process: killed by the system in the middle, and before each file step."""
    found = {}
    with tempfile.TemporaryDirectory() as made:
        for name, writer in WHOLE.items():
            old, new = (Path(made) / f"{name} {version}" for version in ("old", "new"))
            for place, versions in ((old, (1,)), (new, (1, 2))):
                place.mkdir()
                for version in versions:
                    writer.write(place / writer.name, version)
            size = (new / writer.name).stat().st_size
            middle = [_fork(writer, old, room=size * share // 4) for share in (0, 1, 3)]
            steps: list[str] = []
            while not steps or steps[-1] != "finished":
                steps.append(_fork(writer, old, count=len(steps) + 1))
            found[name] = {"in the middle": middle, "before a step": steps}
    print(json.dumps(found))


def _fork(writer, old: Path, *, room: int | None = None, count: int | None = None) -> str:
    """What is there after a writer was killed over a copy of the old file."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / writer.name
        shutil.copyfile(old / writer.name, path)
        process = os.fork()
        if not process:
            if count is not None:
                kill_before("any", made, count)
            else:
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            writer.write(path, 2)
            os._exit(0)
        status = os.waitpid(process, 0)[1]
        if status == 0:
            return "finished"
        if not os.WIFSIGNALED(status):
            return f"failed with {status}"
        return "old" if path.read_bytes() == (old / writer.name).read_bytes() else "new"


MAY_WRITE = re.compile(r"open\(|File\(|write_text|write_bytes|savez|savefig|tofile|dump\(|copyfile")
WRITING = {"write_text", "write_bytes", "savez", "savez_compressed", "savefig", "tofile", "dump", "copyfile"}
KNOWN = {
    # replaced in one step, by these
    "checkpoint/native/durable.py": 2,
    "models/force_field/dataset_writer.py": 2,
    # into a stream or a picture in memory that one of those writes
    "checkpoint/npz_file.py": 1,
    "models/force_field/labels.py": 1,
    "plots/style.py": 1,
    "demo.py": 1,
    # no file of ours: a counter of the system
    "bench/ten/memory.py": 1,
    # appended to
    "models/force_field/md/trajectory.py": 1,
    "training/appended_file.py": 1,
}


def test_every_place_that_writes_is_known():
    """A new writer is added to `tests.writers`, or goes through one that is there."""
    found = {}
    for path in sorted((ROOT / "sparsejax").rglob("*.py")):
        text = path.read_text()
        if MAY_WRITE.search(text) and (count := sum(map(_writes, ast.walk(ast.parse(text))))):
            found[path.relative_to(ROOT / "sparsejax").as_posix()] = count
    made_here = {
        name for name in found if re.match(r"training/recipes/\w+/checkpoints\.py", name)
    }  # shipped files
    assert {name: count for name, count in found.items() if name not in made_here} == KNOWN


def _writes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if name in ("open", "File") or getattr(node.func, "id", "") == "open":
        given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        modes = [argument.value for argument in given if isinstance(argument, ast.Constant)]
        return any(isinstance(mode, str) and mode[:1] in "wxa" and len(mode) < 4 for mode in modes)
    return name in WRITING


if __name__ == "__main__":
    see_kills()
