"""Commands on files of any family."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from sparsejax.cli.arguments import File, UserError, overrides_of
from sparsejax.training.override import Override

Src = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
Dst = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
_WRITTEN = (".pt", ".pth", ".npz", ".gguf", ".json")
_OF_SOME = (".gguf", ".json")  # families that have such files
_NOT_WRITTEN = (".bin", ".ckpt", ".onnx", ".safetensors", ".h5")


def inspect(path: File) -> None:
    """Show what a checkpoint file or directory holds, without reading its data or running anything in it.

    Args:
      path: .pt, .pth, .npz, .gguf, .json, .onnx (its weights) or a sparsejax directory.
    """
    from sparsejax.checkpoint.inspection import inspect as look
    from sparsejax.console import show_report

    report = look(path)
    show_report(report)
    if report.problem is not None:
        raise report.problem


def convert(
    src: Src, dst: Dst, kind: str | None = None, variant: str | None = None, override: Override = ()
) -> None:
    """Convert a checkpoint: to a sparsejax directory, or back to its own kind of file by the suffix of DST.

    Args:
      src: file or directory to read.
      dst: directory, or file ending in .pt, .pth or .npz, or, of sparse inference, in .gguf or .json.
      kind: family to take instead of the detected one.
      variant: layout to read src in, or, for a dst that is a file, to write.
      override: config values, NAME=VALUE.
    """
    from sparsejax.checkpoint.load import load
    from sparsejax.checkpoint.registry import find
    from sparsejax.checkpoint.save import export_pt, save

    suffix = dst.suffix.lower()
    to_file = suffix in _WRITTEN
    refused = UserError(f"{dst}: cannot be written; give a name ending in .pt or .npz, or a directory")
    if suffix in _NOT_WRITTEN:
        raise refused
    ck = load(src, kind=kind, variant=None if to_file else variant, overrides=overrides_of(override))
    if suffix in _OF_SOME and suffix[1:] not in find(ck.kind).file_formats.values():
        raise refused
    if to_file:
        export_pt(ck, dst, variant=variant)
    else:
        save(ck, dst)
    print(f"{src} ({ck.kind}/{ck.variant}, {ck.num_values} values) -> {dst}")


def verify(
    file: File,
    *,
    reference: Path | None = None,
    tolerance: float | None = None,
    kind: str | None = None,
    variant: str | None = None,
    override: Override = (),
) -> None:
    """Load a checkpoint, write it and read it again bit for bit, and check what it computes.

    Args:
      file: checkpoint to verify.
      reference: .npz of inputs ("x" or "features"; "ids"; "z" and "pos") and outputs ("outputs" or "logits";
        "energy" and "forces").
      tolerance: largest absolute difference of the outputs; of energy and forces over the largest value of
        each that is above one; 3e-5 if not given.
      kind: family to take instead of the detected one.
      variant: layout to take instead of the detected one.
      override: config values, NAME=VALUE.
    """
    from sparsejax.checkpoint.verification import verify as check
    from sparsejax.console import show_checks

    options: dict[str, Any] = {"kind": kind, "variant": variant, "overrides": overrides_of(override)}
    if tolerance is not None:
        options["tolerance"] = tolerance
    checks = check(file, reference, **options)
    show_checks(checks)
    if failed := [item for item in checks if not item.passed]:
        raise UserError(f"{file}: {failed[0].name} failed: {failed[0].detail}")


def demo(
    pt: tuple[Path, ...] = (),
    out: Path = Path("demo"),
    override: Override = (),
    checkpoints: Path | None = None,
) -> None:
    """Take the shipped checkpoints, or your own, from file to a verified, timed JAX function.

    Args:
      pt: your own files; the shipped ones if none is given.
      out: folder for report.html.
      override: config values for your own files, NAME=VALUE.
      checkpoints: folder to look for the shipped files in first, such as that of a checkout: a wheel has only
        the smallest.
    """
    from sparsejax.console import show_demo
    from sparsejax.demo import run_demo, write_report
    from sparsejax.shipped import shipped_files, told_missing

    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a folder for the report with --out")
    if pt and checkpoints is not None:
        raise UserError("--checkpoints says where the shipped files are; it does not go with --pt")
    shipped = [] if pt else shipped_files(folder=checkpoints)
    rows, missing = run_demo(pt, overrides_of(override), shipped=shipped), told_missing(shipped)
    show_demo(rows, missing)
    write_report(rows, out / "report.html", missing)
    print(f"report: {out / 'report.html'}")
    if failed := [row for row in rows if not row.passed]:
        raise UserError(f"{failed[0].name}: {failed[0].verified}")
