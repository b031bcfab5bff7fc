"""``Examples``: what a forecaster learns from or answers for, and the windows of rows it may look at.

A window ends at its row. It may reach back before the first row of its span, for the past of a test row is
known, and never forward; it never crosses missing bars, nor a row in which something is not known. Rows
without such a window are left out and counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import numpy as np

from market.scaling import Scaler
from market.table import DataError, Table

#: Classes in the order of their probabilities; the class of a label is its value plus 1.
CLASSES = ("down", "none", "up")
#: What stands beside the rows of examples, one value each.
_ANSWERS = ("target", "weight", "ret", "ret_weight")


class Answers(Protocol):
    """What is read of :class:`market.labels.Labels`, which who decides must not import."""

    time: np.ndarray
    value: np.ndarray
    known: np.ndarray
    ret: np.ndarray
    name: str


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows to learn from or to answer for, with the scaled features behind them.

    Parameters
    ----------
    features : float32 (n, k)
        Scaled rows of one symbol, read-only; row t holds what was known at ``time[t]``.
    rows : int64 (m,)
        The rows that are examples, increasing; each has ``lookback`` rows up to itself.
    lookback : int
        Rows a window holds, the newest included; 1 for tabular models.
    target : int8 (m,) or None
        Class: 0 down, 1 none, 2 up. None where only answers are wanted.
    weight : float64 (m,) or None
        0 or more, with mean 1: what each example counts. Class weights are multiplied in already.
    names : tuple of str
        Of the k columns.
    left_out : mapping of str to int
        Rows that were asked for and are no examples, by the reason.
    ret : float64 (m,) or None
        What the label earned, a fraction before costs: what a model of the return learns from.
    ret_weight : float64 (m,) or None
        As ``weight``, without class weights: those would move the quantiles of the return.

    Raises
    ------
    ValueError
        If shapes or types disagree, or a window would begin before the first row.
    """

    features: np.ndarray
    rows: np.ndarray
    lookback: int
    target: np.ndarray | None
    weight: np.ndarray | None
    names: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    ret: np.ndarray | None = None
    ret_weight: np.ndarray | None = None

    def __post_init__(self) -> None:
        n, k = self.features.shape
        if self.features.dtype != np.float32 or k != len(self.names):
            raise ValueError(
                f"features are {self.features.dtype} with {k} columns; they must be float32 with "
                f"{len(self.names)}"
            )
        if self.rows.dtype != np.int64 or self.rows.ndim != 1 or self.lookback < 1:
            raise ValueError("rows must be int64 (m,), and the lookback at least 1")
        if self.rows.size:
            increasing = (np.diff(self.rows) > 0).all()
            if self.rows[0] < self.lookback - 1 or self.rows[-1] >= n or not increasing:
                raise ValueError(
                    f"rows run from {self.rows[0]} to {self.rows[-1]}; they must increase from "
                    f"{self.lookback - 1} (a full window) to at most {n - 1}"
                )
        for name in _ANSWERS:
            column, dtype = getattr(self, name), np.int8 if name == "target" else np.float64
            if column is not None and (column.shape != self.rows.shape or column.dtype != dtype):
                raise ValueError(f"{name} is {column.dtype} {column.shape}; it must fit the rows")
        self.features.flags.writeable = False

    def __len__(self) -> int:
        return self.rows.size

    def windows(self, some: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return windows as float32 (len, lookback, k), the newest row last.

        Parameters
        ----------
        some : slice, bool (m,) or int (j,)
            Which examples; gathered on demand. All of them at once take ``lookback`` times the memory.
        """
        return self.features[self.rows[some][:, None] + np.arange(1 - self.lookback, 1)]

    def tabular(self) -> np.ndarray:
        """Return the newest row of each window: float32 (m, k)."""
        return self.features[self.rows]

    def take(self, some: slice | np.ndarray) -> Self:
        """Return some of the examples, increasing; what they count keeps its size."""
        answers = {name: getattr(self, name) for name in _ANSWERS}
        taken = {name: None if column is None else column[some] for name, column in answers.items()}
        return replace(self, rows=self.rows[some], left_out={}, **taken)


def examples_of(
    table: Table,
    labels: Answers | None,
    rows: slice | np.ndarray,
    lookback: int,
    scaler: Scaler,
    weights: np.ndarray | None = None,
    *,
    interval_ns: int | None = None,
    ret_weights: np.ndarray | None = None,
) -> Examples:
    """Return the examples among some rows.

    Parameters
    ----------
    table : Table (n, c)
        Features of one symbol, unscaled, up to the last row that may be looked at: for training, end it with
        the training rows, and nothing later can be seen.
    labels : market.labels.Labels or None
        On the same clock, possibly longer; None where only answers are wanted.
    rows : slice, or int (j,)
        Rows of the span, increasing.
    lookback : int
        Rows of a window.
    scaler : Scaler
        Fitted on training rows; the columns are those it was fitted on.
    weights : float64 (n or more,), optional
        What each row counts, 0 or more; divided by their mean. A row that counts 0 is left out.
    interval_ns : int, optional
        Length of a bar, nanoseconds. By default the shortest distance between two rows.
    ret_weights : float64 (n or more,), optional
        What the return of each row counts; divided by their mean.

    Raises
    ------
    DataError
        If the labels stand on another clock.
    """
    asked = np.arange(len(table))[rows] if isinstance(rows, slice) else np.asarray(rows, np.int64)
    scaled = scaler.update(table.select(scaler.names))
    reach, gapped = _reach(scaled, interval_ns)
    known = reach[asked] > 0
    full = reach[asked] >= lookback
    left_out = {
        "not known": int((~known).sum()),
        "window not full": int((known & ~full & (gapped[asked] >= lookback)).sum()),
        "missing bars": int((known & ~full & (gapped[asked] < lookback)).sum()),
    }
    kept = full
    if labels is not None:
        if not np.array_equal(labels.time[: len(table)], table.time):
            raise DataError(f"{labels.name}: the labels stand on another clock than the features")
        labelled = labels.known[asked]
        left_out["without a label"] = int((full & ~labelled).sum())
        kept = kept & labelled
    if weights is not None:
        counted = weights[asked] > 0.0
        left_out["without weight"] = int((kept & ~counted).sum())
        kept = kept & counted
    chosen = asked[kept]
    return Examples(
        # What is not known is in no window; a NaN must not wander into a matrix all the same.
        np.nan_to_num(scaled.values, nan=0.0).astype(np.float32),
        chosen,
        lookback,
        None if labels is None else (labels.value[chosen] + 1).astype(np.int8),
        _of_mean_one(weights, chosen),
        scaler.names,
        {reason: count for reason, count in left_out.items() if count},
        None if labels is None else labels.ret[chosen].astype(np.float64),
        None if labels is None else _of_mean_one(ret_weights, chosen),
    )


def _of_mean_one(weights: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    if weights is None:
        return None
    weight = weights[rows].astype(np.float64)
    return weight / weight.mean() if weight.size else weight


def _reach(table: Table, interval_ns: int | None) -> tuple[np.ndarray, np.ndarray]:
    # Known rows without a gap that end at each row; and rows since the last gap alone, for the reason.
    n = len(table)
    step = np.diff(table.time)
    interval = interval_ns if interval_ns is not None else int(step.min()) if step.size else 1
    after_gap = np.zeros(n, np.bool_)
    after_gap[1:] = step > interval
    unknown = np.isnan(table.values).any(axis=1)
    rows = np.arange(n)
    gap = np.maximum.accumulate(np.where(after_gap, rows, -1))  # the first row after the last gap
    hole = np.maximum.accumulate(np.where(unknown, rows, -1))
    # Before any gap there is no outage to blame.
    since_gap = np.where(gap >= 0, rows - gap + 1, n + 1)
    first = np.maximum(np.maximum(gap, hole + 1), 0)
    return rows - first + 1, since_gap
