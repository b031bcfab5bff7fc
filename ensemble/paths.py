"""What combinatorial cross-validation has found: the same history traded on many paths, and how they spread.

Each path goes through all groups of rows once, as one account from the first row to the last; group by group
it follows what was learned beside that group. All paths see the same market, and their fits share most of
their rows: they spread less than independent histories would, and are no sample of such.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backtest.metrics import sharpe
from backtest.simulate import BacktestResult
from market.bars import Bars
from market.table import utc
from regimes.statistics import plain


@dataclass(frozen=True, eq=False)
class Paths:
    """Accounts of one strategy that was fitted many times, beside holding on the same rows.

    Parameters
    ----------
    bars : Bars (n,)
    groups : tuple of slice
        Rows of each group, one after the other.
    tested : int
        How many of them were tested at a time.
    embargo : int
        Bars left out on both sides of each tested group.
    combinations : tuple of mapping
        Per fit: ``chosen`` groups, bars it ``learned`` and was ``validated`` on, who was ``absent`` and why.
    results : tuple of BacktestResult
        One per path.
    hold : BacktestResult
        Holding, sized to the same volatility, on the same rows.
    n_evaluated : int
        Evaluations that the searches of all fits made.
    """

    bars: Bars
    groups: tuple[slice, ...]
    tested: int
    embargo: int
    combinations: tuple[Mapping[str, Any], ...]
    results: tuple[BacktestResult, ...]
    hold: BacktestResult
    n_evaluated: int

    @property
    def sharpes(self) -> np.ndarray:
        """Annual Sharpe ratio of each path, float64 (paths,); one that never trades has earned nothing: 0."""
        return np.array([_earned(result.metrics.sharpe) for result in self.results])

    @property
    def median(self) -> float:
        """Median of the Sharpe ratios."""
        return float(np.median(self.sharpes))

    @property
    def positive(self) -> float:
        """Share of the paths with a Sharpe ratio above 0."""
        return float(np.mean(self.sharpes > 0.0))

    @property
    def above_hold(self) -> float:
        """Share of the paths with a Sharpe ratio above that of holding."""
        return float(np.mean(self.sharpes > _earned(self.hold.metrics.sharpe)))

    def returns(self) -> dict[str, np.ndarray]:
        """Return the net return of each bar by column, float64 (m,): ``path_1``, ..., and ``hold``."""
        found = {f"path_{i + 1}": one.curve.column("net_return") for i, one in enumerate(self.results)}
        return {**found, "hold": self.hold.curve.column("net_return")}

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON; None where a number is not defined."""
        spread = {
            "sharpe": self.sharpes,
            "total_return": [one.metrics.total_return for one in self.results],
            "max_drawdown": [one.metrics.max_drawdown for one in self.results],
        }
        return plain(
            {
                "first": utc(self.bars.time[self.groups[0].start]),
                "last": utc(self.bars.time[self.groups[-1].stop - 1]),
                "bars": self.groups[-1].stop - self.groups[0].start,
                "tested": self.tested,
                "embargo_bars": self.embargo,
                "n_evaluated": self.n_evaluated,
                "spread": {name: _spread(values) for name, values in spread.items()},
                "below_zero": float(np.mean(self.sharpes < 0.0)),
                "positive": self.positive,
                "above_hold": self.above_hold,
                "hold": self.hold.metrics.to_dict(),
                "paths": [one.metrics.to_dict() for one in self.results],
                "groups": [self._group(i) for i in range(len(self.groups))],
                "combinations": [dict(one) for one in self.combinations],
            }
        )

    def _group(self, number: int) -> dict[str, Any]:
        rows, first = self.groups[number], self.groups[0].start
        part = slice(rows.start - first, rows.stop - first)
        year = self.bars.bars_per_year
        found = {name: _earned(sharpe(values[part], year)) for name, values in self.returns().items()}
        hold = found.pop("hold")
        return {
            "first": utc(self.bars.time[rows.start]),
            "last": utc(self.bars.time[rows.stop - 1]),
            "sharpes": list(found.values()),
            **_spread(list(found.values())),
            "hold": hold,
        }


def _earned(ratio: float) -> float:
    return 0.0 if np.isnan(ratio) else float(ratio)


def _spread(values: ArrayLike) -> dict[str, float]:
    found = np.asarray(values, np.float64)
    low, middle, high = np.quantile(found, (0.0, 0.5, 1.0))
    deviation = float(found.std(ddof=1)) if found.size > 1 else 0.0
    return {
        "low": float(low), "median": float(middle), "mean": float(found.mean()), "high": float(high),
        "deviation": deviation,
    }  # fmt: skip
