"""Is it luck? Statistics of one Sharpe ratio, and of the best of many: pure functions on returns.

**Every Sharpe ratio here is per bar**: mean over standard deviation (ddof 1) of the returns of one bar,
never annualised, and so is every variance of Sharpe ratios. An annual Sharpe of 2.5 on 250 bars a year
enters as ``2.5 / sqrt(250)``; an annual variance is divided by 250.

**Every kurtosis here is the fourth standardised moment, 3 for a normal distribution**, never the
excess. :class:`TrackRecord` refuses values that only an excess kurtosis can have.

The convention is the one of 2012 and 2014: the variance of the estimate is taken at the observed
Sharpe ratio and divided by T - 1. (The convention of 2025 takes it at the benchmark and divides by T.)

Sources: Bailey and Lopez de Prado (2012), "The Sharpe ratio efficient frontier", Journal of Risk 15(2);
Bailey and Lopez de Prado (2014), "The deflated Sharpe ratio", Journal of Portfolio Management 40(5);
Bailey, Borwein, Lopez de Prado and Zhu (2017), "The probability of backtest overfitting", Journal of
Computational Finance 20(4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Literal, Self

import numpy as np

from experiments import kernels

EULER_GAMMA = 0.577215664901532861
MAX_BLOCKS = 20  # 184,756 splits; the next even number has four times as many
_DECIMALS = 12  # Sharpe ratios that agree to this many are equal
_ROUNDING = 1e-12  # a variance this small beside the mean square is rounding, not movement


@dataclass(frozen=True)
class TrackRecord:
    """What the tests of one Sharpe ratio need to know about a series of returns.

    Parameters
    ----------
    sharpe : float
        Per bar. NaN when the returns never move; every test of it is then NaN.
    n_bars : int
        T, at least 1.
    skewness : float
        Third standardised moment, 0 for a normal distribution.
    kurtosis : float
        Fourth standardised moment, **3** for a normal distribution.
    autocorrelation : float
        Of lag 1, in (-1, 1). Zero is the convention of the papers of 2012 and 2014 (independent bars).

    Raises
    ------
    ValueError
        If the kurtosis is below ``skewness**2 + 1``, which no distribution has but an excess kurtosis
        easily does; or if another value is impossible.
    """

    sharpe: float
    n_bars: int
    skewness: float = 0.0
    kurtosis: float = 3.0
    autocorrelation: float = 0.0

    def __post_init__(self) -> None:
        if self.n_bars < 1:
            raise ValueError(f"n_bars is {self.n_bars}; a track record has at least 1 bar")
        least = self.skewness**2 + 1
        if self.kurtosis < least - 1e-9 * least:
            raise ValueError(
                f"kurtosis is {self.kurtosis:g} with skewness {self.skewness:g}; it is at least "
                f"skewness**2 + 1 = {least:g} (pass the full kurtosis, 3 for a normal distribution)"
            )
        if not -1 < self.autocorrelation < 1:
            raise ValueError(f"autocorrelation is {self.autocorrelation:g}; it must lie inside (-1, 1)")

    @classmethod
    def of(cls, returns: np.ndarray, serial: bool = False) -> Self:
        """Return the record of float64 (n,) returns per bar.

        Moments are the population's (divided by n), the Sharpe ratio uses ddof 1.

        Parameters
        ----------
        returns : float64 (n,)
            Simple returns per bar, n >= 1; NaN is refused.
        serial : bool
            Measure the autocorrelation of lag 1 and let it widen (or narrow) the error of the Sharpe
            ratio. False is the published convention; positions held for many bars ask for True.
        """
        returns = _series(returns)
        if returns.min() == returns.max():  # decided exactly: the rounded deviation of a constant is not 0
            return cls(math.nan, returns.size)
        deviation = returns - returns.mean()
        scale = np.abs(deviation).max()
        deviation /= scale  # moments do not depend on it, and tiny returns do not underflow
        variance = np.mean(deviation**2)
        sharpe = returns.mean() / scale / math.sqrt(variance * returns.size / (returns.size - 1))
        skewness = np.mean(deviation**3) / variance**1.5
        kurtosis = np.mean(deviation**4) / variance**2
        lag_1 = float(deviation[1:] @ deviation[:-1]) / (variance * returns.size) if serial else 0.0
        return cls(float(sharpe), returns.size, float(skewness), float(kurtosis), float(lag_1))


def probabilistic_sharpe(record: TrackRecord, benchmark: float = 0.0) -> float:
    """Return the probability that the true Sharpe ratio lies above a benchmark (PSR).

    ``Phi((SR - SR*) sqrt(T - 1) / sqrt(1 - skew SR + (kurtosis - 1)/4 SR^2))``, with the terms under the
    second root inflated by the autocorrelation of the record when it has one.

    Parameters
    ----------
    record : TrackRecord
    benchmark : float
        SR*, per bar.

    Returns
    -------
    float
        0 to 1. NaN if the Sharpe ratio or the benchmark is NaN, or there are fewer than 3 bars.

    Source: Bailey and Lopez de Prado (2012), equation for PSR; the skew and kurtosis terms are Mertens'
    (2002). Autocorrelation: the same delta method with the long-run covariances of a linear AR(1).
    """
    spread = _spread(record)
    if record.n_bars < 3 or not spread > 0 or math.isnan(benchmark):
        return math.nan
    return _normal_cdf((record.sharpe - benchmark) * math.sqrt((record.n_bars - 1) / spread))


def min_track_record_length(record: TrackRecord, benchmark: float = 0.0, confidence: float = 0.95) -> float:
    """Return how many bars it takes to trust that the Sharpe ratio lies above a benchmark (minTRL).

    Parameters
    ----------
    record : TrackRecord
        Its length is not used.
    benchmark : float
        SR*, per bar.
    confidence : float
        In (0.5, 1).

    Returns
    -------
    float
        Bars, not rounded. Infinite if the Sharpe ratio does not exceed the benchmark; NaN if it is NaN.

    Source: Bailey and Lopez de Prado (2012), equation for MinTRL.
    """
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence is {confidence:g}; it must lie between 0.5 and 1")
    if math.isnan(record.sharpe) or math.isnan(benchmark):
        return math.nan
    if record.sharpe <= benchmark:
        return math.inf
    return 1 + _spread(record) * (NormalDist().inv_cdf(confidence) / (record.sharpe - benchmark)) ** 2


def expected_max_sharpe(n_trials: float, variance: float) -> float:
    """Return the Sharpe ratio that the best of N skill-less trials is expected to show.

    ``sqrt(V) ((1 - g) Phi^-1(1 - 1/N) + g Phi^-1(1 - 1/(N e)))`` with g the Euler-Mascheroni constant.
    It is about 2 % too high at N = 10 and 0.4 % at N = 1000, on the careful side.

    Parameters
    ----------
    n_trials : float
        N >= 1; an effective number need not be whole.
    variance : float
        V, variance of the Sharpe ratios across trials, per bar.

    Returns
    -------
    float
        Per bar, never negative; 0 for a single trial. NaN if the variance is NaN and N > 1.

    Source: Bailey and Lopez de Prado (2014), the false strategy theorem, equation for E[max].
    """
    if not n_trials >= 1:
        raise ValueError(f"n_trials is {n_trials:g}; there was at least 1 trial")
    if variance < 0:
        raise ValueError(f"variance is {variance:g}; it cannot be negative")
    if n_trials == 1:
        return 0.0
    if math.isnan(variance):
        return math.nan
    quantile = NormalDist().inv_cdf
    # -quantile(1/N) is quantile(1 - 1/N) without losing the digits of 1/N beside 1
    best = -(1 - EULER_GAMMA) * quantile(1 / n_trials) - EULER_GAMMA * quantile(1 / (n_trials * math.e))
    return math.sqrt(variance) * max(best, 0.0)  # the approximation dips below 0 for N under 1.3


def deflated_sharpe(record: TrackRecord, n_trials: float, variance: float) -> float:
    """Return the probability that the best of N trials has skill: PSR against the luck of the search (DSR).

    Parameters
    ----------
    record : TrackRecord
        Of the trial that was chosen.
    n_trials : float
        All trials ever made on these rows, from the ledger; for a public claim the larger of the unique
        and the effective number.
    variance : float
        Of the Sharpe ratios across those trials, per bar, from the ledger.

    Returns
    -------
    float
        0 to 1; 0.95 is the usual line. NaN where PSR or E[max] is.

    Source: Bailey and Lopez de Prado (2014), convention of that year (variance at SR, T - 1).
    """
    return probabilistic_sharpe(record, expected_max_sharpe(n_trials, variance))


def effective_trials(returns: np.ndarray, method: Literal["average", "spectrum"] = "average") -> float:
    """Return how many independent trials a set of correlated ones amounts to.

    Parameters
    ----------
    returns : float64 (n, trials)
        One column per trial, n >= 2 rows. Columns that never move are not counted. Works on a copy: for
        thousands of trials over long histories pass a sample, or returns summed over longer bars.
    method : str
        ``average``: ``rho + (1 - rho) M`` with rho the mean correlation of all pairs (at least 0). It
        stays high unless all trials resemble each other: the careful choice, and the default. Bailey and
        Lopez de Prado (2014), appendix on the number of independent trials.
        ``spectrum``: ``M^2 / sum(eigenvalue^2)`` of the correlation matrix, which sees clusters. With
        few rows it comes out too low (M independent trials on n rows give about ``M / (1 + M / n)``).
        Bretherton et al. (1999), "The effective number of spatial degrees of freedom", Journal of
        Climate 12.

    Returns
    -------
    float
        1 to M, the number of columns that move; 0 if none does.
    """
    if method not in ("average", "spectrum"):
        raise ValueError(f"method is {method!r}; it must be average or spectrum")
    returns = _matrix(returns)
    moving = returns[:, returns.min(axis=0) < returns.max(axis=0)]
    m = moving.shape[1]
    if m < 2:
        return float(m)
    units = moving - moving.mean(axis=0)
    units /= np.sqrt(np.sum(units**2, axis=0))  # columns of length 1: their products are correlations
    if method == "average":
        total = units.sum(axis=1)
        rho = (float(total @ total) - m) / (m * (m - 1))
        rho = min(max(rho, 0.0), 1.0)
        return rho + (1 - rho) * m
    products = units @ units.T if len(units) < m else units.T @ units  # the same squares, the smaller one
    return min(max(m**2 / float(np.sum(products**2)), 1.0), float(m))


@dataclass(frozen=True, eq=False)
class Overfitting:
    """What combinatorially symmetric cross-validation says about picking the best of a set of trials.

    Parameters
    ----------
    pbo : float
        Share of splits in which the winner in sample is at or below the median out of sample; 0.5 is
        what luck gives, not an average result. A noisy number: see :func:`pbo_range`.
    loss : float
        Share of splits in which the winner has a negative Sharpe ratio out of sample.
    slope : float
        Of the winner's Sharpe ratio out of sample against the one in sample; NaN if all are equal.
    n_blocks, n_splits : int
        Blocks of time, and splits made of them.
    logits : float64 (n_splits,)
        ``log(w / (1 - w))`` of the winner's relative rank w out of sample, read-only.
    """

    pbo: float
    loss: float
    slope: float
    n_blocks: int
    n_splits: int
    logits: np.ndarray


def pbo(returns: np.ndarray, n_blocks: int = 16) -> Overfitting:
    """Return the probability of backtest overfitting by CSCV.

    The rows are cut into blocks of equal length (off by one row where they do not divide; none is thrown
    away). Every half of the blocks serves once in sample, the other half out of sample. The trial with
    the best Sharpe ratio in sample (the first of equals) is ranked out of sample among all trials, equals
    sharing their average rank.

    Parameters
    ----------
    returns : float64 (n, trials)
        Returns per bar of **all** trials that were evaluated, at least 2, n >= 2 n_blocks rows in order of
        time; NaN is refused. A trial that does not move within a half has a Sharpe ratio of 0 there.
    n_blocks : int
        Even, 2 to 20.

    Source: Bailey, Borwein, Lopez de Prado and Zhu (2017), section 3.
    """
    returns = _matrix(returns)
    _check_blocks(n_blocks)
    n, m = returns.shape
    if m < 2 or n < 2 * n_blocks:
        raise ValueError(
            f"returns has shape {returns.shape}; {n_blocks} blocks need 2 trials and at least "
            f"{2 * n_blocks} rows"
        )
    blocks = np.array_split(returns, n_blocks)
    rows = np.array([len(block) for block in blocks], dtype=np.float64)
    sums = np.array([block.sum(axis=0) for block in blocks])
    squares = np.array([np.sum(block**2, axis=0) for block in blocks])
    return pbo_of_blocks(rows, sums, squares)


def pbo_of_blocks(rows: np.ndarray, sums: np.ndarray, squares: np.ndarray) -> Overfitting:
    """Return the probability of backtest overfitting from what each block adds up to.

    The Sharpe ratio of a half needs no more than the sums over its blocks, so a search can keep 2 x 16
    numbers per trial instead of a return per bar; the result is that of :func:`pbo`.

    Parameters
    ----------
    rows : float64 (blocks,)
        Bars of each block, at least 2; an even number of blocks, 2 to 20, in order of time.
    sums, squares : float64 (blocks, trials)
        Of the returns per bar of **all** trials that were evaluated, at least 2, and of their squares.
    """
    rows = np.ascontiguousarray(rows, dtype=np.float64)
    sums, squares = _matrix(sums), _matrix(squares)
    _check_blocks(rows.size)
    if sums.shape != squares.shape or len(sums) != rows.size or sums.shape[1] < 2 or rows.min() < 2:
        raise ValueError(
            f"{rows.size} blocks of at least {rows.min():g} bars have sums {sums.shape} and squares "
            f"{squares.shape}; both must be (blocks, trials) of 2 trials or more, on 2 bars or more"
        )
    n_blocks, m = sums.shape
    # The halves that hold block 0; their complements are the other half of all combinations.
    halves = np.array(list(combinations(range(n_blocks), n_blocks // 2)))
    halves = halves[: len(halves) // 2]
    chosen = np.zeros((len(halves), n_blocks), dtype=bool)
    np.put_along_axis(chosen, halves, True, axis=1)
    found = np.empty((2 * len(halves), 3))
    kernels.judge_winners(
        chosen,
        rows,
        np.ascontiguousarray(sums),
        np.ascontiguousarray(squares),
        _ROUNDING,
        10.0**_DECIMALS,
        found,
    )
    ranks, x, y = found.T
    relative = ranks / (m + 1)
    logits = np.log(relative / (1 - relative))
    logits.flags.writeable = False
    spread = x - x.mean()
    square = float(spread @ spread)
    slope = float(spread @ (y - y.mean())) / square if x.min() < x.max() else math.nan
    return Overfitting(
        float(np.mean(relative <= 0.5)), float(np.mean(y < 0)), slope, n_blocks, logits.size, logits
    )


def pbo_range(returns: np.ndarray, block_counts: Sequence[int] = (8, 10, 12, 14, 16)) -> tuple[float, float]:
    """Return the lowest and the highest PBO over several numbers of blocks; see :func:`pbo`."""
    found = [pbo(returns, n_blocks).pbo for n_blocks in block_counts]
    return min(found), max(found)


def _check_blocks(n_blocks: int) -> None:
    if n_blocks % 2 or not 2 <= n_blocks <= MAX_BLOCKS:
        raise ValueError(f"n_blocks is {n_blocks}; it must be an even number from 2 to {MAX_BLOCKS}")


def _spread(record: TrackRecord) -> float:
    # T times the variance of the estimated Sharpe ratio. With autocorrelation r of an AR(1) the long-run
    # covariances of x and x^2 add up to: 1 + 2r/(1-r), 1 + r/(1-r) + r^2/(1-r^2), 1 + 2r^2/(1-r^2).
    r = record.autocorrelation
    once, twice = r / (1 - r), r**2 / (1 - r**2)
    return (
        (1 + 2 * once)
        - (1 + once + twice) * record.skewness * record.sharpe
        + (1 + 2 * twice) * (record.kurtosis - 1) / 4 * record.sharpe**2
    )


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _series(returns: np.ndarray) -> np.ndarray:
    returns = np.asarray(returns, dtype=np.float64)
    if returns.ndim != 1 or returns.size == 0:
        raise ValueError(f"returns has shape {returns.shape}; it must be (n,) with at least 1 bar")
    if not np.isfinite(returns).all():
        raise ValueError(f"returns is not finite in bar {int(np.argmin(np.isfinite(returns)))}")
    return returns


def _matrix(returns: np.ndarray) -> np.ndarray:
    returns = np.asarray(returns, dtype=np.float64)
    if returns.ndim != 2 or returns.shape[0] < 2 or returns.shape[1] < 1:
        raise ValueError(f"returns has shape {returns.shape}; it must be (n, trials) with at least 2 rows")
    if not np.isfinite(returns).all():
        row, trial = (int(i) for i in np.argwhere(~np.isfinite(returns))[0])
        raise ValueError(f"returns is not finite in bar {row} of trial {trial}")
    return returns
