"""Commands that train, generate, draw and measure, whatever the family."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sparsejax.cli.arguments import one_line, overrides_of
from sparsejax.training.override import Override
from sparsejax.training.recipes.force_field.settings import ForceFieldSettings
from sparsejax.training.recipes.llama.generate_settings import LlamaGenerateSettings
from sparsejax.training.recipes.llama.settings import LlamaSettings
from sparsejax.training.recipes.sprout.fill_mask_settings import FillMaskSettings
from sparsejax.training.recipes.sprout.settings import SproutSettings
from sparsejax.training.recipes.ten.generate_settings import TenGenerateSettings
from sparsejax.training.recipes.ten.settings import TenSettings
from sparsejax.training.recipes.ultra_sparse.settings import UltraSparseSettings

Files = Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(help_behavior_hint="")]
Target = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR|sprout|force-field")]
BenchName = Literal[
    "all",
    "ultra_sparse",
    "ultra_sparse_training",
    "ten",
    "sprout",
    "force_field",
    "force_field_sizes",
    "sparse_inference",
    "scaling",
]
Recipe = (
    Annotated[UltraSparseSettings, tyro.conf.subcommand("ultra-sparse")]
    | Annotated[TenSettings, tyro.conf.subcommand("ten")]
    | Annotated[SproutSettings, tyro.conf.subcommand("sprout")]
    | Annotated[ForceFieldSettings, tyro.conf.subcommand("force-field")]
    | Annotated[LlamaSettings, tyro.conf.subcommand("llama")]
)
_RECIPES = {
    UltraSparseSettings: "ultra_sparse",
    TenSettings: "ten",
    SproutSettings: "sprout",
    ForceFieldSettings: "force_field",
    LlamaSettings: "llama",
}
Generation = (
    Annotated[TenGenerateSettings, tyro.conf.subcommand("ten")]
    | Annotated[LlamaGenerateSettings, tyro.conf.subcommand("llama")]
)


def bench(
    name: Annotated[BenchName, tyro.conf.Positional],
    *,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    readme: Path | None = None,
    checkpoint: Files = (),
    report: Path | None = None,
    data: Path | None = None,
    from_results: bool = False,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Measure this library beside its peers, in one run, with errors beside speeds.

    Args:
      name: which benchmark; all takes one after the other, but force_field_sizes,
        whose rows are not recorded.
      json_file: write the rows to this file; of all to this folder, NAME.json each.
      readme: put the table into this Markdown file, between its bench markers.
      checkpoint: net to measure; a shipped one if not given. Of force_field and force_field_sizes it may be
        repeated: each takes the place of a random one of its size.
      report: write report.html, report.md and pictures into this folder. That of force_field_sizes also has
        all sizes as files, and their errors.
      data: of the report of force_field_sizes: labelled structures to take errors from; the largest
        network's labels if not given.
      from_results: measure nothing; show, draw and write the rows that are recorded with the library.
      threads: for every contestant of ultra_sparse alike; the others are measured with 2, or as many as
        their rows say.
      quick: fewer repetitions and smaller sizes.
    """
    from sparsejax.bench import command
    from sparsejax.bench.pinned import ProcessFailure

    options: dict[str, Any] = {"data": data, "from_results": from_results, "quick": quick, "threads": threads}
    with one_line(ValueError, ProcessFailure):
        command.bench(name, checkpoint, command.Outputs(json_file, readme, report), **options)


def train(recipe: Recipe) -> None:
    """Train nets of a family; ``sparsejax train ten --help`` lists the settings of one."""
    from sparsejax import console
    from sparsejax.training import processes
    from sparsejax.training.errors import RunError

    with one_line(ValueError, RuntimeError):
        recipe = processes.joined(recipe)
    name = _RECIPES[type(recipe)]
    family = importlib.import_module(f"sparsejax.training.recipes.{name}.recipe")
    shown = console.SHOWN_RUNS[name]
    with one_line(ValueError):
        run = family.prepare(recipe)
    first = processes.is_first_process()
    if run.standing == "finished":
        if first:
            print(f"{run.folder}: this run is finished; see {run.folder / family.OUTCOME}")
    else:
        if first and not recipe.quiet:
            shown[0](run)
        with one_line(RunError):
            trained = family.train(run)
        if first and not recipe.quiet:
            shown[1](run, trained)
    with one_line(RunError), processes.told_losses():
        processes.end_processes()


def generate(settings: Generation) -> None:
    """Continue a text with a trained network; ``generate MODEL.gguf`` is short for ``generate llama``."""
    from sparsejax.console import show_pieces, show_store

    stores: list[Any] = []
    with one_line(ValueError):
        if isinstance(settings, LlamaGenerateSettings):
            from sparsejax.training.recipes.llama import generate as llama_generate

            pieces = llama_generate.generated_text(settings, stores.append)
        else:
            from sparsejax.training.recipes.ten import generate as ten_generate

            pieces = ten_generate.generated_text(settings, overrides_of(settings.override))
        show_pieces(settings.prompt if settings.echo else "", pieces)
    for stored in stores:
        show_store(stored.ffn.store)


def fill_mask(settings: FillMaskSettings) -> None:
    """Guess the masked words of a text with a masked language model, the most probable first."""
    from sparsejax.console import show_guesses
    from sparsejax.training.recipes.sprout.fill_mask import guesses

    with one_line(ValueError):
        show_guesses(guesses(settings, overrides_of(settings.override)))


def plot(
    target: Target,
    *,
    checkpoint: Path | None = None,
    data: Path | None = None,
    trajectory: Path | None = None,
    out: Path | None = None,
    tokenizer: Path | None = None,
    top_k: int | None = None,
    tokens: int | None = None,
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
      out: folder for pictures, report.html and tables; sprout_plots or force_field_plots, or plots within
        the folder of a run, if not given.
      tokenizer: vocab.txt or tokenizer.json of the text; the checkpoint's own, or bytes, if not given.
      top_k: neurons per token; the network's own, or a quarter of all, if not given.
      tokens: to read at most; 8,192 if not given.
      override: config values, NAME=VALUE.
    """
    from sparsejax.plots.request import PlotRequest, draw
    from sparsejax.training.errors import RunError

    of_text = (tokenizer, top_k, tokens)
    with one_line(RunError, ValueError):
        request = PlotRequest(target, checkpoint, data, trajectory, out, *of_text, overrides_of(override))
        print(*draw(request), sep="\n")
