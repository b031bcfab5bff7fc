"""Named crises of the crypto market, and what an account did in each of them.

How the windows were chosen: a crisis named by a month is that calendar month; any other runs from the UTC
day of the first event named to the UTC day of the last, both included. No edge was placed by looking at a
price, so a window does not end at its low, and holding can even gain in one (2023-03).

The windows are hindsight and for reports alone: nobody knew on the first day that it was one.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from backtest.metrics import cvar_95, max_drawdown, total_return
from backtest.simulate import BacktestResult
from market.bars import Bars, timerange_ns
from market.table import DataError, utc


@dataclass(frozen=True)
class Crisis:
    """A stretch of time in which markets broke.

    Parameters
    ----------
    name : str
        Its usual date and name.
    start, end : int
        Nanoseconds UTC; the end is exclusive.
    what : str
        What happened, with the dates that set the window.
    sources : tuple of str
        Public records of those dates.

    Raises
    ------
    DataError
        If it ends before it starts.
    """

    name: str
    start: int
    end: int
    what: str
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise DataError(
                f"crisis {self.name}: ends {utc(self.end)}, starts {utc(self.start)}; it must end later"
            )

    @classmethod
    def of(cls, name: str, timerange: str, what: str, *sources: str) -> Self:
        """Return the crisis of a range such as ``20221106-20221112`` (the end is exclusive)."""
        start, end = timerange_ns(timerange)
        if start is None or end is None:
            raise DataError(f"crisis {name}: timerange {timerange!r} is open; it needs both sides")
        return cls(name, start, end, what, sources)


CRISES = (
    Crisis.of(
        "2018-11 hash war",
        "20181101-20181201",
        "Bitcoin Cash split on 15 November, its two sides fought for hash power, and the market fell along.",
        "Bitcoin ABC and Bitcoin SV release notes, upgrade of 15 November 2018",
    ),
    Crisis.of(
        "2020-03-12 pandemic",
        "20200312-20200314",
        "The day after the WHO declared a pandemic everything was sold for cash; BitMEX, then the largest "
        "venue of perpetuals, was out of order on 13 March from 02:16 to 02:40 UTC.",
        "WHO Director-General, media briefing of 11 March 2020",
        "BitMEX, status notice of 13 March 2020",
    ),
    Crisis.of(
        "2021-05-19 China",
        "20210518-20210522",
        "On 18 May three Chinese associations barred finance from crypto, on 19 May leveraged longs were "
        "liquidated, on 21 May the State Council announced a crackdown on mining and trading.",
        "National Internet Finance, Banking, and Payment and Clearing Associations of China, 18 May 2021",
        "State Council of China, Financial Stability and Development Committee, 51st meeting, 21 May 2021",
    ),
    Crisis.of(
        "2022-06 lenders",
        "20220601-20220701",
        "Lenders failed in a row: Celsius stopped withdrawals on 12 June, Three Arrows Capital was ordered "
        "into liquidation on 27 June.",
        "Celsius Network, memo to its community, 12 June 2022",
        "Eastern Caribbean Supreme Court (British Virgin Islands), order of 27 June 2022",
    ),
    Crisis.of(
        "2022-11 FTX",
        "20221106-20221112",
        "Binance announced the sale of its FTT on 6 November, FTX stopped withdrawals on 8 November, the "
        "rescue was called off on 9 November, and FTX filed for bankruptcy on 11 November.",
        "United States Bankruptcy Court, District of Delaware, case 22-11068, petition of 11 November 2022",
    ),
    Crisis.of(
        "2023-03 banking",
        "20230308-20230313",
        "Silvergate announced its liquidation on 8 March, Silicon Valley Bank was closed on 10 March, USDC "
        "lost its peg on 11 March, Signature Bank was closed and depositors were guaranteed on 12 March.",
        "FDIC, testimony on recent bank failures, 28 March 2023",
        "US Treasury, Federal Reserve and FDIC, joint statement of 12 March 2023",
    ),
)


@dataclass(frozen=True)
class WindowFigures:
    """What one series of returns did inside a window; fractions.

    Parameters
    ----------
    total_return : float
        From the close before the window (its start) to the last close inside.
    max_drawdown : float
        Zero or below; the start of the window counts as a peak.
    worst_bar : float
        Smallest return of one bar.
    cvar_95 : float
        Expected shortfall of one bar. With fewer than 20 bars it is the worst bar, or 0 if that is a gain.
    """

    total_return: float
    max_drawdown: float
    worst_bar: float
    cvar_95: float

    @classmethod
    def of(cls, returns: np.ndarray) -> Self:
        """Return the figures of float64 (n,) simple returns, n at least 1."""
        return cls(total_return(returns), max_drawdown(returns), float(returns.min()), cvar_95(returns))


@dataclass(frozen=True)
class CrisisRow:
    """One crisis, and what happened in it as far as the data cover it.

    Parameters
    ----------
    crisis : Crisis
    whole : bool
        Whether the window lies wholly between the first open and the last close of the data.
    covered : float
        Bars inside over bars the window has room for; below 1 in a whole window where bars are missing.
    n_bars : int
        Bars whose whole span lies inside.
    held : WindowFigures or None
        The price itself, which is buying and holding before costs. None where nothing is covered.
    account : WindowFigures or None
        The account after costs; None without one, and where nothing is covered.
    exposure : float or None
        Mean absolute exposure at the closes inside, fraction of equity.
    n_trades : int or None
        Trades that were open at some time inside.
    """

    crisis: Crisis
    whole: bool
    covered: float
    n_bars: int
    held: WindowFigures | None = None
    account: WindowFigures | None = None
    exposure: float | None = None
    n_trades: int | None = None

    @property
    def coverage(self) -> str:
        """``whole``, ``part`` or ``not covered``, with the share of bars where some are missing, or why."""
        if not self.n_bars:
            return f"not covered: {'no whole bar inside' if self.whole else 'outside the data'}"
        kind = "whole" if self.whole else "part"
        # Rounded down: a window with a missing bar is never said to be complete.
        return kind if self.covered >= 1 else f"{kind}, {math.floor(100 * self.covered)}% of bars"

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain objects for JSON."""
        return {
            "name": self.crisis.name,
            "start": utc(self.crisis.start),
            "end": utc(self.crisis.end),
            "coverage": self.coverage,
            "covered": self.covered,
            "bars": self.n_bars,
            "account": None if self.account is None else asdict(self.account),
            "exposure": self.exposure,
            "trades": self.n_trades,
            "held": None if self.held is None else asdict(self.held),
        }


def crisis_windows(
    bars: Bars, result: BacktestResult | None = None, crises: Sequence[Crisis] = CRISES
) -> tuple[CrisisRow, ...]:
    """Return what the market, and an account in it, did in each crisis.

    Parameters
    ----------
    bars : Bars (n,)
        The market.
    result : BacktestResult, optional
        An account on some of these bars; a window then counts as covered only where it traded.
    crises : sequence of Crisis

    Returns
    -------
    tuple of CrisisRow
        One per crisis, in order. A crisis outside the data is listed without figures, never with zeros.

    Raises
    ------
    DataError
        If the result does not stand on a run of these bars.
    """
    rows = slice(0, len(bars)) if result is None else _rows_of(result, bars)
    time = bars.time[rows]
    price = price_returns(bars)[rows]
    return tuple(_row(crisis, bars.interval_ns, time, price, result) for crisis in crises)


def price_returns(bars: Bars) -> np.ndarray:
    """Return the simple return of the price in each bar, float64 (n,): close over the close before.

    The first bar is measured from its open. It is what holding earns before costs; a return across missing
    bars spans them all.
    """
    close = bars.column("close")
    before = np.concatenate([bars.column("open")[:1], close[:-1]])
    return close / before - 1.0


def _row(
    crisis: Crisis, interval_ns: int, time: np.ndarray, price: np.ndarray, result: BacktestResult | None
) -> CrisisRow:
    whole = time.size > 0 and time[0] - interval_ns <= crisis.start and crisis.end <= time[-1]
    inside = slice(
        int(np.searchsorted(time, crisis.start + interval_ns)),
        int(np.searchsorted(time, crisis.end, side="right")),
    )
    n_bars = max(inside.stop - inside.start, 0)
    covered = n_bars * interval_ns / (crisis.end - crisis.start)
    row = CrisisRow(crisis, bool(whole), covered, n_bars)
    if n_bars == 0:
        return row
    row = replace(row, held=WindowFigures.of(price[inside]))
    if result is None:
        return row
    trades = result.trades
    return replace(
        row,
        account=WindowFigures.of(result.curve.column("net_return")[inside]),
        exposure=float(np.abs(result.curve.column("exposure")[inside]).mean()),
        n_trades=int(((trades["entry_time"] < crisis.end) & (trades["exit_time"] > crisis.start)).sum()),
    )


def _rows_of(result: BacktestResult, bars: Bars) -> slice:
    time = result.curve.time
    first = int(np.searchsorted(bars.time, time[0])) if time.size else 0
    rows = slice(first, first + time.size)
    if not np.array_equal(bars.time[rows], time):
        raise DataError(f"{bars.label}: the result stands on other rows; it must be of a run of these bars")
    return rows
