"""A trained net as one C99 header without dependencies, for microcontrollers and for tight loops."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from sparsejax.checkpoint.export_file import checked_target, write_export
from sparsejax.models.ultra_sparse.config import Activation
from sparsejax.models.ultra_sparse.connections import Connections, ExportedWeights, net_connections
from sparsejax.models.ultra_sparse.fuse import Trained
from sparsejax.version import __version__

Tanh = Literal["libm", "rational"]

_TANH_ERROR = "3.7e-7"
"""Bound of the rational tanh's error over all floats, with and without fused multiply-add."""

_TANH_RANGE = "7.75f"
"""Beyond, tanh is within 3.8e-7 of +-1; the quotient stops 2.4e-7 short, so that it never passes 1."""

_NUMERATOR = (1.0, 0.134585485, 0.00358859473, 2.21918908e-05, 1.56918478e-08)
_DENOMINATOR = (1.0, 0.467918783, 0.0262282584, 0.000343976339, 8.69971188e-07)
"""tanh(x) = x P(x^2) / Q(x^2): fitted for the least relative error, 5.5e-9 before rounding."""


def export_c(
    trained: Trained,
    path: str | os.PathLike[str],
    *,
    weights: ExportedWeights = "float32",
    tanh: Tanh = "libm",
    name: str | None = None,
) -> Path:
    """Write a net as one self-contained C99 header (C++ compiles it too).

    The header holds the net's numbers and two functions, each with one row of features per call:
    ``NAME_predict(used, outputs)`` takes the features that the net reads, in the order of the array
    ``NAME_columns``; ``NAME_predict_full(features, outputs)`` takes the whole feature vector. NaN in a
    feature that is read comes out as NaN. Features go in, not raw x: an expansion such as `expand_input` is
    the caller's, of the used columns alone. Connections that cannot change an output are left out (see
    `net_connections`). Equal nets give equal bytes.

    Args:
      trained: a checkpoint, or anything with ``config`` and ``params``.
      path: the file, replaced in one step.
      weights: "int8" stores a code per weight and a scale per layer, quantised by `quantize` unless the
        net holds int8 weights already; biases stay float.
      tanh: "libm" calls ``tanhf``; "rational" is a quotient of polynomials that needs no libm and that
        compilers vectorise, off by at most 3.7e-7.
      name: what the names in the header start with; by default the file's name without its suffix.

    Returns:
      the path.

    Raises:
      ValueError: a net that cannot be exported (see `net_connections`), a name that is no identifier in C
        and C++, a path that is a directory or in none, an unknown ``tanh``, or a file that cannot be
        written.

    Example:
      >>> import tempfile
      >>> ck = sparsejax.load("checkpoints/ultra_sparse_sine.pt")
      >>> header = export_c(ck, tempfile.mkdtemp() + "/sine.h", tanh="rational")
      >>> "void sine_predict(const float *used, float *outputs)" in header.read_text()
      True
    """
    if tanh not in get_args(Tanh):
        raise ValueError(f"tanh {tanh!r} is not one of {get_args(Tanh)}")
    path = checked_target(path)
    name = _checked_name(path.stem if name is None else name)
    columns, layers = net_connections(trained, weights)
    header = _header(name, trained.config.input_size, columns, layers, tanh)
    return write_export(header.encode("ascii"), path)


def _header(
    name: str, features: int, columns: np.ndarray, layers: tuple[Connections, ...], tanh: Tanh
) -> str:
    guard, upper = f"SPARSEJAX_{name.upper()}_H", name.upper()
    uses_tanh = any(layer.activation == "tanh" for layer in layers)
    blocks = [
        _comment(name, features, columns, layers, tanh if uses_tanh else None),
        f"#ifndef {guard}\n#define {guard}",
        "#include <stdint.h>" + ("\n#include <math.h>" if uses_tanh and tanh == "libm" else ""),
        f"#define {upper}_FEATURES {features}\n"
        f"#define {upper}_USED {len(columns)}\n"
        f"#define {upper}_OUTPUTS {len(layers[-1].bias)}",
        "/* The features that the net reads, in the order that the function below takes them. */\n"
        + _array(f"{name}_columns", _unsigned(columns), [f"{upper}_USED"]),
        *([_rational_tanh(name)] if uses_tanh and tanh == "rational" else []),
        _predict(name, layers, tanh),
        _predict_full(name, upper, all_used=len(columns) == features),
        "#endif",
    ]
    return "\n\n".join(blocks) + "\n"


def _comment(
    name: str, features: int, columns: np.ndarray, layers: tuple[Connections, ...], tanh: Tanh | None
) -> str:
    sizes = " -> ".join(str(size) for size in (len(columns), *(len(layer.bias) for layer in layers)))
    tables = [_smallest_tables(layer) for layer in layers]
    indices = sum(own[key].nbytes for own in tables for key in own.keys() & {"sources", "counts"})
    numbers = sum(own["weights"].nbytes + own["bias"].nbytes for own in tables)
    lines = [
        f"{name}: an ultra-sparse net, {sizes}, written by sparsejax {__version__}.",
        f"It reads {len(columns)} of {features} features. Weights and biases take {numbers} bytes, "
        f"indices {indices}, the list of columns {_unsigned(columns).nbytes}.",
    ]
    if tanh == "rational":
        lines.append(f"tanh is a rational approximation, off by at most {_TANH_ERROR}; no libm.")
    if tanh == "libm":
        lines.append("The only function called is tanhf of libm.")
    return "/* " + "\n * ".join(line for text in lines for line in textwrap.wrap(text, 100)) + "\n */"


def _rational_tanh(name: str) -> str:
    return (
        f"/* tanh, off by at most {_TANH_ERROR}, between -1 and 1; NaN stays NaN. */\n"
        f"static inline float {name}_tanh(float x)\n"
        "{\n"
        f"    const float low = x > {_TANH_RANGE} ? {_TANH_RANGE} : x;\n"
        f"    const float c = low < -{_TANH_RANGE} ? -{_TANH_RANGE} : low;\n"
        "    const float s = c * c;\n"
        f"    const float p = {_horner(_NUMERATOR)};\n"
        f"    const float q = {_horner(_DENOMINATOR)};\n"
        "    return c * p / q;\n"
        "}"
    )


def _horner(coefficients: Sequence[float]) -> str:
    """The polynomial in s, from the innermost bracket outwards."""
    *rest, last = (_number(np.float32(value)) for value in coefficients)
    text = last
    for value in reversed(rest):
        text = f"{value} + s * {text}" if text is last else f"{value} + s * ({text})"
    return text


def _predict(name: str, layers: tuple[Connections, ...], tanh: Tanh) -> str:
    """The function over the used features: all tables, then one block per layer."""
    declarations, blocks, below = [], [], "used"
    for number, layer in enumerate(layers):
        tables = _smallest_tables(layer)
        declarations += [
            "    " + _array(f"{key}_{number}", table, [str(size) for size in table.shape])
            for key, table in tables.items()
        ]
        blocks.append(_block(layer, tables, number, below, f"{name}_tanh" if tanh == "rational" else "tanhf"))
        below = f"layer_{number}"
    return (
        "/* The outputs of the net for one row of used features. */\n"
        f"static inline void {name}_predict(const float *used, float *outputs)\n"
        "{\n"
        + "\n".join([*declarations, *blocks])
        + f"\n    for (int h = 0; h < {len(layers[-1].bias)}; ++h) outputs[h] = {below}[h];\n"
        + "}"
    )


def _predict_full(name: str, upper: str, *, all_used: bool) -> str:
    gather = (
        f"    float used[{upper}_USED];\n"
        f"    for (int i = 0; i < {upper}_USED; ++i) used[i] = features[{name}_columns[i]];\n"
    )
    return (
        f"/* The same for one row of all {upper}_FEATURES features. */\n"
        f"static inline void {name}_predict_full(const float *features, float *outputs)\n"
        "{\n"
        f"{'' if all_used else gather}"
        f"    {name}_predict({'features' if all_used else 'used'}, outputs);\n"
        "}"
    )


def _block(layer: Connections, tables: Mapping[str, np.ndarray], number: int, below: str, tanh: str) -> str:
    """The loops of one layer. Neurons are the inner loop where they can be: it vectorises exactly."""
    values, neurons = f"layer_{number}", len(layer.bias)
    each = f"    for (int h = 0; h < {neurons}; ++h)"
    begin = f"bias_{number}[h]" if layer.step is None else "0.0f"
    lines = [f"    float {values}[{neurons}];"]
    if "counts" in tables:
        term = _product(layer, f"weights_{number}[n]", f"{below}[sources_{number}[n]]")
        lines += [
            f"    for (int h = 0, n = 0; h < {neurons}; ++h) {{",
            f"        float sum = {begin};",
            f"        for (int k = 0; k < counts_{number}[h]; ++k, ++n) sum += {term};",
            f"        {values}[h] = sum;",
            "    }",
        ]
    else:
        source = f"{below}[sources_{number}[k][h]]" if "sources" in tables else f"{below}[k]"
        term = _product(layer, f"weights_{number}[k][h]", source)
        lines += [
            f"{each} {values}[h] = {begin};",
            f"    for (int k = 0; k < {len(tables['weights'])}; ++k)",
            f"    {each} {values}[h] += {term};",
        ]
    if layer.step is not None:
        scaled = f"bias_{number}[h] + {_number(layer.step)} * {values}[h]"
        lines.append(f"{each} {values}[h] = {scaled};")
    if layer.activation != "linear":
        lines.append(f"{each} {values}[h] = {_activated(layer.activation, f'{values}[h]', tanh)};")
    return "\n".join(lines)


def _product(layer: Connections, weight: str, source: str) -> str:
    return f"{weight} * {source}" if layer.step is None else f"(float){weight} * {source}"


def _activated(activation: Activation, value: str, tanh: str) -> str:
    """The activation in C; all of them hand NaN on."""
    if activation == "tanh":
        return f"{tanh}({value})"
    if activation == "relu":
        return f"{value} < 0.0f ? 0.0f : {value}"
    return f"{value} > 0.0f ? 1.0f : {value} < 0.0f ? -1.0f : {value}"


def _smallest_tables(layer: Connections) -> dict[str, np.ndarray]:
    """The layer's numbers as the C arrays that take the fewest bytes, by the arrays' names.

    Three forms: a full kernel (width, h); sources and weights (k, h), padded with zeros; lists, with a
    count per neuron.
    """
    forms = [_table(layer), _lists(layer)]
    if all(len(np.unique(sources)) == len(sources) for sources in layer.sources):
        forms.insert(0, _full(layer))
    smallest = min(forms, key=lambda tables: sum(table.nbytes for table in tables.values()))
    return {**smallest, "bias": layer.bias}


def _full(layer: Connections) -> dict[str, np.ndarray]:
    kernel = np.zeros((layer.width, len(layer.bias)), layer.weights[0].dtype)
    for neuron, (sources, weights) in enumerate(zip(layer.sources, layer.weights, strict=True)):
        kernel[sources, neuron] = weights
    return {"weights": kernel}


def _table(layer: Connections) -> dict[str, np.ndarray]:
    shape = max(len(sources) for sources in layer.sources), len(layer.bias)
    table, kernel = np.zeros(shape, int), np.zeros(shape, layer.weights[0].dtype)
    for neuron, (sources, weights) in enumerate(zip(layer.sources, layer.weights, strict=True)):
        # Padding reads what the neuron reads anyway, so that NaN elsewhere cannot reach it.
        table[:, neuron] = sources[0] if len(sources) else 0
        table[: len(sources), neuron] = sources
        kernel[: len(weights), neuron] = weights
    return {"weights": kernel, "sources": _unsigned(table)}


def _lists(layer: Connections) -> dict[str, np.ndarray]:
    counts = np.array([len(sources) for sources in layer.sources])
    sources = np.concatenate(layer.sources)
    return {
        "weights": np.concatenate(layer.weights),
        "sources": _unsigned(sources),
        "counts": _unsigned(counts),
    }


def _unsigned(values: np.ndarray) -> np.ndarray:
    """The values in the smallest unsigned type that holds them."""
    return values.astype(np.min_scalar_type(int(values.max())))


_C_TYPES = {
    "float32": "float",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "uint16": "uint16_t",
    "uint32": "uint32_t",
}


def _array(name: str, values: np.ndarray, sizes: list[str]) -> str:
    brackets = "".join(f"[{size}]" for size in sizes)
    return f"static const {_C_TYPES[values.dtype.name]} {name}{brackets} = {_initializer(values)};"


def _initializer(values: np.ndarray) -> str:
    if values.ndim > 1:
        return "{\n" + ",\n".join(f"        {_initializer(row)}" for row in values) + "}"
    text = ", ".join(_number(value) for value in values)
    return "{" + "\n            ".join(textwrap.wrap(text, 95)) + "}"


def _number(value: np.generic) -> str:
    """A C literal of exactly this number (9 digits tell all float32 numbers apart)."""
    if not isinstance(value, np.floating):
        return str(value)
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _checked_name(name: str) -> str:
    """Refuse what C or C++ would not take as (the start of) a name."""
    spelled = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", name)
    if not spelled or "__" in name or name.endswith("_") or name in _KEYWORDS:
        raise ValueError(
            f"{name[:60]!r} cannot start the names of a C header: give name= of at most 40 letters, digits "
            "and single underscores, a letter first, no underscore last, and no keyword of C or C++"
        )
    return name


_KEYWORDS = frozenset(
    """
    auto break case char const continue default do double else enum extern float for goto if inline int long
    register restrict return short signed sizeof static struct switch typedef union unsigned void volatile
    while alignas alignof and and_eq asm bitand bitor bool catch char8_t char16_t char32_t class co_await
    co_return co_yield compl concept const_cast consteval constexpr constinit decltype delete dynamic_cast
    explicit export false friend mutable namespace new noexcept not not_eq nullptr operator or or_eq private
    protected public reinterpret_cast requires static_assert static_cast template this thread_local throw
    true try typeid typename using virtual wchar_t xor xor_eq typeof typeof_unqual
    """.split()
)
