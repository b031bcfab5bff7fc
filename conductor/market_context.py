"""The market that a run stands on: 13 features of one fitness window, in numbers of like size.

They are the same for the whole run: :class:`MarketContext`, made comparable by a :class:`ContextScaler` that
learned on training tasks. Prices may have any level, and volume may be missing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import talib

from market.bars import NS_PER_YEAR, Bars
from market.kernels import STILL
from market.saved import read_saved, write_saved
from market.scaling import Scaler
from market.table import DataError, Table, utc

#: Of names, order and definitions of everything here and in ``conductor.state``; what was learned on another
#: version does not fit.
STATE_VERSION = 1
#: One-bar returns without which there is no context; a quarter of them is a block.
LEAST_RETURNS = 96
#: Bars of a block, of which the volatility of volatility is made, and of a span of the efficiency ratio.
BLOCK = 24
HORIZON = 10  # bars of the long returns of the variance ratio
ADX_BARS = 14
#: Share of the rows that must have traded, in the window and in its last quarter, to speak of liquidity.
TRADED = 0.5
#: Each semivariance counts at least this share of their sum, and money traded this share of its average.
SMALLEST_SHARE = 1e-3
_STRAIGHT = 1.0 - 1e-6  # squared correlation above which a path is a line, and its t-statistic rounding


@dataclass(frozen=True, eq=False)
class PricePath:
    """The rows of a window as the features read them; a step over a missing bar is no return.

    Parameters
    ----------
    position : float64 (n,)
        Bars since the first row, missing ones counted.
    high, low, close : float64 (n,)
        Natural logarithms of the prices.
    money : float64 (n,)
        Value traded, in units of the window's largest; empty if there is no volume column.
    adjacent : bool (n - 1,)
        Whether the next row is the next bar.
    bars_per_year : float
        Of 365 days.
    """

    position: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    money: np.ndarray
    adjacent: np.ndarray
    bars_per_year: float

    @classmethod
    def of(cls, rows: Table, interval_ns: int, label: str) -> Self:
        """Return the path of the rows that hold a bar; one without all four prices is a gap.

        Raises
        ------
        DataError
            If a price or a volume is impossible.
        """
        prices = np.column_stack([rows.column(name) for name in ("open", "high", "low", "close")])
        there = ~np.isnan(prices).any(axis=1)
        time, prices = rows.time[there], prices[there]
        wrong = ~(np.isfinite(prices) & (prices > 0.0)).all(axis=1)
        if wrong.any():
            raise DataError(f"{label}: a price at {utc(time[wrong][0])} is not positive and finite")
        logs = np.log(prices[:, 1:])
        money = np.empty(0)
        if "volume" in rows.names:
            volume = rows.column("volume")[there]
            wrong = (volume < 0.0) | np.isinf(volume)
            if wrong.any():
                raise DataError(f"{label}: the volume at {utc(time[wrong][0])} is negative or infinite")
            traded = volume > 0.0
            # The product of a price and a volume may leave float64, their ratios do not.
            log_money = logs[traded, 2] + np.log(volume[traded])
            money = np.zeros(len(volume))
            money[traded] = np.exp(log_money - log_money.max(initial=-np.inf))
        adjacent = np.diff(time) == interval_ns
        columns = np.ascontiguousarray(logs.T)
        return cls((time - time[:1]) / interval_ns, *columns, money, adjacent, NS_PER_YEAR / interval_ns)

    @cached_property
    def steps(self) -> np.ndarray:
        """Log price moves from row to row, float64 (n - 1,); returns where ``adjacent``."""
        return np.diff(self.close)

    @cached_property
    def returns(self) -> np.ndarray:
        """One-bar log returns, float64 (m,); steps over gaps are left out."""
        return self.steps[self.adjacent]

    @cached_property
    def root_mean_square(self) -> float:
        """Realised volatility of one bar."""
        return math.sqrt(np.mean(np.square(self.returns)))

    @cached_property
    def centred(self) -> np.ndarray:
        """The steps less the mean return, float64 (n - 1,)."""
        return self.steps - self.returns.mean()

    @cached_property
    def variance(self) -> float:
        """Variance (ddof 0) of the returns; NaN where they do not differ, up to rounding."""
        variance = float(np.mean(np.square(self.centred[self.adjacent])))
        return variance if variance > STILL * STILL else math.nan

    @cached_property
    def pairs(self) -> np.ndarray:
        """Whether a step and the one after it are both returns, bool (n - 2,)."""
        return self.adjacent[1:] & self.adjacent[:-1]

    def unbroken(self, bars: int) -> np.ndarray:
        """Return whether no bar is missing between a row and the row ``bars`` later, bool (n - bars,)."""
        return _over(self.adjacent.astype(np.int64), bars) == bars

    @property
    def last_quarter(self) -> slice:
        """The newest fourth of the returns."""
        return slice(-(self.returns.size // 4), None)


def log_volatility(path: PricePath) -> float:
    """Natural logarithm of the realised volatility, annualised (a fraction of the price per root year).

    The root of the mean squared return, around zero, times the root of the bars in a year of 365 days.

    Source: Andersen and Bollerslev (1998).
    """
    return math.log(path.root_mean_square * math.sqrt(path.bars_per_year))


def log_volatility_ratio(path: PricePath) -> float:
    """Natural logarithm of the volatility of the last quarter over that of the window; both realised.

    Above 0 where the window ends livelier than it was. The last quarter counts at least ``STILL`` per bar.
    """
    short = math.sqrt(np.mean(np.square(path.returns[path.last_quarter])))
    return math.log(max(short, STILL) / path.root_mean_square)


def volatility_of_volatility(path: PricePath) -> float:
    """Coefficient of variation of the volatility of blocks of 24 returns: deviation (ddof 1) over mean.

    The blocks follow each other without overlap and end with the newest return. Independent normal
    returns give 0.14, the error of a volatility that is measured on 24 of them.

    Source: Baltussen, van Bekkum and van der Grient (2018), there of implied volatilities.
    """
    n = path.returns.size // BLOCK
    blocks = np.sqrt(np.square(path.returns[-n * BLOCK :]).reshape(n, BLOCK).mean(axis=1))
    return float(blocks.std(ddof=1) / blocks.mean()) if blocks.mean() > STILL else math.nan


def log_semivariance_ratio(path: PricePath) -> float:
    """Natural logarithm of the sum of squared falls over that of squared rises.

    Above 0 where the moves are larger on the way down. Each side counts at least a thousandth of both.

    Source: Barndorff-Nielsen, Kinnebrock and Shephard (2010), realised semivariances.
    """
    squares = np.square(path.returns)
    whole = squares.sum()
    falls = squares[path.returns < 0.0].sum()
    return math.log(max(falls, SMALLEST_SHARE * whole) / max(whole - falls, SMALLEST_SHARE * whole))


def trend_strength(path: PricePath) -> float:
    """Mean of Wilder's average directional index over 14 bars, as a share from 0 to 1.

    Computed on logarithms of prices, which TA-Lib's absolute threshold for a range of zero needs to treat
    cheap and dear assets alike. Each stretch without a gap begins anew; stretches shorter than the 28 bars
    of its warm-up do not count, and without a longer one it is not known.

    Source: Wilder (1978), New Concepts in Technical Trading Systems.
    """
    edges = np.concatenate([[0], np.flatnonzero(~path.adjacent) + 1, [path.close.size]])
    total, count = 0.0, 0
    for k in np.flatnonzero(np.diff(edges) >= 2 * ADX_BARS):
        rows = slice(edges[k], edges[k + 1])
        index = talib.ADX(path.high[rows], path.low[rows], path.close[rows], ADX_BARS)[2 * ADX_BARS - 1 :]
        total += float(index.sum())
        count += index.size
    return total / count / 100.0 if count else math.nan


def trend_t_statistic(path: PricePath) -> float:
    """t-statistic of the least-squares slope of log price on time, over the root of its degrees of freedom.

    Time is counted in bars, missing ones included. Where prices wander, the t-statistic itself grows with
    the root of the number of rows, whatever the trend; divided by it, ``rho / sqrt(1 - rho^2)`` with the
    correlation ``rho``, windows of any length compare. Without unit; at most 1,000 either way.

    Source: Durlauf and Phillips (1988) for the divergence of the statistic.
    """
    time, price = path.position - path.position.mean(), path.close - path.close.mean()
    # Not by the matrix product: its bits depend on the number of threads.
    rho = float(np.sum(time * price)) / math.sqrt(np.sum(time * time) * np.sum(price * price))
    return rho / math.sqrt(1.0 - min(rho * rho, _STRAIGHT))


def efficiency(path: PricePath) -> float:
    """Mean of Kaufman's efficiency ratio over all spans of 24 bars: way made over way travelled, 0 to 1.

    In log prices. A random walk gives 0.2, a straight line 1, a span without any move counts 0.

    Source: Kaufman (1995), Smarter Trading.
    """
    whole = path.unbroken(BLOCK)
    if not whole.any():
        return math.nan
    made = np.abs(path.close[BLOCK:] - path.close[:-BLOCK])[whole]
    travelled = _over(np.abs(path.steps), BLOCK)[whole]
    moved = travelled > 0.0
    return float(np.minimum(made / np.where(moved, travelled, np.inf), 1.0).mean())


def variance_ratio(path: PricePath) -> float:
    """Variance of returns over 10 bars against 10 times that of one bar, minus 1: above 0 moves go on.

    Overlapping and unbiased; 0 for a random walk, at least -1. Not known where the returns do not differ.

    Source: Lo and MacKinlay (1988), equations 12 and 13; of the long returns, those without a gap count.
    """
    m, whole = path.returns.size, path.unbroken(HORIZON)
    if not whole.any():
        return math.nan
    over = _over(path.centred, HORIZON)[whole]
    single = path.variance * m / (m - 1.0)
    return float(np.mean(np.square(over))) / (HORIZON * (1.0 - HORIZON / m) * single) - 1.0


def autocorrelation(path: PricePath) -> float:
    """Autocorrelation of the returns at one bar: mean product of neighbors over the variance.

    Not known where the returns do not differ.
    """
    if not path.pairs.any():
        return math.nan
    return float(np.mean((path.centred[1:] * path.centred[:-1])[path.pairs])) / path.variance


def skewness(path: PricePath) -> float:
    """Third central moment of the returns over the cube of their deviation (ddof 0), without unit.

    Not known where the returns do not differ.
    """
    off = path.centred[path.adjacent]
    return float(np.mean(off * off * off)) / path.variance**1.5


def jump_share(path: PricePath) -> float:
    """Part of the realised variance that came in jumps: 1 less bipower over realised variance.

    Bipower variation is pi / 2 times the mean product of neighboring absolute returns, which a single jump
    hardly moves. 0 without jumps, at most 1, at least 1 - pi / 2 by chance.

    Source: Barndorff-Nielsen and Shephard (2004); the relative jump of Huang and Tauchen (2005).
    """
    if not path.pairs.any():
        return math.nan
    size = np.abs(path.steps)
    bipower = 0.5 * math.pi * float(np.mean((size[1:] * size[:-1])[path.pairs]))
    return 1.0 - bipower / path.root_mean_square**2


def drawdown(path: PricePath) -> float:
    """Depth of the last close below the highest high of the window's last 365 days, fraction from 0 to 1."""
    year = path.position > path.position[-1] - path.bars_per_year
    return 1.0 - math.exp(min(0.0, path.close[-1] - path.high[year].max()))


def log_illiquidity(path: PricePath) -> float:
    """Natural logarithm of the price move per money traded, in the last quarter against the window.

    Above 0 where the same money moves the price further than it used to. Units of money and of volume
    cancel, so that assets compare. Bars without volume are left out; the average move counts at least
    ``STILL``, money at least a thousandth of its average. Not known without volume, or if less than half
    of the bars traded.

    Source: Amihud (2002), equation 1, with moves and money summed before they are divided.
    """
    if path.money.size == 0:
        return math.nan
    money, move = path.money[1:][path.adjacent], np.abs(path.returns)
    traded, quarter = money > 0.0, path.last_quarter
    now = traded[quarter]
    if min(traded.mean(), now.mean()) < TRADED:
        return math.nan
    moves = (move[quarter][now].mean() + STILL) / (move[traded].mean() + STILL)
    trade = money[quarter][now].mean() / money[traded].mean()
    return math.log(moves / max(trade, SMALLEST_SHARE))


#: The features in the order of :attr:`MarketContext.values`, which saved conductors rely on.
CONTEXT_FEATURES: tuple[Callable[[PricePath], float], ...] = (
    log_volatility, log_volatility_ratio, volatility_of_volatility, log_semivariance_ratio, trend_strength,
    trend_t_statistic, efficiency, variance_ratio, autocorrelation, skewness, jump_share, drawdown,
    log_illiquidity,
)  # fmt: skip
CONTEXT_NAMES: tuple[str, ...] = tuple(feature.__name__ for feature in CONTEXT_FEATURES)


@dataclass(frozen=True, eq=False)
class MarketContext:
    """The state of the market over one fitness window: context of a run, the same in all its generations.

    Parameters
    ----------
    values : float64 (13,)
        In the order of ``CONTEXT_NAMES``; the functions of these names define them. NaN where a feature is
        not known (no volume, no stretch without a gap): masked, never filled.
    until : int
        Time of the window's last row, nanoseconds UTC; 0 where there is no market.
    """

    values: np.ndarray
    until: int = 0

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        if values.shape != (len(CONTEXT_NAMES),) or np.isinf(values).any():
            raise ValueError(f"a market context is {len(CONTEXT_NAMES)} numbers or NaN, not {self.values!r}")
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    @classmethod
    def of(cls, window: Table, interval_ns: int | None = None) -> Self:
        """Return the context of a window; reads its rows and nothing else.

        Parameters
        ----------
        window : Bars, or Table with the columns open, high, low, close and perhaps volume
            The rows that the fitness is measured on. A row that is missing, or without a price (NaN), is a
            gap; a volume of NaN is none.
        interval_ns : int, optional
            Length of a bar, nanoseconds; bars know their own.

        Raises
        ------
        DataError
            If the window has fewer than 96 one-bar returns, its price stands still, or a price or a volume
            is impossible.
        """
        label, known_ns = (window.label, window.interval_ns) if isinstance(window, Bars) else ("table", None)
        interval_ns, label = interval_ns or known_ns, f"market context of {label}"
        if interval_ns is None:
            raise TypeError("a table does not know the length of its bars; give interval_ns")
        path = PricePath.of(window, interval_ns, label)
        if path.returns.size < LEAST_RETURNS:
            raise DataError(
                f"{label}: {path.returns.size} returns from one bar to the next; it needs {LEAST_RETURNS}"
            )
        if not path.root_mean_square > STILL:
            raise DataError(
                f"{label}: the price moves by {path.root_mean_square:.1g} of itself per bar; it must move "
                f"more than {STILL:g}, for a price that stands still shows no market"
            )
        return cls(np.array([feature(path) for feature in CONTEXT_FEATURES]), int(window.time[-1]))

    @classmethod
    def unknown(cls) -> Self:
        """Return the context of a run without a market, such as one on a landscape: nothing is known."""
        return cls(np.full(len(CONTEXT_NAMES), np.nan))

    @property
    def known(self) -> np.ndarray:
        """Which features are known, bool (13,): the mask."""
        return ~np.isnan(self.values)


@dataclass(frozen=True, eq=False)
class ScaledContext:
    """A market context as a network reads it.

    Parameters
    ----------
    values : float64 (13,)
        Within ±5; 0 where not known.
    known : bool (13,)
        The mask, an input of its own.
    """

    values: np.ndarray
    known: np.ndarray

    @classmethod
    def unknown(cls) -> Self:
        """Return that of a run without a market."""
        return cls(np.zeros(len(CONTEXT_NAMES)), np.zeros(len(CONTEXT_NAMES), dtype=bool))


@dataclass(frozen=True)
class ContextScaler:
    """Centres each market feature on its median over training tasks and divides it by its robust scale.

    Parameters
    ----------
    names : tuple of str
        The features it learned, in the order of ``CONTEXT_NAMES``. The others were not known in enough
        training tasks and stay masked, since nobody has seen what they mean.
    center : tuple of float
        Medians.
    scale : tuple of float
        Interquartile ranges over 1.349, see :class:`market.scaling.Scaler`; positive.
    fitted_until : int
        End of the latest training window, nanoseconds UTC; 0 if no task had a market.
    limit : float
        Results are clipped to ``-limit..limit``.
    """

    names: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    fitted_until: int
    limit: float = 5.0

    #: Training tasks that must know a feature before it is learned: quartiles of fewer are extremes.
    LEAST_TASKS = 4

    @classmethod
    def fit(cls, contexts: Sequence[MarketContext], limit: float = 5.0) -> Self:
        """Return the scaler of training tasks, one context each.

        Tasks without a market may be among them and teach nothing; with none but such, all is masked.

        Raises
        ------
        DataError
            If there is no task, fewer than 4 have a market, or a feature is the same in all of them.
        """
        if not contexts:
            raise DataError("context scaler: there is no training task; fitting needs at least one")
        values = np.array([context.values for context in contexts])
        seen = (~np.isnan(values)).sum(axis=0)
        if 0 < seen.max() < cls.LEAST_TASKS:
            raise DataError(
                f"context scaler: {seen.max()} of {len(values)} training tasks have a market; it needs at "
                f"least {cls.LEAST_TASKS}, or none"
            )
        learned = np.flatnonzero(seen >= cls.LEAST_TASKS)
        names = tuple(CONTEXT_NAMES[j] for j in learned)
        if not names:
            return cls((), (), (), 0, limit)
        # Windows of several assets may end together, so their number stands in for a clock.
        robust = Scaler.fit(Table(np.arange(len(values)), values[:, learned], names), limit)
        if robust.constant:
            raise DataError(
                f"context scaler: {robust.constant[0]} is the same in all of {seen.max()} training tasks; a "
                "market feature must vary"
            )
        until = max(context.until for context in contexts)
        return cls(names, robust.center, robust.scale, until, limit)

    def scaled(self, context: MarketContext) -> ScaledContext:
        """Return a context within ``±limit``, 0 and masked where it is not known or was never learned."""
        values, learned = np.full(len(CONTEXT_NAMES), np.nan), [CONTEXT_NAMES.index(n) for n in self.names]
        values[learned] = (context.values[learned] - np.array(self.center)) / np.array(self.scale)
        known = ~np.isnan(values)
        values = np.where(known, np.clip(values, -self.limit, self.limit), 0.0)
        values.flags.writeable = known.flags.writeable = False
        return ScaledContext(values, known)

    def save(self, path: Path) -> None:
        """Write the scaler as JSON; floats are written so that they read back to the same bits."""
        write_saved(path, {"kind": "context scaler", "state_version": STATE_VERSION, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return a saved scaler.

        Raises
        ------
        DataError
            If the file is missing, cannot be read, or holds anything else, such as another state version.
        """
        types = {"kind": str, "state_version": int, "fitted_until": int, "limit": (int, float)}
        document = read_saved(path, "context scaler", {**types, "names": list, "center": list, "scale": list})
        found = document["kind"], document["state_version"]
        if found != ("context scaler", STATE_VERSION):
            raise DataError(
                f"{path}: holds {found[0]} of state version {found[1]}; it must be context scaler of state "
                f"version {STATE_VERSION}"
            )
        names, center, scale = (tuple(document[key]) for key in ("names", "center", "scale"))
        if names != tuple(name for name in CONTEXT_NAMES if name in names):
            raise DataError(f"{path}: names are {names!r}; they must be market features in their order")
        numbers = (*center, *scale, document["limit"])
        sound = all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
        if not (sound and len(center) == len(scale) == len(names) and min(numbers[len(center) :]) > 0.0):
            raise DataError(
                f"{path}: center is {center}, scale {scale}, limit {document['limit']}; they must be finite, "
                f"one of each for {len(names)} names, scales and limit positive"
            )
        return cls(names, center, scale, document["fitted_until"], float(document["limit"]))


def _over(steps: np.ndarray, bars: int) -> np.ndarray:
    # Sums of every ``bars`` steps in a row, (len(steps) - bars + 1,); of no step if there are fewer.
    total = np.concatenate([np.zeros(1, dtype=steps.dtype), np.cumsum(steps)])
    return total[bars:] - total[:-bars]
