"""Rows as a source gave them, and the remedies a user may name for what is wrong with them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from configs.load import ConfigError, did_you_mean
from market.table import DataError, utc

REPAIRS = {
    "sort": "put rows in order of time",
    "drop-duplicates": "drop rows that repeat another row exactly",
    "keep-first-conflict": "of rows with one time and different values, keep the first in the file",
    "keep-last-conflict": "of rows with one time and different values, keep the last in the file",
    "drop-bad-rows": "drop rows that cannot be a bar (at most 5 % of them)",
    "swap-high-low": "exchange high and low where high lies below low",
    "widen-range": "widen high and low to enclose open and close",
    "round-times": "move stamps to the grid when they are at most 5 % of a bar away",
    "drop-unfinished": "drop the last bar when it has not closed yet",
    "drop-outliers": "drop bars with erroneous prints",
    "clip-outliers": "cut a wick that is an erroneous print back to the body of its bar",
    "decimal-comma": "read 1,5 as 1.5",
    "thousands-comma": "read 1,234.5 as 1234.5",
    "drop-comments": "drop lines that begin with #",
    "day-first": "read 31/12/2020 as the last day of the year",
    "month-first": "read 12/31/2020 as the last day of the year",
    "zero-volume": "set the volume to zero where the file has no such column",
    "adjust-dividends": "scale prices by Adj Close / Close",
}
ACCEPTS = {
    "outliers": "keep prints far outside the market around them",
    "jumps": "keep lasting jumps of the price, as of a split or a redenomination",
    "frozen": "keep long stretches in which the feed stood still",
    "wall-clock": "read times without a zone as UTC although they look like local time",
    "old-times": "keep bars before 1980",
}


class Remedies:
    """The repairs and acceptances a user named, and how many rows each one touched.

    Parameters
    ----------
    repairs, accept : iterable of str
        Names from ``REPAIRS`` and ``ACCEPTS``.

    Raises
    ------
    ConfigError
        If a name is not known.
    """

    def __init__(self, repairs: Iterable[str] = (), accept: Iterable[str] = ()) -> None:
        self.repaired = dict.fromkeys(repairs, 0)
        self.accepted = dict.fromkeys(accept, 0)
        for option, names, known in (
            ("--repair", self.repaired, REPAIRS),
            ("--accept", self.accepted, ACCEPTS),
        ):
            for name in names:
                if name not in known:
                    raise ConfigError(f"{option} {name}: no such name{did_you_mean(name, sorted(known))}")

    def asked(self, name: str) -> bool:
        """Return whether a repair was named, without counting anything."""
        return name in self.repaired

    def repairs(self, name: str, rows: int) -> bool:
        """Return whether a repair was named, counting the rows it is about to touch."""
        return _counted(self.repaired, name, rows)

    def accepts(self, name: str, rows: int) -> bool:
        """Return whether an oddity is accepted, counting its rows."""
        return _counted(self.accepted, name, rows)


def _counted(counts: dict[str, int], name: str, rows: int) -> bool:
    if name not in counts:
        return False
    counts[name] += int(rows)
    return True


@dataclass(frozen=True)
class Rows:
    """Rows as a source gave them, in numbers but not yet believed.

    Parameters
    ----------
    place : str
        File or exchange, for messages.
    number : int64 (n,)
        The row or line of each row in its file, as the user sees it.
    open_time : int64 (n,)
        Open of each bar, nanoseconds UTC.
    values : float64 (n, 5 + extra)
        open, high, low, close, volume, then extra columns.
    names : tuple of str
        Column names.
    counted : str
        What ``number`` counts: ``line`` of a text file, ``row`` otherwise.
    """

    place: str
    number: np.ndarray
    open_time: np.ndarray
    values: np.ndarray
    names: tuple[str, ...]
    counted: str = "row"

    def __len__(self) -> int:
        return self.open_time.size

    def take(self, chosen: np.ndarray) -> "Rows":
        """Return the rows of a mask or an index."""
        return replace(
            self,
            number=self.number[chosen],
            open_time=self.open_time[chosen],
            values=self.values[chosen],
        )

    def refusal(self, wrong: np.ndarray, found: Callable[[int], str], rule: str, *remedies: str) -> DataError:
        """Return the error for the first row of a mask.

        Parameters
        ----------
        wrong : bool (n,)
            Rows that break the rule; at least one.
        found : callable
            ``found(row)`` says what the row holds.
        rule : str
            What it must be.
        *remedies : str
            Options that go on from here, for example ``--repair sort``.
        """
        row, count = int(np.argmax(wrong)), int(np.count_nonzero(wrong))
        more = f" ({count} such rows)" if count > 1 else ""
        way = f"; go on with {' or '.join(remedies)}" if remedies else ""
        return DataError(f"{self.place}: {self.counted} {self.number[row]}: {found(row)}; {rule}{more}{way}")

    def stamp(self, row: int) -> str:
        """Return the open time of a row as text."""
        return utc(self.open_time[row])
