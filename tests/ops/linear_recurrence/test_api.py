"""The contract of the op whatever the backend: empty and single steps, streaming, truncation, bad input."""

from __future__ import annotations

from functools import partial
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ten.eigenstates import Evolution
from sparsejax.ops import backends
from sparsejax.ops.linear_recurrence import Decay, RecurrenceBackend, linear_recurrence
from tests import golden
from tests.ops.linear_recurrence import oracle


def _pair(values, dtype=jnp.float32):
    return jnp.asarray(values.real, dtype), jnp.asarray(values.imag, dtype)


def _complex(pair):
    return np.asarray(pair[0], np.float64) + 1j * np.asarray(pair[1], np.float64)


def _run(case, **options):
    reset = None if case.reset is None else jnp.asarray(case.reset)
    return linear_recurrence(
        _pair(case.drive),
        Decay(*_pair(case.log_factor)),
        initial_state=_pair(case.initial),
        reset=reset,
        reverse=case.reverse,
        **options,
    )


def test_the_annotated_names_are_those_that_are_resolved():
    names = ("auto", "reference", "xla", "pallas", *backends.LINEAR_RECURRENCE.specific)
    assert get_args(RecurrenceBackend) == names
    assert get_type_hints(Evolution)["backend"] == RecurrenceBackend


@pytest.mark.parametrize("backend", ["auto", "chunked", "fft", "pallas_gpu"])
def test_no_step_returns_the_initial_state(backend):
    case = oracle.random_case(0)
    states, final = _run(case, backend=backend)
    assert states[0].shape == states[1].shape == (2, 0, 5)
    np.testing.assert_array_equal(_complex(final), case.initial)


def test_no_step_of_bfloat16_starts_from_float32_zeros():
    empty = jnp.zeros((2, 0, 3), jnp.bfloat16)
    states, final = linear_recurrence((empty, empty), Decay(jnp.zeros(3), jnp.zeros(3)))
    assert states[0].dtype == jnp.bfloat16
    assert final[0].dtype == jnp.float32
    assert not final[0].any()


@pytest.mark.parametrize("selective", [False, True])
@pytest.mark.parametrize("resets", [False, True])
def test_one_step_is_a_multiply_add(selective, resets):
    case = oracle.random_case(1, selective=selective)
    if resets:
        case = case._replace(reset=np.array([[True], [False]]))
    states, final = _run(case, backend="pallas")
    wanted, last = oracle.states(case)
    np.testing.assert_allclose(_complex(states), wanted, atol=1e-6)
    np.testing.assert_allclose(_complex(final), last, atol=1e-6)


def test_one_step_compiles_to_no_loop():
    case = oracle.random_case(1)
    text = str(
        jax.make_jaxpr(lambda drive: linear_recurrence(drive, Decay(*_pair(case.log_factor))))(
            _pair(case.drive)
        )
    )
    assert "scan" not in text
    assert "pallas" not in text


@pytest.mark.parametrize("cut", [1, 20])
def test_two_halves_equal_the_whole(cut):
    case = oracle.random_case(37)
    whole, last = _run(case)
    decay = Decay(*_pair(case.log_factor))
    head, entering = linear_recurrence(_pair(case.drive[:, :cut]), decay, initial_state=_pair(case.initial))
    tail, final = linear_recurrence(_pair(case.drive[:, cut:]), decay, initial_state=entering)
    np.testing.assert_allclose(
        _complex(whole), np.concatenate((_complex(head), _complex(tail)), 1), atol=2e-6
    )
    np.testing.assert_allclose(_complex(last), _complex(final), atol=2e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [8, 37])
def test_truncation_cuts_the_gradient_and_keeps_the_value(steps, reverse, evaluate):
    case = oracle.random_case(37, selective=True, resets=True, reverse=reverse)

    def run(drive, decay, initial):
        return linear_recurrence(
            drive,
            decay,
            initial_state=initial,
            reset=jnp.asarray(case.reset),
            reverse=reverse,
            truncated_steps=steps,
        )

    inputs = _pair(case.drive), Decay(*_pair(case.log_factor)), _pair(case.initial)
    cotangents = _pair(case.of_states), _pair(case.of_final)

    def value_and_gradient(inputs):
        outputs, pull_back = jax.vjp(run, *inputs)
        return outputs, pull_back(cotangents)

    (states, final), gradients = evaluate(value_and_gradient, inputs)
    wanted = oracle.states(case)
    np.testing.assert_allclose(_complex(states), wanted[0], atol=1e-5)
    np.testing.assert_allclose(_complex(final), wanted[1], atol=1e-5)
    for found, exact in zip(gradients, oracle.gradients(case, cut_every=steps), strict=True):
        np.testing.assert_allclose(_complex(found), exact, atol=2e-5)


def test_truncation_of_a_constant_decay_works_with_fft(evaluate):
    case = oracle.random_case(20)
    states, final = evaluate(lambda: _run(case, truncated_steps=6, backend="fft"))
    np.testing.assert_allclose(_complex(states), oracle.states(case)[0], atol=2e-5)
    np.testing.assert_allclose(_complex(final), oracle.states(case)[1], atol=2e-5)


def test_truncation_keeps_bfloat16_states_from_losing_bits_at_the_cuts():
    case = oracle.random_case(40)
    decay, drive = Decay(*_pair(case.log_factor)), _pair(case.drive, jnp.bfloat16)
    states, final = linear_recurrence(drive, decay)
    cut, last = linear_recurrence(drive, decay, truncated_steps=4)
    assert cut[0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(_complex(cut), _complex(states))
    np.testing.assert_array_equal(_complex(last), _complex(final))


@pytest.mark.golden("op_evolution")
@pytest.mark.parametrize("length", [1, 7, 64, 129])
def test_golden_evolutions(length, evaluate):
    arrays = golden.arrays("ten", "op_evolution")

    def case(name):
        return arrays[f"T{length}/{name}_r"] + 1j * arrays[f"T{length}/{name}_i"]

    decay = Decay(jax.nn.log_sigmoid(arrays["log_decay"]), jnp.asarray(arrays["frequency"]))
    backends = {"auto": "seq"} if length == 129 else {"auto": "seq", "fft": "fft"}
    for backend, name in backends.items():
        states, _ = evaluate(partial(linear_recurrence, backend=backend), _pair(case("beta")), decay)
        wanted = case(name)
        assert np.abs(_complex(states) - wanted).max() <= 2e-5 * np.abs(wanted).max()
    if length == 129:
        return
    logarithm = np.log(case("lam").astype(np.complex128))
    states, _ = linear_recurrence(_pair(case("beta")), Decay(*_pair(logarithm)))
    assert np.abs(_complex(states) - case("sel")).max() <= 2e-5 * np.abs(case("sel")).max()
    with jax.enable_x64(True):
        log_decay = jnp.asarray(arrays["log_decay"], jnp.float64)
        wide = Decay(jax.nn.log_sigmoid(log_decay), jnp.asarray(arrays["frequency"], jnp.float64))
        states, _ = linear_recurrence(_pair(case("beta"), jnp.float64), wide)
    assert np.abs(_complex(states) - case("seq64")).max() <= 1e-10 * np.abs(case("seq64")).max()


@pytest.mark.golden("op_evolution")
def test_golden_gradients():
    arrays = golden.arrays("ten", "op_evolution")
    weights = _pair(arrays["grad/w_r"] + 1j * arrays["grad/w_i"])

    def loss(log_decay, frequency, real, imaginary):
        states, _ = linear_recurrence((real, imaginary), Decay(jax.nn.log_sigmoid(log_decay), frequency))
        return (states[0] * weights[0]).sum() + (states[1] * weights[1]).sum()

    inputs = (arrays[name] for name in ("log_decay", "frequency", "T7/beta_r", "T7/beta_i"))
    found = jax.grad(loss, argnums=(0, 1, 2, 3))(*map(jnp.asarray, inputs))
    names = ("d_log_decay", "d_frequency", "d_beta_r", "d_beta_i")
    for value, name in zip(found, names, strict=True):
        wanted = arrays[f"grad/{name}"]
        assert np.abs(value - wanted).max() <= 2e-5 * np.abs(wanted).max(), name


DRIVE = (jnp.zeros((2, 3, 4)), jnp.zeros((2, 3, 4)))
DECAY = Decay(jnp.zeros(4), jnp.zeros(4))
BAD = {
    "drive must be a .real, imaginary. pair": {"drive": (DRIVE[0], DRIVE[1][:, :2])},
    "drive must be floating point": {"drive": (jnp.zeros((2, 3, 4), int), jnp.zeros((2, 3, 4), int))},
    r"decay.log_magnitude must have shape \(4,\) or \(2, 3, 4\)": {
        "decay": Decay(jnp.zeros(5), jnp.zeros(5))
    },
    r"decay.frequency must have shape": {"decay": Decay(jnp.zeros(4), jnp.zeros((2, 3, 4)))},
    r"initial_state must have shape \(2, 4\), got \(4,\)": {"initial_state": (jnp.zeros(4), jnp.zeros(4))},
    r"reset must be bool\(2, 3\), got int32": {"reset": jnp.zeros((2, 3), jnp.int32)},
    "truncated_steps must be at least 1, got 0": {"truncated_steps": 0},
    "backend 'fft' takes one decay": {"reset": jnp.zeros((2, 3), bool), "backend": "fft"},
    "no backend 'loop'": {"backend": "loop"},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_says_what_is_wrong(message):
    with pytest.raises(ValueError, match=message):
        linear_recurrence(**{"drive": DRIVE, "decay": DECAY, **BAD[message]})
