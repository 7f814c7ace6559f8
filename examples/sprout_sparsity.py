"""A language model that computes each token with as many neurons as it is given: what that costs and saves.

python examples/sprout_sparsity.py [FILE]
"""

import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from sparsejax.models.sprout.mlm import mlm_loss
from sparsejax.training.recipes.sprout.fill_mask import fill_mask
from sparsejax.training.text.tokenizer import read_tokenizer

path = Path(sys.argv[1] if len(sys.argv) > 1 else "checkpoints/sprout_words.pt")
ck = sj.load(path)
neurons, size = ck.config.d_ff, ck.config.block_size
print(f"{ck.config.n_layers} layers of {neurons} neurons, {neurons // size} blocks of {size}")


# The number of neurons is an argument like any other: one program serves all of them.
@partial(jax.jit, static_argnames="choice")
def logits(tokens, top_k, choice):
    return ck.apply(tokens, top_k=top_k, path=choice).logits


# Held-out text with some words masked lies beside the file.
with np.load(path.with_suffix(".held_out.npz")) as text:
    read, labels = (jnp.asarray(text[name][:64], jnp.int32) for name in ("read", "labels"))
dense = logits(read, neurons, "masked")
print(f"all neurons: masked loss {float(mlm_loss(dense, labels)[0]):.3f}")
for share in (0.5, 0.25, 0.1):
    for choice, name in (("masked", "neurons"), ("block", "whole blocks")):
        sparse = logits(read, int(share * neurons), choice)
        difference = float(jnp.sqrt(jnp.mean((sparse - dense) ** 2)) / dense.std())
        loss = float(mlm_loss(sparse, labels)[0])
        print(f"{share:4.0%} of the {name}: logits {difference:.3f} of their spread apart, loss {loss:.3f}")


# Time depends on the program, so there the number is static. Layers as small as these gain nothing by blocks;
# `sparsejax bench sprout` measures layers of the published size.
def milliseconds(top_k):
    run = jax.jit(lambda tokens: ck.apply(tokens, top_k=top_k, path="block").logits)
    jax.block_until_ready(run(read))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(run(read))
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times)[2]


for share in (1.0, 0.1):
    print(f"{share:4.0%} of the neurons in blocks: {milliseconds(int(share * neurons)):.1f} ms")

# Masked words, guessed by all neurons and by a tenth of them.
sentence = "Return [MASK] if the file is a directory."
tokenizer = read_tokenizer(path.with_suffix(".vocab.txt"))
for top_k in (neurons, neurons // 10):
    for guess in fill_mask(ck, sentence, 3, top_k=top_k, tokenizer=tokenizer)[0]:
        print(f"{top_k} neurons: {guess.text} ({guess.probability:.0%})")
