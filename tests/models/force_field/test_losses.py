"""The published losses in value and gradient; masks, energies per atom, gradients where forces vanish."""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.force_field.losses import (
    ForceFieldLoss,
    LossMasks,
    cosines,
    distillation_loss,
    force_field_loss,
)
from tests import golden

NAMES = {"energy": "energy", "forces": "forces", "stress": "stress"}
PUBLISHED = {
    "default": {},
    "mae": {"energy_loss_type": "mae", "force_loss_type": "mae", "stress_loss_type": "mae"},
    "huber": {
        "energy_loss_type": "huber",
        "force_loss_type": "huber",
        "stress_loss_type": "huber",
        "huber_delta": 0.7,
    },
    "sum": {"reduction": "sum"},
    "noang": {"angular_weight": 0.0, "energy_weight": 0.3, "force_weight": 15.0},
}
COUNTS = np.array([3, 1, 4])
GRAPHS = np.array([True, True, True, False, False])
ATOMS = np.arange(12) < COUNTS.sum()


@lru_cache
def graded(**settings):
    """Loss, metrics and gradients, compiled once for each kind of loss."""

    def loss(predicted, labels, masks):
        return force_field_loss(predicted, labels, ForceFieldLoss(**settings), masks)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@lru_cache
def distilled(energy, temperature=1.0, alpha=0.5):
    settings = ForceFieldLoss(energy=energy)

    def loss(predicted, labels, teacher, masks):
        return distillation_loss(
            predicted, labels, teacher, settings, masks, temperature=temperature, alpha=alpha
        )

    return jax.jit(loss)


def batch(seed=0):
    """Predictions and labels of 3 graphs of 3, 1 and 4 atoms, padded to 5 graphs of 12 atoms with NaN."""
    rng = np.random.default_rng(seed)

    def quantities():
        return {
            "energy": np.where(GRAPHS, rng.normal(size=5), np.nan),
            "forces": np.where(ATOMS[:, None], rng.normal(size=(12, 3)), np.nan),
            "stress": np.where(GRAPHS[:, None], rng.normal(size=(5, 6)), np.nan),
        }

    masks = LossMasks(ATOMS, GRAPHS, np.array([3, 1, 4, 0, 0]))
    return quantities(), quantities(), masks


def real(quantities):
    """The same without padding."""
    rows = {"energy": GRAPHS, "forces": ATOMS, "stress": GRAPHS}
    return {name: np.asarray(array)[rows[name]] for name, array in quantities.items()}


@pytest.mark.golden("loss_arrays")
@pytest.mark.parametrize("case", PUBLISHED)
def test_published_losses_metrics_and_gradients(case):
    arrays = golden.arrays("force_field", "loss_arrays")
    with jax.enable_x64(True):
        predicted, labels = (
            {name: jnp.asarray(arrays[f"{side}_{name}"]) for name in NAMES} for side in ("pred", "tgt")
        )
        settings = ForceFieldLoss(energy="total", **PUBLISHED[case])

        def loss(predicted):
            return force_field_loss(predicted, labels, settings)

        (total, metrics), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(predicted)
    expected = {
        name.removeprefix(f"{case}/"): value for name, value in arrays.items() if name.startswith(case)
    }
    assert set(metrics) == {name for name in expected if not name.startswith("grad_")}
    assert total == metrics["total"]
    for name, value in metrics.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-10, err_msg=name)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[f"grad_{name}"], rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.golden("loss_arrays")
def test_published_distillation():
    arrays = golden.arrays("force_field", "loss_arrays")
    with jax.enable_x64(True):
        predicted, labels = (
            {name: jnp.asarray(arrays[f"{side}_{name}"]) for name in ("energy", "forces")}
            for side in ("pred", "tgt")
        )
        teacher = {"energy": 1.1 * arrays["tgt_energy"], "forces": 0.9 * arrays["tgt_forces"]}
        total, metrics = distilled("total", 2.0, 0.3)(predicted, labels, teacher, LossMasks())
    assert total == metrics["total"]
    for name in ("total", "distill_loss", "hard_loss"):
        np.testing.assert_allclose(metrics[name], arrays[f"distill/{name}"], rtol=1e-10)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("energy", ["per_atom", "total"])
def test_padding_counts_for_nothing_in_value_and_gradient(reduction, energy):
    predicted, labels, masks = batch()
    run = graded(reduction=reduction, energy=energy, angular_floor=1e-3)
    (total, metrics), gradients = run(predicted, labels, masks)
    plain = LossMasks(num_atoms=COUNTS)
    (expected, same), exact = run(real(predicted), real(labels), plain)
    assert total == pytest.approx(float(expected), rel=1e-5)
    for name, value in same.items():
        assert metrics[name] == pytest.approx(float(value), rel=1e-5), name
    for name, gradient in real(gradients).items():
        np.testing.assert_allclose(gradient, exact[name], rtol=1e-5, atol=1e-7)
    assert np.all(np.asarray(gradients["forces"])[~ATOMS] == 0)
    assert np.all(np.asarray(gradients["energy"])[~GRAPHS] == 0)


def test_energies_per_atom_by_hand():
    predicted, labels, masks = batch()
    (_, metrics), _ = graded(reduction="mean", energy="per_atom", angular_floor=1e-3)(
        predicted, labels, masks
    )
    errors = (predicted["energy"] - labels["energy"])[GRAPHS]
    assert metrics["energy"] == pytest.approx(float(np.mean((errors / COUNTS) ** 2)), rel=1e-5)
    assert metrics["energy_rmse"] == pytest.approx(float(np.sqrt(np.mean(errors**2))), rel=1e-5)
    assert metrics["energy_per_atom_mae"] == pytest.approx(float(np.mean(np.abs(errors) / COUNTS)), rel=1e-5)
    with pytest.raises(ValueError, match='give masks.num_atoms, or set energy="total"'):
        force_field_loss(predicted, labels, ForceFieldLoss(), masks._replace(num_atoms=None))


def test_stress_counts_where_it_is_labelled():
    predicted, labels, masks = batch()
    run = graded(energy="total", energy_weight=0, force_weight=0, stress_weight=2.0)
    labels["stress_mask"] = np.array([False, True, False, True, False])
    (total, metrics), gradients = run(predicted, labels, masks)
    error = predicted["stress"][1] - labels["stress"][1]
    assert set(metrics) == {"total", "stress", "stress_rmse", "stress_mae"}
    assert total == pytest.approx(2 * float(np.mean(error**2)), rel=1e-6)
    np.testing.assert_allclose(gradients["stress"][1], 2 * 2 * error / 6, rtol=1e-5)
    labels["stress_mask"] = np.zeros(5, bool)
    (total, metrics), gradients = run(predicted, labels, masks)
    assert total == 0
    assert not np.any(gradients["stress"])


def test_first_and_second_derivatives_are_finite_at_zero_forces():
    settings = ForceFieldLoss(energy="total")

    def loss(found, truth):
        return force_field_loss({"forces": found}, {"forces": truth}, settings)[0]

    @jax.jit
    def derivatives(found, truth):
        first = jax.grad(loss)
        return first(found, truth), jax.jvp(lambda x: first(x, truth), (found,), (jnp.ones((3, 3)),))[1]

    zeros, forces = np.zeros((3, 3), np.float32), np.eye(3, dtype=np.float32)
    for found, truth in ((zeros, forces), (forces, zeros), (zeros, zeros), (forces, forces)):
        assert all(np.isfinite(part).all() for part in derivatives(found, truth))


def test_floor_bounds_the_angular_gradient():
    truth = np.array([1.0, 2.0, 2.0], np.float32)
    run = jax.jit(jax.value_and_grad(cosines))
    for floor in (1e-1, 1e-3):
        np.testing.assert_allclose(
            run(np.zeros(3, np.float32), truth, floor)[1], truth / 3 / floor, rtol=1e-6
        )
    long = np.array([-1.0, 0.5, 0.2], np.float32)
    assert run(long, truth, 1e-2)[0] == run(long, truth, 1e-8)[0]


def test_distillation_masks_padding_and_divides_by_the_square_of_the_temperature():
    predicted, labels, masks = batch()
    teacher = batch(1)[0]
    total, metrics = distilled("per_atom")(predicted, labels, teacher, masks)
    cool = distilled("per_atom", 2.0)(predicted, labels, teacher, masks)[1]
    assert metrics["distill_loss"] == pytest.approx(4 * float(cool["distill_loss"]), rel=1e-6)
    energies = ((predicted["energy"] - teacher["energy"])[GRAPHS] / COUNTS) ** 2
    forces = (predicted["forces"] - teacher["forces"])[ATOMS] ** 2
    assert metrics["distill_loss"] == pytest.approx(float(energies.mean() + forces.mean()), rel=1e-5)
    (hard, _), _ = graded()(predicted, labels, masks)
    assert metrics["hard_loss"] == pytest.approx(float(hard), rel=1e-6)
    assert total == pytest.approx(float(0.5 * hard + 0.5 * metrics["distill_loss"]), rel=1e-6)


def test_teacher_gets_no_gradient():
    predicted, labels, masks = batch()
    run = jax.jit(jax.grad(lambda teacher: distilled("per_atom")(predicted, labels, teacher, masks)[0]))
    assert not any(np.any(part) for part in run(batch(1)[0]).values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"force_weight": -1.0}, "force_weight must not be negative, and is -1.0"),
        ({"energy_weight": float("nan")}, "energy_weight must not be negative, and is nan"),
        ({"huber_delta": 0.0}, "huber_delta must be positive, and is 0.0"),
        ({"force_loss_type": "l1"}, "force_loss_type must be one of .*, not 'l1'"),
        ({"reduction": "none"}, "reduction must be one of"),
        ({"energy": "atom"}, "energy must be one of"),
    ],
)
def test_bad_settings_are_told_in_one_line(settings, words):
    with pytest.raises(ValueError, match=words):
        ForceFieldLoss(**settings)


def test_bad_arguments_are_told_in_one_line():
    one, settings = {"energy": jnp.zeros(1)}, ForceFieldLoss(energy="total")
    with pytest.raises(ValueError, match=r"energy is predicted as \(1,\) and labelled as \(2,\)"):
        force_field_loss(one, {"energy": jnp.zeros(2)}, settings)
    with pytest.raises(ValueError, match="nothing to learn from"):
        force_field_loss(one, {"forces": jnp.zeros((1, 3))}, settings)
    with pytest.raises(ValueError, match="temperature must be positive"):
        distillation_loss(one, one, one, settings, temperature=0.0)
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        distillation_loss(one, one, one, settings, alpha=1.5)
    with pytest.raises(ValueError, match="a teacher gives energy and forces"):
        distillation_loss(one, one, one, settings)
