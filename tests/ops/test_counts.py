"""What may be a number of things, and that the configs of all families ask for one."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.sparse_inference.config import ModelConfig
from sparsejax.models.sprout.config import SproutConfig
from sparsejax.models.ten.config import TemporalEigenstateConfig
from sparsejax.models.ultra_sparse.config import Layer, UltraSparseConfig, dense
from sparsejax.ops.counts import check_count


@pytest.mark.parametrize("value", [2, True, 2.5, 3.0, "3", None, np.int64(3), float("nan")])
def test_only_whole_numbers_from_the_least_on_are_counts(value):
    check_count("size", 3, 3)
    with pytest.raises(ValueError, match="size must be a whole number of at least 3, not "):
        check_count("size", value, 3)


@pytest.mark.parametrize("value", [0, True, 2.5])
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("max_z", lambda value: ForceFieldConfig(max_z=value)),
        ("input_dim", lambda value: ModelConfig(value, 64, 8, 4)),
        ("n_layers", lambda value: SproutConfig(n_layers=value)),
        ("dim", lambda value: TemporalEigenstateConfig(dim=value)),
        ("features", lambda value: Layer("dense", value)),
        ("fan_in", lambda value: Layer("sparse", 3, value)),
        ("input_size", lambda value: UltraSparseConfig(value, (dense(1),))),
    ],
)
def test_every_family_refuses_a_size_in_the_same_words(name, build, value):
    with pytest.raises(ValueError, match=f"^{name} must be a whole number of at least 1, not {value!r}"):
        build(value)
