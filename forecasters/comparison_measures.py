"""Figures of forecasters with intervals: of the answers, and of the account that trades them.

An interval says what a figure would have been had other rows of the same kind come along: paths of a
stationary bootstrap, in blocks longer than labels overlap, the same paths for all forecasters. What answers
are worth does not depend on the order of rows, so a path is no more than how often each row occurs; a
drawdown needs the order.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from backtest import metrics
from backtest.bootstrap import path_figures, stationary_rows
from forecasters.calibration import LEAST
from forecasters.measures import FIGURES, measured
from forecasters.windows import CLASSES

#: Figures of an account in the order in which they are shown.
TRADING = (
    "net_return", "sharpe", "max_drawdown", "profit_factor", "trades", "trade_hit_rate", "turnover",
    "exposure",
)  # fmt: skip
LEVELS = (0.05, 0.95)
#: Blocks that rows must hold for an interval; of fewer, all paths are alike.
LEAST_BLOCKS = 5
BINS = 10
_N = len(CLASSES)


@dataclass(frozen=True, eq=False)
class Skill:
    """Answers to some rows, prepared so that a figure of any mixture of the rows is a few sums.

    Parameters
    ----------
    probabilities : float64 (m, 3)
    decision, target : int8 (m,)
        Classes.
    ret : float64 (m,)
    """

    probabilities: np.ndarray
    decision: np.ndarray
    target: np.ndarray
    ret: np.ndarray

    @cached_property
    def _parts(self) -> dict[str, Any]:
        m, p = len(self.target), self.probabilities
        truth = np.eye(_N)[self.target]
        signal = self.decision != 1
        return {
            "cell": _N * self.target.astype(np.int64) + self.decision,
            "sums": np.column_stack(
                [
                    -np.log(np.maximum(p[np.arange(m), self.target], LEAST)),
                    ((p - truth) ** 2).sum(axis=1),
                    signal,
                    signal & (np.sign(self.ret) == self.decision - 1),
                ]
            ).astype(np.float64),
            "bin": np.minimum((p[:, 2] * BINS).astype(np.int64), BINS - 1),
            "gap": p[:, 2] - (self.target == 2),
            "ranked": tuple(
                np.unique(values, return_inverse=True)[1] for values in (p[:, 2] - p[:, 0], self.ret)
            ),
        }

    def figures(self) -> dict[str, Any]:
        """Return the figures of the rows, see :func:`forecasters.measures.measured`."""
        return measured(self.probabilities, self.decision, self.target, self.ret)

    def of(self, counts: np.ndarray) -> np.ndarray:
        """Return the ``FIGURES`` of the rows, each counted so often: float64 (9,); NaN: not defined.

        Parameters
        ----------
        counts : float64 (m,)
            0 or more.
        """
        parts = self._parts
        cells = np.bincount(parts["cell"], counts, minlength=_N * _N).reshape(_N, _N)
        both = cells.sum(axis=0) + cells.sum(axis=1)
        f1 = 2.0 * np.diag(cells) / np.maximum(both, 1.0)
        present = cells.sum(axis=1) > 0
        recall = np.diag(cells)[present] / cells.sum(axis=1)[present]
        total = counts.sum()
        loss, brier, signals, hits = counts @ parts["sums"]
        off = np.bincount(parts["bin"], counts * parts["gap"], minlength=BINS)
        return np.array(
            [
                f1.mean(),
                f1[2],
                recall.mean(),
                loss / total,
                brier / total,
                np.abs(off).sum() / total,
                _rank_correlation(*parts["ranked"], counts),
                hits / signals if signals else math.nan,
                signals / total,
            ]
        )


def skill_intervals(
    models: Sequence[Skill], mean_block: float, paths: int, rng: np.random.Generator
) -> list[dict[str, tuple[float, float]]]:
    """Return the 5 and 95 percent quantiles of every figure of each model; empty for too few rows.

    Parameters
    ----------
    models : sequence of Skill
        On the same rows, in the order of time.
    mean_block : float
        Mean length of a block, rows.
    paths : int
    rng : numpy.random.Generator
    """
    m = len(models[0].target)
    if m < LEAST_BLOCKS * mean_block:
        return [{} for _ in models]
    found = np.empty((len(models), paths, len(FIGURES)))
    for path in range(paths):
        counts = np.bincount(stationary_rows(m, mean_block, rng)[0], minlength=m).astype(np.float64)
        for i, model in enumerate(models):
            found[i, path] = model.of(counts)
    return [_intervals(one, FIGURES) for one in found]


@dataclass(frozen=True, eq=False)
class Account:
    """Some rows of an account.

    Parameters
    ----------
    returns, turnover, exposure : float64 (m,)
        Net return, value traded over equity, and exposure left, of each bar.
    trade_row : int64 (t,)
        Row of each trade among these.
    trade_return : float64 (t,)
        Net profit over the value at the entry: an account that shrinks or grows weighs all trades the same.
    bars_per_year : float
    """

    returns: np.ndarray
    turnover: np.ndarray
    exposure: np.ndarray
    trade_row: np.ndarray
    trade_return: np.ndarray
    bars_per_year: float

    def take(self, rows: np.ndarray, trade_row: np.ndarray | None = None) -> Self:
        """Return some rows, bool (m,), and the trades in them, by ``trade_row`` where it is given."""
        at = self.trade_row if trade_row is None else trade_row
        kept = rows[at]
        place = np.cumsum(rows) - 1
        return type(self)(
            self.returns[rows], self.turnover[rows], self.exposure[rows], place[at[kept]],
            self.trade_return[kept], self.bars_per_year,
        )  # fmt: skip

    def figures(self) -> dict[str, float | None]:
        """Return the ``TRADING`` figures by the definitions of :mod:`backtest.metrics`; None: not defined."""
        found = (
            metrics.total_return(self.returns),
            metrics.sharpe(self.returns, self.bars_per_year),
            metrics.max_drawdown(self.returns),
            metrics.profit_factor(self.trade_return),
            float(self.trade_return.size),
            metrics.hit_rate(self.trade_return),
            metrics.annual_turnover(self.turnover, self.bars_per_year),
            metrics.time_in_market(self.exposure),
        )
        return {name: finite(value) for name, value in zip(TRADING, found, strict=True)}

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the ``TRADING`` figures of a path of rows, int64 (m,): float64 (8,); NaN: not defined."""
        m = self.returns.size
        counts = np.bincount(rows, minlength=m)
        weight = counts[self.trade_row]
        gains = float(weight @ np.maximum(self.trade_return, 0.0))
        losses = float(weight @ np.maximum(-self.trade_return, 0.0))
        trades = float(weight.sum())
        total, sharpe, depth, _ = path_figures(self.returns[rows][None], self.bars_per_year)[0]
        return np.array(
            [
                total,
                sharpe,
                depth,
                gains / losses if losses else math.nan,
                trades,
                float(weight @ (self.trade_return > 0)) / trades if trades else math.nan,
                float(counts @ self.turnover) / m * self.bars_per_year,
                float(counts @ (self.exposure != 0)) / m,
            ]
        )


def account_intervals(
    accounts: Sequence[Account], mean_block: float, paths: int, rng: np.random.Generator
) -> list[dict[str, tuple[float, float]]]:
    """Return the 5 and 95 percent quantiles of every figure of each account; empty for too few rows.

    Parameters
    ----------
    accounts : sequence of Account
        On the same rows, in the order of time.
    mean_block, paths, rng : see :func:`skill_intervals`
    """
    m = accounts[0].returns.size
    if m < LEAST_BLOCKS * mean_block:
        return [{} for _ in accounts]
    found = np.empty((len(accounts), paths, len(TRADING)))
    for path in range(paths):
        rows = stationary_rows(m, mean_block, rng)[0]
        for i, account in enumerate(accounts):
            found[i, path] = account.of(rows)
    return [_intervals(one, TRADING) for one in found]


def calibration_curve(probability: np.ndarray, happened: np.ndarray) -> list[dict[str, float]]:
    """Return how often what was given some probability came true, in ten equal bins; empty bins are left out.

    Parameters
    ----------
    probability : float64 (m,)
    happened : bool (m,)

    Returns
    -------
    list of dict
        ``from``, ``to``: edges of the bin; ``rows``; ``probability``: their mean; ``frequency``.
    """
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    means = [np.bincount(place, values, minlength=BINS) for values in (probability, happened)]
    return [
        {
            "from": i / BINS,
            "to": (i + 1) / BINS,
            "rows": int(counts[i]),
            "probability": float(means[0][i] / counts[i]),
            "frequency": float(means[1][i] / counts[i]),
        }
        for i in np.flatnonzero(counts).tolist()
    ]


def correlations(series: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """Return the correlation of every pair of series; None where one of the two does not vary."""
    names = list(series)
    matrix = np.full((len(names), len(names)), np.nan)
    varying = [i for i, name in enumerate(names) if np.ptp(series[name]) > 0.0]
    if varying:
        rows = np.atleast_2d(np.corrcoef([series[names[i]] for i in varying]))
        matrix[np.ix_(varying, varying)] = np.clip(rows, -1.0, 1.0)
    return {
        one: {other: finite(matrix[i, j]) for j, other in enumerate(names)} for i, one in enumerate(names)
    }


def finite(value: float) -> float | None:
    """Return a number for JSON: None where it is not finite."""
    return float(value) if math.isfinite(value) else None


def _rank_correlation(one: np.ndarray, other: np.ndarray, counts: np.ndarray) -> float:
    # Of groups of equal values: ranks within the mixture itself, equal values sharing their mean rank.
    total = counts.sum()
    ranks = []
    for group in (one, other):
        size = np.bincount(group, counts)
        ranks.append((np.cumsum(size) - 0.5 * size)[group] - 0.5 * total)  # the mean rank is in the middle
    x, y = ranks
    spread = float(counts @ (x * x)) * float(counts @ (y * y))
    return float(counts @ (x * y)) / math.sqrt(spread) if spread > 0.0 else math.nan


def _intervals(found: np.ndarray, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    intervals = {}
    for name, values in zip(names, found.T, strict=True):
        defined = values[np.isfinite(values)]
        if defined.size:
            low, high = np.quantile(defined, LEVELS)
            intervals[name] = (float(low), float(high))
    return intervals
