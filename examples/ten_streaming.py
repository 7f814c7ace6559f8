"""A language model with a state of constant size: read in parts, go on, generate, look inside.

python examples/ten_streaming.py [FILE]
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from sparsejax.models.ten import generate, spectrum

ck = sj.load(sys.argv[1] if len(sys.argv) > 1 else "checkpoints/ten_bytes.pt")
text = b"Return a list of the names of the entries in the directory given by path."
tokens = jnp.asarray(np.frombuffer(text, np.uint8), jnp.int32)[None]

# Any length in any parts: the state is a few vectors per layer, whatever came before.
whole = ck.apply(tokens)
first = ck.apply(tokens[:, :40])
second = ck.apply(tokens[:, 40:], state=first.state)
difference = float(jnp.abs(second.logits - whole.logits[:, 40:]).max())
size = sum(leaf.nbytes for leaf in jax.tree.leaves(first.state))
print(f"in two parts: largest difference {difference:.1e}; the state has {size:,} bytes")

# Two prompts of different lengths in one compiled loop.
prompts = [list(b"Return the "), list(b"This function ")]
found = generate(ck, prompts, max_new_tokens=60, key=jax.random.key(0), temperature=0.5, top_k=20)
for prompt, new in zip(prompts, found.tokens, strict=True):
    print(repr(bytes([*prompt, *(int(token) for token in new if token < 256)]).decode(errors="replace")))

lives = np.sort(spectrum(ck.config, ck.params).half_life, axis=None)
print(f"half-lives of eigenstates: {lives[0]:.2f} to {lives[-1]:.0f} tokens, median {np.median(lives):.1f}")
