"""What the ensemble passes on: a signal per source, and the ``Blend`` that says what was decided and why.

A signal is a wish in [-1, 1], the share of the largest exposure: 1 fully long, -1 fully short. 0 is an
opinion (stay flat), NaN is none: a forecaster without a whole window has no say, and is not taken for flat.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np

from backtest.simulate import TARGETS
from market.bars import Bars
from market.table import DataError, Table, concat, same_rows, utc
from regimes.regime import CRISIS_NAMES, REGIME_NAMES, UNDECIDED, Regime, RegimeProbabilities

Kind = Literal["specialist", "forecaster"]
KINDS = ("specialist", "forecaster")
#: Columns of :meth:`Blend.to_table` that come once, after those of sources and regimes.
DECISION = ("label", "confidence", "blended", "gated", "exposure")
_TABLES = ("signals", "regimes")
_NUMBERS = ("confidence", "blended", "gated", "exposure")


class Member(NamedTuple):
    """Who emits a signal: the name of its column, its kind, and the regime it trades (None: any)."""

    name: str
    kind: Kind
    regime: Regime | None


@dataclass(frozen=True, eq=False)
class SignalTable(Table):
    """One signal per source.

    Parameters
    ----------
    time : int64 (n,)
        Nanoseconds UTC, bar close.
    values : float64 (n, s)
        In [-1, 1], share of the largest exposure wanted from the next open; NaN: no opinion.
    names : tuple of str
        Of the sources.

    Raises
    ------
    DataError
        If a signal lies outside [-1, 1], or a table rule is broken.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = ~(np.isnan(self.values) | (np.abs(self.values) <= 1.0))
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            raise DataError(
                f"signals: {self.names[column]} is {self.values[row, column]:g} at {utc(self.time[row])} "
                f"(row {row}); a signal must lie in -1..1, or be NaN where there is no opinion"
            )


@dataclass(frozen=True, eq=False)
class Blend:
    """What was decided at each close, and why: the audit rows of a strategy.

    Parameters
    ----------
    time : int64 (n,)
        Nanoseconds UTC, bar close.
    signals : SignalTable (n, s)
        What each source wanted.
    regimes : RegimeProbabilities (n, k)
        Filtered probabilities; NaN while the detector knows nothing.
    label : int8 (n,)
        The regime in force; -1 while undecided.
    confidence : float64 (n,)
        Its probability, 0..1; NaN where unknown.
    weights : float64 (n, s)
        What each source counted; NaN where a blender is no weighted mean.
    blended : float64 (n,)
        The blender's answer in [-1, 1]; NaN where nobody had an opinion.
    gated : float64 (n,)
        What the gates left of it, in [-1, 1]; flat is 0.
    exposure : float64 (n,)
        Wanted from the next open, signed fraction of equity; never NaN.

    Raises
    ------
    DataError
        If clocks or shapes disagree, or a value is out of its range.
    """

    time: np.ndarray
    signals: SignalTable
    regimes: RegimeProbabilities
    label: np.ndarray
    confidence: np.ndarray
    weights: np.ndarray
    blended: np.ndarray
    gated: np.ndarray
    exposure: np.ndarray

    def __post_init__(self) -> None:
        n, s = self.signals.values.shape
        shapes = {"time": (n,), "label": (n,), "weights": (n, s)} | dict.fromkeys(_NUMBERS, (n,))
        for name, shape in shapes.items():
            dtype = {"time": np.int64, "label": np.int8}.get(name, np.float64)
            array = np.array(getattr(self, name), dtype=dtype)  # a copy: nobody can change it afterwards
            if array.shape != shape:
                raise DataError(
                    f"blend: {name} has shape {array.shape}; with these signals it must be {shape}"
                )
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        same_rows(self.signals, self.regimes)
        if not np.array_equal(self.time, self.signals.time):
            raise DataError("blend: the times are not those of its signals; all parts stand on one clock")
        self._require(~np.isnan(self.exposure) & np.isfinite(self.exposure), "exposure", "be finite")
        self._require(np.abs(self.gated) <= 1.0, "gated", "lie in -1..1")
        self._require(
            np.isnan(self.blended) | (np.abs(self.blended) <= 1.0), "blended", "lie in -1..1, or NaN"
        )
        known = (self.label >= UNDECIDED) & (self.label < len(self.regimes.names))
        self._require(known, "label", f"lie in -1..{len(self.regimes.names) - 1}")

    def __len__(self) -> int:
        return self.time.size

    def __getitem__(self, rows: slice) -> Self:
        """Return the rows of a slice with step 1."""
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise TypeError(f"rows are taken by slices with step 1, not by {rows!r}")
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @classmethod
    def concat(cls, blends: Sequence[Self]) -> Self:
        """Return blends of the same sources joined end to end.

        Raises
        ------
        DataError
            If there are none, sources or regimes differ, or the times overlap.
        """
        if not blends:
            raise DataError("blends to join: there are none; there must be at least one")
        parts = {}
        for field in fields(cls):
            found = [getattr(blend, field.name) for blend in blends]
            parts[field.name] = concat(found) if field.name in _TABLES else np.concatenate(found)
        return cls(**parts)

    def targets(self) -> Table:
        """Return what :func:`backtest.simulate.simulate` trades: the column ``exposure``, Table (n, 1)."""
        return Table(self.time, self.exposure[:, None], TARGETS[:1])

    def to_table(self) -> Table:
        """Return everything as one table.

        Its columns: ``signal_NAME`` per source, ``p_REGIME`` per regime, ``weight_NAME`` per source, then
        ``DECISION``.
        """
        names = (
            *(f"signal_{name}" for name in self.signals.names),
            *(f"p_{name}" for name in self.regimes.names),
            *(f"weight_{name}" for name in self.signals.names),
            *DECISION,
        )
        last = np.column_stack([getattr(self, name) for name in DECISION])
        values = np.hstack([self.signals.values, self.regimes.values, self.weights, last])
        return Table(self.time, values, names)

    @classmethod
    def of_table(cls, table: Table) -> Self:
        """Return the blend that :meth:`to_table` wrote; DataError if the columns are not those of one."""
        sources = tuple(name.removeprefix("signal_") for name in table.names if name.startswith("signal_"))
        k = len(table.names) - 2 * len(sources) - len(DECISION)
        regimes = {len(names): names for names in (REGIME_NAMES, CRISIS_NAMES)}.get(k)
        places = None if regimes is None else (
            *(f"signal_{name}" for name in sources),
            *(f"p_{name}" for name in regimes),
            *(f"weight_{name}" for name in sources),
            *DECISION,
        )  # fmt: skip
        if table.names != places:
            raise DataError(f"blend: columns {', '.join(table.names)} are not those of a saved blend")
        s = len(sources)
        return cls(
            table.time,
            SignalTable(table.time, table.values[:, :s], sources),
            RegimeProbabilities(table.time, table.values[:, s : s + k], regimes),
            table.column("label"),
            table.column("confidence"),
            table.values[:, s + k : s + k + s],
            table.column("blended"),
            table.column("gated"),
            table.column("exposure"),
        )

    def save(self, path: str | Path) -> None:
        """Write the audit rows as a Parquet file with a column ``time`` (UTC) and those of the table."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = self.to_table()
        columns = {"time": pa.array(table.time, pa.timestamp("ns", tz="UTC"))}
        columns |= {name: pa.array(table.column(name)) for name in table.names}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)

    def _require(self, good: np.ndarray, name: str, rule: str) -> None:
        if not good.all():
            row = int(np.argmin(good))
            raise DataError(
                f"blend: {name} is {getattr(self, name)[row]:g} at {utc(self.time[row])} (row {row}); "
                f"it must {rule}"
            )


def earned(bars: Bars) -> np.ndarray:
    """Return what one unit of exposure decided at each close earns before costs, float64 (n,), a fraction.

    ``open[t+2] / open[t+1] - 1``: what is decided at the close of bar t is bought at the next open and may be
    changed at the one after. NaN in the last two rows. This looks ahead, by two bars: it is for fits on past
    rows, and nothing that decides may read it.
    """
    opens = bars.column("open")
    found = np.full(len(bars), np.nan)
    found[:-2] = opens[2:] / opens[1:-1] - 1.0
    return found


def known_return(bars: Bars, before: float = np.nan) -> np.ndarray:
    """Return what is known at each close about the last decision that is over, float64 (n,), a fraction.

    ``open[t] / open[t-1] - 1``: by the close of bar t, one unit of exposure decided at the close of t-2 has
    earned it, before costs. ``known_return(bars)[2:] == earned(bars)[:-2]``, but causal.

    Parameters
    ----------
    bars : Bars (n,)
    before : float
        Open of the bar before the first of these; NaN where there is none, and then the first row is NaN.
    """
    opens = bars.column("open")
    if not opens.size:
        return np.empty(0)
    return opens / np.concatenate([[before], opens[:-1]]) - 1.0
