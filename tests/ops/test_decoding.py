"""Steps over a toy network: ends, what is told after them, and what may stand in for tokens there."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.decoding import TokenStream, begin, check_counts, one_token
from sparsejax.ops.prompts import read_prompts
from sparsejax.ops.sampling import sampling_rules

VOCABULARY = 7


def counting(token, state):
    """After each token the next number; out of the vocabulary there is nothing but NaN."""
    known = (token >= 0) & (token < VOCABULARY)
    logits = jax.nn.one_hot((token + 1) % VOCABULARY, VOCABULARY)
    return jnp.where(known[:, None], logits, jnp.nan), state + 1


def streamed(prompts, count, *, network=counting, **options):
    """A stream over the toy, and how often its network has been called."""
    rules, batch = sampling_rules(VOCABULARY, temperature=0, **options), read_prompts(prompts, VOCABULARY)
    calls = []

    def advance(progress, until):
        calls.append(until)
        return one_token(rules, progress, lambda token: network(token, progress.state))

    logits, state = network(jnp.asarray(batch.tokens[:, -1]), jnp.zeros(()))
    return TokenStream(advance, begin(logits, state, batch, rules, count), count, rules.pad_token), calls


def test_tokens_come_one_by_one_and_the_rest_at_once():
    tokens, calls = streamed([[1], [4]], 5)
    assert [next(tokens).tolist(), next(tokens).tolist()] == [[2, 5], [3, 6]]
    found, lengths, log_probabilities, state = tokens._rest()
    assert found.tolist() == [[2, 3, 4, 5, 6], [5, 6, 0, 1, 2]]
    assert lengths.tolist() == [5, 5] and float(state) == 6 and len(calls) == 5
    np.testing.assert_allclose(log_probabilities, 1 - np.log(np.e + VOCABULARY - 1), rtol=1e-6)
    assert list(tokens) == []


@pytest.mark.parametrize("pad", [0, -100, 10**6])
def test_a_row_that_has_ended_gives_the_pad_token_which_the_network_never_reads(pad):
    tokens, calls = streamed([[1], [2]], 9, stop_tokens=[5], pad_token=pad)
    assert next(tokens).tolist() == [2, 3] and not tokens.stopped.any()
    found, lengths, log_probabilities, _ = tokens._rest()
    assert found.tolist() == [[2, 3, 4, 5, *[pad] * 5], [3, 4, 5, *[pad] * 6]]
    assert lengths.tolist() == [4, 3] and len(calls) == 4
    assert (log_probabilities[1, 3:] == 0).all() and (log_probabilities[0, :4] < 0).all()
    assert tokens.stopped.all()


def test_a_penalty_minds_prompts_and_new_tokens():
    def hesitating(token, state):
        logits, state = counting(token, state)
        return logits + jnp.roll(logits, 1, axis=1) / 2, state

    def told(penalty, prompt, count):
        options = {"network": hesitating, "repetition_penalty": penalty}
        return streamed([prompt], count, **options)[0]._rest()[0][0].tolist()

    assert told(1.0, [2, 1], 4) == [2, 3, 4, 5]
    assert told(1e9, [2, 1], 4) == [3, 4, 5, 6]
    assert told(1e9, [1], 7) == [2, 3, 4, 5, 6, 0, 1]  # not 2, the second best: that came before, too


def test_nan_is_told_with_the_step_it_came_at():
    def breaking(token, state):
        logits, state = counting(token, state)
        return jnp.where(state > 2, jnp.nan, logits), state

    tokens, _ = streamed([[1]], 5, network=breaking)
    assert next(tokens).tolist() == [2]
    with pytest.raises(ValueError, match="logits are NaN after 2 new tokens"):
        next(tokens)
    assert list(tokens) == []


@pytest.mark.parametrize("count", [0, -1, 2.5, None, "3"])
def test_counts_are_whole_numbers_of_at_least_1(count):
    check_counts(first=1, second=np.int32(2))
    with pytest.raises(ValueError, match="second must be a whole number of at least 1"):
        check_counts(first=1, second=count)


@pytest.mark.parametrize("token", [-1, VOCABULARY, 1.5])
def test_stop_tokens_are_of_the_vocabulary(token):
    with pytest.raises(ValueError, match="the ids 0 to 6"):
        sampling_rules(VOCABULARY, stop_tokens=[0, token])
