"""The shipped Llamas: ReGLU and SwiGLU, of the standard library's documentation strings, with predictors.

``python -m sparsejax.training.recipes.llama.checkpoints FOLDER`` trains them and writes them again.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.gguf import read_gguf, write_gguf
from sparsejax.models.sparse_inference.llama.generation import generate
from sparsejax.models.sparse_inference.llama.plain_ffn import with_plain_ffn
from sparsejax.shipped import HELD_OUT, PREDICTORS
from sparsejax.training.recipes.documentation import documentation
from sparsejax.training.recipes.llama.calibrate import Fit, calibrate_network
from sparsejax.training.recipes.llama.generate import load_llama
from sparsejax.training.recipes.llama.predictors import read_predictors, write_predictors
from sparsejax.training.recipes.llama.quality import curves
from sparsejax.training.recipes.llama.recipe import BEST, Prepared, prepare, train
from sparsejax.training.recipes.llama.settings import LlamaSettings
from sparsejax.training.recipes.manifest import described, record

PROMPT = "Return the "
SHARE = 0.25
"""Of the neurons, that the manifest's second sample computes."""

_COMMAND = "python -m sparsejax.training.recipes.llama.checkpoints checkpoints"
_RANK = 48
_SHOWN_TOKENS = 40
_CALIBRATED_EVERY = 4  # windows of the training text


@dataclass(frozen=True)
class Shipped:
    """A network that is trained for the folder.

    Attributes:
      name: of its files.
      options: of `LlamaSettings`, that differ.
    """

    name: str
    options: dict[str, Any]


NETWORKS = (
    Shipped("llama_reglu", {"activation": "relu", "sparsity_weight": 0.1}),
    Shipped("llama_swiglu", {"activation": "silu"}),
)


def make_checkpoints(folder: Path, *, runs: Path | None = None, **options: Any) -> list[Checkpoint]:
    """Train the shipped networks and write them, with predictors, held-out text and what they give.

    Args:
      folder: target; created if needed.
      runs: folder of the training runs, which go on where they were killed; a temporary one if None.
      options: of `LlamaSettings`, to make the networks smaller.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        text = Path(place) / "text.txt"
        text.write_text("\f".join(dict.fromkeys(documentation())), encoding="utf-8")
        return [_made(folder, shipped, text, runs or Path(place), options) for shipped in NETWORKS]


def network_settings(shipped: Shipped, text: Path, out: Path, **options: Any) -> LlamaSettings:
    """How a shipped network is trained.

    Args:
      shipped: which one.
      text: documents with form feeds between them.
      out: folder of the run.
      options: that differ from those of the shipped file.
    """
    settings = LlamaSettings(
        data=text,
        out=out,
        n_kv_heads=2,
        tokenizer="llama",
        separator="\f",
        steps=1000,
        batch_size=8,
        seq_len=256,
        learning_rate=3e-3,
        save_every=50,
        plots=False,
        resume=True,
    )
    return replace(settings, **shipped.options, **options)


def greedy_text(
    ck: Checkpoint, *, predictors: Any = None, active_fraction: float | None = None, prompt: str = PROMPT
) -> str:
    """The most probable continuation of a prompt, with the prompt.

    Args:
      ck: of a Llama with a tokenizer.
      predictors: one per block, or None for all neurons.
      active_fraction: of the neurons, with predictors.
      prompt: to go on from.
    """
    found = generate(
        ck if predictors is None else with_plain_ffn(ck),
        prompt,
        max_new_tokens=_SHOWN_TOKENS,
        temperature=0,
        predictors=predictors,
        active_fraction=active_fraction,
    )
    assert found.texts is not None
    return prompt + found.texts[0]


def _made(folder: Path, shipped: Shipped, text: Path, runs: Path, options: dict[str, Any]) -> Checkpoint:
    run = prepare(network_settings(shipped, text, runs / shipped.name, **options))
    if run.standing != "finished":
        train(run)
    path = folder / f"{shipped.name}.gguf"
    file = read_gguf(run.folder / f"{BEST}.gguf")
    write_gguf(path, {**file.metadata, "general.name": shipped.name}, file.tensors, types=file.types)
    ck = load_llama(path)
    seen = [run.windows[number]["inputs"] for number in range(0, len(run.windows), _CALIBRATED_EVERY)]
    whole = range(len(run.held_out) - 1)  # the last window is filled up
    unseen = [run.held_out[number]["inputs"] for number in whole]
    found = calibrate_network(ck, seen, unseen, Fit(rank=_RANK, active_fraction=SHARE))
    write_predictors(path.with_suffix(PREDICTORS), found.predictors, ck)
    np.savez_compressed(path.with_suffix(HELD_OUT), tokens=np.asarray(unseen, np.uint16))
    record(folder, _entry(path, ck, run, unseen))
    return ck


def _entry(path: Path, ck: Checkpoint, run: Prepared, unseen: list[np.ndarray]) -> dict[str, object]:
    settings = run.settings
    predictors = read_predictors(path.with_suffix(PREDICTORS), ck).each
    ids = np.asarray(unseen[0], np.int32)[None, :32]
    of_ways = curves(with_plain_ffn(ck), unseen, predictors)
    kind = "ReGLU" if settings.activation == "relu" else "SwiGLU"
    also = f", effective share of the neurons weighed {settings.sparsity_weight}"
    return described(
        path,
        ck,
        {"ids": ids, "logits": np.asarray(ck.apply(jnp.asarray(ids)).logits)},
        command=_COMMAND,
        made=f"{kind}, {settings.steps} steps of {settings.batch_size} x {settings.seq_len} tokens of the "
        f"documentation strings of Python {sys.version_info.major}.{sys.version_info.minor}, seed "
        f"{settings.seed}{also if settings.sparsity_weight else ''}; {settings.format}; predictors of rank "
        f"{_RANK}, fitted to every {_CALIBRATED_EVERY}th window of the training text",
        predictors=path.with_suffix(PREDICTORS).name,
        held_out=path.with_suffix(HELD_OUT).name,
        held_out_perplexity={
            way: {f"{share:g}": round(value, 4) for share, value in curve.items()}
            for way, curve in of_ways.items()
        },
        sample=greedy_text(ck),
        sample_of_a_quarter=greedy_text(ck, predictors=list(predictors), active_fraction=SHARE),
        note="perplexities are per token of a vocabulary of "
        f"{ck.config.vocab_size}; another Python release has other documentation strings, and gives another "
        "model" + ("; llama.cpp would compute it as SwiGLU" if kind == "ReGLU" else ""),
    )


if __name__ == "__main__":
    make_checkpoints(Path(sys.argv[1] if len(sys.argv) > 1 else "checkpoints"))
