"""`sparsejax demo`: every shipped file, or the user's own, from ``.pt`` to a verified, timed JAX function."""

from __future__ import annotations

import html
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import jax
import numpy as np

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.errors import NotReadableError
from sparsejax.checkpoint.inspection import inspect
from sparsejax.checkpoint.load import load
from sparsejax.checkpoint.save import save
from sparsejax.checkpoint.verification import compare_outputs, verify
from sparsejax.models.ten import generate, initial_state
from sparsejax.models.ultra_sparse import fuse
from sparsejax.models.ultra_sparse.model import forward

GRID_POINTS = 100

_BYTES = 256
_PROMPT, _NEW_BYTES = b"Return the ", 60


@dataclass(frozen=True)
class DemoRow:
    """What the demo found about one file.

    Attributes:
      name: file name.
      kind: family and variant.
      parameters: values in the model.
      verified: what was compared, in words.
      passed: all comparisons held.
      quality: result on the family's own task, in words.
      microseconds: {batch size: median time of one jitted call; of one token per row for language models}.
      curve: x and y to plot, for nets of one variable.
    """

    name: str
    kind: str
    parameters: int
    verified: str
    passed: bool
    quality: str
    microseconds: dict[int, float]
    curve: tuple[np.ndarray, np.ndarray] | None = None


def shipped_checkpoints() -> Path:
    """Folder of the checkpoints that come with the library.

    Raises:
      NotReadableError: this installation has none.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "shipped_checkpoints", here.parent / "checkpoints"):
        if (folder / "manifest.json").is_file():
            return folder
    raise NotReadableError("the shipped checkpoints are not installed; give your own file with --pt")


def run_demo(files: Sequence[Path] = (), overrides: Mapping[str, Any] | None = None) -> list[DemoRow]:
    """Inspect, convert, verify, run and time checkpoints.

    Args:
      files: files to take; the shipped ones if empty.
      overrides: config values that the files do not tell.

    Returns:
      one row per file.

    Raises:
      CheckpointError: a file cannot be used.
    """
    jobs = [(path, None) for path in files] or _shipped_jobs()
    return [_run_one(path, reference, overrides or {}) for path, reference in jobs]


def write_report(rows: Sequence[DemoRow], path: Path) -> None:
    """Write the rows and their plot as one self-contained HTML page.

    Args:
      rows: from `run_demo`.
      path: file to write; missing folders are created.
    """
    header = ["file", "family", "values", "verified", "result", "batch 1", "batch 4096"]
    cells = [_cells(row) for row in rows]
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in cells
    )
    page = _PAGE.substitute(
        header="".join(f"<th>{name}</th>" for name in header),
        body=body,
        plot=_svg(rows),
        device=html.escape(f"{jax.devices()[0].device_kind}, jax {jax.__version__}"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _cells(row: DemoRow) -> list[str]:
    times = [f"{row.microseconds[batch]:.1f} us" if batch in row.microseconds else "-" for batch in (1, 4096)]
    verified = row.verified if row.passed else f"FAILED: {row.verified}"
    return [row.name, row.kind, str(row.parameters), verified, row.quality, *times]


def _shipped_jobs() -> list[tuple[Path, Path | None]]:
    folder = shipped_checkpoints()
    entries = json.loads((folder / "manifest.json").read_text())["checkpoints"]
    return [(folder / entry["file"], folder / entry["expected"]) for entry in entries]


def _run_one(path: Path, reference: Path | None, overrides: Mapping[str, Any]) -> DemoRow:
    report = inspect(path)
    if report.problem is not None and not overrides:
        raise report.problem
    checks = verify(path, overrides=overrides)
    ck = load(path, overrides=overrides)
    with tempfile.TemporaryDirectory() as folder:
        save(ck, Path(folder) / "model")
        converted = load(Path(folder) / "model")
    if reference is not None:
        checks.append(compare_outputs(converted, reference))
    quality, curve, call, batches = _DEMOS[ck.kind](converted)
    return DemoRow(
        name=path.name,
        kind=f"{ck.kind}/{ck.variant}",
        parameters=ck.config.num_parameters,
        verified=next((check for check in checks if not check.passed), checks[-1]).detail,
        passed=all(check.passed for check in checks),
        quality=quality,
        microseconds={size: _median_microseconds(call, batch) for size, batch in batches.items()},
        curve=curve,
    )


def _ultra_sparse(ck: Checkpoint) -> tuple[str, Any, Callable[[Any], jax.Array], dict[int, jax.Array]]:
    if ck.config.input_size != 256 or ck.config.output_size != 1:
        batches = {size: jax.numpy.zeros((size, ck.config.input_size)) for size in (1, 4096)}
        apply = jax.jit(partial(forward, ck.config, ck.params))
        return "no built-in task for this size", None, apply, batches
    function = fuse(ck)
    x = np.linspace(-2 * np.pi, 2 * np.pi, GRID_POINTS, dtype=np.float32)
    y = np.asarray(function(jax.numpy.asarray(x)))
    mse = float(np.mean((y - np.sin(x)) ** 2))
    batches = {size: jax.numpy.linspace(-6, 6, size) for size in (1, 4096)}
    return f"sin(x): MSE {mse:.3e}", (x, y), function, batches


def _ten(ck: Checkpoint) -> tuple[str, Any, Callable[[Any], jax.Array], dict[int, jax.Array]]:
    step = jax.jit(partial(_next_token, ck.model))
    state = initial_state(ck.config, 1) if ck.config.streams else None
    call = partial(step, ck.params, state)
    batches = {1: jax.numpy.zeros((1, 1), jax.numpy.int32)}
    if ck.config.vocab_size < _BYTES or state is None:
        return "no built-in task for this vocabulary", None, call, batches
    length = min(_NEW_BYTES, ck.config.max_seq_len - len(_PROMPT))
    found = generate(ck, [list(_PROMPT)], max_new_tokens=length, temperature=0)
    text = bytes(int(token) for token in found.tokens[0] if token < _BYTES).decode(errors="replace")
    return f"continues {_PROMPT.decode()!r}: {text!r}", None, call, batches


def _next_token(model: Any, params: Any, state: Any, tokens: jax.Array) -> jax.Array:
    return model.apply({"params": params}, tokens, state).logits


_DEMOS: dict[
    str, Callable[[Checkpoint], tuple[str, Any, Callable[[Any], jax.Array], dict[int, jax.Array]]]
] = {
    "ten": _ten,
    "ultra_sparse": _ultra_sparse,
}


def _median_microseconds(call: Callable[[Any], jax.Array], batch: jax.Array, repetitions: int = 300) -> float:
    jax.block_until_ready(call(batch))
    times = []
    for _ in range(repetitions):
        start = time.perf_counter_ns()
        jax.block_until_ready(call(batch))
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1e3


def _svg(rows: Sequence[DemoRow]) -> str:
    curves = {row.name: row.curve for row in rows if row.curve is not None}
    if not curves:
        return "<p>No net of one variable to plot.</p>"
    try:
        from sparsejax.plots.ultra_sparse import target_and_prediction

        figure = target_and_prediction(curves)
    except ModuleNotFoundError:
        return "<p>Install matplotlib (sparsejax[plots]) to see target and prediction.</p>"
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue()[text.getvalue().index("<svg") :]


_PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>sparsejax demo</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd }
th { border-bottom: 2px solid #888 }
svg { max-width: 100%; height: auto }
.note { color: #666 }
</style>
<h1>sparsejax demo</h1>
<p>Each file was read without torch, converted, written back, compared bit for bit, and run as a jitted
function.</p>
<table><tr>$header</tr>$body</table>
<h2>Target and prediction</h2>
$plot
<p class="note">$device; times are medians of one call, x to y or one token, result waited for.</p>
</html>
""")
