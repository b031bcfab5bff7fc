"""The three regimes, their probabilities row by row, and the path of labels made from them."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from configs.load import ConfigError, did_you_mean
from market.table import DataError, Table, utc

UNDECIDED = -1
SUM_TOLERANCE = 1e-9


class Regime(IntEnum):
    """Which weather the market is in; the number is the column of :class:`RegimeProbabilities`.

    Every detector knows the first three; the fourth is there only where a detector was asked for it.
    """

    RANGING = 0
    TRENDING = 1
    VOLATILE = 2
    CRISIS = 3

    @property
    def text(self) -> str:
        """The name as users write it, in lower case."""
        return self.name.lower()

    @classmethod
    def of(cls, name: str) -> "Regime":
        """Return the regime with a name as users write it; the case of letters does not matter.

        Raises
        ------
        ConfigError
            If there is no such regime; the message suggests one.
        """
        for regime in cls:
            if regime.text == name.strip().lower():
                return regime
        raise ConfigError(f"no regime named {name!r}{did_you_mean(name.strip().lower(), CRISIS_NAMES)}")


CRISIS_NAMES = tuple(regime.text for regime in Regime)
REGIME_NAMES = CRISIS_NAMES[: Regime.CRISIS]


@dataclass(frozen=True, eq=False)
class RegimeProbabilities(Table):
    """Probability of each regime, given what was known at each row: filtered, never smoothed.

    Parameters
    ----------
    time : int64 (n,)
        Nanoseconds UTC, bar close.
    values : float64 (n, k)
        Each row is in 0..1 and sums to 1 (1e-9), or is NaN throughout while the detector warms up.
    names : tuple of str
        ``REGIME_NAMES``, or ``CRISIS_NAMES`` of a detector that knows the fourth regime.

    Raises
    ------
    DataError
        If names or values break these rules.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.names not in (REGIME_NAMES, CRISIS_NAMES):
            raise DataError(
                f"regime probabilities: columns are {self.names}; they must be {REGIME_NAMES}, with crisis "
                f"after them or not"
            )
        unknown = np.isnan(self.values).all(axis=1)
        total = self.values.sum(axis=1)
        good = (np.abs(total - 1.0) <= SUM_TOLERANCE) & (self.values >= 0.0).all(axis=1)
        if not (good | unknown).all():
            row = int(np.argmin(good | unknown))
            raise DataError(
                f"regime probabilities: row {row} at {utc(self.time[row])} is {self.values[row].tolist()}; "
                f"a row must lie in 0..1 and sum to 1, or be NaN throughout"
            )


class Transition(NamedTuple):
    """One change of regime: its row, its time (nanoseconds UTC, bar close), the regimes before and after."""

    row: int
    time: int
    before: Regime
    after: Regime


@dataclass(frozen=True, eq=False)
class RegimePath:
    """One regime per row.

    Parameters
    ----------
    time : int64 (n,)
        Nanoseconds UTC, bar close.
    label : int8 (n,)
        A :class:`Regime`, or -1 while undecided.
    confidence : float64 (n,)
        Probability of the label at its row, 0..1; NaN where it is not known. A label that is kept by the
        minimum dwell may have less than one half.
    names : tuple of str
        Regimes that could occur: ``REGIME_NAMES`` or ``CRISIS_NAMES``.

    Raises
    ------
    DataError
        If shapes or values break these rules.
    """

    time: np.ndarray
    label: np.ndarray
    confidence: np.ndarray
    names: tuple[str, ...] = REGIME_NAMES

    def __post_init__(self) -> None:
        for name, dtype in (("time", np.int64), ("label", np.int8), ("confidence", np.float64)):
            array = np.array(getattr(self, name), dtype=dtype)
            if array.shape != np.shape(self.time) or array.ndim != 1:
                raise DataError(
                    f"regime path: {name} has shape {array.shape} beside time {np.shape(self.time)}; "
                    f"a path has one value per row"
                )
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        last = len(self.names) - 1
        if self.label.size and not UNDECIDED <= self.label.min() <= self.label.max() <= last:
            row = int(np.argmax((self.label < UNDECIDED) | (self.label > last)))
            raise DataError(
                f"regime path: label is {self.label[row]} in row {row}; it must lie in -1..{last}"
            )

    def __len__(self) -> int:
        return self.time.size

    def transitions(self) -> tuple[Transition, ...]:
        """Return the changes from one regime to another, in order; the first decision is none."""
        before, after = self.label[:-1], self.label[1:]
        rows = np.flatnonzero((before != after) & (before != UNDECIDED) & (after != UNDECIDED)) + 1
        return tuple(
            Transition(int(row), int(self.time[row]), Regime(self.label[row - 1]), Regime(self.label[row]))
            for row in rows
        )

    def share(self) -> np.ndarray:
        """Return the fraction of decided rows in each regime, float64 (k,); NaN if no row is decided."""
        count = np.bincount(self.label[self.label != UNDECIDED], minlength=len(self.names))
        return count / count.sum() if count.any() else np.full(len(self.names), np.nan)

    def mean_dwell(self) -> np.ndarray:
        """Return the mean length of unbroken runs of each regime in rows, float64 (k,); NaN for none."""
        starts = np.flatnonzero(np.diff(self.label, prepend=np.int8(-2)))
        lengths = np.diff(starts, append=len(self))
        labels = self.label[starts]
        each = [lengths[labels == r] for r in range(len(self.names))]
        return np.array([one.mean() if one.size else np.nan for one in each])
