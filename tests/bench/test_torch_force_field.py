"""The torch peers of the force field: numbers of the original in every form, and their derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.bench.peers import torch_force_field as peer
from sparsejax.bench.peers import torch_force_field_weights as peer_weights
from tests import golden

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # at these sizes a second one only waits
pytestmark = pytest.mark.torch

CUTOFF = 5.0
MODELS = {"original": "original_427k", "tiny": "tiny_77k", "ultra_tiny": "ultra_tiny_21k"}
FORMS = ("published", "tuned", "shared")


def state_of(name):
    file = golden.path("force_field", f"{name}.pt")
    return torch.load(file, weights_only=True)["model_state_dict"]


def edges_of(positions, cell, repeats, cutoff=CUTOFF):
    """Every pair and image up to the cutoff, by brute force."""
    spans = [range(-3, 4) if axis else (0,) for axis in repeats]
    shifts = np.array(np.meshgrid(*spans, indexing="ij")).reshape(3, -1).T @ cell
    vectors = positions[None, :, None] + shifts - positions[:, None, None]
    distances = np.linalg.norm(vectors, axis=-1)
    same = np.eye(len(positions), dtype=bool)[..., None] & (np.abs(shifts).max(-1) == 0)
    receivers, senders, image = np.nonzero((distances <= cutoff) & ~same)
    return senders, receivers, shifts[image]


def energies_in(form, weights, pairs, cutoff=CUTOFF):
    if form == "published":
        return peer.published(weights, pairs, cutoff=cutoff)
    return peer.tuned(weights, pairs, cutoff=cutoff, share=form == "shared")


def cases_of(model):
    """System, whether its cell counts, and the arrays: open ones for all, periodic ones where they are."""
    arrays = golden.arrays("force_field", f"systems_{model}_public")
    for system in sorted({key.split("/")[0] for key in arrays}):
        found = {key.split("/")[1]: arrays[key] for key in arrays if key.startswith(f"{system}/")}
        yield system, False, found
        if "E_pbc" in found:
            yield system, True, found


@pytest.mark.golden()
@pytest.mark.parametrize("model", MODELS)
def test_every_form_has_the_energies_forces_and_stress_of_the_original(model):
    weights = peer_weights.weights_of_state(state_of(MODELS[model]), dtype="float64")
    for system, periodic, known in cases_of(model):
        senders, receivers, shifts = edges_of(known["pos"], known["cell"], known["pbc"] & periodic)
        pairs = peer_weights.pairs(
            known["z"], senders, receivers, shifts=shifts if periodic else None, dtype="float64"
        )
        truth = ("E_pbc", "F_pbc") if periodic else ("E64", "F64")
        energy, forces = (known[name] for name in truth)
        positions = torch.from_numpy(known["pos"])
        for form in FORMS:
            network = energies_in(form, weights, pairs)
            found, pulls = peer.energy_and_forces(network, pairs)(positions)
            assert abs(float(found[0]) - energy) <= 1e-9 * max(1, abs(energy)), (system, form)
            if known.get("F_sens", 0) < 1e-9:
                largest = max(1, np.abs(forces).max())
                np.testing.assert_allclose(pulls, forces, rtol=0, atol=1e-9 * largest, err_msg=system)
            if periodic:
                stress = peer.stress(network, pairs, positions, known["cell"])
                np.testing.assert_allclose(stress, known["stress_voigt"], rtol=0, atol=1e-10)


@pytest.mark.golden()
def test_batches_are_told_apart_by_graph_ids():
    weights = peer_weights.weights_of_state(state_of("tiny_77k"), dtype="float64")
    known = golden.arrays("force_field", "batch_tiny")
    apart = known["pos"] + 100.0 * known["batch"][:, None]
    senders, receivers, _ = edges_of(apart, np.eye(3), np.zeros(3))
    pairs = peer_weights.pairs(known["z"], senders, receivers, graph=known["batch"], dtype="float64")
    for form in FORMS:
        call = peer.energy_and_forces(energies_in(form, weights, pairs), pairs)
        energies, forces = call(torch.from_numpy(known["pos"]))
        np.testing.assert_allclose(energies, known["E64"], rtol=1e-9)
        np.testing.assert_allclose(forces, known["F64"], atol=1e-8)


@pytest.fixture(scope="module")
def small():
    """Random weights of two interactions and a periodic cell smaller than the cutoff, float64."""
    params = peer_weights.random_params(3, hidden_dim=8, num_interactions=2, num_rbf=5, cutoff=3.0)
    draws = np.random.default_rng(0)
    cell = np.diag([2.5, 2.9, 4.0]) + 0.1 * draws.standard_normal((3, 3))
    positions = draws.uniform(0, 3, (4, 3))
    senders, receivers, shifts = edges_of(positions, cell, np.ones(3), 3.0)
    order = draws.permutation(len(senders))
    species = np.array([1, 6, 6, 8])
    pairs = peer_weights.pairs(
        species, senders[order], receivers[order], shifts=shifts[order], dtype="float64"
    )
    weights = peer_weights.weights_of_params(params, dtype="float64")
    return params, weights, pairs, torch.from_numpy(positions), cell


@pytest.mark.parametrize("form", FORMS)
def test_forces_and_stress_are_the_differences_of_the_energy(small, form):
    _, weights, pairs, positions, cell = small
    network = energies_in(form, weights, pairs, 3.0)

    def energy(places):
        return float(network(peer.edge_vectors(places, pairs))[0])

    step = torch.zeros_like(positions)
    step[2, 1] = 1e-5
    slope = (energy(positions + step) - energy(positions - step)) / 2e-5
    for forces_of in (peer.energy_and_forces, peer.energy_and_forces_of_positions):
        assert float(forces_of(network, pairs)(positions)[1][2, 1]) == pytest.approx(-slope, rel=1e-6)
    strain = torch.eye(3, dtype=torch.float64)
    strain[0, 2] = strain[2, 0] = 1e-5
    strained = [
        float(network(peer.edge_vectors(positions, pairs) @ turn)[0])
        for turn in (strain, 2 * torch.eye(3) - strain)
    ]
    shear = (strained[0] - strained[1]) / 4e-5 / abs(np.linalg.det(cell))
    assert float(peer.stress(network, pairs, positions, cell)[4]) == pytest.approx(shear, rel=1e-6)


def test_the_published_form_can_be_differentiated_twice(small):
    params, _, pairs, positions, _ = small
    weights = peer_weights.weights_of_params(params, dtype="float64", gradients=True)
    network = peer.published(weights, pairs, cutoff=3.0)
    places = positions.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(peer.edge_vectors(places, pairs)).sum(), places, create_graph=True)
    (slope**2).sum().backward()
    without = {key for key, weight in weights.items() if weight.grad is None}
    assert without == {
        "interactions.1.update.mixing_matrix",
        "energy_head.4.bias",
    }  # no force depends on them
    assert all(weight.grad.isfinite().all() for key, weight in weights.items() if key not in without)
    assert float(weights["embedding.weight"].grad[6].abs().max()) > 0


def test_a_list_without_the_edge_back_is_refused():
    with pytest.raises(ValueError, match="every edge needs its opposite"):
        peer_weights.pairs([1, 1, 1], [0, 1, 2], [1, 0, 1])


def test_prefixes_of_wrappers_are_taken_off(small):
    _, weights, _, _, _ = small
    for prefix in ("model.", "_orig_mod.", "model._orig_mod."):
        wrapped = {f"{prefix}{key}": value for key, value in weights.items()}
        assert peer_weights.weights_of_state(wrapped).keys() == weights.keys()


def test_no_compiler_is_told_as_a_peer_that_does_not_work(small, monkeypatch):
    _, weights, pairs, positions, _ = small

    def broken(*_args, **_options):
        raise RuntimeError("no g++")

    monkeypatch.setattr(torch, "compile", lambda *_args, **_options: broken)
    with pytest.raises(peer.PeerError, match=r"torch\.compile failed \(RuntimeError\)"):
        peer.compiled(peer.energy_and_forces(peer.tuned(weights, pairs, cutoff=3.0), pairs), positions)
