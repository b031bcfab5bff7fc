"""``simulate``: times, rows, delays, labels, money and files around the account."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.costs import Costs, ImpactBucket
from backtest.limits import RiskLimits
from backtest.simulate import NO_REGIME, REASONS, TARGETS, hold, simulate
from backtest.terms import Terms
from backtest.venue import Venue
from market.bars import OHLCV, Bars
from market.table import DataError, Table
from tests.reference import account as reference

HOUR = 3_600_000_000_000
START = 1_600_000_000_000_000_000 // HOUR * HOUR
FREE = Costs(fee_bps=0, half_spread_bps=0, impact=(ImpactBucket(turnover=0, impact_bps=0),))
CHEAP = Costs(fee_bps=10, half_spread_bps=5, impact=(ImpactBucket(turnover=0, impact_bps=0),))
OPEN = RiskLimits(stop=None)


def bars_of(prices, start=START):
    prices = np.array(prices, dtype=float)
    if prices.ndim == 1:
        prices = np.tile(prices[:, None], 4)
    volume = np.full((len(prices), 1), 1e4)
    time = start + HOUR * np.arange(1, len(prices) + 1)
    return Bars(time, np.hstack([prices, volume]), OHLCV, "TEST/USD", HOUR)


def targets_of(bars, exposure, stop=math.inf, take=math.inf):
    values = np.column_stack([np.broadcast_to(x, len(bars)) for x in (exposure, stop, take)])
    return Table(bars.time, values.astype(float), TARGETS)


def random_case(seed, n=200):
    case = reference.scenario(seed, n)
    bars = bars_of(case.prices)
    return bars, Table(bars.time, case.targets, TARGETS), case


# Against the twin, through the whole public call.


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.booleans())
def test_simulate_is_the_twin_on_delayed_targets_with_the_costs_of_each_bar(seed, delay, close_last):
    bars, targets, case = random_case(seed, 80)
    costs = Costs(delay_bars=delay)
    limits = RiskLimits(max_exposure=0.8, stop=0.04, take=0.06, max_drawdown=0.1917)
    result = simulate(targets, bars, costs, limits, capital=500.0, close_last=close_last)
    late = [[0.0, math.inf, math.inf]] * delay + case.targets.tolist()
    terms = Terms.of(bars, costs, limits, Venue(), 500.0)
    twin = reference.twin(
        case._replace(
            targets=np.array(late[: len(bars)]),
            terms=terms.bars,
            bounds=np.array([0.8, -0.8, 0.04, 0.06, math.inf, math.inf, 0.1917]),
            venue=np.array(reference.Venue(capital=500.0)),
            close_last=close_last,
        )
    )
    assert np.allclose(result.curve.values, twin.curve, rtol=1e-9, atol=1e-9)
    assert len(result.trades) == len(twin.trades)
    for record, one in zip(result.trades, twin.trades, strict=True):
        at_open = one.reason in (reference.SIGNAL, reference.HALTED)
        assert record["entry_time"] == bars.time[one.entry] - HOUR
        assert record["exit_time"] == bars.time[one.exit] - (HOUR if at_open else 0)
        assert record["bars"] == one.exit - one.entry + (0 if at_open else 1)
        assert (record["side"], record["reason"]) == (one.side, one.reason)
        assert (record["entry_price"], record["exit_price"]) == (one.entry_price, one.exit_price)
        for name in ("quantity", "pnl", "fees", "slippage", "funding", "mae", "mfe"):
            assert record[name] == pytest.approx(getattr(one, name), rel=1e-9, abs=1e-9)


# Times.


def test_trades_are_stamped_with_the_open_they_fill_at_and_the_close_an_inside_exit_is_known_at():
    bars = bars_of([(100,) * 4, (100,) * 4, (100, 100, 80, 95), (95,) * 4, (95,) * 4, (96,) * 4, (97,) * 4])
    result = simulate(targets_of(bars, [1, 1, -1, -1, 0, 1, 1], 0.1), bars, FREE, OPEN)
    hours = (result.trades["entry_time"] - START) // HOUR, (result.trades["exit_time"] - START) // HOUR
    # Bar i opens at hour i and closes at hour i + 1.
    assert hours[0].tolist() == [1, 3, 6]
    assert hours[1].tolist() == [3, 5, 7]
    assert [REASONS[code] for code in result.trades["reason"]] == ["stop", "signal", "last bar"]
    assert result.trades["bars"].tolist() == [2, 2, 1]
    assert (result.trades["exit_time"] - result.trades["entry_time"]).tolist() == [2 * HOUR, 2 * HOUR, HOUR]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_b5_a_week_later_changes_nothing_but_the_times(seed):
    bars, targets, case = random_case(seed)
    week = 7 * 24 * HOUR
    later = bars_of(case.prices, START + week)
    limits = RiskLimits(daily_loss=0.02, max_drawdown=0.3)
    one = simulate(targets, bars, Costs(), limits)
    two = simulate(Table(later.time, case.targets, TARGETS), later, Costs(), limits)
    assert np.array_equal(one.curve.values, two.curve.values)
    assert np.array_equal(two.trades["entry_time"], one.trades["entry_time"] + week)
    assert np.array_equal(two.trades["exit_time"], one.trades["exit_time"] + week)
    names = [name for name in one.trades.dtype.names if not name.endswith("_time")]
    for name in names:
        assert np.array_equal(one.trades[name], two.trades[name])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_b5_capital_times_k_is_money_times_k(seed):
    bars, targets, _ = random_case(seed)
    one = simulate(targets, bars, Costs(), OPEN, capital=1_000.0)
    two = simulate(targets, bars, Costs(), OPEN, capital=4_000.0)
    money = [0, 4, 5, 6, 7]
    assert np.array_equal(two.curve.values[:, money], 4 * one.curve.values[:, money])
    assert np.array_equal(two.curve.values[:, 1:4], one.curve.values[:, 1:4])
    for name in ("quantity", "pnl", "fees", "slippage"):
        assert np.array_equal(two.trades[name], 4 * one.trades[name])


# Rows and delay.


def test_the_account_starts_flat_on_the_first_of_the_rows_and_ends_with_the_last():
    bars, targets, _ = random_case(3)
    part = simulate(targets, bars, CHEAP, OPEN, rows=slice(50, 120))
    alone = simulate(targets[50:120], bars[50:120], CHEAP, OPEN)
    assert np.array_equal(part.curve.values, alone.curve.values)
    assert np.array_equal(part.curve.time, bars.time[50:120])
    assert np.array_equal(part.trades, alone.trades)
    assert part.curve.column("turnover")[0] == 0


def test_liquidity_before_the_rows_is_known_to_them():
    bars = bars_of([100.0] * 60)
    targets = targets_of(bars, 1)
    part = simulate(targets, bars, Costs(), OPEN, rows=slice(40, 60))
    paid = part.curve.column("slippage")[1] / (part.curve.column("turnover")[1] * 10_000)
    assert paid == pytest.approx(Costs().slippage(bars)[41])


def test_rows_may_be_counted_from_the_end_and_may_be_none():
    bars, targets, _ = random_case(4)
    one = simulate(targets, bars, CHEAP, OPEN, rows=slice(-30, None))
    two = simulate(targets, bars, CHEAP, OPEN, rows=slice(170, 200))
    assert np.array_equal(one.curve.values, two.curve.values)
    empty = simulate(targets, bars, CHEAP, OPEN, rows=slice(10, 10))
    assert len(empty.curve) == len(empty.trades) == 0
    assert empty.metrics.n_bars == 0


def test_rows_with_a_step_are_refused():
    bars, targets, _ = random_case(4)
    with pytest.raises(DataError, match="step 2"):
        simulate(targets, bars, CHEAP, OPEN, rows=slice(0, 100, 2))


def test_a_delay_of_bars_fills_that_much_later_than_the_next_open():
    bars = bars_of([100.0, 101, 102, 103, 104, 105, 106])
    for delay in range(4):
        result = simulate(targets_of(bars, [1, 0, 0, 0, 0, 0, 0]), bars, Costs(delay_bars=delay), OPEN)
        assert result.trades["entry_price"].tolist() == [101.0 + delay]
        assert result.trades["exit_price"].tolist() == [102.0 + delay]
    late = simulate(targets_of(bars, 1), bars, Costs(delay_bars=24), OPEN)
    assert len(late.trades) == 0


def test_the_label_of_a_trade_is_the_one_its_decision_saw():
    bars = bars_of([100.0] * 8)
    labels = np.array([2, 0, 1, 2, 0, 1, 2, 0], np.int8)
    targets = targets_of(bars, [0, 1, 0, 0, -1, 0, 0, 0])
    for delay in (0, 2):
        costs = Costs(delay_bars=delay)
        result = simulate(targets, bars, costs, OPEN, regimes=labels)
        assert result.trades["regime"].tolist() == [0, 0]
        part = simulate(targets, bars, costs, OPEN, rows=slice(3, 8), regimes=labels)
        assert part.trades["regime"].tolist() == [0]
    assert simulate(targets, bars, FREE, OPEN).trades["regime"].tolist() == [NO_REGIME] * 2


# What is refused, and what is flat.


def test_a_target_that_is_not_a_number_is_flat():
    bars = bars_of([100.0, 100, 120, 150, 150])
    result = simulate(targets_of(bars, [1, math.nan, math.nan, 0, 0]), bars, FREE, OPEN)
    assert result.trades["exit_price"].tolist() == [120.0]


@pytest.mark.parametrize(("column", "value"), [(1, math.nan), (2, math.nan), (1, -0.1), (2, -1e-9)])
def test_distances_that_are_no_fraction_are_refused(column, value):
    bars = bars_of([100.0] * 5)
    values = np.tile([1.0, 0.1, 0.1], (5, 1))
    values[3, column] = value
    with pytest.raises(DataError, match="stop or take"):
        simulate(Table(bars.time, values, TARGETS), bars, FREE, OPEN)


def test_columns_and_clocks_must_be_those_of_targets():
    bars = bars_of([100.0] * 5)
    with pytest.raises(DataError, match="columns"):
        simulate(Table(bars.time, np.ones((5, 2)), ("exposure", "stop")), bars, FREE, OPEN)
    with pytest.raises(DataError):
        simulate(targets_of(bars[1:], 1), bars, FREE, OPEN)
    with pytest.raises(DataError):
        simulate(Table(bars.time + 1, np.ones((5, 1)), ("exposure",)), bars, FREE, OPEN)


def test_exposure_alone_is_a_target_without_stop_and_target():
    bars, _, case = random_case(8)
    exposure = Table(bars.time, case.targets[:, :1], TARGETS[:1])
    one = simulate(exposure, bars, CHEAP, OPEN)
    two = simulate(targets_of(bars, case.targets[:, 0]), bars, CHEAP, OPEN)
    assert np.array_equal(one.curve.values, two.curve.values)


def test_inputs_are_not_changed():
    bars, targets, _ = random_case(9)
    before = bars.values.copy(), targets.values.copy()
    simulate(targets, bars, Costs(delay_bars=1), OPEN)
    assert np.array_equal(before[0], bars.values)
    assert np.array_equal(before[1], targets.values, equal_nan=True)


# Holding, and the record.


def test_without_costs_holding_is_the_price():
    bars, _, case = random_case(10)
    result = simulate(hold(bars), bars, FREE, OPEN, capital=1.0)
    expected = np.append(1.0, case.prices[1:, 3] / case.prices[1, 0])
    assert result.curve.column("equity") == pytest.approx(expected, rel=1e-12)
    assert len(result.trades) == 1


def test_holding_with_the_default_limits_is_stopped_and_bought_again():
    # Said here because it surprises: the protective stop of the account binds the baseline as well.
    bars = bars_of([100.0, 100, 70, 70, 100, 100])
    result = simulate(hold(bars), bars, FREE, RiskLimits())
    assert [REASONS[code] for code in result.trades["reason"]] == ["stop", "last bar"]
    assert len(simulate(hold(bars), bars, FREE, OPEN).trades) == 1


def test_never_trading_costs_nothing():
    bars, _, _ = random_case(11)
    result = simulate(hold(bars, 0.0), bars, Costs(), RiskLimits())
    assert (result.curve.column("equity") == 10_000.0).all()
    assert len(result.trades) == 0


def test_the_record_adds_up():
    bars, targets, _ = random_case(12, 500)
    result = simulate(targets, bars, Costs(), RiskLimits())
    equity = result.curve.column("equity")
    assert result.trades["pnl"].sum() == pytest.approx(equity[-1] - 10_000.0, rel=1e-9)
    paid = result.curve.column("fees").sum() + result.curve.column("slippage").sum()
    assert result.trades["fees"].sum() + result.trades["slippage"].sum() == pytest.approx(paid, rel=1e-9)
    assert 10_000.0 * np.cumprod(1 + result.curve.column("net_return")) == pytest.approx(equity, rel=1e-12)
    assert result.metrics.n_trades == len(result.trades)
    assert result.metrics.total_return == pytest.approx(equity[-1] / 10_000.0 - 1, rel=1e-9)
    assert result.metrics.bars_per_year == 8760


def test_the_record_cannot_be_changed():
    bars, targets, _ = random_case(13)
    result = simulate(targets, bars, FREE, OPEN)
    with pytest.raises(ValueError, match="read-only"):
        result.trades["pnl"][0] = 1e9
    with pytest.raises(ValueError, match="read-only"):
        result.curve.values[0, 0] = 1e9


def test_what_is_saved_is_what_was_simulated(tmp_path):
    bars, targets, _ = random_case(14)
    result = simulate(targets, bars, Costs(), OPEN, regimes=np.zeros(200, np.int8))
    result.save(tmp_path / "new" / "folder")
    curve = pq.read_table(tmp_path / "new" / "folder" / "equity.parquet")
    trades = pq.read_table(tmp_path / "new" / "folder" / "trades.parquet")
    assert np.array_equal(curve["time"].cast("int64").to_numpy(), bars.time)
    assert np.array_equal(curve["equity"].to_numpy(), result.curve.column("equity"))
    assert str(trades.schema.field("entry_time").type) == "timestamp[ns, tz=UTC]"
    assert np.array_equal(trades["exit_time"].cast("int64").to_numpy(), result.trades["exit_time"])
    assert trades["reason"].to_pylist() == [REASONS[code] for code in result.trades["reason"]]
    assert np.array_equal(trades["pnl"].to_numpy(), result.trades["pnl"])


def test_assumptions_say_delay_stop_and_what_happens_to_the_last_position():
    bars = bars_of([100.0] * 3)
    text = " ".join(simulate(hold(bars), bars, Costs(delay_bars=2), RiskLimits(stop=0.2)).assumptions)
    assert "2 bars late" in text
    assert "widest stop 0.2," in text
    assert "closed at the last close" in text
    text = " ".join(simulate(hold(bars), bars, FREE, OPEN, close_last=False).assumptions)
    assert "late" not in text
    assert "stays open" in text


def test_b11_the_same_call_gives_the_same_bytes():
    bars, targets, _ = random_case(15, 1000)
    one, two = (simulate(targets, bars, Costs(), RiskLimits(daily_loss=0.02)) for _ in range(2))
    assert one.curve.values.tobytes() == two.curve.values.tobytes()
    assert one.trades.tobytes() == two.trades.tobytes()
