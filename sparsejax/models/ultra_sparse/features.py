"""The feature expansions x -> 256 columns that the published sine nets read, column by column.

Four different recipes circulate under the same name (specs/ultra_sparse.md section 1). Each is a table of
columns here: a kind and two constants per column, so that any subset can be computed alone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sparsejax.typing import Columns, Scalars

Recipe = Literal["trained", "readme", "sine_problem", "library"]

TRAINED_NOISE_COLUMNS = 240
LEAK_COLUMNS = {"trained": (4, 117), "library": (0,)}
"""Columns that are the regression target sin(x), or its negative, under a recipe."""


@dataclass(frozen=True)
class Column:
    """One feature as a function of x: its kind and its constants (see `_EVALUATE`)."""

    kind: str
    a: float = 0.0
    b: float = 0.0


def _power(x: jax.Array, a: np.ndarray, b: np.ndarray) -> jax.Array:
    del b
    base = x / (2 * np.pi)
    powers = [jax.lax.integer_pow(base[..., 0], int(exponent)) for exponent in a]
    return jnp.stack(powers, axis=-1)


_EVALUATE: dict[str, Callable[[jax.Array, np.ndarray, np.ndarray], jax.Array]] = {
    "zero": lambda x, a, b: jnp.broadcast_to(jnp.zeros_like(x), (*x.shape[:-1], len(a))),
    "power": _power,
    "sin": lambda x, a, b: jnp.sin(x * a + b),
    "cos": lambda x, a, b: jnp.cos(x * a + b),
    "negative_sin": lambda x, a, b: -jnp.sin(x * a),
    "negative_cos": lambda x, a, b: -jnp.cos(x * a),
    "sin_cos": lambda x, a, b: jnp.sin(x * a) * jnp.cos(x * b),
    "tanh": lambda x, a, b: jnp.tanh(x * a),
    "bump": lambda x, a, b: jnp.exp(-jnp.abs(x * a)) - 0.5,
    "square_wave": lambda x, a, b: jnp.sign(jnp.sin(x * a)),
    "sawtooth": lambda x, a, b: jnp.fmod(x * a + b, 2.0) - 1.0,
}


@lru_cache(maxsize=32)
def column_table(recipe: Recipe, true_columns: int = 16, noise_columns: int = 240) -> tuple[Column, ...]:
    """The columns of a recipe in their order: ``true_columns`` first, then ``noise_columns``.

    Raises:
      ValueError: unknown recipe, negative counts, or more noise columns than "trained" defines: the
        original filled the rest with fresh random numbers on every call, which is no function of x.
    """
    if recipe not in get_args(Recipe):
        raise ValueError(f"recipe {recipe!r} is not one of {get_args(Recipe)}")
    if true_columns < 0 or noise_columns < 0:
        raise ValueError(f"column counts must not be negative: {true_columns}, {noise_columns}")
    if recipe == "trained":
        return (*_trained_true(true_columns), *_trained_noise(noise_columns))
    if recipe == "library":
        return tuple(_library(index) for index in range(true_columns + noise_columns))
    return (*_harmonics(true_columns), *_random_sines(recipe, noise_columns))


def expand_input(
    x: ArrayLike,
    recipe: Recipe = "trained",
    *,
    true_columns: int = 16,
    noise_columns: int = 240,
    columns: Sequence[int] | np.ndarray | None = None,
) -> Columns:
    """Features of x, as the sine nets were trained on them.

    With the published files only "trained" is right: the original project's sparse net then has its recorded
    MSE of 3.026e-4, and the one shipped here 1.372e-4. With "readme", the recipe printed in the original's
    documentation, the former has 1.24: worse than always answering 0 (0.495). Under "trained" column 4 is
    sin(x), the regression target itself, column 117 is -sin(x) and column 15 is constantly zero.

    Args:
      x: (*s) in radians, any shape; the nets were trained on [-2 pi, 2 pi]. Outside of it the power
        columns grow like (x / 2 pi)**23. float64 stays float64 under x64.
      recipe: "trained" (what the shipped nets saw), "readme" (= the original's inference engines),
        "sine_problem" (its problem class) or "library" (its NumPy package: alternating sines and cosines).
      true_columns: size of the leading block that the original calls "true" features.
      noise_columns: size of the block behind it; at most 240 for "trained".
      columns: compute only these column numbers, in this order; None computes all.

    Returns:
      (*s, c), with c = ``true_columns + noise_columns`` or ``len(columns)``.

    Raises:
      ValueError: unknown recipe, impossible counts, a column number out of range, or x that is not real.

    Example:
      >>> expand_input(jnp.zeros(3)).shape
      (3, 256)
      >>> float(expand_input(jnp.pi / 2, columns=(4,))[0])
      1.0

    Source: specs/ultra_sparse.md sections 1 and 3. Square-wave and sawtooth columns are discontinuous: at
    a jump one unit in the last place of x decides.
    """
    x = as_real(x)
    table = column_table(recipe, true_columns, noise_columns)
    chosen = table if columns is None else [table[index] for index in checked_columns(columns, len(table))]
    blocks = [_evaluate_block(x, kind, block) for kind, block in _runs(chosen)]
    return jnp.concatenate(blocks, axis=-1) if blocks else jnp.zeros((*x.shape, 0), x.dtype)


def as_real(x: Any) -> jax.Array:
    """The values as a floating JAX array, float32 at least.

    Raises:
      ValueError: they are not real numbers.
    """
    dtype = x.dtype if isinstance(x, jax.Array) else np.asarray(x).dtype
    if dtype.kind not in "iub" and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{dtype} values where real numbers are needed")
    x = jnp.asarray(x)
    return x.astype(jnp.result_type(x, jnp.float32))


def evaluate_column(x: Scalars, column: Column) -> Scalars:
    """One column, elementwise on x of any shape: what `fuse` composes."""
    return _evaluate_block(x, column.kind, [column])[..., 0]


def checked_columns(columns: Sequence[int] | np.ndarray, count: int) -> list[int]:
    """The column numbers as ints, all within ``[0, count)``."""
    numbers = [operator.index(column) for column in columns]
    for number in numbers:
        if not 0 <= number < count:
            raise ValueError(f"column {number} is outside of the {count} columns of this recipe")
    return numbers


def _runs(columns: Sequence[Column]) -> Iterator[tuple[str, list[Column]]]:
    for kind, block in groupby(columns, key=lambda column: column.kind):
        yield kind, list(block)


def _evaluate_block(x: jax.Array, kind: str, block: Sequence[Column]) -> jax.Array:
    a = np.array([column.a for column in block])
    b = np.array([column.b for column in block])
    dtype = np.int64 if kind == "power" else x.dtype
    return _EVALUATE[kind](x[..., None], a.astype(dtype), b.astype(dtype))


def _trained_true(count: int) -> list[Column]:
    powers = [Column("power", exponent) for exponent in (1, 2, 3)]
    waves = [Column(kind, 0.5 * step) for kind in ("sin", "cos") for step in range(1, 7)]
    zeros = [Column("zero")] * max(0, count - 15)
    return [*powers, *waves, *zeros][:count]


def _trained_noise(count: int) -> list[Column]:
    if count > TRAINED_NOISE_COLUMNS:
        raise ValueError(
            f"the trained recipe defines {TRAINED_NOISE_COLUMNS} noise columns, not {count}: "
            "the original drew the others anew on every call"
        )
    draws = np.random.RandomState(12345)
    frequency, phase = draws.uniform(0.1, 10, 100), draws.uniform(0, 2 * np.pi, 100)
    scale = draws.uniform(0.5, 2, 100)
    groups = [
        [Column("sin", frequency[i], phase[i]) for i in range(50)],
        [Column("cos", frequency[i], phase[i]) for i in range(50, 100)],
        [Column("negative_sin", 0.5 * step) for step in range(1, 11)],
        [Column("negative_cos", 0.5 * step) for step in range(1, 11)],
        [Column("power", exponent) for exponent in range(4, 24)],
        [Column("sin_cos", frequency[i], frequency[20 + i]) for i in range(20)],
        [Column("tanh", scale[i]) for i in range(20)],
        [Column("bump", 0.3 * scale[i]) for i in range(20, 40)],
        [Column("square_wave", frequency[i]) for i in range(40, 60)],
        [Column("sawtooth", frequency[i], phase[i]) for i in range(60, 80)],
    ]
    return [column for group in groups for column in group][:count]


def _harmonics(count: int) -> list[Column]:
    if count > 16:
        raise ValueError(f"this recipe has 16 harmonics (sin and cos of x .. 8x), not {count}")
    return [Column(kind, k) for kind in ("sin", "cos") for k in range(1, 9)][:count]


def _random_sines(recipe: Recipe, count: int) -> list[Column]:
    draws = np.random.RandomState(42)
    if recipe == "readme":
        uniform = draws.random_sample(2 * count)
        phases, frequencies = uniform[0::2] * 2 * np.pi, 10 + uniform[1::2] * 90
    else:
        frequencies, phases = draws.uniform(10, 100, count), draws.uniform(0, 2 * np.pi, count)
    return [Column("sin", f, p) for f, p in zip(frequencies, phases, strict=True)]


def _library(index: int) -> Column:
    return Column("cos", index // 2 + 1) if index % 2 else Column("sin", index + 1)
