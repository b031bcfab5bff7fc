"""Every metric beside empyrical-reloaded, quantstats, vectorbt and backtesting.py.

Where a library means something else by the same name, a test says so in its own name, shows it on a worked
example, and `SAME` holds the exact translation. A library that changes its mind makes that test fail: then
the translation and the line in docs/metrics.md go.
"""

import math
import warnings
from functools import cache
from itertools import groupby
from statistics import NormalDist

import numpy as np
import pytest

from backtest import metrics
from tests.reference.metrics import MISTAKES, PROFITS, SERIES, mistakes

YEAR = 365.0
DEFINED = {name: returns for name, returns in SERIES.items() if name not in ("one loss", "no bars")}

# A library may be a few ulps off in a sum of 500; a convention never is.
CLOSE = {"rel": 1e-9, "abs": 1e-12, "nan_ok": True}


def installed(module, package, extra):
    with warnings.catch_warnings():  # some import plotting libraries that warn of their own futures
        warnings.simplefilter("ignore")
        return pytest.importorskip(module, reason=f"{package} is not installed: pip install -e .[{extra}]")


@pytest.fixture(scope="module")
def empyrical():
    return installed("empyrical.stats", "empyrical-reloaded", "reports")


@pytest.fixture(scope="module")
def quantstats():
    return installed("quantstats.stats", "quantstats", "reports")


@pytest.fixture(scope="module")
def vectorbt():
    return installed("vectorbt.returns.nb", "vectorbt", "peers")


@pytest.fixture(scope="module")
def backtesting():
    return installed("backtesting", "backtesting.py", "peers")


def daily(returns):
    import pandas as pd

    return pd.Series(np.asarray(returns, float), index=pd.date_range("2021-01-01", periods=len(returns)))


def cut(returns):
    """Returns that end in ruin: no library here stops at it."""
    return np.maximum(returns, -1.0)


def runs(below):
    return max((len(list(run)) for is_below, run in groupby(below) if is_below), default=0)


def shortfall(of_worst, returns):
    """Exactly 5 % of the bars, from the means of whole numbers of worst bars: m to m + 1 of them."""
    share = len(returns) / 20
    m = math.floor(share)
    totals = [k * of_worst(returns, (k - 0.5) / (len(returns) - 1)) if k else 0.0 for k in (m, m + 1)]
    return min((totals[0] + (share - m) * (totals[1] - totals[0])) / share, 0.0)


def not_infinite(found):
    return found if math.isfinite(found) else math.nan


# By library and metric: the library's function, its annual year given, its convention translated into ours.

SAME = {
    "empyrical": {
        "total_return": lambda lib, r: lib.cum_returns_final(cut(r)),
        "annual_return": lambda lib, r: lib.annual_return(cut(r), annualization=YEAR),
        "annual_volatility": lambda lib, r: lib.annual_volatility(r, annualization=YEAR),
        "sharpe": lambda lib, r: not_infinite(lib.sharpe_ratio(r, annualization=YEAR)),
        "sortino": lambda lib, r: not_infinite(lib.sortino_ratio(r, annualization=YEAR)),
        "calmar": lambda lib, r: lib.calmar_ratio(cut(r), annualization=YEAR),
        "omega": lambda lib, r: lib.omega_ratio(r),
        "max_drawdown": lambda lib, r: lib.max_drawdown(cut(r)),
        "drawdown_duration": lambda lib, r: runs(lib.drawdown_series(cut(r)) < -metrics.ROUNDING),
        "ulcer": lambda lib, r: math.sqrt((lib.drawdown_series(cut(r)) ** 2).mean()),
        "var_95": lambda lib, r: min(lib.value_at_risk(r), 0.0),
        "cvar_95": lambda lib, r: shortfall(lib.conditional_value_at_risk, r),
        "tail_ratio": lambda lib, r: lib.tail_ratio(r),
    },
    "quantstats": {
        "total_return": lambda lib, r: lib.comp(daily(cut(r))),
        "annual_return": lambda lib, r: lib.cagr(daily(cut(r)), periods=YEAR),
        "annual_volatility": lambda lib, r: lib.volatility(daily(r), periods=YEAR),
        "sharpe": lambda lib, r: lib.sharpe(daily(r), periods=YEAR),
        "sortino": lambda lib, r: lib.sortino(daily(r), periods=YEAR),
        "calmar": lambda lib, r: lib.calmar(daily(cut(r)), periods=YEAR),
        "omega": lambda lib, r: lib.omega(daily(r), periods=YEAR),
        "max_drawdown": lambda lib, r: lib.max_drawdown(daily(cut(r))),
        "drawdown_duration": lambda lib, r: runs(lib.to_drawdown_series(daily(cut(r))) < -metrics.ROUNDING),
        "ulcer": lambda lib, r: lib.ulcer_index(daily(cut(r))) * math.sqrt((len(r) - 1) / len(r)),
        "tail_ratio": lambda lib, r: lib.tail_ratio(daily(r)),
    },
    "vectorbt": {
        "total_return": lambda lib, r: lib.cum_returns_final_1d_nb(cut(r)),
        "annual_return": lambda lib, r: lib.annualized_return_1d_nb(cut(r), YEAR),
        "annual_volatility": lambda lib, r: lib.annualized_volatility_1d_nb(r, YEAR),
        "sharpe": lambda lib, r: not_infinite(lib.sharpe_ratio_1d_nb(r, YEAR)),
        "sortino": lambda lib, r: not_infinite(lib.sortino_ratio_1d_nb(r, YEAR)),
        "omega": lambda lib, r: not_infinite(lib.omega_ratio_1d_nb(r, YEAR)),
        # a bar of 0 in front stands for the capital
        "max_drawdown": lambda lib, r: lib.max_drawdown_1d_nb(np.append(0.0, cut(r))),
        "ulcer": lambda lib, r: lib.ulcer_index_1d_nb(np.append(0.0, cut(r))) * math.sqrt(1 + 1 / len(r)),
        "var_95": lambda lib, r: min(lib.value_at_risk_1d_nb(r), 0.0),
        "cvar_95": lambda lib, r: shortfall(lib.cond_value_at_risk_1d_nb, r),
        "tail_ratio": lambda lib, r: not_infinite(lib.tail_ratio_1d_nb(r)),
    },
}

# What cannot be translated, because nothing is left of the answer: the tests further down say why.
NOISE = ("the same gain", "the same loss", "carry")
NOT_ASKED = {
    ("empyrical", "sharpe"): ("carry",),
    ("quantstats", "sharpe"): NOISE,
    ("quantstats", "calmar"): ("flat", "gains only", "the same gain", "carry"),
    ("vectorbt", "sharpe"): NOISE,
}
ANNUAL = ("annual_return", "annual_volatility", "sharpe", "sortino", "calmar")


@pytest.fixture(scope="module")
def expected(request):
    """A function: what a library says of a metric, translated, by the name of the series."""

    @cache
    def answers(name, metric):
        library = request.getfixturevalue(name)
        skipped = NOT_ASKED.get((name, metric), ())
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                label: SAME[name][metric](library, returns)
                for label, returns in DEFINED.items()
                if label not in skipped
            }

    return answers


def disagreements(answers, metric, ours):
    """Names of the series on which a function of ours differs from the translated answers."""
    year = [YEAR] * (metric in ANNUAL)
    return [
        label
        for label, answer in answers.items()
        if ours(DEFINED[label], *year) != pytest.approx(answer, **CLOSE)
    ]


@pytest.mark.parametrize(("name", "metric"), [(name, metric) for name in SAME for metric in SAME[name]])
def test_the_library_says_the_same_once_its_convention_is_translated(name, metric, expected):
    assert disagreements(expected(name, metric), metric, getattr(metrics, metric)) == []


@pytest.mark.parametrize("name", SAME)
def test_the_library_sees_every_planted_mistake(name, expected):
    seen = {
        f"{metric}: {label}": disagreements(expected(name, metric), metric, wrong) != []
        for metric, label, wrong in mistakes()
        if metric in SAME[name] and label in MISTAKES[metric]
    }
    assert len(seen) > 30
    assert [label for label, is_seen in seen.items() if not is_seen] == []


# empyrical-reloaded


TWICE_RUINED = np.array([-1.5, -1.5])  # -0.5 of the capital, times -0.5 is a quarter of it


def test_empyrical_lets_a_ruined_account_rise_again_and_ours_stays_ruined(empyrical):
    assert empyrical.cum_returns_final(TWICE_RUINED) == pytest.approx(-0.75)
    assert empyrical.max_drawdown(TWICE_RUINED) == pytest.approx(-1.5)
    assert metrics.total_return(TWICE_RUINED) == metrics.max_drawdown(TWICE_RUINED) == -1.0


def test_empyrical_averages_whole_bars_and_ours_exactly_five_percent(empyrical):
    returns = np.array([-0.21] + [0.0] * 20)  # 5 % of 21 bars are 1.05; theirs takes 2, which is 9.5 %
    assert empyrical.conditional_value_at_risk(returns) == pytest.approx(-0.105)
    assert metrics.cvar_95(returns) == pytest.approx(-0.21 / 1.05)
    whole = np.random.default_rng(2).normal(0.0, 0.01, 400)  # 20 bars for both
    assert metrics.cvar_95(whole) == pytest.approx(empyrical.conditional_value_at_risk(whole))


def test_empyrical_calls_a_gain_a_value_at_risk_and_ours_ends_at_zero(empyrical):
    gains = np.linspace(0.01, 0.02, 40)
    assert empyrical.value_at_risk(gains) > 0.01
    assert empyrical.conditional_value_at_risk(gains) > 0.01
    assert metrics.var_95(gains) == metrics.cvar_95(gains) == 0.0


def test_empyrical_makes_a_ratio_over_nothing_infinite_and_ours_is_not_defined(empyrical):
    assert empyrical.sharpe_ratio(np.full(50, 0.1)) == math.inf
    assert empyrical.sortino_ratio(np.full(50, 0.1)) == math.inf
    assert math.isnan(metrics.sharpe(np.full(50, 0.1), YEAR))
    assert math.isnan(metrics.sortino(np.full(50, 0.1), YEAR))


def test_empyrical_takes_the_rounding_of_a_constant_growth_for_volatility(empyrical):
    assert empyrical.sharpe_ratio(SERIES["carry"]) > 1e12
    assert math.isnan(metrics.sharpe(SERIES["carry"], YEAR))


def test_empyrical_has_no_ratio_of_one_bar_and_ours_has_what_one_bar_defines(empyrical):
    one = SERIES["one loss"]
    assert math.isnan(empyrical.omega_ratio(one))
    assert math.isnan(empyrical.sortino_ratio(one))
    assert metrics.omega(one) == 0.0
    assert metrics.sortino(one, 1) == pytest.approx(-1.0)
    assert math.isnan(metrics.sharpe(one, 1))
    assert empyrical.max_drawdown(one) == pytest.approx(metrics.max_drawdown(one))
    assert math.isnan(empyrical.cum_returns_final(SERIES["no bars"]))
    assert metrics.total_return(SERIES["no bars"]) == 0.0


# quantstats


def test_quantstats_lets_a_ruined_account_rise_again_and_ours_stays_ruined(quantstats):
    assert quantstats.comp(daily(TWICE_RUINED)) == pytest.approx(-0.75)
    assert quantstats.max_drawdown(daily(TWICE_RUINED)) == pytest.approx(-1.5)
    assert quantstats.cagr(daily(TWICE_RUINED), periods=2) == pytest.approx(-0.75)
    assert metrics.annual_return(TWICE_RUINED, 2) == -1.0


def test_quantstats_takes_gains_for_prices_and_finds_a_drawdown_in_them(quantstats):
    gains = np.array([1.5, 2.0, 0.5])  # equity 2.5, 7.5, 11.25
    assert quantstats.max_drawdown(daily(gains)) == pytest.approx(-0.75)
    assert quantstats.sharpe(daily(gains), periods=1) != pytest.approx(metrics.sharpe(gains, 1))
    assert metrics.max_drawdown(gains) == 0.0
    assert metrics.sharpe(gains, 1) == pytest.approx(gains.mean() / gains.std(ddof=1))


def test_quantstats_does_not_list_a_drawdown_from_the_first_day(quantstats):
    lost = daily([-0.5, 0.0, 0.0, 0.2])
    assert quantstats.drawdown_details(quantstats.to_drawdown_series(lost)).empty
    assert metrics.drawdown_duration(lost.to_numpy()) == 4
    # one bar later it does, in days from the first below the peak to the last: our bars
    later = daily([0.1, *lost])
    table = quantstats.drawdown_details(quantstats.to_drawdown_series(later))
    assert table["days"].max() == metrics.drawdown_duration(later.to_numpy()) == 4


def test_quantstats_lists_the_drawdowns_of_a_long_series_with_our_durations(quantstats):
    returns = np.append(0.01, SERIES["fat tails"])
    table = quantstats.drawdown_details(quantstats.to_drawdown_series(daily(returns)))
    assert table["days"].max() == metrics.drawdown_duration(returns)
    assert table["max drawdown"].min() == pytest.approx(100 * metrics.max_drawdown(returns))


def test_quantstats_lets_rounding_decide_whether_a_price_is_back_at_its_peak(quantstats):
    returns = SERIES["back at its peak"]
    table = quantstats.drawdown_details(quantstats.to_drawdown_series(daily(returns)))
    assert table["days"].max() > 100
    assert metrics.drawdown_duration(returns) == 2


def test_quantstats_divides_by_the_rounding_of_a_constant(quantstats):
    assert quantstats.sharpe(daily(np.full(50, 0.1)), periods=365) > 1e15
    assert math.isnan(metrics.sharpe(np.full(50, 0.1), YEAR))


def test_quantstats_divides_ulcer_by_one_bar_less(quantstats):
    returns = np.array([-0.1, 0.0])
    assert quantstats.ulcer_index(daily(returns)) == pytest.approx(0.1 * math.sqrt(2))
    assert metrics.ulcer(returns) == pytest.approx(0.1)


def test_quantstats_assumes_a_normal_distribution_for_value_at_risk(quantstats):
    returns = SERIES["mostly flat"]
    normal = NormalDist(returns.mean(), returns.std(ddof=1))
    assert quantstats.value_at_risk(daily(returns)) == pytest.approx(normal.inv_cdf(0.05))
    assert normal.inv_cdf(0.05) < -0.004
    assert metrics.var_95(returns) == 0.0  # 98 % of the bars are flat


def test_quantstats_dilutes_its_shortfall_with_ties_and_agrees_without_them(quantstats):
    flat_but_one = np.array([-0.10] + [0.0] * 39)
    assert quantstats.cvar(daily(flat_but_one), method="historical") == pytest.approx(-0.10 / 40)
    assert metrics.cvar_95(flat_but_one) == pytest.approx(-0.10 / 2)
    whole = np.random.default_rng(2).normal(0.0, 0.01, 400)
    assert metrics.cvar_95(whole) == pytest.approx(quantstats.cvar(daily(whole), method="historical"))
    normal = NormalDist()  # unless it is told, it assumes one
    tail = normal.pdf(normal.inv_cdf(0.05)) / 0.05
    assert quantstats.cvar(daily(whole)) == pytest.approx(whole.mean() - whole.std(ddof=1) * tail)


def test_quantstats_annualizes_return_per_exposure_by_252_days_whatever_it_is_told(quantstats):
    returns = daily(SERIES["normal"])  # never flat: its exposure is 1
    assert quantstats.rar(returns, periods=365) == pytest.approx(quantstats.cagr(returns, periods=252))
    assert quantstats.rar(returns, periods=365) == pytest.approx(metrics.annual_return(SERIES["normal"], 252))
    assert quantstats.rar(returns, periods=365) != pytest.approx(metrics.annual_return(SERIES["normal"], 365))


def test_quantstats_counts_years_in_bars_since_its_calendar_years_were_mended(quantstats):
    import pandas as pd

    weeks = pd.Series([0.006] * 26, index=pd.date_range("2025-02-21", periods=26, freq="W"))  # issue 458
    assert quantstats.cagr(weeks, periods=52) == pytest.approx(metrics.annual_return(weeks.to_numpy(), 52))
    assert metrics.annual_return(weeks.to_numpy(), 52) == pytest.approx(1.006**52 - 1)


def test_quantstats_guesses_exposure_from_the_returns_and_rounds_it_up_to_a_percent(quantstats):
    exposure = np.append(np.zeros(999), 1.0)
    assert quantstats.exposure(daily(exposure * 0.01)) == 0.01
    assert metrics.time_in_market(exposure) == 0.001
    held = np.append(np.ones(3), 0.0)
    assert (
        quantstats.exposure(daily(held * [0.01, 0.0, -0.01, 0.0])) == 0.5
    )  # a bar without a move is not held
    assert metrics.time_in_market(held) == 0.75


@pytest.mark.parametrize("label", ["trades", "with zeros", "losers only"])
def test_quantstats_leaves_trades_without_profit_out_of_its_means(quantstats, label):
    pnl = PROFITS[label]
    share = (pnl != 0).mean()
    assert metrics.hit_rate(pnl) == pytest.approx(quantstats.win_rate(daily(pnl)) * share)
    assert metrics.expectancy(pnl) == pytest.approx(quantstats.avg_return(daily(pnl)) * share)
    assert metrics.profit_factor(pnl) == pytest.approx(quantstats.profit_factor(daily(pnl)))
    assert metrics.worst_trade(pnl) == quantstats.worst(daily(pnl))
    assert metrics.losing_streak(pnl) == quantstats.consecutive_losses(daily(pnl))


def test_quantstats_makes_profit_without_a_loss_infinite_and_ours_is_not_defined(quantstats):
    gains = daily([0.1, 0.2])
    assert quantstats.profit_factor(gains) == math.inf
    assert math.isnan(metrics.profit_factor(gains.to_numpy()))
    with pytest.raises(ZeroDivisionError):
        quantstats.calmar(gains)
    assert math.isnan(metrics.calmar(gains.to_numpy(), YEAR))


# vectorbt


def test_vectorbt_lets_a_ruined_account_rise_again_and_ours_stays_ruined(vectorbt):
    assert vectorbt.cum_returns_final_1d_nb(TWICE_RUINED) == pytest.approx(-0.75)
    assert metrics.total_return(TWICE_RUINED) == -1.0


def test_vectorbt_forgets_the_capital_and_sees_no_drawdown_in_a_first_bar(vectorbt):
    lost = np.array([-0.5, 0.0, 0.1])
    assert vectorbt.max_drawdown_1d_nb(lost) == vectorbt.ulcer_index_1d_nb(lost) == 0.0
    assert math.isnan(vectorbt.calmar_ratio_1d_nb(lost, YEAR))
    assert metrics.max_drawdown(lost) == -0.5
    assert metrics.calmar(lost, 3) == pytest.approx((0.5 * 1.1 - 1) / 0.5)
    # with the capital as a bar of 0 before it the two agree, and so do their Calmar ratios per bar
    for returns in DEFINED.values():
        known = np.append(0.0, cut(returns))
        theirs = vectorbt.calmar_ratio_1d_nb(known, YEAR)
        assert metrics.calmar(known, YEAR) == pytest.approx(theirs, **CLOSE)


def test_vectorbt_divides_by_the_rounding_of_a_constant_and_makes_zero_infinite(vectorbt):
    assert vectorbt.sharpe_ratio_1d_nb(np.full(50, 0.1), YEAR) > 1e15
    flat = np.zeros(50)
    for theirs in (vectorbt.sharpe_ratio_1d_nb, vectorbt.sortino_ratio_1d_nb, vectorbt.omega_ratio_1d_nb):
        assert theirs(flat, YEAR) == math.inf
    for ours in (metrics.sharpe(flat, YEAR), metrics.sortino(flat, YEAR), metrics.omega(flat)):
        assert math.isnan(ours)


# backtesting.py, on its own accounts

# pandas 3.1 announces a new name for what backtesting.py asks of an index.
asks_the_old_way = pytest.mark.filterwarnings("ignore:DatetimeIndex.dayofweek is deprecated")


def account(backtesting, close, orders, timeframe="D"):
    """Its statistics of a price, with orders by bar: a size to buy, or 0 to close."""
    import pandas as pd

    class Given(backtesting.Strategy):
        def init(self):
            pass

        def next(self):
            order = orders.get(len(self.data))
            if order:
                self.buy(size=order)
            elif order == 0:
                self.position.close()

    index = pd.date_range("2021-01-01", periods=len(close), freq=timeframe)
    prices = pd.DataFrame(
        dict.fromkeys(("Open", "High", "Low", "Close"), close) | {"Volume": 1.0}, index=index
    )
    found = backtesting.Backtest(prices, Given, cash=10_000, finalize_trades=True).run()
    equity = found["_equity_curve"]["Equity"].to_numpy()
    return found, np.diff(equity, prepend=10_000.0) / np.append(10_000.0, equity[:-1])


@asks_the_old_way
def test_backtesting_py_compounds_its_volatility_and_takes_its_ratios_from_growth(backtesting):
    close = 100 * np.cumprod(1 + np.random.default_rng(4).normal(0.001, 0.02, 300))
    orders = {bar: 0 if bar % 20 else 50 for bar in range(10, 300, 10)}
    found, returns = account(backtesting, close, orders)
    assert found["Max. Drawdown [%]"] == pytest.approx(100 * metrics.max_drawdown(returns))
    pnl = found["_trades"]["PnL"].to_numpy()
    assert len(pnl) > 10
    assert found["Win Rate [%]"] == pytest.approx(100 * metrics.hit_rate(pnl))
    returns = returns[1:]  # its first bar is no return
    growth, volatility = metrics.annual_return(returns, YEAR), metrics.annual_volatility(returns, YEAR)
    assert found["Return (Ann.) [%]"] == pytest.approx(100 * growth)
    assert found["Calmar Ratio"] == pytest.approx(metrics.calmar(returns, YEAR))
    downside = returns.mean() * YEAR / metrics.sortino(returns, YEAR)
    assert found["Sortino Ratio"] == pytest.approx(growth / downside)
    square = (1 + growth) ** (2 / YEAR)
    compounded = math.sqrt((volatility**2 / YEAR + square) ** YEAR - square**YEAR)
    assert found["Volatility (Ann.) [%]"] == pytest.approx(100 * compounded)
    assert found["Sharpe Ratio"] == pytest.approx(growth / compounded)
    assert found["Sharpe Ratio"] != pytest.approx(metrics.sharpe(returns, YEAR), rel=0.01)


@asks_the_old_way
def test_backtesting_py_leaves_the_first_day_of_an_hourly_account_out_of_its_annual_figures(backtesting):
    close = np.append(np.linspace(100.0, 110.0, 24), np.full(48, 110.0))
    found, returns = account(backtesting, close, {2: 0.99}, "h")
    assert found["Return [%]"] == pytest.approx(100 * metrics.total_return(returns))
    assert found["Return [%]"] > 8
    assert found["Return (Ann.) [%]"] == 0.0
    assert metrics.annual_return(returns, 72) == pytest.approx(metrics.total_return(returns))


@asks_the_old_way
def test_backtesting_py_weighs_trades_by_percent_and_finds_a_profit_factor_above_one_in_a_loss(backtesting):
    close = np.repeat([100.0, 99.0, 102.0], [3, 4, 5])
    found, _ = account(backtesting, close, {2: 90, 4: 0, 6: 1, 8: 0})
    pnl = found["_trades"]["PnL"].to_numpy()
    assert pnl.tolist() == [-90.0, 3.0]
    assert found["Return [%]"] < 0
    assert found["Profit Factor"] == pytest.approx((3 / 99) / 0.01)
    assert found["Expectancy [%]"] > 1
    assert metrics.profit_factor(pnl) == pytest.approx(3 / 90)
    assert metrics.expectancy(pnl) == pytest.approx(-43.5)


@asks_the_old_way
def test_backtesting_py_measures_a_drawdown_from_its_peak_so_it_lasts_one_bar_longer(backtesting):
    close = np.array([100.0, 100.0, 100.0, 110.0, 109.0, 109.0, 111.0, 111.0])
    found, returns = account(backtesting, close, {2: 0.99})
    assert found["Max. Drawdown Duration"].days == metrics.drawdown_duration(returns) + 1 == 3
