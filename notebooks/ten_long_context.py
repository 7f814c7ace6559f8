# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A long text in a state of constant size
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sparsejax/sparsejax/blob/main/notebooks/ten_long_context.ipynb)
#
# A Temporal Eigenstate Network has no attention. What it remembers of a text, however long, are a few complex
# numbers per layer, each of which turns and fades while it reads: `c_t = lambda c_{t-1} + drive_t`. So reading takes
# time in proportion to the length, and the memory does not grow. What is gained by that, and what is lost? Both are
# measured here on a network of bytes that ships with the library.

# %%
import importlib.util

if importlib.util.find_spec("sparsejax") is None:
    # !git clone --quiet --depth 1 https://github.com/sparsejax/sparsejax
    # %cd sparsejax
    # %pip install --quiet ".[plots]"
    pass

import jax

print("device:", jax.devices()[0].platform, jax.devices()[0].device_kind)

# %%
import os
import time
from functools import partial
from pydoc_data.topics import topics

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import sparsejax as sj
from sparsejax.models.ten import generate, spectrum
from sparsejax.ops.linear_recurrence import linear_recurrence
from sparsejax.ops.linear_recurrence.decay import Decay
from sparsejax.plots.style import logarithmic, with_grid
from sparsejax.shipped import shipped_file

QUICK = os.environ.get("SPARSEJAX_QUICK") == "1"  # a shorter text and fewer repetitions, for tests
PART = 256  # bytes read per call

ck = sj.load(shipped_file("ten_bytes.pt"))
config = ck.config
print(f"{config.n_layers} layers of {config.num_eigenstates} eigenstates, width {config.dim}, {ck.num_values:,} values")

# A text of the kind that the network knows but was not trained on: Python's language reference, as it comes with it.
text = "\n\n".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore")
length = (4 if QUICK else 256) * PART
tokens = jnp.asarray(np.frombuffer(text[:length], np.uint8).astype(np.int32))[None]
print(f"{length:,} of {len(text):,} bytes of text")

# %% [markdown]
# ## Streaming
#
# The text is read in parts. After each part only the state is kept, and handed to the next call. First question: is
# that the same as reading both parts at once?

# %%
@jax.jit
def read(part, state):
    """Nats per byte (b, t - 1) of a part, its last logits, and the state after it."""
    out = ck.model.apply({"params": ck.params}, part, state=state)
    ahead = jax.nn.log_softmax(out.logits[:, :-1], axis=-1)
    return -jnp.take_along_axis(ahead, part[:, 1:, None], axis=-1)[..., 0], out.logits[:, -1], out.state


state = ck.apply(tokens[:, :1]).state
start = jax.tree.map(jnp.zeros_like, state)  # before the first byte
whole = read(tokens[:, : 2 * PART], start)
first = read(tokens[:, :PART], start)
second = read(tokens[:, PART : 2 * PART], first[2])
together = jnp.concatenate([first[0], whole[0][:, PART - 1 : PART], second[0]], 1), *second[1:]
pairs = zip(jax.tree.leaves(whole), jax.tree.leaves(together), strict=True)
difference = max(float(jnp.abs(ours - theirs).max()) for ours, theirs in pairs)
print(f"read in two parts: largest difference {difference:.1e} of losses, logits and state")

# %% [markdown]
# Second question: what does a byte cost, near the start and far from it? And how large is the memory, beside the keys
# and values that a Transformer of the same width and depth would keep (that line is arithmetic, not a measurement)?
#
# The recurrence has no end, but this network was trained with a table of 512 positions, as the published ones have, and
# there is no row for the 513th. So the eigenstates go on for ever, while the place in the table is set back to the
# middle before each part. Does that do harm? The third number tells: what the network loses per byte when it carries
# its state, and when it begins every part with nothing. (New networks have no table: `pos_emb_type="none"`.)

# %%
state, seconds, nats, fresh = first[2], [], [], []
for begin in range(PART, length, PART):
    part = jax.block_until_ready(tokens[:, begin : begin + PART])
    state = state.replace(position=jnp.full_like(state.position, PART))
    clock = time.perf_counter()
    losses, logits, state = jax.block_until_ready(read(part, state))
    seconds.append(time.perf_counter() - clock)
    nats.append(float(losses.mean()))
    fresh.append(float(read(part, start)[0].mean()))
held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
done = PART * np.arange(2, len(seconds) + 2)
kept = 2 * 4 * config.n_layers * config.dim * done  # keys and values in float32
micro = 1e6 * np.array(seconds) / PART
tenth = -(-len(micro) // 10)
# The scatter of the times is the machine's.
print(f"time per byte: {np.median(micro[:tenth]):.1f} us in the first tenth, {np.median(micro[-tenth:]):.1f} us in the last")
print(f"state after {length:,} bytes: {held:,} bytes; keys and values would be {kept[-1]:,}")
print(f"nats per byte: {np.mean(nats):.3f} with the state carried, {np.mean(fresh):.3f} when every part begins with nothing")

# %% [markdown]
# ## Does the whole pass equal the step?
#
# Inside, the states of all positions of a part are computed at once. The recurrence has several ways to do that:
# a scan, step by step; an associative scan, in a logarithmic number of rounds; chunks, by products of matrices; and a
# convolution by FFT. They must agree, and which is fastest depends on the device. In float64 the reference is exact
# as far as float32 is concerned.

# %%
steps, width = (512, 16) if QUICK else (8192, 64)
rng = np.random.default_rng(0)
drive = tuple(jnp.asarray(rng.normal(size=(1, steps, width)), jnp.float32) for _ in range(2))
magnitude, phase = rng.uniform(0.9, 0.999, width), rng.uniform(-np.pi, np.pi, width)
decay = Decay(jnp.asarray(np.log(magnitude), jnp.float32), jnp.asarray(phase, jnp.float32))
factor = np.exp(np.asarray(decay.log_magnitude, np.float64) + 1j * np.asarray(decay.frequency, np.float64))
exact, held_state = np.zeros((steps, width), complex), np.zeros(width, complex)
for step, pushed in enumerate(np.asarray(drive[0][0], np.float64) + 1j * np.asarray(drive[1][0], np.float64)):
    exact[step] = held_state = factor * held_state + pushed

recurrences = {}
for backend in ("scan", "chunked") if QUICK else ("scan", "associative", "chunked", "fft"):
    run = jax.jit(partial(linear_recurrence, backend=backend))
    (real, imaginary), _ = jax.block_until_ready(run(drive, decay))
    error = np.abs(np.asarray(real[0], np.float64) + 1j * np.asarray(imaginary[0], np.float64) - exact).max()
    times = []
    for _ in range(3 if QUICK else 15):
        clock = time.perf_counter()
        jax.block_until_ready(run(drive, decay))
        times.append(time.perf_counter() - clock)
    recurrences[backend] = 1e3 * np.median(times), error / np.abs(exact).max()
    print(f"{backend:12} {recurrences[backend][0]:7.2f} ms, largest relative error {recurrences[backend][1]:.1e}")

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
left.plot(done, micro, ".", markersize=4, alpha=0.6)
left.set(xlabel="bytes read before", ylabel="time per byte (us)", title="Time: the same at any place")
left.axhline(np.median(micro), color="0.4", linestyle=":", label="median")
left.legend(frameon=False, fontsize="small", loc="lower right")
left.set_ylim(0, 2 * np.median(micro))
middle.plot(done, kept, "--", color="tab:orange", label="keys and values of a\nTransformer (arithmetic)")
middle.plot(done, np.full(len(done), held), linewidth=2, label="this network's state")
middle.set_ylim(1e3, 1e9)
middle.set(xlabel="bytes read", ylabel="memory (bytes)", yscale="log", title="Memory: constant")
middle.legend(frameon=False, fontsize="small", loc="center right")
for axis in (left, middle):
    axis.xaxis.set_major_formatter("{x:,.0f}")
bars = right.barh(list(recurrences)[::-1], [time for time, _ in recurrences.values()][::-1])
right.bar_label(bars, [f"error {error:.0e}" for _, error in recurrences.values()][::-1], padding=3, fontsize="small")
right.set(xlabel="time (ms)", title=f"One recurrence, {steps:,} steps of {width} states")
right.margins(x=0.3)
for axis in (left, middle, right):
    with_grid(axis)
plt.show()

# %% [markdown]
# ## How far back does it look?
#
# A state of constant size cannot hold everything. Two tests. In the first, one byte of a window is changed, and the
# predictions after it are compared with those of the unchanged window: how many bytes later does it still make a
# difference? In the second, windows begin with nothing: how many bytes of context does the network need until its
# predictions get no better?

# %%
windows, span = (8, 256) if QUICK else (192, 512)
places = np.random.default_rng(1).integers(0, len(text) - span, windows)
batch = np.stack([np.frombuffer(text[place : place + span], np.uint8) for place in places]).astype(np.int32)
changed, at = batch.copy(), 32
changed[:, at] = np.where(batch[:, at] == ord("x"), ord("q"), ord("x"))


@jax.jit
def log_probabilities(tokens):
    return jax.nn.log_softmax(ck.model.apply({"params": ck.params}, tokens).logits, axis=-1)


before, after = log_probabilities(jnp.asarray(batch)), log_probabilities(jnp.asarray(changed))
divergence = np.asarray((jnp.exp(before) * (before - after)).sum(-1).mean(0))[at:]  # nats, by distance
loss = np.asarray(-jnp.take_along_axis(before[:, :-1], jnp.asarray(batch)[:, 1:, None], axis=-1)[..., 0].mean(0))
edges = np.unique(np.geomspace(1, span - 1, 12).astype(int))
needed = [loss[low:high].mean() for low, high in zip(edges, edges[1:])]
lives = np.sort(np.asarray(spectrum(config, ck.params).half_life), axis=None)
faded = int(np.argmax(divergence < divergence[0] / 100)) if (divergence < divergence[0] / 100).any() else span - at
print(f"a changed byte: {divergence[0]:.2f} nats on the next one; below a hundredth of that after {faded} bytes")
print(f"half-lives of the eigenstates: {lives[0]:.1f} to {lives[-1]:.0f} bytes, median {np.median(lives):.1f}")
print(f"nats per byte: {needed[0]:.2f} at the start of a window, {needed[-1]:.2f} at its end")

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
left.loglog(np.arange(1, len(divergence) + 1), divergence)
left.axvline(np.median(lives), color="0.4", linestyle=":", label="median half-life")
left.set(xlabel="bytes since the changed one", ylabel="change of the predictions (nats)", title="One byte changed")
middle.semilogx([np.sqrt(low * high) for low, high in zip(edges, edges[1:])], needed, "o-")
middle.set(xlabel="bytes of context", ylabel="nats per byte", title="Context that helps")
right.hist(lives, np.geomspace(lives[0] / 1.05, lives[-1] * 1.05, 30))
right.axvline(np.median(lives), color="0.4", linestyle=":", label="median")
logarithmic(right, "x")
right.set(xlabel="half-life (bytes)", ylabel="eigenstates", title="What the eigenstates are tuned to")
for axis in (left, right):
    axis.legend(frameon=False, fontsize="small")
for axis in (left, middle, right):
    with_grid(axis)
plt.show()

# %% [markdown]
# That is the price. This network was trained on windows of 256 bytes, and uses the last words, not the last page. Its
# state can *carry* something for longer where training asks for it: in the benchmarks of this library a network of
# this kind keeps a symbol over 200 silent steps without a mistake. But looking up which value was paired with
# which key stays hard for the variants without attention: about 0.3 of the answers are right where a Transformer has
# all of them.
#
# ## Generation
#
# The prompt is read once, then every byte costs the same, after one part or after all of the text above. Rows of
# different lengths run in one compiled loop.

# %%
prompts = [b"Return the ", b"The value of "]
new = 24 if QUICK else 120
options = {"max_new_tokens": new, "temperature": 0.5, "top_k": 20, "key": jax.random.key(0)}
found = generate(ck, [list(prompt) for prompt in prompts], **options)
for prompt, row in zip(prompts, found.tokens):
    print(repr(bytes([*prompt, *(int(token) for token in row if token < 256)]).decode(errors="replace")))


@jax.jit
def step(token, state):
    out = ck.model.apply({"params": ck.params}, token, state=state)
    return out.logits[:, -1].argmax(-1)[:, None], out.state


def per_token(state):
    """Median time of a step from this state."""
    token, times = jnp.zeros((1, 1), jnp.int32), []
    state = state.replace(position=jnp.full_like(state.position, PART))
    for _ in range(5 if QUICK else 200):
        clock = time.perf_counter()
        token, state = jax.block_until_ready(step(token, state))
        times.append(time.perf_counter() - clock)
    return 1e6 * np.median(times)


per_token(start)  # compiles
print(f"a step: {per_token(first[2]):.0f} us after {PART:,} bytes, {per_token(state):.0f} us after {length:,}")
