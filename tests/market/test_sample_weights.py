"""Weights of overlapping labels: by hand, the examples of the book, and against indicator matrices."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError
from market.label_kernels import NEVER
from market.labels import Labels, forward_return, triple_barrier
from market.sample_weights import (
    concurrency,
    return_weights,
    sequential_bootstrap,
    summarize,
    time_decay,
    uniqueness,
)
from market.table import DataError
from tests.market.bars_factory import HOUR, flat_bars, make_bars, random_bars
from tests.reference import labels_twin


def labels_of(ends, n, ret=None):
    """Labels of n rows that end where a dictionary {row: end} says; the other rows have none."""
    time = (np.arange(n) + 1) * HOUR
    known = np.isin(np.arange(n), list(ends))
    end = np.array([ends.get(row, NEVER) for row in range(n)], dtype=np.int64)
    known_at = np.where(known, time[np.where(known, end, 0)], NEVER)
    returns = np.where(known, 0.01 if ret is None else ret, np.nan)
    return Labels(time, known.astype(np.int8), known, known_at, end, returns, n, "by hand")


def bars_with_closes(closes):
    """Bars that open at the close before and have no wicks; row 0 opens at 100."""
    close = np.array(closes, dtype=np.float64)
    open_ = np.concatenate([[100.0], close[:-1]])
    return make_bars(open_, np.maximum(open_, close), np.minimum(open_, close), close, np.ones(close.size))


# Section 4.5.3 of the book: y1 is a function of the returns 1 to 3, y2 of 3 and 4, y3 of 5 and 6.
BOOK = labels_of({0: 3, 2: 4, 4: 6}, 7)


# --- uniqueness ---------------------------------------------------------------------------------------


def test_the_example_of_the_book():
    assert concurrency(BOOK).tolist() == [0, 1, 1, 2, 1, 1, 1]
    assert uniqueness(BOOK).tolist() == pytest.approx([5 / 6, 0, 3 / 4, 0, 1, 0, 0])


def test_a_label_reads_the_bars_after_its_row_up_to_its_end():
    # Row 0 ends where row 1 begins: they share no bar.
    labels = labels_of({0: 1, 1: 2}, 3)
    assert concurrency(labels).tolist() == [0, 1, 1]
    assert uniqueness(labels).tolist() == [1.0, 1.0, 0.0]


def test_labels_of_one_horizon_share_every_bar_among_that_many():
    labels = forward_return(random_bars(200), 10)
    assert set(concurrency(labels)[10:180].tolist()) == {10}
    np.testing.assert_allclose(uniqueness(labels)[10:170], 0.1, rtol=1e-12)
    assert uniqueness(labels)[0] == pytest.approx(sum(1 / i for i in range(1, 11)) / 10)


def test_only_the_rows_that_are_used_count():
    assert uniqueness(BOOK, slice(0, 2)).tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert uniqueness(BOOK, np.array([2, 4])).tolist() == [0, 0, 1, 0, 1, 0, 0]
    mask = np.array([True, True, True, False, False, False, False])
    assert uniqueness(BOOK, mask).tolist() == pytest.approx([5 / 6, 0, 3 / 4, 0, 0, 0, 0])
    assert uniqueness(BOOK, slice(1, 2)).tolist() == [0] * 7


# --- return attribution -------------------------------------------------------------------------------


def test_labels_that_do_not_overlap_weigh_their_own_log_return():
    # +10 %, then -20 %, twice as much as a logarithm would have it.
    bars = bars_with_closes([100, 110, 110, 88, 88])
    labels = forward_return(bars, 1)
    used = np.array([0, 2])
    moves = np.abs(np.log([1.1, 0.8]))
    weights = return_weights(labels, bars, used)
    assert weights[used].tolist() == pytest.approx((moves / moves.mean()).tolist())
    assert weights[used].mean() == pytest.approx(1)
    assert weights[[1, 3, 4]].tolist() == [0, 0, 0]


def test_a_shared_bar_is_shared_out():
    # Bars: +e^.1, +e^.2, -e^.4, over labels of bars 1-2 and 2-3: .1 + .2 / 2 and .2 / 2 - .4.
    bars = bars_with_closes(100 * np.exp([0, 0.1, 0.3, -0.1]))
    weights = return_weights(forward_return(bars, 2), bars)
    assert weights.tolist() == pytest.approx([0.8, 1.2, 0, 0])


def test_a_label_is_paid_from_its_entry_to_its_exit_and_not_for_whole_bars():
    # Gaps of 5 % before both entries, and both leave at a barrier 10 % away, far from the close.
    open_, close = np.array([100, 105, 100.0, 105.0, 105]), np.array([100.0, 130, 100, 60, 105])
    bars = make_bars(open_, np.maximum(open_, close), np.minimum(open_, close), close, np.ones(5))
    labels = triple_barrier(bars, 1, 1.0, 1.0, np.full(5, 0.1))
    used = np.array([0, 2])
    assert labels.ret[used] == pytest.approx([0.1, -0.1])
    moves = np.abs(np.log([1.1, 0.9]))
    assert return_weights(labels, bars, used)[used].tolist() == pytest.approx((moves / moves.mean()).tolist())


def test_labels_that_never_moved_weigh_the_same():
    bars = flat_bars(6)
    assert return_weights(forward_return(bars, 2), bars).tolist() == [1, 1, 1, 1, 0, 0]
    assert return_weights(forward_return(bars, 8), bars).tolist() == [0] * 6


def test_returns_need_labels_of_the_price_of_their_bars():
    bars, other = random_bars(50, seed=1), random_bars(50, seed=2)
    labels = forward_return(bars, 5)
    with pytest.raises(
        DataError, match=r"the label of row \d+ leaves at .*, which the bar of row \d+ never saw"
    ):
        return_weights(labels, other)
    short = dataclasses.replace(labels, ret=-labels.ret)
    with pytest.raises(DataError, match="labels of the price of TEST/USD 1h, not of bets on it"):
        return_weights(short, bars)
    with pytest.raises(DataError, match="another clock"):
        return_weights(labels, bars[:40])


# --- time decay ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("oldest", "expected"),
    [
        (1.0, [1, 1, 1, 1]),
        (0.5, [0.625, 0.75, 0.875, 1]),
        (0.0, [0.25, 0.5, 0.75, 1]),
        (-0.5, [0, 0, 0.5, 1]),  # the older half is forgotten
    ],
)
def test_decay_by_hand(oldest, expected):
    assert time_decay(np.ones(4), oldest).tolist() == pytest.approx(expected)


def test_labels_that_say_the_same_age_as_one():
    # Four quarter labels in the middle are one step of age together.
    weights = np.array([1.0, 0.25, 0.25, 0, 0.25, 0.25, 1.0])
    decay = time_decay(weights, 0.0)
    assert decay.tolist() == pytest.approx([1 / 3, 1.25 / 3, 1.5 / 3, 0, 1.75 / 3, 2 / 3, 1])


def test_the_newest_counts_whole():
    for oldest in (0.7, 0.1, 1 / 3, -0.3):
        assert time_decay(np.array([0.1, 0.2, 0.3, 0.0]), oldest)[2] == 1.0


def test_decay_of_nothing_is_nothing():
    assert time_decay(np.zeros(3)).tolist() == [0, 0, 0]
    assert time_decay(np.zeros(0)).tolist() == []


def test_decay_that_makes_no_sense_is_refused():
    for oldest in (-1.0, 1.1, np.nan):
        with pytest.raises(ConfigError, match="oldest weight"):
            time_decay(np.ones(3), oldest)
    for weights in ([-1.0, 1.0], [np.nan, 1.0]):
        with pytest.raises(DataError, match="every weight"):
            time_decay(np.array(weights))


# --- the sequential bootstrap -------------------------------------------------------------------------


class Given:
    """A generator whose random numbers are known."""

    def __init__(self, *numbers):
        self.numbers = np.array(numbers)

    def random(self, n):
        assert n == self.numbers.size
        return self.numbers


@pytest.mark.parametrize(
    ("numbers", "rows"),
    [
        # The first draw is even. After y2 the book gives 5/14, 3/14 and 6/14, after y3 then 5/11, 3/11, 3/11.
        ((0.5, 4.99 / 14), [2, 0]),
        ((0.5, 5.01 / 14), [2, 2]),
        ((0.5, 7.99 / 14), [2, 2]),
        ((0.5, 8.01 / 14), [2, 4]),
        ((0.5, 0.99, 4.99 / 11), [2, 4, 0]),
        ((0.5, 0.99, 5.01 / 11), [2, 4, 2]),
        ((0.5, 0.99, 7.99 / 11), [2, 4, 2]),
        ((0.5, 0.99, 8.01 / 11), [2, 4, 4]),
        ((0.0, 1 - 2**-53), [0, 4]),
        ((), []),
    ],
)
def test_draws_have_the_probabilities_of_the_book(numbers, rows):
    assert sequential_bootstrap(BOOK, len(numbers), Given(*numbers)).tolist() == rows


def test_the_twin_has_the_probabilities_of_the_book():
    read = labels_twin.spans(BOOK, range(7))
    assert list(labels_twin.draw_probabilities(read, [2]).values()) == pytest.approx([5 / 14, 3 / 14, 6 / 14])
    assert list(labels_twin.draw_probabilities(read, [2, 4]).values()) == pytest.approx(
        [5 / 11, 3 / 11, 3 / 11]
    )


def drawn_uniqueness(labels, rows):
    """Mean uniqueness of a sample that may hold a row more than once."""
    bars = np.zeros(len(labels))
    for row in rows:
        bars[row + 1 : labels.end[row] + 1] += 1
    return np.mean([np.mean(1 / bars[row + 1 : labels.end[row] + 1]) for row in rows])


def test_sequential_samples_overlap_less_than_plain_ones():
    random = np.random.default_rng(8)
    bars = random_bars(400, seed=8)
    labels = triple_barrier(bars, 12, 1.0, 1.0, np.full(400, 0.01))
    known = np.flatnonzero(labels.known)
    sequential = [drawn_uniqueness(labels, sequential_bootstrap(labels, 100, random)) for _ in range(30)]
    plain = [drawn_uniqueness(labels, random.choice(known, 100)) for _ in range(30)]
    assert np.mean(sequential) > np.mean(plain) + 5 * np.std(plain) / np.sqrt(30)
    # The control: two sets of plain samples do not differ like that.
    again = [drawn_uniqueness(labels, random.choice(known, 100)) for _ in range(30)]
    assert not np.mean(again) > np.mean(plain) + 5 * np.std(plain) / np.sqrt(30)


def test_a_bootstrap_repeats_with_its_seed_and_draws_only_what_it_may():
    labels = forward_return(random_bars(300), 5)
    one, two = (sequential_bootstrap(labels, 50, np.random.default_rng(3), slice(20, 90)) for _ in range(2))
    assert one.tolist() == two.tolist()
    assert (one >= 20).all()
    assert (one < 90).all()
    with pytest.raises(DataError, match="no known label"):
        sequential_bootstrap(labels, 5, np.random.default_rng(3), slice(298, 300))
    with pytest.raises(ValueError, match="draws is -1"):
        sequential_bootstrap(labels, -1, np.random.default_rng(3))


# --- against the twin ---------------------------------------------------------------------------------


@st.composite
def overlapping(draw):
    """Labels of any length, some unknown, some rows not used."""
    n = draw(st.integers(2, 25))
    ends = {
        row: min(row + draw(st.integers(1, 8)), n - 1)
        for row in range(n - 1)
        if draw(st.sampled_from([True, True, False]))
    }
    rows = [row for row in range(n) if draw(st.sampled_from([True, True, True, False]))]
    return labels_of(ends, n), rows


@given(overlapping())
@settings(max_examples=150, deadline=None)
def test_crowds_and_uniqueness_are_those_of_the_indicator_matrix(case):
    labels, rows = case
    given_rows = np.array(rows, dtype=np.int64)
    assert concurrency(labels, given_rows).tolist() == labels_twin.concurrency(labels, rows)
    np.testing.assert_allclose(
        uniqueness(labels, given_rows), labels_twin.uniqueness(labels, rows), rtol=1e-12
    )


@given(st.integers(2, 40), st.integers(1, 9), st.integers(0, 10_000), st.sampled_from([1.0, 0.3, 0.0, -0.4]))
@settings(max_examples=60, deadline=None)
def test_returns_and_decay_are_those_of_the_twin(n, horizon, seed, oldest):
    bars = random_bars(n, seed=seed)
    labels = triple_barrier(bars, horizon, 1.0, 1.0, np.full(n, 0.01))
    rows = np.flatnonzero(np.random.default_rng(seed).random(n) < 0.8)
    expected = labels_twin.return_weights(labels, bars, rows.tolist())
    np.testing.assert_allclose(return_weights(labels, bars, rows), expected, rtol=1e-9, atol=1e-9)
    weights = uniqueness(labels, rows)
    if weights.any():
        decayed = labels_twin.time_decay(weights.tolist(), oldest)
        np.testing.assert_allclose(time_decay(weights, oldest), decayed, rtol=1e-9, atol=1e-12)


@given(overlapping(), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_draws_are_those_of_the_twin(case, seed):
    labels, rows = case
    if not labels_twin.spans(labels, rows):
        return
    numbers = np.random.default_rng(seed).random(10)
    drawn = sequential_bootstrap(labels, 10, Given(*numbers), np.array(rows))
    assert drawn.tolist() == labels_twin.sequential_bootstrap(labels, rows, numbers.tolist())


def test_many_draws_are_those_of_the_twin():
    bars = random_bars(120, seed=4)
    labels = triple_barrier(bars, 9, 1.0, 1.0, np.full(120, 0.01))
    numbers = np.random.default_rng(4).random(150)
    drawn = sequential_bootstrap(labels, 150, Given(*numbers))
    assert drawn.tolist() == labels_twin.sequential_bootstrap(labels, range(120), numbers.tolist())


# --- no weight of training knows the test -------------------------------------------------------------


WEIGHTS = {
    "uniqueness": lambda labels, bars, rows: uniqueness(labels, rows),
    "returns": lambda labels, bars, rows: return_weights(labels, bars, rows),
    "decay": lambda labels, bars, rows: time_decay(uniqueness(labels, rows), 0.3),
    "bootstrap": lambda labels, bars, rows: sequential_bootstrap(labels, 80, np.random.default_rng(0), rows),
}


def two_futures(weigh, rows, first_test_row=200):
    """Weights of training rows in two markets that part at the first test row."""
    bars, other = random_bars(300, seed=6), random_bars(300, seed=7)
    values = bars.values.copy()
    values[first_test_row:] = other.values[first_test_row:]
    found = []
    for market in (bars, dataclasses.replace(bars, values=values)):
        labels = triple_barrier(market, 8, 1.0, 1.0, np.full(300, 0.01))
        train = np.flatnonzero(labels.settled_at < market.time[first_test_row])
        found.append(weigh(labels, market, train if rows == "training" else None))
    return [weights[:190] for weights in found]


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_of_training_rows_do_not_know_the_test(kind):
    one, two = two_futures(WEIGHTS[kind], "training")
    assert np.array_equal(one, two)


@pytest.mark.parametrize("kind", ["returns", "decay", "bootstrap"])
def test_weights_that_count_all_rows_do(kind):
    one, two = two_futures(WEIGHTS[kind], "all")
    assert not np.array_equal(one, two)


# --- the summary --------------------------------------------------------------------------------------


def test_a_summary_by_hand():
    labels = dataclasses.replace(
        labels_of({0: 3, 2: 4, 4: 6}, 7, ret=0.02), value=np.array([1, 0, -1, 0, 1, 0, 0], np.int8)
    )
    summary = summarize(labels)
    assert (summary.rows, summary.known, summary.pending) == (7, 3, 4)
    assert (summary.up, summary.none, summary.down) == pytest.approx((2 / 3, 0, 1 / 3))
    assert summary.mean_bars == pytest.approx(7 / 3)
    assert summary.mean_return == pytest.approx(0.02)
    assert summary.mean_uniqueness == pytest.approx((5 / 6 + 3 / 4 + 1) / 3)
    assert summary.effective_rows == pytest.approx(5 / 6 + 3 / 4 + 1)
    assert str(summary) == (
        "by hand: 3 of 7 rows have a label; up 66.7%, none 0.0%, down 33.3%. Labels last 2.3 bars, with a "
        "mean uniqueness of 0.861: as much as 3 that do not overlap."
    )


def test_a_summary_of_some_rows_and_of_none():
    assert summarize(BOOK, slice(0, 2)).mean_uniqueness == 1.0
    empty = summarize(BOOK, slice(5, 7))
    assert (empty.rows, empty.known, empty.effective_rows) == (2, 0, 0.0)
    assert np.isnan(empty.up)
    assert str(empty) == "by hand: none of 2 rows has a label."
    assert summarize(forward_return(random_bars(1)[:0], 5)).rows == 0


def test_overlapping_labels_are_worth_about_their_number_over_the_horizon():
    summary = summarize(forward_return(random_bars(2_000), 20))
    assert summary.effective_rows == pytest.approx(2_000 / 20, rel=0.05)
    assert summary.pending == 20
