"""A stack of FFN layers of which a fifth fits on the device: the same outputs, and what had to be moved.

python examples/sparse_inference_store.py [TOKENS]
"""

import sys
import tempfile
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference import (
    CacheConfig,
    LookAhead,
    LowRankPredictor,
    NeuronCounts,
    NeuronStore,
    SparsityConfig,
    StoredFFN,
    place,
    write_neurons,
)
from sparsejax.models.sparse_inference.ffn.paths import predicted_ffn
from sparsejax.ops.sparse_ffn import FFNWeights

LAYERS, NEURONS, WIDTH, LATENT, TOP_K = 4, 1024, 256, 16, 100
tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 100
rng = np.random.default_rng(0)

# Gated layers on a residual stream that lives in a few directions; biases make some neurons busier.
basis = np.linalg.qr(rng.normal(size=(WIDTH, LATENT)))[0].astype(np.float32)
layers, predictors = [], []
for _ in range(LAYERS):
    gate, outwards = rng.normal(size=(2, NEURONS, LATENT)).astype(np.float32)
    bias = (4 * rng.normal(size=NEURONS)).astype(np.float32)
    up = rng.normal(size=(NEURONS, WIDTH)).astype(np.float32) / 16
    layers.append(FFNWeights(up, 1e-3 * outwards @ basis.T, gate @ basis.T, b_gate=bias))
    predictors.append(LowRankPredictor(jnp.asarray(basis.T), jnp.asarray(gate), jnp.asarray(bias)))
sparsity = SparsityConfig.with_top_k(TOP_K)


def walk(count):
    """Tokens that resemble the ones before."""
    position = rng.normal(size=LATENT)
    for _ in range(count):
        position = 0.9 * position + 0.4 * rng.normal(size=LATENT)
        yield jnp.asarray((position @ basis.T)[None], jnp.float32)


# Which neurons are used, over some tokens: the busiest stay on the device, here half of what fits there.
counts = [NeuronCounts(NEURONS) for _ in layers]
for token in walk(100):
    for counted, predictor in zip(counts, predictors, strict=True):
        counted.record(np.argsort(-np.asarray(predictor.scores(token))[0])[:TOP_K])
total = sum(array.nbytes for layer in layers for array in layer if array is not None)
budget = total // 5
placed = place([counted.counts for counted in counts], total // LAYERS // NEURONS, budget=budget // 2)
print(f"{total / 1e6:.1f} MB of neurons, {budget / 1e6:.1f} MB for them on the device")
busiest = sum(map(len, placed.hot))
print(f"the busiest {busiest} of {LAYERS * NEURONS} neurons give {placed.covered:.0%} of the uses")

# The file keeps a neuron's numbers side by side; it is read by position.
folder = tempfile.TemporaryDirectory()
path = Path(folder.name, "layers.neurons")
write_neurons(path, layers)


def run(name, *, hot=None, strategy="lru", prefetch=True, ahead=False):
    """Some tokens through a store, and what it did."""
    config = CacheConfig(cache_strategy=strategy)
    # A look-ahead predictor reads what the layer before reads: then nothing has to be guessed.
    chosen = [predictors[0], *map(LookAhead, predictors[1:])] if ahead else predictors
    with NeuronStore.open(path, budget, hot=hot, config=config) as store:
        ffn = StoredFFN(store, chosen, sparsity, activation="reglu", prefetch=prefetch)
        stream = list(walk(tokens))
        store.warm_up()  # compile what writes to the device before the clock runs
        ffn(stream[0], residual=True)
        store.reset_statistics()
        start = time.perf_counter()
        for token in stream:
            outputs = ffn(token, residual=True)
        seconds = time.perf_counter() - start
        found = store.statistics
        print(
            f"{name:28} hit rate {found.hit_rate:4.0%}, {found.bytes_moved / tokens / 1e3:5.0f} kB moved per "
            f"token, {tokens / seconds:5.0f} tokens/s, {store.peak_device_bytes / total:.0%} on the device"
        )
        return stream[-1], outputs


run("no cache", strategy="none", prefetch=False)
run("LRU", prefetch=False)
run("LRU, busiest neurons stay", hot=placed.hot, prefetch=False)
run("LRU, next layer prefetched")
run("the same, looking ahead", ahead=True)
token, found = run("LFU", strategy="lfu", prefetch=False)

# The same token through layers that are on the device altogether.
expected = token
for layer, predictor in zip(layers, predictors, strict=True):
    weights = FFNWeights(*(None if part is None else jnp.asarray(part) for part in layer))
    scores = predictor.scores(expected)
    expected = expected + predicted_ffn(expected, weights, scores, sparsity, activation="reglu")
print(f"largest difference to all neurons on the device: {float(jnp.abs(found - expected).max()):.1e}")
folder.cleanup()
