"""Every imported family against the originals' own tensors: logits, states, losses, gradients."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.checkpoint.rules import to_state
from sparsejax.models.ten.convert import rules
from sparsejax.models.ten.eigenstates import Evolution
from sparsejax.models.ten.layers import Context
from sparsejax.models.ten.losses import energy_penalty
from sparsejax.models.ten.resonance import cell_decay, resonance_matrix
from tests import golden

LOADED = {
    "mit_sequential": {},
    "mit_fft": {},
    "mit_fft_selective": {},
    "mit_final": {},
    "mit_final_full": {},
    "mit_final_none": {},
    "mit_pro": {},
    "mit_pro_hybrid": {"overrides": {"attention_window": 5}},
    "mit_unified": {"overrides": {"context_threshold": 64}},
    "mit_v03": {"overrides": {"context_threshold": 64}},
    "mit_chunked_legacy": {"variant": "chunked_legacy", "overrides": {"chunk_size": 16}},
    "mit_ssd_legacy": {"variant": "ssd_legacy", "overrides": {"chunk_size": 16}},
    "src_seed": {"variant": "seed"},
    "src_paper": {"variant": "paper"},
}
CAUSAL = {"mit_chunked_causal": "mit_chunked_legacy", "mit_ssd_causal": "mit_ssd_legacy"}
TOLERANCE = {1: 2e-5, 7: 2e-5, 64: 5e-5, 129: 1e-4}  # specs/ten.md section 11
ANTICAUSAL = ("mit_chunked_legacy", "mit_ssd_legacy")
GRADIENTS = {  # at this length; the others are made of the same parts, and traces replay the trainer of fft
    "mit_sequential": 64,
    "mit_fft_selective": 64,
    "mit_final_full": 7,
    "mit_pro_hybrid": 64,
    "mit_v03": 129,
    "mit_ssd_legacy": 16,
}
UNTRAINED = ("band_gates", "band_proj")

every_case = pytest.mark.parametrize("case", LOADED)
covers_all = pytest.mark.golden(*LOADED)


@cache
def checkpoint(case):
    return sj.load(golden.path("ten", f"{case}.pt"), **LOADED[case])


@cache
def arrays(case):
    return golden.arrays("ten", case)


def worst(found, expected):
    return float(np.max(np.abs(np.asarray(found) - expected)))


@cache
def forward_of(case):
    """Function of parameters and tokens: logits, the new state, and what every layer put out."""
    ck = checkpoint(case)

    @jax.jit
    def forward(params, tokens):
        def is_layer(module, method):
            return method == "__call__" and "layer_" in (module.name or "")

        out, seen = ck.model.apply({"params": params}, tokens, capture_intermediates=is_layer)
        return out, {name: value["__call__"][0] for name, value in seen["intermediates"].items()}

    return forward


@cache
def run(case, steps):
    return forward_of(case)(checkpoint(case).params, arrays(case)[f"T{steps}/ids"])


def logits_of(case, steps):
    """A single token of a causal network goes through the program of seven, whose first output it is."""
    if steps > 1 or case in ANTICAUSAL:
        return run(case, steps)[0].logits
    token = arrays(case)["T1/ids"]
    return forward_of(case)(checkpoint(case).params, np.pad(token, ((0, 0), (0, 6))))[0].logits[:, :1]


@covers_all
@every_case
@pytest.mark.parametrize("steps", TOLERANCE)
def test_logits_and_loss(case, steps):
    stored = arrays(case)
    if f"T{steps}/logits" not in stored or (steps == 64 and "T129/logits" in stored):
        return
    logits = logits_of(case, steps)
    assert worst(logits, stored[f"T{steps}/logits"]) <= TOLERANCE[steps]
    if f"T{steps}/logits_f64" in stored:
        assert worst(logits, stored[f"T{steps}/logits_f64"]) <= TOLERANCE[steps]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, stored[f"T{steps}/targets"]).mean()
    if case.startswith("src"):
        ck = checkpoint(case)
        loss += ck.config.energy_reg_weight * energy_penalty(ck.config, ck.params)
    assert abs(float(loss) - stored[f"T{steps}/loss"]) <= 2e-5


@pytest.mark.golden(*CAUSAL)
@pytest.mark.parametrize("case", CAUSAL)
def test_files_of_the_anticausal_families_load_as_the_true_recurrence(case):
    ck = sj.load(golden.path("ten", f"{CAUSAL[case]}.pt"))
    stored = arrays(case)
    for steps, bound in {7: 2e-5, 129: 1e-4}.items():
        found = ck.apply(stored[f"T{steps}/ids"]).logits
        assert worst(found, stored[f"T{steps}/logits"]) <= bound
        assert worst(arrays(CAUSAL[case])[f"T{steps}/logits"], stored[f"T{steps}/logits"]) > 100 * bound


@covers_all
@every_case
def test_what_every_layer_puts_out(case):
    _, layers = run(case, 7)
    stored = arrays(case)
    shown = {name: value for name, value in layers.items() if not name.startswith("long")}
    assert len(shown) == 2
    for name, output in shown.items():
        expected = stored[f"T7/hidden{name[-1]}"]
        assert worst(output.hidden, expected) <= 2e-5


@pytest.mark.golden("mit_sequential", "mit_pro", "mit_pro_hybrid", "mit_ssd_legacy")
@pytest.mark.parametrize("case", ["mit_pro", "mit_pro_hybrid", "mit_ssd_legacy"])
def test_coupled_eigenstates(case):
    _, layers = run(case, 7)
    for number in range(2):
        assert worst(layers[f"layer_{number}"].coupled, arrays(case)[f"T7/state{number}"]) <= 2e-5


@pytest.mark.golden("mit_sequential")
@pytest.mark.parametrize("steps", [7, 129])
def test_the_final_state_of_sequential_is_uncoupled(steps):
    out, _ = run("mit_sequential", steps)
    for number, layer in enumerate(out.state.short):
        expected = arrays("mit_sequential")[f"T{steps}/state{number}" + ("" if steps == 7 else "_last")]
        assert worst(jnp.stack(layer.eigenstates, -1), expected) <= 1e-4


@pytest.mark.golden("src_seed", "src_paper")
@pytest.mark.parametrize("case", ["src_seed", "src_paper"])
def test_states_of_cells_after_every_step_and_at_the_end(case):
    out, layers = run(case, 7)
    stored = arrays(case)
    for block in range(2):
        every = jnp.stack(layers[f"layer_{block}"].states, -1)  # (b, t, cells, k, 2)
        last = jnp.stack(out.state.short[block].eigenstates, -1)
        for cell in range(2):
            assert worst(every[:, :, cell], stored[f"T7/cellstates{2 * block + cell}"]) <= 2e-5
            assert worst(last[:, cell], stored[f"T7/final_state/block{block}/cell{cell}"]) <= 2e-5


@pytest.mark.golden("src_seed", "src_paper")
@pytest.mark.parametrize("case", ["src_seed", "src_paper"])
def test_a_carried_state_goes_on_where_the_first_half_stopped(case):
    stored = arrays(case)
    ids, split = stored["carry/ids"], int(stored["carry/split"])
    ck = checkpoint(case)
    first = ck.apply(ids[:, :split])
    # The original's positions restart at 0 on every call.
    restarted = first.state.replace(position=jnp.zeros_like(first.state.position))
    second = ck.apply(ids[:, split:], state=restarted)
    assert worst(second.logits, stored["carry/logits_second"]) <= 5e-5
    whole = ck.apply(ids).logits
    assert worst(ck.apply(ids[:, split:], state=first.state).logits, whole[:, split:]) <= 5e-5


@pytest.mark.golden("mit_sequential_step")
def test_a_layer_in_steps_and_in_two_parts():
    stored, ck = arrays("mit_sequential_step"), checkpoint("mit_sequential")
    layer = ck.model.bind({"params": ck.params}).layer[1]
    split = int(stored["split"])
    call = jax.jit(layer_call, static_argnums=0)
    whole = call(ck.model, ck.params, stored["x"], None)
    assert layer.number == 1
    assert worst(whole.hidden, stored["full"]) <= 2e-5
    assert worst(jnp.stack(whole.state.eigenstates, -1), stored["final_state"]) <= 2e-5
    first = call(ck.model, ck.params, stored["x"][:, :split], None)
    assert worst(jnp.stack(first.state.eigenstates, -1), stored["mid_state"]) <= 2e-5
    second = call(ck.model, ck.params, stored["x"][:, split:], first.state)
    assert worst(second.hidden, stored["second_part"]) <= 2e-5
    state = None
    for step in range(3):
        out = call(ck.model, ck.params, stored["x"][:, step : step + 1], state)
        state = out.state
        assert worst(out.hidden[:, 0], stored["step"][:, step]) <= 2e-5
        assert worst(jnp.stack(state.eigenstates, -1), stored["step_states"][:, step]) <= 2e-5


def layer_call(model, params, hidden, state):
    layer = model.bind({"params": params}).layer[1]
    return layer(hidden, Context(None, state, None), Evolution(), False)


@pytest.mark.golden(*GRADIENTS)
@pytest.mark.parametrize("case", GRADIENTS)
def test_gradients(case):
    ck, stored, steps = checkpoint(case), arrays(case), GRADIENTS[case]
    where = "grad" if steps == 16 else f"T{steps}"
    ids, targets = stored[f"{where}/ids"], stored[f"{where}/targets"]

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        logits = ck.model.apply({"params": params}, ids, train=True).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    value, gradient = loss(ck.params)
    assert abs(float(value) - stored["grad/loss"]) <= 2e-5
    compared = compare_gradients(ck, gradient, stored, prefix="grad/", steps=steps)
    assert compared >= 14


def compare_gradients(ck, gradient, stored, *, prefix, steps):
    """Largest differences relative to the size of each gradient; how many were compared."""
    state = to_state(rules(ck.variant, ck.config), jax.device_get(gradient))
    compared = 0
    for name in stored:
        key = name.removeprefix(prefix).removesuffix("[:T]")
        if not name.startswith(prefix) or key not in state:
            continue
        found = state[key][:steps] if key.startswith("pos_emb") else state[key]
        assert worst(found, stored[name]) <= 2e-5 * max(1.0, float(np.abs(stored[name]).max())), name
        compared += 1
    for key, value in state.items():
        if any(part in key for part in UNTRAINED):
            assert not value.any(), key
    return compared


@pytest.mark.golden("src_seed", "src_paper")
@pytest.mark.parametrize(
    ("case", "mode"),
    [("src_seed", "eval"), ("src_paper", "train")],  # a trace replays the trainer of seed
)
def test_gradients_of_the_published_cells_with_and_without_truncation(case, mode):
    ck, stored = checkpoint(case), arrays(case)
    config = ck.config.__class__(**{**vars(ck.config), "dropout": 0.0, "truncate_at_chunks": mode == "train"})
    model = type(ck.model)(config)

    @jax.jit
    @jax.grad
    def gradient(params):
        logits = model.apply({"params": params}, stored["T64/ids"], train=True).logits
        error = optax.softmax_cross_entropy_with_integer_labels(logits, stored["T64/targets"]).mean()
        return error + config.energy_reg_weight * energy_penalty(config, params)

    compared = compare_gradients(ck, gradient(ck.params), stored, prefix=f"grad_{mode}/", steps=64)
    assert compared >= (30 if mode == "train" else 15)


@pytest.mark.golden("src_seed")
def test_a_cell_alone():
    ck, stored = checkpoint("src_seed"), arrays("src_seed")
    cells = ck.params["layer_0"]["cells"]
    resonance = resonance_matrix(cells["resonance"][0], ck.config.resonance_epsilon)
    assert worst(resonance, stored["cell/R"]) <= 1e-6
    decay = cell_decay(cells["decay_logit"][0], cells["frequency"][0], ck.config.eigenvalue_clip)
    assert worst(jnp.exp(decay.log_magnitude), stored["cell/magnitude"]) <= 1e-6
    assert worst(decay.frequency, stored["cell/phase"]) <= 1e-6
