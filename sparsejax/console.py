"""Terminal tables of the command line, made with rich."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sparsejax.checkpoint.inspection import Report
from sparsejax.checkpoint.verification import Check
from sparsejax.demo import DemoRow

if TYPE_CHECKING:
    from sparsejax.models.sparse_inference.store.neuron_store import NeuronStore
    from sparsejax.training.recipes.force_field import recipe as force_field
    from sparsejax.training.recipes.llama import recipe as llama
    from sparsejax.training.recipes.llama.calibrate import Calibrated
    from sparsejax.training.recipes.sprout import recipe as sprout
    from sparsejax.training.recipes.sprout.fill_mask import Guess
    from sparsejax.training.recipes.ten import recipe as ten
    from sparsejax.training.recipes.ultra_sparse.recipe import Prepared, Trained


class _Page(Console):
    """A console that leaves a closed pipe to the command, whose exit code tells it."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def page(*, width: int) -> Console:
    """The terminal, or a page of a width where there is none, as in a file.

    Args:
      width: in characters.

    Example:
      >>> page(width=200).width >= 80
      True
    """
    console = _Page(highlight=False)
    return console if console.is_terminal else _Page(width=width, highlight=False)


def show_report(report: Report, max_rows: int = 200) -> None:
    """Print what `inspect` found: a few lines of facts and the tensor table."""
    console = page(width=200)
    facts = {
        "file": f"{report.path} ({report.file_format})",
        "kind": f"{report.kind}/{report.variant}" if report.kind else "unknown",
        "config": report.config,
        "container": report.container or "(bare)",
        "prefix": report.prefix,
        **report.facts,
        "beside it": ", ".join(report.metadata),
        "pickle globals": ", ".join(report.pickle_globals),
        "unknown": ", ".join(report.unknown),
        "total": f"{report.num_values:,} values in {len(report.tensors)} tensors, {report.nbytes:,} bytes",
    }
    for name, value in facts.items():
        if value not in (None, ""):
            console.print(Text(f"{name:>14}  ") + _plain(str(value)), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("key", overflow="fold")
    for name in ("shape", "format" if report.facts else "dtype", "bytes"):
        table.add_column(name, no_wrap=True)
    for row in report.tensors[:max_rows]:
        table.add_row(_plain(row.key), str(row.shape), row.dtype, f"{row.nbytes:,}")
    console.print(table)
    if len(report.tensors) > max_rows:
        console.print(f"... and {len(report.tensors) - max_rows} more tensors")


def show_checks(checks: Sequence[Check]) -> None:
    """Print the checks of `verify`, one line each."""
    console = page(width=160)
    for check in checks:
        mark = Text("ok     ", "green") if check.passed else Text("FAILED ", "red")
        console.print(mark + _plain(f"{check.name}: {check.detail}"), soft_wrap=True)


def show_demo(rows: Sequence[DemoRow], note: str | None = None) -> None:
    """Print the demo's table, and a line below it."""
    table = Table(title="sparsejax demo")
    table.add_column("file", no_wrap=True)
    for name in ("family", "values", "verified", "result", "batch 1", "batch 4096"):
        table.add_column(name)
    for row in rows:
        times = (
            f"{row.microseconds[size]:.1f} us" if size in row.microseconds else "-" for size in (1, 4096)
        )
        verified = _plain(row.verified) if row.passed else Text("FAILED: ", "red") + _plain(row.verified)
        table.add_row(_plain(row.name), row.kind, str(row.parameters), verified, row.quality, *times)
    page(width=160).print(table)
    if note is not None:
        print(note)


def show_run(run: Prepared) -> None:
    """Print what is about to be trained, and what is odd about the data."""
    parts = (run.problem.train, run.problem.validation, run.problem.test)
    rows = " + ".join(f"{len(part.features):,}" for part in parts)
    lines = [
        f"{run.problem.name}: {run.problem.task}, {run.problem.num_features:,} features, "
        f"{rows} rows (training, validation, test)",
        f"{run.settings.trainer}: {run.settings.seeds} seeds, {run.rounds:,} rounds of "
        f"{run.chosen.proposals_per_round:,} proposals, nets of {run.config.num_parameters} parameters",
        *(f"note: {note}" for note in run.notes),
    ]
    _tell(lines, run, saved="round")


def show_training(run: Prepared, trained: Trained) -> None:
    """Print the scores beside the baselines', and where everything is."""
    report = trained.report
    better = "smaller" if report.metric == "mse" else "larger"
    title = f"{report.problem}: {report.metric} ({better} is better), test with 95 % interval over seeds"
    table = Table("model", "train", "test", "non-zeros", "bits with indices", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    interval = ""
    if report.test.low is not None:
        interval = f" [{report.test.low:.4g}, {report.test.high:.4g}]"
    name = f"ultra-sparse, {len(report.seeds)} seeds"
    own = (f"{report.train.mean:.4g}", f"{report.test.mean:.4g}{interval}")
    table.add_row(name, *own, f"{report.parameters:,}", f"{report.storage_bits:,}")
    for model in report.baselines:
        scores = (f"{model.train:.4g}", f"{model.test:.4g}")
        table.add_row(_plain(model.name), *scores, f"{model.nonzeros:,}", f"{model.storage_bits:,}")
    page(width=120).print(table)
    if report.tanh_floor is not None:
        print(f"a tanh output cannot go below {report.tanh_floor:.4g} on the test part")
    print(f"{trained.seconds:.1f} s of training; report, log, plots and the best net: {run.folder}")


def show_text_run(run: ten.Prepared) -> None:
    """Print what network is about to be trained on what text."""
    settings, (training, held_out) = run.settings, run.tokens
    passes = settings.steps * settings.batch_size * settings.seq_len / training
    lines = [
        f"{settings.data}: {training:,} + {held_out:,} tokens (training, validation), "
        f"vocabulary {run.tokenizer.vocab_size:,}",
        f"ten: {settings.preset}, {run.config.num_parameters:,} parameters, {settings.steps:,} steps "
        f"of {settings.batch_size} x {settings.seq_len} tokens, {passes:.3g} passes over the text",
    ]
    _tell(lines, run, saved="step")


def show_masked_run(run: sprout.Prepared) -> None:
    """Print what masked language model is about to be trained on what text."""
    settings = run.settings
    first = settings.d_ff if settings.initial_top_k is None else settings.initial_top_k
    lines = [
        f"{settings.data}: {run.rows.tokens:,} + {run.held_out.tokens:,} tokens in {len(run.rows):,} + "
        f"{len(run.held_out):,} rows (training, validation), vocabulary {run.tokenizer.vocab_size:,}",
        f"sprout: recipe {settings.recipe}, {run.num_parameters:,} parameters, {run.steps:,} steps of "
        f"{settings.batch_size} x {settings.max_seq_len} tokens; {first:,} to {settings.final_top_k:,} of "
        f"{settings.d_ff:,} neurons in {settings.sparsity_warmup_steps:,} steps; router {settings.router}, "
        f"its loss: {settings.taught}",
    ]
    _tell(lines, run, saved="step")


def show_llama_run(run: llama.Prepared) -> None:
    """Print what Llama is about to be trained on what text."""
    from sparsejax.training.recipes.llama.recipe import num_parameters

    settings, (training, held_out) = run.settings, run.tokens
    passes = settings.steps * settings.batch_size * settings.seq_len / training
    kind = {"silu": "SwiGLU", "relu": "ReGLU"}[settings.activation]
    lines = [
        f"{settings.data}: {training:,} + {held_out:,} tokens (training, validation), "
        f"vocabulary {run.tokenizer.vocab_size:,}",
        f"llama: {kind}, {num_parameters(run):,} parameters, {settings.n_layers} blocks of "
        f"{settings.d_ff:,} neurons, {settings.steps:,} steps of {settings.batch_size} x {settings.seq_len} "
        f"tokens, {passes:.3g} passes over the text; written as {settings.format}",
    ]
    _tell(lines, run, saved="step")


def show_force_field_run(run: force_field.Prepared) -> None:
    """Print what force field is about to be trained on what structures."""
    settings, config = run.settings, run.config
    lines = [
        f"{settings.data}: {run.sizes[0]:,} + {run.sizes[1]:,} structures (training, validation), "
        f"{', '.join(map(str, run.elements))}; {run.training.padding:.0%} padding",
        f"force_field: recipe {settings.recipe}, {config.variant}, {config.num_parameters:,} parameters, "
        f"{run.steps:,} steps of up to {settings.batch_size} structures in {settings.epochs:,} epochs",
    ]
    if run.references is not None:
        rest = run.references.residual_per_atom_rmse * 1e3
        lines.append(f"energies of single atoms leave {rest:.4g} meV/atom to learn")
    _tell(lines, run, saved="epoch")


def show_force_field_training(run: force_field.Prepared, trained: force_field.Trained) -> None:
    """Print the errors on held-out structures, and where everything is."""
    for name, found in (("best", trained.best), ("final", trained.final)):
        print(f"{run.folder / name}.pt: step {found.step:,}, {found.score.words}")
    print(f"{trained.seconds:.1f} s of training; metrics and networks: {run.folder}")


def show_text_training(
    run: ten.Prepared | sprout.Prepared | llama.Prepared, trained: ten.Trained, suffix: str = ""
) -> None:
    """Print the perplexities of the held-out text, and where everything is."""
    for name, found in (("best" + suffix, trained.best), ("final" + suffix, trained.final)):
        score = found.score
        also = "".join(f", {what} {value:.3g}" for what, value in (score.metrics or {}).items())
        print(
            f"{run.folder / name}: step {found.step:,}, validation perplexity {score.perplexity:.2f}"
            f" ({score.loss:.4f} nats per token over {score.tokens:,} tokens{also})"
        )
    print(f"{trained.seconds:.1f} s of training; metrics and networks: {run.folder}")


def show_llama_training(run: llama.Prepared, trained: ten.Trained) -> None:
    """Print the perplexities of the held-out text, and where the GGUF files are."""
    show_text_training(run, trained, ".gguf")


def show_calibration(found: Calibrated) -> None:
    """Print what the predictors of each layer are worth, and perplexities for fewer neurons."""
    share = f"{100 * found.active_fraction:.3g} %"
    table = Table(
        "layer",
        "recall",
        "of the active",
        "energy kept",
        "output error",
        "threshold",
        "active at it",
        title=f"predictors on held-out text, {share} of the neurons",
    )
    for number, layer in enumerate(found.layers):
        shares = (layer.recall, layer.recall_of_active, layer.energy_kept, layer.output_error)
        cells = (f"{value:.3f}" for value in shares)
        at = (f"{layer.threshold:.4g}", f"{100 * layer.active_at_threshold:.1f} %")
        table.add_row(str(number), *cells, *at)
    console = page(width=120)
    console.print(table)
    if found.perplexities:
        of_ways = Table("active", *found.perplexities, title="perplexity of held-out text")
        for fraction in next(iter(found.perplexities.values())):
            row = (f"{curve[fraction]:.3f}" for curve in found.perplexities.values())
            of_ways.add_row(f"{100 * fraction:.3g} %", *row)
        console.print(of_ways)
    print(f"{found.tokens:,} tokens read in {found.seconds:.1f} s; predictors: {found.directory}")


def show_pieces(prompt: str, pieces: Iterable[str]) -> None:
    """Print a prompt and what follows, as it comes; a terminal gets control characters as escapes."""
    encoding = sys.stdout.encoding or "utf-8"
    for piece in chain([prompt], pieces):
        text = piece.encode(encoding, "replace").decode(encoding)
        print(_without_controls(text) if sys.stdout.isatty() else text, end="", flush=True)
    print()


def show_store(store: NeuronStore) -> None:
    """Print, on standard error, how often neurons were on the device, and what had to be moved there."""
    found = store.statistics
    slots = sum(each * layout.unit_bytes for each, layout in zip(store.slots, store.layouts, strict=True))
    print(
        f"neurons: {found.hit_rate:.1%} of {found.hits + found.misses:,} asked for were on the device "
        f"({found.prefetch_useful:,} brought ahead); {found.bytes_moved / 1e6:,.1f} MB moved; room for "
        f"{slots / store.total_bytes:.0%} of {store.total_bytes / 1e6:,.1f} MB",
        file=sys.stderr,
    )


def show_guesses(guesses: Sequence[Sequence[Guess]]) -> None:
    """Print what may stand at each mask of a text, the most probable first."""
    table = Table("mask", "token", "probability", "text", box=None, pad_edge=False)
    for number, of_mask in enumerate(guesses):
        for guess in of_mask:
            row = (_plain(guess.token), f"{guess.probability:.4f}", _plain(guess.text))
            table.add_row(str(number + 1), *row)
    page(width=160).print(table)


SHOWN_RUNS: Mapping[str, tuple[Callable[..., None], Callable[..., None]]] = {
    "ultra_sparse": (show_run, show_training),
    "ten": (show_text_run, show_text_training),
    "sprout": (show_masked_run, show_text_training),
    "force_field": (show_force_field_run, show_force_field_training),
    "llama": (show_llama_run, show_llama_training),
}
"""What is printed before and after the training of each family."""


def _tell(lines: Sequence[str], run: Any, *, saved: str) -> None:
    """Print lines about a prepared run, and what it goes on from if it was stopped."""
    more = [f"{run.folder}: continued from the last saved {saved}"] if run.standing == "unfinished" else []
    for line in (*lines, *more):
        print(line, flush=True)


def _without_controls(text: str) -> str:
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in text
    )


def _plain(text: str) -> Text:
    """Text from a file: no markup is read in it, and control characters are shown as escapes."""
    return Text("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text))
