"""Bars from files people have: refused when in doubt, repaired only by name, reported always."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from pydantic import Field

from configs.load import Config
from market.bars import NS_PER_SECOND, OHLCV, Bars, timeframe_ns, timeframe_text
from market.quality import QualityReport, quality
from market.repair import clean
from market.rows import Remedies, Rows
from market.sources.containers import open_content
from market.sources.layouts import Assignment, assign, symbol_of, timeframe_of
from market.sources.parsing import Stamps, numbers, times
from market.sources.readers import RawTable, read_raw
from market.sources.source import SOURCES
from market.table import DataError

_SPAN, _MINUTES = "close_time - time", "minutes present"  # facts about rows; never columns of bars


def read_bars(
    path: str | Path,
    *,
    layout: str = "auto",
    symbol: str | None = None,
    timeframe: str | None = None,
    columns: Mapping[str, str] | None = None,
    repairs: Sequence[str] = (),
    accept: Sequence[str] = (),
    now_ns: int | None = None,
) -> tuple[Bars, QualityReport]:
    """Return the bars of a file and their quality report.

    Stamps of opens become closes here; everything in the house is stamped with the close.

    Parameters
    ----------
    path : str or Path
        CSV (also gzip or zip), JSON, JSON lines, Parquet or Feather; the content decides, not the name.
    layout : str
        A name of ``market.sources.layouts.LAYOUTS``; ``auto`` finds it or refuses.
    symbol : str, optional
        For example ``BTC/USDT``; default from the file name. Chooses the rows where a column names symbols.
    timeframe : str, optional
        For example ``1h``; default from the steps between rows. Giving it also accepts sparse bars.
    columns : mapping of str to str, optional
        House name to column of the file, see :func:`market.sources.layouts.assign`.
    repairs, accept : sequence of str
        Names of ``market.rows.REPAIRS`` and ``ACCEPTS``.
    now_ns : int, optional
        The present, nanoseconds UTC; default the clock. Bars that close later are refused.

    Raises
    ------
    DataError
        If the file is not a clean table of bars and no remedy for what is wrong was named.
    ConfigError
        If a layout, repair or acceptance has no such name.
    """
    remedies = Remedies(repairs, accept)
    interval_ns = None if timeframe is None else timeframe_ns(timeframe)
    content = open_content(path)
    raw = read_raw(content, remedies)
    chosen = assign(raw, layout, columns or {})
    raw, symbol = _one_symbol(raw, chosen, symbol, Path(path))
    rows, stamps, notes = _rows(raw, chosen, remedies, interval_ns)
    rows, interval_ns, evidence = clean(
        rows,
        remedies,
        interval_ns=interval_ns,
        now_ns=time.time_ns() if now_ns is None else now_ns,
        wall_clock=not stamps.zoned,
    )
    partial_bars = _partial_bars(rows, interval_ns)
    kept = [i for i, name in enumerate(rows.names) if name not in (_SPAN, _MINUTES)]
    bars = Bars(
        time=rows.open_time + interval_ns,
        values=rows.values[:, kept],
        names=tuple(rows.names[i] for i in kept),
        symbol=symbol,
        interval_ns=interval_ns,
    )
    mentioned = timeframe_of(Path(path).name.split(".")[0])
    if mentioned and timeframe_ns(mentioned) != interval_ns:
        notes += (f"the name says {mentioned} but the bars are {timeframe_text(interval_ns)}",)
    return bars, quality(
        bars,
        partial_bars=partial_bars,
        repairs=remedies.repaired,
        accepted=remedies.accepted,
        notes=(chosen.note, stamps.note, *evidence, *content.notes, *raw.notes, *notes),
        source=str(path),
        sha256=content.sha256,
    )


def _one_symbol(raw: RawTable, chosen: Assignment, symbol: str | None, path: Path) -> tuple[RawTable, str]:
    if chosen.symbol_column is None or len(raw) == 0:
        return raw, symbol or symbol_of(path.name.split(".")[0])
    named = raw.column(chosen.symbol_column)
    names = sorted(str(name) for name in pc.unique(named).to_pylist())
    if len(names) == 1:
        return raw, symbol or symbol_of(names[0])
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    if symbol is None or symbol not in names:
        raise DataError(
            f"{raw.place}: holds {len(names)} symbols ({listed}); go on with --symbol and one of them"
        )
    mask = pc.fill_null(pc.equal(named, symbol), False)
    chosen_rows = np.asarray(mask, dtype=bool)
    return (
        replace(
            raw,
            columns=tuple(column.filter(mask) for column in raw.columns),
            number=raw.number[chosen_rows],
            notes=(*raw.notes, f"rows where {chosen.symbol_column} is {symbol}"),
        ),
        symbol,
    )


def _rows(
    raw: RawTable, chosen: Assignment, remedies: Remedies, interval_ns: int | None
) -> tuple[Rows, Stamps, tuple[str, ...]]:
    columns, notes = chosen.columns, ()
    values = [numbers(raw, columns[name], remedies) for name in OHLCV[:4]]
    if "volume" in columns:
        values.append(numbers(raw, columns["volume"], remedies))
    elif remedies.repairs("zero-volume", len(raw)):
        values.append(np.zeros(len(raw)))
    else:
        raise DataError(
            f"{raw.place}: column volume is missing; columns are {', '.join(raw.names)}; go on with "
            f"--column volume=NAME or --repair zero-volume"
        )
    names = [*OHLCV, *chosen.extra]
    for name in chosen.extra:
        values.append(numbers(raw, columns[name], remedies, blank=True))
    if "adjusted" in columns:
        notes += _adjust(values, numbers(raw, columns["adjusted"], remedies), remedies)
    stamps = times(
        raw, columns.get("time", columns.get("close_time")), remedies, binance=chosen.switches_unit
    )
    open_time = stamps.ns
    if "time" not in columns:
        open_time = _opens(raw, stamps, interval_ns)
        notes += ("stamps are closes",)
    elif "close_time" in columns:
        closes = times(raw, columns["close_time"], remedies, binance=chosen.switches_unit)
        # The last unit of a bar is written as its close: 00:59:59.999 of an hour.
        unit_ns = closes.unit_ns if closes.unit_ns is not None else 1
        values.append((closes.ns + unit_ns - open_time).astype(np.float64))
        names.append(_SPAN)
    if "minutes" in raw.names and "minutes" not in columns.values():
        values.append(numbers(raw, "minutes", remedies, blank=True))
        names.append(_MINUTES)
    used = {*columns.values(), chosen.symbol_column, "minutes"}
    unused = [name for name in raw.names if name not in used] if raw.headed else []
    if unused:
        notes += (f"columns left out: {', '.join(unused[:20])}{', ...' if len(unused) > 20 else ''}",)
    rows = Rows(raw.place, raw.number, open_time, np.column_stack(values), tuple(names), raw.counted)
    return rows, stamps, notes


def _opens(raw: RawTable, stamps: Stamps, interval_ns: int | None) -> np.ndarray:
    closes = stamps.ns
    if stamps.unit_ns is not None and ((closes + stamps.unit_ns) % NS_PER_SECOND == 0).all():
        closes = closes + stamps.unit_ns  # 00:59:59.999 closes the hour at 01:00
    if interval_ns is None:
        steps, counts = np.unique(np.abs(np.diff(closes)), return_counts=True)
        if steps.size == 0:
            raise DataError(f"{raw.place}: has one row, which shows no timeframe; go on with --timeframe")
        interval_ns = int(steps[np.argmax(counts)])
    return closes - interval_ns


def _adjust(values: list[np.ndarray], adjusted: np.ndarray, remedies: Remedies) -> tuple[str, ...]:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = adjusted / values[3]
    differs = ~(np.abs(ratio - 1) < 1e-9)
    if not differs.any():
        return ()
    if remedies.repairs("adjust-dividends", differs.sum()):
        values[:4] = [prices * ratio for prices in values[:4]]
        return ("prices are scaled by Adj Close / Close",)
    lowest = np.nanmin(ratio) if np.isfinite(ratio).any() else np.nan
    return (
        f"closes are not adjusted for dividends: Adj Close / Close falls to {lowest:.4g}; "
        f"--repair adjust-dividends scales them",
    )


def _partial_bars(rows: Rows, interval_ns: int) -> int | None:
    partial = None
    if _MINUTES in rows.names:
        minutes = rows.values[:, rows.names.index(_MINUTES)]
        partial = minutes * 60e9 < interval_ns
    if _SPAN in rows.names:
        span = rows.values[:, rows.names.index(_SPAN)]
        wrong = ~((span > 0) & (span <= interval_ns))
        if wrong.any():
            raise rows.refusal(
                wrong,
                lambda row: f"close_time lies {span[row] / 1e9:.12g} s after the open at {rows.stamp(row)}",
                f"a bar must close within its {timeframe_text(interval_ns)}",
            )
        short = span < interval_ns
        partial = short if partial is None else partial | short
    return None if partial is None else int(np.count_nonzero(partial))


class FileConfig(Config):
    """Settings of bars from a file."""

    path: str = Field(description="The file.")
    layout: str = Field("auto", description="How the file is laid out; auto finds it or refuses.")
    symbol: str | None = Field(None, description="For example BTC/USDT; default from the file name.")
    timeframe: str | None = Field(None, description="For example 1h; default from the steps between rows.")
    columns: dict[str, str] = Field({}, description="House name to column of the file.")
    repairs: tuple[str, ...] = Field((), description="Named repairs; nothing is repaired unasked.")
    accept: tuple[str, ...] = Field((), description="Named oddities to accept.")


@SOURCES.register("files")
class FileSource:
    """Bars of one file."""

    Config = FileConfig

    def __init__(self, config: FileConfig) -> None:
        self.config = config

    def bars(self) -> tuple[Bars, QualityReport]:
        """Return the bars and their quality report."""
        settings = self.config.model_dump()
        return read_bars(settings.pop("path"), **settings)
