"""Runs that stop and go on: the same bits, and no other run's."""

from __future__ import annotations

import dataclasses
import json
import sys
from types import ModuleType

import numpy as np
import pytest

from sparsejax.checkpoint.errors import CheckpointError
from sparsejax.models.force_field import md
from sparsejax.models.force_field.md import restart
from sparsejax.models.force_field.md.trajectory import read_frames
from sparsejax.models.force_field.neighbors_in_jit.cells import Grid
from sparsejax.models.force_field.neighbors_in_jit.plan import Plan
from tests.models.force_field.md import morse
from tests.models.force_field.md.systems import cluster, crystal


@pytest.fixture
def langevin(tmp_path):
    """A run that writes a trajectory in any case: one compiled loop for all tests."""

    def run(atoms, steps, trajectory="run.traj", **options):
        path = tmp_path / trajectory
        return md.nvt(
            morse.morse(),
            atoms,
            steps=steps,
            temperature=900.0,
            timestep=2.0,
            every=5,
            trajectory=path,
            **options,
        )

    return run


def test_a_run_that_goes_on_has_the_bits_of_one_that_never_stopped(tmp_path, langevin):
    whole = langevin(crystal(), 60, trajectory="whole.traj")
    folder, path = tmp_path / "state", "parts.traj"
    first = langevin(crystal(), 35, restart=folder, trajectory=path)
    rest = langevin(crystal(), 60, restart=folder, trajectory=path, resume=True)
    assert first.step[-1] == 35 and rest.step[0] == 40
    np.testing.assert_array_equal(np.concatenate([first.conserved, rest.conserved]), whole.conserved)
    for left, right in zip(
        (rest.simulation.state.positions, rest.simulation.state.velocities, rest.simulation.lists),
        (whole.simulation.state.positions, whole.simulation.state.velocities, whole.simulation.lists),
        strict=True,
    ):
        for one, other in zip(*map(_leaves, (left, right)), strict=True):
            np.testing.assert_array_equal(one, other)
    frames = [list(read_frames(tmp_path / name)) for name in ("whole.traj", "parts.traj")]
    assert [[atoms.info["step"] for atoms in part] for part in frames] == [list(range(0, 61, 5))] * 2
    np.testing.assert_array_equal(frames[0][-1].positions, frames[1][-1].positions)


def test_the_chain_goes_on_too(tmp_path):
    def run(steps, **options):
        return md.nvt(morse.morse(), cluster(), steps=steps, thermostat="nose_hoover", **options)

    whole = run(40)
    run(15, restart=tmp_path / "state")
    rest = run(40, restart=tmp_path / "state", resume=True)
    np.testing.assert_array_equal(rest.atoms.positions, whole.atoms.positions)
    np.testing.assert_array_equal(rest.conserved[-1], whole.conserved[-1])


def test_a_killed_run_goes_on_from_its_last_save_and_drops_later_frames(tmp_path, langevin):
    folder, path = tmp_path / "state", tmp_path / "run.extxyz"
    options = {"restart": folder, "trajectory": path.name, "save_every": 20, "call_steps": 10}

    class Killed(BaseException):
        pass

    def kill(step, records):
        if step >= 30:
            raise Killed

    with pytest.raises(Killed):
        langevin(crystal(), 60, progress=kill, **options)
    assert [atoms.info["step"] for atoms in read_frames(path)][-1] == 30
    rest = langevin(crystal(), 60, resume=True, **options)
    assert rest.step[0] == 25
    assert [atoms.info["step"] for atoms in read_frames(path)] == list(range(0, 61, 5))


def test_another_run_cannot_be_gone_on_with(tmp_path, langevin):
    folder = tmp_path / "state"
    langevin(crystal(), 5, restart=folder)
    with pytest.raises(ValueError, match="holds a run of 5 steps; go on with it by resume=True"):
        langevin(crystal(), 9, restart=folder)
    with pytest.raises(CheckpointError, match="was run with ensemble 'nvt', not 'nve'"):
        md.nve(morse.morse(), crystal(), steps=9, timestep=2.0, restart=folder, resume=True)
    with pytest.raises(CheckpointError, match="was run with network '[0-9a-f]{8}', not"):
        md.nvt(
            morse.morse(depth=0.7),
            crystal(),
            steps=9,
            temperature=900.0,
            timestep=2.0,
            restart=folder,
            resume=True,
        )
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty and not a sparsejax checkpoint"):
        langevin(crystal(), 5, restart=other)


def test_a_run_that_is_done_has_no_more_records(tmp_path, langevin):
    langevin(crystal(), 5, restart=tmp_path / "state")
    again = langevin(crystal(), 5, restart=tmp_path / "state", resume=True)
    assert again.step.shape == (0,) and again.simulation.step == 5


def test_runs_of_other_versions_and_networks_are_told(tmp_path, langevin, monkeypatch):
    folder = tmp_path / "state"
    langevin(crystal(), 5, restart=folder)
    read = restart.store.read_arrays
    without = lambda *args: {name: array for name, array in read(*args).items() if "key" not in name}  # noqa: E731
    monkeypatch.setattr(restart.store, "read_arrays", without)
    with pytest.raises(
        CheckpointError, match="holds no '.*key'; it was saved by another version, start anew"
    ):
        langevin(crystal(), 5, restart=folder, resume=True)
    restart.store.write_directory(tmp_path / "network", {"kind": "ten"}, {"weights": np.ones(3)})
    with pytest.raises(CheckpointError, match="network: holds a 'ten', not a run of molecular dynamics"):
        langevin(crystal(), 5, restart=tmp_path / "network")


@pytest.mark.parametrize(
    "plan",
    [
        Plan("all_pairs", 5.0, 0.5, 5.5, (False,) * 3, slots=8),
        Plan("images", 5.0, 0.5, 5.5, (True,) * 3, slots=8, images=(2, 1, 1)),
        Plan("cell_list", 5.0, 0.5, 5.5, (True,) * 3, slots=8, grid=Grid((4, 4, 2), 34)),
    ],
    ids=lambda plan: plan.method,
)
def test_a_saved_plan_is_the_plan(plan, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax_md", ModuleType("jax_md"))  # takes seconds, and is not needed
    assert restart._plan(json.loads(json.dumps(dataclasses.asdict(plan)))) == plan


def _leaves(tree):
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
