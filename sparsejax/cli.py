"""The ``sparsejax`` command: every subcommand is a thin call of a public function.

Exit codes: 0 done; 1 the input was at fault, told in one line (``--debug`` shows where); 2 wrong usage.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sparsejax.checkpoint.errors import CheckpointError
from sparsejax.training.recipes.force_field_checks_settings import BenchmarkSettings, ValidateSettings
from sparsejax.training.recipes.force_field_md_settings import MdSettings
from sparsejax.training.recipes.force_field_settings import ForceFieldSettings
from sparsejax.training.recipes.sprout_fill_mask_settings import FillMaskSettings
from sparsejax.training.recipes.sprout_settings import SproutSettings
from sparsejax.training.recipes.ten_generate_settings import TenGenerateSettings
from sparsejax.training.recipes.ten_settings import TenSettings
from sparsejax.training.recipes.ultra_sparse_settings import UltraSparseSettings
from sparsejax.version import __version__

Override = Annotated[
    tuple[str, ...],
    tyro.conf.arg(
        metavar="NAME=VALUE", help="config values that the file does not tell, such as input_size=64"
    ),
]
File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
Files = Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(help_behavior_hint="")]
Src = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
Dst = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
Target = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR|sprout|force-field")]
BenchName = Literal["ultra_sparse", "ultra_sparse_training", "ten", "sprout", "force_field"]
Recipe = (
    Annotated[UltraSparseSettings, tyro.conf.subcommand("ultra-sparse")]
    | Annotated[TenSettings, tyro.conf.subcommand("ten")]
    | Annotated[SproutSettings, tyro.conf.subcommand("sprout")]
    | Annotated[ForceFieldSettings, tyro.conf.subcommand("force-field")]
)
_RECIPES = {
    UltraSparseSettings: "ultra_sparse",
    TenSettings: "ten",
    SproutSettings: "sprout",
    ForceFieldSettings: "force_field",
}
# Of one family a union needs a second, hidden member to be a choice of subcommands.
Generation = Annotated[TenGenerateSettings, tyro.conf.subcommand("ten")] | Annotated[None, tyro.conf.Suppress]
_LIBRARIES = {
    "sklearn": ("sklearn",),
    "plots": ("matplotlib",),
    "bench": ("numba",),
    "torch": ("torch",),
    "text": ("grain", "tokenizers"),
    "force-field": ("ase", "h5py", "vesin"),
    "md": ("jax_md",),
    "distill": ("tblite",),
}
_EXTRAS = {library: extra for extra, libraries in _LIBRARIES.items() for library in libraries}
_WRITTEN = (".pt", ".pth", ".npz")
_NOT_WRITTEN = (".bin", ".ckpt", ".gguf", ".json", ".onnx", ".safetensors", ".h5")


class _UserError(Exception):
    """A wrong argument, told in one line."""


def inspect(path: File) -> None:
    """Show what a checkpoint file or directory holds, without reading its data or running anything in it.

    Args:
      path: .pt, .pth, .npz, .onnx (its weights) or a sparsejax directory.
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
    """Convert a checkpoint: to a sparsejax directory, or back to .pt / .npz by the suffix of DST.

    Args:
      src: file or directory to read.
      dst: directory, or file ending in .pt, .pth or .npz.
      kind: family to take instead of the detected one.
      variant: layout to read src in, or, for a .pt or .npz dst, to write.
      override: config values, NAME=VALUE.
    """
    from sparsejax.checkpoint.load import load
    from sparsejax.checkpoint.save import export_pt, save

    to_file = dst.suffix.lower() in _WRITTEN
    if dst.suffix.lower() in _NOT_WRITTEN:
        raise _UserError(f"{dst}: cannot be written; give a name ending in .pt or .npz, or a directory")
    ck = load(src, kind=kind, variant=None if to_file else variant, overrides=_overrides(override))
    if to_file:
        export_pt(ck, dst, variant=variant)
    else:
        save(ck, dst)
    print(f"{src} ({ck.kind}/{ck.variant}, {ck.num_values} values) -> {dst}")


def verify(
    file: File,
    *,
    reference: Path | None = None,
    tolerance: float = 3e-5,
    kind: str | None = None,
    variant: str | None = None,
    override: Override = (),
) -> None:
    """Load a checkpoint, write it and read it again bit for bit, and check what it computes.

    Args:
      file: checkpoint to verify.
      reference: .npz with "outputs" and the inputs by name ("x" or "features" for ultra-sparse nets).
      tolerance: largest absolute difference of the outputs.
      kind: family to take instead of the detected one.
      variant: layout to take instead of the detected one.
      override: config values, NAME=VALUE.
    """
    from sparsejax.checkpoint.verification import verify as check
    from sparsejax.console import show_checks

    options: dict[str, Any] = {"kind": kind, "variant": variant, "overrides": _overrides(override)}
    checks = check(file, reference, tolerance=tolerance, **options)
    show_checks(checks)
    if failed := [item for item in checks if not item.passed]:
        raise _UserError(f"{file}: {failed[0].name} failed: {failed[0].detail}")


def demo(pt: tuple[Path, ...] = (), out: Path = Path("demo"), override: Override = ()) -> None:
    """Take the shipped checkpoints, or your own, from file to a verified, timed JAX function.

    Args:
      pt: your own files; the shipped ones if none is given.
      out: folder for report.html.
      override: config values for your own files, NAME=VALUE.
    """
    from sparsejax.console import show_demo
    from sparsejax.demo import run_demo, write_report

    if out.exists() and not out.is_dir():
        raise _UserError(f"{out}: is a file; give a folder for the report with --out")
    rows = run_demo(pt, _overrides(override))
    show_demo(rows)
    write_report(rows, out / "report.html")
    print(f"report: {out / 'report.html'}")
    if failed := [row for row in rows if not row.passed]:
        raise _UserError(f"{failed[0].name}: {failed[0].verified}")


def bench(
    name: Annotated[BenchName, tyro.conf.Positional],
    *,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    readme: Path | None = None,
    checkpoint: Files = (),
    report: Path | None = None,
    data: Path | None = None,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Measure this library beside its peers, in one run, with errors beside speeds.

    Args:
      name: which benchmark.
      json_file: write the rows to this file.
      readme: put the table into this Markdown file, between its bench markers.
      checkpoint: net to measure; a shipped one if not given. Of force_field it may be repeated: each takes
        the place of a random one of its size.
      report: of force_field: instead of rows, export, measure and analyse all sizes into this folder.
      data: of --report: labelled structures to take errors from; the largest network's labels if not given.
      threads: for every contestant alike.
      quick: fewer repetitions and smaller sizes.
    """
    from sparsejax.bench import command

    files: dict[str, Any] = {"json_file": json_file, "readme": readme, "report": report, "data": data}
    with _one_line(ValueError):
        command.bench(name, checkpoint, **files, quick=quick, threads=threads)


def train(recipe: Recipe) -> None:
    """Train nets of a family; ``sparsejax train ten --help`` lists the settings of one."""
    from sparsejax import console
    from sparsejax.training.errors import RunError

    name = _RECIPES[type(recipe)]
    family, shown = importlib.import_module(f"sparsejax.training.recipes.{name}"), console.SHOWN_RUNS[name]
    with _one_line(ValueError):
        run = family.prepare(recipe)
    if run.standing == "finished":
        print(f"{run.folder}: this run is finished; see {run.folder / family.OUTCOME}")
        return
    if not recipe.quiet:
        shown[0](run)
    with _one_line(RunError):
        trained = family.train(run)
    if not recipe.quiet:
        shown[1](run, trained)


def label(
    structures: Path,
    teacher: str,
    out: Path,
    *,
    rattle: int = 0,
    spread: tuple[float, float] = (0.05, 0.15),
    scale: tuple[float, float] = (0.95, 1.05),
    max_force: float | None = None,
    processes: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> None:
    """Label structures with a teacher's energies, forces and stress; the same command goes on after a kill.

    Args:
      structures: any file that ASE reads, such as .extxyz.
      teacher: gfn2, gfn1, or any factory of ASE calculators as package.module:function.
      out: HDF5 data set to write, for ``sparsejax train force-field --data``.
      rattle: label so many distorted copies of each structure instead of the structure.
      spread: A, least and largest standard deviation of the displacements of a copy.
      scale: least and largest factor of all positions of a copy.
      max_force: eV/A; structures with a longer force on an atom are left out.
      processes: how many work side by side; one per processor if not given.
      seed: of the distortions.
      quiet: print nothing but errors.
    """
    from sparsejax.training.recipes.force_field_labels import label_file

    with _one_line(ValueError):
        found = label_file(
            structures,
            teacher,
            out,
            rattle=rattle,
            spread=spread,
            scale=scale,
            max_force=max_force,
            processes=processes,
            seed=seed,
            style="quiet" if quiet else "auto",
        )
    if not quiet:
        for number, reason in found.failures.items():
            print(f"left out: structure {number}: {reason}")
        print(f"{found.path}: {found.labelled:,} labelled structures, {len(found.failures):,} left out")


def generate(settings: Generation) -> None:
    """Continue a text with a trained network; ``sparsejax generate ten --help`` lists the settings."""
    from sparsejax.console import show_pieces
    from sparsejax.training.recipes.ten_generate import generated_text

    assert settings is not None  # tyro asks for a family
    with _one_line(ValueError):
        pieces = generated_text(settings, _overrides(settings.override))
        show_pieces(settings.prompt if settings.echo else "", pieces)


def md(settings: MdSettings) -> None:
    """Run molecular dynamics of a molecule or crystal with a force field, or minimise it."""
    from sparsejax.training.recipes.force_field_md import told_dynamics

    with _one_line(ValueError, FloatingPointError):
        for line in told_dynamics(settings, _overrides(settings.override)):
            print(line)


def validate(settings: ValidateSettings) -> None:
    """Run a molecule at constant energy and judge how well a force field conserves it."""
    from sparsejax.training.recipes.force_field_checks import told_validation

    with _one_line(ValueError, FloatingPointError):
        print(*told_validation(settings), sep="\n")


def benchmark(settings: BenchmarkSettings) -> None:
    """Time energies and forces of four small molecules, atoms moved before every call."""
    from sparsejax.training.recipes.force_field_checks import told_benchmark

    with _one_line(ValueError):
        print(*told_benchmark(settings), sep="\n")


def fill_mask(settings: FillMaskSettings) -> None:
    """Guess the masked words of a text with a masked language model, the most probable first."""
    from sparsejax.console import show_guesses
    from sparsejax.training.recipes.sprout_fill_mask import guesses

    with _one_line(ValueError):
        show_guesses(guesses(settings, _overrides(settings.override)))


def plot(
    target: Target,
    *,
    checkpoint: Path | None = None,
    data: Path | None = None,
    trajectory: Path | None = None,
    out: Path | None = None,
    tokenizer: Path | None = None,
    top_k: int | None = None,
    tokens: int = 8192,
    override: Override = (),
) -> None:
    """Draw a training run or a checkpoint from its folder, or look at a network with data.

    Args:
      target: folder that a run of ``sparsejax train`` wrote, or a sparsejax directory; or "sprout", with
        --checkpoint, for a report on its neurons and routers; or "force-field", with --checkpoint and
        --data for its errors, or with --trajectory.
      checkpoint: file or directory of the network.
      data: text, or folder of texts, each of which is a topic; random tokens if not given. Of force-field
        labelled structures, HDF5 or what ASE reads.
      trajectory: of force-field: .traj, .extxyz or .xyz.
      out: folder for pictures, report.html and tables; sprout_plots or force_field_plots if not given.
      tokenizer: vocab.txt or tokenizer.json of the text; the checkpoint's own, or bytes, if not given.
      top_k: neurons per token; the network's own, or a quarter of all, if not given.
      tokens: to read at most.
      override: config values, NAME=VALUE.
    """
    from sparsejax.plots.request import PlotRequest, draw
    from sparsejax.training.errors import RunError

    of_text = (tokenizer, top_k, tokens)
    with _one_line(RunError, ValueError):
        request = PlotRequest(target, checkpoint, data, trajectory, out, *of_text, _overrides(override))
        print(*draw(request), sep="\n")


_COMMANDS: dict[str, Callable[..., Any]] = {
    "inspect": inspect,
    "convert": convert,
    "verify": verify,
    "demo": demo,
    "bench": bench,
    "train": train,
    "label": label,
    "generate": generate,
    "fill-mask": fill_mask,
    "md": md,
    "validate": validate,
    "benchmark": benchmark,
    "plot": plot,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``sparsejax`` command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        print(f"sparsejax {__version__}")
        return
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        _run(arguments)
    except (CheckpointError, _UserError, OSError, ModuleNotFoundError) as error:
        if debug:
            raise
        sys.exit(_told(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _run(arguments: Sequence[str]) -> None:
    tyro.extras.subcommand_cli_from_dict(
        _COMMANDS,
        prog="sparsejax",
        description="Sparse and sub-quadratic models in JAX; reads the original PyTorch files without torch. "
        "--version prints the version; --debug, with any command, shows the traceback of an error.",
        args=arguments or ["--help"],
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )


def _told(error: Exception) -> int:
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        extra = _EXTRAS.get((error.name or "").split(".")[0], "bench,plots")
        text = f"{text}; install the extra that has it: pip install 'sparsejax[{extra}]'"
    print(f"sparsejax: {text}", file=sys.stderr)
    return 1


@contextmanager
def _one_line(*kinds: type[Exception]) -> Iterator[None]:
    """Tell errors of these kinds as a user's own."""
    try:
        yield
    except kinds as error:
        raise _UserError(str(error)) from error


def _overrides(pairs: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise _UserError(f"--override takes NAME=VALUE, not {pair!r}")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values
