"""Placement against every choice there is, and PowerInfer's counts from its files."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejax.checkpoint import torch_file
from sparsejax.checkpoint.errors import CheckpointError, NotReadableError
from sparsejax.checkpoint.torch_format import torch_writer
from sparsejax.models.sparse_inference.store.placement import place, read_activation_counts
from tests import golden

counts = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def best(layers, sizes, budget):
    """The most uses that any choice of neurons covers, by trying all of them."""
    items = [(use, size) for layer, size in zip(layers, sizes, strict=True) for use in layer]
    choices = chain.from_iterable(combinations(items, number) for number in range(len(items) + 1))
    fitting = ([use for use, _ in each] for each in choices if sum(size for _, size in each) <= budget)
    return max(map(sum, fitting))


def uses(layers, hot):
    return sum(np.asarray(layer)[ids].sum() for layer, ids in zip(layers, hot, strict=True))


@given(st.lists(counts, min_size=1, max_size=2), st.integers(0, 80))
def test_equal_neurons_are_placed_best(layers, budget):
    placed = place(layers, 8, budget=budget)
    total = sum(map(sum, layers))
    assert uses(layers, placed.hot) == best(layers, [8] * len(layers), budget)
    assert placed.nbytes == 8 * sum(map(len, placed.hot)) <= budget
    assert placed.covered == placed.bound == (uses(layers, placed.hot) / total if total else 1.0)


@given(st.lists(counts, min_size=2, max_size=2), st.integers(0, 80), st.integers(1, 20))
def test_what_uneven_neurons_miss_is_bounded(layers, budget, size):
    placed = place(layers, [8, size], budget=budget)
    total, most = sum(map(sum, layers)) or 1, best(layers, [8, size], budget)
    assert placed.nbytes <= budget
    assert placed.nbytes == 8 * len(placed.hot[0]) + size * len(placed.hot[1])
    assert uses(layers, placed.hot) <= most <= placed.bound * total + 1e-9
    assert most - uses(layers, placed.hot) < max(chain(*layers), default=0) or most == uses(
        layers, placed.hot
    )


def test_blocks_stay_together():
    layers = [[1, 1, 9, 9, 0, 0, 3], [4, 4]]
    placed = place(layers, 10, budget=60, block=2)
    assert [ids.tolist() for ids in placed.hot] == [[2, 3, 6], [0, 1]]
    assert placed.nbytes == 50
    assert placed.covered == pytest.approx(29 / 31)


def test_masks_and_buckets_say_the_same():
    tensors = place([[5, 0, 7, 6], [0, 1]], 1, budget=3).tensors()
    assert tensors["blk.0.gpu_idx"].tolist() == [1, 0, 1, 1]
    assert tensors["blk.0.gpu_bucket"].tolist() == [0, 2, 3]
    assert tensors["blk.1.gpu_idx"].tolist() == [0, 0]
    assert tensors["blk.1.gpu_bucket"].tolist() == []
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.int32)}


def test_nothing_to_place():
    assert place([], 1, budget=9).hot == ()
    idle = place([[0, 0]], 1, budget=9)
    assert idle.hot[0].size == 0
    assert (idle.nbytes, idle.covered, idle.bound) == (0, 1.0, 1.0)


@pytest.mark.golden("powerinfer_a")
def test_powerinfers_counts_give_its_bucket(tmp_path):
    data = golden.arrays("sparse_inference", "powerinfer_a")
    source = golden.path("sparse_inference", "powerinfer_activation_0_a.pt")
    (tmp_path / "activation_0.pt").write_bytes(source.read_bytes())
    (found,) = read_activation_counts(tmp_path)
    assert np.array_equal(found, data["activation_counts"])
    (hot,) = place([found], 100, budget=8 * 100 + 99).hot
    expected = data["gpu_bucket"]
    assert len(hot) == len(expected) == 8
    assert np.array_equal(np.sort(found[hot]), np.sort(found[expected]))  # ties may be broken either way


def written(folder, **files):
    for name, value in files.items():
        torch_writer.write(value, folder / f"{name}.pt")
    return folder


def test_counts_come_in_the_order_of_the_layers(tmp_path):
    files = {f"activation_{n}": np.full(2, n, np.float32) for n in range(11)}
    found = read_activation_counts(written(tmp_path, **files, other=np.zeros(1)))
    assert [layer.tolist() for layer in found] == [[n, n] for n in range(11)]
    assert found[0].dtype == np.float64


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "activation_0.pt is missing"),
        ({"activation_0": np.ones(2), "activation_2": np.ones(2)}, "activation_1.pt is missing"),
        ({"activation_0": np.ones((2, 2))}, "must be a vector of numbers"),
        ({"activation_0": np.asarray([1.0, np.nan])}, "must be finite and not negative"),
        ({"activation_0": np.asarray([1.0, -1.0])}, "must be finite and not negative"),
        ({"activation_0": {"counts": np.ones(2)}}, "holds dict, not one tensor"),
    ],
)
def test_bad_files_are_refused(tmp_path, files, said):
    with pytest.raises(CheckpointError, match=said):
        read_activation_counts(written(tmp_path, **files))


def test_a_missing_folder_and_a_cut_file_are_refused(tmp_path):
    with pytest.raises(NotReadableError, match="no such folder"):
        read_activation_counts(tmp_path / "none")
    path = written(tmp_path, activation_0=np.ones(9)) / "activation_0.pt"
    assert torch_file.read(path).shape == (9,)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"activation_0\.pt"):
        read_activation_counts(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"budget": -1}, "budget must be at least 0"),
        ({"budget": 1, "block": 0}, "block at least 1"),
        ({"budget": 1, "bytes_per_neuron": [1, 2]}, "one for each of 1 layers"),
        ({"budget": 1, "bytes_per_neuron": 0}, "must be positive"),
    ],
)
def test_bad_settings_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        place([[1, 2]], arguments.pop("bytes_per_neuron", 1), **arguments)
