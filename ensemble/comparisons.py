"""Is it better than the others? SPA, StepM and MCS through ``arch``, and paired bootstrap intervals.

All of them are asked on the same bars, and all of them correct for how many were looked at. Two decisions
are made once, here:

* **Leverage is no skill.** Each series is divided by its own standard deviation, so that a difference of
  means is a difference of Sharpe ratios. ``equal_volatility=False`` compares plain returns.
* **SPA is Hansen's studentized test.** ``arch`` (8.0) takes the largest *mean* difference however noisy it
  is, so one wild candidate drowns the others. The differences are divided by their long-run deviation
  before they are handed over, and a candidate that equals the benchmark is added, which is Hansen's
  ``max(., 0)`` and keeps StepM from running out of candidates.

Sources: Hansen (2005), "A test for superior predictive ability", JBES 23(4); Romano and Wolf (2005),
"Stepwise multiple testing as formalized data snooping", Econometrica 73(4); Hansen, Lunde and Nason (2011),
"The model confidence set", Econometrica 79(2); Politis and Romano (1994), "The stationary bootstrap".
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from backtest.bootstrap import log_growth, path_figures, stationary_rows
from backtest.metrics import ROUNDING
from compute.seeds import stream
from configs.load import ConfigError
from market.table import DataError

MOST_ROWS = 2_500  # of a series of sums: the tests of arch cost the square of it
LEAST_ROWS = 30
FIGURES = ("total_return", "sharpe", "max_drawdown")
_CELLS = 500_000  # of a chunk of paths: 4 MB a matrix
_HALVINGS = 14  # of the level at which a candidate is found better: to one part in 16,000


@dataclass(frozen=True)
class Superiority:
    """Whether any candidate is better than a benchmark, and which.

    Parameters
    ----------
    benchmark : str
    p : float
        SPA, consistent: how often the best of so many candidates would look this good if none were better.
        1 where none earns more than the benchmark.
    p_lower, p_upper : float
        Bounds of it: candidates worse than the benchmark left out, and all of them counted.
    p_of : dict of str to float
        The same for each candidate alone, still corrected for having looked at all of them; the best
        candidate has ``p``.
    better : tuple of str
        What StepM finds better, at a family-wise error of ``size``.
    size : float
    mean_block : int
        Of the stationary bootstrap, rows.
    n_rows : int
        Rows of the tests: sums of one or more bars.
    """

    benchmark: str
    p: float
    p_lower: float
    p_upper: float
    p_of: dict[str, float]
    better: tuple[str, ...]
    size: float
    mean_block: int
    n_rows: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON."""
        return {**asdict(self), "better": list(self.better)}


@dataclass(frozen=True)
class ConfidenceSet:
    """The model confidence set: what cannot be told from the best.

    Parameters
    ----------
    p_of : dict of str to float
        The smallest size at which each is left out; series that are equal to each other share it.
    size : float
        Of the set, 0.1 for one that holds the best with a probability of 90 %.
    mean_block, n_rows : int
        As in :class:`Superiority`.
    """

    p_of: dict[str, float]
    size: float
    mean_block: int
    n_rows: int

    @property
    def included(self) -> tuple[str, ...]:
        """Names in the set, in the order given."""
        return tuple(name for name, p in self.p_of.items() if p > self.size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON."""
        return {**asdict(self), "included": list(self.included)}


@dataclass(frozen=True)
class Interval:
    """A figure, and between what it lies on the paths of a bootstrap.

    Parameters
    ----------
    estimate : float
        On the path that was taken.
    low, high : float
        Quantiles of the paths, equally far from both ends.
    positive : float
        Share of the paths on which it is above zero.
    """

    estimate: float
    low: float
    high: float
    positive: float

    @classmethod
    def of(cls, estimate: float, paths: np.ndarray, level: float) -> "Interval":
        """Return the central interval that holds ``level`` of float64 (n_paths,) values."""
        low, high = np.quantile(paths, [(1 - level) / 2, (1 + level) / 2])
        return cls(float(estimate), float(low), float(high), float(np.mean(paths > 0)))

    def to_dict(self) -> dict[str, float | None]:
        """Return plain objects for JSON; what is not finite is None."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def require_arch() -> None:
    """Check that the library behind these tests is there; ask before hours of work, not after.

    Raises
    ------
    ConfigError
        If it is not.
    """
    try:
        import arch.bootstrap  # noqa: F401
    except ImportError:
        raise ConfigError(
            "evidence: SPA, StepM and MCS need arch; install it with: pip install "
            "'regime-conductor[validation]', or set evidence.comparisons to false"
        ) from None


def grouped(returns: np.ndarray, most: int = MOST_ROWS) -> np.ndarray:
    """Return sums over runs of consecutive rows, float64 (m, k), m at most ``most``.

    Runs are equally long, or off by one. Sums keep the mean exactly, lose little of what a test of means
    needs, and turn a year of minutes into something a bootstrap can repeat a thousand times.
    """
    n = len(returns)
    if n <= most:
        return returns
    return np.add.reduceat(returns, np.arange(most) * n // most, axis=0)


def superiority(
    benchmark: str,
    returns: Mapping[str, np.ndarray],
    *,
    seed: int,
    reps: int = 1_000,
    mean_block: float = 1.0,
    size: float = 0.05,
    equal_volatility: bool = True,
) -> Superiority:
    """Return whether any of several candidates is better than a benchmark on the same bars.

    Parameters
    ----------
    benchmark : str
        One of the names.
    returns : mapping of str to float64 (n,)
        Net simple returns per bar; all others are candidates.
    seed : int
    reps : int
        Bootstrap samples; no p is below ``1 / (reps + 1)``.
    mean_block : float
        Of the stationary bootstrap, bars.
    size : float
        Family-wise error of StepM.
    equal_volatility : bool
        See the module.

    Raises
    ------
    ConfigError
        If ``arch`` is not installed.
    DataError
        If series differ in length, are too short or not finite, or there is no candidate.
    """
    require_arch()
    from arch.bootstrap import SPA, StepM

    names = tuple(name for name in returns if name != benchmark)
    matrix = _matrix({name: returns[name] for name in (benchmark, *names)})
    if not names:
        raise DataError(f"evidence: nothing to compare with {benchmark}; SPA needs at least one candidate")
    rows, block = _rows(_risk_adjusted(matrix) if equal_volatility else matrix, mean_block)
    ahead = rows[:, 1:] - rows[:, :1]
    deviation = long_run_deviation(ahead, block)
    told_apart = deviation > ROUNDING * max(float(np.abs(rows).max()), ROUNDING)
    ahead = np.where(told_apart, ahead / np.where(told_apart, deviation, 1.0), 0.0)
    ahead = np.column_stack([ahead, np.zeros(len(ahead))])  # a candidate that equals the benchmark
    means = ahead.mean(axis=0)
    record = {"size": size, "mean_block": block, "n_rows": len(rows)}
    if means.max() <= 0:
        return Superiority(benchmark, 1.0, 1.0, 1.0, dict.fromkeys(names, 1.0), (), **record)
    stepwise = StepM(
        np.zeros(len(ahead)),
        -ahead,  # arch compares losses
        size=size,
        reps=reps,
        block_size=block,
        bootstrap="stationary",
        seed=stream(seed, "evidence", "spa", benchmark),
    )
    stepwise.compute()
    test: SPA = stepwise.spa
    test.compute()
    found = {kind: _never_zero(float(p), reps) for kind, p in test.pvalues.items()}

    def level(mean: float) -> float:
        # The smallest level at which the candidate lies above the critical value.
        if mean <= 0:
            return 1.0
        if mean == means.max():
            return found["consistent"]
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = mean > test.critical_values(middle)["consistent"]
            low, high = (low, middle) if above else (middle, high)
        return max(high, found["consistent"])

    return Superiority(
        benchmark=benchmark,
        p=found["consistent"],
        p_lower=found["lower"],
        p_upper=found["upper"],
        p_of={name: level(float(mean)) for name, mean in zip(names, means[:-1], strict=True)},
        better=tuple(names[int(i)] for i in stepwise.superior_models),
        **record,
    )


def confidence_set(
    returns: Mapping[str, np.ndarray],
    *,
    seed: int,
    reps: int = 1_000,
    mean_block: float = 1.0,
    size: float = 0.1,
    equal_volatility: bool = True,
) -> ConfidenceSet:
    """Return which of several series cannot be told from the best of them.

    Parameters
    ----------
    returns : mapping of str to float64 (n,)
        Net simple returns per bar of at least 2 series.
    size : float
        Of the set.
    seed, reps, mean_block, equal_volatility
        As in :func:`superiority`.

    Raises
    ------
    ConfigError, DataError
        As :func:`superiority` does.
    """
    require_arch()
    from arch.bootstrap import MCS

    matrix = _matrix(returns)
    rows, block = _rows(_risk_adjusted(matrix) if equal_volatility else matrix, mean_block)
    names, twin = tuple(returns), _twins(rows)
    if len(names) < 2:
        raise DataError(f"evidence: {len(names)} series; a confidence set is one of at least 2")
    different = sorted(set(twin))
    p = {different[0]: 1.0}
    if len(different) > 1:  # arch divides by the deviation of each pair's difference
        test = MCS(
            -rows[:, different],
            size=size,
            reps=reps,
            block_size=block,
            bootstrap="stationary",
            seed=stream(seed, "evidence", "mcs"),
        )
        test.compute()
        p = {different[int(i)]: float(value) for i, value in test.pvalues["Pvalue"].items()}
    return ConfidenceSet({name: p[twin[i]] for i, name in enumerate(names)}, size, block, len(rows))


def intervals(
    returns: Mapping[str, np.ndarray],
    bars_per_year: float,
    *,
    seed: int,
    n_paths: int = 1_000,
    mean_block: float = 1.0,
    level: float = 0.9,
) -> tuple[dict[str, Interval], dict[str, dict[str, Interval]]]:
    """Return stationary-bootstrap intervals of the first series, and of its lead over each of the others.

    A path takes the same bars of every series, so what they have in common cancels in a lead.

    Parameters
    ----------
    returns : mapping of str to float64 (n,)
        Net simple returns per bar.
    bars_per_year : float
    seed : int
    n_paths : int
    mean_block : float
        Bars; see :func:`backtest.bootstrap.best_block`.
    level : float
        Share of the paths inside an interval, in (0, 1).

    Returns
    -------
    tuple
        Intervals of ``FIGURES`` of the first series; and, by the name of every other one, of the first less
        that one. Total return and drawdown are fractions, the Sharpe ratio is annual, and 0 for a path
        that never moves. A drawdown is zero or below, so a positive lead is a shallower one.
    """
    matrix = _matrix(returns)
    n, k = matrix.shape
    series = np.ascontiguousarray(matrix.T)
    growth = log_growth(series)
    found = np.empty((k, n_paths, len(FIGURES)))
    size = max(_CELLS // n, 1)
    for first in range(0, n_paths, size):
        rng = stream(seed, "evidence", "paths", first // size)
        rows = stationary_rows(n, mean_block, rng, size)[: n_paths - first]
        for one in range(k):
            figures = path_figures(series[one][rows], bars_per_year, growth[one][rows])
            found[one, first : first + size] = figures[:, : len(FIGURES)]
    taken = path_figures(series, bars_per_year)[:, : len(FIGURES)]
    found, taken = np.nan_to_num(found, nan=0.0), np.nan_to_num(taken, nan=0.0)

    def spread(estimates: np.ndarray, paths: np.ndarray) -> dict[str, Interval]:
        return {
            name: Interval.of(estimates[i], np.ascontiguousarray(paths[:, i]), level)
            for i, name in enumerate(FIGURES)
        }

    leads = {
        name: spread(taken[0] - taken[one], found[0] - found[one])
        for one, name in enumerate(returns)
        if one > 0
    }
    return spread(taken[0], found[0]), leads


def long_run_deviation(values: np.ndarray, mean_block: float) -> np.ndarray:
    """Return the root of n times the variance of the stationary bootstrap's mean, float64 (k,).

    ``sum over lags of kappa(lag) gamma(lag)`` with the bootstrap's own weights, so that it is exact and never
    negative. Source: Politis and Romano (1994), lemma 1.

    Parameters
    ----------
    values : float64 (n, k)
    mean_block : float
        Rows, at least 1.
    """
    n = len(values)
    deviation = values - values.mean(axis=0)
    padded = 1 << (2 * n - 1).bit_length()
    power = np.abs(np.fft.rfft(deviation, padded, axis=0)) ** 2
    gamma = np.fft.irfft(power, padded, axis=0)[:n] / n
    stay, lag = 1.0 - 1.0 / mean_block, np.arange(n)
    kappa = (1 - lag / n) * stay**lag + lag / n * stay ** (n - lag)
    kappa[1:] *= 2.0
    return np.sqrt(np.maximum(kappa @ gamma, 0.0))


def _never_zero(p: float, reps: int) -> float:
    # The observed sample is one of those that are as extreme as itself.
    return (p * reps + 1) / (reps + 1)


def _risk_adjusted(matrix: np.ndarray) -> np.ndarray:
    deviation = matrix.std(axis=0, ddof=1)
    moving = deviation > ROUNDING
    return np.where(moving, matrix / np.where(moving, deviation, 1.0), 0.0)


def _rows(matrix: np.ndarray, mean_block: float) -> tuple[np.ndarray, int]:
    # Sums of bars, and the block in as many of them as cover the same time.
    rows = grouped(matrix)
    return rows, max(1, math.ceil(mean_block * len(rows) / len(matrix)))


def _twins(rows: np.ndarray) -> list[int]:
    # For each column the first one that it equals; what differs by rounding alone is equal.
    scale = ROUNDING * max(float(np.abs(rows).max()), ROUNDING)
    twin: list[int] = []
    for column in range(rows.shape[1]):
        same = (other for other in twin if np.abs(rows[:, column] - rows[:, other]).max() <= scale)
        twin.append(next(same, column))
    return twin


def _matrix(returns: Mapping[str, np.ndarray]) -> np.ndarray:
    lengths = {name: np.shape(series) for name, series in returns.items()}
    if len(set(lengths.values())) != 1 or len(next(iter(lengths.values()))) != 1:
        raise DataError(f"evidence: series have shapes {lengths}; they must be one return per bar, alike")
    matrix = np.column_stack([np.asarray(series, dtype=np.float64) for series in returns.values()])
    if len(matrix) < LEAST_ROWS:
        raise DataError(
            f"evidence: {len(matrix)} bars out of sample; a comparison needs at least {LEAST_ROWS}"
        )
    if not np.isfinite(matrix).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(matrix))[0])
        raise DataError(
            f"evidence: return {row} of {tuple(returns)[column]} is {matrix[row, column]}; it must be finite"
        )
    return matrix
