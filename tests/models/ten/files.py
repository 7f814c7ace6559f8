"""Checkpoint files of every layout, forged from a seed at sizes that all differ."""

from __future__ import annotations

import zlib
from collections import OrderedDict

import numpy as np

from sparsejax.checkpoint import torch_file

VOCAB, DIM, STATES, HEADS, HIDDEN, ROWS, LAYERS, TAPS, BANDS, CELLS = 11, 6, 4, 2, 15, 9, 2, 3, 5, 3


def normal(name, *shape):
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)


def filled(shapes):
    return {name: normal(name, *shape) for name, shape in shapes.items()}


def linear(name, out, into):
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name):
    return {f"{name}.weight": (DIM,), f"{name}.bias": (DIM,)}


def modern_layer(number, *, memory=None, conv=None, gate="gate_proj", bands=None, **options):
    """Shapes by key, in the order that the originals have them."""
    coupling, norms = options.get("coupling", "coupling_blocks"), options.get("norms", "norm")
    shapes = {"log_decay": (STATES,), "frequency": (STATES,)}
    if coupling == "full":
        shapes["coupling"] = (STATES, STATES)
    if memory and number:
        shapes[f"{memory}_gate"] = ()
    shapes["in_proj.weight"] = (2 * STATES, DIM)
    if options.get("selective"):
        shapes |= linear("select_proj", 2 * STATES, DIM)
    if conv:
        shapes |= {f"{conv}.weight": (2 * STATES, 1, TAPS), f"{conv}.bias": (2 * STATES,)}
    if memory and number:
        shapes[f"{memory}_proj.weight"] = (2 * STATES, 2 * STATES)
    if coupling not in ("full", "none"):
        block = (STATES // HEADS, STATES // HEADS)
        shapes |= {f"{coupling}.{head}": block for head in range(HEADS)}
    if bands:
        shapes |= linear(bands, BANDS, DIM)
    shapes |= linear(gate, DIM, DIM) | {"out_proj.weight": (DIM, 2 * STATES)}
    if number in options.get("attention", ()):
        shapes |= norm("attn_norm")
        shapes |= {"attn.in_proj_weight": (3 * DIM, DIM), "attn.in_proj_bias": (3 * DIM,)}
        shapes |= linear("attn.out_proj", DIM, DIM)
    shapes |= linear("mlp.0", HIDDEN, DIM) | linear("mlp.2", DIM, HIDDEN)
    return shapes | norm(f"{norms}1") | norm(f"{norms}2")


def sequential_layer(number):
    del number
    shapes = {"eigvec_real": (STATES, DIM), "eigvec_imag": (STATES, DIM), "alpha": (STATES,)}
    shapes |= {"omega": (STATES,), "resonance_eps": (), "resonance_M": (STATES, STATES)}
    shapes |= linear("out_proj", DIM, DIM) | linear("mlp.0", HIDDEN, DIM) | linear("mlp.3", DIM, HIDDEN)
    return shapes | norm("norm1") | norm("norm2")


def modern(*stacks, table="token_emb.weight", layers=LAYERS):
    """A state dict from (stem, layer function, options) per stack; the head is the token table itself."""
    shapes = {table: (VOCAB, DIM), "pos_emb.weight": (ROWS, DIM)}
    for stem, layer, options in stacks:
        for number in range(layers):
            made = layer(number, **options)
            shapes |= {f"{stem}.{number}.{name}": shape for name, shape in made.items()}
    state = filled(shapes | norm("norm_f"))
    return state | {"lm_head.weight": state[table]}


def one_stack(layers=LAYERS, **options):
    return modern(("layers", modern_layer, options), layers=layers)


PRO = {"memory": "memory", "gate": "spectral_gate.main_gate", "bands": "spectral_gate.band_gates"}
UNIFIED = (
    ("fft_layers", modern_layer, {}),
    ("pro_layers", modern_layer, PRO | {"bands": "spectral_gate.band_proj"}),
)
SHORT_NAMES = {"coupling": "coupling", "norms": "n", "gate": "gate.gate"}
V03 = (
    ("fft_layers", modern_layer, SHORT_NAMES),
    ("pro_layers", modern_layer, SHORT_NAMES | {"memory": "mem", "conv": "conv"}),
)


def published(*, resonance=True, sinusoidal=False, tied=True, layers=LAYERS):
    """A state dict of the first generation."""
    positions = {"pos_emb.pe": (1, ROWS, DIM)} if sinusoidal else {"pos_emb.emb.weight": (ROWS, DIM)}
    shapes = {"token_emb.weight": (VOCAB, DIM)} | positions
    for block in range(layers):
        for cell in range(CELLS):
            stem = f"blocks.{block}.cells.{cell}"
            shapes |= {f"{stem}.alpha_raw": (STATES,), f"{stem}.omega": (STATES,)}
            if resonance:
                shapes[f"{stem}.resonance_M"] = (STATES, STATES)
            shapes[f"{stem}.input_proj.weight"] = (STATES, DIM)
            shapes[f"{stem}.output_proj.weight"] = (DIM, STATES)
        stem = f"blocks.{block}"
        shapes |= linear(f"{stem}.ffn1", HIDDEN, DIM) | linear(f"{stem}.ffn2", DIM, HIDDEN)
        shapes |= norm(f"{stem}.norm1") | norm(f"{stem}.norm2")
    state = filled(shapes | norm("norm"))
    head = state["token_emb.weight"] if tied else normal("output.weight", VOCAB, DIM)
    return state | {"output.weight": head}


STATE_DICTS = {
    "sequential": lambda: modern(("layers", sequential_layer, {})),
    "fft": one_stack,
    "selective": lambda: one_stack(selective=True),
    "final_full": lambda: one_stack(coupling="full"),
    "final_none": lambda: one_stack(coupling="none", selective=True),
    "pro": lambda: one_stack(**PRO),
    "hybrid": lambda: one_stack(**PRO, attention=(1,)),
    "ssd": lambda: one_stack(memory="memory", conv="short_conv"),
    "ssd_without_conv": lambda: one_stack(memory="memory"),
    "unified": lambda: modern(*UNIFIED),
    "v03": lambda: modern(*V03, table="tok_emb.weight"),
    "seed": published,
    "seed_sinusoidal": lambda: published(sinusoidal=True),
    "paper_untied": lambda: published(tied=False),
    "paper_without_resonance": lambda: published(resonance=False),
}
"""Files by name; the name begins with the variant."""


def variant_of(name):
    return name.partition("_")[0]


def options_of(name):
    """What `load` has to be told."""
    return {"variant": variant_of(name)} if variant_of(name) in ("seed", "paper") else {}


PRESET = {
    "d_model": DIM,
    "n_layers": LAYERS,
    "num_eigenstates": STATES,
    "batch_size": 2,
    "max_seq_len": ROWS,
    "chunk_size": 16,
    "use_hten": False,
    "energy_reg_weight": 0.25,
    "description": "forged",
}
"""The dict that the first trainer put beside its state dict."""


def write(folder, tree, name="model.pt"):
    path = folder / name
    torch_file.write(tree, path)
    return path


def wrapped(state, prefix="", **beside):
    """As the first trainer wrote it."""
    inner = OrderedDict((prefix + key, value) for key, value in state.items())
    return {"epoch": 3, "model_state_dict": inner, "loss": 1.5, **beside}
