"""The shipped masked language model: words of the standard library's documentation strings.

``python -m sparsejax.training.recipes.sprout.checkpoints FOLDER`` trains it and writes it again.
"""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.container import Layout
from sparsejax.checkpoint.load import load
from sparsejax.checkpoint.save import export_pt
from sparsejax.models.sprout import SproutConfig
from sparsejax.models.sprout.config import Path as SparsePath
from sparsejax.models.sprout.mlm import MaskingRule, mask_tokens, mlm_loss
from sparsejax.models.sprout.quality import ffn_quality
from sparsejax.training.recipes.documentation import documentation
from sparsejax.training.recipes.manifest import described, record
from sparsejax.training.recipes.sprout.sandwich import SHARES, Sandwich, trained
from sparsejax.training.text.special import special_ids
from sparsejax.training.text.tokenizer import JsonTokenizer, read_tokenizer
from sparsejax.training.text.wordpiece import trained_wordpiece
from sparsejax.typing import Params

FILE = "sprout_words.pt"
VOCABULARY = "sprout_words.vocab.txt"
HELD_OUT = "sprout_words.held_out.npz"
VARIANT = "v0"

_COMMAND = "python -m sparsejax.training.recipes.sprout.checkpoints checkpoints"
_WORDS = 1024
_LENGTH = 64
_HELD_OUT_EVERY = 20  # documents
_HELD_OUT_ROWS = 256
_MODES: dict[str, SparsePath] = {"neuron": "masked", "block": "block"}
_NETWORK = SproutConfig(
    vocab_size=_WORDS,
    d_model=128,
    d_ff=512,
    n_heads=4,
    n_layers=2,
    max_len=_LENGTH,
    block_size=16,
    dropout=0.0,
)


def make_checkpoint(folder: Path, settings: Sandwich | None = None) -> Checkpoint:
    """Train the shipped model and write it, its vocabulary, its held-out text, and what they give.

    Args:
      folder: target; created if needed. A vocabulary that is there already is kept: with the shipped one the
        shipped model is made again, while one trained from this text has other words.
      settings: of the training; None is those of the shipped file.

    Returns:
      the checkpoint as it is read back from the file.
    """
    settings = settings or Sandwich()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(folder)
    special = special_ids(tokenizer)
    rule = MaskingRule(tokenizer.vocab_size, special.mask, special.all)
    training, held_out = _text(tokenizer, special.cls, special.sep)
    config = dataclasses.replace(_NETWORK, vocab_size=tokenizer.vocab_size)
    params = trained(config, settings, training, rule, told=_tell)
    # Beside its tensors the file needs a config: no tensor tells the number of heads.
    layout = Layout(container="state_dict")
    export_pt(Checkpoint("sprout", VARIANT, config, params, layout=layout), folder / FILE)
    masked = mask_tokens(jax.random.key(settings.seed), jnp.asarray(held_out), rule)
    read, labels = (np.asarray(part, np.int16) for part in masked)
    np.savez_compressed(folder / HELD_OUT, read=read, labels=labels)
    shipped = load(folder / FILE)
    record(folder, _entry(folder, shipped, _made(settings)))
    return shipped


def masked_losses(ck: Checkpoint, read: Any, labels: Any) -> dict[str, float]:
    """Mean loss of held-out masked tokens by the selection: "dense", "none", or such as "block 0.1".

    Args:
      ck: of a SPROUT model.
      read: (n, t) ids with some masked.
      labels: (n, t) ids to be guessed, -100 elsewhere.
    """
    read, labels = (jnp.asarray(part, jnp.int32) for part in (read, labels))
    asked: dict[str, tuple[SparsePath, float]] = {"dense": ("masked", 1.0), "none": ("masked", 0.0)}
    asked |= {f"{name} {share}": (path, share) for name, path in _MODES.items() for share in SHARES}

    @partial(jax.jit, static_argnums=0)
    def loss(path: SparsePath, params: Params, read: Any, labels: Any, top_k: jax.Array) -> jax.Array:
        return mlm_loss(ck.model.apply({"params": params}, read, top_k=top_k, path=path).logits, labels)[0]

    return {
        name: float(loss(path, ck.params, read, labels, jnp.asarray(int(share * ck.config.d_ff))))
        for name, (path, share) in asked.items()
    }


def router_cosines(ck: Checkpoint, read: Any) -> dict[str, list[float]]:
    """Cosines of sparse to dense feed-forward outputs, the mean over layers: router, oracle, random choice.

    Args:
      ck: of a SPROUT model.
      read: (n, t) ids.
    """
    found, counts = {}, [int(share * ck.config.d_ff) for share in SHARES]
    batch = jnp.asarray(read, jnp.int32)
    for name, path in _MODES.items():
        table = ffn_quality(jax.random.key(0), ck.model, ck.params, batch, counts, path=path)
        rows = table.quality.cosine.mean(axis=1)
        for number, share in enumerate(SHARES):
            found[f"{name} {share}"] = [round(float(row[number]), 4) for row in rows]
    return found


def _tokenizer(folder: Path) -> JsonTokenizer:
    """The vocabulary that is there, or one of the most frequent pieces of words."""
    path = folder / VOCABULARY
    if not path.exists():
        made = JsonTokenizer(trained_wordpiece(dict.fromkeys(documentation()), _WORDS))
        words = sorted(made.vocabulary, key=made.vocabulary.__getitem__)
        path.write_text("\n".join(words) + "\n", encoding="utf-8")
    tokenizer = read_tokenizer(path)
    assert isinstance(tokenizer, JsonTokenizer)
    return tokenizer


def _text(tokenizer: JsonTokenizer, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, t) of training and of held-out documents, marks around each row and between documents."""
    training: list[np.ndarray] = []
    held_out: list[np.ndarray] = []
    for number, document in enumerate(dict.fromkeys(documentation())):
        part = held_out if number % _HELD_OUT_EVERY == _HELD_OUT_EVERY // 2 else training
        part.append(np.append(tokenizer.encode(document.encode()), last))
    whole, apart = (_rows(np.concatenate(part), first, last) for part in (training, held_out))
    return whole, apart[:_HELD_OUT_ROWS]


def _rows(ids: np.ndarray, first: int, last: int) -> np.ndarray:
    inner = _LENGTH - 2
    whole = ids[: len(ids) // inner * inner].reshape(-1, inner)
    return np.pad(whole, ((0, 0), (1, 1)), constant_values=((0, 0), (first, last))).astype(np.int32)


def _made(settings: Sandwich) -> str:
    return (
        f"{settings.steps} steps of {settings.batch_size} x {_LENGTH} tokens of the documentation strings of "
        f"Python {sys.version_info.major}.{sys.version_info.minor}, seed {settings.seed}: dense, by neurons "
        f"and by blocks in every batch; neurons reordered at step {settings.permuted_at}"
    )


def _entry(folder: Path, ck: Checkpoint, made: str) -> dict[str, object]:
    with np.load(folder / HELD_OUT) as text:
        read, labels = np.asarray(text["read"], np.int32), np.asarray(text["labels"], np.int32)
    ids = read[:1]
    losses = masked_losses(ck, read, labels)
    return described(
        folder / FILE,
        ck,
        {"ids": ids, "logits": np.asarray(ck.apply(jnp.asarray(ids)).logits)},
        command=_COMMAND,
        made=made,
        vocabulary=VOCABULARY,
        held_out=HELD_OUT,
        held_out_masked_loss={name: round(loss, 4) for name, loss in losses.items()},
        cosine_router_oracle_random=router_cosines(ck, read[:64]),
        note="another Python release has other documentation strings, and gives another model; so does "
        "a folder without the vocabulary, which is then trained from the text",
    )


def _tell(step: int, loss: float) -> None:
    print(f"step {step}: masked loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    make_checkpoint(Path(sys.argv[1] if len(sys.argv) > 1 else "checkpoints"))
