"""What the planted leaks and the controls stand on: hourly bars, their days, and a funding rate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from market.bars import Bars
from market.external import ExternalSeries
from market.leaks import LeakReport, inspect
from market.poisons import Given
from market.resample import resample
from market.sources.synthetic import SyntheticConfig, synthetic_market

N, TRAIN = 700, 420
HOUR = 3_600_000_000_000
FEW = {"cuts": 8, "prefixes": 14, "refits": 3, "starts": 4}


@cache
def bars() -> Bars:
    return synthetic_market(SyntheticConfig(n_bars=N, seed=11)).bars


@cache
def inputs() -> Mapping[str, Given]:
    """The inputs that a case may name; each knows when its values became known."""
    random = np.random.default_rng(5)
    settled = bars().time[7::8]
    rate = 1e-4 * np.cumsum(random.normal(size=settled.size))
    return {
        "bars": bars(),
        "daily": resample(bars(), "1d"),
        "funding": ExternalSeries.delayed(settled, rate, "funding", 60_000_000_000),
    }


@dataclass(frozen=True)
class Case:
    """A stage to be inspected.

    Parameters
    ----------
    name : str
    stage : callable, optional
        On the named inputs.
    fit : callable, optional
        Gives the stage, and may be run again by who inspects it.
    saved : callable, optional
        Gives the stage, and may not: all that is left is the fitted thing.
    reads : tuple of str
        Names of inputs, the clock first.
    options : mapping
        What its author declares: ``first``, ``delay``, ``warmup``.
    """

    name: str
    stage: Callable | None = None
    fit: Callable | None = None
    saved: Callable | None = None
    reads: tuple[str, ...] = ("bars",)
    options: Mapping[str, Any] = field(default_factory=dict)

    def inspected(self, **budget: int) -> LeakReport:
        """Return the report."""
        given = [inputs()[name] for name in self.reads]
        stage = self.saved(*given) if self.saved else self.stage
        return inspect(stage, *given, fit=self.fit, **{**FEW, **budget, **self.options})


def frame(given: Bars) -> pd.DataFrame:
    """Return bars as most people hold them: a frame on the times at which they **open**."""
    index = pd.to_datetime(given.time - given.interval_ns, utc=True)
    return pd.DataFrame(given.values[:, :5], index, given.names[:5])


def returns(given: Bars) -> np.ndarray:
    """Log returns, float64 (n,); 0 in the first row."""
    return np.diff(np.log(given.column("close")), prepend=np.log(given.column("close")[:1]))


def lagged(given: Bars, lags: int = 6) -> np.ndarray:
    """The latest returns and two averages of them, float64 (n, lags + 2); 0 before the first."""
    series = pd.Series(returns(given))
    columns = [series.shift(lag) for lag in range(lags)]
    columns += [series.rolling(24).mean(), series.rolling(24).std()]
    return np.nan_to_num(np.column_stack(columns)) * 100.0


def rises(given: Bars, ahead: int = 4) -> np.ndarray:
    """Whether the close is higher some bars later, float64 (n,); NaN where that is not known yet."""
    close = given.column("close")
    later = np.append(close[ahead:], np.full(min(ahead, close.size), np.nan))[: close.size]
    return np.where(np.isnan(later), np.nan, later > close)


def follows(chosen: np.ndarray, level: float, given: Bars) -> np.ndarray:
    """Answer of a linear model without the matrix product, whose last bit depends on the number of rows."""
    return np.einsum("nk,k->n", lagged(given), chosen) + level


def ridge(given: Bars, rows: slice, ahead: int = 4) -> tuple[np.ndarray, float]:
    """Fit a ridge regression of a later rise on some rows whose labels are known."""
    x, y = lagged(given)[rows], rises(given, ahead)[rows]
    known = ~np.isnan(y)
    x, y = x[known], y[known]
    level = float(y.mean())
    chosen = np.linalg.solve(x.T @ x + 10.0 * np.eye(x.shape[1]), x.T @ (y - level))
    return chosen, level
