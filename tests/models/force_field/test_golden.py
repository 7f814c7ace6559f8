"""Energies, forces, stress, features and gradients of the originals' own weights."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.models.force_field.graph import batch_graphs
from sparsejax.models.force_field.losses import ForceFieldLoss, LossMasks, force_field_loss
from sparsejax.models.force_field.neighbors import edge_list
from sparsejax.models.force_field.network import atomic_energies, exact_filters
from sparsejax.models.force_field.packing import in_blocks
from sparsejax.models.force_field.potential import ForceField
from sparsejax.models.force_field.prediction import Prediction, predict_graph, predict_rows
from sparsejax.models.force_field.structure import Structure
from sparsejax.ops.edge_conv import EdgeLayout, evaluate
from tests import golden

FILES = {
    "original": "original_427k",
    "tiny": "tiny_77k",
    "ultra_tiny": "ultra_tiny_21k",
    "random_a": "random_a",
    "random_b": "random_b",
}
SYSTEMS = {"original", "tiny", "ultra_tiny"}
pytestmark = pytest.mark.golden()


@cache
def field(name: str, kind: str, dtype: str) -> ForceField:
    overrides = {"learnable_rbf": True} if name == "random_b" else {}
    path = golden.path("force_field", f"{FILES[name]}.pt")
    return ForceField.from_checkpoint(sj.load(path, overrides=overrides, dtype=dtype), filter=kind)


@cache
def systems(name: str) -> dict[str, dict[str, np.ndarray]]:
    arrays = golden.arrays("force_field", f"systems_{name}_public" if name in SYSTEMS else name)
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, value in arrays.items():
        system, name_of = key.split("/")
        found.setdefault(system, {})[name_of] = value
    return found


def open_structure(system) -> Structure:
    return Structure(system["z"].astype(np.int32), system["pos"], None, np.zeros(3, bool))


def far(found, wanted) -> float:
    """Largest difference over the largest value, at least 1."""
    return float(np.abs(found - wanted).max() / max(1, np.abs(wanted).max()))


def predicted(name: str, kind: str, dtype: str, structures: list[Structure]) -> list[Prediction]:
    """All molecules in blocks of one size, so that one program does them all."""
    chosen = field(name, kind, dtype)
    packed = in_blocks(structures, 24, dtype)
    found = jax.jit(partial(_predicted, chosen.config))(chosen.params, chosen.filters, packed)
    found = jax.device_get(found)
    parts = [slice(24 * n, 24 * n + one.num_atoms) for n, one in enumerate(structures)]
    return [
        Prediction(found.energy[n], found.forces[part], None, found.atomic_energies[part])
        for n, part in enumerate(parts)
    ]


def _predicted(config, params, filters, packed):
    return predict_rows(
        config,
        params,
        packed.species,
        packed.positions,
        packed.neighbors,
        graph_of_atom=packed.graph_of_atom,
        num_graphs=len(packed.starts),
        filters=filters,
    )


@pytest.mark.parametrize("name", ["original", "random_b"])
def test_energies_and_forces_of_rows_in_float64(name):
    chosen = {key: system for key, system in systems(name).items() if "E64" in system}
    with jax.enable_x64(True):
        found = predicted(name, "exact", "float64", [open_structure(one) for one in chosen.values()])
    for (key, system), one in zip(chosen.items(), found, strict=True):
        assert far(one.energy, system["E64"]) <= 1e-9, key
        # Where a vector feature is zero by symmetry the force has no value: energies only.
        if system.get("F_sens", 0) <= 1e-9:
            assert far(one.forces, system["F64"]) <= 1e-8, key
        assert abs(one.atomic_energies.sum() - one.energy) <= 1e-9 * max(1, abs(one.energy))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("original", "table"), ("tiny", "exact"), ("tiny", "table"), ("ultra_tiny", "table")],
)
def test_energies_and_forces_in_float32(name, kind):
    chosen = systems(name)
    found = predicted(name, kind, "float32", [open_structure(one) for one in chosen.values()])
    for (key, system), one in zip(chosen.items(), found, strict=True):
        assert far(one.energy, system["E64"]) <= 3e-6, key
        if system.get("F_sens", 0) <= 1e-9:
            assert far(one.forces, system["F64"]) <= 5e-5, key


def periodic(name: str) -> dict[str, tuple[dict, Structure]]:
    return {
        key: (one, Structure(one["z"].astype(np.int32), one["pos"], one["cell"], np.ones(3, bool)))
        for key, one in systems(name).items()
        if "E_pbc" in one
    }


@pytest.mark.parametrize("name", FILES)
def test_every_system_in_float64(name):
    """Molecules and crystals in one graph, cells smaller than the cutoff and one of one atom among them."""
    opened = {key: (one, open_structure(one)) for key, one in systems(name).items() if "E64" in one}
    chosen = [*opened.items(), *periodic(name).items()]
    with jax.enable_x64(True):
        net = field(name, "exact", "float64")
        graph = batch_graphs([one for _, (_, one) in chosen], net.config.cutoff, dtype=np.float64)
        found = jax.device_get(jax.jit(partial(predict_graph, net.config, stress=True))(net.params, graph))
    first = 0
    for number, (key, (system, structure)) in enumerate(chosen):
        atoms = slice(first, first := first + structure.num_atoms)
        energy, forces = ("E_pbc", "F_pbc") if structure.periodic else ("E64", "F64")
        assert far(found.energy[number], system[energy]) <= 1e-9, key
        # Where a vector feature is zero by symmetry the force has no value: energies only.
        if structure.periodic or system.get("F_sens", 0) <= 1e-9:
            assert far(found.forces[atoms], system[forces]) <= 1e-8, key
        if structure.periodic:
            # The original ignores cells: these are its layers on a periodic list of edges.
            assert far(found.stress[number], system["stress_voigt"]) <= 1e-9, key
        else:
            assert np.isnan(found.stress[number]).all()


def test_periodic_rows():
    """The same by rows of neighbours and pairs, of which a cell of one atom has itself."""
    for key, (system, structure) in periodic("ultra_tiny").items():
        found = field("ultra_tiny", "table", "float32").predict(structure)
        assert far(found.energy, system["E_pbc"]) <= 3e-6, key
        assert far(found.forces, system["F_pbc"]) <= 5e-5, key
        assert far(found.stress, system["stress_voigt"]) <= 5e-5, key


def test_a_batch_as_a_graph():
    """Through jraph and flat edges: every molecule as if it were alone."""
    batch = golden.arrays("force_field", "batch_tiny")
    structures = [
        Structure(batch["z"][part].astype(np.int32), batch["pos"][part], None, np.zeros(3, bool))
        for part in (batch["batch"] == number for number in range(4))
    ]
    with jax.enable_x64(True):
        tiny = field("tiny", "exact", "float64")
        graph = batch_graphs(structures, tiny.config.cutoff, dtype=np.float64)
        found = jax.jit(partial(predict_graph, tiny.config))(tiny.params, graph)
    found = jax.device_get(found)
    assert far(found.energy[:4], batch["E64"]) <= 1e-9
    assert far(found.forces[:29], batch["F64"]) <= 1e-8
    assert found.energy[4] == 0
    assert found.stress is None


def test_features_and_filters_of_every_layer():
    """The filters of the two interactions, and the energy of every atom."""
    wanted = golden.arrays("force_field", "intermediates_tiny_ethanol")
    senders, receivers = wanted["edge_index"]
    with jax.enable_x64(True):
        tiny = field("tiny", "exact", "float64")
        distances = jnp.asarray(wanted["edge_distance"])
        for number, radial_filter in enumerate(exact_filters(tiny.config, tiny.params)):
            parts = evaluate(radial_filter, distances, jnp.ones(len(distances), bool))
            published = np.split(wanted[f"filter_{number}"], 3, 1)
            published = [published[0], published[2]] if number == 0 else published
            parts = jax.device_get(parts)
            assert all(far(*both) <= 1e-10 for both in zip(parts, published, strict=True))
        energies = atomic_energies(
            tiny.config,
            tiny.params,
            jnp.asarray(wanted["z"]),
            jnp.asarray(wanted["edge_vector"]),
            EdgeLayout(jnp.asarray(senders), jnp.asarray(receivers)),
            mask=jnp.ones(len(senders), bool),
        )
    assert far(jax.device_get(energies), wanted["atomic_energies"]) <= 1e-10


def test_gradients_of_the_loss_by_every_parameter():
    """Through the forces: derivatives of the second order, with the published loss."""
    wanted = golden.arrays("force_field", "grads_ultra_tiny")
    splits = [wanted["batch"] == number for number in range(3)]
    structures = [
        Structure(wanted["z"][part].astype(np.int32), wanted["pos"][part], None, np.zeros(3, bool))
        for part in splits
    ]
    with jax.enable_x64(True):
        net = field("ultra_tiny", "exact", "float64")
        graph = batch_graphs(structures, net.config.cutoff, dtype=np.float64)
        labels = {
            "energy": jnp.append(wanted["tgt_energy"], 0.0),
            "forces": jnp.concatenate([wanted["tgt_forces"], jnp.zeros((1, 3))]),
        }
        masks = LossMasks(atoms=graph.nodes["mask"], graphs=graph.globals["mask"], num_atoms=graph.n_node)

        def loss(params):
            found = predict_graph(net.config, params, graph)
            return force_field_loss(vars(found), labels, ForceFieldLoss(energy="total"), masks)[0]

        value, gradients = jax.device_get(jax.jit(jax.value_and_grad(loss))(net.params))
    assert far(value, wanted["loss/total"]) <= 1e-9
    for key in (key for key in wanted if key.startswith("grad/")):
        found = _by_published_name(gradients, key.removeprefix("grad/"))
        assert far(found, wanted[key]) <= 1e-6, key
    assert not np.any(gradients["rbf"]["centers"])


def _by_published_name(tree, key: str) -> np.ndarray:
    names = {"rbf_to_scalar.0": "hidden", "rbf_to_scalar.2": "filter"}
    names |= {"update_mlp.0": "hidden", "update_mlp.2": "gates"}
    head = {"energy_head.0": "hidden_0", "energy_head.2": "hidden_1", "energy_head.4": "energy"}
    if key == "embedding.weight":
        return tree["embedding"]["embedding"]
    stem, last = key.rsplit(".", 1)
    if stem in head:
        layer = tree["readout"][head[stem]]
    else:
        _, number, room, *rest = key.split(".")
        if rest[0] == "mixing_matrix":
            return tree[f"interaction_{number}"][room]["mixing"]
        layer = tree[f"interaction_{number}"][room][names[".".join(rest[:2])]]
    return layer["kernel"].T if last == "weight" else layer["bias"]


@pytest.mark.parametrize(
    ("file", "name", "energy", "force"),
    [("authors_traj_tiny", "tiny", 5e-4, 5e-4), ("authors_opt_original_h2o", "original", 1e-4, 5e-4)],
)
def test_trajectories_that_the_authors_stored(file, name, energy, force):
    arrays = golden.arrays("force_field", file)
    frames = sorted({key.split("/")[0] for key in arrays})
    structures = [
        Structure(arrays[f"{frame}/z"].astype(np.int32), arrays[f"{frame}/pos"], None, np.zeros(3, bool))
        for frame in frames
    ]
    for frame, found in zip(frames, predicted(name, "table", "float32", structures), strict=True):
        assert abs(found.energy - arrays[f"{frame}/E"]) <= energy, frame
        assert np.abs(found.forces - arrays[f"{frame}/F"]).max() <= force, frame


def test_imported_networks_are_not_rotation_invariant_and_say_by_how_much():
    ethanol = open_structure(systems("original")["ethanol"])
    found = field("original", "table", "float32").predict(ethanol, rotation_average=32)
    assert 0.010 < found.energy_spread < 0.025  # published weights: 0.017 eV over 40 other rotations


def test_edges_at_exactly_the_cutoff_are_seen():
    """What a pair at 5.0 A adds is gone at 5.001 A; both energies are compared with the original's above."""
    near, apart = (systems("tiny")[f"dimer_CO_{d}"] for d in ("5.0", "5.001"))
    assert [edge_list(open_structure(one), 5.0).num_edges for one in (near, apart)] == [2, 0]
    assert abs(near["E64"] - apart["E64"]) > 0.1
