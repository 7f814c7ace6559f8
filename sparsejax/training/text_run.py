"""A run that learns to guess the next token of local text: what it is made from, and its course."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from sparsejax.training.checksums import checksum
from sparsejax.training.cross_entropy import TokenLoss
from sparsejax.training.gradient_run import Plan, Trained, Validated, begun, carry_out, placement
from sparsejax.training.gradient_step import (
    GradientState,
    LossFunction,
    Step,
    compiled_steps,
    initial_state,
)
from sparsejax.training.perplexity import Score, token_weighted_score
from sparsejax.training.progress import style_of
from sparsejax.training.run_checks import check_at_least, check_libraries, check_seed
from sparsejax.training.run_folder import Standing, standing
from sparsejax.training.sharding import Rule, batch_sharding, training_mesh
from sparsejax.training.state import Saved
from sparsejax.training.text.batches import training_batches, whole_batches
from sparsejax.training.text.corpus import Corpus, read_corpus, split
from sparsejax.training.text.packing import Windows
from sparsejax.training.text.tokenizer import Tokenizer
from sparsejax.training.text_settings import TextSettings
from sparsejax.typing import Params


class Described(Protocol):
    """A config that tells all of itself."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        ...


SettingsT = TypeVar("SettingsT", bound=TextSettings)
ConfigT = TypeVar("ConfigT", bound=Described)
TokenizerT = TypeVar("TokenizerT", bound=Tokenizer)

_STEPS_PER_CALL = 10
_COUNTS = ("steps", "batch_size", "seq_len", "accumulate", "validate_every", "save_every")
_RULING = (
    "steps",
    "batch_size",
    "seq_len",
    "learning_rate",
    "warmup",
    "weight_decay",
    "clip",
    "accumulate",
    "bf16",
    "seed",
    "validate_every",
)
"""Settings that the result depends on, beside the text and the network; devices only round otherwise."""


@dataclass(frozen=True)
class TextRun(Generic[SettingsT, ConfigT, TokenizerT]):
    """A run that has passed every check; nothing is written yet.

    Attributes:
      settings: what was asked for.
      config: the network.
      tokenizer: of the text.
      windows: of the training part.
      held_out: of the validation part.
      tokens: in the training part, and in the validation part.
      mesh: devices.
      rows: where a batch goes.
      identity: everything that the result depends on; plain JSON.
      standing: what --out holds: nothing, or this run unfinished or finished.
    """

    settings: SettingsT
    config: ConfigT
    tokenizer: TokenizerT
    windows: Windows
    held_out: Windows
    tokens: tuple[int, int]
    mesh: Mesh
    rows: NamedSharding
    identity: Mapping[str, Any]
    standing: Standing

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.settings.out

    @property
    def steps_per_call(self) -> int:
        """A divisor of the steps between two validations and between two saves."""
        return math.gcd(self.settings.validate_every, self.settings.save_every, _STEPS_PER_CALL)

    @property
    def dtype(self) -> Any:
        """Of the computation; None is that of the parameters."""
        return jnp.bfloat16 if self.settings.bf16 else None


@dataclass(frozen=True)
class TextRecipe:
    """What a family gives to a run.

    Attributes:
      name: short, for the progress shown.
      parameters: numbers that are trained.
      rate: the learning rate by step.
      init: parameters to begin with, from a key; pure.
      optimizer: optax transformation.
      rules: where parameters live.
      step: one optimiser step, pure; see `gradient_step`.
      loss: of a batch of held-out text.
      write: writes a network: (name, parameters, validation).
      draw: draws what the folder of a finished run holds.
    """

    name: str
    parameters: int
    rate: optax.Schedule
    init: Callable[[jax.Array], Params]
    optimizer: optax.GradientTransformation
    rules: Sequence[Rule]
    step: Step
    loss: LossFunction
    write: Callable[[str, Params, Validated], None]
    draw: Callable[[Path], Any]


def check_text_settings(
    settings: TextSettings, *, counts: Sequence[str] = (), amounts: Sequence[str] = ()
) -> None:
    """Refuse what cannot be trained, before anything is read.

    Args:
      settings: what is asked for.
      counts: names of further settings of at least 1.
      amounts: names of further settings of at least 0.

    Raises:
      ValueError: an impossible number, too few devices, or no matplotlib for plots; one line.
      ModuleNotFoundError: grain, of the extra ``text``, is missing.
    """
    check_at_least(settings, 1, *counts, *_COUNTS)
    check_at_least(settings, 0, "learning_rate", "weight_decay", "clip", *amounts)
    if settings.batch_size % settings.accumulate:
        raise ValueError(
            f"--batch-size {settings.batch_size} does not divide into the {settings.accumulate} parts "
            "of --accumulate"
        )
    check_seed(settings.seed)
    check_libraries("training on text", "grain", plots=settings.plots)
    _devices(settings)


def prepared_run(
    settings: SettingsT,
    config: ConfigT,
    tokenizer: TokenizerT,
    *,
    family: str,
    ruling: Sequence[str],
    windows: type[Windows] = Windows,
) -> TextRun[SettingsT, ConfigT, TokenizerT]:
    """Read the text and look at the folder; writes nothing.

    Args:
      settings: that `check_text_settings` has passed.
      config: of the network; it has ``to_json``.
      tokenizer: for the text.
      family: for the identity.
      ruling: names of further settings that the result depends on.
      windows: of a corpus.

    Raises:
      ValueError: missing or unsuitable text, or a folder that holds something else; one line.
    """
    mesh, rows = _devices(settings)
    training, held_out = _texts(settings, tokenizer)
    identity = {
        "family": family,
        "text checksum": checksum(*training, *held_out),
        "tokenizer checksum": checksum(tokenizer.name),
        "network": config.to_json(),
        **{name.replace("_", " "): getattr(settings, name) for name in (*_RULING, *ruling)},
    }
    return TextRun(
        settings,
        config,
        tokenizer,
        windows(training, settings.seq_len),
        windows(held_out, settings.seq_len, keep_rest=True),
        (len(training.tokens), len(held_out.tokens)),
        mesh,
        rows,
        identity,
        standing(settings.out, identity, resume=settings.resume),
    )


def train_on_text(run: TextRun[Any, Any, Any], recipe: TextRecipe) -> Trained:
    """Train, or continue where a killed run was saved last.

    Args:
      run: from `prepared_run`.
      recipe: of the family.

    Raises:
      RunError: see `carry_out`.
      CheckpointError: see `carry_out`.
      OSError: see `carry_out`.
    """
    settings = run.settings
    rate = jax.jit(recipe.rate)
    plan = Plan(
        family=recipe.name,
        folder=run.folder,
        identity=run.identity,
        facts={"parameters": recipe.parameters, "training_windows": len(run.windows)},
        steps=settings.steps,
        validate_every=settings.validate_every,
        save_every=settings.save_every,
        steps_per_call=run.steps_per_call,
        style=style_of(settings),
        begin=partial(_begin, run, recipe),
        advance=partial(_advance, run, recipe),
        of_step=lambda step: {"learning_rate": float(rate(step))},
        evaluate=_evaluation(run, recipe.loss),
        read_score=Score.read,
        write=recipe.write,
        finish=lambda: recipe.draw(run.folder) if settings.plots else None,
    )
    return carry_out(plan)


def _begin(run: TextRun[Any, Any, Any], recipe: TextRecipe) -> Saved:
    first = partial(initial_state, recipe.init, recipe.optimizer)
    settings = run.settings
    return begun(
        run.folder, first, seed=settings.seed, rules=recipe.rules, mesh=run.mesh, steps=settings.steps
    )


def _advance(run: TextRun[Any, Any, Any], recipe: TextRecipe, before: Saved) -> Any:
    batches = training_batches(
        run.windows,
        batch_size=run.settings.batch_size,
        seed=run.settings.seed,
        start=before.rounds,
        stop=run.settings.steps,
        sharding=run.rows,
    )
    return compiled_steps(recipe.step, batches, placement(before.states))


def _evaluation(run: TextRun[Any, Any, Any], loss: LossFunction) -> Callable[[GradientState], Score]:
    evaluate = jax.jit(loss)

    def score(state: GradientState) -> Score:
        def of_batch(batch: Any) -> TokenLoss:
            found: TokenLoss = evaluate(state.params, batch, state.key)
            return found

        rows = run.settings.batch_size // run.settings.accumulate
        return token_weighted_score(of_batch, whole_batches(run.held_out, batch_size=rows, sharding=run.rows))

    return score


def _devices(settings: TextSettings) -> tuple[Mesh, NamedSharding]:
    mesh = training_mesh(settings.devices, settings.model_devices)
    return mesh, batch_sharding(mesh, settings.batch_size // settings.accumulate)


def _texts(settings: TextSettings, tokenizer: Tokenizer) -> tuple[Corpus, Corpus]:
    read = partial(read_corpus, tokenizer=tokenizer, pattern=settings.pattern, separator=settings.separator)
    corpus = read(settings.data)
    if settings.validation_data is not None:
        return corpus, read(settings.validation_data)
    return split(corpus, settings.validation_fraction, seed=settings.seed)
