"""The laws of flow: one row out per row in, and cutting the input anywhere changes nothing.

A stage has one way in, ``update``. A backtest is one big update, live trading is updates of one row;
there is no second code path. When earlier rows are answered, later rows do not exist yet, and the
answers may not change afterwards: look-ahead is impossible rather than forbidden.
"""

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np

from market.table import DataError, Table, concat, same_rows


class Stage(Protocol):
    """A causal transformation of rows.

    Attributes
    ----------
    warmup : int
        Rows before the output may be used.
    """

    warmup: int

    def fresh(self) -> Self:
        """Return the same fitted parameters with empty memory."""
        ...

    def update(self, new: Table) -> Table:
        """Return one row per new row, with the same times; remembers what later rows need."""
        ...


def transform(stage: Stage, *tables: Table) -> Table:
    """Return a stage's rows for whole tables. Batch is *defined* as one update from empty memory."""
    return stage.fresh().update(*tables)


class Chain:
    """Stages one after the other; itself a stage.

    Parameters
    ----------
    stages : sequence of Stage
        At least one; each reads the rows of the one before.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        if not stages:
            raise ValueError("a chain needs at least one stage")
        if len({id(stage) for stage in stages}) != len(stages):
            raise ValueError("a stage appears twice in the chain; give each place its own: stage.fresh()")
        self.stages = tuple(stages)
        self.warmup = sum(stage.warmup for stage in stages)

    def fresh(self) -> Self:
        """Return the chain with empty memory."""
        return type(self)([stage.fresh() for stage in self.stages])

    def update(self, new: Table) -> Table:
        """Pass rows through all stages."""
        for stage in self.stages:
            rows = stage.update(new)
            same_rows(new, rows)
            new = rows
        return new


class Windowed:
    """A stage whose row is a function of the last ``lookback`` input rows.

    It keeps the tail of rows that the next chunk needs, so that every row sees the same window however
    the input is cut.

    Parameters
    ----------
    function : callable
        ``function(values) -> (n, c)``: row t of the result may use rows ``t - lookback + 1`` to t only.
        It is called with the kept tail in front of the new rows and must not care how long that is.
    lookback : int
        Rows per window, at least 1.
    names : sequence of str
        Names of the ``c`` result columns.
    """

    def __init__(self, function, lookback: int, names: Sequence[str]) -> None:
        if lookback < 1:
            raise ValueError(f"lookback is {lookback}; it must be at least 1 row")
        self.function = function
        self.lookback = lookback
        self.names = tuple(names)
        self.warmup = lookback - 1
        self._tail: Table | None = None  # at least the last row, by which a step back in time is noticed
        self._seen = 0

    def fresh(self) -> Self:
        """Return the stage with empty memory."""
        return type(self)(self.function, self.lookback, self.names)

    def update(self, new: Table) -> Table:
        """Return the function of each new row's window; NaN while the window is not full."""
        if len(new) == 0:
            return Table(new.time, np.empty((0, len(self.names))), self.names)
        rows = new if self._tail is None else concat([self._tail, new])
        kept = len(rows) - len(new)
        values = np.array(self.function(rows.values)[kept:], dtype=np.float64)
        if values.shape != (len(new), len(self.names)):
            raise DataError(
                f"window function returned shape {values.shape}; it must return one row per row and "
                f"{len(self.names)} columns"
            )
        missing = max(0, min(len(new), self.warmup - self._seen))
        values[:missing] = np.nan
        self._seen += len(new)
        self._tail = rows[max(0, len(rows) - max(1, self.warmup)) :]
        return Table(new.time, values, self.names)
