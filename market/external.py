"""Values from outside the bars, joined when they became known: funding, rates, indices, on-chain figures.

A value has two times: when it was true (``event_time``) and when it could first be used
(``available_at``). Only the second decides what a bar may see. A day without an observation is no
observation: nulls are dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from market.bars import NS_PER_SECOND, Bars
from market.table import DataError, Table, utc

#: Ending of the name of a series that holds the times of another's events: ``vix.event``.
EVENT = ".event"


@dataclass(frozen=True, eq=False)
class ExternalSeries:
    """Observations of one quantity; a revision is a further row with the same event time.

    Parameters
    ----------
    event_time : int64 (m,)
        What the value is about, nanoseconds UTC.
    available_at : int64 (m,)
        When it could first be used, nanoseconds UTC; never before the event.
    value : float64 (m,)
        Finite or NaN; NaN rows are dropped. The name should carry the unit.
    name : str
        For example ``hashrate_ths``.

    Raises
    ------
    DataError
        If shapes differ, a value is available before its event, or two values of one event become available
        at the same moment.
    """

    event_time: np.ndarray
    available_at: np.ndarray
    value: np.ndarray
    name: str

    def __post_init__(self) -> None:
        event = np.asarray(self.event_time, np.int64)
        available = np.asarray(self.available_at, np.int64)
        value = np.asarray(self.value, np.float64)
        if not (event.ndim == 1 and event.shape == available.shape == value.shape):
            raise DataError(
                f"{self.name}: event_time has shape {event.shape}, available_at {available.shape}, value "
                f"{value.shape}; they must be equally long"
            )
        early = available < event
        if early.any():
            row = int(np.argmax(early))
            raise DataError(
                f"{self.name}: row {row} is available at {utc(available[row])}, before its event at "
                f"{utc(event[row])}; a value cannot be known before it happens"
            )
        if np.isinf(value).any():
            row = int(np.argmax(np.isinf(value)))
            raise DataError(f"{self.name}: row {row} is {value[row]}; values must be finite or missing")
        known = np.flatnonzero(~np.isnan(value))
        order = known[np.lexsort((event[known], available[known]))]
        event, available, value = event[order], available[order], value[order]
        twice = (np.diff(event) == 0) & (np.diff(available) == 0)
        if twice.any():
            row = int(np.argmax(twice))
            raise DataError(
                f"{self.name}: the event of {utc(event[row])} has two values ({value[row]:g} and "
                f"{value[row + 1]:g}) available at the same moment; a revision must come later"
            )
        for name, array in (("event_time", event), ("available_at", available), ("value", value)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return self.value.size

    @classmethod
    def delayed(cls, event_time: np.ndarray, value: np.ndarray, name: str, delay_ns: int) -> Self:
        """Return a series whose values become available a fixed time after their event."""
        event_time = np.asarray(event_time, np.int64)
        return cls(event_time, event_time + delay_ns, value, name)

    @classmethod
    def of_bars(cls, bars: Bars, column: str, name: str) -> Self:
        """Return a column of completed (coarser) bars: each value is about its bar, known at its close."""
        return cls(bars.time - bars.interval_ns, bars.time, bars.column(column), name)

    def events(self) -> Self:
        """Return the time of each value's event, seconds since 1970 UTC, as a series ``<name>.event``."""
        seconds = self.event_time / NS_PER_SECOND
        return type(self)(self.event_time, self.available_at, seconds, f"{self.name}{EVENT}")

    def rounded(self, grid_ns: int) -> Self:
        """Return the series with event times on a grid: settlements come stamped 00:00:00.006.

        Raises
        ------
        DataError
            If an event lies more than 5 % of the grid away from it.
        """
        off = (self.event_time + grid_ns // 2) % grid_ns - grid_ns // 2
        far = np.abs(off) > grid_ns // 20
        if far.any():
            row = int(np.argmax(far))
            raise DataError(
                f"{self.name}: the event at {utc(self.event_time[row])} is {off[row] / 1e9:g} s off the grid "
                f"of {grid_ns / 1e9:g} s; only stamps within 5 % of it are rounded"
            )
        event_time = self.event_time - off
        return type(self)(event_time, np.maximum(self.available_at, event_time), self.value, self.name)

    def oddities(self) -> tuple[str, ...]:
        """Return what a user should look at: exact zeros, one value too often, uneven steps."""
        found = []
        if len(self) < 3:
            return ()
        zeros = int(np.count_nonzero(self.value == 0))
        if 0 < zeros < len(self):
            found.append(f"{self.name}: {zeros} of {len(self)} values are exactly 0; are they observations?")
        values, counts = np.unique(self.value, return_counts=True)
        most = int(np.argmax(counts))
        if counts[most] > 0.2 * len(self):
            share = counts[most] / len(self)
            found.append(f"{self.name}: {share:.0%} of the values are {values[most]:g}, perhaps a default")
        steps, counts = np.unique(np.diff(np.unique(self.event_time)), return_counts=True)
        if steps.size > 1:
            usual = steps[np.argmax(counts)]
            other = int(counts.sum() - counts.max())
            found.append(f"{self.name}: {other} steps differ from the usual {usual / 1e9:g} s")
        return tuple(found)


def unit_factor(first: ExternalSeries, second: ExternalSeries) -> float:
    """Return by how much two copies of one quantity differ: the median ratio on common events.

    A power of 1000 means different units (TH/s and GH/s), anything else a different definition.

    Raises
    ------
    DataError
        If they share no event with values other than zero.
    """
    _, a, b = np.intersect1d(first.event_time, second.event_time, return_indices=True)
    usable = (first.value[a] != 0) & (second.value[b] != 0)
    if not usable.any():
        raise DataError(f"{first.name} and {second.name} share no event; their units cannot be compared")
    return float(np.median(second.value[b][usable] / first.value[a][usable]))


class AsOfJoin:
    """A stage: the newest event of each series that is known at each row.

    A late report about an old event never displaces a newer event, and a revision counts from the moment it
    is available. Row t uses values with ``available_at <= time[t]`` alone. The stage keeps no memory, so the
    chunk law holds as it stands.

    Parameters
    ----------
    series : sequence of ExternalSeries
        At least one; names must differ.
    max_age_ns : int, optional
        A value whose event is older than this is NaN; None keeps it for ever.
    """

    warmup = 0

    def __init__(self, series: Sequence[ExternalSeries], max_age_ns: int | None = None) -> None:
        if not series:
            raise ValueError("AsOfJoin needs at least one series")
        self.series = tuple(series)
        self.max_age_ns = max_age_ns
        self.names = tuple(one.name for one in self.series)
        if len(set(self.names)) != len(self.names):
            raise DataError(f"AsOfJoin: series {', '.join(self.names)} repeat a name; names must differ")
        self._newest = tuple(_newest(one) for one in self.series)

    def fresh(self) -> Self:
        """Return the stage itself; there is no memory to empty."""
        return type(self)(self.series, self.max_age_ns)

    def update(self, new: Table) -> Table:
        """Return the value of each series known at each row; NaN before the first."""
        values = np.full((len(new), len(self.series)), np.nan)
        for column, (one, rows) in enumerate(zip(self.series, self._newest, strict=True)):
            at = np.searchsorted(one.available_at[rows], new.time, side="right") - 1
            known = at >= 0
            chosen = rows[at[known]]
            values[known, column] = one.value[chosen]
            if self.max_age_ns is not None:
                old = new.time[known] - one.event_time[chosen] > self.max_age_ns
                values[np.flatnonzero(known)[old], column] = np.nan
        return Table(new.time, values, self.names)


def _newest(series: ExternalSeries) -> np.ndarray:
    # Rows come in order of availability; one that is older than the newest event so far is never current.
    newest = np.maximum.accumulate(series.event_time) if len(series) else series.event_time
    return np.flatnonzero(series.event_time == newest)
