"""What the neurons and routers of a network do on a text: pure functions that return data."""

from sparsejax.models.sprout.analysis.coactivation import (
    Coactivation,
    coactivation,
    normalised_coactivation,
)
from sparsejax.models.sprout.analysis.layers import LayerStatistics, layer_statistics, router_cosines
from sparsejax.models.sprout.analysis.senses import SenseOverlap, jaccard, sense_overlap, token_overlap
from sparsejax.models.sprout.analysis.similarity import Similarity, neuron_similarity
from sparsejax.models.sprout.analysis.specialisation import (
    Specialisation,
    pattern_cosines,
    pattern_jaccards,
    topic_specialisation,
)
from sparsejax.models.sprout.analysis.summary import Analysis, analyse
from sparsejax.models.sprout.analysis.usage import (
    NeuronUsage,
    UsageStatistics,
    gini,
    neuron_usage,
    usage_statistics,
)

__all__ = [
    "Analysis",
    "Coactivation",
    "LayerStatistics",
    "NeuronUsage",
    "SenseOverlap",
    "Similarity",
    "Specialisation",
    "UsageStatistics",
    "analyse",
    "coactivation",
    "gini",
    "jaccard",
    "layer_statistics",
    "neuron_similarity",
    "neuron_usage",
    "normalised_coactivation",
    "pattern_cosines",
    "pattern_jaccards",
    "router_cosines",
    "sense_overlap",
    "token_overlap",
    "topic_specialisation",
    "usage_statistics",
]
