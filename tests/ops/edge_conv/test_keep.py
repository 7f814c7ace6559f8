"""A branch of its own changes nothing but the program, and that on CPU only."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.backends import target_platform
from sparsejax.ops.edge_conv.keep import kept


def _kept(operand, witness):
    return kept(lambda x: jnp.sin(x) ** 2, operand, witness)


@pytest.fixture(scope="module")
def derivatives():
    """Value, first and second derivative with respect to the operand."""

    def first(operand, witness):
        return jax.grad(lambda x: _kept(x, witness).sum())(operand)

    def all_three(operand, witness):
        second = jax.grad(lambda x: first(x, witness).sum())(operand)
        return _kept(operand, witness), first(operand, witness), second

    return jax.jit(all_three)


@pytest.mark.parametrize("witness", [0.0, 2.5, np.inf, np.nan])
def test_value_and_derivatives_are_kept_whatever_the_witness(derivatives, witness):
    x = np.linspace(-1, 1, 5)
    found = derivatives(jnp.asarray(x, jnp.float32), jnp.full(2, witness))
    wanted = np.sin(x) ** 2, np.sin(2 * x), 2 * np.cos(2 * x)
    for mine, exact in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, exact, atol=1e-6)


@pytest.mark.parametrize(("platform", "branches"), [("cpu", 1), ("gpu", 0), ("tpu", 0)])
def test_only_a_program_for_cpu_has_the_branch(platform, branches):
    with target_platform(platform):
        program = jax.jit(_kept).lower(jnp.ones(3), jnp.ones(2)).as_text()
    assert program.count("stablehlo.case") == branches


def test_no_witness_needs_no_branch():
    assert _kept(jnp.zeros(0), jnp.zeros(0)).shape == (0,)
