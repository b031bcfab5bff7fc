"""Crisis windows, cost and delay stress, a rule on other markets, and the report of them all."""

import dataclasses
import itertools
import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import metrics
from backtest.bootstrap import FIGURES
from backtest.costs import Costs, ImpactBucket
from backtest.crises import CRISES, Crisis, crisis_windows, price_returns
from backtest.limits import RiskLimits
from backtest.simulate import TARGETS, hold, simulate
from backtest.stress import cost_stress, delay_stress, path_stress, stress
from backtest.stress_report import crises_text
from backtest.venue import Venue
from compute.workers import mapper
from configs.load import ConfigError
from market.bars import OHLCV, Bars, timerange_ns
from market.table import DataError, Table

HOUR = 3_600_000_000_000
FREE = Costs(fee_bps=0, half_spread_bps=0, impact=(ImpactBucket(turnover=0, impact_bps=0),))
FEES = Costs(fee_bps=10, half_spread_bps=0, impact=(ImpactBucket(turnover=0, impact_bps=0),))
OPEN = RiskLimits(stop=None)


def moment(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


def flat_bars(prices, start, interval=HOUR):
    """Bars that open at the close before: what happens in a bar is its return."""
    prices = np.asarray(prices, dtype=float)
    before = np.append(prices[:1], prices[:-1])
    values = np.column_stack([before, np.maximum(before, prices), np.minimum(before, prices), prices])
    values = np.column_stack([values, np.full(prices.size, 1e4)])
    return Bars(start + interval * np.arange(1, prices.size + 1), values, OHLCV, "TEST/USD", interval)


def with_gaps(bars):
    """The same bars, each opening 1 % above the close before."""
    level = 1.01 ** np.arange(len(bars))[:, None]
    values = np.column_stack([bars.values[:, :4] * level, bars.values[:, 4]])
    return Bars(bars.time, values, OHLCV, bars.symbol, bars.interval_ns)


def held(bars, exposure):
    return Table(bars.time, np.broadcast_to(np.asarray(exposure, float), len(bars))[:, None], TARGETS[:1])


def trend(bars):
    """Long above the mean of the last 20 closes, short below: of bars up to its row alone."""
    close = bars.column("close")
    mean = np.array([close[max(t - 19, 0) : t + 1].mean() for t in range(close.size)])
    return held(bars, np.sign(close - mean))


# The windows.


def test_the_crises_are_six_windows_in_order_around_the_dates_they_are_named_by():
    assert len(CRISES) == 6
    for crisis in CRISES:
        date = crisis.name.split()[0]
        day = moment(date if len(date) == 10 else f"{date}-08")
        assert crisis.start <= day < crisis.end
        assert crisis.what
        assert crisis.sources
        assert crisis.start % (24 * HOUR) == crisis.end % (24 * HOUR) == 0
    assert all(a.end <= b.start for a, b in itertools.pairwise(CRISES))
    by_name = {crisis.name: (crisis.start, crisis.end) for crisis in CRISES}
    assert by_name["2018-11 hash war"] == timerange_ns("20181101-20181201")  # months are calendar months
    assert by_name["2022-06 lenders"] == timerange_ns("20220601-20220701")
    assert by_name["2020-03-12 pandemic"] == timerange_ns("20200312-20200314")


def test_a_crisis_that_ends_before_it_starts_or_not_at_all_is_refused():
    with pytest.raises(DataError, match="crisis storm: ends"):
        Crisis("storm", 10, 10, "nothing")
    with pytest.raises(DataError, match="needs both sides"):
        Crisis.of("storm", "20200312-", "nothing")


def test_the_bars_of_a_window_are_those_that_open_and_close_inside():
    crisis = Crisis.of("storm", "20200312-20200313", "a day")
    returns = np.zeros(72)  # three days, the second is the window
    returns[23], returns[24], returns[47], returns[48] = -0.5, -0.1, -0.2, -0.6
    bars = flat_bars(100.0 * np.cumprod(1 + returns), moment("2020-03-11"))
    (row,) = crisis_windows(bars, crises=[crisis])
    assert (row.whole, row.covered, row.n_bars, row.coverage) == (True, 1.0, 24, "whole")
    assert row.held.total_return == pytest.approx(0.9 * 0.8 - 1)
    assert row.held.max_drawdown == pytest.approx(0.9 * 0.8 - 1)
    assert row.held.worst_bar == pytest.approx(-0.2)
    assert row.held.cvar_95 == pytest.approx(-(0.2 + 0.2 * 0.1) / 1.2)  # 5 % of 24 bars are 1.2 bars
    assert row.account is row.exposure is row.n_trades is None


def test_the_account_stands_beside_holding_with_its_exposure_and_its_trades():
    crisis = Crisis.of("storm", "20200312-20200313", "a day")
    returns = np.zeros(72)
    returns[30], returns[40] = -0.2, 0.1
    bars = flat_bars(100.0 * np.cumprod(1 + returns), moment("2020-03-11"))
    wanted = np.zeros(72)
    wanted[10:20] = 1.0  # over before the window
    wanted[22:35] = -0.5  # open when it begins
    wanted[38:41] = 1.0  # inside
    wanted[46:60] = 1.0  # still open when it ends
    wanted[65:] = 1.0  # begun after it
    result = simulate(held(bars, wanted), bars, FREE, OPEN)
    (row,) = crisis_windows(bars, result, [crisis])
    assert len(result.trades) == 5
    assert row.n_trades == 3
    assert row.account.total_return == pytest.approx((1 + 0.5 * 0.2) * 1.1 - 1)
    assert row.account.worst_bar == pytest.approx(0.0, abs=1e-12)
    assert row.held.worst_bar == pytest.approx(-0.2)
    # Fills at opens: the closes of rows 24..35 hold the short, 39..41 and 47 a long.
    exposure = np.abs(result.curve.column("exposure")[24:48])
    assert np.count_nonzero(exposure) == 16
    assert row.exposure == pytest.approx(exposure.mean())


def test_a_window_partly_inside_says_so_and_one_outside_has_no_figures():
    bars = flat_bars(np.linspace(100, 90, 24 * 6), moment("2020-03-13"))
    rows = {row.crisis.name: row for row in crisis_windows(bars)}
    part = rows["2020-03-12 pandemic"]
    assert (part.whole, part.covered, part.coverage) == (False, 0.5, "part, 50% of bars")
    assert part.held.total_return == pytest.approx(bars.column("close")[23] / 100 - 1)
    ends_inside = crisis_windows(bars[:6], crises=[Crisis.of("storm", "20200313-20200314", "a day")])[0]
    assert ends_inside.coverage == "part, 25% of bars"
    others = [row for name, row in rows.items() if name != "2020-03-12 pandemic"]
    assert {row.coverage for row in others} == {"not covered: outside the data"}
    for row in others:
        told = row.to_dict()
        assert told["held"] is told["account"] is told["exposure"] is told["trades"] is None
        assert told["covered"] == told["bars"] == 0


def test_missing_bars_are_not_said_to_be_covered_and_bars_longer_than_a_window_have_none():
    whole = flat_bars(np.linspace(100, 90, 24 * 6), moment("2020-03-10"))
    kept = np.delete(np.arange(24 * 6), 60)  # one hour of 12 March
    holed = Bars(whole.time[kept], whole.values[kept], OHLCV, "TEST/USD", HOUR)
    row = crisis_windows(holed)[1]
    assert (row.whole, row.n_bars, row.coverage) == (True, 47, "whole, 97% of bars")
    weekly = flat_bars(np.linspace(100, 90, 30), moment("2020-01-06"), 7 * 24 * HOUR)
    row = crisis_windows(weekly)[1]
    assert (row.held, row.coverage) == (None, "not covered: no whole bar inside")
    daily = flat_bars(np.linspace(100, 90, 200), moment("2020-01-01"), 24 * HOUR)
    assert crisis_windows(daily)[1].n_bars == 2


def test_a_window_counts_where_the_account_traded_and_other_bars_are_refused(make_bars):
    bars = with_gaps(flat_bars(np.linspace(100, 90, 24 * 6), moment("2020-03-10")))
    result = simulate(hold(bars), bars, FREE, OPEN, rows=slice(72, None))  # from 13 March on
    row = crisis_windows(bars, result)[1]
    assert row.coverage == "part, 50% of bars"
    assert row.held.total_return == pytest.approx(bars.column("close")[95] / bars.column("close")[71] - 1)
    with pytest.raises(DataError, match="other rows"):
        crisis_windows(make_bars(50), result)
    with pytest.raises(DataError, match="other rows"):
        crisis_windows(bars[:100], result)


def test_the_crises_as_text_name_the_uncovered_ones_below_the_table():
    bars = flat_bars(np.linspace(100, 90, 24 * 6), moment("2020-03-10"))
    text = crises_text(crisis_windows(bars, simulate(hold(bars), bars, FREE, OPEN)))
    lines = text.splitlines()
    assert lines[0].split()[:3] == ["crisis", "of", "return"]
    assert lines[2].startswith("2020-03-12 pandemic  account")
    assert lines[3].split()[0] == "held"
    assert lines[4] == "2018-11 hash war (not covered: outside the data)"
    assert len(lines) == 4 + 5


# Costs.


def unchanged_at_one(scaled):
    """Whether a scaling by 1 leaves the result as it was, bit for bit."""
    bars, targets = random_market(1)
    costs = Costs(delay_bars=1)
    plain = simulate(targets, bars, costs, RiskLimits())
    same = simulate(targets, bars, scaled(costs, 1.0), RiskLimits())
    return np.array_equal(plain.curve.values, same.curve.values)


def falls_with_the_factor(returns):
    return all(later < earlier for earlier, later in itertools.pairwise(returns))


def random_market(seed, n=400):
    rng = np.random.default_rng(seed)
    bars = flat_bars(100.0 * np.exp(np.cumsum(rng.normal(0, 0.01, n))), moment("2021-01-01"))
    wanted = np.repeat(rng.choice([-1.0, 0.0, 0.5, 1.0], n // 10 + 1), 10)[:n]
    return bars, held(bars, wanted)


def test_costs_times_one_are_the_plain_result_bit_for_bit():
    bars, targets = random_market(1)
    costs = Costs(delay_bars=1)
    plain = simulate(targets, bars, costs, RiskLimits(), capital=500.0).metrics
    found = cost_stress(targets, bars, costs, RiskLimits(), capital=500.0)
    assert [variant.setting for variant in found.variants] == [0.5, 1.0, 1.5, 2.0, 3.0]
    assert dataclasses.astuple(found.variants[1].metrics) == dataclasses.astuple(plain)
    assert unchanged_at_one(Costs.scaled)
    assert not unchanged_at_one(lambda costs, factor: costs.scaled(factor * (1 + 1e-12)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_rule_that_trades_earns_less_at_every_higher_cost(seed):
    bars, targets = random_market(seed, 120)
    found = cost_stress(targets, bars, Costs(), OPEN)
    returns = [variant.metrics.total_return for variant in found.variants]
    assert falls_with_the_factor(returns)
    assert not falls_with_the_factor(returns[:1] * 2)  # a scaling that scales nothing


def test_the_break_even_of_one_trade_is_known():
    bars = flat_bars([100, 100, 104, 110, 110], moment("2021-01-01"))
    found = cost_stress(held(bars, [0, 1, 1, 1, 1]), bars, FEES, OPEN)
    # Bought at 100 with all there is, sold at 110, r paid on both: (1 - r) / (1 + r) * 1.1 = 1
    assert found.break_even == pytest.approx((0.1 / 2.1) / 0.001, rel=1e-3)
    assert found.verdict == f"The total return is zero at {found.break_even:.3g} times the costs."


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_just_below_the_break_even_something_is_earned_and_just_above_nothing(seed):
    bars, targets = random_market(seed, 120)
    found = cost_stress(targets, bars, Costs(), OPEN, factors=())
    if found.break_even is None:
        free = simulate(targets, bars, FREE, OPEN).metrics.total_return
        assert free <= 0 or "up to 100" in found.verdict
        return
    below, above = max(0.998 * found.break_even - 2e-6, 0.0), 1.002 * found.break_even + 2e-6
    assert simulate(targets, bars, Costs().scaled(below), OPEN).metrics.total_return > 0
    assert simulate(targets, bars, Costs().scaled(above), OPEN).metrics.total_return < 0


def test_where_there_is_no_break_even_the_verdict_says_why():
    bars = flat_bars([100, 100, 104, 110, 110], moment("2021-01-01"))
    idle = cost_stress(hold(bars, 0.0), bars, FEES, OPEN)
    assert (idle.break_even, idle.verdict) == (None, "Nothing is traded: no costs, no break-even.")
    loser = cost_stress(hold(bars, -1.0), bars, FEES, OPEN)
    assert (loser.break_even, "even without costs" in loser.verdict) == (None, True)
    cheap = cost_stress(hold(bars), bars, FEES, OPEN, most=40.0)
    assert (cheap.break_even, "up to 40 times" in cheap.verdict) == (None, True)
    free = cost_stress(hold(bars), bars, FREE, OPEN)
    assert (free.break_even, "up to 100 times" in free.verdict) == (None, True)


@pytest.mark.parametrize("factor", [-1.0, math.nan, math.inf])
def test_factors_that_are_none_are_refused(factor):
    bars, targets = random_market(1)
    with pytest.raises(ConfigError, match=f"a factor is {factor}"):
        cost_stress(targets, bars, FEES, OPEN, factors=(1.0, factor))


# Delay.


def test_a_delay_of_no_bars_is_the_plain_result_and_of_k_bars_that_of_decisions_k_bars_later():
    bars, targets = random_market(2)
    costs = Costs(delay_bars=1)
    found = delay_stress(targets, bars, costs, RiskLimits())
    assert [variant.setting for variant in found] == [0, 1, 2]
    for variant in found:
        late = np.zeros(len(bars))
        shift = 1 + variant.setting
        late[shift:] = targets.column("exposure")[:-shift]
        by_hand = simulate(held(bars, late), bars, Costs(), RiskLimits()).metrics
        assert dataclasses.astuple(variant.metrics) == dataclasses.astuple(by_hand)
    assert len({variant.metrics.total_return for variant in found}) == 3


def test_a_rule_that_lives_on_one_bar_is_broken_by_a_bar_of_delay():
    rng = np.random.default_rng(3)
    sign = rng.choice([-1.0, 1.0], 500)
    bars = flat_bars(100.0 * np.cumprod(1 + 0.01 * sign), moment("2021-01-01"))
    targets = held(bars, np.append(sign[1:], 0.0))  # knows the next bar: what a look-ahead looks like here
    plain, late, _ = (variant.metrics for variant in delay_stress(targets, bars, FREE, OPEN))
    assert plain.hit_rate == 1.0
    assert late.total_return < 0.5 * plain.total_return


def test_a_negative_delay_is_refused():
    bars, targets = random_market(2)
    with pytest.raises(ConfigError, match="a delay is -1"):
        delay_stress(targets, bars, FEES, OPEN, delays=(0, -1))


# A rule on other markets.


def same_paths(one, other):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in ((one.account, other.account), (one.held, other.held))
        for name in FIGURES
    )


def test_paths_depend_on_the_seed_alone_whoever_works_and_however_many_there_are():
    bars, _ = random_market(4, 300)
    some = path_stress(trend, bars, Costs(), OPEN, seed=1, n_paths=6, mean_block=20)
    with mapper("threads", 2) as workers:
        threads = path_stress(trend, bars, Costs(), OPEN, seed=1, n_paths=6, mean_block=20, workers=workers)
    more = path_stress(trend, bars, Costs(), OPEN, seed=1, n_paths=9, mean_block=20)
    other = path_stress(trend, bars, Costs(), OPEN, seed=2, n_paths=6, mean_block=20)
    assert same_paths(some, threads)
    assert np.array_equal(some.account.total_return, more.account.total_return[:6])
    assert not same_paths(some, other)
    assert np.unique(more.account.total_return).size == 9


def test_the_path_taken_is_the_plain_result_beside_the_price():
    bars = with_gaps(random_market(5, 300)[0])
    found = path_stress(trend, bars, Costs(), OPEN, seed=1, n_paths=2, mean_block=20, rows=slice(40, 260))
    plain = simulate(trend(bars), bars, Costs(), OPEN, rows=slice(40, 260)).metrics
    price = price_returns(bars)[40:260]
    for name in ("total_return", "sharpe", "max_drawdown"):
        assert found.account.taken[name] == pytest.approx(getattr(plain, name))
    assert found.held.taken["total_return"] == pytest.approx(metrics.total_return(price))
    assert found.held.taken["max_drawdown"] == pytest.approx(metrics.max_drawdown(price))


def test_a_rule_that_holds_is_the_price_of_each_path():
    bars, _ = random_market(6, 200)
    found = path_stress(hold, bars, FREE, OPEN, seed=1, n_paths=5, mean_block=10)
    # It is decided at the first close and filled at the next open, where these bars have no gap.
    first = np.array([path[0] for path in paths_seen(bars, 5)])
    assert (1 + found.account.total_return) * (1 + first) == pytest.approx(1 + found.held.total_return)
    assert found.ahead == np.mean(found.account.total_return > found.held.total_return)


def paths_seen(bars, n_paths):
    seen = []

    def watch(given):
        seen.append(price_returns(given))
        return hold(given)

    path_stress(watch, bars, FREE, OPEN, seed=1, n_paths=n_paths, mean_block=10)
    return seen[-n_paths:]


def test_a_rule_is_given_markets_that_never_were():
    bars, _ = random_market(6, 200)
    real = price_returns(bars)
    for path in paths_seen(bars, 4):
        assert not np.array_equal(path, real)
        assert np.isin(np.round(path[1:], 12), np.round(real, 12)).all()  # of the same bars


def test_a_rule_that_learned_its_market_by_heart_is_found_out():
    bars, _ = random_market(7, 600)
    best = np.append(np.sign(price_returns(bars)[1:]), 0.0)

    def by_heart(given):  # of bars up to its row alone, and yet of no use on any other market
        return held(given, best[: len(given)])

    found = path_stress(by_heart, bars, Costs(), OPEN, seed=1, n_paths=40, mean_block=10)
    assert found.account.taken["total_return"] > 5
    assert found.account.total_return.max() < found.account.taken["total_return"]
    assert found.account.quantiles("sharpe")[2] < 2 < found.account.taken["sharpe"]


def tomorrow(bars):
    return held(bars, np.append(np.sign(np.diff(bars.column("close"))), 0.0))


def scaled_by_all(bars):
    close = bars.column("close")
    return held(bars, (close - close.mean()) / np.abs(close - close.mean()).max())


def shorter(bars):
    return hold(bars[1:])


@pytest.mark.parametrize("rule", [tomorrow, scaled_by_all, shorter])
def test_a_rule_that_looks_ahead_is_refused(rule):
    bars, _ = random_market(8, 300)
    with pytest.raises(DataError, match="decide: "):
        path_stress(rule, bars, FREE, OPEN, seed=1, n_paths=2, mean_block=10)


def test_too_few_bars_and_settings_out_of_bounds_are_refused():
    bars, _ = random_market(9, 60)
    with pytest.raises(DataError, match="29 bars to trade; paths need at least 30"):
        path_stress(trend, bars, FREE, OPEN, seed=1, mean_block=5, rows=slice(31, None))
    with pytest.raises(ConfigError, match="n_paths is 0"):
        path_stress(trend, bars, FREE, OPEN, seed=1, n_paths=0, mean_block=5)
    with pytest.raises(ConfigError, match="mean_block is 0"):
        path_stress(trend, bars, FREE, OPEN, seed=1, mean_block=0)


def test_funding_travels_to_the_paths_of_a_perpetual():
    bars, _ = random_market(10, 240)
    rate = np.where(np.arange(240) % 8 == 7, 0.002, 0.0)
    funded = Bars(
        bars.time, np.column_stack([bars.values, rate]), (*OHLCV, "funding"), bars.symbol, bars.interval_ns
    )
    settings = {"seed": 1, "n_paths": 8, "mean_block": 12, "venue": Venue(kind="perpetual")}
    dear = path_stress(hold, funded, FREE, OPEN, **settings)
    free = funded.values.copy()
    free[:, 5] = 0.0
    unpaid = Bars(bars.time, free, funded.names, bars.symbol, bars.interval_ns)
    cheap = path_stress(hold, unpaid, FREE, OPEN, **settings)
    assert np.array_equal(dear.held.total_return, cheap.held.total_return)
    lost = np.log1p(dear.account.total_return) - np.log1p(cheap.account.total_return)
    assert (lost < 0).all()
    # 30 settlements of 0.2 % on average: a path may hold more of them, or fewer
    assert lost.mean() == pytest.approx(-0.06, abs=0.02)


# All of it.


def whole_report(seed=1, **changed):
    bars, _ = random_market(11, 400)
    asked = {"decide": trend, "n_paths": 200, "n_markets": 5, "mean_block": 15.0, "rows": slice(20, None)}
    return stress(trend(bars), bars, Costs(), RiskLimits(), seed=seed, **(asked | changed))


def test_the_report_holds_what_each_question_answers():
    report = whole_report()
    bars, _ = random_market(11, 400)
    plain = simulate(trend(bars), bars, Costs(), RiskLimits(), rows=slice(20, None))
    assert report.assumptions == plain.assumptions
    assert (report.start, report.end) == (bars.time[19], bars.time[-1])
    assert [row.crisis for row in report.crises] == list(CRISES)
    for variant in (report.costs.variants[1], report.delays[0]):
        assert dataclasses.astuple(variant.metrics) == dataclasses.astuple(plain.metrics)
    for paths in (report.returns, report.markets.account):
        assert paths.taken["total_return"] == pytest.approx(plain.metrics.total_return)
    assert (len(report.returns), len(report.markets.account), len(report.markets.held)) == (200, 5, 5)


def test_the_report_is_plain_json_and_the_same_for_the_same_seed():
    told = json.dumps(whole_report().to_dict(), allow_nan=False, sort_keys=True)
    again = json.dumps(whole_report().to_dict(), allow_nan=False, sort_keys=True)
    other = json.dumps(whole_report(seed=2).to_dict(), allow_nan=False, sort_keys=True)
    assert told == again != other
    assert set(json.loads(told)) == {
        "label", "start", "end", "assumptions", "crises", "costs", "delays", "returns", "markets"
    }  # fmt: skip


def test_a_report_of_nothing_traded_is_still_plain_json():
    bars, _ = random_market(11, 100)
    report = stress(hold(bars, 0.0), bars, Costs(), OPEN, seed=1, n_paths=10, mean_block=5)
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert told["markets"] is told["costs"]["break_even"] is told["returns"]["sharpe"]["taken"] is None
    assert "Nothing is traded" in str(report)


def test_the_report_prints_its_tables_without_ragged_columns():
    report = whole_report()
    text = str(report)
    assert text.startswith("Stress of TEST/USD 1h, 2021-01-01T20:00:00Z to 2021-01-17T16:00:00Z")
    assert report.costs.verdict in text
    for title in ("times the costs", "more bars of delay", "returns in another order", "held on other"):
        table = next(part for part in text.split("\n\n") if part.startswith(title)).splitlines()
        assert len({len(line) for line in table[: 2 + (5 if title[0] == "t" else 3)]}) == 1
    assert max(map(len, text.splitlines())) <= 110
    assert "markets" not in str(whole_report(decide=None))


# On real bars.


@pytest.fixture(scope="module")
def bitcoin(shared_data):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(shared_data / "ohlcv" / "btcusdt_binance_spot_1h.parquet")
    opened = table["timestamp"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    values = np.column_stack([table[name].to_numpy() for name in OHLCV])
    return Bars(opened + HOUR, values, OHLCV, symbol="BTC/USDT", interval_ns=HOUR)


def test_bitcoin_went_through_all_six_crises(bitcoin):
    rows = crisis_windows(bitcoin)
    assert all(row.whole for row in rows)
    assert [row.coverage for row in rows] == ["whole, 99% of bars"] + 5 * ["whole"]
    # Known from the exchange's candles: 7,934.52 at midnight, 5,578.60 two days later.
    assert rows[1].held.total_return == pytest.approx(5_578.60 / 7_934.52 - 1, abs=1e-6)
    assert rows[1].held.max_drawdown < -0.45
    falls = price_returns(bitcoin)
    for row in rows:  # windows of the same length rarely hurt as much: the dates are the right ones
        depths = [
            metrics.max_drawdown(falls[i : i + row.n_bars])
            for i in range(0, falls.size - row.n_bars, max(row.n_bars // 2, 48))
        ]
        assert np.mean(np.array(depths) < row.held.max_drawdown) < 0.25


def test_a_rule_is_stressed_on_bitcoin(bitcoin):
    bars = bitcoin[-20_000:]
    report = stress(
        hold(bars), bars, Costs(), OPEN, seed=1, decide=hold, n_paths=200, n_markets=4, mean_block=200
    )
    covered = [row.crisis.name for row in report.crises if row.account is not None]
    assert covered == ["2022-06 lenders", "2022-11 FTX", "2023-03 banking"]
    for row in report.crises[3:]:
        assert row.exposure == pytest.approx(1.0, abs=0.01)
        assert row.account.total_return == pytest.approx(row.held.total_return, abs=1e-9)
    assert report.costs.break_even is None or report.costs.break_even > 3
    assert 0 < report.returns.loss_probability < 1
