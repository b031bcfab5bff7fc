"""What an inspection for leaks has found, in sentences: :func:`market.leaks.inspect` writes it."""

from collections.abc import Mapping
from dataclasses import dataclass

from market.table import utc

PREFIX, ALTERED, REFIT, STAMP, START, REPEAT = (
    "prefix", "altered future", "refit", "stamp", "start", "repeat",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One column that one route has convicted, at the earliest row at which it did.

    Parameters
    ----------
    route : str
        prefix, altered future, refit, stamp, start or repeat.
    column : str
    row : int
        Of the clock.
    time : int
        Of that row, nanoseconds UTC.
    cut : int
        The last row that stayed as it was; for a stamp the last row that taught, for a start the row at which
        it began.
    how : str
        What was done, as a clause.
    before, after : float
        The answer of that row.
    largest : float
        Largest difference at any row of this column where both values are known; inf where none are.
    reach : int
        Rows that it looks ahead at least; 0 where that is not the question.
    """

    route: str
    column: str
    row: int
    time: int
    cut: int
    how: str
    before: float
    after: float
    largest: float
    reach: int

    def __str__(self) -> str:
        place = f"{self.column}, row {self.row} ({utc(self.time)})"
        if self.route == STAMP:
            return f"{place}: {self.how}"
        ahead = f"; it looks at least {self.reach} row{'s' * (self.reach > 1)} ahead" if self.reach else ""
        return f"{place}: {self.before:.6g} became {self.after:.6g} when {self.how}{ahead}"


@dataclass(frozen=True)
class LeakReport:
    """What an inspection has found.

    Parameters
    ----------
    findings : tuple of Finding
        Leaks, by row: one per route and column.
    starts : tuple of Finding
        Columns in which the first row is not forgotten after the warm-up.
    columns : tuple of str
        What the stage answers.
    rows : int
    runs : int
        How often the stage answered, each time compared.
    refused : mapping of str to int
        Runs in which it raised an error instead, by what was done; they prove nothing.
    reason : str
        The first of these errors.
    deaf : bool
        Whether no altered future changed any answer, not even after the cut: it may read something else.
    """

    findings: tuple[Finding, ...]
    starts: tuple[Finding, ...]
    columns: tuple[str, ...]
    rows: int
    runs: int
    refused: Mapping[str, int]
    reason: str = ""
    deaf: bool = False

    @property
    def clean(self) -> bool:
        """Whether no leak was found."""
        return not self.findings

    @property
    def first(self) -> Finding | None:
        """The leak at the earliest row."""
        return self.findings[0] if self.findings else None

    @property
    def routes(self) -> tuple[str, ...]:
        """The routes that found a leak."""
        return tuple(route for route in (REPEAT, PREFIX, ALTERED, REFIT, STAMP)
                     if any(one.route == route for one in self.findings))  # fmt: skip

    @property
    def worst(self) -> float:
        """Largest difference to a past that should not have changed; 0 for a sound stage."""
        return max((one.largest for one in self.findings if one.route != STAMP), default=0.0)

    def sentences(self) -> list[str]:
        """Return everything there is to say, a sentence each."""
        said = [f"{one.route}: {one}" for one in self.findings]
        if self.clean:
            said.append(
                f"no leak in {len(self.columns)} column{'s' * (len(self.columns) != 1)} of {self.rows} rows: "
                f"{self.runs} runs on shortened or altered data changed nothing before the cut"
            )
        said += [
            f"{one.route}: {one}; no leak, but it must begin at the same row live" for one in self.starts
        ]
        if self.deaf:
            said.append(
                "no altered row changed any answer, not even its own: what it reads may not be its inputs"
            )
        for how, count in self.refused.items():
            said.append(f"{count} run{'s' * (count != 1)} on {how} ended in an error and prove nothing")
        return said + ([f"the first error was: {self.reason}"] if self.reason else [])

    def __str__(self) -> str:
        return "\n".join(self.sentences())
