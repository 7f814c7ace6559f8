"""The mixed recurrence: all forms against float64 numpy, the eigenvector form and its fallback."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.linear_recurrence import Decay, dense_recurrence, dense_steps, diagonalise

BATCH, WIDTH = 2, 6


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    monkeypatch.setattr(dense_steps, "CHUNK", 8)


def _inputs(length, *, resets, dtype=np.float32):
    rng = np.random.default_rng(length)
    real, imaginary = rng.normal(size=(2, BATCH, length, WIDTH)).astype(dtype)
    decay = Decay(
        np.log(rng.uniform(0.5, 0.99, WIDTH)).astype(dtype), rng.uniform(-3, 3, WIDTH).astype(dtype)
    )
    mixing = (np.eye(WIDTH) + 0.01 * rng.normal(size=(WIDTH, WIDTH))).astype(dtype)
    initial = tuple(rng.normal(size=(2, BATCH, WIDTH)).astype(dtype))
    reset = rng.random((BATCH, length)) < 0.1 if resets else None
    return (real, imaginary), decay, mixing, initial, reset


def _states(drive, decay, mixing, initial, reset):
    factor = np.exp(np.asarray(decay[0], np.float64) + 1j * np.asarray(decay[1], np.float64))
    state, every = np.asarray(initial[0]) + 1j * np.asarray(initial[1]).astype(np.complex128), []
    for t in range(drive[0].shape[1]):
        carried = factor * state
        if reset is not None:
            carried = np.where(reset[:, t, None], 0, carried)
        imaginary = 0 if drive[1] is None else drive[1][:, t]
        state = (carried + drive[0][:, t] + 1j * imaginary) @ mixing.astype(np.float64)
        every.append(state)
    return np.stack(every, 1)


def _small_noise(tree, rng):
    return jax.tree.map(lambda part: 1e-6 * rng.normal(size=part.shape), tree)


def _moved(tree, step, sign):
    return jax.tree.map(lambda value, by: value + sign * by, tree, step)


def _complex(pair):
    return np.asarray(pair[0], np.float64) + 1j * np.asarray(pair[1], np.float64)


def _device(tree):
    return jax.tree.map(jnp.asarray, tree)


@pytest.mark.parametrize("backend", ["reference", "scan", "chunked", "diagonal"])
@pytest.mark.parametrize(
    ("length", "resets", "real_only"), [(1, False, False), (8, True, True), (37, True, False)]
)
def test_value_matches_float64_numpy(backend, length, resets, real_only, evaluate):
    drive, decay, mixing, initial, reset = _inputs(length, resets=resets)
    if real_only:
        drive = (drive[0], None)
    wanted = _states(drive, decay, mixing, initial, reset)
    drive, decay, mixing, initial, reset = _device((drive, decay, mixing, initial, reset))

    def run(drive):
        return dense_recurrence(drive, decay, mixing, initial_state=initial, reset=reset, backend=backend)

    states, final = evaluate(run, drive)
    assert np.abs(_complex(states) - wanted).max() <= 2e-5 * np.abs(wanted).max()
    assert np.abs(_complex(final) - wanted[:, -1]).max() <= 2e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("backend", ["reference", "scan", "chunked"])
@pytest.mark.parametrize("steps", [None, 16])
def test_gradient_matches_finite_differences(backend, steps, evaluate):
    """In float64, along one direction of all inputs; with truncation against the sum over separate blocks."""
    with jax.enable_x64(True):
        drive, decay, mixing, initial, reset = _device(_inputs(37, resets=True, dtype=np.float64))
        weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, BATCH, 37, WIDTH)))
        cuts = [0, 37] if steps is None else [*range(0, 37, steps), 37]
        states, _ = dense_recurrence(drive, decay, mixing, initial_state=initial, reset=reset)

        def loss(inputs):
            states, _ = dense_recurrence(
                inputs[0],
                inputs[1],
                inputs[2],
                initial_state=inputs[3],
                reset=reset,
                truncated_steps=steps,
                backend=backend,
            )
            return (states[0] * weights[0]).sum() + (states[1] * weights[1]).sum()

        def of_blocks(inputs):
            """The loss with the state at every cut held at its value."""
            total = 0.0
            for start, stop in zip(cuts, cuts[1:], strict=False):
                entering = inputs[3] if start == 0 else tuple(part[:, start - 1] for part in states)
                block = tuple(np.asarray(part[:, start:stop]) for part in inputs[0])
                every = _states(
                    block, inputs[1], np.asarray(inputs[2]), entering, np.asarray(reset[:, start:stop])
                )
                total += (every.real * weights[0][:, start:stop]).sum()
                total += (every.imag * weights[1][:, start:stop]).sum()
            return total

        inputs = (drive, decay, mixing, initial)
        gradient = evaluate(jax.grad(loss), inputs)
        for place in range(len(inputs)):
            rng = np.random.default_rng(place)
            step = [jax.tree.map(np.zeros_like, part) for part in inputs]
            step[place] = _small_noise(inputs[place], rng)
            there, back = (_moved(inputs, tuple(step), sign) for sign in (1, -1))
            wanted = (of_blocks(there) - of_blocks(back)) / 2
            found = sum(
                float((g * d).sum())
                for g, d in zip(*map(jax.tree.leaves, (gradient, tuple(step))), strict=True)
            )
            assert found == pytest.approx(float(wanted), rel=1e-6, abs=1e-12)


def test_truncation_keeps_the_value():
    drive, decay, mixing, initial, reset = _device(_inputs(37, resets=True))
    whole, last = dense_recurrence(drive, decay, mixing, initial_state=initial, reset=reset)
    cut, final = dense_recurrence(
        drive, decay, mixing, initial_state=initial, reset=reset, truncated_steps=16
    )
    np.testing.assert_allclose(_complex(cut), _complex(whole), atol=1e-6)
    np.testing.assert_allclose(_complex(final), _complex(last), atol=1e-6)


def test_no_step_returns_the_initial_state():
    drive, decay, mixing, initial, _ = _device(_inputs(0, resets=False))
    states, final = dense_recurrence((drive[0], None), decay, mixing, initial_state=initial)
    assert states[1].shape == (BATCH, 0, WIDTH)
    np.testing.assert_array_equal(_complex(final), _complex(initial))


def test_bfloat16_drive_is_accumulated_in_float32():
    drive, decay, mixing, initial, _ = _device(_inputs(37, resets=False))
    rounded = jax.tree.map(lambda part: part.astype(jnp.bfloat16), drive)
    states, final = dense_recurrence(rounded, decay, mixing, initial_state=initial)
    wanted = _states(
        jax.tree.map(lambda part: np.asarray(part, np.float64), rounded),
        decay,
        np.asarray(mixing),
        initial,
        None,
    )
    assert states[0].dtype == jnp.bfloat16
    assert final[0].dtype == jnp.float32
    np.testing.assert_allclose(_complex(final), wanted[:, -1], atol=2e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(_complex(states), wanted, atol=2**-8 * np.abs(wanted).max())


def test_diagonalise_rebuilds_the_transition():
    _, decay, mixing, _, _ = _inputs(3, resets=False, dtype=np.float64)
    diagonal = diagonalise(Decay(*decay), mixing)
    values = np.exp(diagonal.decay.log_magnitude + 1j * diagonal.decay.frequency)
    matrix = _complex(diagonal.into) @ np.diag(values) @ _complex(diagonal.out_of)
    np.testing.assert_allclose(matrix, np.exp(decay[0] + 1j * decay[1])[:, None] * mixing, atol=1e-13)
    assert 1 <= diagonal.condition < 10


def test_a_defective_transition_falls_back_to_the_scan():
    jordan = np.array([[1.0, 1.0], [0.0, 1.0]], np.float32)
    decay = Decay(jnp.log(jnp.array([0.9, 0.9])), jnp.zeros(2))
    assert diagonalise(decay, jordan).condition > 100
    drive = jnp.ones((1, 20, 2)), None
    found, _ = dense_recurrence(drive, decay, jnp.asarray(jordan), backend="diagonal")
    wanted, _ = dense_recurrence(drive, decay, jnp.asarray(jordan), backend="scan")
    np.testing.assert_array_equal(found[0], wanted[0])


def test_diagonal_form_works_inside_jit_when_the_weights_are_constants():
    drive, decay, mixing, _, _ = _device(_inputs(8, resets=False))
    wanted, _ = dense_recurrence(drive, decay, mixing)
    found, _ = jax.jit(lambda drive: dense_recurrence(drive, decay, mixing, backend="diagonal"))(drive)
    np.testing.assert_allclose(_complex(found), _complex(wanted), atol=1e-5)


def test_diagonal_form_refuses_traced_weights():
    drive, decay, mixing, _, _ = _device(_inputs(8, resets=False))
    with pytest.raises(ValueError, match="'diagonal' needs the values of decay and mixing"):
        jax.jit(lambda m: dense_recurrence(drive, decay, m, backend="diagonal"))(mixing)


def test_bad_input_says_what_is_wrong():
    drive, decay, mixing, _, _ = _device(_inputs(8, resets=False))
    with pytest.raises(ValueError, match=r"mixing must have shape \(6, 6\), got \(5, 6\)"):
        dense_recurrence(drive, decay, mixing[:5])
    with pytest.raises(ValueError, match=r"decay.frequency must have shape \(6,\), got \(5,\)"):
        dense_recurrence(drive, decay._replace(frequency=decay.frequency[:5]), mixing)
    with pytest.raises(ValueError, match="not finite"):
        diagonalise(decay, jnp.full_like(mixing, jnp.nan))
