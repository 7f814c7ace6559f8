"""Every backend against float64 numpy: value and gradient, all lengths, directions, resets and dtypes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.linear_recurrence import Decay, linear_recurrence, pallas_gpu
from tests.ops.linear_recurrence import oracle

BACKENDS = ("reference", "scan", "associative", "chunked", "fft", "pallas_gpu", "pallas_tpu")
CASES = {
    2: {},
    7: {"selective": True, "reverse": True},
    63: {},
    64: {"resets": True, "reverse": True},
    65: {"reverse": True},
    129: {"selective": True, "resets": True, "largest": 0.9999},
    1000: {"largest": 0.9999},
}


@pytest.fixture(autouse=True)
def _small_kernel(monkeypatch):
    """Split time into spans already at T = 64, and trace fewer copies of a step."""
    monkeypatch.setattr(pallas_gpu, "UNROLL", 2)
    monkeypatch.setattr(pallas_gpu, "SHORTEST_SPAN", 30)


def _pair(values, dtype):
    return jnp.asarray(values.real, dtype), jnp.asarray(values.imag, dtype)


def _inputs(case, dtype):
    wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
    decay = Decay(*_pair(case.log_factor, wide))
    return (_pair(case.drive, dtype), decay, _pair(case.initial, wide)), (
        _pair(case.of_states, dtype),
        _pair(case.of_final, wide),
    )


def _value_and_gradient(case, backend):
    def evaluate(inputs, cotangents):
        def run(drive, decay, initial):
            return linear_recurrence(
                drive, decay, initial_state=initial, reset=reset, reverse=case.reverse, backend=backend
            )

        outputs, pull_back = jax.vjp(run, *inputs)
        return outputs, pull_back(cotangents)

    reset = None if case.reset is None else jnp.asarray(case.reset)
    return evaluate


def _complex(pair):
    return np.asarray(pair[0], np.float64) + 1j * np.asarray(pair[1], np.float64)


def _assert_close(found, wanted, tolerance):
    wanted = np.asarray(wanted)
    assert np.isfinite(found).all()
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


def _compare(case, outputs, gradients, tolerance):
    expected = (*oracle.states(case), *oracle.gradients(case))
    for found, wanted in zip((*outputs, *gradients), expected, strict=True):
        _assert_close(_complex(found), wanted, tolerance)


def _case(length, backend):
    options = dict(CASES[length])
    if backend == "fft":
        options = {name: value for name, value in options.items() if name in {"reverse", "largest"}}
    return oracle.random_case(length, **options)


@pytest.mark.parametrize("length", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_matches_float64_numpy(backend, length, evaluate):
    case = _case(length, backend)
    outputs, gradients = evaluate(_value_and_gradient(case, backend), *_inputs(case, jnp.float32))
    assert all(part.dtype == jnp.float32 for part in jax.tree.leaves((outputs, gradients)))
    largest = CASES[length].get("largest", 0.99)
    _compare(case, outputs, gradients, 2e-5 if largest <= 0.99 else 1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64_is_float64_throughout(backend, evaluate):
    with jax.enable_x64(True):
        case = oracle.random_case(7, reverse=True)
        outputs, gradients = evaluate(_value_and_gradient(case, backend), *_inputs(case, jnp.float64))
        assert all(part.dtype == jnp.float64 for part in jax.tree.leaves((outputs, gradients)))
        _compare(case, outputs, gradients, 1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_inputs_are_accumulated_in_float32(backend, evaluate):
    case = oracle.random_case(7, reverse=True)
    inputs, cotangents = _inputs(case, jnp.bfloat16)
    rounded = case._replace(drive=_complex(inputs[0]), of_states=_complex(cotangents[0]))
    outputs, gradients = evaluate(_value_and_gradient(case, backend), inputs, cotangents)
    assert outputs[0][0].dtype == gradients[0][0].dtype == jnp.bfloat16
    assert outputs[1][0].dtype == gradients[1].frequency.dtype == jnp.float32
    wanted = oracle.states(rounded)
    _within_one_ulp(outputs[0], wanted[0])
    _assert_close(_complex(outputs[1]), wanted[1], 2e-5)
    d_drive, d_log, d_initial = oracle.gradients(rounded)
    _within_one_ulp(gradients[0], d_drive)
    _assert_close(_complex(gradients[1]), d_log, 2**-8)  # from states of 8 significant bits
    _assert_close(_complex(gradients[2]), d_initial, 2e-5)


def _within_one_ulp(pair, wanted):
    for found, exact in zip(pair, (wanted.real, wanted.imag), strict=True):
        ulp = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(exact), 1e-3))) - 7)
        assert (np.abs(np.asarray(found, np.float32) - exact) <= ulp).all()


def test_the_gpu_kernel_as_it_ships_takes_a_length_that_is_no_multiple_of_its_unrolling(
    monkeypatch, evaluate
):
    monkeypatch.undo()
    case = oracle.random_case(pallas_gpu.UNROLL + 3, resets=True)

    def run(drive, decay, initial):
        reset = jnp.asarray(case.reset)
        return linear_recurrence(drive, decay, initial_state=initial, reset=reset, backend="pallas_gpu")

    states, final = evaluate(run, *_inputs(case, jnp.float32)[0])
    wanted = oracle.states(case)
    _assert_close(_complex(states), wanted[0], 2e-5)
    _assert_close(_complex(final), wanted[1], 2e-5)
