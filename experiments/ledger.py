"""The trial ledger: every evaluation ever made on a data fingerprint, across runs and resumes.

What deflation counts is read from here, never typed in. The ledger is one SQLite file (write-ahead log)
that several processes may write at the same time. It keeps sums, not trials: one row per batch of
evaluations, merged when asked. Sharpe ratios are **per bar**, not annualised.
"""

import hashlib
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path

import numpy as np

from configs.load import ConfigError
from experiments.runs import checked_id

APPLICATION_ID = 0x52434C47  # "RCLG" in the file's header: this is a trial ledger of ours
VERSION = 1

_TABLES = """
CREATE TABLE trials (
    fingerprint TEXT NOT NULL, run TEXT NOT NULL, batch INTEGER NOT NULL,
    n_evaluated INTEGER NOT NULL, n_unique INTEGER NOT NULL, n_defined INTEGER NOT NULL,
    mean REAL NOT NULL, m2 REAL NOT NULL, seal TEXT NOT NULL,
    PRIMARY KEY (fingerprint, run, batch, seal)
);
CREATE TABLE effective (
    fingerprint TEXT NOT NULL, run TEXT NOT NULL, n_effective REAL NOT NULL, seal TEXT NOT NULL,
    PRIMARY KEY (fingerprint, run)
);
CREATE TABLE openings (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    fingerprint TEXT NOT NULL, run TEXT NOT NULL, subject TEXT NOT NULL,
    start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, seal TEXT NOT NULL
);
"""
# Every entry with its seal last.
_TRIALS = "SELECT fingerprint, run, batch, n_evaluated, n_unique, n_defined, mean, m2, seal FROM trials"
_EFFECTIVE = "SELECT fingerprint, run, n_effective, seal FROM effective"
_OPENINGS = "SELECT fingerprint, run, subject, start_ns, end_ns, seal FROM openings"
_OF_ONE = " WHERE fingerprint = ?"


# A batch of this many Sharpe ratios whose number, counts, mean and spread agree to the last bit is the same
# batch: two searches do not arrive there by different trials.
_RECOGNIZED = 16


@dataclass(frozen=True, eq=False)
class Batch:
    """Trials that belong together, for example one generation.

    Parameters
    ----------
    trials : float64 (m,)
        Sharpe ratio per bar of each trial; NaN for one that was evaluated but has none (it counts, but
        adds nothing to mean and variance).
    n_evaluated : int
        Answers given to the search, at least m.
    n_unique : int
        How many of them this run had not met before, at most ``n_evaluated``.
    number : int, optional
        Of the batch within the run. A resumed run that repeats a batch with the same result is counted
        once; a different result under the same number counts in addition. Without a number every batch
        counts.

    Raises
    ------
    ValueError
        If the counts are impossible or a Sharpe ratio is infinite.
    """

    trials: np.ndarray
    n_evaluated: int
    n_unique: int
    number: int | None = None

    def __post_init__(self) -> None:
        trials = np.asarray(self.trials, dtype=np.float64)
        if trials.ndim != 1 or np.isinf(trials).any():
            raise ValueError(f"trials has shape {trials.shape}; it must be (m,) Sharpe ratios, finite or NaN")
        if not 0 <= self.n_unique <= self.n_evaluated or self.n_evaluated < trials.size:
            raise ValueError(
                f"n_evaluated is {self.n_evaluated} and n_unique {self.n_unique} for {trials.size} trials; "
                f"every trial is an evaluation, and only evaluations can be unique"
            )
        object.__setattr__(self, "trials", trials)

    def sums(self) -> tuple[int, int, int, float, float]:
        """Return evaluated, unique and defined trials, the mean Sharpe ratio and its squared deviations."""
        defined = self.trials[~np.isnan(self.trials)]
        mean = float(defined.mean()) + 0.0 if defined.size else 0.0  # SQLite does not keep the sign of -0.0
        m2 = float(np.sum((defined - mean) ** 2))
        return int(self.n_evaluated), int(self.n_unique), defined.size, mean, m2


@dataclass(frozen=True)
class LedgerSummary:
    """All trials on one data fingerprint.

    Parameters
    ----------
    fingerprint : str
        Identity of the rows the trials were judged on.
    n_evaluated : int
        Answers given to searches, repeated genomes included.
    n_unique : int
        Different genomes within each run, added over runs. A search that is repeated to the last bit (same
        settings, same seed) tries nothing new: its batches are recognized, and count once.
    n_effective : float
        Estimated independent trials, added over runs; a run without an estimate counts with ``n_unique``.
    n_defined : int
        Trials that had a Sharpe ratio at all, as far as they are different.
    sharpe_mean, sharpe_variance : float
        Of the defined Sharpe ratios, per bar; ddof 1. NaN for fewer than 1 and 2 of them.
    n_runs : int
        Runs that made these trials.
    """

    fingerprint: str
    n_evaluated: int
    n_unique: int
    n_effective: float
    n_defined: int
    sharpe_mean: float
    sharpe_variance: float
    n_runs: int


@dataclass(frozen=True)
class Openings:
    """Earlier looks at a test span.

    Parameters
    ----------
    earlier : int
        Looks whose span overlaps.
    others : int
        Different subjects among them, the present one left out.
    """

    earlier: int
    others: int


class Ledger:
    """The ledger in one file; made if missing.

    No connection is kept open, so a ledger may be used from several threads and survives a fork.

    Parameters
    ----------
    path : str or Path
        For example ``experiments/ledger.sqlite``.
    timeout_s : float
        How long to wait while another process writes, seconds.

    Raises
    ------
    ConfigError
        From here and from every method, in one sentence: if the file cannot be made, opened or written,
        stays locked, is damaged, or is not a trial ledger of this version.
    """

    def __init__(self, path: str | Path, timeout_s: float = 30.0) -> None:
        self.path = Path(path)
        self.timeout_s = timeout_s
        try:
            if not self.path.exists():
                self._create()
            if self.path.stat().st_size == 0:  # SQLite would take it for a new file and forget every trial
                raise ConfigError(
                    f"{self.path}: the trial ledger is empty (0 bytes); restore it from a copy, or remove it "
                    f"to count from zero"
                )
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(f"{self.path}: the trial ledger cannot be made ({reason})") from error
        self._check()

    def record(
        self,
        fingerprint: str,
        run_id: str,
        trials: np.ndarray,
        n_evaluated: int,
        n_unique: int,
        batch: int | None = None,
    ) -> None:
        """Add the trials of one batch; parameters as of :class:`Batch`."""
        self.record_all(fingerprint, run_id, [Batch(trials, n_evaluated, n_unique, batch)])

    def record_all(self, fingerprint: str, run_id: str, batches: Sequence[Batch]) -> None:
        """Add the trials of several batches of one run in one transaction: all of them, or none.

        Parameters
        ----------
        fingerprint : str
            Identity of the rows the trials were judged on.
        run_id : str
            The run that made them.
        batches : sequence of Batch
        """
        _checked(fingerprint)
        checked_id(run_id)
        found = [(batch.number, batch.sums()) for batch in batches]
        with self._transaction() as connection:
            for number, sums in found:
                if number is None:
                    number = connection.execute(
                        "SELECT COALESCE(MAX(batch) + 1, 0) FROM trials WHERE fingerprint = ? AND run = ?",
                        (fingerprint, run_id),
                    ).fetchone()[0]
                row = (fingerprint, run_id, int(number), *sums)
                connection.execute(
                    "INSERT OR IGNORE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, _seal(*row))
                )

    def record_effective(self, fingerprint: str, run_id: str, n_effective: float) -> None:
        """Store a run's number of effectively independent trials; the last estimate stands.

        See :func:`experiments.evidence.effective_trials`.
        """
        _checked(fingerprint)
        checked_id(run_id)
        if not (isfinite(n_effective) and n_effective >= 0):
            raise ValueError(f"n_effective is {n_effective}; it must be a number that is not negative")
        row = (fingerprint, run_id, float(n_effective) + 0.0)
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO effective VALUES (?, ?, ?, ?)", (*row, _seal(*row)))

    def summary(self, fingerprint: str) -> LedgerSummary:
        """Return the counts and the spread of all trials on a data fingerprint, merged over all runs.

        The sums are merged in a fixed order, so the answer does not depend on which process wrote first.
        Source: Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm".
        """
        _checked(fingerprint)
        with self._connection() as connection, _snapshot(connection):
            rows = connection.execute(
                _TRIALS + _OF_ONE + " ORDER BY run, batch, seal", (fingerprint,)
            ).fetchall()
            estimates = connection.execute(_EFFECTIVE + _OF_ONE, (fingerprint,)).fetchall()
        effective = {row[1]: row[2] for row in self._intact(estimates)}
        unique: dict[str, int] = {}
        n_evaluated, count, mean, m2 = 0, 0, 0.0, 0.0
        by: dict[tuple, str] = {}  # the run that each batch is counted with
        for _, run, batch, evaluated, fresh, n, batch_mean, batch_m2 in self._intact(rows):
            n_evaluated += evaluated
            unique.setdefault(run, 0)
            content = (batch, evaluated, fresh, n, batch_mean, batch_m2)
            if n >= _RECOGNIZED and batch_m2 > 0 and by.setdefault(content, run) != run:
                continue
            unique[run] += fresh
            if n:
                total = count + n
                step = batch_mean - mean
                m2 += batch_m2 + step * step * (count * n / total)
                mean += step * (n / total)
                count = total
        return LedgerSummary(
            fingerprint=fingerprint,
            n_evaluated=n_evaluated,
            n_unique=sum(unique.values()),
            n_effective=float(sum(min(effective.get(run, n), n) for run, n in unique.items())),
            n_defined=count,
            sharpe_mean=mean if count else nan,
            sharpe_variance=m2 / (count - 1) if count > 1 else nan,
            n_runs=len(unique),
        )

    def record_opening(
        self, fingerprint: str, run_id: str, start_ns: int, end_ns: int, subject: str
    ) -> "Openings":
        """Record that a run looks at a final test span; return the earlier looks that overlap it.

        A test span is read once. Earlier looks belong in the report: those rows are no longer unseen. A run
        that was killed between its look and its report, and is resumed, takes the same look and not a second
        one.

        Parameters
        ----------
        fingerprint : str
            Identity of the bars the span is cut from.
        run_id : str
        start_ns, end_ns : int
            Time of the first and of the last row of the span, ns UTC.
        subject : str
            Identity of what is judged. To judge the same thing again chooses nothing.
        """
        _checked(fingerprint)
        checked_id(run_id)
        if start_ns > end_ns:
            raise ValueError(f"the test span ends at {end_ns}, before its start at {start_ns}")
        row = (fingerprint, run_id, subject, int(start_ns), int(end_ns))
        with self._transaction() as connection:
            known = self._intact(connection.execute(_OPENINGS + _OF_ONE, (fingerprint,)).fetchall())
            if row not in known:
                connection.execute(
                    "INSERT INTO openings (fingerprint, run, subject, start_ns, end_ns, seal) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (*row, _seal(*row)),
                )
        before = [one[2] for one in known if one != row and one[3] <= end_ns and start_ns <= one[4]]
        return Openings(len(before), len(set(before) - {subject}))

    def _create(self) -> None:
        # Built aside and linked into place whole: two processes that start together never see half a
        # ledger, and an empty file is always a damaged one.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{secrets.token_hex(6)}-{self.path.name}")
        try:
            with self._explained():
                connection = sqlite3.connect(draft, isolation_level=None)
                try:
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.executescript(_TABLES)
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {VERSION}")
                finally:
                    connection.close()
            with suppress(FileExistsError):  # another process was first: its ledger is ours too
                os.link(draft, self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        finally:
            draft.unlink(missing_ok=True)

    def _check(self) -> None:
        with self._connection() as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if application != APPLICATION_ID:
                raise ConfigError(f"{self.path}: is not a trial ledger; choose another file for the ledger")
            if version != VERSION:
                raise ConfigError(
                    f"{self.path}: is a trial ledger of version {version}; this code reads version {VERSION}"
                )
            verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if verdict != "ok":
                raise ConfigError(self._damaged(verdict))
            # All entries, not only those of one fingerprint: a damaged key would hide its trials.
            for query in (_TRIALS, _EFFECTIVE, _OPENINGS):
                self._intact(connection.execute(query).fetchall())

    def _intact(self, rows: list[tuple]) -> list[tuple]:
        # SQLite keeps no checksums; the seals do, so that a flipped bit is never a silent number.
        for *row, seal in rows:
            if seal != _seal(*row):
                raise ConfigError(self._damaged(f"the entry of run {row[1]!r} does not match its seal"))
        return [row[:-1] for row in rows]

    def _damaged(self, how: object) -> str:
        how = " ".join(str(how).split())
        return (
            f"{self.path}: the trial ledger is damaged ({how}); restore it from a copy, or move it away to "
            f"count from zero"
        )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            # mode=rw: a ledger that has disappeared is an error, not a reason to begin an empty one
            address = f"{self.path.resolve().as_uri()}?mode=rw"
            connection = sqlite3.connect(address, timeout=self.timeout_s, isolation_level=None, uri=True)
            try:
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
            finally:
                connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")  # wait for other writers here, before reading anything
            yield connection
            connection.execute("COMMIT")  # without it (an error above) closing rolls back

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            primary = None if code is None else code & 0xFF
            if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                message = (
                    f"{self.path}: the trial ledger stayed locked by another process for "
                    f"{self.timeout_s:g} s; end that process or try again"
                )
            elif primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                message = self._damaged(error)
            else:
                message = f"{self.path}: the trial ledger cannot be used ({error})"
            raise ConfigError(message) from error


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    # Both tables as of one moment.
    connection.execute("BEGIN")
    yield
    connection.execute("COMMIT")


def _checked(fingerprint: str) -> str:
    if not isinstance(fingerprint, str) or not fingerprint:
        raise ValueError(f"fingerprint is {fingerprint!r}; it must name the rows that trials are judged on")
    return fingerprint


def _seal(*row: object) -> str:
    return hashlib.sha256(repr(row).encode()).hexdigest()[:32]
