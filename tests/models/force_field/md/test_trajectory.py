"""Trajectory files: what is in them, who writes them, what a kill leaves."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from sparsejax.models.force_field import md
from sparsejax.models.force_field.md.trajectory import Frame, TrajectoryWriter, read_frames
from sparsejax.models.force_field.structure import Structure
from tests.models.force_field.md import morse
from tests.models.force_field.md.systems import crystal

ATOMS = Structure(np.array([8, 1]), np.zeros((2, 3)), None, np.zeros(3, bool))
MASSES = np.array([16.0, 1.0])


def _frame(step: int) -> Frame:
    places = np.array([[0.0, 0, step], [0, 0, step + 1]])
    return Frame(step, step * 0.5, places, 0.1 * places, 2 * places, -1.0 - step)


@pytest.mark.parametrize("suffix", [".traj", ".extxyz"])
def test_frames_hold_what_was_recorded(suffix, tmp_path):
    path = tmp_path / f"run{suffix}"
    run = md.nvt(morse.morse(), crystal(), steps=6, every=3, trajectory=path)
    frames = list(read_frames(path))
    assert [atoms.info["step"] for atoms in frames] == run.step.tolist() == [0, 3, 6]
    assert [atoms.info["time_fs"] for atoms in frames] == run.time.tolist() == [0.0, 1.5, 3.0]
    assert run.observed == {}
    for row, atoms in enumerate(frames):
        assert atoms.get_potential_energy() == pytest.approx(run.potential[row], rel=1e-7)
        assert atoms.get_kinetic_energy() == pytest.approx(run.kinetic[row], rel=1e-5)
    np.testing.assert_allclose(frames[0].positions, crystal().positions, atol=1e-7)
    np.testing.assert_allclose(frames[-1].positions, run.atoms.positions, atol=1e-7)
    np.testing.assert_allclose(frames[-1].get_forces(), run.atoms.get_forces(), atol=1e-6)
    np.testing.assert_allclose(frames[-1].get_stress(), run.atoms.get_stress(), atol=1e-7)
    np.testing.assert_allclose(frames[-1].cell, crystal().cell, atol=1e-7)
    assert frames[-1].pbc.all()


def test_each_replica_has_a_file(tmp_path):
    with TrajectoryWriter(tmp_path / "run.extxyz", ATOMS, MASSES, copies=2) as writer:
        writer.write([[_frame(0)], [_frame(1), _frame(2)]])
    frames = [list(read_frames(tmp_path / f"run_00{number}.extxyz")) for number in (0, 1)]
    assert [[atoms.info["step"] for atoms in part] for part in frames] == [[0], [1, 2]]


def test_writing_does_not_hold_the_caller_up_but_the_queue_is_bounded(tmp_path, monkeypatch):
    gate = threading.Event()
    writer = TrajectoryWriter(tmp_path / "run.extxyz", ATOMS, MASSES)
    write = writer._append
    monkeypatch.setattr(writer, "_append", lambda frames: (gate.wait(10), write(frames)))
    for step in range(8):
        writer.write([[_frame(step)]])  # the thread has not written one of them
    late = threading.Thread(target=lambda: [writer.write([[_frame(step)]]) for step in (8, 9)])
    late.start()
    late.join(0.2)
    assert late.is_alive()
    gate.set()
    late.join(10)
    writer.close()
    assert [atoms.info["step"] for atoms in read_frames(tmp_path / "run.extxyz")] == list(range(10))


def test_errors_of_the_thread_reach_the_caller(tmp_path, monkeypatch):
    writer = TrajectoryWriter(tmp_path / "run.extxyz", ATOMS, MASSES)

    def full(frames):
        raise OSError("No space left on device")

    monkeypatch.setattr(writer, "_append", full)
    writer.write([[_frame(0)]])
    with pytest.raises(OSError, match=r"run.extxyz: cannot be written: No space left"):
        writer.flush()
    writer.close()


def test_a_kill_leaves_readable_files(tmp_path):
    paths = [tmp_path / "run.traj", tmp_path / "run.extxyz"]
    program = f"""
import os, numpy as np
from sparsejax.models.force_field.md.trajectory import Frame, TrajectoryWriter
from sparsejax.models.force_field.structure import Structure
atoms = Structure(np.array([8]), np.zeros((1, 3)), None, np.zeros(3, bool))
zero = np.zeros((1, 3))
writers = [TrajectoryWriter(path, atoms, np.ones(1)) for path in {[str(path) for path in paths]}]
for writer in writers:
    writer.write([[Frame(step, 0.0, zero, zero, zero, 0.0) for step in range(20)]])
    writer.flush()
for writer in writers:
    writer.write([[Frame(step, 0.0, zero, zero, zero, 0.0) for step in range(20, 100_000)]])
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == -9
    atom = Structure(np.array([8]), *ATOMS[1:])
    for path in paths:
        steps = [atoms.info["step"] for atoms in read_frames(path)]
        assert 20 <= len(steps) < 100_000 and steps == list(range(len(steps)))
        with TrajectoryWriter(path, atom, np.ones(1), keep_until=9) as writer:
            writer.write([[Frame(10, 0.0, *np.zeros((3, 1, 3)), 0.0)]])
        assert [atoms.info["step"] for atoms in read_frames(path)] == list(range(11))


def test_a_frame_cut_short_is_dropped_when_the_run_goes_on(tmp_path, caplog):
    path = tmp_path / "run.extxyz"
    with TrajectoryWriter(path, ATOMS, MASSES) as writer:
        writer.write([[_frame(0), _frame(1)]])
    path.write_bytes(path.read_bytes()[:-30])
    with TrajectoryWriter(path, ATOMS, MASSES, keep_until=5) as writer:
        writer.write([[_frame(1)]])
    assert [atoms.info["step"] for atoms in read_frames(path)] == [0, 1]
    assert "not whole" in caplog.text


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"run.xtc: trajectories are written to .traj, .extxyz, .xyz files"):
        TrajectoryWriter(tmp_path / "run.xtc", ATOMS, MASSES)
