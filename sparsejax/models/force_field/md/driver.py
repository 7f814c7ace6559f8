"""From atoms and options to a finished run: velocities, neighbour list, loop, files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.force_field.md import lists as neighbor_lists
from sparsejax.models.force_field.md.langevin import Langevin
from sparsejax.models.force_field.md.observers import FRAME, OWN, Observer
from sparsejax.models.force_field.md.restart import fingerprint, restore_run, save_run, saved_step
from sparsejax.models.force_field.md.result import Run, run_of
from sparsejax.models.force_field.md.run import CALL_STEPS, Records, Simulation, joined
from sparsejax.models.force_field.md.start import (
    Start,
    boltzmann_velocities,
    initial_state,
    read_start,
    rotational_freedoms,
    system_of,
)
from sparsejax.models.force_field.md.state import Integrator
from sparsejax.models.force_field.md.system import Potential, potential_of
from sparsejax.models.force_field.md.trajectory import TrajectoryWriter, frames_of
from sparsejax.models.force_field.md.units import BOLTZMANN, FEMTOSECOND
from sparsejax.models.force_field.structure import check_geometry, check_structure

Progress = Callable[[int, Records], None]
"""Takes the steps done and the records of the last call of the loop, which may be none."""


class Options(TypedDict, total=False):
    """What all ensembles take, by name.

    Attributes:
      replicas: copies of a molecule, each with its own velocities, side by side; see `Run`. Instead, several
        structures of the same atoms may be given.
      seed: of the velocities and the noise.
      draw_velocities: True draws them, without the momentum of the whole; False takes those of the atoms;
        None draws them for ``replicas``, and if the atoms carry none.
      remove_rotation: of molecules, take the angular momentum off the drawn velocities.
      every: steps between two records and two frames.
      observers: by name, what else to record: pure functions of state and system, compiled into the loop.
      trajectory: .traj or .extxyz file; see `trajectory.TrajectoryWriter`.
      restart: folder in which the run is saved now and then, and at its end.
      resume: go on with the run in that folder, to ``steps`` in all; begin it if there is none.
      save_every: steps between two saves.
      skin: A, how far beyond the cutoff the neighbour list looks; a wider one is rebuilt less often and holds
        more pairs. Wider by default than the calculator's, as a run goes on in small steps.
      dtype: of positions and velocities; float64 needs jax_enable_x64, and is what None stands for there.
        The network computes in that of its parameters.
      call_steps: steps in one call of the compiled loop; progress is told after each.
      progress: called with the steps done and the latest records.
      before_save: called when progress has been told all that is about to be saved.
    """

    replicas: int | None
    seed: int
    draw_velocities: bool | None
    remove_rotation: bool
    every: int
    observers: Mapping[str, Observer] | None
    trajectory: Path | str | None
    restart: Path | str | None
    resume: bool
    save_every: int
    skin: float
    dtype: Any
    call_steps: int
    progress: Progress | None
    before_save: Callable[[], None] | None


_DEFAULTS: Options = {
    "replicas": None,
    "seed": 0,
    "draw_velocities": None,
    "remove_rotation": False,
    "every": 10,
    "observers": None,
    "trajectory": None,
    "restart": None,
    "resume": False,
    "save_every": 10_000,
    "skin": 0.5,
    "dtype": None,
    "call_steps": CALL_STEPS,
    "progress": None,
    "before_save": None,
}


class Ensemble(NamedTuple):
    """What one of the public functions asks for.

    Attributes:
      make: the integrator from time step, key and dtype.
      settings: its name and numbers, plain JSON; a run goes on only with the same.
      timestep: fs.
      thermal: eV, for drawing velocities; None starts at rest.
    """

    make: Callable[[jax.Array, jax.Array, Any], Integrator]
    settings: Mapping[str, Any]
    timestep: float
    thermal: float | None


def run_ensemble(force_field: Any, atoms: Any, steps: int, ensemble: Ensemble, given: Options) -> Run:
    """Run an ensemble from atoms to records.

    Args:
      force_field: `ForceField`, or a `Potential`.
      atoms: what `read_start` takes.
      steps: in all.
      ensemble: which one.
      given: options that are not the defaults.

    Raises:
      ValueError, FloatingPointError, CheckpointError: see the public functions.
    """
    _check_options(steps, ensemble.timestep, given)
    options: Options = {**_DEFAULTS, **given}
    potential, start = potential_of(force_field), read_start(atoms, options["replicas"])
    _check_start(force_field, start, ensemble.settings["ensemble"])
    simulation = _simulation(potential, start, ensemble, options)
    settings = {
        **ensemble.settings,
        "timestep": ensemble.timestep,
        "atoms": start.structure.species.tolist(),
        "replicas": len(start.positions),
        "periodic": start.structure.pbc.tolist(),
        "network": fingerprint(potential.parameters),
        "dtype": simulation.state.positions.dtype.name,
        "skin": options["skin"],
        "seed": options["seed"],
    }
    records, finished = _driven(simulation, start, settings, steps, options)
    replicas = options["replicas"] is not None or len(start.positions) > 1
    return run_of(
        records, simulation, start, timestep=ensemble.timestep, finished=finished, replicas=replicas
    )


def _simulation(potential: Potential, start: Start, ensemble: Ensemble, options: Options) -> Simulation:
    dtype = _dtype(options["dtype"])
    key = jax.random.key(options["seed"])
    timestep = jnp.asarray(ensemble.timestep * FEMTOSECOND, dtype)
    integrator = ensemble.make(timestep, jax.random.fold_in(key, 1), dtype)
    still = options["remove_rotation"] and not start.structure.pbc.any()
    drawn = options["draw_velocities"]
    if drawn is None:
        drawn = start.velocities is None or options["replicas"] is not None
    drawn = drawn and ensemble.thermal is not None
    velocities = None if ensemble.thermal is None else start.velocities
    if drawn:
        velocities = _drawn(start, ensemble.thermal or 0.0, jax.random.fold_in(key, 0), still)
    freedom = _freedom(start, integrator, velocities, still=still and drawn and potential.turns)
    system = system_of(potential, start, freedom, dtype)
    observers = tuple((options["observers"] or {}).items())
    return Simulation(
        system,
        integrator,
        initial_state(start, system, integrator, velocities, dtype),
        neighbor_lists.allocate(start, potential.cutoff, options["skin"], dtype),
        every=options["every"],
        observers=observers if options["trajectory"] is None else observers + FRAME,
        call_steps=options["call_steps"],
    )


def _drawn(start: Start, thermal: float, key: jax.Array, still: bool) -> np.ndarray:
    kelvin = thermal / BOLTZMANN
    return boltzmann_velocities(key, start.masses, kelvin, start.positions, remove_rotation=still)


def _dtype(wanted: Any) -> np.dtype:
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(float) if wanted is None else wanted)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, not {dtype}")
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError("dtype=float64 needs jax.config.update('jax_enable_x64', True)")
    return dtype


def _freedom(start: Start, integrator: Integrator, velocities: np.ndarray | None, *, still: bool) -> int:
    """Degrees of freedom: all but what starts at zero and stays there."""
    atoms = len(start.masses)
    if isinstance(integrator, Langevin) or atoms == 1:
        return 3 * atoms
    if velocities is not None:
        momenta = start.masses[:, None] * velocities
        if np.abs(momenta.sum(axis=-2)).max() > 1e-6 * np.abs(momenta).sum(axis=-2).max():
            return 3 * atoms  # the whole flies along
    turning = rotational_freedoms(start.masses, start.positions[0]) if still else 0
    return max(1, 3 * atoms - 3 - turning)


def _driven(
    simulation: Simulation, start: Start, settings: Mapping[str, Any], steps: int, options: Options
) -> tuple[dict[str, np.ndarray], bool]:
    """The records of all calls, and whether the integrator is finished."""
    folder = None if options["restart"] is None else Path(options["restart"])
    resumed = _resumed(folder, simulation, settings, options["resume"])
    parts = [_kept(simulation.no_records())]
    finished = False
    with _writer(start, simulation, resumed, options) as writer:

        def handle(step: int, records: Records) -> None:
            if writer is not None and len(records["step"]):
                writer.write(frames_of(records, settings["timestep"]))
            parts.append(_kept(records))
            if options["progress"] is not None:
                options["progress"](step, records)

        while not finished and simulation.step < steps:
            until = steps
            if folder is not None:
                until = min(max(simulation.step, 0) + options["save_every"], steps)
            finished = simulation.advance(until, handle)
            if folder is None:
                continue
            if writer is not None:
                writer.flush()  # a run that goes on from here finds all frames up to here
            if options["before_save"] is not None:
                options["before_save"]()
            save_run(folder, simulation, settings)
    return joined(parts), finished


def _kept(records: Records) -> Records:
    """Records without what frames are written from."""
    return {name: rows for name, rows in records.items() if not name.startswith("frame_")}


def _resumed(
    folder: Path | None, simulation: Simulation, settings: Mapping[str, Any], resume: bool
) -> int | None:
    """The step that a saved run goes on from, after putting it into the simulation; None starts anew."""
    if folder is None:
        if resume:
            raise ValueError("resume=True needs restart=FOLDER, where the run was saved")
        return None
    step = saved_step(folder)
    if step is None:
        return None
    if not resume:
        raise ValueError(
            f"{folder}: holds a run of {max(step, 0)} steps; go on with it by resume=True, or choose another "
            "folder"
        )
    restore_run(folder, simulation, settings)
    return step


def _writer(
    start: Start, simulation: Simulation, resumed: int | None, options: Options
) -> AbstractContextManager[TrajectoryWriter | None]:
    if options["trajectory"] is None:
        return nullcontext()
    copies = len(simulation.state.energy)
    return TrajectoryWriter(
        options["trajectory"], start.structure, start.masses, copies=copies, keep_until=resumed
    )


def _check_start(force_field: Any, start: Start, ensemble: str) -> None:
    if ensemble == "npt" and not start.periodic:
        raise ValueError(
            "npt needs a cell and periodic boundary conditions in all three directions; set both"
        )
    for number, places in enumerate(start.positions):
        if number and np.array_equal(places, start.positions[0]):
            continue
        name = "atoms" if len(start.positions) == 1 else f"replica {number}"
        structure = start.structure._replace(positions=places)
        if isinstance(force_field, Potential):
            check_geometry(structure, name=name)
        else:
            check_structure(structure, force_field.config, name=name)


def _check_options(steps: int, timestep: float, given: Options) -> None:
    if unknown := set(given) - set(_DEFAULTS):
        raise TypeError(f"no option {sorted(unknown)[0]!r}; there are {', '.join(_DEFAULTS)}")
    options: Options = {**_DEFAULTS, **given}
    if steps < 0:
        raise ValueError(f"steps must be 0 or more, not {steps}")
    for name in ("every", "save_every", "call_steps"):
        if not options[name] >= 1:
            raise ValueError(f"{name} must be 1 or more, not {options[name]}")
    check_positive(timestep=timestep)
    if not options["skin"] >= 0:
        raise ValueError(f"skin must be a number of A from 0, not {options['skin']!r}")
    for name in options["observers"] or {}:
        if name in OWN or name.startswith("frame_"):
            raise ValueError(f"observer {name!r}: this name is taken; choose another")


def check_positive(**values: float) -> None:
    """Refuse numbers that are not positive.

    Raises:
      ValueError: names the first of them.
    """
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number, not {value!r}")


def thermal_energy(temperature: float) -> float:
    """Boltzmann's constant times a temperature in K, eV.

    Raises:
      ValueError: the temperature is negative or no number.

    Example:
      >>> round(thermal_energy(300.0), 5)
      0.02585
    """
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature must be a number of K from 0, not {temperature!r}")
    return BOLTZMANN * temperature
