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
# # From a GGUF file to sparse inference
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sparsejax/sparsejax/blob/main/notebooks/gguf_to_sparse_inference.ipynb)
#
# Most of a language model's work is in its feed-forward layers, and for any one token most of their neurons do little.
# If a small predictor names the neurons that matter, the others need not be computed, nor even be read. How many
# can be left out, and what is won? It depends on the network: two that differ only in their activation are
# compared, small ones that ship with this library as GGUF files.

# %%
import importlib.util

if importlib.util.find_spec("sparsejax") is None:
    # !git clone --quiet --depth 1 https://github.com/sparsejax/sparsejax
    # %cd sparsejax
    # %pip install --quiet ".[plots,text]"
    pass

import jax

print("device:", jax.devices()[0].platform, jax.devices()[0].device_kind)

# %%
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display

import sparsejax as sj
from sparsejax.models.sparse_inference import (
    CacheConfig,
    Calibrator,
    LookAhead,
    LowRankPredictor,
    NeuronStore,
    SparsityConfig,
    StoredFFN,
    collect_ffn_inputs,
    ffn_weights,
    generate,
    predicted_ffn,
    predictor_statistics,
    read_gguf,
    with_plain_ffn,
    write_neurons,
)
from sparsejax.ops.sparse_ffn import FFNWeights
from sparsejax.plots.sparse_inference import perplexity_curves
from sparsejax.plots.style import logarithmic, with_grid
from sparsejax.shipped import shipped_file
from sparsejax.training.recipes.llama.quality import oracles, perplexities

# %matplotlib inline
QUICK = os.environ.get("SPARSEJAX_QUICK") == "1"  # one network, little text and narrow layers, for tests
SHARE = 0.25

# %% [markdown]
# ## What is in the file
#
# A GGUF file is read safely: every size is checked before anything is allocated, and tensors are read when they are
# asked for. Quantised matrices stay quantised; of Q8_0 a block of 32 numbers is 34 bytes.

# %%
path = shipped_file("llama_reglu.gguf")
file = read_gguf(path)
report = sj.inspect(path)
formats = Counter(row.dtype for row in report.tensors)
print("architecture:", report.facts)
print("tensors:", ", ".join(f"{count} of {name}" for name, count in formats.items()))
gate = file.tensors["blk.0.ffn_gate.weight"].quantized()
print(f"gate of block 0: {gate.format}, {gate.shape}; rows 3 and 5 alone: {gate.rows([3, 5]).shape}")

# %%
prompt = "Return the "
ck = sj.load(path)
config = ck.config
print(f"{config.n_layers} blocks of {config.d_ff} neurons, gates {config.activation}")
greedy = {"max_new_tokens": 8 if QUICK else 30, "temperature": 0}
if not QUICK:
    print("all neurons:", prompt + generate(ck, prompt, **greedy).texts[0])

# %% [markdown]
# ## Predictors
#
# A predictor reads what the layer reads and gives every neuron a score, by two thin matrices (here of rank 64). It is
# fitted in closed form to what the layer does on some text, and measured on text that it was not fitted to.

# %%
def calibrated(ck, rows):
    """A predictor for every block, fitted to the network's own inputs on rows of text."""
    activation = ck.config.activation
    # The gates of ReGLU are linear in what the layer reads, so that these are what is fitted.
    target = {"target": "sums", "by": "activation"} if activation == "relu" else {}
    share = SparsityConfig.with_active_fraction(SHARE)
    calibrators = [
        Calibrator(ffn_weights(ck.params, layer), share, activation=activation, rank=ck.config.d_model // 2, **target)
        for layer in range(ck.config.n_layers)
    ]
    for batch in collect_ffn_inputs(ck, rows):
        for calibrator, inputs in zip(calibrators, batch, strict=True):
            calibrator.add(inputs)
    return [calibrator.finish().predictor for calibrator in calibrators]


def held_out(path):
    """Rows of text that the network was not trained on: to fit to, and to measure on."""
    with np.load(path.with_suffix(".held_out.npz")) as text:
        rows = list(text["tokens"].astype(np.int32))[: 8 if QUICK else None]
    return rows[: -len(rows) // 4], rows[-len(rows) // 4 :]


seen, unseen = held_out(path)
clock = time.perf_counter()
predictors = calibrated(ck, seen)
print(f"{sum(map(len, seen)):,} tokens to fit to; fitted in {time.perf_counter() - clock:.1f} s")
if not QUICK:
    batches = list(collect_ffn_inputs(ck, unseen))
    for layer, predictor in enumerate(predictors):
        inputs = np.concatenate([batch[layer] for batch in batches])
        weights = ffn_weights(ck.params, layer)
        share = SparsityConfig.with_active_fraction(SHARE)
        found = predictor_statistics(inputs, predictor, weights, share, activation=config.activation)
        print(
            f"block {layer}: {found.truly_active:.0%} of the neurons are active at all; a quarter that the predictor names "
            f"has {found.recall_of_active:.0%} of them, and {found.energy_kept:.1%} of the energy"
        )

# %% [markdown]
# ## What it costs
#
# Perplexity of unseen text against the share of the neurons that each token computes. An *oracle* computes all neurons
# and keeps the best: no predictor can beat it by much. The green band is 3 % above the perplexity with all neurons.

# %%
def measured(ck, rows, predictors):
    """Perplexities by share, of the predictors' choice and of the best one."""
    ways = {"predictor": predictors, "oracle": oracles(ck)}
    return {way: perplexities(ck, rows, chosen, fractions) for way, chosen in ways.items()}


fractions = (1.0, SHARE) if QUICK else (1.0, 0.5, 0.25, 0.1, 0.05)
networks = {"llama_reglu": measured(ck, unseen[:2] if QUICK else unseen[:16], predictors)}
if not QUICK:
    path = shipped_file("llama_swiglu.gguf")
    other, (other_seen, other_unseen) = sj.load(path), held_out(path)
    networks["llama_swiglu"] = measured(other, other_unseen[:16], calibrated(other, other_seen))
for name, ways in networks.items():
    for way, table in ways.items():
        told = ", ".join(f"{100 * (value / table[1.0] - 1):+.1f} % with {share:.0%}" for share, value in table.items())
        print(f"{name}, {way}: {told}")
display(perplexity_curves(networks))

# %% [markdown]
# ReGLU sets most neurons to exactly zero, and SwiGLU to none: the same share of neurons costs one of them little and the
# other much. (A quarter chosen at random brings both to a perplexity of about 150.) So sparsity is a property of the
# network, and measuring it takes a minute.
#
# The same sentence with a quarter of the neurons (plain matrices, chosen neuron by neuron):

# %%
sparse = generate(with_plain_ffn(ck), prompt, predictors=predictors, active_fraction=SHARE, **greedy)
print(f"{SHARE:.0%} of the neurons:", prompt + sparse.texts[0])

# %% [markdown]
# ## What it saves
#
# Layers of these toy networks fit into the processor's cache, where nothing is won by reading less. So the clock runs on
# one layer of a real model's size, 2,048 wide with 5,632 neurons as in a Llama of 1.1 billion numbers, in
# float32, one token at a time. The predictor's own time is included, and the error of the outputs stands beside the
# speed. The layer is made up: its inputs live in 64 directions, so that the predictor knows all it must, and one in two
# of its neurons is active. So it can spare half of them and no more; the trained network above could spare most.

# %%
width, neurons, rank = (64, 512, 16) if QUICK else (2048, 5632, 64)
rng = np.random.default_rng(0)
basis = np.linalg.qr(rng.normal(size=(width, rank)))[0].astype(np.float32)
gate, outwards = rng.normal(size=(2, neurons, rank)).astype(np.float32)
up = rng.normal(size=(neurons, width)).astype(np.float32) / np.sqrt(width)
layer = FFNWeights(*map(jnp.asarray, (up, outwards @ basis.T / neurons, gate @ basis.T)))
predictor = LowRankPredictor(jnp.asarray(basis.T), jnp.asarray(gate))
tokens = [jnp.asarray(rng.normal(size=(1, rank)) @ basis.T, jnp.float32) for _ in range(8)]


def timed(run):
    """Median milliseconds of a call; compiled before."""
    jax.block_until_ready([run(token) for token in tokens])
    times = []
    for _ in range(2 if QUICK else 8):
        for token in tokens:
            clock = time.perf_counter()
            jax.block_until_ready(run(token))
            times.append(time.perf_counter() - clock)
    return 1e3 * np.median(times)


@jax.jit
def dense(x):
    return (jax.nn.relu(x @ layer.w_gate.T) * (x @ layer.w_in.T)) @ layer.w_out


shares = (0.1,) if QUICK else (0.5, 0.25, 0.1, 0.05)
of_dense, speeds, errors = timed(dense), [], []
exact = [np.asarray(dense(token)) for token in tokens]
print(f"all neurons: {of_dense:.2f} ms")
for share in shares:
    few = SparsityConfig.with_active_fraction(share)

    @jax.jit
    def sparse_layer(x, few=few):
        return predicted_ffn(x, layer, predictor.scores(x), few, activation="reglu")

    milliseconds = timed(sparse_layer)
    lost = [np.linalg.norm(np.asarray(sparse_layer(token)) - whole) for token, whole in zip(tokens, exact)]
    speeds.append(of_dense / milliseconds)
    errors.append(100 * np.sum(lost) / np.sum([np.linalg.norm(whole) for whole in exact]))
    print(f"{share:4.0%}: {milliseconds:.2f} ms, {speeds[-1]:.1f}x; output error {errors[-1]:.0f} %")

# %% [markdown]
# ## What need not be there at all
#
# Neurons that are not computed need not be on the device. A store keeps as many as its budget allows, the rest
# stays in a file, and what a token needs is fetched. Here four layers of which a fifth fits; tokens resemble the ones
# before, as those of a text do. The outputs are the same; what differs is how much has to be moved.

# %%
width, neurons, latent, top_k, count = (64, 256, 8, 25, 5) if QUICK else (256, 1024, 16, 100, 100)
basis = np.linalg.qr(rng.normal(size=(width, latent)))[0].astype(np.float32)
layers, scorers = [], []
for _ in range(4):
    gate, outwards = rng.normal(size=(2, neurons, latent)).astype(np.float32)
    bias = (4 * rng.normal(size=neurons)).astype(np.float32)  # makes some neurons busier
    up = rng.normal(size=(neurons, width)).astype(np.float32) / 16
    layers.append(FFNWeights(up, 1e-3 * outwards @ basis.T, gate @ basis.T, b_gate=bias))
    scorers.append(LowRankPredictor(jnp.asarray(basis.T), jnp.asarray(gate), jnp.asarray(bias)))
few = SparsityConfig.with_top_k(top_k)
total = sum(array.nbytes for layer in layers for array in layer if array is not None)
stored = Path(tempfile.mkdtemp()) / "layers.neurons"
write_neurons(stored, layers)

position, stream = rng.normal(size=latent), []
for _ in range(count):
    position = 0.9 * position + 0.4 * rng.normal(size=latent)
    stream.append(jnp.asarray((position @ basis.T)[None], jnp.float32))

told, last = {}, {}
ways = {"nothing kept": ("none", False), "LRU": ("lru", False), "LFU": ("lfu", False), "LRU, fetched ahead": ("lru", True)}
for name, (strategy, ahead) in (("LRU", ("lru", False)),) if QUICK else ways.items():
    chosen = [scorers[0], *map(LookAhead, scorers[1:])] if ahead else scorers
    with NeuronStore.open(stored, total // 5, config=CacheConfig(cache_strategy=strategy)) as store:
        ffn = StoredFFN(store, chosen, few, activation="reglu", prefetch=ahead)
        store.warm_up()
        ffn(stream[0], residual=True)
        store.reset_statistics()
        clock = time.perf_counter()
        for token in stream:
            outputs = ffn(token, residual=True)
        seconds, counted = time.perf_counter() - clock, store.statistics
    last[name] = outputs
    told[name] = counted.hit_rate, counted.bytes_moved / count / 1e3, count / seconds
    print(f"{name:20} hit rate {told[name][0]:4.0%}, {told[name][1]:4.0f} kB moved per token, {told[name][2]:4.0f} tokens/s")

# %%
expected = stream[-1]
for weights, scorer in zip(layers, scorers, strict=True):
    on_device = FFNWeights(*(None if part is None else jnp.asarray(part) for part in weights))
    expected = expected + predicted_ffn(expected, on_device, scorer.scores(expected), few, activation="reglu")
print(f"largest difference to all neurons on the device: {float(jnp.abs(last['LRU'] - expected).max()):.0e}")

figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4), layout="constrained")
left.plot(100 * np.array(shares), speeds, "o-", color="tab:blue")
left.axhline(1, color="0.4", linewidth=0.8)
logarithmic(left, "x")
left.set(xlabel="neurons computed (%)", ylabel="times the speed of all neurons", title="One layer of a real size")
left.yaxis.label.set_color("tab:blue")
beside = left.twinx()
beside.plot(100 * np.array(shares), errors, "s--", color="tab:red")
beside.set_ylabel("output error (%)", color="tab:red")
beside.set_ylim(bottom=0)
bars = right.barh(list(told)[::-1], [moved for _, moved, _ in told.values()][::-1], color="tab:blue")
labels = [f"{hits:.0%} found there" for hits, _, _ in told.values()][::-1]
right.bar_label(bars, labels, padding=3, fontsize="small")
right.margins(x=0.25)
right.set(xlabel="moved to the device per token (kB)", title="A fifth of the neurons on the device")
for axis in (left, right):
    with_grid(axis)
plt.show()

# %% [markdown]
# Half of the neurons take 71 % of the time of all, a quarter of them 37 %; the rest of the gain is the network's to
# give. In the store, tokens find most of their neurons where the last ones left them. Fetching ahead finds more of
# them, but at these sizes its own work costs more time than it saves: it is for slow ways between memory and device.
#
# In the shell the same is `sparsejax calibrate MODEL.gguf --data TEXT --out DIR`, then
# `sparsejax generate MODEL.gguf --prompt "..." --predictors DIR --active-fraction 0.25`.
