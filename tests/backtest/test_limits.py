"""Limits of the account: what binds a decision, and what halts it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import kernels
from backtest.costs import Costs, ImpactBucket
from backtest.limits import RiskLimits
from backtest.simulate import simulate
from configs.load import ConfigError, validate
from market.bars import Bars
from market.table import Table
from tests.reference import account as reference
from tests.reference import cases

HOUR = 3_600_000_000_000
DAY = 24 * HOUR
FREE = Costs(fee_bps=0, half_spread_bps=0, impact=(ImpactBucket(turnover=0, impact_bps=0),))


def bars_of(rows, interval=HOUR, start=0):
    values = np.column_stack([np.array(rows, dtype=float), np.full(len(rows), 1e6)])
    time = start + interval * np.arange(1, len(rows) + 1)
    return Bars(time, values, ("open", "high", "low", "close", "volume"), "TEST/USD", interval)


def traded(rows, exposure, limits, interval=HOUR, costs=FREE):
    bars = bars_of(rows, interval)
    targets = Table(bars.time, np.array(exposure, dtype=float)[:, None], ("exposure",))
    return simulate(targets, bars, costs, limits, capital=1.0)


def closes(*prices):
    """Return bars that open at the close before and have no wicks."""
    opened = (prices[0], *prices[:-1])
    return [(o, max(o, c), min(o, c), c) for o, c in zip(opened, prices, strict=True)]


def held(result):
    return (result.curve.column("exposure") != 0).tolist()


def test_bounds_are_infinite_where_a_limit_is_off():
    limits = RiskLimits(max_exposure=0.5, stop=None, take=0.3, daily_loss=None, max_drawdown=0.2)
    assert limits.bounds().tolist() == [0.5, -0.5, math.inf, 0.3, math.inf, math.inf, 0.2]
    assert RiskLimits(long_only=True, trail=0.1).bounds().tolist()[1:5] == [0.0, 0.25, math.inf, 0.1]


@pytest.mark.parametrize(
    "wrong", [{"stop": 1.0}, {"stop": 0}, {"max_exposure": 0}, {"max_drawdown": -0.1}, {"daily_los": 0.1}]
)
def test_impossible_limits_are_refused(wrong):
    with pytest.raises(ConfigError):
        validate(RiskLimits, wrong, "limits")


def test_a_drawdown_at_a_close_acts_on_the_next_open_and_halts_for_good():
    rows = closes(100, 100, 100, 89, 80, 160, 160, 200)
    result = traded(rows, [1] * 8, RiskLimits(stop=None, max_drawdown=0.1))
    # Seen at the close of 89, sold at the open of the next bar, which is 89 as well.
    assert result.curve.column("equity") == pytest.approx([1, 1, 1, 0.89, 0.89, 0.89, 0.89, 0.89], rel=1e-15)
    assert held(result) == [False, True, True, True, False, False, False, False]
    assert result.trades["exit_price"].tolist() == [89.0]


def test_a_drawdown_counts_from_the_peak_of_the_closes_and_not_from_the_start():
    rows = closes(100, 100, 150, 134, 134)
    assert held(traded(rows, [1] * 5, RiskLimits(stop=None, max_drawdown=0.1)))[4] is False
    # The high of a bar is not a peak of the account.
    rows = [*closes(100, 100), (100, 160, 100, 140), (140, 140, 134, 134), (134, 134, 134, 134), (134,) * 4]
    result = traded(rows, [1] * 6, RiskLimits(stop=None, max_drawdown=0.1))
    assert held(result)[4] is True


def test_a_drawdown_of_exactly_the_limit_halts():
    rows = closes(100, 100, 75, 75, 75)
    assert held(traded(rows, [1] * 5, RiskLimits(stop=None, max_drawdown=0.25)))[3:] == [False, False]


def test_a_drawdown_inside_a_bar_that_recovers_by_the_close_does_not_halt():
    rows = [*closes(100, 100), (100, 100, 50, 100), *closes(100, 100, 100)]
    result = traded(rows, [1] * 6, RiskLimits(stop=None, max_drawdown=0.1))
    assert held(result) == [False, True, True, True, True, False]


def test_a_daily_loss_halts_at_the_next_open_and_re_arms_with_the_next_utc_day():
    # Bars of six hours: four a day. The first day loses 6 % in its third bar.
    rows = closes(100, 100, 94, 94, 94, 94, 94, 94, 94)
    result = traded(rows, [1] * 9, RiskLimits(stop=None, daily_loss=0.05), interval=6 * HOUR)
    # Bar 3 is flat; the close of bar 3 still belongs to the first day, so bar 4 is flat as well; the close
    # of bar 4 is in the second day and decides for bar 5.
    assert held(result) == [False, True, True, False, False, True, True, True, False]
    assert result.trades["exit_price"].tolist() == [94.0, 94.0]


def test_the_bar_that_closes_at_midnight_belongs_to_the_day_that_ends():
    # The fall is in the bar that closes at midnight: it is measured against the day that ends.
    rows = closes(100, 100, 98, 94, 94, 94, 94)
    result = traded(rows, [1] * 7, RiskLimits(stop=None, daily_loss=0.05), interval=6 * HOUR)
    assert held(result) == [False, True, True, True, False, True, False]
    # Half of the fall a bar later is another day's: nothing halts.
    rows = closes(100, 100, 98, 97, 93, 93, 93)
    result = traded(rows, [1] * 7, RiskLimits(stop=None, daily_loss=0.05), interval=6 * HOUR)
    assert held(result) == [False, True, True, True, True, True, False]


def test_a_daily_loss_counts_from_the_equity_at_the_end_of_the_day_before():
    # The second day begins at 200: five per cent of it are ten, and a gap in its first bar counts.
    rows = [*closes(100, 100, 150, 200), (189, 189, 189, 189), (189,) * 4, (189,) * 4]
    result = traded(rows, [1] * 7, RiskLimits(stop=None, daily_loss=0.05), interval=6 * HOUR)
    assert held(result) == [False, True, True, True, True, False, False]


def test_a_daily_loss_halts_for_the_rest_of_the_day_even_if_the_exit_fills_better():
    # Down 6 % at a close; the next open is 3 % better, so the account ends the exit down 3 %.
    rows = [*closes(100, 100, 94), (97, 97, 97, 97), *closes(97, 97, 97, 97)]
    result = traded(rows, [1] * 8, RiskLimits(stop=None, daily_loss=0.05))
    assert held(result) == [False, True, True, False, False, False, False, False]


def test_limits_of_stop_and_target_bind_targets_that_ask_for_more():
    rows = [*closes(100, 100), (100, 100, 70, 75), *closes(75, 75)]
    result = traded(rows, [1, 1, 0, 0, 0], RiskLimits(stop=0.25))
    assert result.trades["exit_price"].tolist() == [75.0]
    rows = [*closes(100, 100), (100, 140, 100, 130), *closes(130, 130)]
    result = traded(rows, [1, 1, 0, 0, 0], RiskLimits(stop=None, take=0.25))
    assert result.trades["exit_price"].tolist() == [125.0]


def test_exposure_never_passes_the_limit_at_a_fill():
    wanted = np.random.default_rng(3).normal(0, 4, 100)
    for cap in (0.2, 1.0, 3.0):
        result = traded(closes(*[100.0] * 100), wanted, RiskLimits(stop=None, max_exposure=cap))
        exposure = result.curve.column("exposure")[1:-1]
        assert exposure == pytest.approx(np.clip(wanted[:-2], -cap, cap), rel=1e-14)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.2))
def test_k3_a_drawdown_passes_the_limit_by_no_more_than_a_bar_and_its_costs(seed, limit):
    rng = np.random.default_rng(seed)
    prices = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 200)))
    result = traded(closes(*prices), rng.choice([-1.0, 1.0], 200), RiskLimits(stop=None, max_drawdown=limit))
    equity = result.curve.column("equity")
    drawdown = 1 - equity / np.maximum.accumulate(np.maximum(equity, 1.0))
    first = np.argmax(drawdown >= limit) if (drawdown >= limit).any() else len(equity) - 1
    assert (drawdown[:first] < limit).all()
    assert np.allclose(equity[first + 1 :], equity[first], rtol=1e-12)


def test_k1_a_limit_that_cannot_be_compared_halts():
    n = 4
    targets = np.tile([1.0, math.inf, math.inf], (n, 1))
    prices = np.full((n, 4), 100.0)
    for place in (5, 6):
        bounds = np.array([1.0, -1.0, math.inf, math.inf, math.inf, 0.1, 0.1])
        bounds[place] = math.nan
        case = reference.Scenario(
            targets, prices, reference.terms_of(prices), bounds, np.array(reference.Venue()), np.zeros((2, 8))
        )
        done = cases.run(case, kernels.simulate_targets)
        assert done.trades == []
        assert (done.curve[:, 0] == 1).all()
