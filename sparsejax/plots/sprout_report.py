"""A checkpoint looked at on a text: one HTML page with all pictures, and the data as JSON and CSV."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparsejax.checkpoint.native import durable
from sparsejax.plots.page import html_page, html_picture, html_table
from sparsejax.training.errors import RunError
from sparsejax.training.text.checkpoint_tokenizer import tokenizer_of
from sparsejax.training.text.corpus import read_corpus

if TYPE_CHECKING:
    from sparsejax.checkpoint.checkpoint import Checkpoint
    from sparsejax.models.sprout.analysis import Analysis

TOKENS = 8192
SEED = 0

_WINDOW = 128
_BATCH = 8
_MOST_TOPICS = 8
_PARTS = 4
_RANDOM = "random tokens"


class TextSource(NamedTuple):
    """A text to look at.

    Attributes:
      data: text file, or folder of them, each of which is a topic; a single file is cut into parts. None is
        random tokens.
      tokenizer: ``tokenizer.json`` of the text; None is the checkpoint's own, or bytes.
      tokens: to read at most.
    """

    data: Path | None = None
    tokenizer: Path | None = None
    tokens: int = TOKENS

    @property
    def told(self) -> str:
        """What it is, in words."""
        return _RANDOM if self.data is None else self.data.name


def draw_report(
    ck: Checkpoint,
    out: Path,
    text: TextSource | None = None,
    *,
    top_k: int | None = None,
    name: str = "",
) -> tuple[Path, ...]:
    """Analyse a network on a text and write what was found.

    Args:
      ck: of a `SproutLM`.
      out: folder; made if needed.
      text: to look at; None is random tokens.
      top_k: neurons per token; None is the network's ``sparse_k``, else that of its training, else a
        quarter of all.
      name: of the network, for the titles.

    Returns:
      the files: ``report.html``, ``analysis.json``, CSV tables and PNG pictures.

    Raises:
      RunError: the text cannot be used, or the network is no language model; one line.
      ModuleNotFoundError: matplotlib is missing.
    """
    import jax

    from sparsejax.models.sprout.analysis import analyse
    from sparsejax.plots.sprout_network import network_figures
    from sparsejax.plots.style import write_figures

    config = ck.config
    if not hasattr(config, "vocab_size"):
        raise RunError(f"{name or 'the checkpoint'}: is an FFN on its own, which reads no text")
    if top_k is not None and top_k < 1:
        raise RunError(f"top_k must be at least 1, not {top_k}")
    trained = ck.metadata.get("top_k")
    count = top_k or config.sparse_k or trained or max(1, config.d_ff // 4)
    blocks = config.d_ff % config.block_size == 0 and config.d_ff > config.block_size
    text = text or TextSource()
    topics = _topics(ck, text)
    found = analyse(jax.random.key(SEED), ck.model, ck.params, topics, top_k=count, blocks=blocks)
    tables = {f"{table}.csv": rows for table, rows in found.to_csv().items()}
    pictures = write_figures(out, network_figures(found, name))
    durable.replace_json(out / "analysis.json", found.to_json())
    for file, table in tables.items():
        durable.replace_text(out / file, table)
    page = out / "report.html"
    durable.replace_text(page, _page(found, pictures, name, text.told))
    return (page, *(out / file for file in ("analysis.json", *tables)), *pictures)


def topic_windows(
    streams: Mapping[str, np.ndarray], *, tokens: int, max_len: int
) -> dict[str, list[np.ndarray]]:
    """Batches (b, t) of ids of one shape, as many of each topic as its share of the tokens allows.

    Args:
      streams: ids (n,) by topic.
      tokens: of all topics together, at most.
      max_len: largest t.

    Raises:
      RunError: a topic is too short.

    Example:
      >>> found = topic_windows({"a": np.arange(9), "b": np.arange(5)}, tokens=100, max_len=4)
      >>> [[batch.tolist() for batch in batches] for batches in found.values()]
      [[[[0, 1, 2, 3]], [[4, 5, 6, 7]]], [[[0, 1, 2, 3]]]]
    """
    shortest = min(streams, key=lambda topic: len(streams[topic]))
    share = tokens // len(streams)
    length = min(max_len, _WINDOW, share, len(streams[shortest]))
    if length < 2:
        raise RunError(
            f"{shortest}: {len(streams[shortest])} of {share} tokens are too few: give more text, or --tokens"
        )
    batch = min(_BATCH, share // length, len(streams[shortest]) // length)
    found = {}
    for topic, ids in streams.items():
        count = min(share, len(ids)) // (batch * length)
        found[topic] = list(ids[: count * batch * length].reshape(count, batch, length).astype(np.int32))
    return found


def _topics(ck: Checkpoint, text: TextSource) -> dict[str, list[np.ndarray]]:
    config, (data, tokenizer, tokens) = ck.config, text
    if data is None:
        ids = np.random.default_rng(SEED).integers(config.vocab_size, size=min(tokens, TOKENS))
        return topic_windows({_RANDOM: ids}, tokens=tokens, max_len=config.max_len)
    try:
        known = tokenizer_of(ck, tokenizer)
        streams = {topic: read_corpus(file, known).tokens for topic, file in _files(data)}
    except ValueError as error:
        raise RunError(str(error)) from error
    streams = {topic: ids[ids != known.end] for topic, ids in streams.items()}
    if largest := [int(ids.max()) for ids in streams.values() if ids.max() >= config.vocab_size]:
        raise RunError(
            f"{data}: holds token {largest[0]}, the network knows {config.vocab_size}: its text has another "
            "tokenizer; give it with --tokenizer FILE"
        )
    if len(streams) == 1:
        (ids,) = streams.values()
        parts = np.array_split(ids, _PARTS)
        streams = {f"part {number}": part for number, part in enumerate(parts, 1)}
    return topic_windows(streams, tokens=tokens, max_len=config.max_len)


def _files(data: Path) -> Iterator[tuple[str, Path]]:
    """Topics and their files; the first ones of a folder by name."""
    if not data.is_dir():
        yield data.stem, data
        return
    files = sorted(file for file in data.rglob("*.txt") if file.is_file())
    if not files:
        raise RunError(f"{data}: holds no .txt file")
    for file in files[:_MOST_TOPICS]:
        yield str(file.relative_to(data).with_suffix("")), file


def _page(found: Analysis, pictures: Sequence[Path], name: str, text: str) -> str:
    counts = sorted(set(found.top_k))
    told = " or ".join(f"{count:,}" for count in counts)
    intro = (
        f"{found.tokens:,} tokens of {text}; {told} of {found.d_ff:,} neurons per token "
        f"({100 * np.mean(found.top_k) / found.d_ff:.3g} %)."
    )
    shown = "".join(html_picture(file, *_NOTES[file.stem]) for file in pictures)
    body = f"<p>{html.escape(intro)}</p>\n{_layer_table(found)}{_quality_table(found)}{shown}"
    return html_page(f"{name or 'SPROUT network'}: neurons and routers", body)


def _layer_table(found: Analysis) -> str:
    statistics, layers = found.usage_statistics, found.layers
    head = ("layer", "never used", "rare", "common", "Gini", "router entropy", "of the oracle's neurons")
    rows = [
        (
            number,
            int(statistics.never[number]),
            int(statistics.rare[number]),
            int(statistics.common[number]),
            f"{statistics.gini[number]:.3f}",
            f"{layers.entropy[number]:.3f}",
            f"{layers.oracle_overlap[number]:.1%}",
        )
        for number in range(len(found.top_k))
    ]
    return html_table(head, rows)


def _quality_table(found: Analysis) -> str:
    head = ("cosine to all neurons", *(f"{100 * k / found.d_ff:.3g} %" for k in found.quality["ffn"].top_k))
    rows = []
    for of, table in found.quality.items():
        cosines = table.quality.cosine
        cosines = cosines.mean(axis=1) if cosines.ndim > 2 else cosines
        for kind, values in zip(table.selections, cosines, strict=True):
            rows.append((f"{of}, {kind}", *(f"{value:.3f}" for value in values)))
    return html_table(head, rows)


_NOTES = {
    "usage": ("Neuron usage", "The dotted line is use by all neurons alike."),
    "evenness": ("Evenness", "Rare is less than a tenth of the mean, but used."),
    "quality": (
        "Quality against sparsity",
        "How near sparse outputs are to those of all neurons. The oracle selects the largest activations; a "
        "random selection is expected on the dotted line. A router is worth what it gains over that.",
    ),
    "layers": ("Layers", "A router with no preference has the entropy on the dotted line."),
    "coactivation": (
        "Co-activation",
        "Red: neurons that the same tokens use; blue: that exclude each other.",
    ),
    "similarity": ("Similarity of neurons", "Neurons with a cosine near 1 do the same work twice."),
    "senses": (
        "Contexts",
        "A high overlap of the same token in different places means that routing looks at the token and "
        "little at its context.",
    ),
    "router_similarity": ("Routers of the layers", "Unrelated matrices have a cosine near 0."),
    "topics": (
        "Topics",
        "Files of a folder, or parts of one file. A specialist is used by one topic's tokens more than 1.5 "
        "times as often as by those of any other.",
    ),
}
