"""NVE, NVT, NPT and minimisation of a force field, from atoms to records, in one call each."""

from __future__ import annotations

import math
from typing import Any, Literal, Unpack, get_args

import jax
import jax.numpy as jnp

from sparsejax.models.force_field.md.driver import (
    Ensemble,
    Options,
    check_positive,
    run_ensemble,
    thermal_energy,
)
from sparsejax.models.force_field.md.fire import Fire
from sparsejax.models.force_field.md.langevin import Langevin
from sparsejax.models.force_field.md.nose_hoover import NoseHoover
from sparsejax.models.force_field.md.npt import NosePressure
from sparsejax.models.force_field.md.nve import VelocityVerlet
from sparsejax.models.force_field.md.result import Run
from sparsejax.models.force_field.md.state import Integrator
from sparsejax.models.force_field.md.units import FEMTOSECOND

Thermostat = Literal["langevin", "nose_hoover"]


def nve(
    force_field: Any,
    atoms: Any,
    *,
    steps: int,
    timestep: float = 0.5,
    temperature: float = 300.0,
    **options: Unpack[Options],
) -> Run:
    """Constant energy, by velocity Verlet.

    Args:
      force_field: `ForceField`, or a `Potential`.
      atoms: `ase.Atoms` or `Structure`; molecule, slab or crystal, or several molecules of the same atoms.
      steps: in all.
      timestep: fs.
      temperature: K, of the velocities if they are drawn.
      **options: see `Options`.

    Raises:
      ValueError: the structure or an option does not fit.
      FloatingPointError: an energy is not finite.
      CheckpointError: the folder of the run cannot be read or written.

    Example:
      >>> from ase import Atoms
      >>> from sparsejax.models.force_field.md import Potential
      >>> def well(k, species, positions, cell, neighbors, *, strain): return k * (positions**2).sum(-1) / 2
      >>> atom = Atoms("C", [[0.1, 0, 0]])
      >>> run = nve(Potential(jnp.asarray(3.0), well, 4.0), atom, steps=50, temperature=0)
      >>> run.step.tolist(), bool(np.ptp(run.total) < 1e-4)
      ([0, 10, 20, 30, 40, 50], True)
    """
    ensemble = Ensemble(
        lambda step, key, dtype: VelocityVerlet(step),
        {"ensemble": "nve"},
        timestep,
        thermal_energy(temperature),
    )
    return run_ensemble(force_field, atoms, steps, ensemble, options)


def nvt(
    force_field: Any,
    atoms: Any,
    *,
    steps: int,
    timestep: float = 0.5,
    temperature: float = 300.0,
    thermostat: Thermostat = "langevin",
    friction: float = 0.01,
    period: float = 50.0,
    **options: Unpack[Options],
) -> Run:
    """Constant temperature.

    Args:
      force_field: `ForceField`, or a `Potential`.
      atoms: `ase.Atoms` or `Structure`; molecule, slab or crystal, or several molecules of the same atoms.
      steps: in all.
      timestep: fs.
      temperature: K.
      thermostat: "langevin" is stochastic and good for anything; "nose_hoover" is a chain of three, for
        systems of many atoms.
      friction: 1/fs, of "langevin".
      period: fs, of "nose_hoover".
      **options: see `Options`.

    Raises:
      ValueError: the structure or an option does not fit.
      FloatingPointError: an energy is not finite.
      CheckpointError: the folder of the run cannot be read or written.
    """
    if thermostat not in get_args(Thermostat):
        raise ValueError(f"no thermostat {thermostat!r}; choose one of {', '.join(get_args(Thermostat))}")
    bath = thermal_energy(temperature)
    check_positive(temperature=temperature, friction=friction, period=period)

    def integrator(step: jax.Array, key: jax.Array, dtype: Any) -> Integrator:
        thermal = jnp.asarray(bath, dtype)
        if thermostat == "langevin":
            return Langevin(step, thermal, jnp.asarray(friction / FEMTOSECOND, dtype), key)
        return NoseHoover(step, thermal, jnp.asarray(period * FEMTOSECOND, dtype))

    settings = {
        "ensemble": "nvt",
        "thermostat": thermostat,
        "temperature": temperature,
        **({"friction": friction} if thermostat == "langevin" else {"period": period}),
    }
    return run_ensemble(force_field, atoms, steps, Ensemble(integrator, settings, timestep, bath), options)


def npt(
    force_field: Any,
    atoms: Any,
    *,
    steps: int,
    timestep: float = 0.5,
    temperature: float = 300.0,
    pressure: float = 0.0,
    period: float = 50.0,
    pressure_period: float = 500.0,
    **options: Unpack[Options],
) -> Run:
    """Constant temperature and pressure; the cell keeps its shape.

    Args:
      force_field: `ForceField`, or a `Potential`.
      atoms: `ase.Atoms` or `Structure`, periodic in all three directions.
      steps: in all.
      timestep: fs.
      temperature: K.
      pressure: eV/A^3; ``2 * md.GPA`` is two gigapascals.
      period: fs, of the thermostat.
      pressure_period: fs, of the barostat.
      **options: see `Options`.

    Raises:
      ValueError: the structure or an option does not fit.
      FloatingPointError: an energy is not finite.
      CheckpointError: the folder of the run cannot be read or written.
    """
    bath = thermal_energy(temperature)
    check_positive(temperature=temperature, period=period, pressure_period=pressure_period)
    if not math.isfinite(pressure):
        raise ValueError(f"pressure must be a number of eV/A^3, not {pressure!r}")

    def integrator(step: jax.Array, key: jax.Array, dtype: Any) -> Integrator:
        values = (bath, period * FEMTOSECOND, pressure, pressure_period * FEMTOSECOND)
        return NosePressure(step, *(jnp.asarray(value, dtype) for value in values))

    settings = {
        "ensemble": "npt",
        "temperature": temperature,
        "pressure": pressure,
        "period": period,
        "pressure_period": pressure_period,
    }
    return run_ensemble(force_field, atoms, steps, Ensemble(integrator, settings, timestep, bath), options)


def minimize(
    force_field: Any,
    atoms: Any,
    *,
    steps: int = 1000,
    fmax: float = 0.01,
    longest_move: float = 0.2,
    **options: Unpack[Options],
) -> Run:
    """Down to where no force is larger than ``fmax``, by FIRE; the cell stays as it is.

    Args:
      force_field: `ForceField`, or a `Potential`.
      atoms: `ase.Atoms` or `Structure`; molecule, slab or crystal, or several molecules of the same atoms.
      steps: at most; ``Run.finished`` tells whether they were enough.
      fmax: eV/A, of the atom that is pulled most.
      longest_move: A, of all atoms together in one step.
      **options: see `Options`.

    Raises:
      ValueError: the structure or an option does not fit.
      FloatingPointError: an energy is not finite.
      CheckpointError: the folder of the run cannot be read or written.
    """
    check_positive(fmax=fmax, longest_move=longest_move)

    def integrator(step: jax.Array, key: jax.Array, dtype: Any) -> Integrator:
        return Fire(jnp.asarray(fmax, dtype), jnp.asarray(longest_move, dtype))

    settings = {"ensemble": "minimize", "fmax": fmax, "longest_move": longest_move}
    return run_ensemble(force_field, atoms, steps, Ensemble(integrator, settings, 1.0, None), options)
