"""The chain of regimes: counted from labels, or what a chain of hidden states amounts to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.table import DataError
from regimes.chain import chain_of_states, check_chain, counted_chain, stationary


def test_transitions_are_counted_with_one_more_of_each_kind():
    # 0 -> 0, 0 -> 1, 1 -> 1 and nothing across the undecided row.
    chain = counted_chain(np.array([0, 0, 1, 1, -1, 2]), 3)
    np.testing.assert_allclose(chain, np.array([[2, 2, 1], [1, 2, 1], [1, 1, 1]]) / [[5], [4], [3]])


@given(st.lists(st.integers(-1, 3), max_size=60))
def test_a_counted_chain_is_a_chain(label):
    chain = counted_chain(np.array(label, dtype=np.int8), 4)
    assert check_chain(chain, "here") is chain


def test_the_chain_of_states_is_what_simulated_labels_count_to():
    random = np.random.default_rng(0)
    transition = np.array(
        [[0.95, 0.03, 0.01, 0.01], [0.02, 0.9, 0.05, 0.03], [0.02, 0.05, 0.9, 0.03], [0.1] * 3 + [0.7]]
    )
    regime = [0, 1, 1, 2]
    values, vectors = np.linalg.eig(transition.T)
    share = np.real(vectors[:, np.argmax(np.real(values))])
    state, states = 0, np.empty(200_000, dtype=np.int64)
    cumulated, draws = transition.cumsum(axis=1), random.random(states.size)
    for t in range(states.size):
        state = int(np.searchsorted(cumulated[state], draws[t] * cumulated[state, -1]))
        states[t] = state
    chain = chain_of_states(transition, share / share.sum(), regime, 3)
    np.testing.assert_allclose(chain, counted_chain(np.array(regime)[states], 3), atol=0.01)
    # One state per regime: the chain itself, in the order of the regimes.
    plain = transition[np.ix_([0, 1, 3], [0, 1, 3])]
    plain /= plain.sum(axis=1, keepdims=True)
    order = [2, 0, 1]
    np.testing.assert_allclose(
        chain_of_states(plain, np.full(3, 1 / 3), order, 3)[np.ix_(order, order)], plain
    )


@pytest.mark.parametrize("row", [[0.5, 0.4], [1.0, 0.0], [1.1, -0.1]])
def test_what_is_no_chain_is_refused(row):
    with pytest.raises(DataError, match="here: each row must be positive and sum to 1"):
        check_chain(np.array([[0.5, 0.5], row]), "here")


def test_stationary_shares_by_hand():
    np.testing.assert_allclose(stationary(np.array([[0.9, 0.1], [0.3, 0.7]])), [0.75, 0.25])
