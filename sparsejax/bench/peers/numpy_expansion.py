"""The 256-column expansion of the trained nets in NumPy, from specs/ultra_sparse.md section 3.

Written from the specification, not from `models.ultra_sparse.features`, so that the two check each other.
Four forms: one column at a time (as the published snippet loops), by groups, with one product for all
arguments and one sine for all sines, and of chosen columns only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Expansion = Callable[[np.ndarray], np.ndarray]

COLUMNS = 256
_BLOCK_ROWS = 256


@dataclass(frozen=True)
class Constants:
    """Frequencies (100,), phases (100,), scales (100,), and the multiples .5 .. 3 and .5 .. 5."""

    f: np.ndarray
    p: np.ndarray
    s: np.ndarray
    low: np.ndarray
    high: np.ndarray


@lru_cache(maxsize=4)
def constants(dtype: str = "float32") -> Constants:
    """The recipe's numbers in a precision, by NumPy's name for it."""
    draws = np.random.RandomState(12345)
    f, p, s = draws.uniform(0.1, 10, 100), draws.uniform(0, 2 * np.pi, 100), draws.uniform(0.5, 2, 100)
    arrays = (f, p, s, 0.5 * np.arange(1, 7), 0.5 * np.arange(1, 11))
    return Constants(*(array.astype(dtype) for array in arrays))


def expand_by_column(x: np.ndarray) -> np.ndarray:
    """(b,) -> (b, 256), one column at a time."""
    c = constants(x.dtype.name)
    out = np.zeros((len(x), COLUMNS), x.dtype)
    n = x / x.dtype.type(2 * np.pi)
    for power in range(1, 4):
        out[:, power - 1] = n**power
    for i in range(6):
        out[:, 3 + i] = np.sin(c.low[i] * x)
        out[:, 9 + i] = np.cos(c.low[i] * x)
    for i in range(50):
        out[:, 16 + i] = np.sin(x * c.f[i] + c.p[i])
        out[:, 66 + i] = np.cos(x * c.f[50 + i] + c.p[50 + i])
    for i in range(10):
        out[:, 116 + i] = -np.sin(c.high[i] * x)
        out[:, 126 + i] = -np.cos(c.high[i] * x)
    for i in range(20):
        out[:, 136 + i] = n ** (4 + i)
        out[:, 156 + i] = np.sin(x * c.f[i]) * np.cos(x * c.f[20 + i])
        out[:, 176 + i] = np.tanh(x * c.s[i])
        out[:, 196 + i] = np.exp(-np.abs(x * (x.dtype.type(0.3) * c.s[20 + i]))) - x.dtype.type(0.5)
        out[:, 216 + i] = np.sign(np.sin(x * c.f[40 + i]))
        out[:, 236 + i] = np.fmod(x * c.f[60 + i] + c.p[60 + i], x.dtype.type(2)) - x.dtype.type(1)
    return out


def expand_by_group(x: np.ndarray) -> np.ndarray:
    """(b,) -> (b, 256), one array expression per group of columns."""
    c = constants(x.dtype.name)
    out = np.zeros((len(x), COLUMNS), x.dtype)
    column = x[:, None]
    n = column / x.dtype.type(2 * np.pi)
    powers = np.multiply.accumulate(np.broadcast_to(n, (len(x), 23)), axis=1)
    out[:, 0:3] = powers[:, :3]
    out[:, 3:9] = np.sin(column * c.low)
    out[:, 9:15] = np.cos(column * c.low)
    out[:, 16:66] = np.sin(column * c.f[:50] + c.p[:50])
    out[:, 66:116] = np.cos(column * c.f[50:] + c.p[50:])
    out[:, 116:126] = -np.sin(column * c.high)
    out[:, 126:136] = -np.cos(column * c.high)
    out[:, 136:156] = powers[:, 3:]
    out[:, 156:176] = np.sin(column * c.f[:20]) * np.cos(column * c.f[20:40])
    out[:, 176:196] = np.tanh(column * c.s[:20])
    out[:, 196:216] = np.exp(-np.abs(column * (x.dtype.type(0.3) * c.s[20:40]))) - x.dtype.type(0.5)
    out[:, 216:236] = np.sign(np.sin(column * c.f[40:60]))
    out[:, 236:256] = np.fmod(column * c.f[60:80] + c.p[60:80], x.dtype.type(2)) - x.dtype.type(1)
    return out


def expand_fast() -> Expansion:
    """(b,) -> (b, 256) with as few NumPy calls as there are functions, in blocks that stay in the cache.

    -sin(kx) is sin(-kx) exactly, and fmod(v, 2) is v - 2 trunc(v / 2) exactly (and 20 times faster).
    """
    c = constants()
    zero = np.float32(0) * c.f
    bump = np.float32(0.3) * c.s[20:40]
    factor = np.concatenate(
        [
            c.low,
            c.f[:50],
            -c.high,
            c.f[:20],
            c.f[40:60],
            c.low,
            c.f[50:],
            c.high,
            c.f[20:40],
            c.s[:20],
            bump,
            c.f[60:80],
        ]
    )
    shift = np.concatenate(
        [zero[:6], c.p[:50], zero[:50], zero[:6], c.p[50:], zero[:30], zero[:20], zero[:20], c.p[60:80]]
    )
    two_pi = np.float32(2 * np.pi)

    def block(x: np.ndarray, out: np.ndarray) -> None:
        column = x[:, None]
        argument = column * factor
        argument += shift
        sine = np.sin(argument[:, :106], out=argument[:, :106])
        cosine = np.cos(argument[:, 106:192], out=argument[:, 106:192])
        rest = argument[:, 192:]
        powers = np.multiply.accumulate(np.broadcast_to(column / two_pi, (len(x), 23)), axis=1)
        out[:, 0:3] = powers[:, :3]
        out[:, 3:9] = sine[:, :6]
        out[:, 9:15] = cosine[:, :6]
        out[:, 15] = 0
        out[:, 16:66] = sine[:, 6:56]
        out[:, 66:116] = cosine[:, 6:56]
        out[:, 116:126] = sine[:, 56:66]
        np.negative(cosine[:, 56:66], out=out[:, 126:136])
        out[:, 136:156] = powers[:, 3:]
        np.multiply(sine[:, 66:86], cosine[:, 66:86], out=out[:, 156:176])
        np.tanh(rest[:, :20], out=out[:, 176:196])
        bumps = np.abs(rest[:, 20:40], out=out[:, 196:216])
        np.negative(bumps, out=bumps)
        np.exp(bumps, out=bumps)
        bumps -= np.float32(0.5)
        np.sign(sine[:, 86:106], out=out[:, 216:236])
        np.subtract(_fmod2(rest[:, 40:]), np.float32(1), out=out[:, 236:256])

    def expand(x: np.ndarray) -> np.ndarray:
        out = np.empty((len(x), COLUMNS), np.float32)
        if len(x) <= _BLOCK_ROWS:
            block(x, out)
            return out
        for start in range(0, len(x), _BLOCK_ROWS):
            block(x[start : start + _BLOCK_ROWS], out[start : start + _BLOCK_ROWS])
        return out

    return expand


def expand_columns(columns: Sequence[int]) -> tuple[Expansion, np.ndarray]:
    """Only some columns, features first: (b,) -> (c, b), and the order that the columns come in.

    Lines of one kind lie together, so that each kind is one in-place call.
    """
    kinds = [_column(number) for number in columns]
    order = sorted(range(len(columns)), key=lambda number: _ORDER.index(kinds[number][0]))
    kinds = [kinds[number] for number in order]
    factor, shift, second = (np.array([kind[n] for kind in kinds], np.float32)[:, None] for n in (1, 2, 3))
    runs = {kind: _run(kinds, kind) for kind in _ORDER if any(found[0] == kind for found in kinds)}
    exponents = [int(kind[3]) for kind in kinds if kind[0] == "power"]

    def expand(x: np.ndarray) -> np.ndarray:
        out = x * factor
        out += shift
        for kind, part in runs.items():
            lines = out[part]
            if kind == "power":
                for line, exponent in zip(lines, exponents, strict=True):
                    line[:] = _power(line, exponent)
            else:
                _IN_PLACE[kind](lines, x, second[part])
        return out

    return expand, np.array([columns[number] for number in order])


def _power(base: np.ndarray, exponent: int) -> np.ndarray:
    """By repeated squaring: ten times faster than ``**``."""
    result = None
    while exponent:
        if exponent & 1:
            result = base if result is None else result * base
        exponent >>= 1
        base = base * base if exponent else base
    return np.ones_like(base) if result is None else result


def _fmod2(values: np.ndarray) -> np.ndarray:
    if values.size <= 64:  # fewer calls matter more than a fast one
        return np.fmod(values, np.float32(2))
    whole = np.trunc(values * np.float32(0.5))
    whole *= np.float32(-2)
    whole += values
    return whole


def _run(kinds: Sequence[tuple[str, float, float, float]], kind: str) -> slice:
    places = [number for number, found in enumerate(kinds) if found[0] == kind]
    return slice(places[0], places[-1] + 1)


def _cosine(v: np.ndarray, x: np.ndarray, second: np.ndarray) -> None:
    np.cos(v, out=v)


def _negative_cosine(v: np.ndarray, x: np.ndarray, second: np.ndarray) -> None:
    np.negative(np.cos(v, out=v), out=v)


def _sine(v: np.ndarray, x: np.ndarray, second: np.ndarray) -> None:
    np.sin(v, out=v)


def _product(v: np.ndarray, x: np.ndarray, second: np.ndarray) -> None:
    np.sin(v, out=v)
    v *= np.cos(x * second)


def _tanh(v: np.ndarray, x: np.ndarray, second: np.ndarray) -> None:
    np.tanh(v, out=v)


def _bump(v: np.ndarray, x: np.ndarray, second: np.ndarray) -> None:
    np.exp(np.negative(np.abs(v, out=v), out=v), out=v)
    v -= np.float32(0.5)


def _square(v: np.ndarray, x: np.ndarray, second: np.ndarray) -> None:
    np.sign(np.sin(v, out=v), out=v)


def _sawtooth(v: np.ndarray, x: np.ndarray, second: np.ndarray) -> None:
    np.subtract(_fmod2(v), np.float32(1), out=v)


def _nothing(v: np.ndarray, x: np.ndarray, second: np.ndarray) -> None:
    """Factor and shift 0 have made the line zero already."""


_IN_PLACE: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], None]] = {
    "zero": _nothing,
    "sin": _sine,
    "cos": _cosine,
    "negative_cos": _negative_cosine,
    "sin_cos": _product,
    "tanh": _tanh,
    "bump": _bump,
    "square": _square,
    "sawtooth": _sawtooth,
}
_ORDER = ("power", *_IN_PLACE)


def _column(number: int) -> tuple[str, float, float, float]:  # noqa: PLR0911 one return per group of the table
    """Kind, factor, shift and second constant of a column."""
    c = constants("float64")
    turn = 1 / (2 * np.pi)
    if number < 15:
        true = [*(("power", turn, 0, k) for k in (1, 2, 3)), *(("sin", f, 0, 0) for f in c.low)]
        return [*true, *(("cos", f, 0, 0) for f in c.low)][number]
    if number == 15:
        return "zero", 0, 0, 0
    group, i = divmod(number - 16, 50) if number < 116 else (2, number - 116)
    if group < 2:
        return ("sin", c.f[i], c.p[i], 0) if group == 0 else ("cos", c.f[50 + i], c.p[50 + i], 0)
    if i < 20:
        return ("sin", -c.high[i], 0, 0) if i < 10 else ("negative_cos", c.high[i - 10], 0, 0)
    group, i = divmod(i - 20, 20)
    return (
        lambda: ("power", turn, 0, 4 + i),
        lambda: ("sin_cos", c.f[i], 0, c.f[20 + i]),
        lambda: ("tanh", c.s[i], 0, 0),
        lambda: ("bump", 0.3 * c.s[20 + i], 0, 0),
        lambda: ("square", c.f[40 + i], 0, 0),
        lambda: ("sawtooth", c.f[60 + i], c.p[60 + i], 0),
    )[group]()
