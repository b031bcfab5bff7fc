"""An execution in plain Python whose every convention is a switch: it explains where libraries differ.

Set to a library's conventions it must fill what that library fills, trade for trade. Between two libraries
the switches are then turned one by one: each trade that differs is owed to the switch that changes it, and
nothing is left over.
"""

from collections import Counter
from dataclasses import dataclass, fields, replace

import numpy as np

from tests.peers.rules import Trade, prices_of


@dataclass(frozen=True)
class Conventions:
    """How a decision becomes fills; the defaults are ours."""

    levels: str = "fill"  # what brackets are measured from: the fill, the signal close, the fill bar's close
    watches_entry_bar: bool = True  # whether a bracket can end a trade on the bar it began
    open_comes_first: bool = True  # whether what is due at the open precedes the bracket inside the bar
    target_gap: str = "target"  # where a bar that opens beyond the target fills: target or open
    last_bar: str = "close"  # where a trade still open at the end is closed: at the last open or close
    # Deliberate mistakes, for negative controls.
    stop_gap: str = "open"
    stop_comes_first: bool = True
    fill: str = "next open"


OURS = Conventions()
#: With brackets priced off the close of the decision, as the rules here do it there.
BACKTESTING_PY = Conventions(levels="signal close", target_gap="open", last_bar="open")
#: ``from_signals`` with stops measured from the fill.
VECTORBT = Conventions(watches_entry_bar=False, open_comes_first=False, target_gap="open")


def referee(bars, decisions, conventions=OURS):
    """Return the trades of decisions under conventions, without money."""
    prices = np.column_stack(prices_of(bars)).tolist()
    wanted = np.sign(np.nan_to_num(decisions.wanted)).astype(int).tolist()
    trades, t = [], 1
    while t < len(prices):
        side = wanted[t - 1]
        if side == 0:
            t += 1
            continue
        price = _due(prices, t, conventions)
        distances = float(decisions.stop[t - 1]), float(decisions.take[t - 1])
        leave, exit_price, at_open = _exit(prices, wanted, t, side, price, distances, conventions)
        trades.append(Trade(t, leave, side, price, exit_price))
        t = leave if at_open else leave + 1
    return trades


def _due(prices, t, conventions):
    """Return the price of what was decided at the close before row t."""
    return prices[t - 1][3] if conventions.fill == "signal close" else prices[t][0]


def _exit(prices, wanted, entry, side, price, distances, conventions):
    """Return row, price and whether it was at the open, of the end of the trade that began at a row."""
    base = {"fill": price, "signal close": prices[entry - 1][3], "fill bar close": prices[entry][3]}
    stop = base[conventions.levels] * (1 - side * distances[0])
    take = base[conventions.levels] * (1 + side * distances[1])
    if conventions.levels == "signal close":  # a level that the fill has passed already is the fill
        stop, take = side * min(side * stop, side * price), side * max(side * take, side * price)
    for t in range(entry, len(prices)):
        opened, high, low, _ = prices[t]
        adverse, favourable = (low, high) if side > 0 else (high, low)
        watched = t > entry or conventions.watches_entry_bar
        stopped = watched and (adverse - stop) * side <= 0
        taken = watched and (favourable - take) * side >= 0
        due = t > entry and wanted[t - 1] != side
        if due and (conventions.open_comes_first or not (stopped or taken)):
            return t, _due(prices, t, conventions), True
        if stopped and (conventions.stop_comes_first or not taken):
            gapped = (opened - stop) * side < 0 and conventions.stop_gap == "open"
            return t, opened if gapped else stop, False
        if taken:
            gapped = (opened - take) * side > 0 and conventions.target_gap == "open"
            return t, opened if gapped else take, False
    return len(prices) - 1, prices[-1][3 if conventions.last_bar == "close" else 0], False


def with_money(trades, decisions, fee, capital):
    """Return the trades with quantity and pnl, and the money at the end; costs come out of the position."""
    equity, done = capital, []
    for one in trades:
        share = abs(float(decisions.wanted[one.entry - 1]))
        quantity = share * equity / (one.entry_price * (1 + fee))
        gross = one.side * quantity * (one.exit_price - one.entry_price)
        pnl = gross - fee * quantity * (one.entry_price + one.exit_price)
        equity += pnl
        done.append(one._replace(quantity=quantity, pnl=pnl))
    return done, equity


def explain(bars, decisions, theirs, ours=OURS):
    """Return how many trades each convention is answerable for, turning one after the other into theirs."""
    answerable, now = Counter(), ours
    trades = _fills(referee(bars, decisions, now))
    for field in fields(Conventions):
        if getattr(now, field.name) != getattr(theirs, field.name):
            now = replace(now, **{field.name: getattr(theirs, field.name)})
            before, trades = trades, _fills(referee(bars, decisions, now))
            answerable[field.name] = len(trades - before)
    return answerable


def _fills(trades):
    return {one[:5] for one in trades}


def disagreement(ours, theirs, cents=0.01, relative=1e-9):
    """Return the first trade on which two lists differ, as text, or None.

    Rows and sides must be equal, prices equal within ``relative``, pnl within ``cents``; quantities within
    what moves no cent. What one side does not say (NaN) is not compared.
    """
    for i, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        same = a[:3] == b[:3] and np.allclose(a[3:5], b[3:5], rtol=relative, atol=0)
        if not np.isnan(a.pnl + b.pnl):
            same = same and abs(a.pnl - b.pnl) < cents
            same = same and abs(a.quantity - b.quantity) * a.entry_price < cents
        if not same:
            return f"trade {i}: {a} and {b}"
    return None if len(ours) == len(theirs) else f"{len(ours)} and {len(theirs)} trades"
