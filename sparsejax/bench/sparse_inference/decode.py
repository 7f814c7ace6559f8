"""Whole Llamas from GGUF files, token after token, beside llama.cpp on the same file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.bench.contest import build
from sparsejax.bench.machine import Machine
from sparsejax.bench.peers.llama_cpp_model import LlamaCppModel
from sparsejax.bench.report import Row
from sparsejax.bench.timing import race

PEER = "llama.cpp"
_FIRST = 3
_NOTE = (
    "Greedy generation from one token on, the weights quantised in memory as in the file; no tokenizer is "
    "part of it. Weights are random but for the shipped network's. llama.cpp rounds the inputs of products "
    "to 8 bits: where two tokens are nearly as probable, it may take the other one, and goes on from there."
)
_WITHOUT = (
    "This llama.cpp multiplies repacked weights by instructions (AMX) that the machine does not run: "
    "it was measured without repacking."
)


@dataclass(frozen=True)
class Sizes:
    """Of a network that is drawn.

    Attributes:
      words: of the case.
      options: of `LlamaConfig`.
      formats: of its matrices, one file each.
    """

    words: str
    options: dict[str, Any]
    formats: tuple[str, ...]


_QWEN2 = {"architecture": "qwen2", "biases": ("attn_q", "attn_k", "attn_v")}
LARGE = Sizes(
    "Llama of 121 million parameters",
    {"d_model": 1024, "d_ff": 4096, "n_layers": 8, "n_heads": 16, "n_kv_heads": 4},
    ("q8_0", "q4_0"),
)
QWEN2 = Sizes(
    "Qwen2 of 3 million parameters",
    {"d_model": 256, "d_ff": 768, "n_layers": 4, "n_heads": 8, "n_kv_heads": 2, **_QWEN2},
    ("q8_0",),
)
QUICK = Sizes("tiny Llama", {"d_model": 64, "d_ff": 96, "n_layers": 2, "n_heads": 2}, ("q8_0",))


def measure(machine: Machine, folder: Path, *, quick: bool) -> Iterator[Row]:
    """A row per file.

    Args:
      machine: of the run.
      folder: for the files.
      quick: a tiny network alone, and fewer tokens.
    """
    count = 8 if quick else 64
    if not quick:
        from sparsejax.shipped import shipped_file

        shipped = shipped_file("llama_swiglu.gguf")
        yield decode_row("the shipped Llama, q8_0", shipped, count, machine, quick=quick)
    for sizes in (QUICK,) if quick else (LARGE, QWEN2):
        for kept in sizes.formats:
            path = folder / f"{kept}.gguf"
            write_random(path, sizes, kept)
            yield decode_row(f"{sizes.words}, {kept}", path, count, machine, quick=quick)


def decode_row(words: str, path: Path, count: int, machine: Machine, *, quick: bool) -> Row:
    """Tokens a second, ours and llama.cpp's, and how many of the tokens are the same.

    Args:
      words: of the case.
      path: of the file.
      count: tokens of a call.
      machine: of the run.
      quick: fewer repetitions.
    """
    import sparsejax as sj
    from sparsejax.models.sparse_inference.llama.generation import generate

    ck = sj.load(path)
    options: dict[str, Any] = {"max_new_tokens": count, "temperature": 0, "stop_tokens": []}
    ours: Callable[[], Any] = lambda: generate(ck, [[_FIRST]], **options).tokens[0]  # noqa: E731
    models: list[LlamaCppModel] = []

    def peer() -> Callable[[], Any]:
        models.append(LlamaCppModel(path, threads=machine.threads))
        return partial(models[0], _FIRST, count)

    built, seconds, notes = build({PEER: peer})
    calls = {"ours": ours, **{name: call for name, call in built.items() if call}}
    tokens = {name: np.asarray(call()) for name, call in calls.items()}
    times = race(calls, repetitions=3 if quick else 21, time_limit=5 if quick else 20)
    same = {name: int(np.cumprod(found == tokens["ours"]).sum()) for name, found in tokens.items()}
    if models and not models[0].repacks:
        notes = [*notes, _WITHOUT]
    rates = {name: count / time.median for name, time in times.items()}
    nbytes = path.stat().st_size
    return Row(
        case=f"decode, {words}, {nbytes / 1e6:,.1f} MB",
        unit="tokens/s",
        ours=rates["ours"],
        peers={name: rates.get(name) for name in built},
        quality={"first tokens that are the same": f"{same.get(PEER, count)} of {count}"},
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        bound=f"memory: {nbytes / 1e6:,.1f} MB a token at {machine.memory_gb_s:.0f} GB/s = "
        f"{machine.memory_gb_s * 1e9 / nbytes:,.0f} tokens/s",
        spread={name: round(time.spread, 3) for name, time in times.items()},
        best={name: count / time.best for name, time in times.items()},
        first_call={name: time.first_call + seconds.get(name, 0.0) for name, time in times.items()},
        notes=[_NOTE, *notes],
    )


def write_random(path: Path, sizes: Sizes, kept: str) -> None:
    """A file of a network that was drawn and never trained, with a tokenizer of bytes.

    Args:
      path: to write.
      sizes: of the network.
      kept: format of its matrices.
    """
    import jax

    from sparsejax.models.sparse_inference.llama.config import LlamaConfig
    from sparsejax.models.sparse_inference.llama.rope import RopeConfig
    from sparsejax.training.recipes.llama.file import write_llama
    from sparsejax.training.recipes.llama.parts import initial_params
    from sparsejax.training.recipes.llama.vocabulary import vocabulary

    options = dict(sizes.options)
    if options.get("architecture") == "qwen2":
        options["rope"] = RopeConfig(options["d_model"] // options["n_heads"], interleaved=False)
    config = LlamaConfig(vocab_size=260, context_length=256, **options)
    params = jax.jit(partial(initial_params, config))(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf * 4 if leaf.ndim == 2 else leaf, params)  # far from ties
    write_llama(path, config, params, kept_format=kept, also=vocabulary("bytes", (), 0))
