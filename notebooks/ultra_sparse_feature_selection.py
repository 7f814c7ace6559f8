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
# # Ten columns of a thousand
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sparsejax/sparsejax/blob/main/notebooks/ultra_sparse_feature_selection.ipynb)
#
# A table has 1,000 columns and 500 rows. The target depends on ten of the columns, mostly not linearly, and
# carries noise. Which ten are they? An ultra-sparse net answers by construction: each of its 12 neurons reads
# two columns, and the fit chooses which. Lasso, the usual tool, stands beside it.

# %%
import importlib.util

if importlib.util.find_spec("sparsejax") is None:
    # !git clone --quiet --depth 1 https://github.com/sparsejax/sparsejax
    # %cd sparsejax
    # %pip install --quiet ".[sklearn,plots]"
    pass

import jax

print("device:", jax.devices()[0].platform, jax.devices()[0].device_kind)

# %%
import os
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LassoCV

from sparsejax.models.ultra_sparse.estimator import UltraSparseRegressor
from sparsejax.models.ultra_sparse.problems import make_problem

QUICK = os.environ.get("SPARSEJAX_QUICK") == "1"  # a small table and a short fit, for tests
problem = make_problem("high_dimensional", columns=100 if QUICK else 1000)
train, test = problem.train, problem.test
y_train, y_test = np.ravel(train.targets), np.ravel(test.targets)
true = np.array(problem.true_features)
print(problem, "true columns:", true.tolist())

# %% [markdown]
# ## Fit
#
# `UltraSparseRegressor` is a scikit-learn estimator. Four chains run side by side from different starts; each
# round changes the columns of one neuron, guided by what the residual correlates with, and refines all weights
# by Levenberg-Marquardt. Every column that is read has a price, which keeps chance correlations out. The
# callback follows the fit in blocks of 50 rounds; it would end it by returning true.

# %%
progress = []
start = time.perf_counter()
net = UltraSparseRegressor(
    hidden_size=12,
    rounds=50 if QUICK else 500,
    random_state=0,
    callback=lambda done, loss: progress.append((done, loss)),
)
net.fit(train.features, y_train)
seconds = {"ultra-sparse net": time.perf_counter() - start}

start = time.perf_counter()
lasso = LassoCV(cv=5, random_state=0).fit(train.features, y_train)
seconds["LassoCV"] = time.perf_counter() - start

# %% [markdown]
# ## Compare
#
# Precision: the share of chosen columns that are true. Recall: the share of true columns that are chosen. The
# error is on 1,000 rows that neither model has seen; targets have been scaled by their deviation, so
# predicting their mean gives about 0.64. A neuron must read two columns even where one would do, so some of
# the net's columns are fillers; their weights, below, are small.

# %%
chosen = {"ultra-sparse net": net.get_support(indices=True), "LassoCV": np.flatnonzero(lasso.coef_)}
predicted = {"ultra-sparse net": net.predict(test.features), "LassoCV": lasso.predict(test.features)}
parameters = {"ultra-sparse net": net.config_.num_parameters, "LassoCV": len(chosen["LassoCV"]) + 1}

print(f"{'model':18}{'columns':>8}{'precision':>11}{'recall':>8}{'test mse':>10}{'parameters':>12}{'seconds':>9}")
for name, columns in chosen.items():
    found = np.isin(columns, true).sum()
    error = np.mean((predicted[name] - y_test) ** 2)
    print(
        f"{name:18}{len(columns):8d}{found / len(columns):11.2f}{found / len(true):8.2f}{error:10.4f}"
        f"{parameters[name]:12d}{seconds[name]:9.1f}"
    )

# %% [markdown]
# How much does each chosen column matter? Replace it by its mean and see how far the predictions move. True
# columns are filled circles.

# %%
def influence(predict, features, columns):
    """Root mean square change of the predictions when one column is held at its mean."""
    before = predict(features)
    changes = []
    for column in columns:
        held = features.copy()
        held[:, column] = held[:, column].mean()
        changes.append(np.sqrt(np.mean((predict(held) - before) ** 2)))
    return np.array(changes)


figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
for axis, (name, predict) in zip(axes, (("ultra-sparse net", net.predict), ("LassoCV", lasso.predict))):
    columns, changes = chosen[name], influence(predict, test.features, chosen[name])
    is_true = np.isin(columns, true)
    axis.vlines(columns, 0, changes, color="0.8")
    axis.plot(columns[is_true], changes[is_true], "o", label="true")
    axis.plot(columns[~is_true], changes[~is_true], "o", mfc="none", label="not true")
    axis.set(title=name, xlabel="column", ylabel="influence on predictions", xscale="symlog")
    axis.legend()
axes[2].plot(*np.transpose(progress), "o-")
axes[2].set(title="fit", xlabel="blocks of 50 rounds", ylabel="training loss", yscale="log")
plt.show()

# %% [markdown]
# ## Take it away
#
# The fitted net takes raw columns; the scaling is part of its weights. It can be saved, compiled by JAX, or
# written as one C header for a microcontroller.

# %%
import tempfile
from pathlib import Path

import sparsejax as sj
from sparsejax.models.ultra_sparse.export_c import export_c

folder = Path(tempfile.mkdtemp())
checkpoint = net.to_checkpoint()
sj.save(checkpoint, folder / "net")
restored = sj.load(folder / "net").apply(test.features)[:, 0]
print("largest difference after saving:", float(np.abs(restored - predicted["ultra-sparse net"]).max()))
header = export_c(checkpoint, folder / "net.h")
print("".join(header.read_text().splitlines(keepends=True)[:6]))
