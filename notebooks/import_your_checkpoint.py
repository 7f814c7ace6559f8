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
# # Your .pt file in JAX, without torch
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sparsejax/sparsejax/blob/main/notebooks/import_your_checkpoint.ipynb)
#
# You hold a `.pt` file of one of the five projects and want its network as a JAX function. Three questions come
# first. Does JAX compute what the file's own project computes? What happens if the file does not say enough? And
# what happens if it is damaged, or meant to do harm?

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
import tempfile
from collections import Counter
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import sparsejax as sj
from sparsejax.checkpoint import torch_file
from sparsejax.checkpoint.verification import verify
from sparsejax.models.ultra_sparse import expand_input, fuse
from sparsejax.plots.style import with_grid
from sparsejax.shipped import shipped_file

QUICK = os.environ.get("SPARSEJAX_QUICK") == "1"  # fewer damaged files and no torch, for tests
HAS_TORCH = importlib.util.find_spec("torch") is not None and not QUICK
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A file
#
# The network is the published ultra-sparse one: 8 neurons, each of which reads 2 of 256 columns. Its weights come
# from the net that ships with this library, and are written here as the project writes them, a state dict
# with some facts beside it. Put the path of your own file in place of `path`, and the rest goes on.

# %%
weights = torch_file.read(shipped_file("ultra_sparse_sine.pt"))["state_dict"]
path = folder / "my_net.pt"
torch_file.write({"state_dict": dict(weights), "stats": {"note": "written without torch"}}, path)

report = sj.inspect(path)  # reads the headers, runs nothing
print(f"{report.kind}, variant {report.variant!r}, {report.num_values} values, {report.nbytes} bytes")
for row in report.tensors:
    print(f"  {row.key:14}{row.shape!s:10}{row.dtype}")
print("names in its pickle:", ", ".join(report.pickle_globals))

# %%
ck = sj.load(path)  # strict: no tensor missing, none unused, none NaN
print(ck.config.layers)
print("beside the weights:", ck.metadata)

# %% [markdown]
# ## Parity
#
# An honest check needs a second opinion that shares no code with the library. The project's page gives the
# formula, which is six lines of NumPy; in float64 it is exact as far as float32 is concerned. Where torch is
# installed, torch reads the same file and computes the formula as well.

# %%
def by_hand(features, state):
    """The formula of the project's page, in float64."""
    arrays = {name: np.asarray(array, np.float64) for name, array in state.items()}
    chosen = features[:, np.asarray(state["input_indices"])]  # (rows, neurons, 2)
    hidden = np.tanh((chosen * arrays["w1"]).sum(-1) + arrays["b1"])
    return np.tanh(hidden @ arrays["w2"].T + arrays["b2"])[:, 0]


def by_torch(features, file):
    """The same in torch, from the file that was written without it."""
    import torch

    state = torch.load(file, weights_only=True)["state_dict"]
    chosen = torch.tensor(features)[:, state["input_indices"]]
    hidden = torch.tanh((chosen * state["w1"]).sum(-1) + state["b1"])
    return torch.tanh(hidden @ state["w2"].T + state["b2"])[:, 0].numpy()


x = np.linspace(-2 * np.pi, 2 * np.pi, 601, dtype=np.float32)
features = np.asarray(expand_input(x))
exact = by_hand(features, weights)
computed = {"sparsejax": np.asarray(ck.apply(features))[:, 0]}
if HAS_TORCH:
    computed["torch"] = by_torch(features, path)
for name, values in computed.items():
    print(f"largest difference of {name} from the formula in float64: {np.abs(values - exact).max():.1e}")
if not HAS_TORCH:
    print("torch was not asked; nothing above needed it")

# %% [markdown]
# A few times the rounding of float32 (6e-8 for values near one) is what sums and two hyperbolic tangents leave; torch's
# number is of the same size. The picture shows that the differences scatter around zero, without a trend, a step or a
# place where they grow: the two are the same function. On the left, the reason why the
# check must use the *features* that a net was trained on: the feature recipe that is printed in the project's
# documentation is not the one that its published nets were trained with.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4), layout="constrained")
left.plot(x, np.sin(x), color="0.75", linewidth=5, label="sin(x), the target")
for recipe, style in (("trained", "-"), ("readme", ":")):
    outputs = np.asarray(ck.apply(expand_input(x, recipe=recipe)))[:, 0]
    error = np.mean((outputs - np.sin(x)) ** 2)
    left.plot(x, outputs, style, label=f'recipe "{recipe}": mean squared error {error:.1e}')
left.set(xlabel="x (radians)", ylabel="output of the net", ylim=(-1.25, 2.1), title="The net and its features")
left.legend(frameon=False, loc="upper left", fontsize="small")
for (name, values), marker in zip(computed.items(), "ox"):
    right.plot(x, 1e7 * (values - exact), marker, markersize=3, alpha=0.7, label=name)
right.set(xlabel="x (radians)", ylabel="difference from float64 (1e-7)", title="Parity: rounding noise and nothing else")
right.legend(frameon=False)
for axis in (left, right):
    with_grid(axis)
plt.show()

# %% [markdown]
# `verify` does the round trips as well: it writes the file again, as a directory of this library and in the
# project's own layout, reads both and compares bit for bit. With a file of expected outputs it compares those.

# %%
np.savez(folder / "expected.npz", features=features, outputs=exact[:, None])
for check in verify(path, folder / "expected.npz"):
    print(f"{'ok  ' if check.passed else 'FAIL'} {check.name:22}{check.detail}")

# %% [markdown]
# ## A file that does not say enough
#
# Some facts are in no tensor. A SPROUT state dict does not tell how many attention heads its network has: the
# shapes are the same for 2 and for 4. A loader that guesses gives fluent nonsense. This one asks.

# %%
from sparsejax.models.sprout import SproutConfig, SproutLM

config = SproutConfig(vocab_size=40, d_model=16, d_ff=32, n_heads=4, n_layers=1, max_len=12)
tokens = jnp.arange(12)[None]
model = SproutLM(config)
params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
whole = sj.Checkpoint("sprout", "v1", config, params)
sj.export_pt(whole, folder / "bare.pt")  # a bare state dict, as this project's scripts save it

try:
    sj.load(folder / "bare.pt")
except sj.CheckpointError as error:
    print(type(error).__name__, "-", str(error).replace(str(folder) + os.sep, ""))

expected = whole.apply(tokens).logits
for heads in (4, 2):
    found = sj.load(folder / "bare.pt", overrides={"n_heads": heads}).apply(tokens).logits
    print(f"with n_heads={heads}: largest difference of the logits {float(jnp.abs(found - expected).max()):.1e}")

# %% [markdown]
# ## A file that is damaged, or worse
#
# Each of the following is made from the good file. Every one ends in a line that says what is wrong and where.
# The last one is a pickle that would run a command: it is refused before anything runs, because pickles are read
# here by an interpreter that knows only harmless constructors, never by `pickle`.

# %%
import pickle
import zipfile


class Harm:
    """What `pickle.load` would run."""

    def __reduce__(self):
        return os.system, ("echo this must never be printed",)


good = path.read_bytes()


def rewritten(**changes):
    """The state dict with some tensors changed, or left out where the change is None."""
    state = {**weights, **changes}
    torch_file.write({"state_dict": {name: part for name, part in state.items() if part is not None}}, bad)


def with_a_command():
    """The good archive, its pickle exchanged for one that runs a command."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(bad, "w") as changed:
        for name in archive.namelist():
            harmful = name.endswith("data.pkl")
            changed.writestr(name, pickle.dumps(Harm(), 2) if harmful else archive.read(name))


bad = folder / "bad.pt"
flipped = bytearray(good)
at = good.index(np.asarray(weights["w1"]).tobytes())
flipped[at] ^= 1  # one bit of one weight
cases = {
    "half of it": lambda: bad.write_bytes(good[: len(good) // 2]),
    "one bit of a weight": lambda: bad.write_bytes(flipped),
    "no b1": lambda: rewritten(b1=None),
    "a tensor too many": lambda: rewritten(extra=np.zeros(3, np.float32)),
    "b1 of 7 neurons": lambda: rewritten(b1=np.zeros(7, np.float32)),
    "a weight is NaN": lambda: rewritten(b1=np.full(8, np.nan, np.float32)),
    "a command inside": with_a_command,
}
for name, write in cases.items():
    write()
    try:
        sj.load(bad)
        print(f"{name}: loaded")
    except sj.CheckpointError as error:
        print(f"{name}: {type(error).__name__}\n    {str(error).replace(str(folder) + os.sep, '')}")

# %% [markdown]
# Single cases prove little, so here are many: one bit flipped at a random place of the file, again and again. A flip
# either raises an error of this library or does not touch what is loaded (a date in the archive, or the padding
# between its records). What must never happen is the third thing: a file that loads with other numbers.

# %%
rng = np.random.default_rng(0)
flips = 60 if QUICK else 1000
outcomes = Counter()
for _ in range(flips):
    changed = bytearray(good)
    changed[rng.integers(len(good))] ^= 1 << rng.integers(8)
    bad.write_bytes(changed)
    try:
        loaded = sj.load(bad)
    except sj.CheckpointError as error:
        outcomes[type(error).__name__] += 1
    else:
        same = all(
            np.array_equal(ours, theirs)
            for ours, theirs in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(ck.params), strict=True)
        )
        outcomes["loads, the same weights" if same else "loads, OTHER WEIGHTS"] += 1
print(f"{flips} files with one bit flipped; with other weights loaded: {outcomes['loads, OTHER WEIGHTS']}")

names, counts = zip(*[pair for pair in reversed(outcomes.most_common()) if pair[1]])
figure, axis = plt.subplots(figsize=(8, 0.5 * len(names) + 1.2), layout="constrained")
bars = axis.barh(names, counts, color=["tab:blue" if "Error" in name else "tab:green" for name in names])
axis.bar_label(bars, padding=3)
axis.set(xlabel="files", xlim=(0, 1.12 * max(counts)), title=f"One bit flipped in a file of {len(good):,} bytes")
with_grid(axis)
plt.show()

# %% [markdown]
# ## What you get
#
# A checkpoint is a Flax module and a tree of arrays; a pure function, in other words. It can be differentiated,
# batched and compiled like any other, which the original could not, and it goes back to its own project.

# %%
function = fuse(ck)  # x -> y as one program: 15 of the 256 columns are computed
slope = jax.jit(jax.vmap(jax.grad(function)))(jnp.asarray(x))
error = float(jnp.sqrt(jnp.mean((slope - jnp.cos(x)) ** 2)))
print(f"its slope against cos(x): root mean square difference {error:.3f}; it was fitted to values alone")

sj.save(ck, folder / "native")
sj.export_pt(sj.load(folder / "native"), folder / "back.pt")
back = torch_file.read(folder / "back.pt")["state_dict"]
print("back in its own layout, bit for bit:", all(np.array_equal(back[key], weights[key]) for key in weights))
