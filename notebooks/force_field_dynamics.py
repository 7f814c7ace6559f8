# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A molecule and a crystal in motion
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sparsejax/sparsejax/blob/main/notebooks/force_field_dynamics.ipynb)
#
# A force field tells the energy of atoms from where they are, and the forces as its slope. Here a very small one, a
# network of 23,590 numbers that ships with the library, relaxes a molecule and lets it move. Then it is asked about a
# crystal, which it was never taught; it fails, and says nothing about it. So a network for that crystal is taught
# here, in a minute, and does the same work.

# %%
import importlib.util

if importlib.util.find_spec("sparsejax") is None:
    # !git clone --quiet --depth 1 https://github.com/sparsejax/sparsejax
    # %cd sparsejax
    # %pip install --quiet ".[force-field,md,plots]"
    pass

import jax

print("device:", jax.devices()[0].platform, jax.devices()[0].device_kind)

# %%
import os
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import write
from IPython.display import display

import sparsejax as sj
from sparsejax.models.force_field import ForceField, md
from sparsejax.models.force_field.radial_distribution import radial_distribution
from sparsejax.models.force_field.structure import Structure
from sparsejax.plots.force_field import energy_drift
from sparsejax.plots.style import with_grid
from sparsejax.shipped import shipped_file
from sparsejax.training.recipes.force_field import recipe
from sparsejax.training.recipes.force_field.settings import ForceFieldSettings

# %matplotlib inline
QUICK = os.environ.get("SPARSEJAX_QUICK") == "1"  # short runs, and no teaching: the first network goes on, for tests
GPA = 160.2177  # of one eV/A^3

field = ForceField.from_checkpoint(sj.load(shipped_file("ultra_tiny_gfn2.pt")))
print(f"{field.config.num_parameters:,} parameters, cutoff {field.config.cutoff} A, elements {field.config.species}")

# %% [markdown]
# ## Ethanol at rest
#
# The network was taught by GFN2-xTB, a fast semi-empirical method, on distorted copies of 55 small molecules of
# hydrogen, carbon, nitrogen and oxygen, ethanol among them. On copies that it has not seen its forces are
# wrong by 0.20 eV/A, where the forces themselves are 4.2 eV/A.
#
# First the molecule slides down to where no force is left (FIRE, one compiled loop). At the bottom the second
# derivatives of the energy, which come with the network, give the harmonic vibrations. In an experiment ethanol's O-H
# bond vibrates at 3,680 cm-1 and its C-H bonds at 2,880 to 2,990, where anharmonicity lowers harmonic numbers by about
# 4 %.

# %%
ethanol = molecule("CH3CH2OH")
found = field.predict(ethanol)
relaxed = md.minimize(field, ethanol, steps=500, fmax=0.02)
rest = relaxed.atoms
print(
    f"relaxed in {relaxed.step[-1]} steps by {1e3 * (found.energy - relaxed.potential[-1]):.0f} meV; O-H "
    f"{rest.get_distance(2, 3):.3f} A, C-O {rest.get_distance(1, 2):.3f} A"
)

if not QUICK:
    masses = np.repeat(rest.get_masses(), 3)
    hessian = field.hessian(rest).reshape(len(masses), -1)  # eV/A^2
    squares = np.linalg.eigvalsh(hessian / np.sqrt(np.outer(masses, masses)))
    waves = 521.471 * np.sign(squares) * np.sqrt(np.abs(squares))  # cm-1
    print("largest harmonic wavenumbers (cm-1):", np.round(waves[-6:]).astype(int).tolist())
    print("the six that should be zero:", np.round(np.sort(np.abs(waves))[:6]).astype(int).tolist())

# %% [markdown]
# ## Ethanol in motion
#
# At constant energy (NVE) nothing from outside keeps a run in order: if the forces are not exactly the slope of the
# energy, or the time step is too long, the total energy drifts. So this is the test of a force field. Two steps are
# compared.

# %%
steps = 100 if QUICK else 4000
runs = {}
for timestep in (0.5,) if QUICK else (0.5, 1.0):
    clock = time.perf_counter()
    runs[timestep] = md.nve(field, rest, steps=round(steps * 0.5 / timestep), timestep=timestep, temperature=600)
    seconds = time.perf_counter() - clock
    run = runs[timestep]
    print(
        f"{run.time[-1] / 1000:.2f} ps in steps of {timestep} fs: drift {1e3 * float(run.drift):+.3f} meV/atom/ps, "
        f"swing {1e3 * np.std(run.total) / len(rest):.2f} meV/atom, {run.temperature.mean():.0f} K; "
        f"{seconds:.1f} s with compilation"
    )
run = runs[0.5]
display(energy_drift(run.time / 1000, run.total, len(rest), run.temperature, "ethanol, steps of 0.5 fs"))

# %% [markdown]
# The temperature settles well below the 600 K that the atoms were started with: they began at rest in the valley, and
# part of the energy goes into stretching bonds.
#
# ## A crystal that it does not know
#
# Diamond is made of carbon, an element that the network knows, and any number comes out of it for any structure. Is
# it right? In truth the crystal is at rest at an edge of 3.57 A, and its bulk modulus is 443 GPa.

# %%
def curve(predict, build, edges):
    """Energy per atom (eV) and pressure (GPa) of a cubic crystal by its edge (A)."""
    energies, pressures = zip(*(predict(build(edge)) for edge in edges))
    return np.array(energies), np.array(pressures)


def by(field):
    """A network as a function that gives the energy per atom and the pressure."""

    def predict(atoms):
        found = field.predict(atoms)
        return float(found.energy) / len(atoms), -GPA * float(found.stress[:3].mean())

    return predict


def by_emt(atoms):
    """The same by the potential that is built into ASE."""
    atoms.calc = EMT()
    return atoms.get_potential_energy() / len(atoms), -GPA * float(atoms.get_stress()[:3].mean())


def at_rest(edges, energies, atoms):
    """Edge (A) at the lowest energy, and bulk modulus (GPa), by a polynomial through the energies."""
    volume = edges**3 / atoms
    shift, fit = volume.mean(), np.polynomial.Polynomial.fit(volume - volume.mean(), energies, 4)
    fine = np.linspace(*fit.domain, 2001)
    lowest = fine[fit(fine).argmin()]
    return (atoms * (lowest + shift)) ** (1 / 3), GPA * (lowest + shift) * fit.deriv(2)(lowest)


edges_c = np.linspace(3.3, 3.9, 4 if QUICK else 13)
energies_c, _ = curve(by(field), lambda edge: bulk("C", "diamond", a=edge, cubic=True), edges_c)
squeezed, truth = 3.3**3 / 8, 3.567**3 / 8  # A^3 per atom
says = 443 / GPA * (squeezed - truth) ** 2 / (2 * truth)
print(
    f"diamond: at rest near {edges_c[energies_c.argmin()]:.2f} A; squeezed to 3.3 A it is "
    f"{energies_c[0] - energies_c.min():.1f} eV/atom above that, where its true stiffness says about {says:.1f}"
)

# %% [markdown]
# The place is right, since carbon bonds are alike everywhere, but the walls of the valley (below, on the left) are about
# ten times too steep, and its bottom is too flat: a network knows what it was shown. It is no network for crystals.
#
# ## A network for a crystal, taught here
#
# The teacher is EMT, a simple potential for metals that comes with ASE; with a better one (any calculator of ASE)
# nothing else would change. It labels small cells of copper, strained and shaken, with energies, forces and stress. The
# network has the size of the one above.

# %%
folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
frames = []
for _ in range(4 if QUICK else 240):
    atoms = bulk("Cu", cubic=True)
    strain = rng.uniform(0.93, 1.08) * (np.eye(3) + 0.02 * rng.normal(size=(3, 3)))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.positions += rng.uniform(0, 0.25) * rng.normal(size=(4, 3))
    atoms.calc = EMT()
    atoms.get_stress(), atoms.get_forces()
    frames.append(atoms)
write(folder / "copper.extxyz", frames)

settings = ForceFieldSettings(
    folder / "copper.extxyz",
    folder / "run",
    hidden_dim=32,
    num_interactions=2,
    num_rbf=10,
    epochs=40,
    batch_size=16,
    lr=1e-2,
    val_interval=20,
    save_interval=40,
    early_stopping_patience=0,
    plots=False,
    quiet=True,
)
if QUICK:
    copper = field
else:
    clock = time.perf_counter()
    trained = recipe.train(recipe.prepare(settings))
    scores = trained.best.score.metrics
    print(
        f"taught in {time.perf_counter() - clock:.0f} s; on held-out cells: energies wrong by "
        f"{1e3 * scores['energy_per_atom_rmse']:.1f} meV/atom, forces by {scores['force_rmse']:.2f} eV/A"
    )
    copper = ForceField.from_checkpoint(sj.load(folder / "run" / "best.pt"))

# %% [markdown]
# The energy of the perfect crystal against the volume of its cell, and the pressure, which is the slope of that: of
# the teacher, of the network that was taught, and, on the left, what the first network makes of diamond.

# %%
def cubic(edge):
    """Cubic cell of the crystal: copper, or what the first network has a row for."""
    return bulk("C", "diamond", a=edge, cubic=True) if QUICK else bulk("Cu", a=edge, cubic=True)


edges = np.linspace(3.35, 3.85, 4 if QUICK else 13)
curves = {
    "teacher (EMT)": curve(by_emt, cubic, edges),
    "network": curve(by(copper), cubic, edges),
}
if not QUICK:
    for name, (energies, _) in curves.items():
        edge, modulus = at_rest(edges, energies, 4)
        print(f"copper, {name}: at rest at {edge:.3f} A, bulk modulus {modulus:.0f} GPa")

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
left.plot(edges_c**3 / 8, energies_c - energies_c.min(), "o-", color="tab:red", label="network for molecules")
left.axvline(3.567**3 / 8, color="0.4", linestyle=":", label="diamond in truth")
left.set(title="Diamond: not taught", ylabel="energy above the lowest (eV/atom)")
for (name, (energies, pressures)), style in zip(curves.items(), ("k-", "o")):
    middle.plot(edges**3 / 4, energies, style, mfc="none", label=name)
    right.plot(edges**3 / 4, pressures, style, mfc="none", label=name)
middle.set(title="Copper: taught here", ylabel="energy (eV/atom)")
right.set(title="Copper: pressure", ylabel="pressure (GPa)")
right.axhline(0, color="0.4", linewidth=0.8)
for axis in (left, middle, right):
    axis.set(xlabel="volume per atom (A$^3$)")
    axis.legend(frameon=False, fontsize="small")
    with_grid(axis)
plt.show()

# %% [markdown]
# ## The crystal in motion
#
# 108 atoms in a periodic cell: 27 times what the network was shown. Neighbour lists are renewed within the compiled
# loop. One run at constant energy for the drift, and one that is kept at 300 K and compared with the
# teacher, whose run goes through ASE: how are the distances between atoms distributed?

# %%
cells = 1 if QUICK else 3
edge = 3.6
crystal = cubic(edge) * (cells, cells, cells)
steps = 40 if QUICK else 1500
still = md.nve(copper, crystal, steps=steps, timestep=2.0, temperature=600, every=5)
print(
    f"NVE, {len(crystal)} atoms, {still.time[-1] / 1000:.1f} ps: drift {1e3 * float(still.drift):+.3f} meV/atom/ps, "
    f"{still.temperature[len(still.step) // 2 :].mean():.0f} K"
)
clock = time.perf_counter()
warm = md.nvt(
    copper, crystal, steps=steps, timestep=2.0, temperature=300, friction=0.02, every=10,
    observers={"positions": md.positions},
)
print(f"NVT, {warm.time[-1] / 1000:.1f} ps in {time.perf_counter() - clock:.1f} s with compilation")

# %%
from ase import units
from ase.md.langevin import Langevin

taught = warm.atoms.copy()  # goes on where the network's run ended, velocities included
taught.calc = EMT()
thermostat = {"temperature_K": 300, "friction": 0.02 / units.fs, "fixcm": False, "rng": np.random.default_rng(3)}
motion, teacher_frames = Langevin(taught, 2 * units.fs, **thermostat), []
for step in range(2 if QUICK else 60):
    motion.run(10)
    if step >= 20 or QUICK:
        teacher_frames.append(taught.get_positions())


def distances(positions):
    """Radial distribution of copper over frames of positions (r, n, 3)."""
    return radial_distribution(
        [Structure(crystal.numbers, np.asarray(one, np.float64), crystal.cell.array, np.ones(3, bool)) for one in positions],
        reach=5.3,
        bins=110,
    )


half = len(warm.step) // 2
networks = distances(warm.observed["positions"][half:, 0, : len(crystal)])
teachers = distances(np.array(teacher_frames))
peaks = {}
for name, one in (("network", networks), ("teacher", teachers)):
    (g,) = one.curves.values()
    near = one.distances < 3.1
    mean = np.average(one.distances[near], weights=g[near])
    width = np.sqrt(np.average((one.distances[near] - mean) ** 2, weights=g[near]))
    peaks[name] = mean, width
    print(f"nearest neighbours, {name}: {mean:.3f} A apart, spread {width:.3f} A")

# %%
display(energy_drift(still.time / 1000, still.total, len(crystal), still.temperature, "copper, steps of 2 fs"))
figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
axis.plot(teachers.distances, *teachers.curves.values(), color="0.6", linewidth=4, label="teacher (EMT, through ASE)")
axis.plot(networks.distances, *networks.curves.values(), label="network")
for shell, count in ((1, 12), (2, 6), (3, 24), (4, 12)):
    axis.axvline(edge * np.sqrt(shell / 2), color="0.4", linestyle=":", linewidth=1)
axis.set(xlim=(1.8, networks.distances[-1]), xlabel="distance (A)", ylabel="radial distribution g(r)")
axis.set(title=f"Copper at 300 K, {len(crystal)} atoms; dotted: the shells of the crystal at rest")
axis.legend(frameon=False)
with_grid(axis)
plt.show()

# %% [markdown]
# ## What these networks are not
#
# (Seconds printed above are of a machine of two cores that had other work to do.)
#
# They are small and were taught little: an error of 0.2 eV/A is for screening and for trying things out, not
# for numbers in a paper. A low drift says that the forces are the slope of the network's energy, not that the energy
# is right. And nothing in a network says that it is asked about what it does not know, as the diamond above
# shows: compare with the teacher wherever you go. With your own data the way is the same:
# `sparsejax train force-field --data FILE --checkpoint-dir RUN`.
