"""B3: the same rule on the same bars in backtesting.py, trade by trade and to the cent.

Its conventions are ours except three: brackets are prices given with the order (the rules here put them off
the close of the decision), a bar that opens beyond the target fills at the open, and what is open at the end
is closed at the last open. Where they make a difference the referee says so, trade for trade.
"""

import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from backtest.venue import Venue
from market.bars import OHLCV, Bars, timeframe_ns
from tests.peers.referee import BACKTESTING_PY, OURS, disagreement, explain, referee, with_money
from tests.peers.rules import (
    CENT,
    RULES,
    SERIES,
    Decisions,
    Trade,
    as_targets,
    costs_of,
    moving_average_cross,
    prices_of,
    read,
    trade,
)

with warnings.catch_warnings():  # its plots import libraries that warn of their own futures
    warnings.simplefilter("ignore")
    peer = pytest.importorskip(
        "backtesting", reason="backtesting.py is not installed: pip install -e .[peers]"
    )
pandas = pytest.importorskip("pandas")
lib, bundled = pytest.importorskip("backtesting.lib"), pytest.importorskip("backtesting.test")

pytestmark = pytest.mark.filterwarnings(
    # It trades units of prices below one, and says so; it says that it closes nothing at the end, too.
    "ignore:Some prices are larger than initial cash value:UserWarning",
    "ignore:Some trades remain open at the end of backtest:UserWarning",
    "ignore:DatetimeIndex.dayofweek is deprecated:DeprecationWarning",  # its own use of pandas
)

WHOLE = Venue(lot=1)
CAPITAL = 1_000_000.0
FEES = {"goog_1d": 0.001, "eurusd_1h": 0.00003}
CASES = [(series, rule) for series in SERIES for rule in RULES]
FRAMES = {"goog_1d": bundled.GOOG, "eurusd_1h": bundled.EURUSD}
TIMEFRAMES = {"goog_1d": "1d", "eurusd_1h": "1h"}


def bars_of(series):
    """The series that come with it, stamped with the close as everything here."""
    frame, interval = FRAMES[series], timeframe_ns(TIMEFRAMES[series])
    opened = frame.index.to_numpy().astype("datetime64[ns]").astype(np.int64)
    values = np.column_stack([frame[name.capitalize()].to_numpy(dtype=float) for name in OHLCV])
    return Bars(opened + interval, values, OHLCV, SERIES[series], interval)


class Follow(peer.Strategy):
    """Wants at each close what the decisions want, and sends brackets with the order."""

    def init(self):
        pass

    def next(self):
        wanted, close = self.data.Wanted[-1], self.data.Close[-1]
        if np.sign(wanted) == np.sign(self.position.size):
            return
        if wanted == 0:
            self.position.close()
            return
        side = 1 if wanted > 0 else -1
        stop, take = close * (1 - side * self.data.Stop[-1]), close * (1 + side * self.data.Take[-1])
        # All of equity is asked for by asking for almost all: a size of one is one unit.
        (self.buy if side > 0 else self.sell)(
            size=min(abs(wanted), np.nextafter(1.0, 0.0)),
            sl=stop if np.isfinite(stop) else None,
            tp=take if np.isfinite(take) else None,
        )


def frame_of(bars, decisions):
    columns = dict(zip(("Open", "High", "Low", "Close"), prices_of(bars), strict=True))
    columns |= {"Volume": bars.column("volume")}
    columns |= dict(zip(("Wanted", "Stop", "Take"), decisions, strict=True))
    return pandas.DataFrame(columns, index=pandas.to_datetime(bars.time - bars.interval_ns))


def follow(bars, decisions, *, kind=None, cash=CAPITAL, **options):
    """Trade decisions in backtesting.py, in units of 1e-8 unless ``kind`` trades whole ones."""
    options = {"exclusive_orders": True, "finalize_trades": True} | options
    kind = kind or lib.FractionalBacktest
    return read_result(kind(frame_of(bars, decisions), Follow, cash=cash, **options).run())


def read_result(result):
    table = result["_trades"].sort_values(["EntryBar", "ExitBar"])
    names = ("EntryBar", "ExitBar", "Size", "EntryPrice", "ExitPrice", "PnL")
    rows = zip(*(table[name].tolist() for name in names), strict=True)
    trades = [Trade(a, b, 1 if q > 0 else -1, p, x, abs(q), pnl) for a, b, q, p, x, pnl in rows]
    return trades, result["_equity_curve"]["Equity"].to_numpy()


@pytest.mark.parametrize("series", SERIES)
def test_the_series_that_come_with_it_are_the_ones_in_the_data_folder(series, shared_data):
    here = read(shared_data / "peers", series)
    assert np.array_equal(here.time, bars_of(series).time)
    assert np.array_equal(here.values, bars_of(series).values)


# Where conventions match.


def both(series, rule, fee, *, bars=None, our_fee=None):
    """Return both sides of a rule with stops, in whole units, flat before the end: conventions match."""
    decisions = RULES[rule](bars_of(series)).without_targets().flat_at_the_end()
    theirs = follow(bars_of(series), decisions, kind=peer.Backtest, commission=fee)
    bars = bars_of(series) if bars is None else bars
    costs = costs_of(fee if our_fee is None else our_fee)
    targets = as_targets(bars_of(series), decisions, "signal close")
    return trade(bars, targets, costs, CAPITAL, venue=WHOLE), theirs


@pytest.mark.parametrize("costly", [False, True], ids=["free", "commission"])
@pytest.mark.parametrize(("series", "rule"), CASES)
def test_b3_trades_and_equity_agree_to_the_cent(series, rule, costly):
    (ours, our_equity), (theirs, their_equity) = both(series, rule, FEES[series] * costly)
    assert len(ours) > 50
    assert disagreement(ours, theirs) is None
    assert [one.quantity for one in ours] == [one.quantity for one in theirs]  # whole units, so exactly
    assert np.abs(our_equity - their_equity).max() < CENT
    assert abs(sum(one.pnl for one in theirs) - (our_equity[-1] - CAPITAL)) < CENT


def filled_at_the_signal_close(bars):
    """The off-by-one: every bar opens at the close before it, so that a decision fills at its own close."""
    values = bars.values.copy()
    values[1:, 0] = values[:-1, 3]
    values[:, 1], values[:, 2] = values[:, :4].max(axis=1), values[:, :4].min(axis=1)
    return replace(bars, values=values)


BROKEN = {
    "fills at the signal close": lambda series: {"bars": filled_at_the_signal_close(bars_of(series))},
    "charges one side": lambda series: {"our_fee": FEES[series] / 2},
}


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("broken", BROKEN)
def test_the_comparison_sees_a_wrong_fill_and_a_wrong_fee(series, broken):
    changed = BROKEN[broken](series)
    (ours, our_equity), (theirs, their_equity) = both(series, "exponential_cross", FEES[series], **changed)
    assert disagreement(ours, theirs) is not None
    assert np.abs(our_equity - their_equity).max() > 100


@pytest.mark.parametrize("series", SERIES)
def test_the_comparison_sees_a_stop_that_is_ignored(series):
    bars = bars_of(series)
    _, (theirs, _) = both(series, "breakout", 0.0)
    decisions = RULES["breakout"](bars).without_targets().flat_at_the_end()
    careless = as_targets(bars, decisions._replace(stop=decisions.take))
    ours, _ = trade(bars, careless, costs_of(), CAPITAL, venue=WHOLE)
    assert disagreement(ours, theirs) is not None


# Where they do not match, and why.


def open_to_the_end(series, rule):
    """A rule with its targets, in the market to the last bar."""
    return RULES[rule](bars_of(series)).nothing_new_at_the_end()


@pytest.mark.parametrize("costly", [False, True], ids=["free", "commission"])
@pytest.mark.parametrize(("series", "rule"), CASES)
def test_b3_no_trade_that_differs_is_left_unexplained(series, rule, costly):
    bars, fee = bars_of(series), FEES[series] * costly
    decisions = open_to_the_end(series, rule)
    ours, our_equity = trade(bars, as_targets(bars, decisions), costs_of(fee), CAPITAL)
    expected, money = with_money(referee(bars, decisions, OURS), decisions, fee, CAPITAL)
    assert disagreement(ours, expected) is None
    assert abs(our_equity[-1] - money) < CENT
    theirs, their_equity = follow(bars, decisions, commission=fee)
    expected, money = with_money(referee(bars, decisions, BACKTESTING_PY), decisions, fee, CAPITAL)
    assert disagreement(theirs, expected) is None
    assert abs(their_equity[-1] - money) < CENT


def test_b3_each_of_the_three_conventions_is_answerable_for_trades():
    total = Counter()
    for series, rule in CASES:
        total += explain(bars_of(series), open_to_the_end(series, rule), BACKTESTING_PY)
    assert set(total) == {"levels", "target_gap", "last_bar"}
    assert total["target_gap"] > 50
    assert total["last_bar"] >= 5


@pytest.mark.parametrize("field", ["levels", "target_gap", "last_bar"])
def test_without_any_one_of_them_the_explanation_fails(field):
    almost = replace(BACKTESTING_PY, **{field: getattr(OURS, field)})
    decisions = open_to_the_end("goog_1d", "exponential_cross")
    theirs, _ = follow(bars_of("goog_1d"), decisions)
    assert disagreement(theirs, referee(bars_of("goog_1d"), decisions, BACKTESTING_PY)) is None
    assert disagreement(theirs, referee(bars_of("goog_1d"), decisions, almost)) is not None


MISTAKES = {"stop_gap": "stop", "stop_comes_first": False, "fill": "signal close", "watches_entry_bar": False}


@pytest.mark.parametrize("field", MISTAKES)
def test_neither_library_makes_the_classic_mistakes(field):
    bars, decisions = bars_of("goog_1d"), open_to_the_end("goog_1d", "pendulum")
    ours, _ = trade(bars, as_targets(bars, decisions), costs_of())
    theirs, _ = follow(bars, decisions)
    wrong = {field: MISTAKES[field]}
    assert disagreement(ours, referee(bars, decisions, replace(OURS, **wrong))) is not None
    assert disagreement(theirs, referee(bars, decisions, replace(BACKTESTING_PY, **wrong))) is not None


@pytest.mark.parametrize("series", SERIES)
def test_a_gap_through_the_target_is_better_there_by_what_the_open_lies_beyond_it(series):
    bars, decisions = bars_of(series), open_to_the_end(series, "pendulum")
    ours, _ = trade(bars, as_targets(bars, decisions, "signal close"), costs_of())
    theirs, _ = follow(bars, decisions)
    opened, better = bars.column("open"), 0
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        assert a[:4] == pytest.approx(b[:4], rel=1e-9)
        if b.exit_price != pytest.approx(a.exit_price, rel=1e-9):
            better += 1
            assert b.exit_price == pytest.approx(opened[b.exit], rel=1e-9)
            assert (b.exit_price - a.exit_price) * a.side > 0
            assert b.exit > b.entry
    assert better >= 5


@pytest.mark.parametrize("series", SERIES)
def test_its_spread_is_paid_whole_at_the_entry_ours_half_on_each_side(series):
    bars, spread = bars_of(series), 2 * FEES[series]
    decisions = RULES["strength_reversion"](bars).without_targets().flat_at_the_end()
    targets = as_targets(bars, decisions, "signal close")
    ours, _ = trade(bars, targets, costs_of(half_spread=spread / 2), CAPITAL)
    theirs, _ = follow(bars, decisions, spread=spread)
    assert len(ours) == len(theirs) > 100
    for a, b in zip(ours, theirs, strict=True):
        assert a[:3] == b[:3]
        assert b.entry_price == pytest.approx(a.entry_price * (1 + a.side * spread), rel=1e-9)
        assert b.exit_price == pytest.approx(a.exit_price, rel=1e-9)
        # Per unit, since equities part: the same but for the spread on the price move itself.
        moved = spread / 2 * (a.exit_price - a.entry_price)
        assert b.pnl / b.quantity == pytest.approx(a.pnl / a.quantity + moved, abs=1e-9 * a.entry_price)


# What it has published about GOOG.


def quick_start(fast, slow, **options):
    """Its own strategy, written with its own indicators and orders."""
    strategy = pytest.importorskip("backtesting.test._test").SmaCross
    result = peer.Backtest(bundled.GOOG, strategy, exclusive_orders=True, **options).run(fast=fast, slow=slow)
    return result["Equity Final [$]"], result["# Trades"], read_result(result)[0]


def our_quick_start(fast, slow, fee, close_last):
    bars = bars_of("goog_1d")
    targets = as_targets(bars, moving_average_cross(bars, fast, slow))
    trades, equity = trade(bars, targets, costs_of(fee), 10_000.0, venue=WHOLE, close_last=close_last)
    return equity[-1], trades


@pytest.mark.parametrize(
    ("fast", "slow", "fee", "equity", "trades"),
    [(10, 30, 0.0, 51_959.95, 65), (10, 20, 0.002, 56_263.52, 93)],
    ids=["the result in its documentation", "the quick start of its readme"],
)
def test_its_own_strategy_on_its_own_series_earns_the_same_here_to_the_cent(fast, slow, fee, equity, trades):
    theirs, count, their_trades = quick_start(fast, slow, commission=fee)
    ours, our_trades = our_quick_start(fast, slow, fee, close_last=False)
    assert (round(theirs, 2), count) == (equity, trades)
    assert round(ours, 2) == equity
    assert disagreement(our_trades, their_trades) is None


def test_its_readme_still_prints_what_charging_the_commission_once_would_earn():
    # 68,935.12 dollars and 93 trades, said to cost 0.2 % of each order. That is a spread, paid at the entry
    # only; on both sides the same 93 trades earn 56,263.52.
    published, rate, bars = 68_935.12, 0.002, bars_of("goog_1d")
    money = 10_000.0
    for one in referee(bars, moving_average_cross(bars)):
        paid = one.entry_price * (1 + one.side * rate)
        money += one.side * np.floor(money / paid) * (one.exit_price - paid)
    assert round(money, 2) == published
    assert round(quick_start(10, 20, spread=rate)[0], 2) == published
    assert round(our_quick_start(10, 20, rate, close_last=False)[0], 2) < published - 12_000


# What it gets wrong, and we do not.


def test_an_order_of_the_last_close_earns_there_what_its_own_bar_has_moved():
    # Closing what is open at the end runs its broker once more on the last bar, with the orders that were
    # sent at the close of that bar: they fill at its open, hours earlier, and are marked at its close.
    bars = bars_of("goog_1d")
    wanted, none = np.zeros(len(bars)), np.full(len(bars), np.inf)
    wanted[-1] = 1.0
    decisions = Decisions(wanted, none, none)
    _, their_equity = follow(bars, decisions)
    _, our_equity = trade(bars, as_targets(bars, decisions), costs_of(), CAPITAL)
    moved = bars.column("close")[-1] / bars.column("open")[-1]
    assert moved > 1.01
    assert their_equity[-1] == pytest.approx(CAPITAL * moved, rel=1e-6)
    assert our_equity[-1] == CAPITAL


def test_adding_to_a_short_is_sized_there_with_the_close_of_the_bar_it_fills_in():
    class Add(peer.Strategy):
        def init(self):
            pass

        def next(self):
            if len(self.data) in (2, 3):
                self.sell(size=0.5)

    sizes, quantities = [], []
    for last in (90.0, 110.0):
        prices = np.array([[100.0] * 4] * 3 + [[100.0, 110.0, 90.0, last]])
        frame = pandas.DataFrame(prices, columns=["Open", "High", "Low", "Close"])
        frame.index = pandas.date_range("2024-01-01", periods=4, freq="D")
        result = peer.Backtest(frame, Add, cash=1_000_000, finalize_trades=True).run()
        sizes.append(result["_trades"].sort_values("EntryBar")["Size"].tolist())
        bars = Bars(
            frame.index.to_numpy().astype("datetime64[ns]").astype(np.int64) + timeframe_ns("1d"),
            np.column_stack([prices, np.ones(4)]),
            OHLCV,
            "TEST",
            timeframe_ns("1d"),
        )
        none = np.full(4, np.inf)
        targets = as_targets(bars, Decisions(np.array([0.0, -0.5, -0.75, -0.75]), none, none))
        quantities.append(trade(bars, targets, costs_of(), CAPITAL)[0][0].quantity)
    # The first order is sized with cash alone, the second with a price of its future.
    assert sizes == [[-5_000, -3_000], [-5_000, -2_000]]
    assert quantities == [7_500.0, 7_500.0]
