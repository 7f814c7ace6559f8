"""A run: calls of the compiled loop, lists grown where they overflow, records brought together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.force_field import neighbors_jit
from sparsejax.models.force_field.md.loop import advance
from sparsejax.models.force_field.md.observers import Observers, observe
from sparsejax.models.force_field.md.state import Integrator, MDState
from sparsejax.models.force_field.md.system import System
from sparsejax.models.force_field.neighbors_jit import NeighborState

_LOG = logging.getLogger("sparsejax.force_field")

CALL_STEPS = 1000
"""Steps in one call of the loop, at most."""

_CALL_RECORDS, _CALL_BYTES = 256, 2**25
"""Records of one call, at most; where there are more, a call takes fewer steps."""

_MOST_TRIES = 8
"""Growths in a row for one and the same step."""

Records = Mapping[str, np.ndarray]
Handle = Callable[[int, Records], None]
"""Takes the step that was reached and the records of a call, (r, ...) each."""


@dataclass
class Simulation:
    """Atoms in motion; `advance` moves them on.

    Attributes:
      system: what does not change.
      integrator: what a step is.
      state: as it is now.
      lists: neighbour list of the state or of one before it.
      every: steps between two records.
      observers: what is recorded beside the energies.
      call_steps: steps in one call of the loop, at most.
      growths: how often the neighbour list had to grow.
    """

    system: System
    integrator: Integrator
    state: MDState
    lists: NeighborState
    every: int = 10
    observers: Observers = ()
    call_steps: int = CALL_STEPS
    growths: int = field(default=0, init=False)

    @property
    def step(self) -> int:
        """Steps done; -1 before the forces at the start are known."""
        return int(self.state.step)

    def advance(self, until: int, handle: Handle) -> bool:
        """Run until a step; the first record is that of step 0.

        Args:
          until: step to reach.
          handle: called with the records of each call of the loop.

        Returns:
          whether the integrator is finished.

        Raises:
          FloatingPointError: an energy is not finite.
        """
        room = self._room()
        length = min(self.call_steps, (room - 3) * self.every)
        step, stuck = self.step, 0
        while step < until:
            target = min(max(step, 0) + length, until)
            # Donated arrays must not be used by two arguments, nor the state be lost if the list overflows.
            state, lists, records, count = advance(
                self.state,
                self.lists,
                self.system,
                self.integrator,
                until=jnp.asarray(target, jnp.int32),
                every=jnp.asarray(self.every, jnp.int32),
                room=room,
                observers=self.observers,
            )
            self.state, self.lists = state, lists
            finished = self.integrator.finished(state)
            before = step
            step, overflow, count, finished, energy = jax.device_get(
                (state.step, lists.overflow, count, finished, state.energy)
            )
            step = int(step)
            _check_finite(energy, step)
            handle(step, _first_rows(records, int(count)))
            if overflow:
                stuck = stuck + 1 if step == before else 1
                self._grow(step, stuck)
            elif finished:
                return True
        return False

    def _grow(self, step: int, tries: int) -> None:
        """A larger neighbour list for the state, which is the one before the step that did not fit."""
        lost = self.lists.method == "all_pairs" or not np.isfinite(self.lists.reference_positions).all()
        if lost or tries > _MOST_TRIES:
            raise FloatingPointError(
                f"atoms flew apart or fell together in step {step + 1}; shorten the time step, or minimise "
                "the structure first"
            )
        before = self.lists.neighbors.senders.shape
        self.lists = neighbors_jit.grow(self.lists, self.state.positions.reshape(-1, 3), self.state.cell)
        self.growths += 1
        after = self.lists.neighbors.senders.shape
        _LOG.info("neighbour list %s -> %s (atoms, slots) at step %d", before, after, max(step, 0))

    def no_records(self) -> dict[str, np.ndarray]:
        """Records of no step, for their names, shapes and dtypes."""
        return {name: np.zeros((0, *leaf.shape), leaf.dtype) for name, leaf in self._record().items()}

    def _room(self) -> int:
        """Records that a call has room for: not a matter of steps, so that other numbers compile nothing."""
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self._record()))
        return min(max(4, _CALL_BYTES // size), _CALL_RECORDS)

    def _record(self) -> dict[str, jax.ShapeDtypeStruct]:
        record = jax.eval_shape(
            lambda state: observe(state, self.system, self.integrator, self.observers), self.state
        )
        return {name: leaf for name, leaf in record.items() if leaf is not None}


def _first_rows(records: Mapping[str, jax.Array | None], count: int) -> dict[str, np.ndarray]:
    """Copies: who keeps a view of the first rows keeps the room of all."""
    given = jax.device_get(records)
    return {name: rows[:count].copy() for name, rows in given.items() if rows is not None}


def _check_finite(energy: np.ndarray, step: int) -> None:
    if np.isfinite(energy).all():
        return
    copies = np.flatnonzero(~np.isfinite(energy)).tolist()
    where = f" of copies {copies[:5]}" if len(energy) > 1 else ""
    raise FloatingPointError(
        f"the energy{where} is not finite after step {max(step, 0)}: atoms came too close or the time step "
        "is too long; shorten it, or minimise the structure first"
    )


def joined(parts: Sequence[Records]) -> dict[str, np.ndarray]:
    """The records of one or more calls, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
