import doctest
import json
import math
import warnings
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backtest import metrics
from market.bars import NS_PER_SECOND, NS_PER_YEAR
from tests.reference import metrics as naive

HOURLY = 8760.0

# Multiples of 1/4096: sums and differences of returns are then exact, so that both sides see the same ties.
grid = st.integers(-2000, 2000).map(lambda k: k / 4096)


def series(least=0, most=60, elements=grid):
    return arrays(np.float64, st.integers(least, most), elements=elements)


def close(found, expected):
    return found == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


def at_least(above, below):
    return above >= below - 1e-9 * (1 + abs(below))


# The same as plain Python, and the mistakes that this must see


def test_every_metric_equals_its_plain_python_twin():
    assert naive.disagreements(metrics, close) == []


@given(series())
@settings(max_examples=100, deadline=None)
def test_every_metric_equals_its_plain_python_twin_on_any_series(values):
    for name in naive.ON_RETURNS + naive.ON_TRADES + naive.ON_EXPOSURES:
        assert close(getattr(metrics, name)(values), getattr(naive, name)(values.tolist())), name
    for name in naive.ANNUAL:
        assert close(getattr(metrics, name)(values, 250.0), getattr(naive, name)(values.tolist(), 250.0)), (
            name
        )


@pytest.mark.parametrize(
    ("metric", "mistake"),
    [pytest.param(metric, wrong, id=f"{metric}: {label}") for metric, label, wrong in naive.mistakes()],
)
def test_a_planted_mistake_is_seen(metric, mistake):
    planted = SimpleNamespace(**vars(metrics) | {metric: mistake})
    assert naive.disagreements(planted, close) == [metric]


def test_every_metric_has_planted_mistakes():
    assert {metric for metric, _, _ in naive.mistakes()} == set(naive.cases())
    taken_apart = {"turnover": "annual_turnover"}
    counted = {"n_trades", "n_bars", "bars_per_year"}
    names = {taken_apart.get(field.name, field.name) for field in fields(metrics.Metrics)} - counted
    assert names == set(naive.cases())


# By hand


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


# Two years of four bars. A long trade of three bars makes 10 of a capital of 100, a half short one of two
# bars then loses 6.05 of 110. Equity: 100, 110, 88, 110, 110, 99, 103.95, 103.95.
RETURNS = np.array([0.0, 0.10, -0.20, 0.25, 0.0, -0.10, 0.05, 0.0])
EXPOSURE = np.array([0.0, 1.0, 1.0, 1.0, 0.0, -0.5, -0.5, 0.0])
TURNOVER = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 0.5, 0.0, 0.5])
PNL = np.array([10.0, -6.05])
BY_HAND = {
    "total_return": 0.0395,
    "annual_return": math.sqrt(1.0395) - 1,
    "annual_volatility": math.sqrt(0.12375 / 7 * 4),  # squares 0.125, less 8 times the mean of 0.0125 squared
    "sharpe": 0.0125 / math.sqrt(0.12375 / 7) * 2,
    "sortino": 0.0125 / math.sqrt(0.05 / 8) * 2,
    "calmar": (math.sqrt(1.0395) - 1) / 0.2,
    "omega": 0.40 / 0.30,
    "max_drawdown": -0.2,
    "drawdown_duration": 3,  # the last three bars; the deepest drawdown lasts one
    "ulcer": math.sqrt((0.2**2 + 0.1**2 + 2 * 0.055**2) / 8),
    "var_95": -0.2 + 0.35 * 0.1,  # 0.05 * 7 bars into the sorted returns
    "cvar_95": -0.2,  # 5 % of 8 bars is less than one
    "tail_ratio": (0.1 + 0.65 * 0.15) / 0.165,
    "n_trades": 2,
    "hit_rate": 0.5,
    "profit_factor": 10 / 6.05,
    "expectancy": 3.95 / 2,
    "worst_trade": -6.05,
    "losing_streak": 1,
    "turnover": 1.5,
    "time_in_market": 5 / 8,
    "gross_exposure": 0.5,
    "net_exposure": 0.25,
    "n_bars": 8,
    "bars_per_year": 4.0,
}


def wrong_fields(measure):
    """Names of the fields that a `measure` gets wrong on the account above."""
    found = measure(RETURNS, EXPOSURE, PNL, TURNOVER, 4).to_dict()
    assert list(found) == list(BY_HAND)
    return {name for name, value in found.items() if not close(value, BY_HAND[name])}


def test_the_record_of_eight_bars_by_hand():
    assert wrong_fields(metrics.measure) == set()


def with_fields(**wrong):
    return lambda *given: replace(metrics.measure(*given), **wrong)


RISK = {"sharpe", "sortino", "calmar", "max_drawdown", "annual_volatility", "ulcer", "omega"}


@pytest.mark.parametrize(
    ("measure", "seen"),
    [
        pytest.param(
            lambda r, e, pnl, t, year: metrics.measure(r, e, r, t, year),
            {"n_trades", "hit_rate", "profit_factor", "expectancy", "worst_trade"},
            id="trades are bars",
        ),
        pytest.param(
            lambda r, e, pnl, t, year: metrics.measure(pnl / 100, e[:2], pnl, t[:2], year),
            RISK | {"annual_return", "total_return", "n_bars", "var_95", "cvar_95", "tail_ratio"},
            id="bars are trades",
        ),
        pytest.param(
            lambda r, e, pnl, t, year: metrics.measure(
                np.diff([0, 0, 0, 0.1, 0, 0, 0, -0.055], prepend=0.0), e, pnl, t, year
            ),
            RISK,
            id="only what is realized",
        ),
        pytest.param(
            lambda r, e, pnl, t, year: metrics.measure(np.log1p(r), e, pnl, t, year),
            RISK - {"max_drawdown"} | {"total_return", "annual_return"},
            id="log returns",
        ),
        pytest.param(
            lambda r, e, pnl, t, year: metrics.measure(r * e, e, pnl, t, year),
            {"total_return", "sharpe"},
            id="exposure counted twice",
        ),
        pytest.param(
            lambda r, e, pnl, t, year: metrics.measure(r, e, pnl, t / 2, year), {"turnover"}, id="one way"
        ),
        pytest.param(
            lambda r, e, pnl, t, year: metrics.measure(r, abs(e), pnl, t, year),
            {"net_exposure"},
            id="no side",
        ),
        pytest.param(
            lambda r, e, pnl, t, year: metrics.measure(r, e, pnl, t, year * 252 / 365),
            {
                "annual_return",
                "annual_volatility",
                "sharpe",
                "sortino",
                "calmar",
                "turnover",
                "bars_per_year",
            },
            id="252 days",
        ),
        pytest.param(with_fields(drawdown_duration=1), {"drawdown_duration"}, id="of the deepest"),
        pytest.param(with_fields(var_95=0.165, cvar_95=0.2), {"var_95", "cvar_95"}, id="losses positive"),
    ],
)
def test_a_record_that_mixes_its_inputs_is_seen(measure, seen):
    assert seen <= wrong_fields(measure)


def test_the_first_bar_can_be_a_drawdown_from_the_starting_capital():
    assert metrics.max_drawdown(np.array([-0.1, 0.05])) == pytest.approx(-0.1)


def test_the_deepest_relative_drawdown_is_not_that_of_the_largest_fall():
    # freqtrade 6655: from 100 to 63 is 37 %, and from 400 to 360 is a larger amount and 10 %
    equity = np.array([63.0, 200.0, 400.0, 360.0])
    returns = equity / np.array([100.0, *equity[:-1]]) - 1
    assert metrics.max_drawdown(returns) == pytest.approx(-0.37)


def test_twenty_six_weeks_are_half_a_year():
    # quantstats 458: +0.6 % a week was called 4.7 % a year, 175 calendar days over 52 weeks being 3.4 "years"
    returns = np.full(26, 0.006)
    assert metrics.annual_return(returns, 52) == pytest.approx(1.006**52 - 1)
    mistaken = 1.006 ** (26 / (175 / 52)) - 1
    assert mistaken == pytest.approx(0.047, abs=5e-4)


def test_a_year_of_days_that_doubles_returns_one_hundred_percent():
    # quantstats 302: over 252 trading days it was 61 %
    returns = np.full(365, 2 ** (1 / 365) - 1)
    assert metrics.annual_return(returns, 365) == pytest.approx(1.0)
    assert metrics.annual_return(returns, 252) == pytest.approx(2 ** (252 / 365) - 1)


def test_trades_by_hand():
    pnl = np.array([10.0, -4.0, 6.0, 0.0, -1.0, -2.0, 0.0, -1.0])
    assert metrics.hit_rate(pnl) == 0.25
    assert metrics.profit_factor(pnl) == 2.0
    assert metrics.expectancy(pnl) == 1.0
    assert metrics.worst_trade(pnl) == -4.0
    assert metrics.losing_streak(pnl) == 2
    assert metrics.worst_trade(np.array([3.0, 1.0])) == 1.0
    assert metrics.profit_factor(np.array([3e-10, -1e-10])) == pytest.approx(3.0)  # money has no least unit


def test_expected_shortfall_averages_exactly_five_percent():
    returns = np.array([-0.10, -0.06] + [0.0] * 28)  # 5 % of 30 bars is one bar and a half
    assert metrics.cvar_95(returns) == pytest.approx((-0.10 + 0.5 * -0.06) / 1.5)
    # averaging everything at or below a quantile of 0 would dilute it to -0.10 / 40
    mostly_flat = np.array([-0.10] + [0.0] * 39)
    assert metrics.var_95(mostly_flat) == 0.0
    assert metrics.cvar_95(mostly_flat) == pytest.approx(-0.05)


def test_tail_measures_of_gains_only_are_zero_not_positive():
    gains = np.linspace(0.01, 0.02, 40)
    assert metrics.var_95(gains) == metrics.cvar_95(gains) == metrics.max_drawdown(gains) == 0.0


def test_exposure_in_several_assets_counts_a_bar_once():
    exposure = np.array([[0.0, 0.0], [0.5, 0.0], [0.5, -0.5], [0.0, 0.2]])
    assert metrics.time_in_market(exposure) == 0.75
    assert metrics.gross_exposure(exposure) == pytest.approx(1.7 / 4)
    assert metrics.net_exposure(exposure) == pytest.approx(0.7 / 4)


def test_ruin_is_final():
    returns = np.array([0.5, -1.2, 0.5, -3.0])
    assert metrics.total_return(returns) == -1.0
    assert metrics.max_drawdown(returns) == -1.0
    assert metrics.annual_return(returns, HOURLY) == -1.0
    assert metrics.calmar(returns, HOURLY) == -1.0
    assert metrics.drawdown_duration(returns) == 3


# Rounding, and what is not defined


@pytest.mark.parametrize("returns", [np.zeros(50), np.full(50, 0.1), np.full(7, -0.003)])
def test_returns_that_never_move_have_no_sharpe_ratio(returns):
    assert math.isnan(metrics.sharpe(returns, HOURLY))
    assert metrics.annual_volatility(returns, HOURLY) == 0.0
    assert np.full(50, 0.1).std(ddof=1) > 0  # the trap: rounding alone would make a ratio of 1e16


def test_growth_at_a_constant_rate_has_no_sharpe_ratio():
    equity = 10_000 * 1.0001 ** np.arange(1_000)
    returns = equity[1:] / equity[:-1] - 1
    assert np.ptp(returns) > 0  # the trap: the quotients differ in the last digit
    assert returns.mean() / returns.std(ddof=1) > 1e9
    assert math.isnan(metrics.sharpe(returns, HOURLY))
    assert metrics.annual_return(returns, 999) == pytest.approx(1.0001**999 - 1)


def test_a_small_position_keeps_its_sharpe_ratio():
    returns = np.random.default_rng(3).normal(1e-4, 0.01, 500)
    assert metrics.sharpe(returns * 1e-5, HOURLY) == pytest.approx(metrics.sharpe(returns, HOURLY))


@given(arrays(np.int64, st.integers(2, 80), elements=st.integers(90, 110)))
@settings(max_examples=150, deadline=None)
def test_a_price_that_is_back_at_its_peak_has_recovered(prices):
    longest = current = peak = 0
    for price in prices.tolist():  # whole numbers, so that nothing is rounded
        peak = max(peak, price)
        current = current + 1 if price < peak else 0
        longest = max(longest, current)
    assert metrics.drawdown_duration(prices[1:] / prices[:-1] - 1) == longest


def test_undefined_figures_are_nan_and_none_in_json():
    empty = np.array([])
    record = metrics.measure(empty, empty, empty, empty, HOURLY)
    defined = {
        "total_return": 0.0, "max_drawdown": 0.0, "drawdown_duration": 0, "n_trades": 0, "losing_streak": 0,
        "n_bars": 0, "bars_per_year": HOURLY,
    }  # fmt: skip
    document = json.loads(json.dumps(record.to_dict(), allow_nan=False))
    assert document == dict.fromkeys(document) | defined
    for name in document.keys() - defined.keys():
        assert math.isnan(getattr(record, name)), name


@given(
    series(most=40, elements=st.floats(-10, 1e6)),
    series(most=40, elements=st.floats(-1e9, 1e9)),
    st.floats(0.1, 1e6),
)
@settings(max_examples=100, deadline=None)
def test_no_figure_is_infinite_and_no_warning_is_given(returns, pnl, bars_per_year):
    with warnings.catch_warnings(action="error"):
        record = metrics.measure(returns, returns, pnl, abs(returns), bars_per_year)
    for field in fields(record):
        assert not math.isinf(getattr(record, field.name)), field.name


def test_growth_that_overflows_is_not_defined_and_its_drawdowns_are():
    assert math.isnan(metrics.annual_return(np.array([1e6]), 1e6))
    oracle = np.tile([0.5, 0.5, -0.2, 0.5], 1_000)  # the next return, known and leveraged: 1e400 and more
    assert math.isnan(metrics.total_return(oracle))
    assert metrics.max_drawdown(oracle) == pytest.approx(-0.2)
    assert metrics.drawdown_duration(oracle) == 1
    assert metrics.annual_return(oracle, 4) == pytest.approx(1.5**3 * 0.8 - 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", sorted(naive.cases()))
def test_a_value_that_is_not_finite_is_refused_with_its_row(name, bad):
    rest = (HOURLY,) if name in (*naive.ANNUAL, "annual_turnover") else ()
    with pytest.raises(ValueError, match=r"row 1 is (nan|inf)"):
        getattr(metrics, name)(np.array([0.1, bad]), *rest)


@pytest.mark.parametrize("name", [*naive.ANNUAL, "annual_turnover"])
@pytest.mark.parametrize("year", [0, -252.0, math.nan, math.inf])
def test_the_year_is_never_guessed(name, year):
    if name == "calmar" and year == 0:
        year = 0.0
    with pytest.raises(ValueError, match=rf"bars_per_year is {year}"):
        getattr(metrics, name)(np.array([0.1, -0.2]), year)


def test_a_table_of_returns_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 2\)"):
        metrics.sharpe(np.zeros((3, 2)), HOURLY)


def test_tables_on_different_clocks_are_refused():
    with pytest.raises(ValueError, match="2, 3 and 2 rows"):
        metrics.measure(np.zeros(2), np.zeros(3), np.zeros(0), np.zeros(2), HOURLY)


def test_the_year_of_the_bars_has_365_days(make_bars):
    for timeframe, expected in (("1h", 8760.0), ("1d", 365.0), ("15m", 35_040.0)):
        bars = make_bars(5, timeframe=timeframe)
        assert bars.bars_per_year == expected
        assert bars.bars_per_year * bars.interval_ns == NS_PER_YEAR == 365 * 86_400 * NS_PER_SECOND


# Laws


@given(series(least=2), st.sampled_from([0.125, 0.5, 2.0]))
@settings(max_examples=60, deadline=None)
def test_ratios_do_not_depend_on_the_size_of_the_bet_and_risks_grow_with_it(returns, size):
    for name in ("omega", "tail_ratio"):
        assert close(getattr(metrics, name)(returns * size), getattr(metrics, name)(returns)), name
    for name in ("sharpe", "sortino"):
        found = getattr(metrics, name)(returns * size, HOURLY)
        assert close(found, getattr(metrics, name)(returns, HOURLY)), name
    assert close(
        metrics.annual_volatility(returns * size, HOURLY), size * metrics.annual_volatility(returns, HOURLY)
    )
    for name in ("var_95", "cvar_95", "expectancy", "worst_trade", "gross_exposure", "net_exposure"):
        assert close(getattr(metrics, name)(returns * size), size * getattr(metrics, name)(returns)), name
    for name in ("hit_rate", "profit_factor", "losing_streak", "time_in_market"):
        assert close(getattr(metrics, name)(returns * size), getattr(metrics, name)(returns)), name


@given(series(elements=st.floats(-1.5, 3.0)))
@settings(max_examples=60, deadline=None)
def test_a_drawdown_is_bounded_by_ruin_by_the_worst_bar_and_by_the_length(returns):
    depths = metrics.drawdown(returns)
    assert ((depths >= -1) & (depths <= 0)).all()
    assert at_least(max(returns.min(), -1.0) if returns.size else 0.0, metrics.max_drawdown(returns))
    duration = metrics.drawdown_duration(returns)
    assert 0 <= duration <= returns.size
    assert (duration == 0) == (metrics.max_drawdown(returns) == 0)
    if returns.size:
        assert 0 <= metrics.ulcer(returns) <= -metrics.max_drawdown(returns) * (1 + 1e-12)


@given(series(least=1, elements=st.floats(-1.5, 3.0)), st.data())
@settings(max_examples=60, deadline=None)
def test_a_better_bar_never_makes_a_figure_worse(returns, data):
    better = returns.copy()
    better[data.draw(st.integers(0, returns.size - 1))] += data.draw(st.floats(0, 2.0))
    assert (metrics.drawdown(better) >= metrics.drawdown(returns) - 2e-9).all()
    for name in ("total_return", "var_95", "cvar_95", "expectancy", "hit_rate", "worst_trade"):
        assert at_least(getattr(metrics, name)(better), getattr(metrics, name)(returns)), name
    assert at_least(metrics.annual_return(better, 12), metrics.annual_return(returns, 12))
    assert metrics.losing_streak(better) <= metrics.losing_streak(returns)
    assert at_least(metrics.ulcer(returns), metrics.ulcer(better))
    if not math.isnan(metrics.omega(better)):
        assert at_least(metrics.omega(better), metrics.omega(returns))


@given(series(), series())
@settings(max_examples=60, deadline=None)
def test_two_stretches_in_a_row_make_one(first, second):
    both = np.concatenate([first, second])
    growth = (1 + metrics.total_return(first)) * (1 + metrics.total_return(second))
    assert close(1 + metrics.total_return(both), growth)
    worse = min(metrics.max_drawdown(first), metrics.max_drawdown(second))
    assert at_least(worse, metrics.max_drawdown(both))
    longer = max(metrics.drawdown_duration(first), metrics.drawdown_duration(second))
    assert longer <= metrics.drawdown_duration(both) <= first.size + second.size
    assert metrics.losing_streak(both) >= max(metrics.losing_streak(first), metrics.losing_streak(second))
    if first.size and second.size:
        weights = [first.size / both.size, second.size / both.size]
        for name in ("expectancy", "hit_rate", "time_in_market", "gross_exposure", "net_exposure"):
            parts = [getattr(metrics, name)(first), getattr(metrics, name)(second)]
            assert close(getattr(metrics, name)(both), np.dot(weights, parts)), name


@given(series(least=1, most=20, elements=st.floats(-0.5, 0.5)), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_annual_growth_is_the_same_on_longer_bars(returns, k):
    fine = np.repeat(returns, k)
    coarse = np.prod(1 + fine.reshape(-1, k), axis=1) - 1
    assert close(metrics.annual_return(fine, 12.0 * k), metrics.annual_return(coarse, 12.0))
    # and so the whole of it over one year is the return itself
    assert close(metrics.annual_return(fine, fine.size), metrics.total_return(fine))


@given(series(least=1, elements=st.floats(-0.9, 1.0)), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_only_drawdowns_and_streaks_know_the_order(returns, random):
    assume(np.abs(metrics.var_95(returns)) > 1e-6)
    shuffled = np.array(random.sample(returns.tolist(), returns.size))
    for name in ("total_return", "omega", "var_95", "cvar_95", "tail_ratio", "hit_rate", "profit_factor"):
        assert close(getattr(metrics, name)(shuffled), getattr(metrics, name)(returns)), name
    for name in ("annual_return", "annual_volatility", "sharpe", "sortino"):
        assert close(getattr(metrics, name)(shuffled, 365), getattr(metrics, name)(returns, 365)), name
    sorted_up = np.sort(returns)  # all losses first: no order has a deeper fall
    assert at_least(metrics.max_drawdown(returns), metrics.max_drawdown(sorted_up))


@given(series(least=1), st.data())
@settings(max_examples=60, deadline=None)
def test_expected_shortfall_is_coherent(first, data):
    # Acerbi and Tasche: two books together risk at most what they risk apart. VaR does not promise that.
    second = data.draw(arrays(np.float64, first.size, elements=grid))
    assert at_least(metrics.cvar_95(first + second), metrics.cvar_95(first) + metrics.cvar_95(second))
    assert metrics.cvar_95(first) <= metrics.var_95(first) + 1e-12 <= 1e-12


def test_the_diluted_shortfall_and_the_quantile_are_not_coherent():
    first, second = np.zeros(40), np.zeros(40)
    first[0], second[1] = -1.0, -1.0
    assert metrics.var_95(first) == metrics.var_95(second) == 0.0 > metrics.var_95(first + second)
    mistakes = {label: wrong for metric, label, wrong in naive.mistakes() if metric == "cvar_95"}
    diluted = mistakes["diluted by ties"]
    assert diluted(first + second) < diluted(first) + diluted(second)


def test_bars_without_a_position_change_sharpe_and_leave_omega():
    returns = np.random.default_rng(1).normal(0.001, 0.01, 300)
    padded = np.concatenate([returns, np.zeros(900)])  # a quarter of the time in the market
    assert metrics.omega(padded) == pytest.approx(metrics.omega(returns))
    assert metrics.total_return(padded) == metrics.total_return(returns)
    assert metrics.sortino(padded, 365) == pytest.approx(metrics.sortino(returns, 365) / 2)
    assert metrics.annual_return(padded, 365) == pytest.approx(
        (1 + metrics.annual_return(returns, 365)) ** 0.25 - 1
    )


# The page


def test_the_page_explains_every_field(root):
    page = (root / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [field.name for field in fields(metrics.Metrics) if f"`{field.name}`" not in page] == []


def test_the_example_of_the_page_runs(root):
    page = (root / "docs" / "metrics.md").read_text(encoding="utf-8").replace("```", "")
    example = doctest.DocTestParser().get_doctest(page, {}, "metrics.md", None, 0)
    found = doctest.DocTestRunner().run(example)
    assert (found.attempted, found.failed) == (4, 0)
