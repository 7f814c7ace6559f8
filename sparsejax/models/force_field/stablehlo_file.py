"""A force field as one file that runs with JAX alone, on any platform and any number of atoms."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax import export

from sparsejax.checkpoint.export_file import checked_target, write_export
from sparsejax.models.force_field.edge_program import (
    checked_force_field,
    description,
    edge_program,
    symbolic_inputs,
)

PLATFORMS = ("cpu", "cuda", "tpu")

PROGRAM = "program.stablehlo"
"""Entry of the zip archive that `jax.export.deserialize` reads."""

METADATA = "metadata.json"
"""Entry that says what the program takes and gives, in which units."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # no time is written: equal force fields give equal bytes


def export_stablehlo(
    force_field: Any,
    path: str | os.PathLike[str],
    platforms: Sequence[str] = PLATFORMS,
    *,
    stress: bool = True,
) -> Path:
    """Write a force field, weights included, as a StableHLO program of flat lists of atoms and edges.

    The file is a zip archive, stored without compression, of `PROGRAM` and `METADATA`. Whoever reads it
    needs JAX with its serialiser flatbuffers, and a list of neighbours; not this library::

        import json, zipfile
        import numpy as np
        from ase.io import read
        from ase.neighborlist import neighbor_list
        from jax import export

        with zipfile.ZipFile("student.zip") as archive:
            program = export.deserialize(bytearray(archive.read("program.stablehlo")))
            about = json.loads(archive.read("metadata.json"))

        atoms = read("crystal.xyz")
        receivers, senders, shifts = neighbor_list("ijS", atoms, about["cutoff"] + 1e-6)
        arrays = atoms.numbers, atoms.positions, senders, receivers, shifts, atoms.cell.array
        dtypes = "int32", about["dtype"], "int32", "int32", "int32", about["dtype"]
        found = program.call(*map(np.asarray, arrays, dtypes))
        found["energy"], found["forces"], found["stress"]

    The numbers of atoms and edges are free, but at least 1, and ``jax.jit(program.call)`` compiles once for
    each two of them. Pad to few: with atoms of species 0, and with edges from an atom to itself without a
    shift. Several structures fit into one call where no edge joins them: sum ``atomic_energies`` of each.
    Filters are computed exactly, never from a table. JAX promises to read a program for six months; write
    it anew with a newer version.

    Args:
      force_field: a `ForceField`, or a checkpoint of one.
      path: the file, replaced in one step.
      platforms: "cpu", "cuda", "rocm", "tpu": those that it shall run on.
      stress: whether it is computed; NaN then for atoms without a cell.

    Returns:
      the path.

    Raises:
      ValueError: no force field, a platform that JAX does not know, no flatbuffers, or a file that cannot
        be written.

    Example:
      >>> export_stablehlo({"weights": 1}, "student.zip")
      Traceback (most recent call last):
      ValueError: a dict is no force field; give a ForceField or a checkpoint of one
    """
    config, params = checked_force_field(force_field)
    path, platforms = checked_target(path), tuple(platforms)
    if unknown := [name for name in platforms if name not in (*PLATFORMS, "rocm")] or not platforms:
        raise ValueError(f"platforms must be some of 'cpu', 'cuda', 'rocm' and 'tpu', not {unknown or ()}")
    if importlib.util.find_spec("flatbuffers") is None:
        raise ValueError('a StableHLO export needs flatbuffers: pip install "sparsejax[export]"')
    dtype = params["embedding"]["embedding"].dtype
    program = jax.jit(edge_program(config, params, stress=stress))
    with _no_places():
        exported = export.export(program, platforms=platforms)(*symbolic_inputs(dtype))
    about = {
        "format": "sparsejax force field, StableHLO",
        "format_version": 1,
        **description(config, dtype, stress=stress),
        "made_with": f"jax {jax.__version__}",
        "platforms": list(platforms),
        "calling_convention_version": exported.calling_convention_version,
    }
    return write_export(_archive(bytes(exported.serialize()), about), path)


@contextmanager
def _no_places() -> Iterator[None]:
    """Keep the paths of source files on this machine out of the program."""
    config: Any = jax.config
    before = config.jax_traceback_in_locations_limit
    config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        config.update("jax_traceback_in_locations_limit", before)


def _archive(program: bytes, about: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo(PROGRAM, _EPOCH), program)
        archive.writestr(zipfile.ZipInfo(METADATA, _EPOCH), json.dumps(about, indent=2) + "\n")
    return stream.getvalue()
