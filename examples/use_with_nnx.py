"""Use an imported model inside flax.nnx code: the linen module and its parameters through nnx's bridge.

python examples/use_with_nnx.py
"""

import jax.numpy as jnp
from flax import nnx
from flax.nnx import bridge

import sparsejax as sj
from sparsejax.models.ultra_sparse import expand_input

ck = sj.load("checkpoints/ultra_sparse_sine.pt")
x = jnp.linspace(-3.0, 3.0, 7)

net = bridge.ToNNX(ck.model, rngs=nnx.Rngs(0)).lazy_init(expand_input(x))
nnx.update(net, {"layer_0": ck.params["layer_0"], "layer_1": ck.params["layer_1"]})

difference = float(jnp.max(jnp.abs(net(expand_input(x)) - ck.apply(expand_input(x)))))
print("the same within float rounding" if difference < 1e-6 else f"different by {difference}")
