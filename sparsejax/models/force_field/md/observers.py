"""What is recorded every k steps, on the device: energies, temperature, pressure, what the user asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from sparsejax.models.force_field.md.state import (
    Integrator,
    MDState,
    kinetic_energy,
    pressure,
    temperature,
    volume,
)
from sparsejax.models.force_field.md.system import System

Observer = Callable[[MDState, System], jax.Array]
"""A pure function of a state; compiled into the loop. Give the same object again to compile it once."""

Observers = tuple[tuple[str, Observer], ...]

OWN = ("step", "potential", "kinetic", "temperature", "conserved", "pressure", "volume")
"""Names of what is recorded in any case; pressure and volume where there are three periodic directions."""


def observe(
    state: MDState, system: System, integrator: Integrator, observers: Observers
) -> dict[str, jax.Array]:
    """One record of a state: `OWN`, then what the observers say."""
    record = {
        "step": state.step,
        "potential": state.energy,
        "kinetic": kinetic_energy(state, system),
        "temperature": temperature(state, system),
        "conserved": integrator.conserved(state, system),
    }
    if system.periodic and state.cell is not None:
        record |= {"pressure": pressure(state, system), "volume": volume(state.cell)}
    return record | {name: observer(state, system) for name, observer in observers}


def positions(state: MDState, system: System) -> jax.Array:
    """Observer: (g, b, 3) A, not folded back into the cell."""
    return state.positions


def velocities(state: MDState, system: System) -> jax.Array:
    """Observer: (g, b, 3) A per unit of time, as ASE has them."""
    return state.velocities


def forces(state: MDState, system: System) -> jax.Array:
    """Observer: (g, b, 3) eV/A."""
    return state.forces


def cell(state: MDState, system: System) -> Any:
    """Observer: (3, 3) A; None, which is no record, of molecules."""
    return state.cell


def virial(state: MDState, system: System) -> Any:
    """Observer: (3, 3) eV, dE/dstrain; None of what has no volume."""
    return state.virial


FRAME: Observers = (
    ("frame_positions", positions),
    ("frame_velocities", velocities),
    ("frame_forces", forces),
    ("frame_cell", cell),
    ("frame_virial", virial),
)
"""What a frame of a trajectory is written from."""
