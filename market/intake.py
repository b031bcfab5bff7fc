"""The job behind ``python -m market.ingest``: fetch or read, check, join, store."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from configs.load import Config, ConfigError
from market.bars import Bars, between, timeframe_text, timerange_ns
from market.quality import QualityReport, quality
from market.repair import clean
from market.rows import Remedies, Rows
from market.sources.exchange import ExchangeConfig, ExchangeSource
from market.sources.files import read_bars
from market.store import BarStore, folder_name, join
from market.table import DataError


class IntakeConfig(Config):
    """Settings of one intake of bars, from files or from an exchange."""

    files: tuple[str, ...] = Field((), description="Files of one symbol; their bars are joined.")
    exchange: str | None = Field(None, description="Name of a ccxt exchange, instead of files.")
    layout: str = Field("auto", description="How the files are laid out; auto finds it or refuses.")
    symbol: str | None = Field(None, description="For example BTC/USDT; default from the file name.")
    timeframe: str | None = Field(None, description="For example 1h; default from the steps between rows.")
    timerange: str | None = Field(None, description="Such as 20190101-20240630; an empty end is the present.")
    columns: dict[str, str] = Field({}, description="House name to column of the file.")
    repairs: tuple[str, ...] = Field((), description="Named repairs; nothing is repaired unasked.")
    accept: tuple[str, ...] = Field((), description="Named oddities to accept.")
    store: str | None = Field("data", description="Folder of the store; null checks and stores nothing.")
    existing: str = Field(
        "refuse",
        pattern="^(refuse|replace|extend)$",
        description="What happens to stored bars that files would change: refuse, replace or extend.",
    )
    page_bars: int = Field(1_000, ge=1, le=10_000, description="Bars per request to an exchange.")
    retries: int = Field(5, ge=0, le=100, description="Further attempts per request.")
    longest_wait_s: float = Field(300.0, ge=0, description="A longer wait ends a download for now.")

    @model_validator(mode="after")
    def _one_source(self) -> "IntakeConfig":
        if bool(self.files) == bool(self.exchange):
            raise ValueError("needs either files or an exchange, and not both")
        if self.exchange and not (self.symbol and self.timerange):
            raise ValueError("an exchange needs a symbol and a timerange, such as BTC/USDT and 20190101-")
        return self


def intake(config: IntakeConfig) -> tuple[Bars, QualityReport, Path | None]:
    """Return the bars that were taken in, their quality report, and where they are stored.

    Raises
    ------
    InputError
        If a source is not clean and no remedy was named, or stored bars would be changed unasked. Nothing is
        stored then; an unfinished download is kept apart and continued by the next one.
    """
    store = BarStore(config.store) if config.store is not None else None
    if config.symbol is not None:
        folder_name(config.symbol)  # refused before an hour of downloading, not after
    if config.exchange:
        bars, report = _downloaded(config, store)
    else:
        bars, report = _read(config)
    if store is None:
        return bars, report, None
    key = (bars.symbol, timeframe_text(bars.interval_ns))
    old = store.load(*key) if key in store else None
    if old is not None and old.fingerprint() != bars.fingerprint():
        extend = config.existing == "extend" or bool(config.exchange)
        if not extend and config.existing == "refuse":
            raise DataError(
                f"{config.store}: {bars.label} is stored already with other bars ({len(old)} rows); "
                f"go on with --existing extend or --existing replace"
            )
        if extend:
            bars = _join(old, bars, config)
            report = _report_of(bars, report)
    facts = {"exchange": config.exchange} if config.exchange else {}
    path = store.save(bars, report, **facts)
    if config.exchange:
        BarStore(store.root / "partial").remove(*key)
    return bars, report, path


def _read(config: IntakeConfig) -> tuple[Bars, QualityReport]:
    read = [
        read_bars(
            file,
            layout=config.layout,
            symbol=config.symbol,
            timeframe=config.timeframe,
            columns=config.columns,
            repairs=config.repairs,
            accept=config.accept,
        )
        for file in config.files
    ]
    bars, report = read[0]
    for other, _ in read[1:]:
        bars = _join(bars, other, config)
    if len(read) > 1:
        report = _joined(bars, [report for _, report in read])
    if config.timerange is not None:
        start_ns, end_ns = timerange_ns(config.timerange)
        bars = between(bars, start_ns, end_ns)
        if not len(bars):
            raise ConfigError(f"timerange {config.timerange!r} holds none of the bars of {config.files[0]}")
        report = _report_of(bars, report)
    return bars, report


def _downloaded(config: IntakeConfig, store: BarStore | None) -> tuple[Bars, QualityReport]:
    timeframe = config.timeframe or "1h"
    settings = {
        "exchange": config.exchange,
        "symbol": config.symbol,
        "timeframe": timeframe,
        "timerange": config.timerange,
        "repairs": config.repairs,
        "accept": config.accept,
        "page_bars": config.page_bars,
        "retries": config.retries,
        "longest_wait_s": config.longest_wait_s,
    }
    source = ExchangeSource(ExchangeConfig(**settings))
    if store is None:
        return source.bars()
    key = (config.symbol, timeframe)
    partial = BarStore(store.root / "partial")
    for place in (store, partial):
        if (
            key in place
            and (held := place.manifest(*key)).get("exchange", config.exchange) != config.exchange
        ):
            raise DataError(
                f"{place.root}: {config.symbol} {timeframe} is stored from {held['exchange']}, and prices of "
                f"{config.exchange} are another market; give another --store"
            )

    main, begun = (place.load(*key) if key in place else None for place in (store, partial))
    known = [one for one in (main, begun) if one is not None]
    if main is not None and begun is not None and _touch(main, begun):
        known = [join(main, begun, keep="last")]

    def keep(bars: Bars) -> None:
        if begun is not None and _touch(begun, bars):
            bars = join(begun, bars, keep="last")
        partial.save(bars, exchange=config.exchange)

    return source.bars(known, keep)


def _touch(first: Bars, second: Bars) -> bool:
    earlier, later = sorted((first, second), key=lambda bars: int(bars.time[0]))
    return bool(later.time[0] <= earlier.time[-1] + earlier.interval_ns)


def _join(first: Bars, second: Bars, config: IntakeConfig) -> Bars:
    # The seam is judged like any other place: two markets under one name differ in price there.
    bars = join(first, second, keep=_keep(config.repairs))
    number = np.arange(1, len(bars) + 1)
    rows = Rows(f"{bars.label} joined", number, bars.time - bars.interval_ns, bars.values, bars.names)
    clean(rows, Remedies((), config.accept), interval_ns=bars.interval_ns, now_ns=time.time_ns())
    return bars


def _keep(repairs: Sequence[str]) -> str | None:
    if "keep-last-conflict" in repairs:
        return "last"
    return "first" if "keep-first-conflict" in repairs else None


def _report_of(bars: Bars, report: QualityReport) -> QualityReport:
    # The facts are those of the bars now; how they were read stays as it was told.
    return quality(
        bars,
        partial_bars=report.partial_bars,
        repairs=report.repairs,
        accepted=report.accepted,
        notes=report.notes,
        source=report.source,
        sha256=report.sha256,
    )


def _joined(bars: Bars, reports: Sequence[QualityReport]) -> QualityReport:
    partial = [one.partial_bars for one in reports if one.partial_bars is not None]
    repairs, accepted = {}, {}
    for one in reports:
        for total, counts in ((repairs, one.repairs), (accepted, one.accepted)):
            for name, count in counts.items():
                total[name] = total.get(name, 0) + count
    return quality(
        bars,
        partial_bars=sum(partial) if partial else None,
        repairs=repairs,
        accepted=accepted,
        notes=tuple(f"{one.source}: {'; '.join(one.notes)}" for one in reports),
        source=", ".join(one.source for one in reports),
        sha256=", ".join(one.sha256 for one in reports),
    )
