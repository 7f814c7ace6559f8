"""The shipped language model: bytes of the standard library's documentation strings.

``python -m sparsejax.training.recipes.ten.checkpoints FOLDER`` trains it and writes it again.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.load import load
from sparsejax.checkpoint.save import export_pt
from sparsejax.models.ten import generate
from sparsejax.models.ten.fold import fold_normalization
from sparsejax.training.recipes.documentation import documentation
from sparsejax.training.recipes.manifest import described, record
from sparsejax.training.recipes.ten.recipe import BEST, prepare, train
from sparsejax.training.recipes.ten.settings import TenSettings

FILE = "ten_bytes.pt"
VARIANT = "ssd"
PROMPT = "Return the "

_COMMAND = "python -m sparsejax.training.recipes.ten.checkpoints checkpoints"
_POSITIONS = 512


def make_checkpoint(
    folder: Path, *, steps: int = 1500, batch_size: int = 16, seq_len: int = 256
) -> Checkpoint:
    """Train the shipped model and write it, with its expected logits and its entry in ``manifest.json``.

    Args:
      folder: target; created if needed.
      steps: optimiser steps.
      batch_size: windows per step.
      seq_len: bytes per window.
    """
    with tempfile.TemporaryDirectory() as place:
        text = Path(place) / "text.txt"
        text.write_text("\f".join(dict.fromkeys(documentation())), encoding="utf-8")
        settings = TenSettings(
            data=text,
            out=Path(place) / "run",
            # What the published layout has: a position table, and all bytes but no mark for their end.
            model_option=("pos_emb_type=learned", f"max_seq_len={_POSITIONS}"),
            separator="\f",
            steps=steps,
            batch_size=batch_size,
            seq_len=seq_len,
            learning_rate=4e-3,
            plots=False,
        )
        trained = train(prepare(settings))
        ck = load(Path(place) / "run" / BEST)
    config, params = fold_normalization(ck.config, ck.params)
    folder.mkdir(parents=True, exist_ok=True)
    export_pt(Checkpoint("ten", VARIANT, config, params), folder / FILE)
    shipped = load(folder / FILE)
    made = (
        f"preset tiny, {steps} steps of {batch_size} x {seq_len} bytes of the documentation strings of "
        f"Python {sys.version_info.major}.{sys.version_info.minor}, seed 0; input normalisation folded"
    )
    record(folder, _entry(folder, shipped, made, trained.best.score.perplexity))
    return shipped


def _entry(folder: Path, ck: Checkpoint, made: str, perplexity: float) -> dict[str, object]:
    ids = np.frombuffer(b"Return a new list of the items in the file. ", np.uint8)[None].astype(np.int32)
    return described(
        folder / FILE,
        ck,
        {"ids": ids, "logits": np.asarray(ck.apply(jnp.asarray(ids)).logits)},
        command=_COMMAND,
        made=made,
        validation_perplexity_per_byte=round(perplexity, 4),
        sample=greedy_text(ck),
        note="another Python release has other documentation strings, and gives another model",
    )


def greedy_text(ck: Checkpoint, prompt: str = PROMPT, count: int = 80) -> str:
    """The most probable continuation of a prompt, byte by byte, with the prompt."""
    found = generate(ck, [list(prompt.encode())], max_new_tokens=count, temperature=0)
    new = [int(token) for token in found.tokens[0] if token < 256]
    return prompt + bytes(new).decode(errors="replace")


if __name__ == "__main__":
    make_checkpoint(Path(sys.argv[1] if len(sys.argv) > 1 else "checkpoints"))
