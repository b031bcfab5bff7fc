"""B3: the same rule on the same bars in vectorbt, trade by trade and to the cent.

``from_orders`` with the next open as its price makes our fills exactly. ``from_signals`` with stops has one
order to a bar: a bracket is not watched on the bar of its entry, and a bracket hit inside a bar replaces the
order that was due at that bar's open. A bar that opens beyond the target fills at the open.
"""

import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.peers.referee import OURS, VECTORBT, disagreement, explain, referee
from tests.peers.rules import (
    CENT,
    RULES,
    SERIES,
    Trade,
    as_targets,
    costs_of,
    prices_of,
    read,
    trade,
)

with warnings.catch_warnings():  # it imports plotting libraries that warn of their own futures
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("vectorbt", reason="vectorbt is not installed: pip install -e .[peers]")
pandas = pytest.importorskip("pandas")

CAPITAL = 1_000_000.0
FEES = {"goog_1d": 0.001, "eurusd_1h": 0.00003}
CASES = [(series, rule) for series in SERIES for rule in RULES]


@pytest.fixture(scope="module")
def bars_of(shared_data):
    return {name: read(shared_data / "peers", name) for name in SERIES}


def late(values):
    """Shift by one bar: what is decided at a close is an order at the next open."""
    return np.concatenate([np.zeros(1, values.dtype), values[:-1]])


def read_portfolio(portfolio):
    records = portfolio.trades.records.sort_values(["entry_idx", "exit_idx"])
    names = ("entry_idx", "exit_idx", "direction", "entry_price", "exit_price", "size", "pnl")
    rows = zip(*(records[name].tolist() for name in names), strict=True)
    trades = [Trade(a, b, 1 - 2 * short, p, x, q, pnl) for a, b, short, p, x, q, pnl in rows]
    return trades, portfolio.value().to_numpy()


def series_of(bars):
    return [pandas.Series(column) for column in map(np.array, prices_of(bars))]


# Orders: conventions match.


def order(bars, sizes, size_type, fee=0.0):
    """Send at each open the size decided at the close before it; NaN sends nothing."""
    opened, _, _, close = series_of(bars)
    return read_portfolio(
        peer.Portfolio.from_orders(
            close,
            size=sizes,
            size_type=size_type,
            price=opened,
            fees=fee,
            init_cash=CAPITAL,
            freq="h",
        )
    )


def shares(decisions):
    """The shares of equity to order: none while what is wanted stays the same."""
    changes = np.diff(decisions.wanted, prepend=0.0) != 0
    return late(np.where(changes, decisions.wanted, np.nan))


def plain(rule, bars):
    """A rule without brackets, flat before the end."""
    decisions = RULES[rule](bars).without_targets().flat_at_the_end()
    return decisions._replace(stop=decisions.take)


@pytest.mark.parametrize(("series", "rule"), CASES)
def test_b3_orders_for_shares_of_equity_agree_to_the_cent(series, rule, bars_of):
    bars = bars_of[series]
    decisions = plain(rule, bars)
    theirs, their_equity = order(bars, shares(decisions), "targetpercent")
    ours, our_equity = trade(bars, as_targets(bars, decisions), costs_of(), CAPITAL)
    assert len(ours) > 30
    assert disagreement(ours, theirs) is None
    assert np.abs(our_equity - their_equity).max() < CENT


@pytest.mark.parametrize(("series", "rule"), CASES)
def test_b3_with_fees_all_of_equity_long_or_nothing_agrees_to_the_cent(series, rule, bars_of):
    # An order for more than there is cash for is cut to what pays for itself and its fee, which is our rule.
    bars, fee = bars_of[series], FEES[series]
    decisions = plain(rule, bars)
    decisions = decisions._replace(wanted=(decisions.wanted > 0).astype(float))
    theirs, their_equity = order(bars, shares(decisions), "targetpercent", fee)
    ours, our_equity = trade(bars, as_targets(bars, decisions), costs_of(fee), CAPITAL)
    assert len(ours) > 15
    assert disagreement(ours, theirs) is None
    assert np.abs(our_equity - their_equity).max() < CENT


@pytest.mark.parametrize(("series", "rule"), CASES)
def test_b3_with_fees_the_books_of_our_quantities_agree_to_the_cent(series, rule, bars_of):
    bars, fee = bars_of[series], FEES[series]
    decisions = plain(rule, bars)
    ours, our_equity = trade(bars, as_targets(bars, decisions), costs_of(fee), CAPITAL)
    quantity = np.full(len(bars), np.nan)
    for one in ours:
        quantity[one.exit] = 0.0
    for one in ours:  # a reversal overwrites the close with the position that follows it
        quantity[one.entry] = one.side * one.quantity
    theirs, their_equity = order(bars, quantity, "targetamount", fee)
    assert disagreement(ours, theirs) is None
    assert np.abs(our_equity - their_equity).max() < CENT


def test_part_of_equity_is_there_a_share_before_its_fee_and_here_after_it(bars_of):
    bars, fee = bars_of["goog_1d"], FEES["goog_1d"]
    decisions = plain("exponential_cross", bars)
    theirs, _ = order(bars, shares(decisions), "targetpercent", fee)
    ours, _ = trade(bars, as_targets(bars, decisions), costs_of(fee), CAPITAL)
    assert theirs[0].quantity == pytest.approx(ours[0].quantity * (1 + fee), rel=1e-9)
    assert disagreement(without_money(ours), without_money(theirs)) is None


def without_money(trades):
    return [Trade(*one[:5]) for one in trades]


@pytest.mark.parametrize("series", SERIES)
def test_the_comparison_sees_an_order_at_the_signal_close(series, bars_of):
    bars = bars_of[series]
    decisions = plain("exponential_cross", bars)
    close = series_of(bars)[3]
    early = np.roll(shares(decisions), -1)
    early[-1] = np.nan
    # What it does where no price is given: the order of a signal fills at the close that gave the signal.
    portfolio = peer.Portfolio.from_orders(
        close, size=early, size_type="targetpercent", init_cash=CAPITAL, freq="h"
    )
    theirs, their_equity = read_portfolio(portfolio)
    ours, our_equity = trade(bars, as_targets(bars, decisions), costs_of(), CAPITAL)
    assert disagreement(ours, theirs) is not None
    assert np.abs(our_equity - their_equity).max() > 100
    assert [one.entry for one in theirs] == [one.entry - 1 for one in ours]
    expected = [bars.column("close")[one.entry - 1] for one in ours]
    assert [one.entry_price for one in theirs] == pytest.approx(expected, rel=1e-12)


# Signals with stops: they do not match, and why.


def signal(bars, decisions, **options):
    """Trade one unit by signals, with stops and targets measured from the fill unless told otherwise."""
    opened, high, low, close = series_of(bars)
    side = late(np.sign(decisions.wanted))
    options = {"stop_entry_price": "fillprice", "fees": 0.0} | options
    return read_portfolio(
        peer.Portfolio.from_signals(
            close,
            entries=side > 0,
            exits=side <= 0,
            short_entries=side < 0,
            short_exits=side >= 0,
            price=opened,
            open=opened,
            high=high,
            low=low,
            size=1.0,
            sl_stop=late(np.where(np.isinf(decisions.stop), np.nan, decisions.stop)),
            tp_stop=late(np.where(np.isinf(decisions.take), np.nan, decisions.take)),
            upon_long_conflict="entry",
            upon_short_conflict="entry",
            upon_opposite_entry="reverse",
            init_cash=CAPITAL,
            freq="h",
            **options,
        )
    )


@pytest.mark.parametrize(("series", "rule"), CASES)
def test_b3_no_trade_of_signals_with_stops_that_differs_is_left_unexplained(series, rule, bars_of):
    bars, fee = bars_of[series], FEES[series]
    decisions = RULES[rule](bars)
    ours, _ = trade(bars, as_targets(bars, decisions), costs_of(), CAPITAL)
    assert disagreement(ours, referee(bars, decisions, OURS)) is None
    theirs, _ = signal(bars, decisions, fees=fee)
    assert disagreement(theirs, referee(bars, decisions, VECTORBT)) is None
    for one in theirs[:-1]:  # what is still open at the end has not paid its exit
        paid = fee * (one.entry_price + one.exit_price)
        assert one.pnl == pytest.approx(one.side * (one.exit_price - one.entry_price) - paid, abs=1e-6)


def test_b3_each_of_the_three_conventions_is_answerable_for_trades(bars_of):
    total = Counter()
    for series, rule in CASES:
        total += explain(bars_of[series], RULES[rule](bars_of[series]), VECTORBT)
    assert set(total) == {"watches_entry_bar", "open_comes_first", "target_gap"}
    assert min(total.values()) > 50


@pytest.mark.parametrize("field", ["watches_entry_bar", "open_comes_first", "target_gap"])
def test_without_any_one_of_them_the_explanation_fails(field, bars_of):
    bars = bars_of["goog_1d"]
    decisions = RULES["pendulum"](bars)
    almost = replace(VECTORBT, **{field: getattr(OURS, field)})
    theirs, _ = signal(bars, decisions)
    assert disagreement(theirs, referee(bars, decisions, VECTORBT)) is None
    assert disagreement(theirs, referee(bars, decisions, almost)) is not None


# What it gets wrong, and we do not.


@pytest.mark.parametrize("series", SERIES)
def test_by_default_its_stops_are_measured_from_a_price_after_the_fill(series, bars_of):
    # Without stop_entry_price the distance counts from the close of the bar it filled in.
    bars = bars_of[series]
    decisions = RULES["exponential_cross"](bars)
    theirs, _ = signal(bars, decisions, stop_entry_price=None)
    expected = replace(VECTORBT, levels="fill bar close")
    assert disagreement(theirs, referee(bars, decisions, expected)) is None
    assert disagreement(theirs, referee(bars, decisions, VECTORBT)) is not None


@pytest.mark.parametrize("series", SERIES)
def test_unwatched_entry_bars_lose_more_than_the_stop_says(series, bars_of):
    bars = bars_of[series]
    decisions = RULES["pendulum"](bars).without_targets()
    theirs, _ = signal(bars, decisions)
    ours, _ = trade(bars, as_targets(bars, decisions), costs_of(), CAPITAL)
    opened, before = bars.column("open"), bars.column("close")

    def beyond(trades):
        """Count trades that end at an open beyond a stop which the bar before had passed already."""
        count = 0
        for one in trades:
            stop = one.entry_price * (1 - one.side * decisions.stop[one.entry - 1])
            lost = (one.exit_price - stop) * one.side < -1e-9 * stop
            passed = (before[one.exit - 1] - stop) * one.side < 0 and one.exit > one.entry
            count += lost and passed and one.exit_price == opened[one.exit]
        return count

    assert beyond(theirs) > 20
    assert beyond(ours) == 0
