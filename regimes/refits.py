"""Walk-forward refits: a schedule of fits that is data, and a detector that is the latest fit of the past.

Parameters grow old. A schedule says when a detector is fitted anew and on which rows; each row is answered
by the latest member that was fitted on earlier rows only, so that no later fit can reach it.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from pydantic import Field

from configs.load import Config, validate
from market.causal import transform
from market.saved import read_saved, write_saved
from market.table import DataError, Table, concat, utc
from regimes.detector import DETECTORS, Detector, load_detector, require_fitted, select_columns
from regimes.outlook import HORIZONS, Outlook
from regimes.regime import RegimeProbabilities

PLACE = "refitted detector"
FORMAT = 1
FILE = "schedule.json"
MAX_REFITS = 1_000
MAX_PIECES = 256  # of rows that are kept for a coming member; then they are joined


class Refit(NamedTuple):
    """One fit of a schedule: times of its first and last fitted row, and of the first bar it may answer."""

    fitted_from: int
    fitted_until: int
    used_from: int


class RefitSchedule(Config):
    """When a detector is fitted anew, and on which rows."""

    first_bars: int = Field(20_000, ge=2, le=10_000_000, description="Rows before the first fit.")
    every_bars: int = Field(4_000, ge=1, le=10_000_000, description="Rows between one fit and the next.")
    window_bars: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="The latest rows that are fitted, fewer while there are fewer; null: all of the past, "
        "which keeps the meaning of the regimes steadier.",
    )
    embargo_bars: int = Field(
        0, ge=0, le=1_000_000, description="Bars between the last fitted row and the first that is answered."
    )

    def resolve(self, time: np.ndarray) -> tuple[Refit, ...]:
        """Return the refits that rows allow for, in order.

        A refit depends on its fitted rows and those before them: more rows add refits and change none. The
        last ones may be fitted although no row has asked for them yet.

        Parameters
        ----------
        time : int64 (n,)
            Times of the rows, nanoseconds UTC, increasing.

        Raises
        ------
        DataError
            If there are too few rows for the first fit, or so many refits that something must be wrong.
        """
        if len(time) < self.first_bars:
            raise DataError(
                f"refit schedule: there are {len(time)} rows; the first fit needs {self.first_bars}"
            )
        ends = range(self.first_bars, len(time) + 1, self.every_bars)
        if len(ends) > MAX_REFITS:
            raise DataError(
                f"refit schedule: {len(time)} rows and a fit every {self.every_bars} are {len(ends)} refits; "
                f"there may be {MAX_REFITS}"
            )
        pause = (self.embargo_bars + 1) * self.interval(time)
        window = len(time) if self.window_bars is None else self.window_bars
        return tuple(
            Refit(int(time[max(0, end - window)]), int(time[end - 1]), int(time[end - 1]) + pause)
            for end in ends
        )

    def interval(self, time: np.ndarray) -> int:
        """Return the usual distance of rows, nanoseconds: the median over those of the first fit."""
        return int(np.median(np.diff(time[: self.first_bars])))


class RefittedDetector:
    """A detector stage whose parameters are renewed by a schedule; time decides which member answers a row.

    A member answers from its ``used_from`` until the next one's, and NaN stands where there is none yet. So
    that it does not begin with an empty memory, it first hears the rows of its ``warmup`` bars before (by
    time: across a gap they are fewer). Row t uses rows up to and including t, and parameters fitted on
    rows before it by more than the embargo.

    Attributes
    ----------
    refits : tuple of Refit
        What was fitted; empty before ``fit``.
    members : tuple of Detector
        One per refit.
    columns : tuple of str
        As the members'.
    warmup : int
        The longest of the members'.
    fitted_until : int or None
        Last row fitted by the *first* member: later rows are answered out of sample, each of them, as
        ``require_out_of_sample`` asks. What each row has seen says :meth:`trained_through`.
    chain : float64 (k, k)
        Of the latest member. Rows of the past must not be judged by it; :meth:`outlook` gives each row the
        chain of the member that answers it.

    Parameters
    ----------
    name : str
        A registered detector.
    settings : mapping
        Its settings.
    schedule : RefitSchedule
    """

    def __init__(self, name: str, settings: Mapping[str, Any] | None, schedule: RefitSchedule) -> None:
        self.name = name
        self.settings = dict(settings or {})
        self.schedule = schedule
        self.columns = tuple(DETECTORS.create(name, self.settings).columns)
        self.warmup = 0
        self.fitted_until: int | None = None
        self.refits: tuple[Refit, ...] = ()
        self.members: tuple[Detector, ...] = ()
        self._interval = 0

    def fit(self, features: Table) -> Self:
        """Fit every member on its own rows of a history, empty the memory, and return self.

        Raises
        ------
        DataError
            If there are too few rows, or a member refuses its own.
        """
        return self._fit(features, {})

    def extended(self, features: Table) -> Self:
        """Return the detector of a longer history: its members, and the refits that have become due.

        The same as fitting anew, as long as the old rows are what they were; this is not checked.
        """
        require_fitted(self, PLACE)
        known = dict(zip(self.refits, self.members, strict=True))
        return type(self)(self.name, self.settings, self.schedule)._fit(features, known)

    def _fit(self, features: Table, known: Mapping[Refit, Detector]) -> Self:
        refits = self.schedule.resolve(features.time)
        members = []
        for refit in refits:
            rows = slice(*np.searchsorted(features.time, (refit.fitted_from, refit.fitted_until + 1)))
            try:
                member = known.get(refit)
                members.append(member or DETECTORS.create(self.name, self.settings).fit(features[rows]))
            except DataError as error:
                span = f"{utc(refit.fitted_from)} to {utc(refit.fitted_until)}"
                raise DataError(f"{PLACE}: the refit on {span}: {error}") from error
        self._set(refits, members, self.schedule.interval(features.time))
        return self

    def _set(self, refits: Sequence[Refit], members: Sequence[Detector], interval: int) -> None:
        self.refits, self._interval = tuple(refits), interval
        self.members = tuple(member.fresh() for member in members)
        for refit, member in zip(self.refits, self.members, strict=True):
            if member.fitted_until != refit.fitted_until or member.fitted_until >= refit.used_from:
                raise DataError(
                    f"{PLACE}: the member that is used from {utc(refit.used_from)} was fitted until "
                    f"{utc(member.fitted_until)}; the schedule says {utc(refit.fitted_until)}"
                )
        self.warmup = max(member.warmup for member in self.members)
        self.fitted_until = self.refits[0].fitted_until
        self.chain = self.members[-1].chain
        self.used_from = np.array([refit.used_from for refit in self.refits], dtype=np.int64)
        heard = np.array([member.warmup for member in self.members], dtype=np.int64) * interval
        self._hears_from = self.used_from - heard
        # The earliest row that a member after this one will want to hear.
        later = np.minimum.accumulate(self._hears_from[::-1])[::-1]
        self._wanted_from = np.append(later, np.iinfo(np.int64).max)
        self._in_force = -1
        self._kept: list[Table] = []
        empty = Table(np.empty(0, np.int64), np.empty((0, len(self.columns))), self.columns)
        self._names = self.members[0].fresh().update(empty).names

    def fresh(self) -> Self:
        """Return the same members with empty memory."""
        other = type(self)(self.name, self.settings, self.schedule)
        if self.fitted_until is not None:
            other._set(self.refits, self.members, self._interval)
        return other

    def update(self, features: Table) -> RegimeProbabilities:
        """Return filtered probabilities, one row per row; NaN before the first member is used."""
        require_fitted(self, PLACE)
        rows = Table(features.time, select_columns(features, self.columns, PLACE), self.columns)
        out = np.full((len(rows), len(self._names)), np.nan)
        for member, part in self._turns(rows.time):
            if member > self._in_force:
                self._take_over(member)
            if member >= 0:
                out[part] = self.members[member].update(rows[part]).values
            self._keep(rows[part])
        return RegimeProbabilities(features.time, out, self._names)

    def _turns(self, time: np.ndarray) -> list[tuple[int, slice]]:
        # Which member answers each stretch of rows; -1 where there is none yet.
        if not time.size:
            return []
        first, last = np.searchsorted(self.used_from, time[[0, -1]], side="right") - 1
        edges = [0, *np.searchsorted(time, self.used_from[first + 1 : last + 1]), time.size]
        turns = zip(range(first, last + 1), edges[:-1], edges[1:], strict=True)
        return [(int(member), slice(start, end)) for member, start, end in turns if start < end]

    def _take_over(self, member: int) -> None:
        # The next member hears what it missed at once; by the chunk law that is as good as having listened.
        if self._kept:
            heard = concat(self._kept)
            first = int(np.searchsorted(heard.time, self._hears_from[member]))
            self.members[member].update(heard[first:])
            self._kept = [heard]
        self._in_force = member

    def _keep(self, rows: Table) -> None:
        wanted = self._wanted_from[self._in_force + 1]
        if wanted > rows.time[-1]:
            self._kept = []
            return
        self._kept.append(rows)
        while self._kept[0].time[-1] < wanted:
            self._kept.pop(0)
        if len(self._kept) > MAX_PIECES:
            kept = concat(self._kept)
            self._kept = [kept[int(np.searchsorted(kept.time, wanted)) :]]

    def trained_through(self, time: np.ndarray) -> np.ndarray:
        """Return the last fitted row behind each answer, int64 (n,), nanoseconds UTC; -1 before any."""
        require_fitted(self, PLACE)
        until = np.array([-1, *(refit.fitted_until for refit in self.refits)], dtype=np.int64)
        return until[np.searchsorted(self.used_from, time, side="right")]

    def outlook(self, horizons: Sequence[int] = HORIZONS) -> Outlook:
        """Return the outlook in which each row takes the chain of the member that answered it."""
        require_fitted(self, PLACE)
        return Outlook(np.stack([member.chain for member in self.members]), horizons, self.used_from)

    def save(self, folder: Path) -> None:
        """Write a folder per member and the schedule, which says what belongs together, at last."""
        require_fitted(self, PLACE)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).unlink(missing_ok=True)  # a schedule must not point to another one's members
        for number, member in enumerate(self.members):
            member.save(folder / _folder(number))
        document = {
            "format": FORMAT,
            "detector": self.name,
            "settings": self.settings,
            "schedule": self.schedule.model_dump(mode="json"),
            "interval_ns": self._interval,
            "refits": [refit._asdict() for refit in self.refits],
        }
        write_saved(folder / FILE, document)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved detector with empty memory.

        Raises
        ------
        DataError, ConfigError
            If a file is missing or damaged, or a member is not the one of the schedule.
        """
        path = Path(folder) / FILE
        types = {"format": int, "detector": str, "settings": dict, "schedule": dict, "interval_ns": int}
        document = read_saved(path, "refit schedule", {**types, "refits": list})
        if document["format"] != FORMAT:
            raise DataError(f"{path}: has format {document['format']}; this version reads format {FORMAT}")
        refits = _read_refits(document["refits"], path)
        if document["interval_ns"] <= 0:
            raise DataError(f"{path}: interval_ns is {document['interval_ns']}; it must be positive")
        schedule = validate(RefitSchedule, document["schedule"], f"{path}: schedule")
        detector = cls(document["detector"], document["settings"], schedule)
        members = [load_detector(path.parent / _folder(number)) for number in range(len(refits))]
        for number, member in enumerate(members):
            if not isinstance(member, DETECTORS.get(detector.name)):
                raise DataError(
                    f"{path.parent / _folder(number)}: holds a {type(member).__name__}; the schedule "
                    f"is of the detector {detector.name!r}"
                )
        detector._set(refits, members, document["interval_ns"])
        return detector


def fit_schedule(
    name: str, settings: Mapping[str, Any] | None, features: Table, schedule: RefitSchedule
) -> RefittedDetector:
    """Return a detector that was fitted on a history by a schedule; see :class:`RefittedDetector`."""
    return RefittedDetector(name, settings, schedule).fit(features)


def agreement(one: Detector, other: Detector, features: Table) -> float:
    """Return the share of rows on which two fitted detectors find the same regime the most probable, 0..1.

    Both begin with empty memory at the first row; rows that one of them cannot answer do not count.

    Raises
    ------
    DataError
        If there is no row that both answer, or they know different regimes.
    """
    first, second = (transform(detector, features) for detector in (one, other))
    if first.names != second.names:
        raise DataError(f"agreement: one detector knows {first.names}, the other {second.names}")
    known = ~(np.isnan(first.values[:, 0]) | np.isnan(second.values[:, 0]))
    if not known.any():
        raise DataError(f"agreement: none of {len(features)} rows is answered by both detectors")
    return float(np.mean((first.values.argmax(axis=1) == second.values.argmax(axis=1))[known]))


def continuity(detector: RefittedDetector, features: Table) -> tuple[float, ...]:
    """Return the agreement of each member with the one before, on the rows that both were fitted on.

    Parameters
    ----------
    detector : RefittedDetector
        Fitted on these features.
    features : Table

    Returns
    -------
    tuple of float
        One less than there are members; NaN where two windows share no row.
    """
    found = []
    pairs = itertools.pairwise(zip(detector.refits, detector.members, strict=True))
    for (before, one), (after, other) in pairs:
        shared = np.searchsorted(features.time, (after.fitted_from, before.fitted_until + 1))
        rows = features[slice(*shared)]
        found.append(agreement(one, other, rows) if len(rows) else np.nan)
    return tuple(found)


def _folder(number: int) -> str:
    return f"refit_{number:03d}"


def _read_refits(rows: list, path: Path) -> tuple[Refit, ...]:
    refits, before = [], -1
    for number, row in enumerate(rows):
        whole = (
            isinstance(row, dict)
            and set(row) == set(Refit._fields)
            and all(type(x) is int for x in row.values())
        )
        refit = Refit(**row) if whole else None
        if refit is None or not (
            refit.fitted_from <= refit.fitted_until < refit.used_from and before < refit.used_from
        ):
            raise DataError(
                f"{path}: refits[{number}] is {row!r}; it must be fitted_from <= fitted_until < used_from "
                f"in nanoseconds, each used after the one before"
            )
        refits.append(refit)
        before = refit.used_from
    if not 1 <= len(refits) <= MAX_REFITS:
        raise DataError(f"{path}: has {len(refits)} refits; there must be 1..{MAX_REFITS}")
    return tuple(refits)
