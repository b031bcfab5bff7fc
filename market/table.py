"""``Table``: the one thing that flows. Row t holds what was known at ``time[t]``, the close of bar t."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Self

import numpy as np

from configs.load import InputError

# Fields that joining tables changes; all others must agree. The warm-up is that of the first table.
_JOINED = ("time", "values", "names", "warmup")


class DataError(InputError):
    """The data given are wrong; the message names place, value and rule."""


def utc(time: int) -> str:
    """Return nanoseconds since 1970 as ISO text in UTC, for messages (whole seconds are enough there)."""
    text = datetime.fromtimestamp(int(time) // 1_000_000_000, UTC).isoformat(timespec="seconds")
    return text.replace("+00:00", "Z")


@dataclass(frozen=True, eq=False)
class Table:
    """Named float columns on one clock.

    Parameters
    ----------
    time : int64 (n,)
        Nanoseconds UTC, strictly increasing; when the row became known.
    values : float64 (n, c)
        C-ordered; NaN means "not known".
    names : tuple of str
        ``c`` different column names.

    Raises
    ------
    DataError
        If shapes disagree, names repeat, or time does not increase.
    """

    time: np.ndarray
    values: np.ndarray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        time = _readonly(self.time, np.int64, f"{type(self).__name__}: time")
        values = _readonly(self.values, np.float64, f"{type(self).__name__}: values")
        names = tuple(self.names)
        object.__setattr__(self, "time", time)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "names", names)
        kind = type(self).__name__
        if time.ndim != 1 or values.ndim != 2 or values.shape != (time.size, len(names)):
            raise DataError(
                f"{kind}: time has shape {time.shape}, values {values.shape}, and there are {len(names)} "
                f"names; values must have one row per time and one column per name"
            )
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{kind}: column {twice} is named twice; names must differ")
        if time.size > 1:
            late = time[1:] <= time[:-1]
            if late.any():
                row = int(np.argmax(late)) + 1
                raise DataError(
                    f"{kind}: row {row} is at {utc(time[row])}, not after row {row - 1} at "
                    f"{utc(time[row - 1])}; times must strictly increase"
                )

    def __len__(self) -> int:
        return self.time.size

    def __getitem__(self, rows: slice) -> Self:
        """Return the rows of a slice with step 1 as a table of the same kind (a view, nothing is copied)."""
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise TypeError(f"rows are taken by slices with step 1, not by {rows!r}")
        return replace(self, time=self.time[rows], values=self.values[rows])

    def column(self, name: str) -> np.ndarray:
        """Return one column as read-only float64 (n,), contiguous.

        Raises
        ------
        LookupError
            If there is no such column; the message lists the columns.
        """
        column = np.ascontiguousarray(self.values[:, self.index(name)])
        column.flags.writeable = False
        return column

    def index(self, name: str) -> int:
        """Return the position of a column."""
        try:
            return self.names.index(name)
        except ValueError:
            raise LookupError(f"no column {name!r}; columns are {', '.join(self.names)}") from None

    def select(self, names: Sequence[str]) -> "Table":
        """Return a plain table of some columns, in the order asked for."""
        positions = [self.index(name) for name in names]
        return Table(self.time, self.values[:, positions], tuple(names))

    def row_at(self, time: int) -> int:
        """Return the number of rows known at a time: ``table[:table.row_at(t)]`` is the past as of ``t``."""
        return int(np.searchsorted(self.time, time, side="right"))


def concat(tables: Sequence[Table]) -> Table:
    """Return tables of one kind joined end to end.

    Raises
    ------
    DataError
        If there are none, columns differ, or the times overlap.
    """
    if not tables:
        raise DataError("concat needs at least one table")
    first = tables[0]
    for table in tables[1:]:
        if table.names != first.names:
            raise DataError(f"concat: columns {table.names} do not match {first.names}")
        for field in fields(first):
            one, other = getattr(first, field.name), getattr(table, field.name, None)
            if field.name not in _JOINED and one != other:
                raise DataError(f"concat: {field.name} is {one} in one table and {other} in another")
    return replace(
        first,
        time=np.concatenate([table.time for table in tables]),
        values=np.concatenate([table.values for table in tables]),
    )


def same_rows(*tables: Table) -> None:
    """Check that tables stand on the same clock, row by row.

    Raises
    ------
    DataError
        With the first row that differs.
    """
    first = tables[0]
    for table in tables[1:]:
        if len(table) != len(first):
            raise DataError(
                f"tables have {len(first)} and {len(table)} rows; inputs of one stage share one clock"
            )
        if table.time is not first.time and not np.array_equal(table.time, first.time):
            row = int(np.argmax(table.time != first.time))
            raise DataError(
                f"row {row} is {utc(first.time[row])} in one table and {utc(table.time[row])} in another; "
                f"inputs of one stage share one clock"
            )


def _readonly(array: object, dtype: type, what: str) -> np.ndarray:
    # A writable array, or a view of one, belongs to its caller and is copied, so that nobody can change a
    # table afterwards.
    given = array
    try:
        array = np.asarray(given, order="C")
        exact = np.asarray(array, dtype=dtype, order="C")
        if dtype is np.int64 and array.dtype.kind == "f" and not np.array_equal(exact, array):
            raise ValueError("times must be whole nanoseconds")
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} cannot be read as numbers: {error}") from error
    if exact.flags.writeable or _is_view_of_writable(exact):
        exact = exact.copy()
        exact.flags.writeable = False
    return exact


def _is_view_of_writable(array: np.ndarray) -> bool:
    base = array.base
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return True
        base = base.base
    return False
