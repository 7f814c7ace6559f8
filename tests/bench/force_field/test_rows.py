"""The rows of the force field: right numbers, targets as agreed, honest arithmetic; and the report."""

from __future__ import annotations

import importlib
import importlib.util
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sparsejax.bench import command
from sparsejax.bench.force_field import dynamics, errors, speed, systems
from sparsejax.bench.force_field import gpu as force_field_gpu
from sparsejax.bench.force_field import race as races
from sparsejax.bench.force_field import rows as force_field
from sparsejax.bench.force_field import sizes as side_by_side
from sparsejax.bench.force_field.sizes_page import findings
from sparsejax.bench.machine import Machine
from sparsejax.bench.peers.torch_force_field_weights import random_params
from sparsejax.bench.timing import Timing, race
from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.prediction import Prediction

pytest.importorskip("ase")

MACHINE = Machine("cpu (test)", 1, {"jax": "1"}, 5.0, 0.5, 10.0, 30.0)
SIZES = {"hidden_dim": 4, "num_interactions": 2, "num_rbf": 3}
CONFIG = ForceFieldConfig(**SIZES, max_z=20, variant="cartesian")
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")


def network(name="Ultra-tiny", seed=0, **other):
    sizes = {**SIZES, **other}
    config = replace(CONFIG, **sizes)
    return systems.Network(name, config, random_params(seed, **sizes, max_z=20), False)


@pytest.fixture(autouse=True)
def short_race(monkeypatch):
    def short(calls, **_):
        return race(calls, repetitions=3, repetition_seconds=1e-5)

    for module in (races, speed, dynamics, side_by_side):
        monkeypatch.setattr(module, "race", short)
    monkeypatch.setattr(speed, "product_rate", lambda threads: 1e11)
    if HAS_TORCH:
        import torch

        torch.set_num_threads(1)  # at these sizes a second one only waits


@pytest.fixture
def stand_in(monkeypatch):
    """Zeros in the place of our compiled calls, for tests of what is around them."""

    def zeros(task, filters):
        found = np.zeros(len(task.structures)), np.zeros((task.atoms, 3))
        return lambda: found, lambda result: result

    monkeypatch.setattr(systems, "ours", zeros)
    monkeypatch.setattr(systems, "usual_filters", lambda network: "table")


@needs_torch
def test_every_contestant_of_a_row_has_the_float64_energies_and_forces():
    plan = speed.Plan(compiled=False, end_to_end=False)
    shallow = network(num_interactions=1)  # half of the compilation
    row = races.decide(speed.molecule_race(shallow, 1, plan, MACHINE), MACHINE, quick=True)
    of_energy, of_force = (row.quality[name] for name in (races.ENERGY_ERROR, races.FORCE_ERROR))
    assert of_energy.keys() == of_force.keys() == {"ours", *row.peers, *(f"ours: {n}" for n in row.variants)}
    assert max(of_energy.values()) < 2e-5 and max(of_force.values()) < 2e-5
    assert {row.quality["filters of ours"], *row.variants} in (
        {"table", "exact filters"},
        {"exact", "table filters"},
    )
    assert row.unit == "ms" and row.ours > 0 and row.best["ours"] <= row.ours * 1.001
    assert row.first_call["ours"] > 10e-3 * row.ours  # compilation is part of it, seconds to milliseconds
    assert [(target.peer, target.at_least) for target in row.targets] == [("torch as published", 4)]
    assert row.hardest("torch as published") == "torch as published" and len(row.peers) == 3


@needs_torch
def test_what_is_exact_does_not_depend_on_who_computes_it():
    task = systems.Task(network(num_interactions=1), tuple(systems.molecules(1)))
    for ours, torchs in zip(systems._exact_ours(task), systems.exact(task), strict=True):
        np.testing.assert_allclose(ours, torchs, atol=1e-12)


@needs_torch
def test_wrong_forces_are_seen(stand_in):
    row = races.decide(speed.crystal_race(network(), speed.QUICK, MACHINE), MACHINE, quick=True)
    assert row.quality[races.ENERGY_ERROR]["ours"] > 0.1 > row.quality[races.ENERGY_ERROR]["torch"]
    assert "8 atoms of periodic silicon" in row.case


def test_a_row_without_torch_still_has_our_time(stand_in, monkeypatch):
    def missing(*_args, **_options):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(systems, "_torch_call", missing)
    right = np.zeros(4), np.zeros((63, 3))
    monkeypatch.setattr(systems, "_exact_ours", lambda task: right)
    row = races.decide(speed.molecule_race(network(), 4, speed.QUICK, MACHINE), MACHINE, quick=True)
    assert row.ours > 0 and set(row.peers.values()) == {None}
    assert row.quality[races.FORCE_ERROR] == {"ours": 0, "ours: exact filters": 0}
    assert any("torch is not installed" in note for note in row.notes)


def test_time_per_atom_is_compared_between_crystals(stand_in):
    row = speed.growth_row(network(), (1, 2), MACHINE, quick=True)
    assert row.unit == "x" and row.ours > 0 and row.targets[0].at_most == 1.3
    assert "64 atoms of silicon over that of 8" in row.case


def test_targets_and_sizes_are_those_agreed():
    assert speed._TARGETS == {
        "Original": {1: 3, 4: 2, 8: 1.7, 32: 1.5},
        "Tiny": {1: 4, 32: 2},
        "Ultra-tiny": {1: 4, 32: 2},
    }
    assert (speed._CRYSTAL, dynamics._LOOP_TARGET, dynamics._REPLICA_TARGET, dynamics._REBUILD_LIMIT) == (
        2,
        5,
        20,
        20,
    )
    assert force_field_gpu._LIMITS == {1: 0.5, 32: 1.0}
    parameters = {found.name: found.config.num_parameters for found in systems.networks()}
    assert parameters == {"Original": 427_292, "Tiny": 77_203, "Ultra-tiny": 21_459}
    assert 8 * speed.Plan().repeats[0] ** 3 == 512 and 8 * speed.Plan().repeats[1] ** 3 == 4096
    assert 8 * force_field_gpu.Plan().repeats ** 3 == 32_768


def test_molecules_are_real_seeded_and_of_the_agreed_sizes():
    found = systems.molecules(32)
    assert {one.num_atoms for one in found} <= set(range(12, 21))
    assert np.mean([one.num_atoms for one in found]) == pytest.approx(13.8, abs=0.5)
    np.testing.assert_array_equal(found[3].positions, systems.molecules(4)[3].positions)
    moved = found[16].positions - found[0].positions
    assert np.array_equal(found[16].species, found[0].species) and 0.02 < moved.std() < 0.12
    assert systems._molecule(systems.TWENTY_ATOMS).num_atoms == 20


def test_work_is_counted_by_hand():
    task = systems.Task(network(), tuple(systems.molecules(1)))
    pairs, c, k = task.edges / 2, 4, 3
    forward = pairs * 2 * ((k * c + c * 2 * c) + (k * c + c * 3 * c))
    assert speed.filter_work(task) == 2 * forward
    updates = (2 * c * c + c * 3 * c) + (2 * c * c + c * c)
    assert speed.atom_work(task) == 2 * 2 * task.atoms * (updates + c * 2 + 2 * 1 + 1)
    assert speed.filter_bytes(task) == pairs * (2 + 3) * c * 4 * 2 * 2


def test_a_file_takes_the_place_of_the_random_network_of_its_size(tmp_path):
    from sparsejax.checkpoint.checkpoint import Checkpoint
    from sparsejax.checkpoint.save import save

    tiny = systems.networks()[1]
    marked = {**tiny.params, "embedding": {"embedding": 0 * tiny.params["embedding"]["embedding"]}}
    save(Checkpoint("force_field", "cartesian", tiny.config, marked, {}), tmp_path / "trained")
    save(Checkpoint("force_field", "cartesian", CONFIG, network().params, {}), tmp_path / "other")
    found = systems.networks([tmp_path / "trained", tmp_path / "other"])
    assert [(one.name, one.trained) for one in found] == [
        ("Original", False),
        ("Tiny", True),
        ("Ultra-tiny", False),
        ("other", True),
    ]
    assert not np.asarray(found[1].params["embedding"]["embedding"]).any()


def test_loops_are_compared_per_step_and_replica(monkeypatch):
    monkeypatch.setattr("sparsejax.models.force_field.tables.choose_filters", lambda *_: None)
    monkeypatch.setattr(dynamics, "_compiled_loop", lambda *_: None)
    monkeypatch.setattr(dynamics, "_ase_loop", lambda *_: None)
    same = Timing(median=0.2, low=0.2, high=0.2, best=0.1, first_call=1.0, repetitions=3, calls=1)
    monkeypatch.setattr(dynamics, "race", lambda calls, **_: dict.fromkeys(calls, same))
    plan = dynamics.Plan(replicas=8, steps=100)
    alone, many = dynamics.loop_rows(network(), plan, MACHINE, quick=True)
    # A call is 100 steps, or 10 steps of 8 replicas, or 10 steps of ASE.
    assert (alone.unit, alone.ours, alone.best["ours"]) == ("us", 2000, 1000)
    assert alone.ratio("ASE loop") == pytest.approx(10) and many.ratio("ASE loop") == pytest.approx(8)
    assert [row.targets[0].at_least for row in (alone, many)] == [5, 20]
    assert "20 atoms" in alone.case and "8 replicas" in many.case


def test_loops_go_on_from_where_they_are(monkeypatch):
    reached = []
    simulation = SimpleNamespace(step=1, advance=lambda until, handle: reached.append((until, handle(1, {}))))
    monkeypatch.setattr(
        "sparsejax.models.force_field.md.nve", lambda *_, **options: SimpleNamespace(simulation=simulation)
    )
    dynamics._compiled_loop(None, None, 10, None)()
    assert reached == [(11, None)]


def test_a_rebuild_is_timed_beside_a_step(monkeypatch):
    def trivial(config, params, species, positions, neighbors, **_):
        return positions * neighbors.mask.sum()

    monkeypatch.setattr("sparsejax.models.force_field.potential.predict_rows", trivial)
    monkeypatch.setattr("sparsejax.models.force_field.tables.choose_filters", lambda *_: None)
    row = dynamics.rebuild_row(network(), dynamics.Plan(repeats=1), MACHINE, quick=True)
    assert row.quality["rebuilt without overflow"] is True
    assert row.unit == "% of the step" and row.ours > 0 and row.targets[0].at_most == 20


@needs_torch
def test_rows_of_a_gpu_have_a_rate(stand_in):
    plan = force_field_gpu.Plan((1,), 1, ("Ultra-tiny",))
    molecule, crystal = force_field_gpu.races([network()], plan, device="cpu")
    row = force_field_gpu.with_rate(races.decide(molecule.race, MACHINE, quick=True), molecule.atoms)
    assert row.targets[0].at_most == 0.5 and "atoms per second" in row.quality
    assert crystal.atoms == 8 and crystal.race.targets == ()


def test_there_are_no_rows_of_a_gpu_where_there_is_none():
    import jax

    if jax.default_backend() == "gpu":
        pytest.skip("there is a GPU here")
    assert force_field_gpu.measure(quick=True, threads=1) == []


def test_groups_run_in_children_with_two_threads_and_all_files(monkeypatch):
    asked = []
    monkeypatch.setattr(force_field, "run_pinned", lambda *arguments, **_: asked.append(arguments) or [])
    monkeypatch.setattr(force_field, "allowed_cores", lambda: [0, 1, 2])
    assert force_field.run(True, checkpoint=["a.pt", "b.pt"]) == []
    assert [(options.get("group"), threads) for _, options, threads in asked] == [
        ("speed", 2),
        ("dynamics", 2),
        (None, 2),
    ]
    assert all(options["checkpoints"] == ["a.pt", "b.pt"] for _, options, _ in asked)


class Shifted:
    """A force field with known faults: forces too large by a tenth, and half an eV too much."""

    def predict(self, structures, rotation_average=None):
        if rotation_average is not None:
            return Prediction(0, None, None, None, energy_spread=np.float64(0.25))
        if not isinstance(structures, list):
            return Prediction(100.0, np.full((structures.num_atoms, 3), 9.0), None, None)
        return [Prediction(len(one.positions) + 0.5, 1.1 * one.positions, None, None) for one in structures]


def labelled(count):
    found = systems.molecules(count)
    return [errors.LabelledStructure(one, float(one.num_atoms), one.positions) for one in found]


def test_errors_are_found_where_they_are(monkeypatch):
    monkeypatch.setattr(errors, "force_field_of", lambda network: Shifted())
    found = errors.errors_of(network(), labelled(3))
    assert found.energy["mae"] == pytest.approx(0.5)
    assert found.energy["per_atom_mae"] == pytest.approx(np.mean([0.5 / 16, 0.5 / 14, 0.5 / 20]))
    assert found.forces["angular_error_median"] == pytest.approx(0, abs=1e-4)
    assert [group.name for group in found.elements] == ["H", "C", "N"]
    assert all(group.relative == pytest.approx(0.1) for group in found.elements)
    assert found.worst[0][0] == "C8H8N4" and found.rotation == 0.25
    assert found.without_ids["energy_mae"] == pytest.approx(100 - np.mean([16, 14, 20]))
    assert errors._formula(np.array([8, 1, 6, 1, 1, 6])) == "C2H3O"


def test_a_report_has_all_sizes_as_files_times_and_errors(monkeypatch, tmp_path, stand_in):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(systems, "networks", lambda files=(): [network("Original"), network("Tiny", 1)])
    monkeypatch.setattr(
        side_by_side,
        "run_pinned",
        lambda module, options, threads: side_by_side.measure(threads=1, **options),
    )
    monkeypatch.setattr(side_by_side.Machine, "describe", lambda threads: MACHINE)
    # The package has a function of the same name as the module.
    written = importlib.import_module("sparsejax.models.force_field.stablehlo_file")
    monkeypatch.setattr(written, "export_stablehlo", lambda ck, path: path.write_bytes(bytes(1 << 20)))
    monkeypatch.setattr(side_by_side, "_program_errors", lambda network, program: (1e-6, 2e-6))
    monkeypatch.setattr(errors, "force_field_of", lambda network: Shifted())
    monkeypatch.setattr(side_by_side, "labelled_by", lambda network, count: labelled(count))
    command.bench("force_field_sizes", outputs=command.Outputs(report=tmp_path / "out"), quick=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {
        "report.html",
        "report.json",
        "original.pt",
        "tiny.pt",
        "speed.png",
        "force_parity_tiny.png",
    } <= names
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [(one["network"], one["stablehlo_mb"]) for one in document["networks"]] == [
        ("Original", 1.0),
        ("Tiny", 1.0),
    ]
    assert [one["network"] for one in document["errors"]] == ["Tiny"]  # the other is the reference
    assert {(row["network"], row["batch"]) for row in document["speed"]} == {
        (name, batch) for name in ("Original", "Tiny") for batch in (1, 2)
    }
    page = (tmp_path / "out" / "report.html").read_text()
    assert "random weights" in page and page.count("data:image/png") == 5
    assert "10% of what predicting zeros costs" in findings(document)[0]
