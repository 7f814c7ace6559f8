"""All analyses of a network on a text, as one document of plain data."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from sparsejax.checkpoint.json_values import plain_values
from sparsejax.models.sprout.analysis.coactivation import (
    Coactivation,
    coactivation_from,
    coactivation_sums,
)
from sparsejax.models.sprout.analysis.layers import LayerStatistics, layer_sums, layers_from, router_cosines
from sparsejax.models.sprout.analysis.observation import Neurons, Observation, neuron_counts, summed
from sparsejax.models.sprout.analysis.senses import SenseOverlap, token_overlap, used_neurons
from sparsejax.models.sprout.analysis.similarity import Similarity, neuron_similarity
from sparsejax.models.sprout.analysis.specialisation import Specialisation, topic_specialisation
from sparsejax.models.sprout.analysis.usage import (
    NeuronUsage,
    UsageStatistics,
    usage_from,
    usage_statistics,
    usage_sums,
)
from sparsejax.models.sprout.quality import QualityTable, ffn_quality, logit_quality, shares_of
from sparsejax.typing import Params

_SENSE_BATCHES = 4


@dataclass(frozen=True)
class Analysis:
    """What the neurons and routers of a network do on a text.

    Attributes:
      top_k: neurons per token of every layer.
      choices: scores of a router: neurons, or blocks of them.
      tokens: that were looked at.
      usage: how often each neuron is used.
      usage_statistics: of every layer.
      layers: one number per layer.
      coactivation: which neurons are used together.
      similarity: of the input weights, layer by layer.
      router_cosines: (l, l) of the layers' router matrices.
      quality: "logits" and "ffn", and for whole blocks "block logits" and "block ffn", against all neurons.
      topics: names of the parts of the text.
      topic_frequency: (topics, l, f) part of a topic's tokens that used a neuron; None of one topic.
      specialisation: of every neuron of every layer; None of one topic.
      senses: whether a token uses the same neurons wherever it stands.
    """

    top_k: tuple[int, ...]
    choices: int
    tokens: int
    usage: NeuronUsage
    usage_statistics: UsageStatistics
    layers: LayerStatistics
    coactivation: Coactivation
    similarity: tuple[Similarity, ...]
    router_cosines: np.ndarray
    quality: Mapping[str, QualityTable]
    topics: tuple[str, ...]
    topic_frequency: np.ndarray | None
    specialisation: Specialisation | None
    senses: SenseOverlap

    @property
    def d_ff(self) -> int:
        """Neurons of a layer."""
        return self.usage.counts.shape[1]

    def to_json(self) -> dict[str, Any]:
        """Plain values; matrices of neurons by neurons are left out, numbers that are not finite are None."""
        similarity = [
            {name: value for name, value in part._asdict().items() if name != "matrix"}
            for part in self.similarity
        ]
        document = {
            "top_k": self.top_k,
            "d_ff": self.d_ff,
            "choices": self.choices,
            "tokens": self.tokens,
            "usage": {"frequency": self.usage.frequency, **self.usage_statistics._asdict()},
            "layers": self.layers._asdict(),
            "similarity": similarity,
            "router_cosines": self.router_cosines,
            "quality": {
                name: {**table._asdict(), "quality": table.quality._asdict()}
                for name, table in self.quality.items()
            },
            "topics": self.topics,
            "senses": self.senses._asdict(),
        }
        if self.specialisation is not None:
            document |= {
                "topic_frequency": self.topic_frequency,
                "specialisation": self.specialisation._asdict(),
            }
        return plain_values(document)

    def to_csv(self) -> dict[str, str]:
        """Tables by name: "layers", "neurons" and "quality", as comma-separated text with a head line."""
        return {
            "layers": _table(self._layer_rows()),
            "neurons": _table(self._neuron_rows()),
            "quality": _table(self._quality_rows()),
        }

    def _layer_rows(self) -> Iterator[dict[str, Any]]:
        for number, top_k in enumerate(self.top_k):
            parts = {**self.usage_statistics._asdict(), **self.layers._asdict(), **self.senses._asdict()}
            told = {name: plain_values(value[number]) for name, value in parts.items()}
            similar = self.similarity[number]
            most = {"similarity_max": similar.max, "similarity_mean": similar.mean}
            yield {"layer": number, "top_k": top_k, **told, **most}

    def _neuron_rows(self) -> Iterator[dict[str, Any]]:
        found = self.specialisation
        for layer, neuron in np.ndindex(*self.usage.counts.shape):
            row: dict[str, Any] = {
                "layer": layer,
                "neuron": neuron,
                "tokens": int(self.usage.counts[layer, neuron]),
            }
            row["frequency"] = float(self.usage.frequency[layer, neuron])
            if found is not None:
                topic = int(found.topic[layer, neuron])
                row |= {"topic": self.topics[topic] if topic >= 0 else ""}
                row |= {"topic_ratio": plain_values(found.ratio[layer, neuron])}
            yield row

    def _quality_rows(self) -> Iterator[dict[str, Any]]:
        for of, table in self.quality.items():
            for place in np.ndindex(*table.quality.mse.shape):
                row: dict[str, Any] = {"of": of, "selection": table.selections[place[0]]}
                row |= {"layer": place[1] if len(place) > 2 else "", "top_k": table.top_k[place[-1]]}
                yield row | {name: float(part[place]) for name, part in table.quality._asdict().items()}


def analyse(
    key: jax.Array,
    model: Any,
    params: Params,
    topics: Mapping[str, Sequence[Any]],
    *,
    top_k: Neurons = None,
    qualities: Sequence[int] | None = None,
    blocks: bool = False,
) -> Analysis:
    """Run every analysis of a network.

    Programs are compiled once, if all batches have one shape.

    Args:
      key: of random selections.
      model: `SproutLM`.
      params: its parameters.
      topics: batches of ids (b, t) by the name of the part of the text that they are of.
      top_k: neurons per token; None is the network's ``sparse_k``, else all.
      qualities: numbers of neurons at which outputs are compared with those of all; None is 75, 50, 25, 10
        and 5 %.
      blocks: compare selections of whole blocks too; a network whose router scores blocks knows no other.

    Returns:
      `Analysis`.

    Raises:
      ValueError: there is no batch, or ``top_k`` cannot be.
    """
    parts = [summed(_all_sums, model, params, part, top_k=top_k) for part in topics.values()]
    sums = jax.tree.map(lambda *of_topics: sum(of_topics), *parts)
    batches = [batch for of_topic in topics.values() for batch in of_topic]
    usage = usage_from(sums["usage"])
    config = model.config
    counts = tuple(qualities or shares_of(config.d_ff))
    quality = {
        "logits": logit_quality(key, model, params, batches[:1], counts),
        "ffn": ffn_quality(key, model, params, batches[:1], counts),
    }
    if blocks and not config.ffn.selects_blocks:
        quality["block logits"] = logit_quality(key, model, params, batches[:1], counts, path="block")
        quality["block ffn"] = ffn_quality(key, model, params, batches[:1], counts, path="block")
    names = [f"layer_{number}" for number in range(config.n_layers)]
    frequency, found = _topics([usage_from(part["usage"]) for part in parts])
    return Analysis(
        top_k=tuple(neuron_counts(model, top_k).tolist()),
        choices=config.ffn.num_blocks if config.ffn.selects_blocks else config.d_ff,
        tokens=usage.tokens,
        usage=usage,
        usage_statistics=usage_statistics(usage),
        layers=layers_from(sums["layers"]),
        coactivation=coactivation_from(sums["coactivation"]),
        similarity=tuple(neuron_similarity(params[name]["ffn"]["w_in"]) for name in names),
        router_cosines=router_cosines(params),
        quality=quality,
        topics=tuple(topics),
        topic_frequency=frequency,
        specialisation=found,
        senses=_senses(model, params, batches[:_SENSE_BATCHES], top_k),
    )


def _all_sums(model: Any, seen: Observation) -> dict[str, Any]:
    return {
        "usage": usage_sums(model, seen),
        "layers": layer_sums(model, seen),
        "coactivation": coactivation_sums(model, seen),
    }


def _topics(usages: Sequence[NeuronUsage]) -> tuple[np.ndarray | None, Specialisation | None]:
    if len(usages) < 2:
        return None, None
    frequency = np.stack([usage.frequency for usage in usages])
    # One token's worth: a neuron that a topic used once and the others never is no specialist.
    smoothing = 1 / max(1, min(usage.tokens for usage in usages))
    return frequency, topic_specialisation(frequency, smoothing=smoothing)


def _senses(model: Any, params: Params, batches: Sequence[Any], top_k: Neurons) -> SenseOverlap:
    used = np.concatenate([used_neurons(model, params, batch, top_k=top_k) for batch in batches], axis=1)
    return token_overlap(used, np.concatenate([np.ravel(batch) for batch in batches]))


def _table(rows: Iterator[dict[str, Any]]) -> str:
    rows_told = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows_told[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows_told)
    return text.getvalue()
