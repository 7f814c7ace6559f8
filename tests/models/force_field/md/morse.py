"""A pair potential with known physics for tests of molecular dynamics: Morse bonds that end smoothly."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.force_field.md.system import Potential

CUTOFF = 4.5
DEPTH, WIDTH, BOND = 0.5, 2.0, 2.5


def energy(
    parameters: dict[str, Any],
    species: jax.Array,
    positions: jax.Array,
    cell: jax.Array | None,
    neighbors: Any,
    *,
    strain: jax.Array | None,
) -> jax.Array:
    """(n,) eV: half of every bond of an atom."""
    del species
    vectors = positions[neighbors.senders] - positions[:, None]
    if cell is not None:
        vectors = vectors + neighbors.shifts.astype(positions.dtype) @ cell
    if strain is not None:
        vectors = vectors + vectors @ (strain + strain.T) / 2
    squares = (vectors**2).sum(-1)
    seen = neighbors.mask & (squares < CUTOFF**2)
    distances = jnp.sqrt(jnp.where(seen, squares, 1.0))
    well = jnp.exp(-parameters["width"] * (distances - parameters["bond"]))
    fade = (1 - (distances / CUTOFF) ** 2) ** 3
    return jnp.where(seen, parameters["depth"] * (well**2 - 2 * well) * fade, 0).sum(1) / 2


def morse(depth: float = DEPTH, width: float = WIDTH, bond: float = BOND) -> Potential:
    """The potential with these parameters, in float64 where that is on."""
    values = {"depth": depth, "width": width, "bond": bond}
    return Potential({name: jnp.asarray(value, float) for name, value in values.items()}, energy, CUTOFF)


def calculator(depth: float = DEPTH, width: float = WIDTH, bond: float = BOND) -> Any:
    """The same potential for ASE, in NumPy, from all images of all pairs: an oracle."""
    from ase.calculators.calculator import Calculator, all_changes
    from ase.stress import full_3x3_to_voigt_6_stress

    class Morse(Calculator):
        implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            around = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in 2 * atoms.pbc), indexing="ij"), -1)
            images = around.reshape(-1, 3) @ atoms.cell.array
            apart = atoms.positions - atoms.positions[:, None]
            vectors = apart[:, :, None] + images
            d = np.linalg.norm(vectors, axis=-1)
            i, j, image = np.nonzero((d > 1e-9) & (d < CUTOFF))
            d, vectors = d[i, j, image], vectors[i, j, image]
            well, fade = np.exp(-width * (d - bond)), (1 - (d / CUTOFF) ** 2) ** 3
            pair = depth * (well**2 - 2 * well)
            slope = depth * width * (2 * well - 2 * well**2) * fade
            slope += pair * -6 * d / CUTOFF**2 * (1 - (d / CUTOFF) ** 2) ** 2
            pull = (slope / d)[:, None] * vectors
            forces = np.zeros((len(atoms), 3))
            np.add.at(forces, i, pull)
            energy = (pair * fade).sum() / 2
            self.results = {"energy": energy, "free_energy": energy, "forces": forces}
            if atoms.pbc.all():
                virial = np.einsum("ei,ej->ij", vectors, pull) / 2
                self.results["stress"] = full_3x3_to_voigt_6_stress(virial / atoms.get_volume())

    return Morse()
