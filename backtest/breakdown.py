"""Where a result came from: spells of drawdown, months, the bill of costs, groups of trades.

Pure functions on what a :class:`~backtest.simulate.BacktestResult` holds, so that every figure can be had
again from the files it saves. What is not defined is NaN, as in :mod:`backtest.metrics`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from backtest.metrics import drawdown, expectancy, hit_rate, profit_factor
from backtest.simulate import NO_REGIME, REASONS, BacktestResult

# First bar count of each class of holding time, and the names of the classes.
_HOLDING_EDGES = (2, 5, 17, 65, 257)
_HOLDING = ("1 bar", "2 to 4 bars", "5 to 16 bars", "17 to 64 bars", "65 to 256 bars", "257 bars or more")


@dataclass(frozen=True)
class Spell:
    """One drawdown, from the last close at a peak to the first close that is no longer below it.

    Parameters
    ----------
    peak : int
        Row of the peak; -1 where it is the capital at the start.
    trough : int
        Row of the deepest close.
    recovery : int or None
        Row of the first close at the peak or above; None while there is none.
    depth : float
        Of the deepest close, fraction below zero.
    bars : int
        Closes below the peak.
    """

    peak: int
    trough: int
    recovery: int | None
    depth: float
    bars: int


def drawdown_spells(returns: np.ndarray) -> tuple[Spell, ...]:
    """Return every drawdown of float64 (n,) net returns, the deepest first; equals in order of time."""
    depth = drawdown(returns)
    below = np.concatenate(([False], depth < 0, [False]))
    starts, ends = np.flatnonzero(np.diff(below.astype(np.int8))).reshape(-1, 2).T
    spells = [
        Spell(
            peak=int(start) - 1,
            trough=int(start + np.argmin(depth[start:end])),
            recovery=int(end) if end < depth.size else None,
            depth=float(depth[start:end].min()),
            bars=int(end - start),
        )
        for start, end in zip(starts, ends, strict=True)
    ]
    return tuple(sorted(spells, key=lambda spell: spell.depth))


def calendar_returns(
    time: np.ndarray, returns: np.ndarray, unit: Literal["M", "Y"]
) -> tuple[np.ndarray, np.ndarray]:
    """Return compounded returns by UTC month or year.

    A bar belongs to the period in which it ends; one that closes at midnight belongs to the day before.

    Parameters
    ----------
    time : int64 (n,)
        Closes, nanoseconds UTC.
    returns : float64 (n,)
        Net simple returns.
    unit : str
        ``M`` or ``Y``.

    Returns
    -------
    tuple
        datetime64 (k,) periods that hold a bar, in order, and float64 (k,) their returns.
    """
    if len(time) == 0:
        return np.empty(0, f"datetime64[{unit}]"), np.empty(0)
    period = (np.asarray(time) - 1).astype("datetime64[ns]").astype(f"datetime64[{unit}]")
    first = np.flatnonzero(np.concatenate(([True], period[1:] != period[:-1])))
    growth = np.multiply.reduceat(np.maximum(1 + np.asarray(returns), 0.0), first)
    return period[first], growth - 1


@dataclass(frozen=True)
class Bill:
    """What was earned before costs, and what the costs took; quote currency.

    Parameters
    ----------
    fees, slippage, funding : float
        Paid over all bars; funding is negative when it was earned.
    net : float
        Last equity less the capital.
    traded : float
        Value bought plus value sold.
    """

    fees: float
    slippage: float
    funding: float
    net: float
    traded: float

    @classmethod
    def of(cls, result: BacktestResult) -> Self:
        """Return the bill of a result."""
        equity = result.curve.column("equity")
        before = np.concatenate(([result.capital], equity))
        fees, slippage, funding = (
            float(result.curve.column(name).sum()) for name in ("fees", "slippage", "funding")
        )
        return cls(
            fees=fees,
            slippage=slippage,
            funding=funding,
            net=float(before[-1] - result.capital),
            traded=float((result.curve.column("turnover") * before[:-1]).sum()),
        )

    @property
    def costs(self) -> float:
        """Fees, slippage and funding."""
        return self.fees + self.slippage + self.funding

    @property
    def gross(self) -> float:
        """Profit before costs; the quantities are those that were traded with costs."""
        return self.net + self.costs

    def share(self, amount: float) -> float:
        """Return an amount as a fraction of the gross profit; NaN where there was none."""
        return amount / self.gross if self.gross > 0 else math.nan

    def rate(self, amount: float) -> float:
        """Return an amount as a fraction of the value traded; NaN where nothing was."""
        return amount / self.traded if self.traded > 0 else math.nan


def trade_returns(trades: np.ndarray) -> np.ndarray:
    """Return the net profit of each trade over the value of its largest quantity at its entry price."""
    return trades["pnl"] / (trades["quantity"] * trades["entry_price"])


def trade_costs(trades: np.ndarray) -> np.ndarray:
    """Return fees, slippage and funding of each trade, quote currency."""
    return trades["fees"] + trades["slippage"] + trades["funding"]


@dataclass(frozen=True)
class TradeGroup:
    """Trades that have something in common.

    Parameters
    ----------
    name : str
    n_trades : int
    hit_rate, profit_factor, expectancy : float
        As in :mod:`backtest.metrics`.
    pnl, costs : float
        Sums over the trades, quote currency.
    mean_return : float
        Mean of :func:`trade_returns`.
    mean_bars : float
        Mean holding time, bars.
    """

    name: str
    n_trades: int
    hit_rate: float
    profit_factor: float
    expectancy: float
    pnl: float
    costs: float
    mean_return: float
    mean_bars: float

    @classmethod
    def of(cls, name: str, trades: np.ndarray) -> Self:
        """Return the figures of some trades."""
        pnl = trades["pnl"]
        return cls(
            name=name,
            n_trades=len(trades),
            hit_rate=hit_rate(pnl),
            profit_factor=profit_factor(pnl),
            expectancy=expectancy(pnl),
            pnl=float(pnl.sum()),
            costs=float(trade_costs(trades).sum()),
            mean_return=float(trade_returns(trades).mean()) if len(trades) else math.nan,
            mean_bars=float(trades["bars"].mean()) if len(trades) else math.nan,
        )


def trade_groups(trades: np.ndarray, regime_names: Mapping[int, str]) -> dict[str, tuple[TradeGroup, ...]]:
    """Return the trades by side, by reason of the exit, by regime and by holding time; no empty groups."""
    regimes = {code: regime_name(code, regime_names) for code in np.unique(trades["regime"]).tolist()}
    holding = np.searchsorted(_HOLDING_EDGES, trades["bars"], side="right")
    kinds = {
        "side": (trades["side"], {1: "long", -1: "short"}),
        "reason of the exit": (trades["reason"], dict(enumerate(REASONS))),
        "regime at the decision": (trades["regime"], regimes),
        "holding time": (holding, dict(enumerate(_HOLDING))),
    }
    return {
        kind: tuple(
            TradeGroup.of(name, trades[codes == code])
            for code, name in names.items()
            if (codes == code).any()
        )
        for kind, (codes, names) in kinds.items()
    }


def regime_name(code: int, names: Mapping[int, str]) -> str:
    """Return the name of a regime code, or one that says there is none."""
    return names.get(code, "no regime" if code == NO_REGIME else f"regime {code}")


@dataclass(frozen=True)
class Comparison:
    """A series of returns beside another on the same bars.

    Parameters
    ----------
    correlation : float
        Of the returns of single bars.
    beta : float
        Slope of the regression on the other's returns.
    alpha : float
        Its intercept times bars per year, a fraction.
    tracking_error : float
        Deviation (ddof 1) of the differences times the root of bars per year.
    information_ratio : float
        Annual mean difference over the tracking error.
    """

    correlation: float
    beta: float
    alpha: float
    tracking_error: float
    information_ratio: float

    @classmethod
    def of(cls, returns: np.ndarray, other: np.ndarray, bars_per_year: float) -> Self:
        """Return the comparison of two float64 (n,) series of net returns; NaN for fewer than two bars."""
        excess = returns - other
        if returns.size < 2 or np.ptp(other) == 0:
            correlation = beta = alpha = math.nan
        else:
            (own, both), (_, others) = np.cov(returns, other)
            correlation = both / math.sqrt(own * others) if np.ptp(returns) > 0 else math.nan
            beta = both / others
            alpha = (returns.mean() - beta * other.mean()) * bars_per_year
        moves = returns.size >= 2 and np.ptp(excess) > 0
        error = excess.std(ddof=1) * math.sqrt(bars_per_year) if moves else math.nan
        return cls(*map(float, (correlation, beta, alpha, error, excess.mean() * bars_per_year / error)))


def rolling_moments(values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (ddof 1) of the last ``window`` values, float64 (n,) each.

    NaN until the window is full. Where a window holds equal values its deviation is exactly 0.
    """
    mean, deviation = np.full((2, values.size), math.nan)
    if values.size < window or window < 2:
        return mean, deviation
    centered = values - values.mean()  # keeps the sums small
    total = np.concatenate(([0.0], np.cumsum(centered)))
    square = np.concatenate(([0.0], np.cumsum(centered**2)))
    changes = np.concatenate(([0, 0], np.cumsum(values[1:] != values[:-1])))
    sums, squares = total[window:] - total[:-window], square[window:] - square[:-window]
    moved = changes[window:] - changes[1 : values.size - window + 2] > 0
    variance = np.maximum(squares - sums**2 / window, 0.0) / (window - 1)
    mean[window - 1 :] = sums / window + values.mean()
    deviation[window - 1 :] = np.where(moved, np.sqrt(variance), 0.0)
    return mean, deviation
