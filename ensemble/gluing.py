"""Runs of rows glued to a market of their own, for what has to learn from rows that do not touch.

Whatever is searched on such rows trades them as one history, so a seam must be none that money can be made
of: the prices of each run go on where those of the run before ended, and nobody holds a position across.
What was known at each row (features, answers of forecasters) is that of the true clock and is taken along.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from backtest.bootstrap import MARK_PRICES
from market.bars import OHLCV, Bars
from market.features.cross import TAKER
from market.table import DataError, Table, concat
from regimes.regime import UNDECIDED, RegimeProbabilities

T = TypeVar("T", bound=Table)

_PRICES = (*OHLCV[:4], *MARK_PRICES)
_AMOUNTS = (OHLCV[4], TAKER.name)


@dataclass(frozen=True, eq=False)
class Glued:
    """Bars of some runs of rows as one market.

    The open after a seam is the close before it, and all prices of a run are multiplied by what that takes,
    so the moves inside a run stay as they are. Volumes are divided by it: the turnover in money, on which the
    impact of an order depends, stays as well. The clock goes on by one interval at a seam and is the true one
    within a run but for a shift; gaps inside a run remain. Where nothing is left out, nothing changes.

    Parameters
    ----------
    bars : Bars (m,)
    runs : tuple of slice
        Rows of the market they were cut from, in their order, no two of them touching.
    """

    bars: Bars
    runs: tuple[slice, ...]

    @classmethod
    def of(cls, bars: Bars, runs: Sequence[slice]) -> "Glued":
        """Return the bars of some runs, which must be ordered and hold at least one row each; (n,) to (m,).

        Raises
        ------
        DataError
            If there is no run, or one is empty, out of order or beyond the bars.
        """
        runs = _joined(bars, runs)
        prices = [bars.index(name) for name in _PRICES if name in bars.names]
        amounts = [bars.index(name) for name in _AMOUNTS if name in bars.names]
        times, parts = [bars.time[runs[0]]], [bars.values[runs[0]]]
        for run in runs[1:]:
            made, first = bars.values[run].copy(), float(bars.values[run.start, 0])
            before = float(parts[-1][-1, 3])
            # Ratios first: multiplying them by one price keeps their order to the last bit, and 1 is exact.
            made[:, prices] = made[:, prices] / first * before
            made[:, amounts] *= first / before
            times.append(bars.time[run] + (int(times[-1][-1]) + bars.interval_ns - int(bars.time[run.start])))
            parts.append(made)
        return cls(replace(bars, time=np.concatenate(times), values=np.concatenate(parts)), runs)

    @property
    def seams(self) -> np.ndarray:
        """Last row before each seam, int64 (len(runs) - 1,), counted in the glued rows."""
        return np.cumsum([run.stop - run.start for run in self.runs])[:-1] - 1

    def rows_of(self, values: np.ndarray) -> np.ndarray:
        """Return the rows (m, ...) of what stands beside all bars (n, ...)."""
        return np.concatenate([values[run] for run in self.runs])

    def cut(self, table: T) -> T:
        """Return the rows of a table (n, c) on their true clock: what a detector learns from."""
        return concat([table[run] for run in self.runs])

    def restamped(self, table: T) -> T:
        """Return a table of the glued rows on the glued clock."""
        return replace(table, time=self.bars.time)

    def asleep_at_seams(
        self, regimes: RegimeProbabilities, labels: Table
    ) -> tuple[RegimeProbabilities, Table]:
        """Return probabilities and labels (m,) by which no regime is in force at the close before a seam.

        So every specialist is flat when the next run begins, at the price at which the last one ended, and
        has forgotten.
        """
        found = []
        for table, unknown in ((regimes, np.nan), (labels, (UNDECIDED, np.nan))):
            values = table.values.copy()
            values[self.seams] = unknown
            found.append(replace(table, values=values))
        return found[0], found[1]


def _joined(bars: Bars, runs: Sequence[slice]) -> tuple[slice, ...]:
    # Runs that touch are one: there is no seam between them.
    found: list[slice] = []
    for run in runs:
        last = found[-1].stop if found else 0
        if run.step not in (None, 1) or not last <= run.start < run.stop <= len(bars):
            raise DataError(
                f"{bars.label}: rows {run.start}:{run.stop} cannot be glued after row {last}; runs must hold "
                f"rows, be in order, and lie within the {len(bars)} bars"
            )
        if found and run.start == last:
            found[-1] = slice(found[-1].start, run.stop)
        else:
            found.append(slice(run.start, run.stop))
    if not found:
        raise DataError(f"{bars.label}: there are no rows to glue; there must be at least one run")
    return tuple(found)
