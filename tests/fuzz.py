"""Damages files of a kind at random and reads them, until the time is up: ``make fuzz``.

::

  python -m tests.fuzz --seconds 60                    a quarter of it for each kind
  python -m tests.fuzz --seconds 60 --kind hdf5
  python -m tests.fuzz --kind json --seed 3 --case 17  this case alone, with its traceback

Each kind is read by a child process, which says what it is about to do: a crash or a hang of the child is
one of the things that are looked for. Every damaged file must be read, or be refused by the library's own
error in one line, within a second.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("torch", "gguf", "hdf5", "json")
PATIENCE = 30.0
"""Seconds without a word after which a child hangs; a second of its own time can be many of the clock's."""
START = 120.0
"""Seconds that a child may take to write its whole files."""
LOOK = 0.1
"""Seconds between two looks at a child."""
MOST_FAILURES = 20
BEGINS = "begins"
REHEARSAL = "rehearsal"
"""A kind without files, whose cases crash and hang on purpose."""

Judge = Callable[[random.Random], str]


class Failure(NamedTuple):
    """What no file may cause.

    Attributes:
      case: its number; the child's ``--case``.
      text: what happened.
    """

    case: int
    text: str


class Outcome(NamedTuple):
    """What a run found.

    Attributes:
      counts: of files by what became of them: "read", or the name of the error.
      failures: wrong errors, more than a second, crashes and hangs.
    """

    counts: collections.Counter
    failures: list[Failure]


def judge_of(kind: str, folder: Path) -> Judge:
    """A function that damages a file of a kind, drawn with a generator, and names what reading it gave."""
    if kind == "torch":
        from tests.checkpoint.test_torch_file_fuzz import Files

        files = Files(folder)
        return lambda rng: files.judge(rng.randrange(len(files.paths)), rng)
    if kind == "gguf":
        from tests.checkpoint.gguf import fuzz, test_fuzz

        whole = fuzz.corpus()
        return lambda rng: test_fuzz.judge(folder / "x.gguf", fuzz.damaged(rng.choice(whole), rng))
    if kind == "hdf5":
        from tests.models.force_field.dataset_fuzz import DatasetCases

        return DatasetCases(folder).judge
    if kind == REHEARSAL:
        from tests.test_fuzz import rehearse

        return rehearse
    from tests.checkpoint.json_fuzz import JsonCases

    return JsonCases(folder).judge


def run(kind: str, *, seed: int, seconds: float = 1e9, cases: int = 1 << 60) -> Outcome:
    """Reads damaged files in a child process, and in another one after each that it does not survive.

    Args:
      kind: one of `KINDS`.
      seed: of the damage; a case is drawn from the seed and its number alone.
      seconds: after which no further file is read.
      cases: after which none is read.
    """
    counts: collections.Counter = collections.Counter()
    failures: list[Failure] = []
    first, left = 0, seconds
    while first < cases and left > 0 and len(failures) < MOST_FAILURES:
        lines, death, spent = _one_child(kind, seed, range(first, cases), left)
        left -= spent
        for number, text in lines:
            if text != BEGINS:
                counts[text.split(":")[0]] += 1
            first = number + 1
            if text.startswith("!"):
                failures.append(Failure(number, text))
        if death is None:
            break
        if not lines:
            raise RuntimeError(f"{kind}: no case was begun; {death}")
        counts["!crash"] += 1
        failures.append(Failure(max(first - 1, 0), death))
    return Outcome(counts, failures)


def _one_child(
    kind: str, seed: int, numbers: range, seconds: float
) -> tuple[list[tuple[int, str]], str | None, float]:
    """What a child said of each case, how it died if it did, and the seconds that it had for cases."""
    with tempfile.TemporaryDirectory() as folder:
        said, told = Path(folder) / "said", Path(folder) / "errors"
        command = [sys.executable, "-m", "tests.fuzz", "--kind", kind, "--seed", str(seed), "--child", folder]
        command += ["--first", str(numbers.start), "--cases", str(numbers.stop), "--seconds", str(seconds)]
        said.touch()
        with open(told, "wb") as errors, subprocess.Popen(command, cwd=ROOT, stderr=errors) as child:
            size, silent, begun, death = 0, 0, 0.0, None
            while child.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(LOOK)
                silent += 1  # looks, not the clock: a machine that sleeps is no hang
                if said.stat().st_size != size:
                    size, silent, begun = said.stat().st_size, 0, begun or time.monotonic()
                elif silent * LOOK > (PATIENCE if begun else START):
                    child.kill()
                    death = f"no word for {silent * LOOK:.0f} s: killed"
            spent = time.monotonic() - begun if begun else 0.0
        if child.returncode and death is None:
            lines = told.read_text(errors="replace").strip().splitlines() or [""]
            status = child.returncode
            name = signal.Signals(-status).name if status < 0 else f"status {status}"
            death = f"the process ended with {name}: {lines[-1 if status > 0 else 0]}"
        found = [line.split(maxsplit=1) for line in said.read_text().splitlines()]
        return [(int(number), text) for number, text in found], death, spent


def _as_child(kind: str, seed: int, numbers: range, seconds: float, folder: Path) -> None:
    faulthandler.enable()
    (folder / "cases").mkdir()
    judge = judge_of(kind, folder / "cases")
    with open(folder / "said", "w", buffering=1) as said:
        end = time.monotonic() + seconds
        for number in numbers:
            said.write(f"{number} {BEGINS}\n")
            try:
                outcome = judge(_generator(seed, number))
            except Exception as error:
                outcome = " ".join(f"!{type(error).__name__}: {error}".split())[:300]
            said.write(f"{number} {outcome}\n")
            if time.monotonic() > end:
                return


def _generator(seed: int, number: int) -> random.Random:
    return random.Random(f"{seed} {number}")


def main() -> int:
    """Runs what the command line says; 1 if there was a failure."""
    parser = argparse.ArgumentParser(description="Read damaged files until the time is up.")
    parser.add_argument("--kind", choices=(*KINDS, REHEARSAL), help="all if not given")
    parser.add_argument("--seconds", type=float, default=60.0, help="in all (default 60)")
    parser.add_argument("--seed", type=int, help="of the damage; another one each time if not given")
    parser.add_argument("--case", type=int, help="read this one only, in this process")
    parser.add_argument("--cases", type=int, default=1 << 60, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if given.seed is None else given.seed
    if given.child is not None:
        _as_child(given.kind, seed, range(given.first, given.cases), given.seconds, given.child)
        return 0
    if given.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(judge_of(given.kind, Path(folder))(_generator(seed, given.case)))
        return 0
    kinds = (given.kind,) if given.kind else KINDS
    failed = False
    for kind in kinds:
        found = run(kind, seed=seed, seconds=given.seconds / len(kinds), cases=given.cases)
        total = sum(found.counts.values())
        print(f"{kind}: seed {seed}, {total} files: {dict(found.counts.most_common())}", flush=True)
        for failure in found.failures:
            print(f"  FAILED --kind {kind} --seed {seed} --case {failure.case}: {failure.text}", flush=True)
        failed |= bool(found.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
