"""What small networks remember after a short training: delayed copy, and multi-query associative recall.

Every network of a row has the same width, layers, data, optimiser and steps. Accuracies have no target: they
say what a family can be used for.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax.bench.machine import Machine
from sparsejax.bench.peers.flax_transformer import FlaxTransformer
from sparsejax.bench.report import Row
from sparsejax.models.ten import EigenstateLayer, TemporalEigenstateConfig, TemporalEigenstateNetwork
from sparsejax.models.ten.tasks import Examples, delayed_copy, mqar
from sparsejax.ops.token_ids import IGNORED
from sparsejax.training.optimizer import adamw
from sparsejax.training.schedules import warmup_cosine

Logits = Callable[[Any, jax.Array], jax.Array]
Task = Callable[[jax.Array], Examples]

SYMBOLS, DELAYS = 8, (100, 200)
LENGTH, PAIRS, VOCABULARY = 16, 4, 16

_WIDTH, _EIGENSTATES, _BATCH = 32, 16, 32
_NOTE = (
    f"Memory tasks: a guess is right once in {SYMBOLS} (delayed copy), once in {PAIRS} (among the "
    "values shown; less without memory of them). One seed; tiny networks; no target."
)
_LAST = 20  # steps whose accuracies are averaged; every batch is fresh, so that none was trained on before


class Training(NamedTuple):
    """What all contestants of a row share.

    Attributes:
      steps: of the optimiser.
      rate: peak of the learning rate, after a tenth of the steps; then half a cosine.
    """

    steps: int
    rate: float


def measure(sizes: Any, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Delayed copy by initialisation, and associative recall by family.

    Args:
      sizes: of the speed rows; not used: these networks are tiny.
      machine: run's surroundings.
      quick: two steps each, to see that everything runs.
    """
    del sizes
    for delay in DELAYS[:1] if quick else DELAYS:
        yield copy_row(machine, delay, quick=quick)
    yield from recall_rows(machine, quick=quick)


def copy_row(machine: Machine, delay: int, *, quick: bool) -> Row:
    """One of 8 symbols, asked for after ``delay`` steps of silence: one layer, from either start."""
    ring = TemporalEigenstateConfig.modern(vocab_size=SYMBOLS + 2, n_layers=1, **_sizes(64))
    legacy = dataclasses.replace(ring, init="legacy")
    published = dataclasses.replace(legacy, layer=EigenstateLayer())
    task = functools.partial(delayed_copy, batch=_BATCH, delay=delay, num_symbols=SYMBOLS)
    ours, same, fft = (
        _trained_network(config, task, Training(2 if quick else 400, 4e-3))
        for config in (ring, legacy, published)
    )
    case = f"delayed copy of one of {SYMBOLS} symbols over {delay} steps"
    return _row(machine, case, ours, {"legacy start": same, "legacy start, fft layer": fft})


def recall_rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Four pairs among 16 tokens: two layers of every family, from the recommended start."""
    task = functools.partial(mqar, batch=2 * _BATCH, length=LENGTH, num_pairs=PAIRS, vocabulary=VOCABULARY)
    training = Training(2 if quick else 640, 3e-3)
    transformer = FlaxTransformer(VOCABULARY, _WIDTH, n_layers=2, n_heads=4, length=LENGTH)

    def logits(params: Any, tokens: jax.Array) -> Any:
        return transformer.apply({"params": params}, tokens)

    peer = _trained(transformer, logits, task, training)
    case = f"associative recall of {PAIRS} pairs among {LENGTH} tokens"
    for name, config in _families().items():
        score = _trained_network(config, task, training)
        yield _row(machine, f"{case}, {name}", score, {"Transformer": peer})


def _families() -> Mapping[str, TemporalEigenstateConfig]:
    """The default for new models first; then the published layers."""
    sizes = {"vocab_size": VOCABULARY, "n_layers": 2, "max_seq_len": LENGTH, **_sizes(_EIGENSTATES)}
    layers = {
        "fft": EigenstateLayer(),
        "selective": EigenstateLayer(selective=True),
        "sequential": EigenstateLayer(
            projection="eigenvectors", coupling="scaled", activation="gelu", gate=False
        ),
        "pro": EigenstateLayer(memory=True),
        "hybrid": EigenstateLayer(memory=True, attention_layers=(1,), attention_window=LENGTH),
        "ssd": EigenstateLayer(memory=True, short_conv=4),
    }
    published = {"dropout": 0.0, **sizes}
    return {
        "modern": TemporalEigenstateConfig.modern(**sizes),
        **{
            name: TemporalEigenstateConfig(variant="modern", layer=layer, **published)
            for name, layer in layers.items()
        },
        "paper": TemporalEigenstateConfig(variant="paper", **published),
        "seed": TemporalEigenstateConfig(variant="seed", **published),
    }


def _sizes(num_eigenstates: int) -> dict[str, Any]:
    return {"dim": _WIDTH, "num_eigenstates": num_eigenstates, "use_gradient_checkpointing": False}


class Score(NamedTuple):
    """What came of a training run.

    Attributes:
      steps: of the optimiser.
      accuracy: share of right answers over the last steps, on batches not yet trained on.
      loss: nats per answer, likewise.
      parameters: count.
      seconds: with compilation.
    """

    steps: int
    accuracy: float
    loss: float
    parameters: int
    seconds: float


def _trained_network(config: TemporalEigenstateConfig, task: Task, training: Training) -> Score:
    model = TemporalEigenstateNetwork(config)

    def logits(params: Any, tokens: jax.Array) -> jax.Array:
        out: Any = model.apply({"params": params}, tokens)
        return out.logits

    return _trained(model, logits, task, training)


def _trained(model: Any, logits: Logits, task: Task, training: Training) -> Score:
    start = time.perf_counter()
    of_params, of_run = jax.random.split(jax.random.key(0))
    params = model.init(of_params, task(of_run).tokens)["params"]
    losses, accuracies = jax.block_until_ready(fit(logits, task, training)(of_run, params))
    return Score(
        training.steps,
        float(accuracies[-_LAST:].mean()),
        float(losses[-_LAST:].mean()),
        sum(leaf.size for leaf in jax.tree.leaves(params)),
        time.perf_counter() - start,
    )


def fit(
    logits: Logits, task: Task, training: Training
) -> Callable[[jax.Array, Any], tuple[jax.Array, jax.Array]]:
    """A whole training run as one compiled function.

    Args:
      logits: (params, tokens) -> (b, t, v).
      task: key -> `Examples`; every step draws its own.
      training: steps and rate.

    Returns:
      ``(key, params) -> (losses, accuracies)``, both (steps,), each before the step that uses its batch.
    """
    schedule = warmup_cosine(training.rate, warmup=training.steps // 10, steps=training.steps)
    optimizer = adamw(schedule, weight_decay=0.0, max_norm=1.0)

    def loss(params: Any, examples: Examples) -> tuple[jax.Array, jax.Array]:
        asked = examples.targets != IGNORED
        targets, scores = jnp.where(asked, examples.targets, 0), logits(params, examples.tokens)
        losses = optax.softmax_cross_entropy_with_integer_labels(scores, targets)
        right = jnp.argmax(scores, axis=-1) == targets
        return jnp.mean(losses, where=asked), jnp.mean(right, where=asked)

    def step(carry: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], tuple[jax.Array, jax.Array]]:
        params, moments = carry
        found, gradients = jax.value_and_grad(loss, has_aux=True)(params, task(key))
        updates, moments = optimizer.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), moments), found

    @jax.jit
    def run(key: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(key, training.steps)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[1]

    return run


def _row(machine: Machine, case: str, ours: Score, peers: Mapping[str, Score]) -> Row:
    everyone = {"ours": ours, **peers}
    return Row(
        case=f"{case}, {ours.steps} training steps",
        unit="accuracy",
        ours=ours.accuracy,
        peers={name: peer.accuracy for name, peer in peers.items()},
        quality={
            "nats per answer": ", ".join(f"{name} {score.loss:.2f}" for name, score in everyone.items()),
            "parameters": ", ".join(f"{name} {score.parameters:,}" for name, score in everyone.items()),
        },
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        bound=f"{ours.seconds:.0f} s with compilation",
        notes=(_NOTE,),
    )
