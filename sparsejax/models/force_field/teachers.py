"""Teachers: calculators of ASE that label structures with energies and forces, in parallel processes."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import numpy as np

from sparsejax.models.force_field.structure import Structure, as_atoms

Teacher = Callable[[], Any]
"""Makes a calculator of ASE; a function of a module, so that other processes find it."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_DIED = "the process that computed it died"


class Label(NamedTuple):
    """What a teacher says of a structure.

    Attributes:
      energy: eV.
      forces: (n, 3) float64, eV/A.
      stress: (6,) float64, eV/A^3, order xx, yy, zz, yz, xz, xy; None where not all directions repeat or the
        teacher has none.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None


class Failure(NamedTuple):
    """Why there is no label.

    Attributes:
      reason: in one line.
    """

    reason: str


Outcome = Label | Failure


def gfn2() -> Any:
    """GFN2-xTB, a semi-empirical method for molecules of all elements up to radon.

    Raises:
      ModuleNotFoundError: tblite, the extra ``distill``, is missing.

    Source: Bannwarth, Ehlert and Grimme, J. Chem. Theory Comput. 15, 1652 (2019), by the library tblite.
    """
    return _tblite("GFN2-xTB")


def gfn1() -> Any:
    """GFN1-xTB, its predecessor.

    Raises:
      ModuleNotFoundError: tblite, the extra ``distill``, is missing.
    """
    return _tblite("GFN1-xTB")


TEACHERS: dict[str, Teacher] = {"gfn2": gfn2, "gfn1": gfn1}
"""Teachers by name."""


def named_teacher(name: str) -> Teacher:
    """A teacher by its name, or any factory of calculators by where it is.

    Args:
      name: of `TEACHERS`, or ``package.module:function``, such as ``ase.calculators.emt:EMT``.

    Raises:
      ValueError: there is no such teacher.
      ModuleNotFoundError: the package is not installed.

    Example:
      >>> named_teacher("gfn2").__name__
      'gfn2'
    """
    if name in TEACHERS:
        return TEACHERS[name]
    module, colon, function = name.partition(":")
    if not colon:
        known = ", ".join(TEACHERS)
        raise ValueError(
            f"no teacher is called {name!r}; there are {known}, and package.module:function, "
            "such as ase.calculators.emt:EMT"
        )
    found = getattr(importlib.import_module(module), function, None)
    if not callable(found):
        raise ValueError(f"no teacher {name!r}: {module} has no function {function!r}")
    return found


def label_one(structure: Any, calculator: Any) -> Outcome:
    """Ask a calculator for the energy, the forces and, of a crystal, the stress.

    Args:
      structure: ase.Atoms, with charges and magnetic moments if they matter, or
        `sparsejax.models.force_field.structure.Structure`.
      calculator: of ASE; what it knows of other structures is dropped first, so that labels do not depend on
        their order.

    Returns:
      `Label`, or `Failure` if the calculator raises or gives numbers that are not finite.

    Example:
      >>> from ase.build import molecule
      >>> from ase.calculators.emt import EMT
      >>> label = label_one(molecule("N2"), EMT())
      >>> label.forces.shape, label.stress is None
      ((2, 3), True)
    """
    try:
        calculator.reset()
        atoms = as_atoms(structure) if isinstance(structure, Structure) else structure.copy()
        atoms.calc = calculator
        energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces(), np.float64)
        whole = atoms.pbc.all() and "stress" in calculator.implemented_properties
        stress = np.array(atoms.get_stress(), np.float64) if whole else None
    except Exception as error:  # whatever a calculator raises is its answer
        return Failure(f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}")
    if not (
        np.isfinite(energy) and np.isfinite(forces).all() and (stress is None or np.isfinite(stress).all())
    ):
        return Failure("the teacher gave numbers that are not finite")
    return Label(energy, forces, stress)


def labelled_chunks(
    chunks: Iterable[tuple[int, Sequence[Any]]], teacher: Teacher, *, processes: int | None = None
) -> Iterator[tuple[int, list[Outcome]]]:
    """Label chunks of structures in processes of their own, each with one calculator and one thread.

    The processes are started afresh (spawn). A process that dies takes no other structure along: those that
    it may have worked on are tried again one by one, and the one that kills its process a second time fails.

    Args:
      chunks: structures by the number of the chunk.
      teacher: see `Teacher`.
      processes: how many at a time; as many as this process may use processors if not given.

    Returns:
      iterator over the number of a chunk and an outcome per structure, in the order in which they get done.

    Raises:
      ValueError: fewer than 1 process.
      ModuleNotFoundError: the teacher's package is missing.
    """
    processes = len(os.sched_getaffinity(0)) if processes is None else processes
    if processes < 1:
        raise ValueError(f"labelling takes at least 1 process, not {processes}")
    waiting = deque(chunks)
    if waiting:
        teacher()  # what it misses is told here, once, and not by every structure
    while waiting:
        for number, structures in (yield from _in_parallel(waiting, teacher, processes)):
            yield number, list(_one_by_one(structures, teacher))


def _in_parallel(
    waiting: deque[tuple[int, Sequence[Any]]], teacher: Teacher, processes: int
) -> Generator[tuple[int, list[Outcome]], None, list[tuple[int, Sequence[Any]]]]:
    """Label until nothing waits or a process dies; returns the chunks that were being worked on then."""
    working: dict[Future, tuple[int, Sequence[Any]]] = {}
    with _pool(teacher, processes) as pool:
        try:
            while waiting or working:
                # One more than there are processes, so that none has to wait for the next.
                while waiting and len(working) <= processes:
                    working[pool.submit(_label_chunk, waiting[0][1])] = waiting[0]
                    waiting.popleft()
                for done in wait(working, return_when=FIRST_COMPLETED).done:
                    outcomes = done.result()
                    yield working.pop(done)[0], outcomes
        except BrokenProcessPool:
            return list(working.values())
    return []


def _one_by_one(structures: Sequence[Any], teacher: Teacher) -> Iterator[Outcome]:
    left = deque(structures)
    while left:
        with _pool(teacher, 1) as pool:
            try:
                while left:
                    (outcome,) = pool.submit(_label_chunk, [left[0]]).result()
                    left.popleft()
                    yield outcome
            except BrokenProcessPool:
                left.popleft()
                yield Failure(_DIED)


def _pool(teacher: Teacher, processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, (teacher,))


# In the processes

_own: dict[str, Any] = {}  # the teacher and the calculator of this process


def _begin(teacher: Teacher) -> None:
    # Before the teacher's libraries are loaded, which read it then.
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    _own["teacher"] = teacher


def _label_chunk(structures: Sequence[Any]) -> list[Outcome]:
    if "calculator" not in _own:
        _own["calculator"] = _own["teacher"]()
    return [label_one(structure, _own["calculator"]) for structure in structures]


def _tblite(method: str) -> Any:
    from tblite.ase import TBLite

    # Without the cache every structure starts from the same guess.
    return TBLite(method=method, verbosity=0, cache_api=False)
