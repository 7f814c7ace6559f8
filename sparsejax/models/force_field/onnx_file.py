"""A force field as an ONNX file, checked with ONNX Runtime before it is written."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np
from jax import Array

from sparsejax.checkpoint.export_file import checked_target, write_export
from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.edge_program import (
    EdgeInputs,
    Program,
    checked_force_field,
    description,
    edge_inputs,
    edge_program,
    symbolic_inputs,
)
from sparsejax.models.force_field.structure import Structure

OPSET = 18
"""ONNX operators of this version: the oldest that has sums into equal places and all that is needed."""

TOLERANCE = {"energy": 1e-5, "atomic_energies": 1e-5, "forces": 1e-4, "stress": 1e-4}
"""Largest difference between ONNX Runtime and JAX in float32, over the largest value of an output."""

_MISSING = 'an ONNX export needs jax2onnx and onnxruntime: pip install "sparsejax[onnx]"'


def export_onnx(force_field: Any, path: str | os.PathLike[str], *, stress: bool = True) -> Path:
    """Write a force field, weights included, as an ONNX graph of flat lists of atoms and edges.

    Inputs, outputs and what they mean are those of `export_stablehlo`, by name, in float32; the numbers of
    atoms and edges are free, and forces and stress are part of the graph. The same description lies in the
    model's metadata. The graph is compared with JAX on a crystal before it is written: the published
    ONNX files of these networks are wrong by up to 96 eV, since their scatter overwrites::

        import onnxruntime

        session = onnxruntime.InferenceSession("student.onnx")
        about = session.get_modelmeta().custom_metadata_map   # cutoff, units, inputs, ... as JSON
        energy, forces, stress = session.run(["energy", "forces", "stress"], inputs)

    Args:
      force_field: a `ForceField`, or a checkpoint of one.
      path: the file, replaced in one step.
      stress: whether it is computed; NaN then for atoms without a cell.

    Returns:
      the path.

    Raises:
      ValueError: no force field, a missing library, a step that the converter does not know, a graph that
        does not compute what JAX does, or a file that cannot be written.

    Example:
      >>> export_onnx({"weights": 1}, "student.onnx")
      Traceback (most recent call last):
      ValueError: a dict is no force field; give a ForceField or a checkpoint of one
    """
    config, params = checked_force_field(force_field)
    path = checked_target(path)
    if any(importlib.util.find_spec(name) is None for name in ("jax2onnx", "onnxruntime")):
        raise ValueError(_MISSING)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    with jax.enable_x64(False):  # numbers of elements would be int64, and mix with int32
        program = edge_program(config, params, stress=stress)
        model = _converted(program)
        for key, value in description(config, np.float32, stress=stress).items():
            model.metadata_props.add(key=key, value=json.dumps(value))
        content = model.SerializeToString()
        _check(content, program, config)
    return write_export(content, path)


def _converted(program: Program) -> Any:
    """The ONNX model of a program."""
    shapes = symbolic_inputs(np.float32)
    with jax.disable_jit():
        traced, outputs = jax.make_jaxpr(program, return_shape=True)(*shapes)
    with _quiet():
        from jax2onnx import to_onnx

        try:
            return to_onnx(
                # While it runs, functions of jax.numpy have no derivatives: give it steps that are there.
                lambda *arrays: tuple(_replayed(traced, *arrays)),
                list(shapes),
                model_name="force_field",
                opset=OPSET,
                input_names=EdgeInputs._fields,
                output_names=sorted(outputs),  # as JAX orders the entries of a dict
            )
        except Exception as error:  # it has no kind of its own
            told = " ".join(str(error).split())[:200]
            raise ValueError(
                f"jax2onnx cannot convert this network ({told}); use export_stablehlo"
            ) from error


def _replayed(traced: Any, *arrays: Array) -> list[Array]:
    """Run traced steps again, those that the converter does not know in other words."""
    jaxpr = traced.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*traced.consts, *arrays], strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, jex.Literal) else values[variable]

    for step in jaxpr.eqns:
        run = _REWRITTEN.get(step.primitive.name, step.primitive.bind)
        found = run(*map(value, step.invars), **step.params)
        found = found if step.primitive.multiple_results else [found]
        values.update(zip(step.outvars, found, strict=True))
    return [value(variable) for variable in jaxpr.outvars]


def _stacked(*arrays: Array, axis: int) -> Array:
    return jax.lax.concatenate([jax.lax.expand_dims(array, [axis]) for array in arrays], axis)


def _unstacked(array: Array, *, axis: int) -> list[Array]:
    return [jax.lax.index_in_dim(array, place, axis, keepdims=False) for place in range(array.shape[axis])]


def _inlined(*arrays: Array, call_jaxpr: Any, **rules: Any) -> list[Array]:
    del rules  # of derivatives, which are taken
    return _replayed(call_jaxpr, *arrays)


_REWRITTEN: Mapping[str, Callable[..., Any]] = {
    "stack": _stacked,
    "unstack": _unstacked,
    "custom_jvp_call": _inlined,
    "custom_vjp_call": _inlined,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the converter says about libraries and shapes that do not concern this graph."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _check(content: bytes, program: Program, config: ForceFieldConfig) -> None:
    """Compare ONNX Runtime with JAX on a crystal without symmetry.

    Raises:
      ValueError: they differ.
    """
    import onnxruntime

    inputs = edge_inputs(_crystal(config), config.cutoff)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    truth = jax.jit(program)(*inputs)
    for name, found in zip(names, session.run(names, inputs._asdict()), strict=True):
        expected = np.asarray(truth[name])
        error = np.abs(found - expected).max() / np.abs(expected).max()
        if found.shape != expected.shape or not error <= TOLERANCE[name]:
            raise ValueError(
                f"the ONNX graph is wrong: its {name} differ from JAX by {error:.1e}, so nothing was "
                "written; use export_stablehlo, or another version of jax2onnx"
            )


def _crystal(config: ForceFieldConfig) -> Structure:
    """Eight atoms, out of place, in a skewed cell smaller than the cutoff."""
    scale = config.cutoff / 5
    cell = scale * np.array([[4.6, 0.0, 0.0], [0.5, 4.4, 0.0], [0.3, -0.4, 4.2]])
    sites = np.stack(np.meshgrid(*3 * [[0.0, 0.5]]), -1).reshape(-1, 3) @ cell
    moved = sites + scale * np.random.default_rng(0).uniform(-0.3, 0.3, sites.shape)
    elements = config.species or [number for number in (1, 6, 7, 8) if number <= config.max_z]
    return Structure(np.resize(elements, 8).astype(np.int32), moved, cell, np.ones(3, bool))
