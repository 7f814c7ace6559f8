"""Search and screening by several processes: what one process finds, in each of them."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from sparsejax.models.ultra_sparse.evolve import anneal
from tests.models.force_field.test_potential import field, molecule
from tests.models.ultra_sparse.evolve.batches import SINE_NET, sine_batch
from tests.training.test_processes import START, outputs, start_job

STEPS = 60

FIND = """
import jax, numpy as np
from jax.sharding import Mesh
from sparsejax.models.force_field.screening import screen
from sparsejax.models.ultra_sparse.evolve import anneal
from sparsejax.training.processes import connect
from tests.models.force_field.test_potential import field, molecule
from tests.models.ultra_sparse.evolve.batches import SINE_NET, sine_batch

mesh = Mesh(np.array(jax.devices()), ("chains",))
connect(mesh)
found = anneal(
    jax.random.key(0), SINE_NET, sine_batch(), steps=int(sys.argv[5]), chains=jax.device_count(), mesh=mesh
)
screened = screen(field(num_interactions=1), [molecule(3 + seed % 2, seed) for seed in range(11)])
leaves = [*jax.tree.leaves(found), *(leaf for one in screened for leaf in jax.tree.leaves(one))]
np.savez(f"{sys.argv[4]}/{process_id}.npz", *leaves)
try:
    screen(field(num_interactions=1), [molecule(3), molecule(0)])
except ValueError as error:
    print(error)
end_processes()
"""


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_find_what_one_finds(processes, tmp_path):
    job = start_job(START + FIND, processes, str(tmp_path), str(STEPS))
    for out in outputs(job):
        assert "structure 1: has no atoms; at least one is needed" in out
    first, *others = (list(np.load(tmp_path / f"{number}.npz").values()) for number in range(processes))
    for other in others:
        for own, theirs in zip(first, other, strict=True):
            np.testing.assert_array_equal(own, theirs)

    chains = 2 * processes
    alone = anneal(jax.random.key(0), SINE_NET, sine_batch(), steps=STEPS, chains=chains)
    wanted = jax.tree.leaves(alone)
    for own, one_process in zip(first, wanted, strict=False):
        # The chains are the same to the bit; a share of accepted steps may be rounded in another place.
        np.testing.assert_allclose(own, one_process, rtol=1e-6)

    given = [molecule(3 + seed % 2, seed) for seed in range(11)]
    predicted = jax.tree.leaves(field(num_interactions=1).predict(given))
    for own, one_process in zip(first[len(wanted) :], predicted, strict=True):
        np.testing.assert_allclose(own, one_process, rtol=1e-5, atol=1e-6)
