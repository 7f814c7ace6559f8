"""Trajectory files of ASE, written by a thread so that the loop on the device does not wait for the disk."""

from __future__ import annotations

import io
import logging
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparsejax.models.force_field.structure import Structure, as_atoms

_LOG = logging.getLogger("sparsejax.force_field")

SUFFIXES = (".traj", ".extxyz", ".xyz")

_WAITING = 8
"""Calls of the loop whose frames may wait for the disk; the next one waits for room."""


class Frame(NamedTuple):
    """What is written of one copy at one step.

    Attributes:
      step: of the run.
      time: fs.
      positions: (b, 3) A.
      velocities: (b, 3), ASE's unit.
      forces: (b, 3) eV/A.
      energy: eV.
      cell: (3, 3) A, or None.
      stress: (3, 3) eV/A^3, of the forces alone, or None.
    """

    step: int
    time: float
    positions: np.ndarray
    velocities: np.ndarray
    forces: np.ndarray
    energy: float
    cell: np.ndarray | None = None
    stress: np.ndarray | None = None


class TrajectoryWriter:
    """Appends frames to one file per copy; a kill leaves all frames that were written before it readable.

    Frames are handed to a thread through a queue of bounded length. What goes wrong in the thread is raised
    by the next call of `write`, `flush` or `close`.

    Args:
      path: ends in .traj, .extxyz or .xyz (extended, too); of several copies each has a file of its own, as
        in ``run_003.extxyz``.
      structure: species and periodic directions of a copy.
      masses: (b,) amu.
      copies: how many.
      keep_until: step; frames up to it that the files hold stay, later ones are dropped. None starts anew.

    Raises:
      ValueError: another suffix.
      OSError: the disk refuses.

    Example:
      >>> import tempfile
      >>> atoms = Structure(np.array([8]), np.zeros((1, 3)), None, np.zeros(3, bool))
      >>> path = Path(tempfile.mkdtemp()) / "atom.extxyz"
      >>> with TrajectoryWriter(path, atoms, np.array([16.0])) as writer:
      ...     writer.write([[Frame(0, 0.0, np.zeros((1, 3)), np.zeros((1, 3)), np.zeros((1, 3)), -1.5)]])
      >>> [int(frame.info["step"]) for frame in read_frames(path)]
      [0]
    """

    def __init__(
        self,
        path: Path | str,
        structure: Structure,
        masses: np.ndarray,
        *,
        copies: int = 1,
        keep_until: int | None = None,
    ):
        self.paths = copy_paths(Path(path), copies)
        self._structure, self._masses = structure, masses
        for file in self.paths:
            _start_file(file, keep_until)
        self._files = [_opened(file) for file in self.paths]
        self._error: BaseException | None = None
        self._queue: queue.Queue[Sequence[Sequence[Frame]] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="trajectory", daemon=True)
        self._thread.start()

    def write(self, frames: Sequence[Sequence[Frame]]) -> None:
        """Hand on frames, a list per copy; waits only while the queue is full."""
        self._raise()
        self._queue.put(frames)

    def flush(self) -> None:
        """Wait until everything that was handed on is in the files."""
        self._queue.join()
        self._raise()

    def close(self) -> None:
        """Write the rest and close the files."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        for file in self._files:
            file.close()
        self._raise()

    def __enter__(self) -> TrajectoryWriter:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except Exception as second:
            error.add_note(f"closing {self.paths[0]}: {second}")

    def _work(self) -> None:
        while (frames := self._queue.get()) is not None:
            try:
                if self._error is None:
                    self._append(frames)
            except Exception as error:
                self._error = error
            finally:
                self._queue.task_done()
        self._queue.task_done()

    def _append(self, frames: Sequence[Sequence[Frame]]) -> None:
        for file, of_copy in zip(self._files, frames, strict=True):
            for frame in of_copy:
                file.append(atoms_of(frame, self._structure, self._masses))

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise OSError(f"{self.paths[0]}: cannot be written: {error}") from error


def copy_paths(path: Path, copies: int) -> list[Path]:
    """The file of each copy.

    Raises:
      ValueError: the suffix is none of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{path}: trajectories are written to {', '.join(SUFFIXES)} files; change its suffix"
        )
    if copies == 1:
        return [path]
    return [path.with_name(f"{path.stem}_{number:03d}{path.suffix}") for number in range(copies)]


def atoms_of(frame: Frame, structure: Structure, masses: np.ndarray) -> Any:
    """A frame as `ase.Atoms` with its energy, forces and, if there is one, stress."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.stress import full_3x3_to_voigt_6_stress

    cell = structure.cell if frame.cell is None else frame.cell
    atoms = as_atoms(structure._replace(positions=np.asarray(frame.positions, np.float64), cell=cell))
    atoms.set_masses(masses)
    atoms.set_velocities(np.asarray(frame.velocities, np.float64))
    atoms.info.update(step=int(frame.step), time_fs=float(frame.time))
    results: dict[str, Any] = {"energy": float(frame.energy), "forces": np.asarray(frame.forces, np.float64)}
    if frame.stress is not None:
        results["stress"] = full_3x3_to_voigt_6_stress(np.asarray(frame.stress, np.float64))
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def read_frames(path: Path) -> Iterator[Any]:
    """The frames of a file, `ase.Atoms` each, one at a time."""
    from ase.io import iread

    return iread(path, index=":", format=_format(path))


class _Appended:
    """A text file to which frames are added whole: each is formatted first and then written and flushed."""

    def __init__(self, path: Path):
        self._file = path.open("ab")

    def append(self, atoms: Any) -> None:
        from ase.io.extxyz import write_extxyz

        text = io.StringIO()
        write_extxyz(text, [atoms])
        self._file.write(text.getvalue().encode())
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _AppendedBinary:
    """A file of ASE's own format, which counts a frame only when all of it is there."""

    def __init__(self, path: Path):
        from ase.io.trajectory import TrajectoryWriter as Writer

        self._file = Writer(path, "a")
        self._is_broken = False

    def append(self, atoms: Any) -> None:
        try:
            self._file.write(atoms)
        except BaseException:
            self._is_broken = True
            raise

    def close(self) -> None:
        if not self._is_broken:
            self._file.close()
            return
        with suppress(OSError):  # ASE would write the rest of the broken frame first
            self._file.backend.fd.close()


def _opened(path: Path) -> _Appended | _AppendedBinary:
    return _AppendedBinary(path) if _format(path) == "traj" else _Appended(path)


def _format(path: Path) -> str:
    return "traj" if path.suffix.lower() == ".traj" else "extxyz"


def _start_file(path: Path, keep_until: int | None) -> None:
    """An empty file, or the one that is there without the frames after a step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part{path.suffix}")
    part.unlink(missing_ok=True)
    part.touch()
    if keep_until is not None and path.exists() and path.stat().st_size:
        file = _opened(part)
        for atoms in _whole_frames(path):
            if int(atoms.info.get("step", 0)) <= keep_until:
                file.append(atoms)
        file.close()
    os.replace(part, path)


def _whole_frames(path: Path) -> Iterator[Any]:
    """The frames before one that a full disk or the loss of power cut short."""
    frames = read_frames(path)
    while True:
        try:
            atoms = next(frames)
        except StopIteration:
            return
        except Exception as error:  # whatever the parser stumbles over
            _LOG.warning("%s: ends in a frame that is not whole (%s); it is dropped", path, error)
            return
        yield atoms


def frames_of(records: Mapping[str, np.ndarray], time_per_step: float) -> list[list[Frame]]:
    """The frames of a call of the loop, a list per copy.

    Args:
      records: of `observers.FRAME` beside step, potential and volume; (r, ...) each.
      time_per_step: fs.
    """
    cells, virials = records.get("frame_cell"), records.get("frame_virial")
    frames: list[list[Frame]] = []
    for copy in range(records["potential"].shape[1]):
        of_copy = []
        for row, step in enumerate(records["step"]):
            stress = None if virials is None else virials[row] / records["volume"][row]
            of_copy.append(
                Frame(
                    step=int(step),
                    time=float(step) * time_per_step,
                    positions=records["frame_positions"][row, copy],
                    velocities=records["frame_velocities"][row, copy],
                    forces=records["frame_forces"][row, copy],
                    energy=float(records["potential"][row, copy]),
                    cell=None if cells is None else cells[row],
                    stress=stress,
                )
            )
        frames.append(of_copy)
    return frames
