"""A Llama in a GGUF file that computes a quarter of its neurons: calibrate predictors, measure, generate.

python examples/sparse_inference.py [MODEL.gguf [TEXT | ROWS]]

Without arguments it takes the shipped ReGLU network and its held-out text, of which ROWS are enough for a
first look. A text of your own must be like what the network was trained on.
From a shell: `sparsejax calibrate MODEL.gguf --data TEXT --out DIR`.
"""

import sys
from pathlib import Path

import numpy as np

import sparsejax as sj
from sparsejax.models.sparse_inference.calibration.calibrate import Calibrator
from sparsejax.models.sparse_inference.calibration.statistics import predictor_statistics
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.llama.generation import generate
from sparsejax.models.sparse_inference.llama.observe import collect_ffn_inputs, ffn_weights
from sparsejax.models.sparse_inference.llama.plain_ffn import with_plain_ffn
from sparsejax.models.sparse_inference.tokenizer.tokenizer import read_tokenizer
from sparsejax.training.recipes.llama.quality import curves

SHARE = 0.25

path = Path(sys.argv[1] if len(sys.argv) > 1 else "checkpoints/llama_reglu.gguf")
ck = sj.load(path)
config = ck.config
print(f"{path.name}: {config.n_layers} blocks of {config.d_ff} neurons, gates {config.activation}")

# Text as rows of token ids: most of them to fit to, the rest to measure on.
if len(sys.argv) > 2 and not sys.argv[2].isdigit():
    ids = np.asarray(read_tokenizer(ck.metadata).encode(Path(sys.argv[2]).read_text()), np.int32)
    length = min(256, config.context_length)
    rows = [ids[start : start + length] for start in range(0, len(ids), length)]
else:
    with np.load(path.with_suffix(".held_out.npz")) as text:
        rows = list(text["tokens"].astype(np.int32))[: int(sys.argv[2]) if len(sys.argv) > 2 else None]
seen, unseen = rows[: -len(rows) // 4], rows[-len(rows) // 4 :]

# One pass through the network feeds a calibrator per block. Nothing but sums and a few samples is kept, so
# the text may be of any length. The gates of ReGLU are linear in what the FFN reads: that is what is fitted.
target = {"target": "sums", "by": "activation"} if config.activation == "relu" else {}
weights = [ffn_weights(ck.params, layer) for layer in range(config.n_layers)]
share = SparsityConfig.with_active_fraction(SHARE)
calibrators = [
    Calibrator(layer, share, activation=config.activation, rank=config.d_model // 2, **target)
    for layer in weights
]
for batch in collect_ffn_inputs(ck, seen):
    for calibrator, inputs in zip(calibrators, batch, strict=True):
        calibrator.add(inputs)
predictors = [calibrator.finish().predictor for calibrator in calibrators]

# How much of what matters each of them finds, on text that it was not fitted to.
batches = list(collect_ffn_inputs(ck, unseen))
for number, (predictor, layer) in enumerate(zip(predictors, weights, strict=True)):
    inputs = np.concatenate([batch[number] for batch in batches])
    found = predictor_statistics(inputs, predictor, layer, share, activation=config.activation)
    print(
        f"block {number}: {found.recall_by_contribution:.3f} of the best neurons found, energy kept "
        f"{found.energy_kept:.3f}, output error {found.output_error:.3f}"
    )

# What that costs: predictors, beside the best choice there is, and one at random.
for way, curve in curves(ck, unseen, predictors, (1.0, SHARE, 0.1)).items():
    told = ", ".join(f"{value:.2f} with {fraction:.0%}" for fraction, value in curve.items())
    print(f"perplexity by {way}: {told}")

# Text by all neurons, and by those that the predictors choose for each token.
prompt = "Return the "
options = {"max_new_tokens": 30, "temperature": 0}
print("all neurons:", prompt + generate(ck, prompt, **options).texts[0])
# Quantised matrices are taken in whole blocks of neurons; plain ones neuron by neuron.
sparse = generate(with_plain_ffn(ck), prompt, predictors=predictors, active_fraction=SHARE, **options)
print(f"{SHARE:.0%} of them:", prompt + sparse.texts[0])
