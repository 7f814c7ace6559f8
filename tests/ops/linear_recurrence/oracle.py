"""The recurrence and its gradient in float64 numpy, one step at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """Inputs as complex128, and the cotangents of states and final state."""

    drive: np.ndarray
    log_factor: np.ndarray  # log_magnitude + i frequency, (k,) or (b, t, k)
    initial: np.ndarray
    reset: np.ndarray | None
    of_states: np.ndarray
    of_final: np.ndarray
    reverse: bool


def _complex(rng: np.random.Generator, *shape: int) -> np.ndarray:
    # Rounded to float32, so that a float32 backend is given the same numbers.
    real, imaginary = rng.normal(size=(2, *shape)).astype(np.float32)
    return real + 1j * imaginary.astype(np.complex128)


def random_case(
    length: int,
    *,
    batch: int = 2,
    width: int = 5,
    largest: float = 0.99,
    selective: bool = False,
    resets: bool = False,
    reverse: bool = False,
) -> Case:
    rng = np.random.default_rng(length)
    shape = (batch, length, width) if selective else (width,)
    magnitude = rng.uniform(0.5, largest, shape)
    magnitude[..., 0] = largest
    log_magnitude = np.log(magnitude).astype(np.float32)
    frequency = rng.uniform(-np.pi, np.pi, shape).astype(np.float32)
    return Case(
        drive=_complex(rng, batch, length, width),
        log_factor=log_magnitude + 1j * frequency.astype(np.complex128),
        initial=_complex(rng, batch, width),
        reset=rng.random((batch, length)) < 0.05 if resets else None,
        of_states=_complex(rng, batch, length, width),
        of_final=_complex(rng, batch, width),
        reverse=reverse,
    )


def states(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Every state and the last one."""
    factor = _factors(case)
    every = np.zeros_like(case.drive)
    state = case.initial
    for t in _order(case):
        state = factor[:, t] * state + case.drive[:, t]
        every[:, t] = state
    return every, state


def gradients(case: Case, *, cut_every: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """d / d(real) + i d / d(imaginary) of drive, of (log_magnitude, frequency), and of the initial state.

    The scalar is Re sum(conj(of_states) states) + Re sum(conj(of_final) final). With ``cut_every``, the state
    that enters each multiple of that many steps passes no gradient on.
    """
    factor = _factors(case)
    every, _ = states(case)
    order = list(_order(case))
    d_drive, d_log = np.zeros_like(every), np.zeros_like(every)
    carried = case.of_final
    for position in reversed(range(len(order))):
        t = order[position]
        gradient = carried + case.of_states[:, t]
        before = every[:, order[position - 1]] if position else case.initial
        d_drive[:, t] = gradient
        inner = np.conj(gradient) * factor[:, t] * before
        d_log[:, t] = inner.real - 1j * inner.imag
        is_cut = cut_every is not None and position and position % cut_every == 0
        carried = np.zeros_like(carried) if is_cut else np.conj(factor[:, t]) * gradient
    if case.log_factor.ndim == 1:
        d_log = d_log.sum((0, 1))
    return d_drive, d_log, carried


def _order(case: Case) -> range:
    length = case.drive.shape[1]
    return range(length - 1, -1, -1) if case.reverse else range(length)


def _factors(case: Case) -> np.ndarray:
    factor = np.broadcast_to(np.exp(case.log_factor), case.drive.shape)
    return factor if case.reset is None else np.where(case.reset[..., None], 0, factor)
