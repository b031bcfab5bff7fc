"""Meta-labels and bet sizes: by hand, by the formulas of the book, and nothing of the future in a size."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError
from market.bars import OHLCV, Bars
from market.bet_sizing import average_active, bet_size, bet_size_of_classes
from market.label_kernels import NEVER
from market.labels import direction, forward_return, triple_barrier
from market.meta_labels import meta_labels
from market.sample_weights import return_weights, summarize, uniqueness
from market.splits import walk_forward
from market.table import DataError
from tests.house.tree import Module
from tests.market.bars_factory import HOUR, make_bars, random_bars
from tests.reference import labels_twin


def bars_of(*rows):
    """Bars from (open, high, low, close)."""
    prices = np.array(rows, dtype=np.float64).T
    return make_bars(*prices, np.ones(len(rows)))


QUIET = (100.0, 101.0, 99.0, 100.0)
WIDE = (100.0, 115.0, 85.0, 100.0)

# --- meta-labels ------------------------------------------------------------------------------------------


def test_a_bet_pays_if_the_price_goes_its_way():
    bars = bars_of(
        QUIET, (100, 106, 99, 105), (100, 101, 94, 95), (100, 106, 99, 105), (100, 101, 94, 95), QUIET
    )
    labels = forward_return(bars, 1)  # +5, -5, +5, -5, 0 percent
    primary = np.array([1, 1, -1, -1, 1, 1])
    meta = meta_labels(primary, labels)
    assert meta.value.tolist() == [1, 0, 0, 1, 0, 0]
    assert meta.ret[:5].tolist() == pytest.approx([0.05, -0.05, -0.05, 0.05, 0])
    assert meta.known.tolist() == [True] * 5 + [False]
    for name in ("known_at", "end", "settled_at", "time", "horizon"):
        assert np.array_equal(getattr(meta, name), getattr(labels, name))
    assert meta.side.tolist() == primary.tolist()
    assert meta.name == "meta_return_1"


def test_a_row_without_a_bet_has_no_label_and_no_bar_will_change_that():
    bars = bars_of(*[QUIET] * 4)
    meta = meta_labels(np.array([0, 1, 0, 0]), forward_return(bars, 1))
    assert meta.known.tolist() == [False, True, False, False]
    assert meta.settled_at.tolist() == [HOUR, 3 * HOUR, 3 * HOUR, 4 * HOUR]
    assert meta.known_at.tolist() == [NEVER, 3 * HOUR, NEVER, NEVER]
    assert np.isnan(meta.ret[0])


def test_a_bet_must_earn_more_than_it_costs():
    bars = bars_of(QUIET, (100, 106, 99, 105), QUIET)
    labels = forward_return(bars, 1)
    fact = labels.ret[0]
    assert meta_labels(np.array([1, 0, 0]), labels, cost=0.04).value[0] == 1
    assert meta_labels(np.array([1, 0, 0]), labels, cost=fact).value[0] == 0  # above, not at
    assert meta_labels(np.array([1, 0, 0]), labels, cost=0.06).value[0] == 0
    assert meta_labels(np.array([1, 0, 0]), labels, cost=0.06).ret[0] == fact


def test_a_bar_that_touches_both_barriers_is_lost_on_either_side():
    bars, width = bars_of(QUIET, WIDE, QUIET), np.full(3, 0.1)
    for side in (1, -1):
        primary = np.full(3, side)
        labels = triple_barrier(bars, 1, 1.0, 1.0, width, side=primary)
        meta = meta_labels(primary, labels)
        assert meta.value[0] == 0
        assert meta.ret[0] == pytest.approx(-0.1)


def test_labels_that_flatter_a_short_position_are_refused():
    bars, width = bars_of(QUIET, WIDE, QUIET), np.full(3, 0.1)
    labels = triple_barrier(bars, 1, 1.0, 1.0, width)  # the stop of a long position first
    with pytest.raises(
        DataError, match=r"row 1 at 1970-01-01T02:00:00Z is for the other side .* side=primary"
    ):
        meta_labels(np.array([1, -1, 1]), labels)
    assert meta_labels(np.array([1, 0, 1]), labels).value[0] == 0
    # The control: what would have been claimed, had it not been refused.
    assert -labels.ret[0] > 0


def test_labels_without_barriers_suit_both_sides():
    bars = random_bars(60)
    for labels in (forward_return(bars, 3), direction(bars, 3, 0.01)):
        assert meta_labels(np.where(np.arange(60) % 2, 1, -1), labels).known.sum() == 57


def test_what_pays_is_one_minus_what_pays_the_other_side_where_nothing_ties():
    bars = random_bars(300, seed=2)
    labels = forward_return(bars, 4)
    long, short = (meta_labels(np.full(300, side), labels) for side in (1, -1))
    moved = labels.known & (labels.ret != 0)
    assert ((long.value + short.value)[moved] == 1).all()


def test_primary_signals_that_make_no_sense_are_refused():
    labels = forward_return(random_bars(5), 2)
    with pytest.raises(
        DataError, match=r"primary has shape \(4,\); it must have one value for each of 5 rows"
    ):
        meta_labels(np.ones(4), labels)
    for wrong in (2.0, 0.5, np.nan):
        with pytest.raises(DataError, match=r"primary is .* \(row 1\); it must be -1, 0 or 1"):
            meta_labels(np.array([1, wrong, 0, 0, 0]), labels)
    for cost in (-0.1, np.nan, np.inf):
        with pytest.raises(ConfigError, match="the cost is"):
            meta_labels(np.ones(5), labels, cost=cost)


def momentum(bars):
    close = bars.column("close")
    return np.sign(np.diff(close, prepend=close[0])).astype(np.int8)


def learn(bars):
    side = momentum(bars)
    return meta_labels(
        side, triple_barrier(bars, 8, 1.0, 1.0, np.full(len(bars), 0.01), side=side), cost=0.001
    )


def test_meta_labels_depend_on_rows_up_to_the_one_that_settles_them():
    bars = random_bars(200, seed=9)
    whole = learn(bars)
    for last in range(3, 199, 7):
        values = bars.values.copy()
        values[last + 1 :] = values[last + 1 :][::-1]
        settled = (whole.settled_at <= bars.time[last])[: last + 1]
        for altered in (bars[: last + 1], Bars(bars.time, values, OHLCV, bars.symbol, bars.interval_ns)):
            again = learn(altered)
            for name in ("value", "known", "known_at", "end", "settled_at", "side"):
                assert np.array_equal(
                    getattr(whole, name)[: last + 1][settled], getattr(again, name)[: last + 1][settled]
                )


def test_meta_labels_split_and_weigh_like_labels():
    bars = random_bars(3_000, seed=9)
    meta = learn(bars)
    split = walk_forward(bars.time, "month", train_spans=2, known_at=meta.settled_at)[0]
    train = np.arange(split.train.start, split.train.stop)
    train = train[meta.known[train]]
    assert (meta.known_at[train] < bars.time[split.test.start]).all()
    summary = summarize(meta, train)
    assert summary.known == train.size
    assert summary.down == 0.0
    assert 0 < uniqueness(meta, train)[train].mean() <= 1
    with pytest.raises(DataError, match="not of bets on it"):
        return_weights(meta, bars, train)


# --- bet sizes --------------------------------------------------------------------------------------------


def test_sizes_by_hand():
    # p = 0.8: z = 0.3 / 0.4 = 0.75, and Phi(0.75) = 0.7734.
    assert bet_size(np.array([0.8]))[0] == pytest.approx(2 * 0.77337 - 1, abs=1e-5)
    assert bet_size(np.array([0.5, 1.0, 0.0])).tolist() == [0, 1, 0]
    # Three classes, p = 0.8: z = (0.8 - 1/3) / 0.4 = 1.1667, and Phi(1.1667) = 0.8783.
    sizes = bet_size_of_classes(np.array([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]))
    assert sizes.tolist() == pytest.approx([2 * 0.87833 - 1, 1 - 2 * 0.87833, 0], abs=1e-5)


@given(st.floats(0, 1), st.sampled_from([-1, 0, 1]))
@settings(max_examples=100, deadline=None)
def test_sizes_are_those_of_the_error_function(probability, side):
    found = bet_size(np.array([probability]), np.array([side]))[0]
    assert found == pytest.approx(side * labels_twin.bet_size(probability, 2), abs=1e-12)
    assert math.copysign(1, found) == 1 or found < 0  # no minus zero


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
@settings(max_examples=100, deadline=None)
def test_sizes_of_classes_are_those_of_the_error_function(weights):
    down, none, up = probabilities = np.array(weights) / sum(weights)
    side = 0 if none == max(probabilities) or up == down else 1 if up > down else -1
    expected = side * labels_twin.bet_size(float(max(probabilities)), 3)
    assert bet_size_of_classes(probabilities[None])[0] == pytest.approx(expected, abs=1e-12)


def test_a_bet_that_does_not_pay_is_not_reversed():
    assert bet_size(np.array([0.1, 0.49]), np.array([1, -1])).tolist() == [0, 0]
    assert (np.diff(bet_size(np.linspace(0.5, 1, 50))) > 0).all()  # the surer, the larger


def test_a_tie_of_down_and_up_is_no_bet():
    tie = np.array([[0.45, 0.1, 0.45], [1 / 3, 1 / 3, 1 / 3]])
    assert bet_size_of_classes(tie).tolist() == [0, 0]


def test_an_unknown_probability_is_an_unknown_size():
    assert np.isnan(bet_size(np.array([np.nan]))[0])
    assert np.isnan(bet_size_of_classes(np.array([[0.5, np.nan, 0.5]]))[0])


def test_sizes_move_in_steps():
    sizes = bet_size(np.array([0.5, 0.53, 0.6, 0.8, 1.0]), -1.0, step=0.2)
    # 0, 0.048, 0.162, 0.547 and 1 by the formula.
    assert sizes.tolist() == pytest.approx([0, 0, -0.2, -0.6, -1])
    assert bet_size(np.array([1.0]), step=0.3)[0] == pytest.approx(0.9)
    assert bet_size(np.array([1.0]), step=0.6)[0] == 1  # twice the step would be more than all
    assert bet_size_of_classes(np.array([[0.0, 0.0, 1.0]]), step=0.25)[0] == 1


def test_sizes_that_make_no_sense_are_refused():
    for wrong in (-0.1, 1.1, np.inf):
        with pytest.raises(DataError, match="it must lie between 0 and 1"):
            bet_size(np.array([0.5, wrong]))
        with pytest.raises(DataError, match="it must lie between 0 and 1"):
            bet_size_of_classes(np.array([[0.5, wrong, 0]]))
    for shape in ((3,), (4, 2)):
        with pytest.raises(DataError, match="they must be of three classes"):
            bet_size_of_classes(np.full(shape, 0.3))
    for step in (-0.1, 1.5, np.nan):
        with pytest.raises(ConfigError, match="the step is"):
            bet_size(np.array([0.5]), step=step)


# --- bets that are open together --------------------------------------------------------------------------


def test_open_bets_are_averaged_by_hand():
    size = np.array([1.0, 0.5, np.nan, -0.5, 0.0, np.nan])
    end = np.array([2, 4, NEVER, 9, 5, 0])
    # Row 0: 1. Row 1: 1 and 0.5. Row 2: 0.5, the first is over. Row 3: 0.5 and -0.5. Row 4: -0.5 and 0.
    assert average_active(size, end).tolist() == pytest.approx([1, 0.75, 0.5, 0, -0.25, -0.5])


def test_no_bet_is_flat():
    assert average_active(np.full(3, np.nan), np.zeros(3, np.int64)).tolist() == [0, 0, 0]
    assert average_active(np.array([0.7, np.nan, np.nan]), np.array([1, 0, 0])).tolist() == [0.7, 0, 0]
    assert average_active(np.zeros(0), np.zeros(0, np.int64)).tolist() == []


@given(st.lists(st.tuples(st.floats(-1, 1) | st.just(np.nan), st.integers(1, 9)), max_size=30))
@settings(max_examples=100, deadline=None)
def test_averages_are_those_of_the_twin(bets):
    size = np.array([bet for bet, _ in bets], dtype=np.float64)
    end = np.array([row + bars for row, (_, bars) in enumerate(bets)], dtype=np.int64)
    expected = labels_twin.average_active(size.tolist(), end.tolist())
    np.testing.assert_allclose(average_active(size, end), expected, atol=1e-14)


def test_an_average_knows_no_later_bet_and_no_later_end():
    rng = np.random.default_rng(1)
    size, end = rng.uniform(-1, 1, 100), np.arange(100) + rng.integers(1, 20, 100)
    whole = average_active(size, end)
    for last in range(0, 99, 9):
        altered, later = size.copy(), end.copy()
        altered[last + 1 :] *= -1
        later[(end > last)] += 5  # bets that are still open may end whenever they like
        assert np.array_equal(average_active(altered, later)[: last + 1], whole[: last + 1])
        assert np.array_equal(average_active(size[: last + 1], end[: last + 1]), whole[: last + 1])


def test_bets_that_end_before_they_begin_are_refused():
    with pytest.raises(DataError, match="the bet of row 1 ends at row 1; it must end after it began"):
        average_active(np.array([0.5, 0.5]), np.array([1, 1]))
    with pytest.raises(DataError, match="there must be one of each per row"):
        average_active(np.array([0.5, 0.5]), np.array([1]))


# --- what may decide --------------------------------------------------------------------------------------


def of_the_house(module):
    return {origin for origin in module.origins.values() if origin.partition(".")[0] in ("market", "configs")}


def test_sizing_reaches_no_label_so_that_a_decision_may_use_it(root):
    allowed = {"configs.load.ConfigError", "market.table.DataError"}
    source = Module("market/bet_sizing.py", (root / "market" / "bet_sizing.py").read_text(encoding="utf-8"))
    assert of_the_house(source) == allowed
    assert of_the_house(Module("a.py", "from market.labels import Labels")) - allowed  # the control
