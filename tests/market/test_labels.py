"""Labels by hand, against a twin in plain Python, and under the altered-future law of what looks ahead."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError
from market import labels as labels_module
from market.bars import OHLCV, Bars
from market.label_kernels import NEVER
from market.labels import HORIZONS, Labels, direction, forward_return, horizon_bars, triple_barrier
from market.splits import label_bars, purged_train, walk_forward
from market.table import DataError
from tests.market.bars_factory import HOSTILE, HOUR, random_bars
from tests.reference import labels_twin

MINUTE = HOUR // 60


def bars_of(*rows, gaps=()):
    """Bars from (open, high, low, close); ``gaps`` are rows in front of which two bars are missing."""
    prices = np.array(rows, dtype=np.float64)
    steps = np.ones(len(rows), dtype=np.int64)
    steps[list(gaps)] = 3
    return Bars(np.cumsum(steps) * HOUR, np.column_stack([prices, np.ones(len(rows))]), OHLCV, "A/B", HOUR)


def without(bars, missing):
    """The bars without some rows: an outage."""
    there = np.ones(len(bars), dtype=bool)
    there[missing] = False
    return Bars(bars.time[there], bars.values[there], bars.names, bars.symbol, bars.interval_ns)


def barriers(bars, horizon, up=1.0, down=1.0, width=0.1, **options):
    """Triple barriers of one width for all rows, whatever the horizon."""
    volatility = np.full(len(bars), width)
    return triple_barrier(bars, horizon, up, down, volatility, sqrt_horizon=False, **options)


def trailing_volatility(bars, window=5):
    """Deviation of the last log returns, NaN while there are too few: what a caller would give."""
    returns = np.diff(np.log(bars.column("close")), prepend=np.nan)
    out = np.full(len(bars), np.nan)
    for t in range(window, len(bars)):
        out[t] = returns[t - window + 1 : t + 1].std()
    return out


def row(labels, t):
    """Everything a label says of a row."""
    return tuple(
        getattr(labels, name)[t].item() for name in ("value", "known", "known_at", "end", "settled_at")
    )


QUIET = (100.0, 101.0, 99.0, 100.0)

# --- by hand ------------------------------------------------------------------------------------------


def test_a_position_enters_at_the_next_open_and_leaves_at_the_barrier():
    # Decided at the close of row 0 (100), entered at 110: barriers at 99 and 121.
    bars = bars_of(QUIET, (110, 112, 105, 108), (108, 122, 107, 120), QUIET)
    labels = barriers(bars, 3)
    assert row(labels, 0) == (1, True, 3 * HOUR, 2, 3 * HOUR)
    assert labels.ret[0] == pytest.approx(0.1)
    assert (labels.horizon, labels.name) == (3, "triple_barrier_3")
    assert row(barriers(bars, 3, down=0.5), 0)[0] == 1  # the lower one at 104.5; the low is 105
    assert row(barriers(bars, 3, down=0.45), 0) == (-1, True, 2 * HOUR, 1, 2 * HOUR)  # at 105.05


def test_the_bar_of_the_decision_is_over():
    # Row 0 itself touched both; only what comes after counts.
    bars = bars_of((100, 200, 50, 100), QUIET, QUIET, QUIET)
    labels = barriers(bars, 2)
    assert row(labels, 0) == (0, True, 3 * HOUR, 2, 3 * HOUR)
    assert labels.ret[0] == 0.0


def test_the_first_bar_can_touch_and_a_barrier_just_touched_counts():
    for bar, value in (((100, 112.5, 99, 105), 1), ((100, 105, 87.5, 95), -1), ((100, 112.4, 87.6, 95), 0)):
        assert barriers(bars_of(QUIET, bar, QUIET), 2, width=0.125).value[0] == value


def test_the_stop_comes_first_when_one_bar_touches_both():
    bars = bars_of(QUIET, QUIET, (100, 115, 85, 100), QUIET)
    labels = barriers(bars, 3)
    assert (labels.value[0], labels.end[0]) == (-1, 2)
    assert labels.ret[0] == pytest.approx(-0.1)
    short = barriers(bars, 3, side=np.array([-1, 0, 1, -1]))
    assert (short.value[0], short.end[0]) == (1, 2)  # the upper barrier is the stop of a short position
    assert short.ret[0] == pytest.approx(0.1)
    assert (labels.side[0], *short.side) == (1, -1, 1, 1, -1)


@pytest.mark.parametrize(
    ("bar", "value", "ret"),
    [
        ((80, 120, 75, 90), -1, -0.2),  # below the lower barrier, although the upper one is touched later
        ((125, 130, 85, 100), 1, 0.25),  # above the upper one, although the stop is touched later
        ((87.5, 95, 87.5, 95), -1, -0.125),  # exactly at it
        ((112.5, 113, 80, 105), 1, 0.125),
    ],
)
def test_a_gap_through_a_barrier_pays_the_open_whatever_the_bar_does_then(bar, value, ret):
    bars = bars_of(QUIET, QUIET, bar, QUIET)
    for side in (1, -1):
        labels = barriers(bars, 3, width=0.125, side=np.full(4, side))
        assert (labels.value[0], labels.end[0]) == (value, 2)
        assert labels.ret[0] == pytest.approx(ret)


def test_the_horizon_ends_the_label_at_its_close():
    bars = bars_of(QUIET, QUIET, (100, 104, 98, 103), (103, 150, 50, 100))
    assert row(barriers(bars, 2), 0) == (0, True, 3 * HOUR, 2, 3 * HOUR)
    assert barriers(bars, 2).ret[0] == pytest.approx(0.03)
    assert row(barriers(bars, 3), 0)[0] == -1  # one bar more, and it is stopped


def test_the_last_bar_of_the_horizon_can_still_touch():
    bars = bars_of(QUIET, QUIET, (100, 111, 99, 100), QUIET)
    assert row(barriers(bars, 2), 0) == (1, True, 3 * HOUR, 2, 3 * HOUR)
    assert row(barriers(bars, 1), 0) == (0, True, 2 * HOUR, 1, 2 * HOUR)


def test_the_last_rows_wait_for_more_bars_unless_a_barrier_was_touched():
    bars = bars_of(QUIET, QUIET, (100, 111, 99, 100), QUIET)
    labels = barriers(bars, 3)
    assert labels.known.tolist() == [True, True, False, False]
    assert row(labels, 1)[3] == 2  # decided, although its horizon runs past the end
    for t in (2, 3):
        assert row(labels, t) == (0, False, NEVER, NEVER, NEVER)
        assert np.isnan(labels.ret[t])


def test_missing_bars_end_a_label_and_say_when():
    bars = bars_of(QUIET, QUIET, (100, 111, 99, 100), QUIET, QUIET, QUIET, gaps=[3])
    labels = barriers(bars, 3)
    assert row(labels, 0) == (1, True, 3 * HOUR, 2, 3 * HOUR)  # touched before the outage
    back = int(bars.time[3])
    assert row(labels, 2) == (0, False, NEVER, NEVER, back)  # its entry would be the open after the outage
    assert row(barriers(bars, 2, width=0.5), 1) == (0, False, NEVER, NEVER, back)
    assert row(barriers(bars, 1), 2) == (0, False, NEVER, NEVER, back)
    assert row(barriers(bars, 1), 3)[1]  # after it all is well
    over = barriers(bars, 2, width=0.5, across_gaps=True)
    assert row(over, 1) == (0, True, back, 3, back)


def test_a_position_held_over_missing_bars_pays_the_open_after_them():
    bars = bars_of(QUIET, QUIET, (70, 75, 65, 70), gaps=[2])
    labels = barriers(bars, 2, across_gaps=True)
    assert row(labels, 0)[:2] == (-1, True)
    assert labels.ret[0] == pytest.approx(-0.3)


def test_a_row_without_volatility_has_no_label():
    bars = bars_of(*[QUIET] * 5)
    labels = triple_barrier(bars, 1, 1.0, 1.0, np.array([np.nan, 0.1, np.nan, 0.1, np.nan]))
    assert labels.known.tolist() == [False, True, False, True, False]
    assert labels.settled_at[[0, 2, 4]].tolist() == bars.time[[0, 2, 4]].tolist()  # no bar will change that


def test_widths_grow_with_the_root_of_the_horizon_and_have_a_least():
    bars = bars_of(QUIET, *[(100, 115, 99, 100)] * 4)
    volatility = np.full(5, 0.07)  # 0.14 over four bars
    assert row(triple_barrier(bars, 4, 1.0, 1.0, volatility), 0)[0] == 1
    assert row(triple_barrier(bars, 4, 1.1, 1.0, volatility), 0)[0] == 0
    assert row(triple_barrier(bars, 4, 1.1, 1.0, volatility, sqrt_horizon=False), 0)[0] == 1
    assert row(triple_barrier(bars, 4, 0.1, 1.0, volatility, least_width=0.16), 0)[0] == 0
    assert triple_barrier(bars, 4, 0.1, 1.0, volatility, least_width=0.12).ret[0] == pytest.approx(0.12)


def test_a_market_at_rest_touches_nothing():
    bars = bars_of(*[(100, 100, 100, 100)] * 5)
    labels = triple_barrier(bars, 2, 1.0, np.inf, np.zeros(5))
    assert labels.value.tolist() == [0] * 5
    assert labels.known.tolist() == [True, True, True, False, False]


def test_a_barrier_at_infinity_is_none():
    bars = bars_of(QUIET, (100, 1000, 1, 100), QUIET)
    assert barriers(bars, 2, up=np.inf).value[0] == -1
    assert barriers(bars, 2, down=np.inf).value[0] == 1
    assert barriers(bars, 2, up=np.inf, down=np.inf).value[0] == 0


def test_distances_may_change_places_with_the_side():
    # Target two widths away, stop one: for a short position the target is the lower barrier.
    bars = bars_of(QUIET, (100, 112, 99, 100), QUIET, (100, 101, 85, 100), QUIET)
    side = np.array([1, -1, -1, -1, 1])
    up, down = np.where(side > 0, 2.0, 1.0), np.where(side > 0, 1.0, 2.0)
    labels = barriers(bars, 3, up, down, side=side)
    assert labels.value[0] == -1  # the stop at 90; the target at 120 was not reached
    assert (labels.value[1], labels.end[1]) == (0, 4)  # 85 is above its target at 80


def test_a_forward_return_runs_from_the_next_open_to_the_close_of_the_horizon():
    bars = bars_of(
        (100, 101, 99, 100), (102, 103, 101, 102), (102, 108, 101, 107.1), (107, 108, 90, 91), QUIET
    )
    labels = forward_return(bars, 2)
    assert labels.ret[0] == pytest.approx(0.05)
    assert labels.ret[1] == pytest.approx(91 / 102 - 1)
    assert labels.value.tolist() == [1, -1, -1, 0, 0]
    assert labels.known_at.tolist() == [3 * HOUR, 4 * HOUR, 5 * HOUR, NEVER, NEVER]
    assert labels.name == "return_2"
    assert not forward_return(bars_of(*[QUIET] * 3, gaps=[2]), 2).known.any()
    assert forward_return(bars_of(*[QUIET] * 3, gaps=[2]), 2, across_gaps=True).known[0]


def test_a_direction_needs_to_leave_the_dead_band():
    bars = bars_of(QUIET, *[(100, 120, 80, close) for close in (105.0, 95.0, 106.0, 94.0)])
    band = 105.0 / 100.0 - 1.0
    assert direction(bars, 1, band).value.tolist() == [0, 0, 1, -1, 0]
    assert direction(bars, 1, 0.0).value.tolist() == [1, -1, 1, -1, 0]
    column = np.array([np.nan, 0.0, 0.1, 0.0, np.nan])
    labels = direction(bars, "1h", column)
    assert labels.value.tolist() == [0, -1, 0, -1, 0]
    assert labels.known.tolist() == [False, True, True, True, False]
    assert labels.settled_at[0] == bars.time[0]
    assert labels.name == "direction_1h"


# --- horizons -----------------------------------------------------------------------------------------


def test_horizons_are_bars_or_times_of_whole_bars():
    assert [horizon_bars(text, HOUR) for text in HORIZONS] == [5, 10, 15, 20, 1, 4, 8, 24]
    assert [horizon_bars(text, 5 * MINUTE) for text in HORIZONS] == [5, 10, 15, 20, 12, 48, 96, 288]
    assert horizon_bars(7, HOUR) == 7
    assert horizon_bars("1d", 4 * HOUR) == 6


@pytest.mark.parametrize("text", ["0", "-5", "90m", "30m", "4 h", "h", "", "5.0", "1y", "²", 0, -1, 2.5])
def test_a_horizon_that_is_no_whole_number_of_bars_is_refused(text):
    with pytest.raises(ConfigError, match=r"on bars of 1h: it must be a number of bars such as 20, or .* 4h"):
        horizon_bars(text, HOUR)


# --- against the twin ---------------------------------------------------------------------------------


@st.composite
def markets(draw):
    """Bars on a coarse grid of prices, so that barriers are met exactly, both at once, and jumped over."""
    n = draw(st.integers(0, 24))
    price = st.sampled_from([80, 88, 93, 96, 100, 104, 112, 120])
    rows = []
    for _ in range(n):
        open_, close = draw(price), draw(price)
        rows.append(
            (
                open_,
                max(open_, close) + draw(st.integers(0, 12)),
                min(open_, close) - draw(st.integers(0, 12)),
                close,
            )
        )
    missing = draw(st.lists(st.integers(1, max(1, n - 1)), max_size=2)) if n > 1 else []
    bars = bars_of(*rows, gaps=missing) if n else random_bars(1)[:0]
    volatility = draw(st.lists(st.sampled_from([0.0, 0.0625, 0.125, 0.25, np.nan]), min_size=n, max_size=n))
    side = draw(st.none() | st.lists(st.sampled_from([-1, 0, 1]), min_size=n, max_size=n))
    multiple = st.sampled_from([0.5, 1.0, 2.0, np.inf])
    return bars, draw(st.integers(1, 8)), draw(multiple), draw(multiple), np.array(volatility, float), side


@given(markets(), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_the_scan_says_what_the_twin_says(market, sqrt_horizon, across_gaps):
    bars, horizon, up, down, volatility, side = market
    labels = triple_barrier(
        bars, horizon, up, down, volatility,
        side=None if side is None else np.array(side), sqrt_horizon=sqrt_horizon, across_gaps=across_gaps,
    )  # fmt: skip
    expected = labels_twin.triple_barrier(
        bars, horizon, up, down, volatility.tolist(), side, sqrt_horizon, across_gaps=across_gaps
    )
    time = [*bars.time.tolist()]
    for t, (value, end, ret, settled) in enumerate(expected):
        known_at = NEVER if end == NEVER else time[end]
        settled_at = NEVER if settled == NEVER else time[settled]
        assert row(labels, t) == (value, end != NEVER, known_at, end, settled_at)
        assert labels.ret[t] == ret if ret is not None else np.isnan(labels.ret[t])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bars_give_what_the_twin_says(name):
    bars = without(HOSTILE[name](200), [50, 51, 120])
    volatility = np.where(np.arange(len(bars)) < 5, np.nan, 0.02)
    labels = triple_barrier(bars, 10, 1.0, 2.0, volatility)
    expected = labels_twin.triple_barrier(bars, 10, 1.0, 2.0, volatility.tolist())
    found = zip(labels.value.tolist(), labels.end.tolist(), strict=True)
    assert list(found) == [(value, end) for value, end, _, _ in expected]
    assert [None if math.isnan(ret) else ret for ret in labels.ret.tolist()] == [
        ret for _, _, ret, _ in expected
    ]


# --- the altered-future law of what looks ahead -------------------------------------------------------

MAKERS = {
    "triple barrier": lambda bars: triple_barrier(bars, 6, 1.0, 1.5, trailing_volatility(bars)),
    "across gaps": lambda bars: triple_barrier(bars, 6, 1, 1, trailing_volatility(bars), across_gaps=True),
    "forward return": lambda bars: forward_return(bars, 6),
    "direction": lambda bars: direction(bars, "6h", trailing_volatility(bars)),
}
COLUMNS = ("value", "known", "known_at", "end", "ret", "settled_at", "side")


def poisoned(bars, last, seed):
    """The bars with another market, and another outage, after a row."""
    rng = np.random.default_rng(seed)
    values = bars.values.copy()
    values[last + 1 :, :4] *= np.exp(rng.normal(0, 0.1, (len(bars) - last - 1, 1)))
    time = bars.time.copy()
    time[last + 1 :] += HOUR * np.cumsum(rng.integers(0, 5, len(bars) - last - 1) == 0)
    return Bars(time, values, bars.names, bars.symbol, bars.interval_ns)


def check_settled(make, bars, last, other):
    """What is settled by a row does not change with the rows after it, and nothing else claims to be."""
    whole, moment = make(bars), bars.time[last]
    for altered in (bars[: last + 1], other):
        again = make(altered)
        settled = (whole.settled_at <= moment)[: last + 1]
        assert np.array_equal(settled, (again.settled_at <= moment)[: last + 1])
        for name in COLUMNS:
            one, two = getattr(whole, name)[: last + 1], getattr(again, name)[: last + 1]
            assert np.array_equal(one[settled], two[settled], equal_nan=name == "ret"), name
    prefix = make(bars[: last + 1])
    assert (prefix.settled_at[~settled] == NEVER).all()
    assert not prefix.known[~settled].any()


def market_with_outages(n=160, seed=3):
    return without(random_bars(n, seed=seed), [40, 41, 90])


@pytest.mark.parametrize("kind", MAKERS)
def test_a_label_depends_on_rows_up_to_the_one_that_settles_it_and_on_none_later(kind):
    bars = market_with_outages()
    for last in range(0, len(bars) - 1, 4):
        check_settled(MAKERS[kind], bars, last, poisoned(bars, last, seed=last))


def known_a_bar_early(bars):
    labels = forward_return(bars, 6)
    earlier = np.where(labels.known, labels.known_at - HOUR, NEVER)
    wrong = dataclasses.replace(labels)
    for name in ("known_at", "settled_at"):
        object.__setattr__(wrong, name, np.where(labels.known, earlier, getattr(labels, name)))
    return wrong


def one_bar_too_far(bars):
    labels, longer = forward_return(bars, 6), forward_return(bars, 7)
    ret = np.where(labels.known & longer.known, longer.ret, labels.ret)
    return dataclasses.replace(labels, ret=ret)


def width_of_the_whole_sample(bars):
    return triple_barrier(bars, 6, 1.0, 1.0, np.full(len(bars), trailing_volatility(bars)[5:].mean()))


def closed_at_the_last_bar(bars):
    # What pandas code does with labels that run past the end: it fills in the last bar.
    labels = forward_return(bars, 6)
    pending = (labels.settled_at == NEVER) & (np.arange(len(bars)) < len(bars) - 1)
    end = np.where(pending, len(bars) - 1, labels.end)
    at = np.where(pending, bars.time[-1], labels.known_at)
    ret = np.where(pending, bars.column("close")[-1] / bars.column("close") - 1, labels.ret)
    return dataclasses.replace(
        labels, known=labels.known | pending, end=end, known_at=at, ret=ret,
        settled_at=np.where(pending, at, labels.settled_at),
    )  # fmt: skip


@pytest.mark.parametrize(
    "make", [known_a_bar_early, one_bar_too_far, width_of_the_whole_sample, closed_at_the_last_bar]
)
def test_labels_that_know_more_than_they_say_are_caught(make):
    bars = market_with_outages()
    caught = 0
    for last in range(12, len(bars) - 1, 12):
        try:
            check_settled(make, bars, last, poisoned(bars, last, seed=last))
        except AssertionError:
            caught += 1
    assert caught == len(range(12, len(bars) - 1, 12))


# --- splits -------------------------------------------------------------------------------------------


def check_no_training_label_saw_the_test(make, bars, rows, first_test_row):
    """Training labels are the same whatever happens from the first test row on (that they saw, or not)."""
    before = make(bars)
    after = make(poisoned(bars, first_test_row - 1, seed=11))
    train = rows[before.known[rows]]
    assert train.size
    assert (before.known_at[train] < bars.time[first_test_row]).all()
    for name in COLUMNS:
        assert np.array_equal(getattr(before, name)[train], getattr(after, name)[train]), name


def months_with_an_early_outage():
    return without(random_bars(4_000, seed=5), [300, 301])


def test_walk_forward_leaves_no_training_label_that_saw_the_test():
    bars, make = months_with_an_early_outage(), MAKERS["triple barrier"]
    labels = make(bars)
    splits = walk_forward(bars.time, "month", train_spans=2, known_at=labels.settled_at, embargo=0)
    assert len(splits) >= 2
    for split in splits:
        rows = np.arange(split.train.start, split.train.stop)
        check_no_training_label_saw_the_test(make, bars, rows, split.test.start)
        assert split.purge <= 6
        assert split.train.stop == split.test.start - split.purge


def test_a_split_without_purge_lets_labels_see_the_test():
    bars, make = months_with_an_early_outage(), MAKERS["triple barrier"]
    split = walk_forward(bars.time, "month", train_spans=2)[0]
    rows = np.arange(split.train.start, split.train.stop)
    with pytest.raises(AssertionError):
        check_no_training_label_saw_the_test(make, bars, rows, split.test.start)


def test_purged_folds_leave_no_training_label_that_meets_the_test():
    bars = months_with_an_early_outage()
    labels = MAKERS["triple barrier"](bars)
    test = slice(1_000, 1_500)
    rows = purged_train(bars.time, labels.settled_at, None, test)
    end = labels.settled_at[test].max()
    assert rows[-1] == len(bars) - 1  # rows after the test train as well
    assert all(labels.settled_at[r] < bars.time[test.start] or bars.time[r] > end for r in rows.tolist())


def test_splits_need_the_time_a_row_was_settled_or_an_early_outage_purges_everything_after_it():
    bars = months_with_an_early_outage()
    labels = forward_return(bars, 6)
    unknown = int(np.argmin(labels.known))
    assert 290 < unknown < 300
    honest = walk_forward(bars.time, "month", train_spans=2, known_at=labels.settled_at)[0]
    wasteful = walk_forward(bars.time, "month", train_spans=2, known_at=labels.known_at)[0]
    assert honest.purge == 6
    assert wasteful.train.stop == unknown
    assert label_bars(bars.time[:-6], labels.settled_at[:-6]) == 6


def test_what_may_teach_at_a_time_is_what_is_known_by_then():
    bars = bars_of(*[QUIET] * 6)
    labels = forward_return(bars, 2)
    assert labels.known_by(int(bars.time[3])).tolist() == [True, True, False, False, False, False]
    assert not labels.known_by(int(bars.time[1])).any()


# --- the record ---------------------------------------------------------------------------------------


def test_labels_of_no_bars_and_of_one_bar():
    for n in (0, 1):
        labels = forward_return(random_bars(1)[:n], 5)
        assert len(labels) == n
        assert not labels.known.any()


def test_labels_cannot_be_changed_afterwards():
    labels = barriers(bars_of(*[QUIET] * 4), 2)
    for name in (*COLUMNS, "time"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(labels, name)[0] = 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"value": [2, 0, 0, 0]}, "row 0 .* -1, 0 or 1"),
        ({"end": [0, 3, NEVER, NEVER]}, "row 0 .* a row after its own"),
        ({"end": [9, 3, NEVER, NEVER]}, "row 0 .* a row after its own"),
        ({"end": [3, 3, NEVER, NEVER]}, "row 0 .* at the close of the row it ends at"),
        ({"ret": [np.nan, 0, np.nan, np.nan]}, "row 0 .* needs a return"),
        ({"settled_at": [4 * HOUR, 4 * HOUR, NEVER, NEVER]}, "row 0 .* settled when it is known"),
        ({"settled_at": [3 * HOUR, 4 * HOUR, HOUR, NEVER]}, "row 2 .* before its row"),
        ({"value": [0, 0, 1, 0]}, "row 2 .* without a label"),
        ({"known_at": [3 * HOUR, 4 * HOUR, 4 * HOUR, NEVER]}, "row 2 .* without a label"),
        ({"ret": [0, 0, 0]}, r"ret is float64 \(3,\); it must be float64 \(4,\)"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change, reason):
    labels = forward_return(bars_of(*[QUIET] * 4), 2)
    changed = {name: np.array(values, dtype=getattr(labels, name).dtype) for name, values in change.items()}
    with pytest.raises(DataError, match=reason):
        dataclasses.replace(labels, **changed)


def test_columns_that_are_not_given_have_defaults():
    full = forward_return(bars_of(*[QUIET] * 4), 2)
    fields = ("time", "value", "known", "known_at", "end", "ret", "horizon", "name")
    labels = Labels(*(getattr(full, field) for field in fields))
    assert labels.settled_at.tolist() == full.known_at.tolist()
    assert labels.side.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("settings", "error", "reason"),
    [
        ({"up": 0.0}, ConfigError, "up is 0 widths; it must be above 0"),
        ({"down": np.nan}, ConfigError, "down is nan widths"),
        ({"up": np.array([1.0, 1.0, -2.0, 1.0])}, ConfigError, "up is -2 widths"),
        ({"up": np.ones(3)}, DataError, r"up has shape \(3,\)"),
        ({"least_width": 0.0}, ConfigError, "least width is 0"),
        ({"volatility": np.ones(3)}, DataError, "volatility has shape"),
        ({"volatility": np.array([0, -1.0, 0, 0])}, DataError, r"volatility is -1 at .* \(row 1\)"),
        ({"volatility": np.array([0, 0, np.inf, 0])}, DataError, r"volatility is inf at .* \(row 2\)"),
        ({"side": np.array([1, 1, 1])}, DataError, "side has shape"),
        (
            {"side": np.array([1, 0.5, 0, 0])},
            DataError,
            r"side is 0.5 at .* \(row 1\); it must be -1, 0 or 1",
        ),
    ],
)
def test_barriers_that_make_no_sense_are_refused(settings, error, reason):
    given = {"up": 1.0, "down": 1.0, "volatility": np.full(4, 0.1)} | settings
    with pytest.raises(error, match=reason):
        triple_barrier(bars_of(*[QUIET] * 4), 2, **given)


@pytest.mark.parametrize("band", [-0.1, np.nan, np.inf])
def test_a_band_that_makes_no_sense_is_refused(band):
    with pytest.raises(ConfigError, match="the band is"):
        direction(bars_of(*[QUIET] * 4), 2, band)


# --- bugs that the tests above must notice ------------------------------------------------------------


def test_a_scan_that_takes_the_target_first_fails_the_twin(monkeypatch):
    def target_first(*arguments):
        arguments = list(arguments)
        arguments[7] = (-np.asarray(arguments[7]) + (np.asarray(arguments[7]) == 0)).astype(np.int8)
        original(*arguments)

    original = labels_module.barrier_scan
    monkeypatch.setattr(labels_module, "barrier_scan", target_first)
    bars = bars_of(QUIET, (100, 115, 85, 100), QUIET)
    wrong = barriers(bars, 2)
    expected = labels_twin.triple_barrier(bars, 2, 1.0, 1.0, [0.1] * 3, sqrt_horizon=False)
    assert (wrong.value[0], expected[0][0]) == (1, -1)


# --- real bars ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bitcoin(shared_data):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(shared_data / "ohlcv" / "btcusdt_binance_spot_1h.parquet")
    opened = table["timestamp"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    values = np.column_stack([table[name].to_numpy() for name in OHLCV])
    return Bars(opened + HOUR, values, OHLCV, symbol="BTC/USDT", interval_ns=HOUR)


def test_on_real_bars_outages_cost_few_labels_and_purges_stay_short(bitcoin):
    labels = forward_return(bitcoin, "24h")
    outages = np.flatnonzero(np.diff(bitcoin.time) > HOUR) + 1
    assert outages.size == 28  # as many as the data folder documents
    lost = set().union(*(range(first - 24, first) for first in outages.tolist()))
    pending = set(range(len(bitcoin) - 24, len(bitcoin)))
    assert set(np.flatnonzero(~labels.known).tolist()) == lost | pending
    splits = walk_forward(bitcoin.time, "quarter", train_spans=4, known_at=labels.settled_at)
    assert len(splits) > 20
    assert {split.purge for split in splits[:-1]} <= set(range(20, 25))


def test_on_real_bars_the_barriers_follow_the_volatility(bitcoin):
    bars = bitcoin[:8_000]
    labels = triple_barrier(bars, "8h", 1.0, 1.0, trailing_volatility(bars, 24))
    shares = np.bincount(labels.value[labels.known] + 1) / labels.known.sum()
    assert (shares > 0.15).all()
    touched = labels.known & (labels.value != 0)
    assert np.array_equal(np.sign(labels.ret[touched]), labels.value[touched])
