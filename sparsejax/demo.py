"""`sparsejax demo`: every shipped file, or the user's own, from ``.pt`` to a verified, timed JAX function."""

from __future__ import annotations

import html
import io
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
from sparsejax.checkpoint.inspection import inspect
from sparsejax.checkpoint.load import load
from sparsejax.checkpoint.native import durable
from sparsejax.checkpoint.packed import is_packed
from sparsejax.checkpoint.registry import find
from sparsejax.checkpoint.save import save
from sparsejax.checkpoint.verification import compare_outputs, verify
from sparsejax.models.force_field import ForceField
from sparsejax.models.force_field.graph import batch_graphs
from sparsejax.models.force_field.structure import Structure
from sparsejax.models.sprout import SproutConfig
from sparsejax.models.ten import generate, initial_state
from sparsejax.models.ultra_sparse import fuse
from sparsejax.models.ultra_sparse.model import forward
from sparsejax.shipped import PREDICTORS, ShippedFile

GRID_POINTS = 100

_BYTES = 256
_PROMPT, _NEW_BYTES = b"Return the ", 60
_SHARES, _TOKENS = (1.0, 0.5, 0.25, 0.1), 64
_WATER = Structure(
    np.array([8, 1, 1], np.int32),
    np.array([[0, 0, 0], [0.8, 0.7, 0], [-0.9, 0.6, 0]]),
    None,
    np.zeros(3, bool),
)
_STEP, _STEPS = 0.01, 1000  # A^2/eV: half of the inverse of the stiffest bond


@dataclass(frozen=True)
class Sparsity:
    """What a part of its neurons gives a network that picks them at run time.

    Attributes:
      share: of the neurons.
      neurons: distance of the logits to those of all neurons, over the latter's spread; by the best neurons.
      blocks: the same by the best whole blocks of neurons.
      milliseconds: median time of a row of tokens, by blocks.
    """

    share: float
    neurons: float
    blocks: float
    milliseconds: float


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
      sparsity: fewer and fewer neurons, for networks that pick them at run time.
    """

    name: str
    kind: str
    parameters: int
    verified: str
    passed: bool
    quality: str
    microseconds: dict[int, float]
    curve: tuple[np.ndarray, np.ndarray] | None = None
    sparsity: tuple[Sparsity, ...] = ()


def run_demo(
    files: Sequence[Path] = (),
    overrides: Mapping[str, Any] | None = None,
    *,
    shipped: Sequence[ShippedFile] = (),
) -> list[DemoRow]:
    """Inspect, convert, verify, run and time checkpoints.

    Args:
      files: the user's own.
      overrides: config values that the files do not tell.
      shipped: from `shipped_files`; each is compared with its stored outputs, and left out if not found.

    Returns:
      one row per file.

    Raises:
      CheckpointError: a file cannot be used.
    """
    jobs: list[tuple[Path, Path | None]] = [(path, None) for path in files]
    jobs += [(file.path, file.expected) for file in shipped if file.path is not None]
    return [_run_one(path, reference, overrides or {}) for path, reference in jobs]


def write_report(rows: Sequence[DemoRow], path: Path, note: str | None = None) -> None:
    """Write the rows and their plot as one self-contained HTML page.

    Args:
      rows: from `run_demo`.
      path: file to write; missing folders are created.
      note: line below the table.
    """
    header = ["file", "family", "values", "verified", "result", "batch 1", "batch 4096"]
    cells = [_cells(row) for row in rows]
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in cells
    )
    page = _PAGE.substitute(
        header="".join(f"<th>{name}</th>" for name in header),
        body=body,
        note=f'<p class="note">{html.escape(note)}</p>' if note else "",
        sparsity=_sparsity_table(rows),
        plot=_svg(rows),
        device=html.escape(f"{jax.devices()[0].device_kind}, jax {jax.__version__}"),
    )
    durable.create_folder(path.parent)
    durable.replace_text(path, page)


def _cells(row: DemoRow) -> list[str]:
    times = [f"{row.microseconds[batch]:.1f} us" if batch in row.microseconds else "-" for batch in (1, 4096)]
    verified = row.verified if row.passed else f"FAILED: {row.verified}"
    return [row.name, row.kind, str(row.parameters), verified, row.quality, *times]


def _sparsity_table(rows: Sequence[DemoRow]) -> str:
    if not any(row.sparsity for row in rows):
        return ""
    names = ("file", "neurons", "error, best neurons", "error, best blocks", "time by blocks")
    lines = [
        f"<tr><td>{html.escape(row.name)}</td><td>{part.share:.0%}</td><td>{part.neurons:.3f}</td>"
        f"<td>{part.blocks:.3f}</td><td>{part.milliseconds:.2f} ms</td></tr>"
        for row in rows
        for part in row.sparsity
    ]
    header = "".join(f"<th>{name}</th>" for name in names)
    return f"<h2>Fewer neurons</h2><table><tr>{header}</tr>{''.join(lines)}</table>{_SPARSITY_NOTE}"


def _run_one(path: Path, reference: Path | None, overrides: Mapping[str, Any]) -> DemoRow:
    report = inspect(path)
    if report.problem is not None and not overrides:
        raise report.problem
    checks = verify(path, family_report=False, overrides=overrides)
    ck = load(path, overrides=overrides)
    with tempfile.TemporaryDirectory() as folder:
        save(ck, Path(folder) / "model")
        converted = load(Path(folder) / "model")
    if reference is not None:
        checks.append(compare_outputs(converted, reference))
    shown = _llama(converted, path) if ck.kind == "sparse_inference" else _DEMOS[ck.kind](converted)
    return DemoRow(
        name=path.name,
        kind=f"{ck.kind}/{ck.variant}",
        parameters=sum(
            leaf.size
            for leaf in jax.tree.leaves(ck.params, is_leaf=is_packed)
            if is_packed(leaf) or jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
        ),
        verified=next((check for check in checks if not check.passed), checks[-1]).detail,
        passed=all(check.passed for check in checks),
        quality=shown.quality,
        microseconds={size: _median_microseconds(shown.call, batch) for size, batch in shown.batches.items()},
        curve=shown.curve,
        sparsity=shown.sparsity,
    )


@dataclass(frozen=True)
class _Shown:
    """What a family has to show.

    Attributes:
      quality: in words.
      call: jitted function to time.
      batches: its argument, by batch size.
      curve: x and y.
      sparsity: fewer and fewer neurons.
    """

    quality: str
    call: Callable[[Any], jax.Array]
    batches: dict[int, jax.Array]
    curve: tuple[np.ndarray, np.ndarray] | None = None
    sparsity: tuple[Sparsity, ...] = ()


def _ultra_sparse(ck: Checkpoint) -> _Shown:
    if ck.config.input_size != 256 or ck.config.output_size != 1:
        batches = {size: jax.numpy.zeros((size, ck.config.input_size)) for size in (1, 4096)}
        return _Shown(
            "no built-in task for this size", jax.jit(partial(forward, ck.config, ck.params)), batches
        )
    function = fuse(ck)
    x = np.linspace(-2 * np.pi, 2 * np.pi, GRID_POINTS, dtype=np.float32)
    y = np.asarray(function(jax.numpy.asarray(x)))
    mse = float(np.mean((y - np.sin(x)) ** 2))
    batches = {size: jax.numpy.linspace(-6, 6, size) for size in (1, 4096)}
    return _Shown(f"sin(x): MSE {mse:.3e}", function, batches, curve=(x, y))


def _ten(ck: Checkpoint) -> _Shown:
    step = jax.jit(partial(_next_token, ck.model))
    state = initial_state(ck.config, 1) if ck.config.streams else None
    call = partial(step, ck.params, state)
    batches = {1: jax.numpy.zeros((1, 1), jax.numpy.int32)}
    if ck.config.vocab_size < _BYTES or state is None:
        return _Shown("no built-in task for this vocabulary", call, batches)
    length = min(_NEW_BYTES, ck.config.max_seq_len - len(_PROMPT))
    found = generate(ck, [list(_PROMPT)], max_new_tokens=length, temperature=0)
    text = bytes(int(token) for token in found.tokens[0] if token < _BYTES).decode(errors="replace")
    return _Shown(f"continues {_PROMPT.decode()!r}: {text!r}", call, batches)


def _next_token(model: Any, params: Any, state: Any, tokens: jax.Array) -> jax.Array:
    return model.apply({"params": params}, tokens, state).logits


def _sprout(ck: Checkpoint) -> _Shown:
    config, rng = ck.config, np.random.default_rng(0)
    if isinstance(config, SproutConfig):
        row = jax.numpy.asarray(rng.integers(0, config.vocab_size, (1, min(_TOKENS, config.max_len))))
    else:
        row = jax.numpy.asarray(rng.normal(size=(1, _TOKENS, config.d_model)), jax.numpy.float32)
    by_neurons = partial(jax.jit(partial(_outputs, ck.model, "masked")), ck.params, row)
    dense = by_neurons(config.d_ff)
    found = tuple(_sparsity(ck, row, share, by_neurons, dense) for share in _SHARES)
    words = "; ".join(
        f"{part.share:.0%}: {part.neurons:.2f}, {part.blocks:.2f}, {part.milliseconds:.2f} ms"
        for part in found
    )
    call = partial(jax.jit(partial(_outputs, ck.model, "auto", top_k=None)), ck.params)
    return _Shown(
        f"part of the neurons: error by neurons, by blocks, time: {words}",
        call,
        {1: row[:, :1]},
        sparsity=found,
    )


def _sparsity(
    ck: Checkpoint, row: jax.Array, share: float, by_neurons: Callable[[int], jax.Array], dense: jax.Array
) -> Sparsity:
    top_k = max(1, int(share * ck.config.d_ff))
    by_blocks = partial(jax.jit(partial(_outputs, ck.model, "block", top_k=top_k)), ck.params)
    of_neurons, of_blocks = (
        float(np.std(sparse - dense) / np.std(dense)) for sparse in (by_neurons(top_k), by_blocks(row))
    )
    return Sparsity(share, of_neurons, of_blocks, _median_microseconds(by_blocks, row, 50) / 1e3)


def _outputs(model: Any, path: str, params: Any, inputs: jax.Array, top_k: Any) -> jax.Array:
    out = model.apply({"params": params}, inputs, top_k=top_k, path=path)
    return getattr(out, "logits", out)


def _force_field(ck: Checkpoint) -> _Shown:
    field = ForceField.from_checkpoint(ck)
    graph = batch_graphs([_WATER], ck.config.cutoff, dtype=field.dtype)
    call = jax.jit(lambda positions: _moved(field, graph, positions).forces)
    start = jax.numpy.asarray(graph.nodes["positions"])
    if not {1, 8} <= set(ck.config.species or (1, 8)):
        return _Shown("no built-in task for these elements", call, {1: start})
    relaxed = jax.jit(lambda positions: _relaxed(field, graph, positions))(start)
    first, second = (np.asarray(relaxed[number] - relaxed[0], np.float64) for number in (1, 2))
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    angle = np.degrees(np.arccos(first @ second / np.prod(lengths)))
    return _Shown(f"relaxes water to O-H {np.mean(lengths):.3f} A, {angle:.1f} degrees", call, {1: start})


def _moved(field: ForceField, graph: Any, positions: jax.Array) -> Any:
    return field.predict_graph(graph._replace(nodes={**graph.nodes, "positions": positions}))


def _relaxed(field: ForceField, graph: Any, positions: jax.Array) -> jax.Array:
    """Positions after many small steps along the forces."""

    def step(number: Any, positions: jax.Array) -> jax.Array:
        return positions + _STEP * _moved(field, graph, positions).forces

    return jax.lax.fori_loop(0, _STEPS, step, positions)


def _llama(ck: Checkpoint, path: Path) -> _Shown:
    from sparsejax.models.sparse_inference.llama.config import LlamaConfig
    from sparsejax.training.recipes.llama.checkpoints import PROMPT, SHARE, greedy_text
    from sparsejax.training.recipes.llama.predictors import read_predictors

    call = jax.jit(lambda tokens: ck.model.apply({"params": ck.params}, tokens))
    if not isinstance(ck.config, LlamaConfig):
        inputs = find(ck.kind).example_inputs(ck.config)
        return _Shown("no built-in task for parts of a network", call, {1: jax.numpy.asarray(inputs[0])})
    batches = {1: jax.numpy.zeros((1, 1), jax.numpy.int32)}
    if "tokenizer.ggml.model" not in ck.metadata:
        return _Shown("no built-in task without a tokenizer", call, batches)
    told = {"all neurons": greedy_text(ck)}
    if (beside := path.with_suffix(PREDICTORS)).is_dir():
        each = list(read_predictors(beside, ck).each)
        told[f"{SHARE:.0%} of them"] = greedy_text(ck, predictors=each, active_fraction=SHARE)
    texts = "; ".join(f"{how}: {text.removeprefix(PROMPT)!r}" for how, text in told.items())
    return _Shown(f"continues {PROMPT!r} with {texts}", call, batches)


_DEMOS: dict[str, Callable[[Checkpoint], _Shown]] = {
    "force_field": _force_field,
    "sprout": _sprout,
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


_SPARSITY_NOTE = (
    '<p class="note">Errors of the outputs on random tokens, as part of the spread of the outputs of all '
    f"neurons; median times of a row of {_TOKENS} tokens.</p>"
)

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
$note
$sparsity
<h2>Target and prediction</h2>
$plot
<p class="note">$device; times are medians of one call, x to y or one token, result waited for.</p>
</html>
""")
