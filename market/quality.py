"""What is worth knowing about bars before believing a result built on them: the quality report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from market.anomalies import local_scale, repeated, runs, unchanged
from market.bars import Bars, timeframe_text
from market.table import utc

STANDSTILL_BARS = 10  # a price that stands still for longer is listed
OUTLIER_SCALES = 8.0
LISTED = 10  # rows per list in the printed report; the JSON holds all
_LAUNCH_BARS = 48
_LAUNCH_SHARE = 1e-3


@dataclass(frozen=True)
class Gap:
    """Missing bars: ``bars`` of them follow the close ``after`` (nanoseconds UTC)."""

    after: int
    bars: int


@dataclass(frozen=True)
class Standstill:
    """A price that did not move for ``bars`` bars from the close ``since`` (nanoseconds UTC)."""

    since: int
    bars: int


@dataclass(frozen=True)
class Outlier:
    """A move of ``scales`` usual bar ranges in the bar that closed at ``time``."""

    time: int
    what: str
    change: float
    scales: float


@dataclass(frozen=True)
class QualityReport:
    """Facts about one set of bars, and how they were read.

    Parameters
    ----------
    symbol, timeframe : str
        Of the bars.
    rows : int
        Number of bars.
    first, last : int
        Closes of the first and the last bar, nanoseconds UTC; 0 without bars.
    missing_bars : int
        Bars of the grid between first and last that are not there.
    gaps : tuple of Gap
        Where they are missing.
    zero_volume_bars, flat_bars, repeated_bars, moved_without_volume : int
        Bars without volume; without range; equal to the bar before although it moved; with range but
        without volume.
    standstills : tuple of Standstill
        The price did not move for 10 bars or more.
    outliers : tuple of Outlier
        Gaps, returns and wicks of more than 8 usual ranges.
    launch_bars : int
        Bars at the very start that come before regular trading.
    partial_bars : int or None
        Bars that do not cover their whole span; None when the source does not tell.
    repairs, accepted : mapping of str to int
        Rows touched by each named repair and acceptance.
    notes : tuple of str
        How the source was read, and what was noticed.
    source : str
        Where the bars come from.
    sha256 : str
        Of the source file.
    """

    symbol: str
    timeframe: str
    rows: int
    first: int
    last: int
    missing_bars: int = 0
    gaps: tuple[Gap, ...] = ()
    zero_volume_bars: int = 0
    flat_bars: int = 0
    repeated_bars: int = 0
    moved_without_volume: int = 0
    standstills: tuple[Standstill, ...] = ()
    outliers: tuple[Outlier, ...] = ()
    launch_bars: int = 0
    partial_bars: int | None = None
    repairs: Mapping[str, int] = field(default_factory=dict)
    accepted: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    source: str = ""
    sha256: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for everything a user should look at."""
        found = []
        if self.missing_bars:
            longest = max(self.gaps, key=lambda gap: gap.bars)
            found.append(
                f"{_many(self.missing_bars, 'bar')} missing in {_many(len(self.gaps), 'gap')}, "
                f"the longest of {longest.bars} after {utc(longest.after)}; "
                f"a return across a gap is not a one-bar return"
            )
        if self.rows and self.zero_volume_bars == self.rows:
            found.append("no bar has any volume")
        elif self.zero_volume_bars:
            found.append(f"{_many(self.zero_volume_bars, 'bar')} without volume")
        if self.standstills:
            longest = max(self.standstills, key=lambda still: still.bars)
            found.append(
                f"{_many(len(self.standstills), 'standstill')} of the price for {STANDSTILL_BARS} bars or "
                f"more, the longest of {longest.bars} from {utc(longest.since)}"
            )
        if self.repeated_bars:
            found.append(f"{_many(self.repeated_bars, 'bar')} equal to the bar before")
        if self.moved_without_volume:
            found.append(f"{_many(self.moved_without_volume, 'bar')} with a range but no volume")
        if self.partial_bars:
            found.append(f"{_many(self.partial_bars, 'bar')} shorter than their timeframe")
        if self.launch_bars:
            found.append(f"{_many(self.launch_bars, 'bar')} at the start before regular trading")
        if self.outliers:
            worst = max(self.outliers, key=lambda outlier: outlier.scales)
            found.append(
                f"{_many(len(self.outliers), 'move')} of more than {OUTLIER_SCALES:g} usual bar ranges, the "
                f"largest at {utc(worst.time)} ({worst.what} {worst.change:+.1%})"
            )
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain objects for JSON; times are ISO text."""
        return {
            "symbol": self.symbol,
            "timeframe": self.timeframe,
            "rows": self.rows,
            "first_close": utc(self.first) if self.rows else None,
            "last_close": utc(self.last) if self.rows else None,
            "missing_bars": self.missing_bars,
            "gaps": [{"after": utc(gap.after), "bars": gap.bars} for gap in self.gaps],
            "zero_volume_bars": self.zero_volume_bars,
            "flat_bars": self.flat_bars,
            "repeated_bars": self.repeated_bars,
            "moved_without_volume": self.moved_without_volume,
            "standstills": [{"since": utc(still.since), "bars": still.bars} for still in self.standstills],
            "outliers": [
                {"time": utc(one.time), "what": one.what, "change": one.change, "scales": one.scales}
                for one in self.outliers
            ],
            "launch_bars": self.launch_bars,
            "partial_bars": self.partial_bars,
            "repairs": dict(self.repairs),
            "accepted": dict(self.accepted),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "source": self.source,
            "sha256": self.sha256,
        }


def quality(
    bars: Bars,
    *,
    partial_bars: int | None = None,
    repairs: Mapping[str, int] | None = None,
    accepted: Mapping[str, int] | None = None,
    notes: tuple[str, ...] = (),
    source: str = "",
    sha256: str = "",
) -> QualityReport:
    """Return the quality report of bars; what only the source knows is given by keyword."""
    report = {
        "symbol": bars.symbol,
        "timeframe": timeframe_text(bars.interval_ns),
        "rows": len(bars),
        "first": int(bars.time[0]) if len(bars) else 0,
        "last": int(bars.time[-1]) if len(bars) else 0,
        "repairs": dict(repairs or {}),
        "accepted": dict(accepted or {}),
        "notes": tuple(notes),
        "source": source,
        "sha256": sha256,
    }
    if not len(bars):
        return QualityReport(**report)
    if partial_bars is None and "minutes" in bars.names:
        partial_bars = int(np.count_nonzero(bars.column("minutes") * 60e9 < bars.interval_ns))
    values = bars.values[:, :5]
    silent, flat = values[:, 4] == 0, values[:, 1] == values[:, 2]
    gaps = _gaps(bars)
    starts, lengths = runs(unchanged(values))
    return QualityReport(
        **report,
        missing_bars=sum(gap.bars for gap in gaps),
        gaps=gaps,
        zero_volume_bars=int(silent.sum()),
        flat_bars=int(flat.sum()),
        repeated_bars=int(repeated(values).sum()),
        moved_without_volume=0 if silent.all() else int((silent & ~flat).sum()),
        standstills=tuple(
            Standstill(int(bars.time[start]), int(length))
            for start, length in zip(starts, lengths, strict=True)
            if length >= STANDSTILL_BARS
        ),
        outliers=_outliers(bars),
        launch_bars=_launch_bars(values[:, 4]),
        partial_bars=partial_bars,
    )


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + "s" * (count != 1)


def _gaps(bars: Bars) -> tuple[Gap, ...]:
    steps = np.diff(bars.time)
    return tuple(
        Gap(int(bars.time[row]), int(steps[row] // bars.interval_ns - 1))
        for row in np.flatnonzero(steps > bars.interval_ns)
        if steps[row] >= 2 * bars.interval_ns
    )


def _outliers(bars: Bars) -> tuple[Outlier, ...]:
    open_, high, low, close = (bars.values[:, column] for column in range(4))
    scale = local_scale(high, low)
    if not scale.any():
        return ()
    steps = np.diff(bars.time, prepend=bars.time[0] - bars.interval_ns) / bars.interval_ns
    # What a bar did, signed: where it opened, its return, and how far its wicks left the body.
    before = np.concatenate([open_[:1], close[:-1]])
    changes = {
        "gap": (np.log(open_ / before), scale * np.sqrt(steps)),
        "return": (np.log(close / before), scale * np.sqrt(steps)),
        "lower wick": (np.log(low / np.minimum(open_, close)), scale),
        "upper wick": (np.log(high / np.maximum(open_, close)), scale),
    }
    found = []
    for what, (change, usual) in changes.items():
        scales = np.abs(change) / usual
        found += [
            Outlier(int(bars.time[row]), what, float(np.expm1(change[row])), float(scales[row]))
            for row in np.flatnonzero(scales > OUTLIER_SCALES)
        ]
    return tuple(sorted(found, key=lambda outlier: outlier.time))


def _launch_bars(volume: np.ndarray) -> int:
    # Perpetuals were born with hours of single test trades: volume a thousandth of what follows.
    usual = np.median(volume[: 15 * _LAUNCH_BARS])
    thin = np.flatnonzero(volume[:_LAUNCH_BARS] < _LAUNCH_SHARE * usual)
    return int(thin[-1]) + 1 if thin.size and thin[0] == 0 else 0


def rendered(report: QualityReport) -> Any:
    """Return the report as a rich renderable for the terminal."""
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    facts = Grid.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    if report.rows:
        facts.add_row("bars", f"{report.rows:,} from {utc(report.first)} to {utc(report.last)} (closes)")
    else:
        facts.add_row("bars", "none")
    facts.add_row("missing", f"{report.missing_bars:,} in {_many(len(report.gaps), 'gap')}")
    facts.add_row("no volume", f"{report.zero_volume_bars:,}")
    facts.add_row("no range", f"{report.flat_bars:,}")
    for name, counts in (("repaired", report.repairs), ("accepted", report.accepted)):
        for remedy, count in counts.items():
            facts.add_row(name, f"{remedy}: {_many(count, 'row')}")
    for note in report.notes:
        facts.add_row("read as", note)
    if report.source:
        facts.add_row("source", report.source)
    parts: list[Any] = [Text(f"{report.symbol} {report.timeframe}", style="bold"), facts]
    parts += [Text(f"! {warning}", style="yellow") for warning in report.warnings]
    longest = sorted(report.gaps, key=lambda gap: (-gap.bars, gap.after))[:LISTED]
    if longest:
        listed = Grid(title="longest gaps", title_justify="left", box=None, header_style="dim")
        listed.add_column("after (close)")
        listed.add_column("bars", justify="right")
        for gap in longest:
            listed.add_row(utc(gap.after), f"{gap.bars:,}")
        parts.append(listed)
    return Group(*parts)
