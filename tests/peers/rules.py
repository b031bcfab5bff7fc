"""The rules both sides trade, written once as decisions at closes, and the real series they trade on.

A rule looks at closes, highs and lows up to its bar and never at its own fills: what it wants is the same in
every library, so that two libraries can differ only by how they execute it.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import talib

from backtest.costs import Costs, ImpactBucket
from backtest.limits import RiskLimits
from backtest.simulate import REASONS, TARGETS, simulate
from market.bars import OHLCV, Bars
from market.sources.files import read_bars
from market.table import Table

SERIES = {"goog_1d": "GOOG", "eurusd_1h": "EUR/USD"}
CAPITAL = 10_000.0
CENT = 0.01
OPEN_LIMITS = RiskLimits(stop=None)
SIGNAL = REASONS.index("signal")


class Decisions(NamedTuple):
    """What a rule wants after each close.

    ``wanted`` is a signed share of equity whose size changes only together with its sign; ``stop`` and
    ``take`` are distances as fractions of a price, infinite for none.
    """

    wanted: np.ndarray  # (n,)
    stop: np.ndarray  # (n,)
    take: np.ndarray  # (n,)

    def without_targets(self):
        return self._replace(take=np.full(self.take.size, math.inf))

    def flat_at_the_end(self):
        """Leave at the last open, which is where libraries still agree."""
        wanted = self.wanted.copy()
        wanted[-2:] = 0.0
        return self._replace(wanted=wanted)

    def nothing_new_at_the_end(self):
        """Want nothing after the last close, which no library here or there could act on."""
        wanted = self.wanted.copy()
        wanted[-1] = 0.0
        return self._replace(wanted=wanted)


class Trade(NamedTuple):
    """A round trip; entry and exit are rows of the bars."""

    entry: int
    exit: int
    side: int
    entry_price: float
    exit_price: float
    quantity: float = math.nan
    pnl: float = math.nan


# The series.


def read(folder: Path, name: str) -> Bars:
    bars, _ = read_bars(folder / f"{name}.parquet", symbol=SERIES[name])
    return bars


def prices_of(bars):
    return [bars.column(name) for name in OHLCV[:4]]


def average_range(bars, n=14):
    """Average true range as a fraction of the close; no width made of it is a round price."""
    _, high, low, close = prices_of(bars)
    return np.nan_to_num(talib.ATR(high, low, close, n) / close, nan=math.inf)


# The rules. Each warms up flat.


def standing(up, down):
    """Return 1 from each ``up`` and -1 from each ``down`` until the next of them, 0 before the first."""
    side = np.where(up, 1.0, np.where(down, -1.0, 0.0))
    last = np.maximum.accumulate(np.where(side != 0, np.arange(side.size), 0))
    return side[last]


def episodes(enter_long, leave_long, enter_short, leave_short):
    """Return 1 or -1 between an entry and its exit; an opposite entry reverses."""
    side, held = np.zeros(enter_long.size), 0.0
    for t in range(side.size):
        if (held > 0 and leave_long[t]) or (held < 0 and leave_short[t]):
            held = 0.0
        if enter_long[t] or enter_short[t]:
            held = 1.0 if enter_long[t] else -1.0
        side[t] = held
    return side


def constant_size(side, size):
    """Scale each stretch of one side by the size known at its beginning."""
    begins = np.diff(side, prepend=0.0) != 0
    last = np.maximum.accumulate(np.where(begins, np.arange(side.size), 0))
    return side * size[last]


def moving_average_cross(bars, fast=10, slow=20):
    """The quick start of backtesting.py: reverse at each crossing of two simple averages, always in."""
    close = bars.column("close")
    gap = talib.SMA(close, fast) - talib.SMA(close, slow)
    before = np.roll(gap, 1)
    before[0] = math.nan
    wanted = standing((before < 0) & (gap > 0), (before > 0) & (gap < 0))
    none = np.full(close.size, math.inf)
    return Decisions(wanted, none, none)


def exponential_cross(bars):
    """Long above and short below an average, three quarters of equity, wide brackets."""
    close = bars.column("close")
    gap = np.nan_to_num(talib.EMA(close, 12) - talib.EMA(close, 48))
    width = average_range(bars)
    return Decisions(0.75 * np.sign(gap), 2.31 * width, 3.67 * width)


def strength_reversion(bars):
    """Buy weakness and sell strength with half of equity, near brackets."""
    strength = np.nan_to_num(talib.RSI(bars.column("close"), 14), nan=50.0)
    side = episodes(strength < 35, strength > 52, strength > 65, strength < 48)
    width = average_range(bars)
    return Decisions(0.5 * side, 1.73 * width, 1.29 * width)


def breakout(bars):
    """Follow a 20-bar breakout until the opposite 10-bar one; each position risks two percent."""
    _, high, low, close = prices_of(bars)
    upper, lower = np.roll(talib.MAX(high, 20), 1), np.roll(talib.MIN(low, 20), 1)
    floor, roof = np.roll(talib.MIN(low, 10), 1), np.roll(talib.MAX(high, 10), 1)
    known = np.arange(close.size) > 20
    side = episodes(known & (close > upper), close < floor, known & (close < lower), close > roof)
    stop = 2.83 * average_range(bars)
    return Decisions(constant_size(side, np.minimum(0.02 / stop, 0.9)), stop, 5.11 * average_range(bars))


def pendulum(bars):
    """All of equity, five bars long and five bars short, in brackets narrower than most bars."""
    width = average_range(bars)
    side = np.where(np.arange(width.size) // 5 % 2, 1.0, -1.0)
    return Decisions(np.where(np.isfinite(width), side, 0.0), 0.71 * width, 0.83 * width)


RULES = {
    rule.__name__: rule
    for rule in (moving_average_cross, exponential_cross, strength_reversion, breakout, pendulum)
}


# Our side.


def costs_of(fee=0.0, half_spread=0.0):
    """Costs of a plain fee and half spread, both fractions of notional on each side."""
    none = (ImpactBucket(turnover=0, impact_bps=0),)
    return Costs(fee_bps=fee * 1e4, half_spread_bps=half_spread * 1e4, impact=none)


def as_targets(bars, decisions, levels="fill"):
    """Return decisions as targets.

    Our distances are fractions of the fill. With ``levels="signal close"`` the prices stand where a library
    puts them that is given prices with the order: off the close of the decision. That takes the next open
    to express as a distance, so it is for comparing engines and for nothing else. A level on the wrong side
    of the fill becomes the fill itself.
    """
    wanted, stop, take = decisions
    if levels == "signal close":
        close, opened = bars.column("close"), np.append(bars.column("open")[1:], bars.column("close")[-1])
        side = np.sign(wanted)
        with np.errstate(invalid="ignore"):
            stop = np.maximum(side * (opened - close * (1 - side * stop)) / opened, 0.0)
            take = np.maximum(side * (close * (1 + side * take) - opened) / opened, 0.0)
        stop, take = (np.where(side == 0, math.inf, level) for level in (stop, take))
    return Table(bars.time, np.column_stack([wanted, stop, take]), TARGETS)


def trade(bars, targets, costs, capital=CAPITAL, **options):
    """Return the trades with their rows, and the equity at each close."""
    result = simulate(targets, bars, costs, OPEN_LIMITS, capital=capital, **options)
    records = result.trades
    entry = np.searchsorted(bars.time, records["entry_time"] + bars.interval_ns)
    leave = entry + records["bars"] - (records["reason"] != SIGNAL)
    names = ("side", "entry_price", "exit_price", "quantity", "pnl")
    columns = [column.tolist() for column in (entry, leave, *(records[name] for name in names))]
    return [Trade(*row) for row in zip(*columns, strict=True)], result.curve.column("equity")
