from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ultra_sparse.evolve import evaluate
from tests.models.ultra_sparse.evolve.batches import SINE_NET, random_net, sine_batch

pytest.importorskip("evosax")
from sparsejax.models.ultra_sparse.evolve.evosax_weights import _evolve, evolve_weights


@pytest.mark.parametrize("algorithm", ["CMA_ES", "DifferentialEvolution"])
def test_either_kind_of_algorithm_improves_the_weights_and_leaves_the_tables(algorithm):
    """One that moves a distribution and one that moves a population."""
    goal, start = sine_batch(), random_net(SINE_NET)
    found = evolve_weights(
        jax.random.key(0), SINE_NET, start, goal, algorithm=algorithm, population_size=16, generations=60
    )
    np.testing.assert_array_equal(found.params["layer_0"]["indices"], start["layer_0"]["indices"])
    np.testing.assert_allclose(found.loss, evaluate(SINE_NET, found.params, goal), rtol=1e-5)
    assert float(found.loss) < 0.9 * float(evaluate(SINE_NET, start, goal))
    assert found.history.loss.shape == (60,)
    assert (np.diff(found.history.loss) <= 0).all()


def test_settings_change_the_run_without_compiling_it_again():
    goal, start = sine_batch(), random_net(SINE_NET)
    run = {"algorithm": "Sep_CMA_ES", "population_size": 8, "generations": 20}
    wide = evolve_weights(jax.random.key(0), SINE_NET, start, goal, **run)
    count = _evolve._cache_size()
    narrow = evolve_weights(jax.random.key(0), SINE_NET, start, goal, **run, settings={"std_init": 0.05})
    assert _evolve._cache_size() == count
    assert float(narrow.loss) != float(wide.loss)


def test_a_start_that_nothing_beats_is_returned():
    goal = sine_batch()
    silent = jax.tree.map(jnp.zeros_like, random_net(SINE_NET))
    found = evolve_weights(
        jax.random.key(0), SINE_NET, silent, goal, generations=1, settings={"std_init": 50.0}
    )
    assert float(found.loss) == pytest.approx(float(evaluate(SINE_NET, silent, goal)))
    assert not np.any(found.params["layer_1"]["kernel"])


def test_unknown_names_are_refused():
    goal, start = sine_batch(), random_net(SINE_NET)
    with pytest.raises(ValueError, match="evosax has no algorithm 'CMA'"):
        evolve_weights(jax.random.key(0), SINE_NET, start, goal, algorithm="CMA")
    with pytest.raises(ValueError, match=r"CMA_ES has no setting \['sigma'\]"):
        evolve_weights(jax.random.key(0), SINE_NET, start, goal, settings={"sigma": 1.0})
