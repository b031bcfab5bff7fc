"""``Scaler``: columns of any size become columns of comparable size, by training rows alone."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from market.saved import read_saved, write_saved
from market.table import DataError, Table

FORMAT = 1
#: Interquartile range of a normal distribution in standard deviations.
NORMAL_IQR = 1.349
#: A column whose values differ by less than this share of their size does not vary; that is rounding.
CONSTANT = 1e-12


@dataclass(frozen=True)
class Scaler:
    """Centres each column on its median, divides by its robust scale, and clips; a stage without memory.

    Only :meth:`fit` learns, and it sees the rows it is given and no others.

    Parameters
    ----------
    names : tuple of str
        Columns, in order; ``update`` accepts these and no others.
    center : tuple of float
        Median of each column.
    scale : tuple of float
        Interquartile range over 1.349, so that a normal column gets its standard deviation. Where half of
        the rows or more share one value (a candle pattern) there is no such range, and the
        standard deviation stands in. 0 for a constant column.
    fitted_until : int
        Time of the last training row, nanoseconds UTC.
    limit : float
        Results are clipped to ``-limit..limit``, so that one wild bar weighs no more than a rare one.
    """

    names: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    fitted_until: int
    limit: float = 4.0

    warmup = 0

    @classmethod
    def fit(cls, table: Table, limit: float = 4.0) -> Self:
        """Return the scaler of training rows.

        Parameters
        ----------
        table : Table
            The training rows; NaN (a warm-up) is left out, column by column.
        limit : float
            See the class.

        Raises
        ------
        DataError
            If there is no row, a column has no known value, or a value is infinite.
        """
        if len(table) == 0:
            raise DataError("scaler: there are no training rows; fitting needs at least one")
        center, scale = [], []
        for name in table.names:
            column = table.column(name)
            known = column[~np.isnan(column)]
            if known.size == 0:
                raise DataError(
                    f"scaler: column {name} is not known in any of {len(table)} training rows; "
                    f"give more rows than its warm-up"
                )
            if np.isinf(known).any():
                row = int(np.argmax(np.isinf(column)))
                raise DataError(f"scaler: column {name} is infinite in row {row}; values must be finite")
            center.append(float(np.median(known)))
            scale.append(_spread(known))
        return cls(table.names, tuple(center), tuple(scale), int(table.time[-1]), limit)

    @property
    def constant(self) -> tuple[str, ...]:
        """Columns that did not vary over the training rows; they become 0 throughout."""
        return tuple(name for name, scale in zip(self.names, self.scale, strict=True) if scale == 0.0)

    def fresh(self) -> Self:
        """Return the scaler; it has no memory."""
        return self

    def update(self, new: Table) -> Table:
        """Return the rows scaled, within ``±limit``; what is not known stays NaN.

        Raises
        ------
        DataError
            If the columns are not those it was fitted on, in their order.
        """
        if new.names != self.names:
            raise DataError(_difference(self.names, new.names))
        center, scale = np.array(self.center), np.array(self.scale)
        varies = scale > 0.0
        # Constant columns are divided by infinity: 0, and a NaN remains one.
        values = (new.values - center) / np.where(varies, scale, np.inf)
        values = np.clip(values, -self.limit, self.limit)
        values.flags.writeable = False
        return Table(new.time, values, self.names)

    def save(self, path: Path) -> None:
        """Write the scaler as JSON; floats are written so that they read back to the same bits."""
        document = {
            "format": FORMAT,
            "kind": "scaler",
            "fitted_until": self.fitted_until,
            "limit": self.limit,
            "columns": {
                name: {"center": center, "scale": scale}
                for name, center, scale in zip(self.names, self.center, self.scale, strict=True)
            },
        }
        write_saved(path, document)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return a saved scaler.

        Raises
        ------
        DataError
            If the file is missing, cannot be read, or holds anything else.
        """
        document = _read(Path(path))
        columns = document["columns"]
        center = tuple(_number(path, name, "center", part) for name, part in columns.items())
        scale = tuple(_number(path, name, "scale", part) for name, part in columns.items())
        return cls(tuple(columns), center, scale, document["fitted_until"], float(document["limit"]))


def _spread(known: np.ndarray) -> float:
    low, quarter, three_quarters, high = (float(q) for q in np.quantile(known, (0.0, 0.25, 0.75, 1.0)))
    size = max(abs(low), abs(high))
    if high - low <= CONSTANT * size:
        return 0.0
    # Measured at the quartiles, not at the extremes: one wild row must not hide an honest spread.
    if three_quarters - quarter > CONSTANT * max(abs(quarter), abs(three_quarters)):
        return (three_quarters - quarter) / NORMAL_IQR
    return size * float((known / size).std())  # of shares, because squares of large values overflow


def _difference(fitted: tuple[str, ...], given: tuple[str, ...]) -> str:
    missing = [name for name in fitted if name not in given]
    extra = [name for name in given if name not in fitted]
    if missing:
        problem = f"column {missing[0]} is missing"
    elif extra:
        problem = f"column {extra[0]} was not there when it was fitted"
    else:
        place = next(i for i, (a, b) in enumerate(zip(fitted, given, strict=True)) if a != b)
        problem = f"column {place} is {given[place]} where it was {fitted[place]}"
    return f"scaler: {problem}; it takes exactly the {len(fitted)} columns it was fitted on, in their order"


def _read(path: Path) -> dict:
    types = {"format": int, "kind": str, "fitted_until": int, "limit": (int, float), "columns": dict}
    document = read_saved(path, "scaler", types)
    if document["kind"] != "scaler" or document["format"] != FORMAT:
        raise DataError(
            f"{path}: holds {document['kind']} format {document['format']}; it must be scaler format {FORMAT}"
        )
    if not (math.isfinite(document["limit"]) and document["limit"] > 0):
        raise DataError(f"{path}: limit is {document['limit']}; it must be positive")
    return document


def _number(path: Path, name: str, key: str, part: object) -> float:
    value = part.get(key) if isinstance(part, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{path}: {key} of column {name} is {value!r}; it must be a finite number")
    if key == "scale" and value < 0:
        raise DataError(f"{path}: scale of column {name} is {value}; it must be 0 or more")
    return float(value)
