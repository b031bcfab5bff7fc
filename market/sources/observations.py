"""Rows of an external source become a series: strictly, by named rules that count what they touch."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from configs.load import ConfigError, did_you_mean
from configs.registry import Registry
from market.bars import NS_PER_SECOND
from market.external import ExternalSeries
from market.sources.availability import Availability
from market.table import DataError, utc

RULES = {
    "drop-nulls": "a row without a value (a holiday, a Sunday, a sparse column) is no observation",
    "drop-zeros": "a value of exactly zero is a missing one",
    "drop-beyond-range": "a value outside the high and low of its own row is a typing error",
    "drop-implausible": "a value outside the bounds of the series is an error of the source",
    "drop-frozen": "a value repeated more than frozen_after times in a row is a source that stands still",
    "round-times": "a stamp within 5 % of the grid belongs on it (settlements stamped 00:00:00.006)",
    "drop-duplicates": "a row that repeats another exactly counts once",
    "keep-first-conflict": "of different values of one event, known at one time, the first counts",
    "keep-last-conflict": "of different values of one event, known at one time, the last counts",
    "day-first": "31-12-2020 is the last day of the year",
    "month-first": "12-31-2020 is the last day of the year",
    "unadjusted-prices": "prices of a fund that pays distributions are used as they are; each one is a fall",
}


@dataclass(frozen=True, eq=False)
class Observations:
    """Rows as a source gave them, in numbers but not yet believed.

    Parameters
    ----------
    place : str
        File or address, for messages.
    event_time : int64 (m,)
        What each value is about, nanoseconds UTC.
    value : float64 (m,)
        NaN where the source has none.
    published : int64 (m,), optional
        When each row was published, where the source says.
    low, high : float64 (m,), optional
        Range of each row, where the source has one.
    number : int64 (m,), optional
        Row or line of each row as the user sees it; by default counted from 1.
    counted : str
        What ``number`` counts.
    notes : tuple of str
        How the rows were read.
    touched : dict of str to int
        Rows that rules of reading touched already.
    unadjusted : tuple of int and str, optional
        How many values are prices that may fall with a distribution, and of what.
    """

    place: str
    event_time: np.ndarray
    value: np.ndarray
    published: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    number: np.ndarray | None = None
    counted: str = "row"
    notes: tuple[str, ...] = ()
    touched: dict[str, int] = field(default_factory=dict)
    unadjusted: tuple[int, str] | None = None

    def __post_init__(self) -> None:
        if self.number is None:
            object.__setattr__(self, "number", np.arange(1, self.value.size + 1))

    def __len__(self) -> int:
        return self.value.size

    def take(self, chosen: np.ndarray) -> "Observations":
        """Return the rows of a mask or an index."""
        names = ("event_time", "value", "published", "low", "high", "number")
        arrays = {name: getattr(self, name) for name in names}
        return replace(
            self, **{name: None if array is None else array[chosen] for name, array in arrays.items()}
        )


class SeriesSource(Protocol):
    """One place that values of one quantity come from.

    A plugin has a ``Config`` class and takes one in its constructor.
    """

    def observations(self, web: object, asset: str, start_ns: int, end_ns: int) -> Observations:
        """Return the rows whose events lie in ``[start_ns, end_ns)``.

        Parameters
        ----------
        web : market.sources.web.Web
            The way out; a source opens no connection of its own.
        asset : str
            For ``{asset}`` in settings, for example ``BTC``.
        start_ns, end_ns : int
            Nanoseconds UTC.
        """
        ...


SERIES_SOURCES: Registry[SeriesSource] = Registry(
    "series source", "market.sources", modules=("derivatives", "macro", "onchain", "sentiment")
)


@dataclass(frozen=True)
class SeriesReport:
    """What was read for one series, and what was done to it.

    Parameters
    ----------
    name, origin, available : str
        The series, where it is from, and the rule of its availability.
    rows, used : int
        Rows of the source and values of the series.
    rules : dict of str to int
        Rows that each named rule touched.
    notes : tuple of str
        What a user should look at.
    """

    name: str
    origin: str
    available: str
    rows: int
    used: int
    rules: dict[str, int]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the report as lines of text."""
        touched = ", ".join(f"{name} {count:,}" for name, count in self.rules.items()) or "no rules"
        lines = [
            f"{self.name}: {self.used:,} values of {self.rows:,} rows of {self.origin}; {touched}; "
            f"available {self.available}"
        ]
        return "\n".join(lines + [f"  ! {note}" for note in self.notes])


@dataclass(frozen=True)
class Treatment:
    """How the rows of one series are judged.

    Parameters
    ----------
    available : str
        Name of the rule of availability, for the report.
    when : Availability
        The rule: applied to the publication where the rows tell it, else to the event.
    rules : tuple of str
        Names of ``RULES``; what is wrong and has no rule here is refused.
    least, most : float, optional
        Plausible values, both included.
    frozen_after : int, optional
        So often a value may repeat itself in a row; for ``drop-frozen``.
    grid_ns : int, optional
        Distance of events; for ``round-times``.
    delay_ns : int
        Added to the time of availability.

    Raises
    ------
    ConfigError
        If a rule has no such name, or lacks its setting.
    """

    available: str
    when: Availability
    rules: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    frozen_after: int | None = None
    grid_ns: int | None = None
    delay_ns: int = 0

    def __post_init__(self) -> None:
        for name in self.rules:
            if name not in RULES:
                raise ConfigError(f"rule {name}: no such rule{did_you_mean(name, sorted(RULES))}")
        for rule, setting, given in (
            ("drop-frozen", "frozen_after", self.frozen_after),
            ("round-times", "grid", self.grid_ns),
        ):
            if rule in self.rules and given is None:
                raise ConfigError(f"rule {rule} needs the setting {setting}")


def series_of(name: str, rows: Observations, treatment: Treatment) -> tuple[ExternalSeries, SeriesReport]:
    """Return the series of some rows, and what was done to them.

    Every rule looks at its own row and at earlier ones only.

    Raises
    ------
    DataError
        If a row is wrong and no rule for it was named, or nothing is left.
    """
    given = rows
    counts = dict.fromkeys(treatment.rules, 0) | rows.touched
    if rows.unadjusted is not None:
        values, what = rows.unadjusted
        if "unadjusted-prices" not in counts:
            raise DataError(
                f"{rows.place}: {what}; an ex-dividend day would be a false fall; go on with the rule "
                f"unadjusted-prices"
            )
        counts["unadjusted-prices"] += values
    rows = _in_order_of_knowledge(rows)
    _refuse(name, rows, np.isinf(rows.value), "it must be finite", None)
    rows = _dropped(name, rows, counts, "drop-nulls", np.isnan(rows.value), "a row must have a value")
    if rows.low is not None and rows.high is not None:
        wrong = (rows.value < rows.low) | (rows.value > rows.high)
        rule = "it must lie between the low and the high of its row"
        rows = _dropped(name, rows, counts, "drop-beyond-range", wrong, rule)
    if "drop-zeros" in counts:
        rows = _dropped(name, rows, counts, "drop-zeros", rows.value == 0, "")
    least, most = treatment.least, treatment.most
    wrong = np.zeros(len(rows), bool)
    wrong |= False if least is None else rows.value < least
    wrong |= False if most is None else rows.value > most
    low, high = ("..." if bound is None else f"{bound:g}" for bound in (least, most))
    rule = f"it must lie in {low} to {high}"
    way = "drop-zeros" if wrong.any() and (rows.value[wrong] == 0).all() else "drop-implausible"
    rows = _dropped(name, rows, counts, "drop-implausible", wrong, rule, way)
    if "drop-frozen" in counts:
        frozen = _run_length(rows.value) > treatment.frozen_after
        rows = _dropped(name, rows, counts, "drop-frozen", frozen, "")
    if not len(rows):
        raise DataError(f"{given.place}: holds no value of {name}; at least one row must have one")
    if treatment.when.of_publication and rows.published is None:
        raise ConfigError(
            f"series {name}: available {treatment.available} needs the publication of each row, and "
            f"{given.place} does not tell it; choose another rule or name the column published"
        )
    event_time, told = rows.event_time, rows.published
    if "round-times" in counts:
        event_time = _on_grid(name, rows, treatment.grid_ns)
        counts["round-times"] = int(np.count_nonzero(event_time != rows.event_time))
    if told is None:
        # A stamp some milliseconds late is the noise of a clock; a later one may be the truth, and is kept.
        late = rows.event_time - event_time
        told = np.where(
            (late > 0) & (late < NS_PER_SECOND), event_time, np.maximum(rows.event_time, event_time)
        )
    known_at = np.maximum(treatment.when.at(told), event_time) + treatment.delay_ns
    kept = _once(name, rows, event_time, known_at, counts)
    series = ExternalSeries(event_time[kept], known_at[kept], rows.value[kept], name)
    report = SeriesReport(
        name,
        given.place,
        treatment.available,
        len(given),
        len(series),
        counts,
        given.notes + series.oddities(),
    )
    return series, report


def _in_order_of_knowledge(rows: Observations) -> Observations:
    # What a rule calls earlier was known earlier: a revision counts in its own time.
    told = rows.event_time if rows.published is None else rows.published
    return rows.take(np.lexsort((rows.event_time, told)))


def _dropped(
    name: str,
    rows: Observations,
    counts: dict[str, int],
    rule: str,
    wrong: np.ndarray,
    must: str,
    way: str | None = None,
) -> Observations:
    if not wrong.any():
        return rows
    if rule not in counts:
        _refuse(name, rows, wrong, must, way or rule)
    counts[rule] += int(np.count_nonzero(wrong))
    return rows.take(~wrong)


def _refuse(name: str, rows: Observations, wrong: np.ndarray, must: str, way: str | None) -> None:
    if not wrong.any():
        return
    row, count = int(np.argmax(wrong)), int(np.count_nonzero(wrong))
    held = "empty" if np.isnan(rows.value[row]) else f"{rows.value[row]:g}"
    more = f" ({count} such rows)" if count > 1 else ""
    go_on = f"; go on with the rule {way}" if way else ""
    raise DataError(
        f"{rows.place}: {rows.counted} {rows.number[row]}: {name} of {utc(rows.event_time[row])} is {held}; "
        f"{must}{more}{go_on}"
    )


def _run_length(value: np.ndarray) -> np.ndarray:
    # How often each value has repeated itself so far: 1 where it is new.
    new = np.ones(value.size, bool)
    new[1:] = value[1:] != value[:-1]
    start = np.maximum.accumulate(np.where(new, np.arange(value.size), 0))
    return np.arange(value.size) - start + 1


def _on_grid(name: str, rows: Observations, grid_ns: int) -> np.ndarray:
    # ExternalSeries.rounded judges the distance; the rows are in order of events here and stay so.
    series = ExternalSeries(rows.event_time, rows.event_time, np.arange(float(len(rows))), name)
    try:
        return series.rounded(grid_ns).event_time
    except DataError as error:
        raise DataError(f"{rows.place}: {error}") from None


def _once(
    name: str, rows: Observations, event_time: np.ndarray, known_at: np.ndarray, counts: dict[str, int]
) -> np.ndarray:
    # A revision has its own time; two values of one event at one time are a conflict.
    order = np.lexsort((np.arange(len(rows)), known_at, event_time))
    same = np.zeros(len(rows), bool)
    same[1:] = (np.diff(event_time[order]) == 0) & (np.diff(known_at[order]) == 0)
    if not same.any():
        return order
    group = np.cumsum(~same)
    first = order[np.flatnonzero(~same)[group - 1]]
    equal = rows.value[order] == rows.value[first]
    repeats = same & equal
    if repeats.any():
        _need(name, rows, order, repeats, counts, ("drop-duplicates",), "a row must not repeat another")
    conflict = same & ~equal
    if not conflict.any():
        return order[~repeats]
    ways = ("keep-first-conflict", "keep-last-conflict")
    rule = _need(name, rows, order, conflict, counts, ways, "an event must have one value at a time")
    if rule == "keep-first-conflict":
        return order[~same]
    last = np.ones(len(rows), bool)
    last[:-1] = ~same[1:]
    return order[last]


def _need(
    name: str,
    rows: Observations,
    order: np.ndarray,
    wrong: np.ndarray,
    counts: dict[str, int],
    ways: Sequence[str],
    must: str,
) -> str:
    rule = next((way for way in ways if way in counts), None)
    if rule is None:
        _refuse(name, rows.take(order), wrong, must, " or ".join(ways))
    counts[rule] += int(np.count_nonzero(wrong))
    return rule
