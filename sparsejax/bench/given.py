"""Checkpoints that a benchmark is given, looked at before anything is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsejax.checkpoint import npz_file, store
from sparsejax.checkpoint.errors import UnknownFormatError, file_name
from sparsejax.checkpoint.inspection import inspect
from sparsejax.checkpoint.readable import check_readable, located
from sparsejax.shipped import HELD_OUT, PREDICTORS, shipped_files


@dataclass(frozen=True)
class Need:
    """What a benchmark asks of a checkpoint.

    Attributes:
      kind: family.
      words: the networks that it can measure, for the error.
      fits: whether it can measure one of such a config.
      texts: arrays in the file of held-out text beside it; empty where none is needed.
      predictors: whether a folder of them must be beside it.
    """

    kind: str
    words: str = ""
    fits: Callable[[Any], bool] = field(default=lambda config: True)
    texts: tuple[str, ...] = ()
    predictors: bool = False


def check_checkpoints(name: str, checkpoints: Sequence[Path]) -> None:
    """Refuse checkpoints that a benchmark could not measure, told from their headers.

    Args:
      name: of the benchmark.
      checkpoints: given to it.

    Raises:
      ValueError: the benchmark takes none, or its text has no such array; one line.
      CheckpointError: a file cannot be read, or holds something else than the benchmark measures.

    Example:
      >>> check_checkpoints("ten", [Path("net.pt")])
      Traceback (most recent call last):
      ValueError: bench ten measures networks of its own; leave out --checkpoint
    """
    if not checkpoints:
        return
    if name not in _NEEDS:
        raise ValueError(f"bench {name} measures networks of its own; leave out --checkpoint")
    for path in map(Path, checkpoints):
        _check(path, name, _NEEDS[name])


def networks_with_text(pattern: str, checkpoint: str | None) -> list[Path]:
    """Trained networks with held-out text beside them: the given one, or those that are shipped.

    Args:
      pattern: names of the shipped files.
      checkpoint: that a benchmark was given, if it was.

    Example:
      >>> [path.name for path in networks_with_text("sprout*.pt", None)]
      ['sprout_words.pt']
    """
    if checkpoint is not None:
        return [Path(checkpoint)]
    shipped = [file.path for file in shipped_files(pattern) if file.path is not None]
    return [path for path in shipped if path.with_suffix(HELD_OUT).exists()]


def _check(path: Path, name: str, need: Need) -> None:
    report = inspect(path)
    if report.problem is not None:
        raise report.problem
    if report.kind != need.kind or not need.fits(report.config):
        found = f"{report.kind}/{report.variant}"
        raise UnknownFormatError(
            f"{file_name(path)}: holds {found}; bench {name} measures {need.words or need.kind}"
        )
    if need.texts:
        _check_text(path.with_suffix(HELD_OUT), need.texts)
    if need.predictors:
        store.read_header(path.with_suffix(PREDICTORS))


def _check_text(path: Path, names: Sequence[str]) -> None:
    check_readable(path)
    with located(path):
        arrays = npz_file.read_headers(path)
    for name in names:
        if name not in arrays:
            raise ValueError(f"{path}: has no array {name!r}; held-out text has {' and '.join(names)}")


def _is_published(config: Any) -> bool:
    """A sparse layer below a dense one."""
    return [layer.kind for layer in config.layers] == ["sparse", "dense"]


def _is_published_size(config: Any) -> bool:
    return _is_published(config) and (config.input_size, config.layers[-1].features) == (256, 1)


def _is_llama(config: Any) -> bool:
    from sparsejax.models.sparse_inference.llama.config import LlamaConfig

    return isinstance(config, LlamaConfig)


_NEEDS: Mapping[str, Need] = {
    "ultra_sparse": Need(
        "ultra_sparse", "a sparse layer of 256 inputs below one dense output", _is_published_size
    ),
    "ultra_sparse_training": Need("ultra_sparse", "a sparse layer below a dense one", _is_published),
    "sprout": Need("sprout", texts=("read", "labels")),
    "force_field": Need("force_field"),
    "force_field_sizes": Need("force_field"),
    "sparse_inference": Need("sparse_inference", "a Llama", _is_llama, texts=("tokens",), predictors=True),
}
"""Of the benchmarks that take checkpoints."""
