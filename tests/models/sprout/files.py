"""Checkpoint files of every layout, forged from a seed at sizes that all differ."""

from __future__ import annotations

import zlib

import numpy as np

VOCAB, DIM, FF, ROWS, LAYERS, HEADS, RANK, BLOCK, MIXER, NEURON, HIDDEN = 11, 6, 12, 9, 2, 3, 5, 4, 8, 7, 10


def normal(name, *shape):
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)


def linear(name, out, into):
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name, width=DIM):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def phi(name, reads, middle, out):
    shapes = linear(f"{name}.0", middle, reads) | norm(f"{name}.1", middle)
    return shapes | linear(f"{name}.3", out, middle) | norm(f"{name}.4", out)


LINEAR = {"router.W_router": (FF, DIM)}
MLP = {"router.W_router_1": (DIM, DIM), "router.W_router_2": (FF, DIM), **norm("router.norm")}
LOW_RANK = {"router.W_down": (RANK, DIM), "router.W_up": (FF, RANK)}
BLOCKS = {"router.W_block": (FF // BLOCK, DIM)}
MATRICES = {"W1": (FF, DIM), "W2": (DIM, FF)}
BIASES = {"b1": (FF,), "b2": (DIM,)}
MANIFOLD = {
    **phi("manifold_mixer.phi", 1, MIXER // 2, MIXER),
    **linear("manifold_mixer.rho.0", 2 * MIXER, MIXER),
    **linear("manifold_mixer.rho.3", 1, 2 * MIXER),
}


def deep_sets(end="", *, reads=NEURON + 1, normed=True):
    first = int(normed)
    return {
        f"neuron_vecs{end}": (FF, NEURON),
        f"W_in{end}": (FF, DIM),
        **MLP,
        **phi("phi", reads, HIDDEN, HIDDEN),
        **(norm("rho.0", HIDDEN) if normed else {}),
        **linear(f"rho.{first}", 2 * HIDDEN, HIDDEN),
        **linear(f"rho.{first + 3}", DIM, 2 * HIDDEN),
    }


FFNS = {
    "v0": {
        **{f"middle_neurons.{n}.W_in": (DIM,) for n in range(FF)},
        **{f"output_neurons.{n}.W": (FF,) for n in range(DIM)},
        **LINEAR,
    },
    "v1": MATRICES | LINEAR,
    "v1_biases": MATRICES | LINEAR | BIASES,
    "v2": MATRICES | MLP,
    "v3": MATRICES | MLP | MANIFOLD,
    "v3_linear": MATRICES | LINEAR | MANIFOLD,
    "v4a": deep_sets(normed=False),
    "v4b": deep_sets(),
    "v4b_context": deep_sets(reads=2 * NEURON + 1 + DIM),
    "v4c": deep_sets(".weight"),
    "low_rank": MATRICES | LOW_RANK,
    "low_rank_mixer": MATRICES | LOW_RANK | MANIFOLD,
    "block": MATRICES | BLOCKS,
    "block_mlp": MATRICES | BLOCKS | {name: MLP[name] for name in MLP if name != "router.W_router_2"},
}
"""Shapes of a feed-forward part by key; the name begins with the variant."""


def variant_of(name):
    return "low_rank" if name.startswith("low_rank") else name.partition("_")[0]


def ffn(name):
    """The state dict of a feed-forward part on its own."""
    return {key: normal(key, *shape) for key, shape in FFNS[name].items()}


def model(name):
    """The state dict of a whole model."""
    shapes = {"token_embedding.weight": (VOCAB, DIM), "position_embedding.weight": (ROWS, DIM)}
    for layer in range(LAYERS):
        stem = f"layers.{layer}"
        shapes |= {f"{stem}.attention.in_proj_weight": (3 * DIM, DIM)}
        shapes |= {f"{stem}.attention.in_proj_bias": (3 * DIM,)}
        shapes |= linear(f"{stem}.attention.out_proj", DIM, DIM)
        shapes |= {f"{stem}.ffn.{key}": shape for key, shape in FFNS[name].items()}
        shapes |= norm(f"{stem}.norm1") | norm(f"{stem}.norm2")
    shapes |= linear("output_projection", VOCAB, DIM) | norm("norm")
    return {key: normal(key, *shape) for key, shape in shapes.items()}


def wrapped(state, prefix="", **beside):
    """As the published trainer wrote it."""
    inner = {prefix + key: value for key, value in state.items()}
    args = {"n_heads": HEADS, "max_seq_len": ROWS, "final_top_k": 4, "learning_rate": 3e-4}
    return {"model_state_dict": inner, "epoch": 1, "global_step": 7, "args": args, **beside}
