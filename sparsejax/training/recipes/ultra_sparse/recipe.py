"""Several seeds of an ultra-sparse net trained on a problem, logged, resumable, reported beside baselines."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.native import durable
from sparsejax.checkpoint.save import save
from sparsejax.models.ultra_sparse import UltraSparseConfig
from sparsejax.models.ultra_sparse.baselines import Baseline, baselines
from sparsejax.models.ultra_sparse.evolve import Objective, objective
from sparsejax.models.ultra_sparse.evolve.objective import loss_of
from sparsejax.models.ultra_sparse.evolve.search import check_fit
from sparsejax.models.ultra_sparse.model import forward
from sparsejax.models.ultra_sparse.problems import (
    PROBLEMS,
    Problem,
    Split,
    check_table,
    make_problem,
    problem_options,
)
from sparsejax.models.ultra_sparse.report import Report, evaluate_seeds
from sparsejax.models.ultra_sparse.trainers import Chosen, build_search, trainer_options
from sparsejax.training import loop
from sparsejax.training.checksums import checksum
from sparsejax.training.errors import RunError
from sparsejax.training.job_log import job_log
from sparsejax.training.logs import LOG_FILE, RoundLog
from sparsejax.training.metrics import mean_interval
from sparsejax.training.options import check_options, parse_options
from sparsejax.training.processes import gathered, is_first_process, told_losses
from sparsejax.training.progress import shown_progress, style_of
from sparsejax.training.recipes.ultra_sparse.settings import UltraSparseSettings
from sparsejax.training.run_checks import check_libraries
from sparsejax.training.run_folder import (
    BEST,
    STATE_FOLDER,
    Standing,
    mark_finished,
    opened_run,
    standing,
)
from sparsejax.training.state import Saved, restore_state, save_state
from sparsejax.typing import Params

REPORT = "report.json"
OUTCOME = "report.md"
"""What to read of a finished run."""

_CLASS_TARGETS = (-0.8, 0.8)
_CALLS = 100
_MOST_ROUNDS_PER_CALL = 10


@dataclass(frozen=True)
class Prepared:
    """A run that has passed every check; nothing is written yet.

    Attributes:
      settings: what was asked for.
      problem: the data.
      chosen: the search.
      goal: training part as the searches take it.
      held_out: validation part likewise.
      mesh: devices to spread the seeds over, if several.
      identity: everything that the result depends on; plain JSON.
      standing: what --out holds: nothing, or this run unfinished or finished.
      notes: what is odd about the data, one line each.
    """

    settings: UltraSparseSettings
    problem: Problem
    chosen: Chosen
    goal: Objective
    held_out: Objective
    mesh: Mesh | None
    identity: Mapping[str, Any]
    standing: Standing
    notes: tuple[str, ...]

    @property
    def config(self) -> UltraSparseConfig:
        """The net."""
        return self.chosen.search.config

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.settings.out

    @property
    def rounds(self) -> int:
        """Of the whole run."""
        return self.chosen.search.rounds

    @property
    def rounds_per_call(self) -> int:
        """A hundredth of the run, so that calls are few beside their work, but seldom far apart."""
        return min(max(1, self.rounds // _CALLS), _MOST_ROUNDS_PER_CALL)

    @property
    def data(self) -> tuple[Objective, Objective, Any]:
        """What every round of every seed reads."""
        return self.goal, self.held_out, self.chosen.hyper


@dataclass(frozen=True)
class Trained:
    """What a finished run gives.

    Attributes:
      report: scores of all seeds with the baselines.
      seconds: of training, compilation included, without the report.
      plots: PNGs drawn.
    """

    report: Report
    seconds: float
    plots: tuple[Path, ...]


def prepare(settings: UltraSparseSettings) -> Prepared:
    """Check everything that can be checked before training; writes nothing.

    Args:
      settings: what is asked for.

    Returns:
      `Prepared`, for `train`.

    Raises:
      ValueError: unknown names, impossible sizes, data that nothing can be fitted to, or a folder that
        holds something else; one line.
      ModuleNotFoundError: the problem's data come with a library that is missing.
    """
    if settings.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, not {settings.seeds}")
    if not 0 <= settings.seed <= 2**31 - 1 - settings.seeds:
        raise ValueError(f"--seed must be between 0 and 2^31 less the number of seeds, not {settings.seed}")
    if settings.baselines and importlib.util.find_spec("sklearn") is None:
        raise ValueError(
            "--baselines needs scikit-learn: pip install 'sparsejax[sklearn]', or give --no-baselines"
        )
    check_libraries("training", plots=settings.plots)
    problem = _problem(settings)
    config = UltraSparseConfig.fixed_k(
        problem.num_features,
        settings.hidden_size,
        problem.output_size,
        settings.inputs_per_neuron,
        settings.output_activation,
    )
    chosen = build_search(settings.trainer, _trainer_options(settings), config)
    config = chosen.search.config
    notes = _check_data(problem, config)
    goal, held_out = (_objective(problem, config, part) for part in (problem.train, problem.validation))
    check_fit(config, goal)
    mesh = loop.seed_mesh(settings.devices)
    if mesh is not None:
        loop.seed_sharding(mesh, settings.seeds)
    identity = {
        "family": "ultra_sparse",
        "problem": problem.name,
        "problem options": dict(problem.options),
        "data checksum": checksum(*problem.train, *problem.validation, *problem.test),
        "trainer": settings.trainer,
        "trainer option": chosen.settings,
        "net": config.to_json(),
        "seeds": settings.seeds,
        "seed": settings.seed,
    }
    found = standing(settings.out, identity, resume=settings.resume)
    return Prepared(settings, problem, chosen, goal, held_out, mesh, identity, found, notes)


def train(run: Prepared) -> Trained:
    """Train all seeds, or continue where a killed run was saved last, and report.

    Args:
      run: from `prepare`.

    Returns:
      `Trained`. In the folder: ``log.csv`` (a row per round), ``report.json`` and ``report.md``, ``best``
      (`sparsejax.load` reads it; the net of the seed with the best validation score), ``plots``.

    Raises:
      RunError: another process is at work in the folder, or its log does not fit its saved state.
      CheckpointError: a saved state is damaged, or the disk refuses.
      OSError: the folder cannot be written.
    """
    facts = {"rounds": run.rounds, "proposals_per_round": run.chosen.proposals_per_round}
    with told_losses(), opened_run(run.folder, run.identity, facts):
        states, seconds = _trained_states(run)
        report = _reported(run, _best_nets(run, states))
        plots: tuple[Path, ...] = ()
        if run.settings.plots and is_first_process():
            from sparsejax.plots.ultra_sparse import draw_folder

            plots = draw_folder(run.folder)
        mark_finished(run.folder, {"seconds": round(seconds, 3)})
    return Trained(report, seconds, plots)


def record_names(problem: Problem) -> tuple[str, ...]:
    """What `train` measures in every round, by its names in the log."""
    accuracy = ("validation_accuracy",) if problem.task == "classification" else ()
    return ("loss", "current", "validation_loss", *accuracy, "accepted", "saturation")


def _trained_states(run: Prepared) -> tuple[Any, float]:
    """States after the last round, and seconds spent in all sessions."""
    before = _saved(run)
    began = time.monotonic() - before.seconds
    step = loop.compiled_rounds(_advance(run), at_most=run.rounds_per_call, mesh=run.mesh)
    names = record_names(run.problem)
    columns = [column for name in names for column in _columns(name)]
    progress = shown_progress(
        run.settings.trainer, start=before.rounds, stop=run.rounds, style=style_of(run.settings)
    )
    with (
        job_log(lambda: RoundLog(run.folder / LOG_FILE, [*columns, "temperature"], before.rounds)) as log,
        progress as update,
    ):

        def on_records(done: int, records: Mapping[str, np.ndarray]) -> None:
            rows = {"temperature": records["temperature"].mean(axis=1)}
            for name in names:
                rows |= dict(zip(_columns(name), mean_interval(records[name]), strict=False))
            rows["loss_smallest"] = records["loss"].min(axis=1)
            log.append(done, rows)
            words = f"loss {rows['loss'][-1]:.4g}, validation {rows['validation_loss'][-1]:.4g}"
            update(done + len(rows["loss"]), words)

        def save_all(done: int, states: Any) -> None:
            log.sync()
            save_state(
                run.folder / STATE_FOLDER, states, rounds=done, seconds=round(time.monotonic() - began, 3)
            )

        states = loop.run_rounds(
            before.states,
            lambda states, count: step(states, run.data, count),
            start=before.rounds,
            stop=run.rounds,
            at_most=run.rounds_per_call,
            on_records=on_records,
            save=save_all,
            save_seconds=run.settings.save_seconds,
        )
    return states, time.monotonic() - began


def _saved(run: Prepared) -> Saved:
    """The last saved state, or the one before the first round."""
    first = run.settings.seed
    keys = jax.vmap(jax.random.key)(jnp.arange(first, first + run.settings.seeds))
    search = run.chosen.search

    def init(key: jax.Array, data: Any) -> Any:
        return search.init(key, data[0], data[2])

    states = loop.start_states(init, keys, run.data, run.mesh)
    folder = run.folder / STATE_FOLDER
    if not folder.exists():
        return Saved(states, 0, 0.0)
    saved = restore_state(folder, states)
    if not 0 <= saved.rounds <= run.rounds:
        raise RunError(f"{folder}: was saved after {saved.rounds} rounds of {run.rounds}")
    return saved


def _advance(run: Prepared) -> loop.Advance:
    search, problem = run.chosen.search, run.problem

    def advance(state: Any, data: tuple[Objective, Objective, Any]) -> tuple[Any, dict[str, jax.Array]]:
        goal, held_out, hyper = data
        state, record = search.advance(state, goal, hyper)
        outputs = forward(search.config, search.best(state)[0], held_out.features, features_first=True)
        found = {**record._asdict(), "validation_loss": loss_of(outputs, held_out)}
        if problem.task == "classification":
            right = jnp.argmax(outputs, axis=0) == jnp.argmax(held_out.targets, axis=0)
            found["validation_accuracy"] = jnp.mean(right)
        return state, found

    return advance


def _columns(name: str) -> tuple[str, ...]:
    interval = (name, f"{name}_low", f"{name}_high")
    return (*interval, "loss_smallest") if name == "loss" else interval


def _best_nets(run: Prepared, states: Any) -> dict[int, Params]:
    best = jax.jit(jax.vmap(lambda state: run.chosen.search.best(state)[0]))
    params = jax.device_get(gathered(best(states)))
    first = run.settings.seed
    return {
        first + number: jax.tree.map(lambda leaf, number=number: jnp.asarray(leaf[number]), params)
        for number in range(run.settings.seeds)
    }


def _reported(run: Prepared, nets: Mapping[int, Params]) -> Report:
    """The report, which the first process writes with the best net; only there it has baselines."""
    beside: tuple[Baseline, ...] = ()
    if run.settings.baselines and is_first_process():
        key = jax.random.key(run.settings.seed)
        size = run.config.num_parameters
        beside = baselines(key, run.problem, hidden_size=run.settings.hidden_size, max_nonzeros=size)
    report = evaluate_seeds(run.problem, run.config, nets, beside)
    if not is_first_process():
        return report
    save(_checkpoint(run, nets[report.chosen], report), run.folder / BEST)
    true = run.problem.true_features
    names = None if true is None else [run.problem.feature_names[column] for column in true]
    durable.replace_json(run.folder / REPORT, {**report.to_json(), "true_features": names})
    durable.replace_text(run.folder / OUTCOME, report.to_markdown() + "\n")
    return report


def _checkpoint(run: Prepared, params: Params, report: Report) -> Checkpoint:
    """The net with what it takes to feed it raw columns and to read its outputs in the original unit."""
    problem = run.problem
    metadata = {
        "problem": problem.name,
        "problem_options": dict(problem.options),
        "trainer": run.settings.trainer,
        "seed": report.chosen,
        "feature_names": list(problem.feature_names),
        "feature_mean": problem.feature_mean,
        "feature_scale": problem.feature_scale,
        "target_mean": problem.target_mean,
        "target_scale": problem.target_scale,
    }
    return Checkpoint("ultra_sparse", "sparse", run.config, params, metadata)


def _problem(settings: UltraSparseSettings) -> Problem:
    options = parse_options(settings.problem_option, "--problem-option")
    if "seed" in options:
        raise ValueError("the problem's seed is given with --problem-seed")
    if settings.problem in PROBLEMS:
        check_options(options, problem_options(settings.problem), f"problem {settings.problem!r}")
    return make_problem(settings.problem, seed=settings.problem_seed, **options)


def _trainer_options(settings: UltraSparseSettings) -> dict[str, Any]:
    options = parse_options(settings.trainer_option, "--trainer-option")
    for name in ("steps", "generations", "rounds", "rule", "restarts"):
        value = getattr(settings, name)
        if value is None:
            continue
        if name not in (known := trainer_options(settings.trainer)):
            raise ValueError(f"trainer {settings.trainer!r} takes no --{name}; it has {', '.join(known)}")
        if name in options:
            raise ValueError(f"{name!r} is given twice, by --{name} and by --trainer-option")
        options[name] = value
    kinds = {
        name: 0.1 if default is None else default
        for name, default in trainer_options(settings.trainer).items()
    }
    check_options(options, kinds, f"trainer {settings.trainer!r}")
    return options


def _check_data(problem: Problem, config: UltraSparseConfig) -> tuple[str, ...]:
    rows, needed = len(problem.train.features), config.num_parameters
    if rows < needed:
        raise ValueError(
            f"problem {problem.name!r} has {rows} training rows, fewer than the net's {needed} parameters:"
            " give more rows, or a smaller --hidden-size or --inputs-per-neuron"
        )
    for part in (problem.validation, problem.test):
        check_table(*part, problem.task)
    return check_table(*problem.train, problem.task, feature_names=problem.feature_names)


def _objective(problem: Problem, config: UltraSparseConfig, part: Split) -> Objective:
    if problem.task == "regression":
        return objective(part.features, part.targets)
    one_hot = np.eye(problem.output_size, dtype=np.float32)[part.targets]
    if config.layers[-1].activation == "linear":
        return objective(part.features, one_hot, loss="cross_entropy")
    low, high = _CLASS_TARGETS
    return objective(part.features, low + (high - low) * one_hot)
