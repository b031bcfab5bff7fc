"""What the market did in each regime, how long regimes lasted, and whether confidence was deserved.

Pure functions on rows; labels are int (n,), -1 while undecided. What a regime *did* is judged by the bar that
follows each label: the label had not seen that bar, so a detector cannot earn its figures by looking at them.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from market.bars import Bars
from regimes.regime import UNDECIDED


@dataclass(frozen=True)
class RegimeStatistics:
    """What the market did on the bars after those that carried one regime's label.

    A figure that needs more bars than there are is NaN.

    Parameters
    ----------
    bars : int
        Labels followed by a bar; a label in front of a gap is not.
    annual_return : float
        Mean log return of the next bar times bars per year: per year spent in the regime.
    annual_volatility : float
        Standard deviation (ddof 1) of the next bar's log return times the root of bars per year.
    autocorrelation : float
        Correlation of the log returns of the next two bars, -1..1.
    variance_ratio : float
        Variance of the log return over the next bars, as many as the horizon, over the sum of the variances
        of these bars alone: 1 for a random walk, above 1 moves go on, below 1 they come back.
    efficiency : float
        Kaufman's efficiency ratio of the same bars, mean: way made over way travelled, 0..1.
    """

    bars: int
    annual_return: float
    annual_volatility: float
    autocorrelation: float
    variance_ratio: float
    efficiency: float


def regime_statistics(
    bars: Bars, label: np.ndarray, n_regimes: int, horizon: int
) -> tuple[RegimeStatistics, ...]:
    """Return what the market did after labels of each regime.

    Every figure looks ahead of its label only, and whether the label is kept meanwhile does not matter:
    windows of bars through which a label held would have been chosen by labels that had seen them.

    Parameters
    ----------
    bars : Bars (n,)
    label : int (n,)
        Regime known at the close of each bar.
    n_regimes : int
        k.
    horizon : int
        Bars that variance ratio and efficiency look at, at least 2.

    Returns
    -------
    tuple of RegimeStatistics
        One per regime, in the order of their numbers.
    """
    label = np.asarray(label, dtype=np.int64)
    year = bars.bars_per_year
    returns = np.diff(np.log(bars.column("close")))  # the bar after row t
    gaps = np.concatenate([[0], np.cumsum(np.diff(bars.time) != bars.interval_ns)])
    found = []
    for one in range(n_regimes):
        own = np.flatnonzero(label == one)
        next_one, next_two, ahead = (_followed(own, gaps, size) for size in (1, 2, horizon))
        single = returns[next_one]
        windows = returns[ahead[:, None] + np.arange(horizon)]
        made, travelled = windows.sum(axis=1), np.abs(windows).sum(axis=1)
        alone = float(((windows - windows.mean()) ** 2).sum()) if ahead.size > 1 else 0.0
        found.append(
            RegimeStatistics(
                bars=int(single.size),
                annual_return=float(single.mean()) * year if single.size else math.nan,
                annual_volatility=float(single.std(ddof=1)) * math.sqrt(year)
                if single.size > 1
                else math.nan,
                autocorrelation=_correlation(returns[next_two], returns[next_two + 1]),
                variance_ratio=float(((made - made.mean()) ** 2).sum()) / alone if alone > 0 else math.nan,
                efficiency=float(np.mean(np.abs(made) / np.where(travelled > 0, travelled, 1.0)))
                if ahead.size
                else math.nan,
            )
        )
    return tuple(found)


def _followed(rows: np.ndarray, gaps: np.ndarray, size: int) -> np.ndarray:
    # Those of the rows that so many bars follow without a gap.
    rows = rows[rows + size < gaps.size]
    return rows[gaps[rows + size] == gaps[rows]]


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    if one.size < 2:
        return math.nan
    one, other = one - one.mean(), other - other.mean()
    spread = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / spread if spread > 0 else math.nan


def dwells(label: np.ndarray, n_regimes: int) -> tuple[np.ndarray, ...]:
    """Return the lengths of the unbroken stays in each regime, k arrays of int64 (m,), rows, in their order.

    The first and the last stay are counted as far as they are seen.
    """
    label = np.asarray(label, dtype=np.int64)
    starts = np.flatnonzero(np.diff(label, prepend=UNDECIDED - 1))
    lengths = np.diff(starts, append=label.size)
    return tuple(lengths[label[starts] == one] for one in range(n_regimes))


def later(label: np.ndarray, bars: int) -> np.ndarray:
    """Return the label of so many rows later at each row, -1 where the rows end before.

    That is hindsight by construction: it judges forecasts, and no forecast may be made from it.
    """
    label = np.asarray(label)
    out = np.full(label.shape, UNDECIDED, dtype=label.dtype)
    out[: max(label.size - bars, 0)] = label[bars:]
    return out


@dataclass(frozen=True, eq=False)
class Calibration:
    """Whether a label that claims 80 % is right in 80 % of the rows.

    Parameters
    ----------
    edges : float64 (b + 1,)
        Bounds of the bins of confidence.
    rows : int64 (b,)
        Rows in each bin.
    confidence, hit_rate : float64 (b,)
        Mean probability given to the label, and the fraction of labels that were right; NaN without rows.
    error : float
        Expected calibration error: mean gap of the two over rows, 0..1. NaN without rows.
    brier : float
        Brier score of all probabilities: mean over rows of the squared distances to what was right, summed
        over the regimes. 0 is perfect, 2 is certain and wrong; NaN without rows.

    Source: Brier (1950), Monthly Weather Review 78; Naeini, Cooper and Hauskrecht (2015), AAAI.
    """

    edges: np.ndarray
    rows: np.ndarray
    confidence: np.ndarray
    hit_rate: np.ndarray
    error: float
    brier: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON; what is not defined is None."""
        return plain(asdict(self))


def calibration(probabilities: np.ndarray, label: np.ndarray, right: np.ndarray, n_bins: int) -> Calibration:
    """Return how well probabilities say how often labels are right.

    Parameters
    ----------
    probabilities : float64 (n, k)
        NaN where not known; such rows are left out.
    label : int (n,)
        What was said; its probability is the confidence.
    right : int (n,)
        What should have been said, -1 where it is not known.
    n_bins : int
        Bins of equal width in 0..1.
    """
    label, right = np.asarray(label, dtype=np.int64), np.asarray(right, dtype=np.int64)
    known = (label != UNDECIDED) & (right != UNDECIDED) & np.isfinite(probabilities).all(axis=1)
    probabilities, label, right = probabilities[known], label[known], right[known]
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    each = np.arange(label.size)
    confidence = probabilities[each, label]
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, n_bins - 1)
    rows = np.bincount(place, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, confidence, n_bins) / rows
        hits = np.bincount(place, label == right, n_bins) / rows
    miss = probabilities.copy()
    miss[each, right] -= 1.0
    used = rows > 0
    return Calibration(
        edges=edges,
        rows=rows,
        confidence=mean,
        hit_rate=hits,
        error=float(np.abs(mean - hits)[used] @ rows[used] / label.size) if label.size else math.nan,
        brier=float((miss**2).sum(axis=1).mean()) if label.size else math.nan,
    )


class Blocks(NamedTuple):
    """Stationary bootstrap paths as the blocks of rows they are glued together from.

    Fields
    ------
    start, length : int64 (m,)
        First row and number of rows of each block; a block goes on at row 0 after the last row.
    path : int64 (m,)
        Which path it belongs to.
    n, n_paths : int
        Rows of the data and of each path, and the number of paths.
    """

    start: np.ndarray
    length: np.ndarray
    path: np.ndarray
    n: int
    n_paths: int


def stationary_blocks(n: int, mean_block: float, n_paths: int, rng: np.random.Generator) -> Blocks:
    """Return the blocks of stationary bootstrap paths: uniform starts, geometric lengths.

    Parameters
    ----------
    n : int
        Rows of the data, at least 1.
    mean_block : float
        Mean length of a block, rows, at least 1.
    n_paths : int
    rng : numpy.random.Generator

    Source: Politis and Romano (1994), "The stationary bootstrap", JASA 89(428).
    """
    rows = n * n_paths
    # Geometric lengths have no memory, so one long line of blocks may be cut at the end of every path.
    ends, last = [np.arange(n, rows + 1, n)], 0
    while last < rows:
        more = last + np.cumsum(rng.geometric(1.0 / mean_block, size=math.ceil(rows / mean_block) + 100))
        ends.append(more[more < rows])
        last = int(more[-1])
    stop = np.unique(np.concatenate(ends))
    begin = np.concatenate([[0], stop[:-1]])
    return Blocks(rng.integers(n, size=stop.size), stop - begin, begin // n, n, n_paths)


def order_p_value(value: np.ndarray, label: np.ndarray, high: int, low: int, blocks: Blocks) -> float:
    """Return how easily chance turns around that one regime has the higher mean of a statistic.

    Parameters
    ----------
    value : float64 (n,)
        The statistic; rows where it is NaN count for nothing.
    label : int (n,)
    high, low : int
        Regimes; the first is said to have the higher mean.
    blocks : Blocks
        Of n rows.

    Returns
    -------
    float
        Share of resampled histories in which it does not, the real one counted as one of them: a p-value, at
        least ``1 / (n_paths + 1)``. NaN if one of the two never occurs.
    """
    value, label = np.asarray(value, dtype=np.float64), np.asarray(label)
    means = []
    for one in (high, low):
        counted = (label == one) & np.isfinite(value)
        if not counted.any():
            return math.nan
        center = float(value[counted].mean())  # sums of what is left are exact to rounding
        sums = _path_sums(np.where(counted, value - center, 0.0), blocks)
        with np.errstate(invalid="ignore"):
            means.append(center + sums / _path_sums(counted.astype(np.float64), blocks))
    above = int((means[0] > means[1]).sum())
    return (blocks.n_paths - above + 1) / (blocks.n_paths + 1)


def _path_sums(value: np.ndarray, blocks: Blocks) -> np.ndarray:
    # Sum over the rows of each path, float64 (n_paths,), from running sums: no path is ever written out.
    running = np.concatenate([[0.0], np.cumsum(np.concatenate([value, value]))])
    inside = running[blocks.start + blocks.length] - running[blocks.start]
    return np.bincount(blocks.path, inside, blocks.n_paths)


def plain(value: Any) -> Any:
    """Return plain objects for JSON: arrays become lists, and what is not finite becomes None."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
