"""What a tear sheet is about, and what its chapters share."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from backtest.simulate import BacktestResult
from backtest.stress_report import StressReport
from market.bars import Bars
from market.table import utc

STRATEGY = "strategy"  # the name of the result itself, beside its benchmarks
DAYS_PER_YEAR = 365
WINDOW_DAYS, LEAST_WINDOW = 90, 20
_MINUTE = 60_000_000_000


@dataclass(frozen=True)
class Subject:
    """What a tear sheet is about; the parameters of :func:`backtest.tearsheet.write_tearsheet`."""

    result: BacktestResult
    sample: str | None = None
    bars: Bars | None = None
    labels: np.ndarray | None = None
    regimes: Mapping[int, str] = field(default_factory=dict)
    benchmarks: Mapping[str, BacktestResult] = field(default_factory=dict)
    stress: StressReport | None = None

    @property
    def time(self) -> np.ndarray:
        """Closes, int64 (n,), nanoseconds UTC."""
        return self.result.curve.time

    @property
    def returns(self) -> np.ndarray:
        """Net returns of the bars, float64 (n,)."""
        return self.result.curve.column("net_return")

    @property
    def equity(self) -> np.ndarray:
        """The capital and then the equity at each close, float64 (n + 1,), quote currency."""
        return np.concatenate(([self.result.capital], self.result.curve.column("equity")))

    @property
    def window(self) -> int | None:
        """Bars that rolling figures look back on; None where the record is too short for them."""
        wanted = round(self.result.bars_per_year * WINDOW_DAYS / DAYS_PER_YEAR)
        window = min(max(wanted, LEAST_WINDOW), len(self.time) // 4)
        return window if window >= LEAST_WINDOW else None

    @property
    def everyone(self) -> dict[str, BacktestResult]:
        """The strategy and its benchmarks, by name."""
        return {STRATEGY: self.result, **self.benchmarks}

    def clock(self, time: int) -> str:
        """Return an instant in UTC, to the minute where no bar needs seconds."""
        text = utc(time).replace("T", " ").rstrip("Z")
        return text if (self.time % _MINUTE).any() else text[:-3]
