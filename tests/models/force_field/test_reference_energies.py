"""Energies of single atoms: exact where the data are, sensible where they are not enough."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.force_field.reference_energies import fit_reference_energies, reference_sum

TRUE = {1: -13.6, 6: -1030.5, 8: -2041.25}


def data(count=40, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    species = [rng.choice(list(TRUE), rng.integers(1, 30)) for _ in range(count)]
    energies = np.array([sum(TRUE[number] for number in atoms) for atoms in species])
    return species, energies + noise * rng.normal(size=count)


@pytest.mark.parametrize("per_atom", [True, False])
def test_sums_of_atomic_energies_are_found_exactly(per_atom):
    species, energies = data()
    fit = fit_reference_energies(species, energies, 10, per_atom=per_atom)
    assert fit.elements == (1, 6, 8)
    assert fit.rank == 3
    np.testing.assert_allclose(fit.energies[[1, 6, 8]], list(TRUE.values()), rtol=1e-10)
    assert fit.energies.shape == (11,)
    assert fit.energies.sum() == pytest.approx(sum(TRUE.values()))
    assert fit.residual_rmse < 1e-8
    assert reference_sum(fit.energies, species[3]) == pytest.approx(energies[3])


def test_residuals_are_what_is_left_and_the_weighted_fit_is_the_best_of_its_kind():
    species, energies = data(noise=2.0)
    sizes = np.array([len(atoms) for atoms in species])
    whole, by_atom = (
        fit_reference_energies(species, energies, 8, per_atom=per_atom) for per_atom in (False, True)
    )
    left = energies - [reference_sum(whole.energies, atoms) for atoms in species]
    assert whole.residual_rmse == pytest.approx(np.sqrt((left**2).mean()))
    assert whole.residual_mae == pytest.approx(np.abs(left).mean())
    assert whole.residual_per_atom_rmse == pytest.approx(np.sqrt(((left / sizes) ** 2).mean()))
    assert whole.residual_per_atom_mae == pytest.approx(np.abs(left / sizes).mean())
    assert whole.energy_std == pytest.approx(energies.std())
    assert whole.residual_rmse < by_atom.residual_rmse
    assert by_atom.residual_per_atom_rmse < whole.residual_per_atom_rmse


def test_elements_that_always_occur_together_share_their_energy():
    fit = fit_reference_energies([[1, 8], [1, 1, 8, 8]], [-10.0, -20.0], 8)
    assert fit.rank == 1
    np.testing.assert_allclose(fit.energies[[1, 8]], [-5, -5])
    assert fit.residual_mae < 1e-9


def test_regularisation_pulls_toward_the_average_atom():
    species, energies = data(noise=1.0)
    spreads = [
        np.ptp(fit_reference_energies(species, energies, 8, regularisation=strength).energies[[1, 6, 8]])
        for strength in (0.0, 1.0, 1e3, 1e9)
    ]
    assert sorted(spreads, reverse=True) == spreads
    assert spreads[-1] < 1e-3


@pytest.mark.parametrize(
    ("species", "energies", "words"),
    [
        ([], [], "0 structures need as many energies, at least 1"),
        ([[1]], [1.0, 2.0], r"1 structures need as many energies, at least 1, not \(2,\)"),
        ([[1], [1]], [1.0, np.nan], "energy 1 is no finite number"),
        ([[1], [17]], [1.0, 1.0], "structure 1 holds Cl; the table goes up to max_z=8"),
        ([[]], [1.0], "structure 0 has no atoms"),
    ],
)
def test_bad_data_are_told_in_one_line(species, energies, words):
    with pytest.raises(ValueError, match=words):
        fit_reference_energies(species, energies, 8)
    with pytest.raises(ValueError, match="regularisation must not be negative"):
        fit_reference_energies([[1]], [1.0], 8, regularisation=-1.0)
