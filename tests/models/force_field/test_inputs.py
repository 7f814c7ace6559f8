"""Graphs that cannot be right are refused before the network runs, in one line."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.graph import batch_graphs
from sparsejax.models.force_field.inputs import check_inputs, example_graph
from sparsejax.models.force_field.structure import Structure
from tests.models.force_field import files

CONFIG = ForceFieldConfig(**files.SIZES)


def graph_of(*species):
    structure = Structure(np.array(species), np.eye(3)[: len(species)], None, np.zeros(3, bool))
    return batch_graphs([structure], 4.0)


def refused(words, *inputs, config=CONFIG, **options):
    with pytest.raises(ValueError, match=words) as caught:
        check_inputs(config, *inputs, **options)
    assert "\n" not in str(caught.value)


def test_the_example_is_a_pair_within_the_cutoff():
    for cutoff in (0.5, 5.0):
        graph = example_graph(dataclasses.replace(CONFIG, cutoff=cutoff))
        assert graph.edges["mask"].sum() == 2 and graph.nodes["mask"].sum() == 2
        check_inputs(CONFIG, graph)


def test_anything_but_one_graph_is_refused():
    refused("not 'ndarray'", np.zeros(3))
    refused("not 'GraphsTuple', 'GraphsTuple'", graph_of(1), graph_of(1))
    refused("apply has no option 'train'", graph_of(1), train=True)
    graph = graph_of(1)
    refused("nodes lack 'species', 'positions', 'mask'", graph._replace(nodes=np.zeros(2)))
    refused("edges lack 'shift'", graph._replace(edges={"mask": graph.edges["mask"]}))


def test_elements_outside_the_table_or_the_training_are_refused():
    refused("atomic number 10; this network's table holds 1 to 9", graph_of(1, 10))
    trained = dataclasses.replace(CONFIG, species=(1, 6))
    refused("holds N, O; this network was trained on H, C only", graph_of(8, 7, 6), config=trained)
    check_inputs(trained, graph_of(1, 6))  # padding is no element
    wide = dataclasses.replace(trained, max_z=200)
    refused("holds O, Z=119; this network was trained on H, C only", graph_of(119, 8), config=wide)


def test_positions_that_are_no_numbers_are_refused():
    graph = graph_of(1, 6)
    graph.nodes["positions"][1, 2] = np.nan
    refused("NaN or infinite", graph)


def test_traced_graphs_are_taken():
    jax.eval_shape(lambda graph: check_inputs(CONFIG, graph), graph_of(1, 10))
