"""Pictures of sparse FFNs: which neurons work, how routers choose, what sparsity costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax.models.sprout.analysis import Analysis, normalised_coactivation, pattern_cosines
from sparsejax.models.sprout.analysis.specialisation import SPECIALISED
from sparsejax.models.sprout.quality import QualityTable
from sparsejax.plots.style import legend_beside, shades, side_by_side, single, titled, with_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 3
_SHOWN_NEURONS = 256
_BINS = 31
_COLORS = {"router": "tab:blue", "oracle": "tab:green", "random": "tab:gray"}
_NAMES = {
    "router": "learned router",
    "oracle": "oracle: largest activations",
    "random": "random selection",
}
_PANELS = {
    "ffn": "FFN outputs, neurons",
    "logits": "logits, neurons",
    "block ffn": "FFN outputs, whole blocks (rounded down)",
    "block logits": "logits, whole blocks (rounded down)",
}


def usage(analysis: Analysis, name: str = "") -> Figure:
    """How often the neurons of each layer are used: from the most to the least used, and as a histogram.

    Args:
      analysis: of a network.
      name: of the network, for the title.

    Returns:
      a matplotlib figure attached to no window.
    """
    figure, (left, right) = side_by_side(2)
    rates = 100 * analysis.usage.frequency
    bins = np.linspace(0, max(rates.max(), 1e-9), _BINS)
    for number, (layer, color) in enumerate(zip(rates, shades(len(rates)), strict=True)):
        left.plot(np.sort(layer)[::-1], color=color, linewidth=1.3, label=f"layer {number}")
        right.hist(layer, bins, histtype="step", color=color, linewidth=1.2)
    for axis, line in ((left, left.axhline), (right, right.axvline)):
        mean = 100 * np.mean(analysis.top_k) / analysis.d_ff
        line(mean, color="0.3", linestyle=":", linewidth=1.2, label="even use" if axis is left else None)
        with_grid(axis)
    left.set_xlabel("neurons, the most used first")
    left.set_ylabel("tokens that use the neuron (%)")
    left.set_ylim(bottom=0)
    right.set_xlabel("tokens that use the neuron (%)")
    right.set_ylabel("neurons")
    left.legend(fontsize="small", frameon=False)
    figure.suptitle(titled("Neuron usage", name), fontsize="medium")
    return figure


def evenness(analysis: Analysis, name: str = "") -> Figure:
    """How evenly each layer uses its neurons: Gini coefficient, and neurons never or rarely used.

    Args:
      analysis: of a network.
      name: of the network.
    """
    figure, (left, right) = side_by_side(2)
    found, layers = analysis.usage_statistics, np.arange(len(analysis.top_k))
    left.bar(layers, found.gini, 0.6, color="tab:blue")
    left.set_ylim(0, 1)
    left.set_ylabel("Gini coefficient of usage\n(0 is even)")
    bottom = np.zeros(len(layers))
    parts = {"never used": found.never, "rare": found.rare, "common": found.common}
    for (label, counts), color in zip(parts.items(), ("0.75", "tab:orange", "tab:blue"), strict=True):
        share = 100 * counts / analysis.d_ff
        right.bar(layers, share, 0.6, bottom=bottom, color=color, label=label)
        bottom += share
    right.set_ylabel("neurons (%)")
    right.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    for axis in (left, right):
        _layer_axis(axis, len(layers))
    figure.suptitle(titled("Evenness of usage", name), fontsize="medium")
    return figure


def coactivation(analysis: Analysis, name: str = "") -> Figure:
    """Which neurons are used by the same tokens: correlations, alike neurons side by side.

    Args:
      analysis: of a network.
      name: of the network.

    Returns:
      a figure with a heat map per layer, of the most used neurons where there are many.
    """
    from matplotlib.figure import Figure

    maps = [
        _ordered(matrix, rates)
        for matrix, rates in zip(
            normalised_coactivation(analysis.coactivation), analysis.usage.frequency, strict=True
        )
    ]
    most = max(0.05, *(float(np.percentile(np.abs(part), 99)) for part in maps))
    columns = min(len(maps), _COLUMNS)
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(3.1 * columns + 1.2, 3.1 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(maps) :]:
        axis.set_visible(False)
    for number, (axis, part) in enumerate(zip(axes.flat, maps, strict=False)):
        image = axis.imshow(part, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
        axis.set_title(f"layer {number}", fontsize="small")
        axis.tick_params(labelsize="small")
    for axis in axes[:, 0]:
        axis.set_ylabel("neuron, reordered", fontsize="small")
    for number in range(len(maps) - columns, len(maps)):
        axes.flat[number].set_xlabel("neuron, reordered", fontsize="small")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("correlation of use over tokens", fontsize="small")
    shown = len(maps[0])
    what = "Co-activation" if shown == analysis.d_ff else f"Co-activation of the {shown} most used neurons"
    figure.suptitle(titled(what, name), fontsize="medium")
    return figure


def similarity(analysis: Analysis, name: str = "") -> Figure:
    """How alike the input weights of a layer's neurons are: a histogram over pairs.

    Args:
      analysis: of a network.
      name: of the network.
    """
    figure, axis = single()
    edges = np.linspace(-1, 1, 101)
    for number, color in enumerate(shades(len(analysis.similarity))):
        found = analysis.similarity[number]
        cosines = found.matrix[np.triu_indices(len(found.matrix), 1)]
        label = f"layer {number}, at most {found.max:.2f}"
        axis.hist(cosines, edges, histtype="step", color=color, linewidth=1.2, label=label)
    axis.set_yscale("log")
    axis.set_xlabel("cosine of the input weights of two neurons")
    axis.set_ylabel("pairs of neurons")
    legend_beside(axis)
    with_grid(axis)
    axis.set_title(titled("Similarity of neurons", name), fontsize="medium")
    return figure


def quality(analysis: Analysis, name: str = "") -> Figure:
    """What is left of the dense outputs at several numbers of neurons, by selection.

    Args:
      analysis: of a network.
      name: of the network.

    Returns:
      a figure with a panel for FFN outputs, the mean over layers, and one for logits; two more where whole
      blocks were looked at.
    """
    shown = [(title, analysis.quality[of]) for of, title in _PANELS.items() if of in analysis.quality]
    from matplotlib.figure import Figure

    rows = -(-len(shown) // 2)
    figure = Figure(figsize=(9.4, 3.3 * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False, sharex=True, sharey=True)
    for axis, (title, table) in zip(axes.flat, shown, strict=True):
        _quality_lines(axis, table, analysis.d_ff)
        axis.set_title(title, fontsize="small")
    for axis in axes[-1]:
        axis.set_xlabel("neurons per token (% of all)")
    for axis in axes[:, 0]:
        axis.set_ylabel("cosine to the output of all neurons")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    figure.suptitle(titled("Quality against sparsity", name), fontsize="medium")
    return figure


def layers(analysis: Analysis, name: str = "") -> Figure:
    """One number per layer: entropy of the router, oracle overlap, sparsity of activations, output norm.

    Args:
      analysis: of a network.
      name: of the network.
    """
    from matplotlib.figure import Figure

    found, numbers = analysis.layers, np.arange(len(analysis.top_k))
    chance = 100 * np.mean(analysis.top_k) / analysis.d_ff
    panels = (
        ("entropy of the router's scores\n(nats)", found.entropy, np.log(analysis.choices), "no preference"),
        ("neurons that the oracle\nselects too (%)", 100 * found.oracle_overlap, chance, "by chance"),
        ("activations below 0.01 (%)", 100 * found.activation_sparsity, None, ""),
        ("norm of a token's FFN output", found.output_norm, None, ""),
    )
    figure = Figure(figsize=(9.4, 6.2), layout="constrained")
    for axis, (label, values, line, told) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        axis.bar(numbers, values, 0.6, color="tab:blue")
        axis.set_ylabel(label)
        if line is not None:
            axis.axhline(line, color="0.3", linestyle=":", label=f"{told}, {line:.3g}")
            axis.set_ylim(top=1.22 * max(line, float(np.max(values))))
            axis.legend(fontsize="small", frameon=False, loc="upper right")
        _layer_axis(axis, len(numbers))
    figure.suptitle(titled("Routers and activations of the layers", name), fontsize="medium")
    return figure


def topics(analysis: Analysis, name: str = "") -> Figure:
    """Neurons that serve one topic, and how alike topics use neurons.

    Args:
      analysis: of a network on a text of several topics.
      name: of the network.

    Raises:
      ValueError: there is one topic only.
    """
    found, frequency = analysis.specialisation, analysis.topic_frequency
    if found is None or frequency is None:
        raise ValueError("the text has one topic only")
    figure, (left, right) = side_by_side(2)
    bottom = np.zeros(len(analysis.top_k))
    for number, topic in enumerate(analysis.topics):
        share = 100 * found.specialists[:, number] / analysis.d_ff
        left.bar(np.arange(len(share)), share, 0.6, bottom=bottom, label=_short(topic), color=f"C{number}")
        bottom += share
    left.set_ylabel(f"neurons that one topic uses more than\n{SPECIALISED:g} times as often as any other (%)")
    # Room for the legend above the bars.
    left.set_ylim(0, max(1.0, bottom.max()) * (1.15 + 0.09 * -(-len(analysis.topics) // 2)))
    left.legend(fontsize="x-small", frameon=False, ncols=2, loc="upper center")
    _layer_axis(left, len(bottom))
    alike = np.mean([pattern_cosines(frequency[:, layer]) for layer in range(len(bottom))], axis=0)
    _numbered(figure, right, alike, [_short(topic) for topic in analysis.topics])
    right.set_title("cosine of the topics' usage, mean over layers", fontsize="small")
    figure.suptitle(titled("Topics", name), fontsize="medium")
    return figure


def senses(analysis: Analysis, name: str = "") -> Figure:
    """Whether a token uses the same neurons wherever it stands.

    Args:
      analysis: of a network.
      name: of the network.
    """
    figure, axis = single()
    numbers = np.arange(len(analysis.top_k))
    axis.bar(numbers - 0.2, analysis.senses.same, 0.38, color="tab:blue", label="same token, another place")
    axis.bar(numbers + 0.2, analysis.senses.different, 0.38, color="tab:orange", label="different tokens")
    chance = float(np.mean(analysis.senses.chance))
    axis.axhline(chance, color="0.3", linestyle=":", label=f"by chance, {chance:.2f}")
    axis.set_ylim(0, 1)
    axis.set_ylabel("overlap of the neurons used\n(Jaccard index)")
    _layer_axis(axis, len(numbers))
    legend_beside(axis)
    axis.set_title(titled("Neurons of a token in different places", name), fontsize="medium")
    return figure


def router_similarity(analysis: Analysis, name: str = "") -> Figure:
    """Cosines of the layers' router matrices.

    Args:
      analysis: of a network.
      name: of the network.
    """
    from matplotlib.figure import Figure

    count = len(analysis.router_cosines)
    figure = Figure(figsize=(max(4.6, 0.7 * count + 2.2), max(3.8, 0.6 * count + 1.4)), layout="constrained")
    axis = figure.subplots()
    _numbered(figure, axis, analysis.router_cosines, [str(number) for number in range(count)])
    axis.set_xlabel("layer")
    axis.set_ylabel("layer")
    axis.set_title(titled("Cosine of router matrices", name), fontsize="medium")
    return figure


def network_figures(analysis: Analysis, name: str = "") -> dict[str, Figure]:
    """All plots of a network, by file name.

    Args:
      analysis: of the network.
      name: for the titles.
    """
    drawn = [usage, evenness, quality, layers, coactivation, similarity, senses, router_similarity]
    if analysis.specialisation is not None:
        drawn.append(topics)
    return {function.__name__: function(analysis, name) for function in drawn}


def _quality_lines(axis: Any, table: QualityTable, d_ff: int) -> None:
    from matplotlib.ticker import NullLocator

    share = 100 * np.asarray(table.top_k) / d_ff
    cosines = table.quality.cosine
    cosines = cosines.mean(axis=1) if cosines.ndim > 2 else cosines
    for kind, values in zip(table.selections, cosines, strict=True):
        style = {"linestyle": "--", "zorder": 1} if kind == "random" else {"marker": "o", "markersize": 4}
        axis.plot(share, values, color=_COLORS[kind], linewidth=1.4, label=_NAMES[kind], **style)
    if table.quality.cosine.ndim > 2:  # what holds for the outputs of an FFN, not for logits
        fine = np.geomspace(share.min(), share.max(), 50)
        axis.plot(fine, np.sqrt(fine / 100), ":", color="0.3", zorder=0, label="sqrt(k / d_ff)")
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(share, [f"{value:.2g}" for value in share])
    axis.set_ylim(0, 1.03)
    with_grid(axis)


def _ordered(matrix: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Correlations of the most used neurons, by angle in the plane of the two largest eigenvectors."""
    chosen = np.argsort(-rates, kind="stable")[:_SHOWN_NEURONS]
    part = matrix[np.ix_(chosen, chosen)].copy()
    np.fill_diagonal(part, 0)
    _, vectors = np.linalg.eigh(part)
    order = np.argsort(np.arctan2(vectors[:, -2], vectors[:, -1]), kind="stable")
    return part[np.ix_(order, order)]


def _numbered(figure: Figure, axis: Any, matrix: np.ndarray, labels: Sequence[str]) -> None:
    """A small heat map of values up to 1, with the values in its cells."""
    low = min(0.0, float(matrix.min()))
    image = axis.imshow(matrix, vmin=low, vmax=1, cmap="viridis")
    slanted = max(map(len, labels)) > 3
    axis.set_xticks(range(len(labels)), labels, fontsize="small", rotation=30 if slanted else 0)
    if slanted:
        for tick in axis.get_xticklabels():
            tick.set_horizontalalignment("right")
    axis.set_yticks(range(len(labels)), labels, fontsize="small")
    for row, column in np.ndindex(*matrix.shape):
        value = float(matrix[row, column])
        color = "black" if value > low + 0.6 * (1 - low) else "white"
        axis.text(
            column,
            row,
            f"{round(value, 2) + 0.0:.2f}",
            ha="center",
            va="center",
            fontsize="x-small",
            color=color,
        )
    figure.colorbar(image, ax=axis, shrink=0.85)


def _short(topic: str) -> str:
    return topic if len(topic) <= 16 else f"{topic[:15]}…"


def _layer_axis(axis: Any, count: int) -> None:
    axis.set_xticks(range(count))
    axis.set_xlabel("layer")
    with_grid(axis)
