"""Other futures: what was known at a moment, and the same past with something else after it.

An input is cut where it became known: a table by the time of its rows, an external series by
``available_at``. Every input of a stage is cut at the same moment, so that a row of daily bars, or a funding
rate, cannot bring in what the hourly bars of that moment could not know.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from compute.seeds import stream
from market.bars import OHLCV, Bars
from market.external import ExternalSeries
from market.table import DataError, Table

#: What may come after a moment instead of what did (guarantees, L2).
POISONS = {
    "nan": "unknown",
    "times 1000": "1000 times as large",
    "reversed": "in reverse order",
    "other coin": "those of another market",
}
Given = Table | ExternalSeries


class Futures:
    """The inputs of a stage, cut off at a row of the clock or going on in another way.

    Parameters
    ----------
    inputs : sequence of Table or ExternalSeries
        The first one is a table: the clock.
    other : mapping of int to Table, optional
        By position of an input: what ``other coin`` goes on with, as long as the input at least. By default
        bars go on as a synthetic market, and anything else with its own values, shuffled and mirrored at
        their median.
    seed : int
        Of the defaults.

    Raises
    ------
    DataError
        If an input is neither, or another market has too few rows or other columns.
    """

    def __init__(
        self, inputs: Sequence[Given], other: Mapping[int, Table] | None = None, seed: int = 0
    ) -> None:
        self.inputs = tuple(inputs)
        if not self.inputs or not isinstance(self.inputs[0], Table):
            raise DataError(
                "leaks: the first input must be a table of rows, for example bars; it is the clock"
            )
        for place, given in enumerate(self.inputs):
            if not isinstance(given, Given):
                raise DataError(
                    f"leaks: input {place} is a {type(given).__name__}; it must be a Table or an "
                    f"ExternalSeries, for these say when their values became known"
                )
        self.clock = self.inputs[0].time
        self._other = tuple(
            _checked(other[place], given, place) if other and place in other else _other(given, seed, place)
            for place, given in enumerate(self.inputs)
        )

    def past(self, row: int) -> tuple[Given, ...]:
        """Return what was known at the close of a row of the clock."""
        moment = int(self.clock[row])
        return tuple(
            given[: given.row_at(moment)] if isinstance(given, Table) else _known(given, moment)
            for given in self.inputs
        )

    def altered(self, row: int, poison: str) -> tuple[Given, ...] | None:
        """Return the inputs with another future after a row, or None where that is the same future."""
        moment = int(self.clock[row])
        found = [
            _altered(given, moment, poison, other)
            for given, other in zip(self.inputs, self._other, strict=True)
        ]
        if not any(changed for _, changed in found):
            return None
        return tuple(given for given, _ in found)

    def begun_at(self, row: int) -> tuple[Given, ...]:
        """Return the inputs without the rows before one: tables begin later, series stay."""
        moment = int(self.clock[row]) - 1
        return tuple(
            given[given.row_at(moment) :] if isinstance(given, Table) else given for given in self.inputs
        )


def _altered(given: Given, moment: int, poison: str, other: np.ndarray) -> tuple[Given, bool]:
    if isinstance(given, Table):
        values = given.values.copy()
        first = given.row_at(moment)
    else:
        values = given.value.copy()
        first = int(np.searchsorted(given.available_at, moment, side="right"))
    later = values[first:].copy()
    if poison == "nan":
        values[first:] = np.nan
    elif poison == "times 1000":
        values[first:] *= 1000.0
    elif poison == "reversed":
        values[first:] = later[::-1]
    elif poison == "other coin":
        values[first:] = other[first:]
    else:
        raise ValueError(f"no poison named {poison!r}; there are {', '.join(POISONS)}")
    changed = not np.array_equal(later, values[first:], equal_nan=True)
    if isinstance(given, Table):
        return _unchecked(given, values), changed
    return ExternalSeries(given.event_time, given.available_at, values, given.name), changed


def _unchecked(table: Table, values: np.ndarray) -> Table:
    # Bars that are NaN are refused at every door of the house, so no check may see these: they stand for a
    # future that a sound stage never reads. Their slices are as unchecked as they are.
    made = copy.copy(table)
    values.flags.writeable = False
    object.__setattr__(made, "values", values)
    object.__setattr__(made, "__class__", _believing(type(table)))
    return made


@cache
def _believing(kind: type[Table]) -> type[Table]:
    return type(kind.__name__, (kind,), {"__post_init__": lambda self: None, "__doc__": kind.__doc__})


def _known(series: ExternalSeries, moment: int) -> ExternalSeries:
    known = slice(0, int(np.searchsorted(series.available_at, moment, side="right")))
    return ExternalSeries(
        series.event_time[known], series.available_at[known], series.value[known], series.name
    )


def _other(given: Given, seed: int, place: int) -> np.ndarray:
    values = given.values if isinstance(given, Table) else given.value
    if isinstance(given, Bars) and len(given):
        from market.sources.synthetic import SyntheticConfig, synthetic_market

        made = synthetic_market(SyntheticConfig(n_bars=len(given), seed=seed + place + 1, price=37.0))
        extra = _mirrored(values[:, len(OHLCV) :], seed, place)
        return np.hstack([made.bars.values, extra])
    return _mirrored(values, seed, place)


def _mirrored(values: np.ndarray, seed: int, place: int) -> np.ndarray:
    if not values.size:
        return values
    order = stream(seed, "other future", place).permutation(len(values))
    known = np.where(np.isnan(values).all(axis=0), 0.0, values)  # a median of nothing would warn
    return 2.0 * np.nanmedian(known, axis=0) - values[order]


def _checked(other: Table, given: Given, place: int) -> np.ndarray:
    if not isinstance(given, Table):
        raise DataError(f"leaks: input {place} is a series; only a table can go on as another market")
    if other.names != given.names or len(other) < len(given):
        raise DataError(
            f"leaks: the other market for input {place} has {len(other)} rows of {', '.join(other.names)}; "
            f"it must have the columns of that input, and its {len(given)} rows at least"
        )
    return other.values[: len(given)]
