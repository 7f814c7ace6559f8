"""Masked language models trained from end to end: what a run leaves, kill and resumption, bad input."""

from __future__ import annotations

import math
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.console import SHOWN_RUNS
from sparsejax.models.sprout.mlm import MaskingRule, mask_tokens, mlm_accuracy, mlm_loss
from sparsejax.training.errors import RunError
from sparsejax.training.recipes.sprout import parts as sprout_parts
from sparsejax.training.recipes.sprout import recipe
from sparsejax.training.recipes.sprout.fill_mask import fill_mask
from sparsejax.training.recipes.sprout.losses import Objective
from sparsejax.training.recipes.sprout.settings import SproutSettings
from sparsejax.training.run_folder import read_run
from tests.compilations import compilations
from tests.training.recipes.runs import DYING_BATCHES, check_refused, metrics, text_beside, train_killed

pytest.importorskip("grain")
pytest.importorskip("tokenizers")

STEPS, SAVED = 24, 5
TEXT = "\n".join(
    f"{number} times {factor} is {factor * number} ." for number in range(40) for factor in (2, 3, 7)
)
SIZES = {
    "vocab_size": 90,
    "d_model": 16,
    "d_ff": 32,
    "n_layers": 1,
    "n_heads": 2,
    "dropout": 0.0,  # its random bits alone take as long to compile as all the rest
    "max_seq_len": 12,
    "batch_size": 8,
    "final_top_k": 8,
    "sparsity_warmup_steps": 10,
    "warmup_steps": 4,
    "learning_rate": 0.01,
    "steps": STEPS,
    "log_interval": 1,
    "eval_interval": 10,
    "save_interval": SAVED,
    "plots": False,
    "quiet": True,
}


def settings_of(**options) -> SproutSettings:
    return SproutSettings(**{"data": Path(), "out": Path(), **SIZES, **options})


def settings(folder: Path, **options) -> SproutSettings:
    return settings_of(**{"data": text_beside(folder, TEXT), "out": folder, **options})


def _train(folder, **options):
    return recipe.train(recipe.prepare(settings(folder, **options)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    with compilations() as counts:
        trained = _train(folder)
    return folder, trained, counts


def test_run_leaves_metrics_tokenizer_and_networks_that_load(whole):
    folder, trained, _ = whole
    rows = [row for row in metrics(folder) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert all(row["router_loss"] > 0 for row in rows)
    assert [row["top_k"] for row in rows[:11]] == [32, 29, 27, 24, 22, 20, 17, 15, 12, 10, 8]
    assert {row["top_k"] for row in rows[11:]} == {8}
    validations = [row for row in metrics(folder) if "validation_loss" in row]
    assert [row["step"] for row in validations] == [10, 20, STEPS]
    last = validations[-1]
    assert last["validation_perplexity"] == pytest.approx(math.exp(last["validation_loss"]))
    assert len({row["validation_tokens"] for row in validations}) == 1  # masks are fixed
    assert 0 <= last["validation_accuracy"] <= 1
    assert trained.best.score.loss == min(row["validation_loss"] for row in validations)
    document = read_run(folder)
    assert document["finished"]
    ck = sj.load(folder / "best")
    assert ck.metadata["tokenizer"] == (folder / "tokenizer.json").read_text()
    assert document["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(ck.params))
    assert ck.metadata["top_k"] == 8
    filled = fill_mask(ck, "2 times 7 is [MASK] .", 3, top_k=8)
    assert [len(of_mask) for of_mask in filled] == [3]
    assert filled[0][0].text == f"2 times 7 is {filled[0][0].token} ."


def test_a_user_is_told_what_is_trained_and_what_came_of_it(whole, capsys):
    folder, trained, _ = whole
    run = recipe.prepare(settings(folder, resume=True))
    before, after = SHOWN_RUNS["sprout"]
    before(run)
    after(run, trained)
    text, network, best, final, where = capsys.readouterr().out.splitlines()
    rows, others = run.rows, run.held_out
    counts = f"{rows.tokens:,} + {others.tokens:,} tokens in {len(rows)} + {len(others)} rows"
    assert text.startswith(f"{folder.parent / 'text.txt'}: {counts} (training, validation), vocabulary ")
    count = sj.load(folder / "best").num_values
    assert network == (
        f"sprout: recipe default, {count:,} parameters, 24 steps of 8 x 12 tokens; 32 to 8 of 32 neurons "
        f"in 10 steps; router {run.settings.router}, its loss: {run.settings.taught}"
    )
    accuracy = trained.best.score.metrics["accuracy"]
    assert best.startswith(f"{folder / 'best'}: step {trained.best.step}, validation perplexity ")
    assert best.endswith(f", accuracy {accuracy:.3g})")
    assert final.startswith(f"{folder / 'final'}: step 24, ") and where.endswith(f"networks: {folder}")


def test_pictures_are_of_the_run_s_folder_if_wanted(whole, monkeypatch):
    folder, drawn = whole[0], []
    monkeypatch.setattr("sparsejax.plots.sprout.draw_folder", drawn.append)
    for plots in (False, True):
        recipe._draw(recipe.prepare(settings(folder, resume=True, plots=plots)))
    assert drawn == [folder]


def test_a_text_of_its_own_is_held_out_whole(tmp_path):
    (tmp_path / "other.txt").write_text("3 times 2 is 6 .\n2 times 2 is 4 .\n")
    run = recipe.prepare(settings(tmp_path / "run", validation_data=tmp_path / "other.txt"))
    assert (len(run.rows), len(run.held_out)) == (len(TEXT.splitlines()), 2)


def test_a_traced_number_of_neurons_compiles_once(whole):
    assert whole[2]["step"] == 1


def test_validation_is_the_mean_loss_of_the_masked_tokens(whole):
    """By full logits of the written network, masked as the run masks."""
    folder, trained, _ = whole
    run = recipe.prepare(settings(folder, resume=True))
    rows = [run.held_out[number] for number in range(len(run.held_out))]
    rule = MaskingRule(run.config.vocab_size, run.special.mask, run.special.all)
    key = jax.random.key(0)
    masked = [mask_tokens(jax.random.fold_in(key, row["number"]), row["tokens"], rule) for row in rows]
    tokens, labels = (np.stack([pair[part] for pair in masked]) for part in (0, 1))
    ck = sj.load(folder / "final")
    logits = ck.apply(tokens, top_k=8, key_padding_mask=tokens == run.special.pad).logits
    loss, count = mlm_loss(logits, labels)
    assert float(loss) == pytest.approx(trained.final.score.loss, rel=1e-5)
    assert int(count) == trained.final.score.tokens
    assert float(mlm_accuracy(logits, labels)) == pytest.approx(trained.final.score.metrics["accuracy"])


def test_killed_at_a_random_step_it_goes_on_with_the_same_bits(whole, tmp_path):
    """In the middle of an epoch: the published trainer would begin that one again."""
    folder, step = tmp_path / "run", random.randint(1, STEPS - 1)
    dying = DYING_BATCHES.format(module="sparsejax.training.recipes.sprout.recipe", step=step)
    train_killed("sprout", settings(folder), folder, dying)
    trained = _train(folder, resume=True)
    assert metrics(folder) == metrics(whole[0]), f"killed at step {step}"
    assert trained.best == whole[1].best


def test_published_recipe_cycles_and_leaves_routers_alone(tmp_path):
    options = {"recipe": "compat", "steps": 4, "sparsity_warmup_steps": 1, "warmup_steps": 2}
    _train(tmp_path / "run", **options, log_interval=3, eval_interval=2)
    rows = [row for row in metrics(tmp_path / "run") if "loss" in row]
    assert [row["step"] for row in rows] == [1, 3, 4]  # the first, every third, the last
    assert [row["top_k"] for row in rows] == [32, 8, 8]
    assert rows[0]["learning_rate"] == pytest.approx(0.01 / 25)
    assert rows[0]["beta1"] == pytest.approx(0.95)
    assert "router_loss" not in rows[0]
    ck = sj.load(tmp_path / "run" / "final")
    start = sprout_parts.first_state(ck.config, settings_of(**options), 4, jax.random.key(0))
    before, after = (params["layer_0"]["ffn"] for params in (start.params, ck.params))
    np.testing.assert_allclose(after["router"]["kernel"], before["router"]["kernel"], rtol=1e-4, atol=1e-7)
    assert np.abs(np.asarray(before["w_in"] - after["w_in"])).max() > 1e-3


@pytest.mark.parametrize(("kind", "most"), [("traced", 1), ("bucketed", 12)])
def test_a_long_warm_up_compiles_few_programs(kind, most, monkeypatch):
    def toy(objective, steps):
        def neurons(state, batch, top_k):
            return state + batch, {"top_k": jnp.asarray(32 if top_k is None else top_k)}

        return neurons

    monkeypatch.setattr(sprout_parts, "training_step", toy)
    given = settings_of(schedule=kind, sparsity_warmup_steps=40)
    objective = Objective(sprout_parts.network_config(given, 20), given, MaskingRule(20, 4, (0, 4)), pad=0)
    steps = sprout_parts.compiled_training_steps(objective, iter(np.ones(48)), None, start=0, steps=48)
    with compilations() as counts:
        state, records = steps(jnp.zeros(()), 48)
    found = np.asarray(records["top_k"]).tolist()
    assert (float(state), found[0], found[-1]) == (48, 32, 8)
    assert 1 <= counts["neurons"] == (len({*found}) if most > 1 else 1) <= most


def test_other_settings_or_text_are_another_run(whole):
    folder, *_ = whole
    with pytest.raises(RunError, match="learning rate is 0.01 there and 0.02 here"):
        recipe.prepare(settings(folder, resume=True, learning_rate=0.02))
    with pytest.raises(RunError, match=r"network router is 'linear' there and 'block' here"):
        recipe.prepare(settings(folder, resume=True, router="block", block_size=8))
    assert recipe.prepare(settings(folder, resume=True, save_interval=2)).standing == "finished"


BAD = {
    "data": ({"data": Path("/none/text.txt")}, "there is no such file or folder"),
    "tokenizer": ({"tokenizer": Path("/none/vocab.txt")}, "cannot be read"),
    "no mask": ({"tokenizer": "words.txt"}, "has no [PAD], [CLS], [SEP], [MASK], which masked"),
    "warm-up": ({"warmup_steps": 25}, "--warmup-steps 25 is longer than the training of 24 steps"),
    "sparsity": ({"sparsity_warmup_steps": 10000}, "longer than the training of 24 steps (--steps)"),
    "epochs": ({"steps": None, "num_epochs": 1, "warmup_steps": 99}, "(114 rows, 15 steps per epoch)"),
    "zero": ({"batch_size": 0}, "--batch-size must be at least 1, not 0"),
    "steps": ({"steps": 0}, "--steps must be at least 1, not 0"),
    "rate": ({"learning_rate": float("nan")}, "--learning-rate must be at least 0, not nan"),
    "neurons": ({"final_top_k": 33}, "between 0 and the 32 neurons of --d-ff, not 33"),
    "negative": ({"final_top_k": -1}, "--final-top-k must be at least 0, not -1"),
    "heads": ({"n_heads": 3}, "does not divide into n_heads=3"),
    "blocks": ({"router": "block", "block_size": 5}, "32 neurons do not divide into blocks of 5"),
    "devices": ({"devices": 99}, "99 x 1 devices are asked for"),
    "row": ({"max_seq_len": 2}, "a row of 2 tokens has no room"),
    "seed": ({"seed": -1}, "--seed must be between 0 and 2^32"),
    "fraction": ({"validation_fraction": 1.0}, "between 0 and 1, not 1.0"),
    "selection": ({"recipe": "compat", "selection": "block"}, "--recipe compat selects single neurons"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(case, tmp_path):
    options, told = BAD[case]
    if options.get("tokenizer") == "words.txt":
        (tmp_path / "words.txt").write_text("[UNK]\na")
        options = {"tokenizer": tmp_path / "words.txt"}
    check_refused(recipe, settings(tmp_path / "run", **options), told, tmp_path / "run")


@pytest.mark.parametrize(
    ("router", "selection"),
    [("linear", "neuron"), ("low_rank", "neuron"), ("block", "neuron"), ("mlp", "block")],
)
def test_distillation_reaches_every_router_and_nothing_else(router, selection):
    given = settings_of(router=router, selection=selection, router_rank=4, block_size=8, n_layers=2)
    config = sprout_parts.network_config(given, 20)
    objective = Objective(config, given, MaskingRule(20, 4, (0, 4)), pad=0)
    params = sprout_parts.initial_params(config, jax.random.key(0))
    inputs = jnp.asarray([[2, 7, 8, 3, 0, 0]])
    labels = jnp.full(inputs.shape, -100).at[0, 1].set(7)

    def taught(params):
        loss = objective.masked_loss(
            params, (inputs, labels), jax.random.key(1), top_k=jnp.asarray(8), step=0
        )
        return loss.metrics["router_loss"]

    learn = jax.jit(jax.value_and_grad(taught))
    before, gradients = learn(params)
    after, _ = learn(jax.tree.map(lambda leaf, gradient: leaf - 0.05 * gradient, params, gradients))
    assert 0 < float(after) < float(before)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert bool(jnp.abs(gradient).max() > 0) == ("/router/" in name), name


def _learned(**options):
    """Loss, its parts, and the size of the router's gradient for one masked row."""
    given = settings_of(**options)
    config = sprout_parts.network_config(given, 20)
    objective = Objective(config, given, MaskingRule(20, 4, (0, 4)), pad=0)
    inputs = jnp.asarray([[2, 7, 8, 3, 0, 0]])
    labels = jnp.full(inputs.shape, -100).at[0, 1].set(7)

    def loss(params):
        found = objective.masked_loss(
            params, (inputs, labels), jax.random.key(1), top_k=jnp.asarray(8), step=0
        )
        return found.mean, found.metrics

    params = sprout_parts.initial_params(config, jax.random.key(0))
    (mean, metrics), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return float(mean), metrics, float(jnp.abs(gradients["layer_0"]["ffn"]["router"]["kernel"]).max())


def test_published_losses_of_routers_are_none_while_all_neurons_work():
    given = settings_of(recipe="compat")
    config = sprout_parts.network_config(given, 20)
    objective = Objective(config, given, MaskingRule(20, 4, (0, 4)), pad=0)
    assert objective._published({}, jnp.zeros((1, 4), int), jax.random.key(0), top_k=None, step=0) == 0


def test_straight_through_teaches_routers_by_the_loss_of_the_language_model():
    hard, _, nothing = _learned(router_loss="none")
    soft, _, learned = _learned(router_loss="none", straight_through=True)
    assert nothing == 0 and learned > 0
    assert soft == pytest.approx(hard, rel=1e-6)


@pytest.mark.parametrize("name", ["load_balance_weight", "z_loss_weight"])
def test_further_losses_of_routers_add_to_what_they_are_taught(name):
    _, plain, before = _learned()
    _, more, after = _learned(**{name: 0.5})
    assert float(more["mlm_loss"]) == pytest.approx(float(plain["mlm_loss"]), rel=1e-6)
    assert float(more["router_loss"]) > float(plain["router_loss"]) and after != before


@pytest.mark.parametrize("name", ["load_balance_weight", "z_loss_weight"])
def test_they_teach_alone_where_nothing_else_does(name):
    _, found, learned = _learned(router_loss="none", **{name: 0.5})
    assert float(found["router_loss"]) > 0 and learned > 0


def test_bfloat16_computes_about_the_same_with_float32_gradients():
    given = settings_of()
    config = sprout_parts.network_config(given, 20)
    params = sprout_parts.initial_params(config, jax.random.key(0))
    batch = {"tokens": jnp.full((2, 12), 7)}

    def learn(dtype):
        objective = Objective(config, given, MaskingRule(20, 4, (0, 4)), pad=0, dtype=dtype)

        def loss(params):
            return objective.training_loss(params, batch, jax.random.key(1), top_k=None, step=0).mean

        return jax.jit(jax.value_and_grad(loss))(params)

    (wide, _), (narrow, gradients) = learn(None), learn(jnp.bfloat16)
    assert float(narrow) == pytest.approx(float(wide), rel=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
