"""Dimension letters and shape aliases used in every signature.

b batch (samples) · t time/tokens · d model width · f FFN neurons · h heads, or hidden neurons of a
feature net · i input features · o outputs · k selected per row: top-k, inputs per neuron, or
eigenstates per cell, as stated · n nodes (atoms) · e edges · g graphs · c channels or columns · r rank ·
v vocabulary · s the shape of the caller's array, whatever it is

A leading ``*`` stands for any number of axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Num, Real, Shaped

Params = Mapping[str, Any]
"""Nested dict of arrays, as flax.linen's ``{"params": ...}`` holds it."""

Features = Float[Array | np.ndarray, "*b i"]
EitherLayout = Real[Array | np.ndarray, "..."] | Bool[Array | np.ndarray, "..."]
"""Rows first (*b i), or features first (i *b), as the ``features_first`` beside it says; any real type."""

Scalars = Float[Array, "*s"]
Columns = Float[Array, "*s c"]
IndexTable = Int[Array, "h k"]
SparseWeights = Float[Array, "h k"]
LiveCounts = Int[Array, "h"]
Kernel = Num[Array, "i o"]
Mask = Bool[Array, "i o"]
Bias = Float[Array, "o"]
Tokens = Int[Array, "*b t"]
TokenStates = Float[Array, "*b t d"]
PerToken = Float[Array, "*b t"]
TokenDraws = Shaped[Array, "*b t"]
TokenLogits = Float[Array, "*b t v"]
HeadKernel = Float[Array, "d v"]
Scalar = Float[Array, ""]
Logits = Float[Array, "b v"]
RowTokens = Int[Array, "b"]
SeenTokens = Bool[Array, "b v"]

BlockIndex = int | Array
"""Of a Pallas block: the compiler calls the functions of block specs with traced numbers."""
