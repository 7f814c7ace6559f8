"""The loop: how it is cut does not matter, lists that overflow lose nothing, replicas are independent."""

from __future__ import annotations

import dataclasses
import logging

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.force_field import md, neighbors_jit
from sparsejax.models.force_field.md import lists
from tests.compilations import compilations
from tests.models.force_field.md import morse
from tests.models.force_field.md.systems import cluster, crystal


def test_the_cut_into_calls_changes_no_bit_and_compiles_nothing():
    def run(call_steps, **options):
        return md.nvt(
            morse.morse(), cluster(), replicas=2, steps=60, timestep=2.0, call_steps=call_steps, **options
        )

    whole = run(1000)
    with compilations() as counts:
        parts = run(7)
        other = run(1000, every=20, temperature=500.0, friction=0.05)
    np.testing.assert_array_equal(whole.atoms[1].positions, parts.atoms[1].positions)
    np.testing.assert_array_equal(whole.conserved, parts.conserved)
    assert whole.step.tolist() == parts.step.tolist() == [0, 10, 20, 30, 40, 50, 60]
    assert other.step.tolist() == [0, 20, 40, 60]
    assert counts["advance"] == 0


def test_kept_records_keep_no_more_than_their_rows():
    kept = []
    options = {"steps": 40, "call_steps": 10, "timestep": 1.0}
    md.nve(morse.morse(), cluster(), progress=lambda step, records: kept.append(records), **options)
    assert len(kept) > 3 and all(rows.base is None for records in kept for rows in records.values())


def test_replicas_are_what_they_would_be_alone():
    starts = [cluster(), cluster(0.05)]
    together = md.nve(morse.morse(), starts, steps=60, timestep=2.0, every=20)
    alone = md.nve(morse.morse(), starts[1], steps=60, timestep=2.0, every=20)
    assert together.total.shape == (4, 2)
    np.testing.assert_allclose(together.total[:, 1], alone.total, rtol=1e-11)
    np.testing.assert_allclose(together.atoms[1].positions, alone.atoms.positions, atol=1e-11)


def test_a_list_that_overflows_loses_nothing(caplog, monkeypatch):
    # Hot and with little room, so that atoms gather more neighbours than there were at the start.
    def run(head_room, **changes):
        def allocate(start, cutoff, skin, dtype):
            positions, cell = jnp.asarray(start.positions[0]), start.structure.cell
            made = neighbors_jit.allocate(positions, cell, True, cutoff, skin, head_room=head_room)
            return dataclasses.replace(made, **changes)

        monkeypatch.setattr(lists, "allocate", allocate)
        options = {"temperature": 4000.0, "timestep": 2.0, "skin": 0.2}
        return md.nvt(morse.morse(), crystal(), steps=120, every=5, **options)

    with caplog.at_level(logging.INFO, "sparsejax.force_field"):
        tight = run(1.0)
    plan = tight.simulation.lists.plan
    roomy = run((plan.slots - 1) / 42, plan=plan)  # the same compiled loop
    assert tight.simulation.growths == 1 and roomy.simulation.growths == 0
    assert "neighbour list (32, 43) -> (32, " in caplog.text and "at step" in caplog.text
    np.testing.assert_array_equal(tight.step, roomy.step)
    np.testing.assert_allclose(tight.potential, roomy.potential, rtol=0, atol=1e-9)
    np.testing.assert_allclose(tight.atoms.positions, roomy.atoms.positions, rtol=0, atol=1e-9)


def _stiff(parameters, species, positions, cell, neighbors, *, strain):
    return parameters * (positions**2).sum(-1)


def test_an_energy_that_is_not_finite_ends_the_run():
    potential = md.Potential(jnp.asarray(1e5), _stiff, 4.0)
    with pytest.raises(
        FloatingPointError, match="energy of copies .0, 1. is not finite after step .*shorten"
    ):
        md.nve(potential, [cluster(), cluster()], steps=500, timestep=2.0)


def test_positions_that_are_not_finite_end_the_run():
    atoms = cluster()
    atoms.set_velocities(1e38 * np.eye(5, 3))
    with pytest.raises(FloatingPointError, match="flew apart or fell together in step 1; shorten"):
        md.nve(morse.morse(), atoms, steps=500, timestep=1000.0, dtype=np.float32)
