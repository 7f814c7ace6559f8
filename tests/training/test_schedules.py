"""Learning rates against torch's formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sparsejax.training.schedules import (
    cosine_annealing,
    epoch_cosine,
    tabulated,
    warmup_constant,
    warmup_cosine,
)
from tests import golden


def test_warmup_cosine_begins_at_zero_and_ends_there():
    rate = warmup_cosine(3e-4, warmup=4, steps=40)

    def of_torch(n):
        return 3e-4 * (n / 4 if n < 4 else (1 + math.cos(math.pi * (n - 4) / 36)) / 2)

    found = [float(rate(n)) for n in range(41)]
    np.testing.assert_allclose(found, [of_torch(n) for n in range(41)], rtol=1e-6, atol=1e-10)
    assert found[0] == 0
    assert float(rate(100)) < 1e-9
    assert float(warmup_cosine(1.0, warmup=0, steps=8)(0)) == 1
    assert float(warmup_cosine(1.0, warmup=8, steps=8)(7)) == pytest.approx(7 / 8)


def test_warmup_constant_stays():
    rate = warmup_constant(2.0, warmup=4, steps=40)
    assert [float(rate(n)) for n in (0, 2, 4, 39)] == [0, 1, 2, 2]
    assert float(warmup_constant(2.0, warmup=0, steps=40)(0)) == 2


@pytest.mark.torch
def test_cosine_annealing_is_that_of_torch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.1)
    expected = []
    for _ in range(15):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    rate = cosine_annealing(0.5, steps=10, minimum=0.1)
    np.testing.assert_allclose([float(rate(n)) for n in range(15)], expected, rtol=1e-5)


def test_warmup_longer_than_the_run_is_refused():
    for warmup, steps in ((-1, 5), (6, 5)):
        with pytest.raises(ValueError, match=f"between 0 and the 5 steps of the run, not {warmup}"):
            warmup_cosine(1.0, warmup=warmup, steps=steps)
    with pytest.raises(ValueError, match="at least 1 step, not 0"):
        cosine_annealing(1.0, steps=0)


@pytest.mark.golden("trainer_warmup_cosine.npz")
def test_epoch_cosine_is_that_of_the_published_trainer():
    case = golden.arrays("force_field", "trainer_warmup_cosine")
    rates = epoch_cosine(1e-3, warmup=7, steps_per_epoch=5, epochs=4, period=3)
    np.testing.assert_allclose(rates[:15], case["steps"][:, 4], rtol=0, atol=1e-12)
    assert rates[15] == pytest.approx(float(case["lr_end"]), abs=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("warmup", "period"),
    [(0, 3), (4, 3), (7, 3), (10, 3), (100, 9)],  # none; at the end of an epoch; beyond the run
)
def test_epoch_cosine_is_that_of_torch(warmup, period):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=period, eta_min=1e-7)
    first = 1e-7 / 0.5
    rise = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: first + (1 - first) * n / warmup if warmup else 1.0
    )
    expected, done = [], 0
    for _ in range(9):
        for _ in range(4):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if done < warmup:
                rise.step()
            done += 1
        if done >= warmup:
            cosine.step()
    rates = epoch_cosine(0.5, warmup=warmup, steps_per_epoch=4, epochs=9, period=period)
    np.testing.assert_allclose(rates, expected, rtol=0, atol=1e-12)


def test_tabulated_rates_are_looked_up():
    rate = tabulated(np.asarray([1.0, 0.1, 0.01]))
    assert [float(rate(step)) for step in (0, 1, 2, 3)] == pytest.approx([1, 0.1, 0.01, 0.01])
    with pytest.raises(ValueError, match="at least 1 and the warm-up at least 0, not 0, 1, 1 and 0"):
        epoch_cosine(1.0, warmup=0, steps_per_epoch=0, epochs=1)
    with pytest.raises(ValueError, match="must be positive, not 0"):
        epoch_cosine(0.0, warmup=1, steps_per_epoch=1, epochs=1)
