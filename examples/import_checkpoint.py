"""Import a torch file without torch, check it, and use it as a JAX function.

python examples/import_checkpoint.py [FILE]
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from sparsejax.models.ultra_sparse import expand_input, fuse, network_stats, selection_stats, storage_bits

path = sys.argv[1] if len(sys.argv) > 1 else "checkpoints/ultra_sparse_sine.pt"

report = sj.inspect(path)
print(f"{report.kind}/{report.variant}:", [(row.key, row.shape) for row in report.tensors])

ck = sj.load(path)
x = jnp.linspace(-2 * jnp.pi, 2 * jnp.pi, 100)
features = expand_input(x)
stats = network_stats(ck.config, ck.params, features, jnp.sin(x)[:, None])
print(
    f"mse {stats.mse:.3e}, in the file {ck.metadata['stats']['mse']:.3e}; saturation {stats.saturation:.3f}"
)

if ck.config.layers[0].kind == "sparse":
    selected = selection_stats(ck.config, ck.params, true_inputs=range(16))
    print(f"reads columns {selected.selected}; {storage_bits(ck.config)} bits with its index table")

# Pure functions compose: the derivative of the net, for a batch, compiled.
function = fuse(ck)
slope = jax.jit(jax.vmap(jax.grad(function)))(x)
print(f"largest difference of its slope from cos(x): {float(np.max(np.abs(slope - np.cos(x)))):.3f}")
