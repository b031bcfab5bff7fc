import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backtest import metrics
from tests.reference import metrics as naive

HOURLY = 8760.0

ON_RETURNS = ("total_return", "max_drawdown", "drawdown_duration", "omega", "ulcer", "var_95", "cvar_95")
ANNUAL = ("annual_return", "annual_volatility", "sharpe", "sortino", "calmar")
ON_TRADES = ("hit_rate", "profit_factor", "expectancy")

# Multiples of 1/4096: sums and differences of returns are then exact, so that both sides see the same ties.
returns_arrays = arrays(
    np.float64,
    st.integers(0, 60),
    elements=st.integers(-2000, 2000).map(lambda k: k / 4096),
)


def close(found, expected):
    return found == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


@given(returns_arrays)
@settings(max_examples=150, deadline=None)
def test_every_measure_equals_its_plain_python_twin(returns):
    values = returns.tolist()
    for name in ON_RETURNS + ON_TRADES:
        assert close(getattr(metrics, name)(returns), getattr(naive, name)(values)), name
    for name in ANNUAL:
        assert close(getattr(metrics, name)(returns, 250.0), getattr(naive, name)(values, 250.0)), name
    assert close(
        metrics.annual_turnover(abs(returns), HOURLY), naive.annual_turnover([abs(v) for v in values], HOURLY)
    )
    assert close(metrics.time_in_market(returns), naive.time_in_market(values))
    if not values or abs(naive.quantile(values, 0.05)) > 1e-9:  # an interpolated 0 may be rounded to 1e-18
        assert close(metrics.tail_ratio(returns), naive.tail_ratio(values))


def test_four_bars_by_hand():
    returns = np.array([0.10, -0.20, 0.05, 0.15])
    assert metrics.total_return(returns) == pytest.approx(1.1 * 0.8 * 1.05 * 1.15 - 1)
    # equity 1.1, 0.88, 0.924, 1.0626: the peak of 1.1 is never passed again
    assert metrics.max_drawdown(returns) == pytest.approx(-0.2)
    assert metrics.drawdown_duration(returns) == 3
    assert metrics.omega(returns) == pytest.approx(0.30 / 0.20)
    mean = 0.1 / 4
    assert metrics.sharpe(returns, 4) == pytest.approx(
        mean / math.sqrt((0.075**2 + 0.225**2 + 0.025**2 + 0.125**2) / 3) * 2
    )
    assert metrics.sortino(returns, 4) == pytest.approx(mean / math.sqrt(0.04 / 4) * 2)
    assert metrics.annual_return(returns, 2) == pytest.approx(math.sqrt(1.0626) - 1)
    assert metrics.calmar(returns, 2) == pytest.approx((math.sqrt(1.0626) - 1) / 0.2)
    assert metrics.ulcer(returns) == pytest.approx(
        math.sqrt((0.2**2 + 0.16**2 + (1 - 1.0626 / 1.1) ** 2) / 4)
    )


def test_the_first_bar_can_be_a_drawdown_from_the_starting_capital():
    assert metrics.max_drawdown(np.array([-0.1, 0.05])) == pytest.approx(-0.1)


def test_trades_by_hand():
    pnl = np.array([10.0, -4.0, 6.0, 0.0])
    assert metrics.hit_rate(pnl) == 0.5
    assert metrics.profit_factor(pnl) == 4.0
    assert metrics.expectancy(pnl) == 3.0


def test_expected_shortfall_averages_exactly_five_percent():
    returns = np.array([-0.10, -0.06] + [0.0] * 28)  # 5 % of 30 bars is one bar and a half
    assert metrics.cvar_95(returns) == pytest.approx((-0.10 + 0.5 * -0.06) / 1.5)
    # averaging everything at or below a quantile of 0 would dilute it to -0.16 / 30
    mostly_flat = np.array([-0.10] + [0.0] * 39)
    assert metrics.var_95(mostly_flat) == 0.0
    assert metrics.cvar_95(mostly_flat) == pytest.approx(-0.05)


def test_tail_measures_of_gains_only_are_zero_not_positive():
    gains = np.linspace(0.01, 0.02, 40)
    assert metrics.var_95(gains) == metrics.cvar_95(gains) == metrics.max_drawdown(gains) == 0.0


def test_exposure_in_several_assets_counts_a_bar_once():
    exposure = np.array([[0.0, 0.0], [0.5, 0.0], [0.5, -0.5], [0.0, 0.1]])
    assert metrics.time_in_market(exposure) == 0.75


def test_ruin_is_final():
    returns = np.array([0.5, -1.2, 0.5])
    assert metrics.total_return(returns) == -1.0
    assert metrics.max_drawdown(returns) == -1.0
    assert metrics.annual_return(returns, HOURLY) == -1.0


@pytest.mark.parametrize("returns", [np.zeros(50), np.full(50, 0.1), np.full(7, -0.003)])
def test_returns_that_never_move_have_no_sharpe_ratio(returns):
    assert math.isnan(metrics.sharpe(returns, HOURLY))
    assert metrics.annual_volatility(returns, HOURLY) == 0.0
    assert np.full(50, 0.1).std(ddof=1) > 0  # the trap: rounding alone would make a ratio of 1e16


def test_undefined_figures_are_nan_and_none_in_json():
    empty = np.array([])
    record = metrics.measure(empty, empty, empty, empty, HOURLY)
    assert record.total_return == 0.0
    assert record.max_drawdown == 0.0
    assert math.isnan(record.sharpe)
    document = json.loads(json.dumps(record.to_dict(), allow_nan=False))
    assert document["sharpe"] is None
    assert document["profit_factor"] is None
    assert document["n_trades"] == 0
    assert document["bars_per_year"] == HOURLY


def test_growth_of_one_bar_that_overflows_is_not_defined():
    assert math.isnan(metrics.annual_return(np.array([1e6]), 1e6))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_return_that_is_not_finite_is_refused_with_its_row(bad):
    with pytest.raises(ValueError, match=r"row 1 is (nan|inf)"):
        metrics.sharpe(np.array([0.1, bad]), HOURLY)


def test_the_year_is_never_guessed():
    with pytest.raises(ValueError, match="bars_per_year is 0"):
        metrics.sharpe(np.array([0.1, 0.2]), 0)


def test_tables_on_different_clocks_are_refused():
    with pytest.raises(ValueError, match="2, 3 and 2 rows"):
        metrics.measure(np.zeros(2), np.zeros(3), np.zeros(0), np.zeros(2), HOURLY)


def test_measure_collects_what_the_functions_say():
    random = np.random.default_rng(5)
    returns, exposure = random.normal(0.0003, 0.01, 400), np.sign(random.normal(size=400))
    turnover, pnl = random.random(400) * 0.1, random.normal(1, 5, 30)
    record = metrics.measure(returns, exposure, pnl, turnover, HOURLY)
    for name in ("total_return", "max_drawdown", "var_95", "cvar_95"):
        assert getattr(record, name) == getattr(metrics, name)(returns)
    for name in ANNUAL:
        assert getattr(record, name) == getattr(metrics, name)(returns, HOURLY)
    for name in ("hit_rate", "profit_factor"):
        assert getattr(record, name) == getattr(metrics, name)(pnl)
    assert record.turnover == pytest.approx(turnover.mean() * HOURLY)
    assert (record.n_trades, record.n_bars, record.time_in_market) == (30, 400, 1.0)
    assert record.cvar_95 < record.var_95 < 0 < record.annual_volatility


def test_planted_mistakes_would_be_seen():
    # ddof 0, 252 days for crypto, a geometric mean: each leaves the tolerance of `close`.
    returns = np.random.default_rng(0).normal(0.001, 0.02, 60)
    right = metrics.sharpe(returns, HOURLY)
    assert not close(right, returns.mean() / returns.std() * math.sqrt(HOURLY))
    assert not close(right, returns.mean() / returns.std(ddof=1) * math.sqrt(252 * 24))
    assert not close(right, np.expm1(np.log1p(returns).mean()) / returns.std(ddof=1) * math.sqrt(HOURLY))


@pytest.fixture
def year_of_days():
    return np.random.default_rng(11).standard_t(4, 400) * 0.01 + 0.0005


def test_empyrical_agrees_where_the_conventions_match(year_of_days):
    empyrical = pytest.importorskip("empyrical", reason="empyrical-reloaded (extra reports) is not installed")
    r = year_of_days
    pairs = [
        (metrics.total_return(r), empyrical.cum_returns_final(r)),
        (metrics.annual_return(r, 252), empyrical.annual_return(r)),
        (metrics.annual_volatility(r, 252), empyrical.annual_volatility(r)),
        (metrics.sharpe(r, 252), empyrical.sharpe_ratio(r)),
        (metrics.sortino(r, 252), empyrical.sortino_ratio(r)),
        (metrics.calmar(r, 252), empyrical.calmar_ratio(r)),
        (metrics.omega(r), empyrical.omega_ratio(r)),
        (metrics.max_drawdown(r), empyrical.max_drawdown(r)),
        (metrics.var_95(r), empyrical.value_at_risk(r)),
        (metrics.cvar_95(r), empyrical.conditional_value_at_risk(r)),  # 5 % of 400 bars is a whole number
        (metrics.tail_ratio(r), empyrical.tail_ratio(r)),
    ]
    for ours, theirs in pairs:
        assert ours == pytest.approx(theirs, rel=1e-10)


def test_quantstats_agrees_where_the_conventions_match(year_of_days):
    stats = pytest.importorskip("quantstats.stats", reason="quantstats (extra reports) is not installed")
    pandas = pytest.importorskip("pandas")
    r = pandas.Series(year_of_days, index=pandas.date_range("2021-01-01", periods=year_of_days.size))
    assert metrics.sharpe(year_of_days, 365) == pytest.approx(stats.sharpe(r, periods=365), rel=1e-10)
    assert metrics.sortino(year_of_days, 365) == pytest.approx(stats.sortino(r, periods=365), rel=1e-10)
    assert metrics.annual_volatility(year_of_days, 365) == pytest.approx(
        stats.volatility(r, periods=365), rel=1e-10
    )
    assert metrics.max_drawdown(year_of_days) == pytest.approx(stats.max_drawdown(r), rel=1e-10)
