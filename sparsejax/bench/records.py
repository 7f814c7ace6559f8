"""The rows that are recorded with the library: what README's tables and reports say without measuring."""

from __future__ import annotations

from pathlib import Path

from sparsejax.bench.report import Row, read_rows

BENCHES = {
    "ultra_sparse": "ultra_sparse.rows",
    "ultra_sparse_training": "ultra_sparse.training",
    "ten": "ten.rows",
    "sprout": "sprout.rows",
    "force_field": "force_field.rows",
    "sparse_inference": "sparse_inference.rows",
    "scaling": "scaling.rows",
}
"""The benchmarks that are recorded, in the order of reports, each with its module of `sparsejax.bench`."""

RESULTS = Path(__file__).resolve().parent / "results"


def recorded(name: str) -> list[Row]:
    """The recorded rows of one benchmark.

    Args:
      name: one of `BENCHES`.

    Raises:
      ValueError: nothing is recorded under this name.

    Example:
      >>> recorded("ultra_sparse")[0].unit
      'us'
    """
    path = RESULTS / f"{name}.json"
    if name not in BENCHES or not path.is_file():
        raise ValueError(f"no rows of {name} are recorded; measure them without --from-results")
    return read_rows(path)
