"""The stationary bootstrap: paths that the market, or an account, did not take but might have.

A path is glued together from blocks of consecutive rows. A block starts at a row drawn uniformly and ends
with probability ``1 / mean_block`` after each row, so lengths are geometric; it wraps around the end of the
data. Inside a block nothing is changed, so what depends on the last few rows (volatility that clusters,
losses that follow losses) survives, and what depends on more rows than a block holds does not.

Paths are for research. They are hindsight by construction: every one of them is made from all rows.

Source: Politis and Romano (1994), "The stationary bootstrap", JASA 89(428).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from backtest.metrics import ROUNDING
from backtest.venue import MARK_HIGH, MARK_LOW
from compute.seeds import stream
from configs.load import ConfigError
from market.bars import Bars
from market.table import DataError

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LEAST_ROWS = 30  # below, the automatic block length has fewer rows than it wants autocorrelations
MARK_PRICES = (MARK_HIGH, MARK_LOW)  # extra columns of bars that are prices
FIGURES = ("total_return", "sharpe", "max_drawdown", "lowest")
_CELLS = 500_000  # cells of a chunk of paths: 4 MB a matrix, whatever the number of paths


def stationary_rows(n: int, mean_block: float, rng: np.random.Generator, n_paths: int = 1) -> np.ndarray:
    """Return the rows that stationary bootstrap paths are made of.

    Parameters
    ----------
    n : int
        Rows of the data, and of each path.
    mean_block : float
        Mean length of a block, rows, at least 1. 1 draws every row alone: the plain bootstrap.
    rng : numpy.random.Generator
    n_paths : int

    Returns
    -------
    int64 (n_paths, n)
        Row numbers. Every row is as likely as every other at every place.

    Raises
    ------
    ConfigError
        If the mean block is below 1 or infinite.
    """
    check_block(mean_block)
    rows = _unwrapped(n, mean_block, rng, n_paths)
    return np.where(rows < n, rows, rows - n)


def best_block(returns: np.ndarray) -> float:
    """Return the mean block length that suits float64 (n,) returns best, rows.

    The automatic choice of Politis and White for the returns, or for their sizes, whichever is longer. Bar
    returns hardly depend on each other, so their own choice is about one row, and paths of single rows
    would scatter the storms; sizes do cluster, and the depth of a drawdown depends on it.

    Returns
    -------
    float
        From 1 to n. 1 for returns that never move.

    Raises
    ------
    ConfigError
        If the library ``arch`` is not installed (extra ``validation``).
    DataError
        If there are fewer than ``LEAST_ROWS`` returns, or one is not finite.

    Sources: Politis and White (2004), "Automatic block-length selection for the dependent bootstrap",
    Econometric Reviews 23(1), corrected by Patton, Politis and White (2009), Econometric Reviews 28(4).
    """
    returns = _checked(returns)
    if returns.size < LEAST_ROWS:
        raise DataError(f"bootstrap: {returns.size} returns; a block length needs at least {LEAST_ROWS}")
    try:
        from arch.bootstrap import optimal_block_length
    except ImportError:
        raise ConfigError(
            "mean_block is not set, and the automatic block length needs arch; install it with: "
            "pip install 'regime-conductor[validation]', or set mean_block to a number of bars"
        ) from None
    lengths = [1.0]
    for series in (returns, np.abs(returns)):
        if series.min() < series.max():
            lengths.append(float(optimal_block_length(series)["stationary"].iloc[0]))
    return min(max(lengths), float(returns.size))


@dataclass(frozen=True, eq=False)
class Paths:
    """What became of one account on many paths, beside the path that was taken.

    Parameters
    ----------
    total_return, sharpe, max_drawdown, lowest : float64 (n_paths,)
        Per path: compounded return [fraction]; annual Sharpe ratio, NaN where nothing moved; deepest
        drawdown [fraction, zero or below]; lowest equity at a close over the equity at the start.
    taken : mapping of str to float
        The same four figures on the path that was taken.
    mean_block : float
        Of the bootstrap, rows.
    ruin : float
        Equity over its start at which an account counts as ruined.
    """

    total_return: np.ndarray
    sharpe: np.ndarray
    max_drawdown: np.ndarray
    lowest: np.ndarray
    taken: dict[str, float]
    mean_block: float
    ruin: float

    @classmethod
    def of(cls, figures: np.ndarray, taken: np.ndarray, mean_block: float, ruin: float) -> Self:
        """Return the record of float64 (n_paths, 4) figures and the (4,) figures of the path taken."""
        names = dict(zip(FIGURES, taken.tolist(), strict=True))
        return cls(*np.ascontiguousarray(figures.T), names, float(mean_block), ruin)

    def __len__(self) -> int:
        return self.total_return.size

    @property
    def loss_probability(self) -> float:
        """Share of the paths that end below their start."""
        return float(np.mean(self.total_return < 0))

    @property
    def ruin_probability(self) -> float:
        """Share of the paths whose equity falls to ``ruin`` times its start, or below, at some close."""
        return float(np.mean(self.lowest <= self.ruin))

    def quantiles(self, figure: str) -> np.ndarray:
        """Return the ``QUANTILES`` of a figure, float64 (5,), over the paths that define it; else NaN."""
        values = getattr(self, figure)
        defined = values[~np.isnan(values)]
        return np.quantile(defined, QUANTILES) if defined.size else np.full(len(QUANTILES), math.nan)

    def to_dict(self) -> dict[str, Any]:
        """Return quantiles and probabilities as plain objects for JSON; what is not finite is None."""
        spread = {
            figure: {f"{level:g}": _finite(value) for level, value in self._levels(figure)}
            | {"taken": _finite(self.taken[figure])}
            for figure in FIGURES
        }
        return {
            "paths": len(self),
            "mean_block": self.mean_block,
            "loss_probability": self.loss_probability,
            "ruin": self.ruin,
            "ruin_probability": self.ruin_probability,
            **spread,
        }

    def _levels(self, figure: str) -> Iterator[tuple[float, float]]:
        return zip(QUANTILES, self.quantiles(figure).tolist(), strict=True)


def bootstrap_returns(
    returns: np.ndarray,
    bars_per_year: float,
    *,
    seed: int,
    n_paths: int = 10_000,
    mean_block: float | None = None,
    ruin: float = 0.5,
) -> Paths:
    """Return what the net returns of an account could have added up to in another order.

    Parameters
    ----------
    returns : float64 (n,)
        Net simple returns, one per bar.
    bars_per_year : float
    seed : int
        Path i depends on the seed, the returns and i alone: more paths leave the first ones as they were.
    n_paths : int
    mean_block : float, optional
        Rows; None for :func:`best_block`.
    ruin : float
        Equity over its start, in (0, 1).

    Raises
    ------
    ConfigError
        If a setting is out of bounds, or the automatic block length needs a library that is missing.
    DataError
        If there are fewer than 2 returns, or one is not finite.
    """
    returns = _checked(returns)
    if returns.size < 2:
        raise DataError(f"bootstrap: {returns.size} returns; a path needs at least 2")
    check_paths(n_paths, ruin)
    mean_block = best_block(returns) if mean_block is None else mean_block
    check_block(mean_block)
    n = returns.size
    twice = np.concatenate([returns, returns])  # so that a wrap costs nothing
    growth = log_growth(twice)
    size = max(_CELLS // n, 1)
    found = np.empty((n_paths, len(FIGURES)))
    for first in range(0, n_paths, size):
        rng = stream(seed, "stress", "returns", first // size)
        rows = _unwrapped(n, mean_block, rng, size)[: n_paths - first]
        found[first : first + size] = path_figures(twice[rows], bars_per_year, growth[rows])
    taken = path_figures(returns[None], bars_per_year)[0]
    return Paths.of(found, taken, mean_block, ruin)


def path_figures(returns: np.ndarray, bars_per_year: float, growth: np.ndarray | None = None) -> np.ndarray:
    """Return the ``FIGURES`` of many series at once, by the definitions of :mod:`backtest.metrics`.

    Parameters
    ----------
    returns : float64 (n_paths, n)
        Simple returns, n at least 2.
    bars_per_year : float
    growth : float64 (n_paths, n), optional
        Their :func:`log_growth`, if it is known; worked on in place.

    Returns
    -------
    float64 (n_paths, 4)
    """
    high, low = returns.max(axis=1), returns.min(axis=1)
    deviation = returns.std(axis=1, ddof=1)
    still = (high - low <= ROUNDING * (1.0 + np.abs(high))) | (deviation <= ROUNDING)
    deviation[still] = math.nan
    ratio = returns.mean(axis=1) / deviation * math.sqrt(bars_per_year)
    equity = log_growth(returns) if growth is None else growth
    np.cumsum(equity, axis=1, out=equity)
    last, lowest = equity[:, -1].copy(), np.minimum(equity.min(axis=1), 0.0)
    peak = np.maximum.accumulate(equity, axis=1)
    np.maximum(peak, 0.0, out=peak)
    depth = np.expm1(np.subtract(equity, peak, out=equity).min(axis=1))
    with np.errstate(over="ignore"):
        total = np.expm1(last)
    total[np.isinf(total)] = math.nan
    return np.column_stack([total, ratio, np.where(depth < -ROUNDING, depth, 0.0), np.exp(lowest)])


def log_growth(returns: np.ndarray) -> np.ndarray:
    """Return the log of equity over equity before, any shape: minus infinity for ruin, which is final."""
    with np.errstate(divide="ignore"):
        return np.log1p(np.maximum(returns, -1.0))


def bootstrap_bars(bars: Bars, rng: np.random.Generator, mean_block: float) -> Bars:
    """Return bars on the same clock that the market did not print: blocks of bar shapes in a new order.

    A shape is the log gap from the close before, high, low and close over the open, and the volume. Prices
    are rebuilt from the first open of the original, so the level of a path wanders on its own. Mark prices
    move with their bar; every other extra column travels with its bar unchanged.

    The hour of the day is not kept (a block lands anywhere), nor the length of a gap where bars are missing.

    Parameters
    ----------
    bars : Bars (n,)
    rng : numpy.random.Generator
    mean_block : float
        Mean length of a block, rows, at least 1.

    Returns
    -------
    Bars (n,)
        Valid: low <= open, close <= high, on the same times and with the same columns.

    Raises
    ------
    ConfigError
        If the mean block is below 1 or infinite.
    """
    if len(bars) == 0:
        return bars
    return rebuilt(bars, stationary_rows(len(bars), mean_block, rng)[0])


def rebuilt(bars: Bars, rows: np.ndarray) -> Bars:
    """Return bars whose shapes are those of the given rows, int64 (n,), on the clock of the bars."""
    values = bars.values
    opens, closes = values[:, 0], values[:, 3]
    gap = np.zeros(len(bars))  # the first bar has no close before it: where it comes later, it opens there
    gap[1:] = np.log(opens[1:] / closes[:-1])
    body = np.log(closes / opens)
    steps = gap[rows]
    steps[0] = 0.0
    steps[1:] += body[rows][:-1]
    open_ = opens[0] * np.exp(np.cumsum(steps))
    prices = [1, 2, 3] + [bars.names.index(name) for name in MARK_PRICES if name in bars.names]
    # Ratios, not logs: dividing and multiplying by one open keep the order of prices to the last bit.
    ratios = values[:, prices] / opens[:, None]
    made = values[rows]
    made[:, 0] = open_
    made[:, prices] = ratios[rows] * open_[:, None]
    return replace(bars, values=made)


def check_paths(n_paths: int, ruin: float) -> None:
    """Check the settings of paths: at least one, and a ruin strictly between 0 and 1 (ConfigError)."""
    if n_paths < 1:
        raise ConfigError(f"n_paths is {n_paths}; it must be at least 1")
    if not 0 < ruin < 1:
        raise ConfigError(
            f"ruin is {ruin}; it must lie between 0 and 1, a fraction of the equity at the start"
        )


def check_block(mean_block: float) -> None:
    """Check a mean block length: finite, and at least 1 (ConfigError)."""
    if not 1 <= mean_block < math.inf:
        raise ConfigError(f"mean_block is {mean_block}; it must be a number of bars, at least 1")


def _unwrapped(n: int, mean_block: float, rng: np.random.Generator, n_paths: int) -> np.ndarray:
    # Rows in [0, 2 n): what has passed the end of the data is not taken back to its beginning yet.
    begins = rng.random((n_paths, n)) < 1.0 / mean_block
    begins[:, 0] = True
    at = np.flatnonzero(begins)
    lengths = np.diff(at, append=begins.size)
    shift = rng.integers(n, size=at.size) - at
    return (np.repeat(shift, lengths) + np.arange(begins.size)).reshape(n_paths, n)


def _checked(returns: np.ndarray) -> np.ndarray:
    returns = np.asarray(returns, dtype=np.float64)
    wrong = ~np.isfinite(returns)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"bootstrap: return {row} is {returns[row]}; returns must be finite")
    return returns


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
