"""Pictures of Temporal Eigenstate Networks: what they are tuned to, what they hold, how they learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from sparsejax.checkpoint.source_file import is_native
from sparsejax.plots.noisy_curve import noisy_curve
from sparsejax.plots.run_curves import metrics_of
from sparsejax.plots.style import (
    column,
    legend_beside,
    plain,
    shades,
    single,
    titled,
    with_grid,
    write_figures,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sparsejax.checkpoint.checkpoint import Checkpoint
    from sparsejax.models.ten.spectrum import Spectrum

_COLUMNS = 4
_MOST_LAYERS = 6
_SAMPLE = (
    b"The eigenstates of this network turn and fade while it reads. A slow one still holds the first word of "
    b"a page at its end; a fast one has forgotten the letter before."
)
_SAMPLE_TOKENS = 128


def eigenvalues(spectrum: Spectrum, name: str = "") -> Figure:
    """Eigenvalues of every layer within the unit circle: the nearer to it, the longer the memory.

    Args:
      spectrum: of a network.
      name: of the network, for the title.

    Returns:
      a matplotlib figure with one panel per layer, attached to no window.
    """
    from matplotlib.figure import Figure

    layers = _cells(spectrum.magnitudes), _cells(spectrum.phases)
    count, cells = layers[0].shape[:2]
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(4.2, 2.3 * columns + 0.6), 2.45 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    for number, (axis, magnitudes, phases) in enumerate(zip(axes.flat, *layers, strict=False)):
        axis.plot(circle.real, circle.imag, color="0.6", linewidth=0.8)
        axis.plot([0], [0], "+", color="0.6", markersize=6)
        for cell in range(cells):
            points = magnitudes[cell] * np.exp(1j * phases[cell])
            axis.scatter(points.real, points.imag, s=9, alpha=0.8, linewidth=0, label=f"cell {cell}")
        axis.set_title(f"layer {number}", fontsize="small")
        axis.set_aspect("equal")
        axis.set_xticks([-1, 0, 1])
        axis.set_yticks([-1, 0, 1])
        axis.tick_params(labelsize="small")
        plain(axis)
    for axis in axes[:, 0]:
        axis.set_ylabel("imaginary part", fontsize="small")
    for number in range(count - columns, count):  # the lowest panel of each column
        axes.flat[number].set_xlabel("real part", fontsize="small")
        axes.flat[number].tick_params(labelbottom=True)
    if cells > 1:
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.suptitle(titled("Eigenvalues", name), fontsize="medium")
    return figure


def half_lives(spectrum: Spectrum, name: str = "") -> Figure:
    """How many eigenstates forget half within how many tokens, layers stacked.

    Args:
      spectrum: of a network.
      name: of the network.

    Returns:
      a figure with a logarithmic axis of tokens; eigenstates that never forget are counted in the title.
    """
    layers = [np.ravel(layer) for layer in np.asarray(spectrum.half_life)]
    lasting = sum(int(np.isinf(layer).sum()) for layer in layers)
    finite = [np.maximum(layer[np.isfinite(layer)], 1e-2) for layer in layers]
    together = np.concatenate(finite) if lasting < sum(map(len, layers)) else np.ones(1)
    edges = np.geomspace(together.min() / 1.05, together.max() * 1.05, 31)
    figure, axis = single()
    colors = shades(len(finite))
    axis.hist(finite, edges, stacked=True, color=colors, label=[f"layer {n}" for n in range(len(finite))])
    axis.set_xscale("log")
    axis.set_xlabel("half-life (tokens)")
    axis.set_ylabel("eigenstates")
    axis.yaxis.get_major_locator().set_params(integer=True)
    median = np.median(np.concatenate(layers))
    axis.axvline(median, color="0.2", linestyle=":", label=f"median, {median:.3g} tokens")
    legend_beside(axis)
    what = f"Memory half-life ({lasting} eigenstates never forget)" if lasting else "Memory half-life"
    axis.set_title(titled(what, name), fontsize="medium")
    with_grid(axis)
    return figure


def state_over_time(magnitudes: Any, half_life: Any, name: str = "") -> Figure:
    """How the eigenstates grow and fade while a network reads.

    Args:
      magnitudes: (l, t, k) as `models.ten.spectrum.state_trajectory` gives them for one text.
      half_life: (l, [c,] k) tokens; the states of a layer are sorted by it.
      name: of the network.

    Returns:
      a figure with a row per layer (the first, the last and some between, if there are many): four
      eigenstates from the fastest to the slowest, and a heat map of all.
    """
    from matplotlib.figure import Figure

    magnitudes = np.asarray(magnitudes)
    lives = np.reshape(np.asarray(half_life), (magnitudes.shape[0], -1))
    shown = np.unique(np.linspace(0, len(lives) - 1, min(len(lives), _MOST_LAYERS)).astype(int))
    figure = Figure(figsize=(10, 2.1 * len(shown) + 0.9), layout="constrained")
    axes = figure.subplots(len(shown), 2, squeeze=False, sharex=True, width_ratios=(1, 1.15))
    for (left, right), layer in zip(axes, shown, strict=True):
        order = np.argsort(lives[layer], kind="stable")
        states = magnitudes[layer][:, order]
        chosen = np.unique(np.linspace(0, len(order) - 1, 4).astype(int))
        for color, place in zip(shades(len(chosen)), chosen, strict=True):
            tokens = f"{lives[layer][order[place]]:.3g}"
            left.plot(states[:, place], color=color, linewidth=1.2, label=tokens)
        left.set_ylabel(f"layer {layer}\n|state|", fontsize="small")
        left.set_ylim(bottom=0)
        left.legend(
            title="half-life (tokens)",
            title_fontsize="x-small",
            fontsize="x-small",
            frameon=False,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
        )
        with_grid(left)
        # Above the 99th percentile a single outlier would leave everything else dark.
        most = max(float(np.percentile(states, 99)), 1e-12)
        image = right.imshow(
            states.T, aspect="auto", origin="lower", interpolation="nearest", vmin=0, vmax=most, cmap="magma"
        )
        right.set_ylabel("eigenstate,\nslowest on top", fontsize="small")
        right.tick_params(labelsize="small")
        figure.colorbar(image, ax=right, pad=0.01).set_label("|state|", fontsize="small")
    for axis in axes[-1]:
        axis.set_xlabel("token")
    figure.suptitle(titled("Eigenstates over time", name), fontsize="medium")
    return figure


def resonance_norms(spectrum: Spectrum, name: str = "") -> Figure:
    """How far the mixing of the eigenstates is from none, per layer.

    Args:
      spectrum: of a network.
      name: of the network.

    Returns:
      a figure with a bar per layer, and one beside it for every further cell or block.
    """
    norms = np.asarray(spectrum.resonance_norms)
    layers, blocks = norms.shape
    figure, axis = single()
    width = 0.8 / blocks
    for block, color in enumerate(shades(blocks)):
        places = np.arange(layers) + (block - (blocks - 1) / 2) * width
        axis.bar(places, norms[:, block], width, color=color, label=f"cell or block {block}")
    axis.set_xticks(range(layers))
    axis.set_xlabel("layer")
    axis.set_ylabel("distance of the mixing from the\nidentity (Frobenius norm)")
    if blocks > 1:
        legend_beside(axis)
    axis.set_title(titled("Resonance", name), fontsize="medium")
    with_grid(axis)
    return figure


def loss_curve(metrics: Sequence[Mapping[str, Any]], name: str = "") -> Figure:
    """Training and validation loss over optimiser steps.

    Args:
      metrics: lines of a run's ``metrics.jsonl``, as `training.metric_log.read_metrics` gives them.
      name: of the run.

    Returns:
      a figure; the thick line is the mean of the training loss over a fiftieth of the steps.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axis = single()
    noisy_curve(axis, *column(metrics, "loss"))
    validated, scores = column(metrics, "validation_loss")
    if len(validated):
        axis.plot(validated, scores, color="tab:orange", marker="o", markersize=4, label="validation")
    axis.set_xlabel("optimiser step")
    axis.set_ylabel("cross-entropy (nats per token)")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize="small", frameon=False)
    twin = axis.secondary_yaxis("right", functions=(np.exp, _log))
    twin.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    twin.yaxis.set_major_formatter("{x:g}")
    twin.yaxis.set_minor_locator(NullLocator())
    twin.set_ylabel("perplexity")
    axis.set_title(titled("Loss", name), fontsize="medium")
    with_grid(axis)
    return figure


def draw_folder(folder: Path, out: Path | None = None) -> tuple[Path, ...]:
    """Draw the plots of a run or of a checkpoint into a folder.

    Args:
      folder: of ``sparsejax train ten``, or a sparsejax directory of a Temporal Eigenstate Network. An
        unfinished run gets what its metrics and its best network so far tell.
      out: folder for the pictures; ``plots`` within the other if not given.

    Returns:
      the PNG files.

    Raises:
      RunError: the folder holds no such run or network, or a run without a single step.
      CheckpointError: a network is damaged.
      ModuleNotFoundError: matplotlib is missing.
    """
    out = out or folder / "plots"
    if is_native(folder):
        return write_figures(out, network_figures(_load(folder), folder.name))
    metrics = metrics_of(folder, "ten")
    figures = {"loss": loss_curve(metrics, folder.name)}
    if is_native(folder / "best"):
        figures |= network_figures(_load(folder / "best"), f"{folder.name}, best network")
    return write_figures(out, figures)


def network_figures(ck: Checkpoint, name: str = "") -> dict[str, Figure]:
    """All plots of a network, by file name; those of a second stack begin with ``long_``.

    Args:
      ck: of a Temporal Eigenstate Network.
      name: for the titles.
    """
    from sparsejax.models.ten.spectrum import SingleStack, spectrum, state_trajectory

    figures: dict[str, Figure] = {}
    tokens, stacks = _sample(ck), get_args(SingleStack)[: len(ck.config.stacks)]
    for stack in stacks:
        prefix = "long_" if stack == "long" else ""
        found = spectrum(ck.config, ck.params, stack=stack)
        told = ", ".join(part for part in (name, f"{stack} stack" if ck.config.long_layer else "") if part)
        magnitudes = state_trajectory(ck.model, ck.params, tokens, stack=stack)
        figures |= {
            f"{prefix}eigenvalues": eigenvalues(found, told),
            f"{prefix}half_lives": half_lives(found, told),
            f"{prefix}state_over_time": state_over_time(magnitudes, found.half_life, told),
            f"{prefix}resonance_norms": resonance_norms(found, told),
        }
    return figures


def _load(path: Path) -> Checkpoint:
    from sparsejax.checkpoint.load import load

    return load(path, kind="ten")


def _sample(ck: Checkpoint) -> np.ndarray:
    """Tokens to read: a sentence where tokens are bytes, else any."""
    count = _SAMPLE_TOKENS
    if ck.config.pos_emb_type != "none":
        count = min(count, ck.config.max_seq_len)
    if ck.metadata.get("tokenizer") == "bytes":
        return np.frombuffer(_SAMPLE, np.uint8)[:count].astype(np.int32)
    return np.random.default_rng(0).integers(ck.config.vocab_size, size=count).astype(np.int32)


def _cells(values: Any) -> np.ndarray:
    """(l, c, k); modern layers have one cell."""
    values = np.asarray(values)
    return values if values.ndim == 3 else values[:, None]


def _log(perplexity: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(perplexity, 1e-12))
