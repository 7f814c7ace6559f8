"""Drawing tokens: filters against sorting in float64, ties, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.sampling import check_sampling, keep_top_k, keep_top_p, penalize_repetition, sample

LOGITS = np.random.default_rng(0).normal(size=(3, 61)).astype(np.float32) * 3
TIED = np.round(LOGITS)
TOP_K, TOP_P = jax.jit(keep_top_k), jax.jit(keep_top_p)


def _best_first(row: np.ndarray) -> np.ndarray:
    return np.argsort(-row, kind="stable")


def _sorted_top_p(row: np.ndarray, p: float) -> set[int]:
    """Indices of the nucleus, by a sort in float64."""
    probabilities = np.exp(row.astype(np.float64) - row.max())
    probabilities /= probabilities.sum()
    order = _best_first(row)
    count = int(np.searchsorted(np.cumsum(probabilities[order]), p)) + 1
    return set(order[:count].tolist())


@pytest.mark.parametrize("logits", [LOGITS, TIED], ids=["distinct", "tied"])
@pytest.mark.parametrize("k", [1, 2, 7, 60, 61, 1000])
def test_top_k_keeps_what_a_stable_sort_puts_first(logits, k):
    kept = np.asarray(TOP_K(logits, k))
    for row, result in zip(logits, kept, strict=True):
        chosen = set(_best_first(row)[:k].tolist())
        assert set(np.flatnonzero(np.isfinite(result)).tolist()) == chosen
        np.testing.assert_array_equal(result[sorted(chosen)], row[sorted(chosen)])


@pytest.mark.parametrize("logits", [LOGITS, TIED], ids=["distinct", "tied"])
@pytest.mark.parametrize("p", [1e-6, 0.1, 0.37, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits, p):
    kept = np.isfinite(np.asarray(TOP_P(logits, p)))
    for row, result in zip(logits, kept, strict=True):
        assert set(np.flatnonzero(result).tolist()) == _sorted_top_p(row, p)


def test_top_p_of_1_keeps_all_and_excluded_tokens_stay_excluded():
    assert np.isfinite(np.asarray(TOP_P(LOGITS, 1.0))).all()
    filtered = TOP_P(TOP_K(LOGITS, 5), 0.9999)
    assert np.isfinite(np.asarray(filtered)).sum(axis=1).max() <= 5


def test_zeros_of_either_sign_are_ties():
    logits = jnp.array([[-0.0, 0.0, -1.0, 0.0]])
    np.testing.assert_array_equal(np.isfinite(TOP_K(logits, 2)), [[True, True, False, False]])
    np.testing.assert_array_equal(np.isfinite(TOP_P(logits, 0.5)), [[True, True, False, False]])


def test_greedy_takes_the_first_of_the_largest():
    expected = [int(np.argmax(row)) for row in TIED]
    assert sample(None, jnp.asarray(TIED), temperature=0).tolist() == expected
    for options in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-30}):
        assert sample(jax.random.key(3), jnp.asarray(LOGITS), **options).tolist() == [
            int(np.argmax(row)) for row in LOGITS
        ]


def test_frequencies_of_draws_are_the_filtered_probabilities():
    rows, options = 20_000, {"temperature": 0.8, "top_k": 4, "top_p": 0.95}
    logits = np.array([1.0, 2.0, 0.5, 1.5, -3.0, 0.0], np.float32)
    drawn = np.asarray(sample(jax.random.key(0), jnp.tile(logits, (rows, 1)), **options))
    expected = np.where(logits >= 0.5, np.exp(logits / 0.8), 0)  # the fourth completes 0.95: all four stay
    expected /= expected.sum()
    frequencies = np.bincount(drawn, minlength=6) / rows
    np.testing.assert_allclose(frequencies, expected, atol=4 * np.sqrt(0.25 / rows))
    assert frequencies[4] == frequencies[5] == 0


def test_a_row_is_drawn_alike_among_any_number_of_rows():
    key = jax.random.key(1)
    alone = sample(key, jnp.asarray(LOGITS[:1]), temperature=2.0)
    np.testing.assert_array_equal(sample(key, jnp.asarray(LOGITS), temperature=2.0)[:1], alone)
    alike = sample(key, jnp.zeros((64, 61)))
    assert len(set(np.asarray(alike).tolist())) > 20


def test_numbers_may_be_traced():
    options = {"temperature": 0.7, "top_k": 9, "top_p": 0.8, "repetition_penalty": 1.3}
    seen, key = jnp.asarray(LOGITS > 2), jax.random.key(2)
    traced = jax.jit(lambda values: sample(key, jnp.asarray(LOGITS), seen=seen, **values))(options)
    np.testing.assert_array_equal(traced, sample(key, jnp.asarray(LOGITS), seen=seen, **options))


def test_penalty_makes_seen_tokens_less_likely_whatever_their_sign():
    seen = np.zeros(LOGITS.shape, bool)
    seen[:, ::2] = True
    result = np.asarray(penalize_repetition(jnp.asarray(LOGITS), jnp.asarray(seen), 1.5))
    np.testing.assert_array_equal(result[~seen], LOGITS[~seen])
    assert (result[seen] < LOGITS[seen]).all()
    np.testing.assert_allclose(
        result[seen], np.where(LOGITS > 0, LOGITS / 1.5, LOGITS * 1.5)[seen], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0"),
        ({"temperature": float("nan")}, "temperature must be 0"),
        ({"temperature": float("inf")}, "temperature must be 0"),
        ({"top_k": 0}, "top_k must be a whole number of at least 1"),
        ({"top_k": -3}, "top_k must be"),
        ({"top_k": 2.5}, "top_k must be"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.01}, "top_p must be above 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"repetition_penalty": -1.0}, "repetition_penalty must be above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check_sampling(**options)
    with pytest.raises(ValueError, match=message):
        sample(jax.random.key(0), jnp.asarray(LOGITS), **options)


def test_missing_key_and_missing_seen_are_refused():
    with pytest.raises(ValueError, match="needs a key"):
        sample(None, jnp.asarray(LOGITS))
    with pytest.raises(ValueError, match="needs seen"):
        sample(None, jnp.asarray(LOGITS), temperature=0, repetition_penalty=1.2)
