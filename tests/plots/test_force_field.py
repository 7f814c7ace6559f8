"""Pictures of force fields: what they show, not how they look."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sparsejax.cli import main
from sparsejax.models.force_field.error_patterns import errors_by_element
from sparsejax.models.force_field.potential import ForceField, Prediction
from sparsejax.models.force_field.radial_distribution import RadialDistribution
from sparsejax.plots import force_field as plots
from sparsejax.plots import force_field_files as files
from sparsejax.training.errors import RunError

pytest.importorskip("matplotlib")

DRAWS = np.random.default_rng(0)
TRUTH = DRAWS.standard_normal((40, 3))
FOUND = TRUTH + 0.1 * DRAWS.standard_normal((40, 3))
SPECIES = np.array([1] * 30 + [8] * 10)
METRICS = [
    *({"step": step, "loss": 3.0 / step, "seconds": 1.0} for step in range(1, 101)),
    {"step": 100, "validation_loss": 0.5, "validation_force_rmse": 0.2},
    {"step": 101, "loss": None},
]


def test_parity_has_a_colour_per_element_and_tells_the_errors():
    axis = plots.force_parity(FOUND, TRUTH, SPECIES, "toy").axes[0]
    diagonal, hydrogen, oxygen = axis.lines
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    np.testing.assert_array_equal(
        hydrogen.get_xydata(), np.stack([TRUTH[:30].ravel(), FOUND[:30].ravel()], 1)
    )
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["H", "O"]
    assert len(oxygen.get_xdata()) == 30
    rmse = np.sqrt(((FOUND - TRUTH) ** 2).mean())
    assert f"RMSE {rmse:.3g}" in axis.get_title() and "toy" in axis.get_title()


def test_parity_without_elements_is_in_one_colour():
    axis = plots.force_parity(FOUND, TRUTH).axes[0]
    _, dots = axis.lines
    assert len(dots.get_xdata()) == TRUTH.size and axis.get_legend() is None


def test_parity_of_many_forces_is_a_density(monkeypatch):
    monkeypatch.setattr(plots, "_DENSE", 100)
    (dots,) = plots.force_parity(FOUND, TRUTH).axes[0].collections
    assert np.asarray(dots.get_array()).sum() == TRUTH.size


def test_angles_are_shares_beside_random_directions():
    axis = plots.angle_distribution({"a": [12.0, 13.0, 14.0, 91.0], "b": [], "c": [2.0]}).axes[0]
    first, second = axis.patches
    assert first.get_data().values[2] == 75 and first.get_data().values[18] == 25
    assert second.get_data().values[0] == 100
    (random,) = axis.lines
    assert random.get_ydata().sum() == pytest.approx(100, rel=1e-3)
    assert axis.get_legend().get_texts()[0].get_text() == "a: median 13.5°, 95 % below 79.4°"


def test_error_groups_have_a_bar_per_group_and_network():
    groups = {
        "good": errors_by_element(FOUND, TRUTH, SPECIES),
        "zeros": errors_by_element(0 * TRUTH, TRUTH, SPECIES),
    }
    left, right = plots.error_groups(groups, "element", name="toy").axes
    assert [label.get_text() for label in left.get_xticklabels()] == ["H", "O"]
    assert [bar.get_height() for bar in left.patches[:2]] == [group.rmse for group in groups["good"]]
    assert [bar.get_height() for bar in right.patches[2:]] == pytest.approx([100, 100])


def test_energy_is_drawn_per_atom_with_its_slope():
    time = np.linspace(0, 2, 21)
    figure = plots.energy_drift(time, -100 + 0.04 * time, 4, 300 + 0 * time, "run")
    energy, temperature = figure.axes
    np.testing.assert_allclose(energy.lines[0].get_ydata(), 10 * time, atol=1e-9)  # meV/atom
    np.testing.assert_allclose(energy.lines[1].get_ydata(), 10 * time, atol=1e-9)
    assert "slope +1.0e-02 eV/atom/ps" in energy.get_legend().get_texts()[0].get_text()
    assert temperature.get_legend().get_texts()[0].get_text() == "mean 300 K"
    assert len(plots.energy_drift(time, time, 1).axes) == 1


def test_distances_keep_the_highest_peaks():
    distances = np.array([0.5, 1.5, 2.5])
    curves = {f"pair {number}": np.array([0, number, 0.0]) for number in range(8)}
    axis = plots.radial_distribution(RadialDistribution(distances, curves, True)).axes[0]
    assert [line.get_label() for line in axis.lines[:-1]] == [f"pair {number}" for number in range(2, 8)]
    assert "2 more pairs" in axis.get_title() and axis.lines[-1].get_ydata() == [1, 1]
    molecule = plots.radial_distribution(RadialDistribution(distances, {"C-C": distances}, False)).axes[0]
    assert molecule.get_ylabel() == "density of pairs (1/A)" and len(molecule.lines) == 1


def test_learning_curve_shows_what_was_logged():
    loss, force = plots.learning_curve(METRICS, "run").axes
    training, mean, held_out = loss.lines
    np.testing.assert_allclose(training.get_ydata(), 3 / np.arange(1, 101))
    np.testing.assert_allclose(mean.get_ydata()[0], (3 + 1.5) / 2)
    np.testing.assert_allclose(held_out.get_xydata(), [[100, 0.5]])
    np.testing.assert_allclose(force.lines[0].get_xydata(), [[100, 0.2]])


def test_a_run_is_drawn_from_its_metrics(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        plots.draw_folder(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"family": "ten"}}))
    with pytest.raises(RunError, match="holds no metrics of a run of force-field"):
        plots.draw_folder(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"family": "force_field"}}))
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match="no step is logged"):
        plots.draw_folder(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METRICS))
    (path,) = plots.draw_folder(tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def trajectory(tmp_path):
    """Two atoms of a periodic cell that swing, with energies, forces and times."""
    ase = pytest.importorskip("ase")
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    frames = []
    for step in range(4):
        atoms = ase.Atoms("CO", [[0, 0, 0], [0, 0, 1.1 + 0.1 * step]], cell=3 * np.eye(3), pbc=True)
        atoms.set_velocities(np.full((2, 3), 0.01))
        atoms.info["time_fs"] = 0.5 * step
        atoms.calc = SinglePointCalculator(atoms, energy=-5.0 + 0.1 * step, forces=np.zeros((2, 3)))
        frames.append(atoms)
    write(tmp_path / "run.extxyz", frames)
    return tmp_path / "run.extxyz"


def test_a_trajectory_is_drawn(trajectory, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(files, "write_figures", lambda out, figures: drawn.update(figures) or ())
    files.draw_trajectory(trajectory, tmp_path)
    energy, temperature = drawn["energy_drift"].axes
    np.testing.assert_allclose(energy.lines[0].get_xdata(), [0, 5e-4, 1e-3, 1.5e-3])
    np.testing.assert_allclose(energy.lines[0].get_ydata(), [0, 50, 100, 150], atol=1e-6)
    assert temperature.lines[0].get_ydata()[0] > 0
    curves = {line.get_label() for line in drawn["distances"].axes[0].lines[:-1]}
    assert curves == {"C-C", "C-O", "O-O"}
    with pytest.raises(RunError, match="there is no such file"):
        files.draw_trajectory(tmp_path / "none.extxyz", tmp_path)
    (tmp_path / "bad.extxyz").write_text("not a frame\n")
    with pytest.raises(RunError, match="cannot be read as a trajectory"):
        files.draw_trajectory(tmp_path / "bad.extxyz", tmp_path)


def test_trajectories_that_cannot_be_drawn_are_told(trajectory, tmp_path, monkeypatch):
    from ase import Atoms
    from ase.io import write

    write(tmp_path / "two.extxyz", [Atoms("CO", np.eye(3)[:2]), Atoms("NO", np.eye(3)[:2])])
    with pytest.raises(RunError, match=r"two\.extxyz: frame 1 has other atoms than frame 0$"):
        files.draw_trajectory(tmp_path / "two.extxyz", tmp_path)
    room = "sparsejax.models.force_field.md.trajectory.read_frames"
    monkeypatch.setattr(room, lambda path: iter(()))
    with pytest.raises(RunError, match=r"run\.extxyz: holds no frames$"):
        files.draw_trajectory(trajectory, tmp_path)

    def without_ase(path):
        raise ModuleNotFoundError("No module named 'ase'", name="ase")

    monkeypatch.setattr(room, without_ase)
    with pytest.raises(ModuleNotFoundError, match="ase"):
        files.draw_trajectory(trajectory, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["force-field"], "needs --checkpoint FILE with --data FILE, or --trajectory FILE"),
        (["force-field", "--checkpoint", "x.pt"], "needs --checkpoint FILE with --data FILE"),
        (["force-field", "--trajectory", "x.xyz", "--top-k", "2"], "--top-k goes with plot sprout"),
        (["force-field", "--trajectory", "x.xyz", "--override", "a=1"], "--override goes with --checkpoint"),
        (["force-field", "--data", "x.h5"], "--data goes with --checkpoint"),
        (["force-field", "--trajectory", "none.extxyz"], "there is no such file"),
        (["ten", "--trajectory", "x.extxyz"], "there are no trajectories of ten"),
    ],
)
def test_requests_that_make_no_sense_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["plot", *arguments])
    assert stopped.value.code == 1
    assert message in capsys.readouterr().err


def test_a_checkpoint_is_drawn_beside_labelled_structures(trajectory, tmp_path, monkeypatch, capsys):
    class Right:
        """Forces as they are labelled, but for a hundredth of an eV/A."""

        def predict(self, structures):
            return [Prediction(np.float32(0), 0.01 + 0 * one.positions, None, None) for one in structures]

    monkeypatch.setattr("sparsejax.checkpoint.load.load", lambda path, **_: path)
    monkeypatch.setattr(ForceField, "from_checkpoint", lambda ck: Right())
    out = tmp_path / "out"
    main(["plot", "force-field", "--checkpoint", "x.pt", "--data", str(trajectory), "--out", str(out)])
    told = capsys.readouterr().out.split()
    assert [Path(line).stem for line in told] == [
        "force_parity",
        "angle_distribution",
        "errors_by_element",
        "errors_by_magnitude",
    ]
    assert all(Path(line).read_bytes().startswith(b"\x89PNG") for line in told)
