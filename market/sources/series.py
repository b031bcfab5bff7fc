"""Which external series a job reads: a registry in YAML, from files, from servers, or a file continued live.

:func:`external_series` returns them, :func:`external_table` joins them to the clock of some bars.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from configs.load import Config, ConfigError, InputError, PluginConfig, did_you_mean, validate
from market.bars import Bars, timeframe_ns, timerange_ns
from market.external import AsOfJoin, ExternalSeries
from market.sources.availability import NS_PER_DAY, availability
from market.sources.exchange import Patience
from market.sources.observations import (
    SERIES_SOURCES,
    Observations,
    SeriesReport,
    Treatment,
    series_of,
)
from market.sources.sentiment import NewsConfig, news_observations
from market.sources.units import check_name, check_units, conversion
from market.sources.web import Web
from market.table import DataError, Table

# A server is asked for this much of what the file has already: to compare the two, and to see revisions.
OVERLAP_NS = 14 * NS_PER_DAY
_SAME = 0.02  # median ratio up to which two copies are one quantity


class SeriesConfig(Config):
    """One external series: where it is from, what it means, and which of its rows count."""

    unit: str = Field(description="Unit of the values, see market.sources.units; the name ends with it.")
    available: str = Field(description="Rule of market.sources.availability: when a value may be used.")
    delay: str | None = Field(None, description="Further delay, such as 30m or 2h, for a slower source.")
    file: str | None = Field(None, description="Path below the folder; {asset} stands for the asset.")
    time: str = Field("timestamp", description="Column of event times.")
    value: str | None = Field(None, description="Column of values; by default the name of the series.")
    published: str | None = Field(None, description="Column of publication times, where revisions are rows.")
    low: str | None = Field(None, description="Column of the lowest value of the row.")
    high: str | None = Field(None, description="Column of the highest value of the row.")
    fund: str | None = Field(None, description="Ticker, where the values are prices of a fund.")
    file_unit: str | None = Field(None, description="Unit of the column, where it is another one.")
    news: NewsConfig | None = Field(None, description="How headlines of the file become values.")
    web: PluginConfig | None = Field(None, description="Live source by name, with its settings.")
    rules: tuple[str, ...] = Field((), description="Rules for wrong rows, see market.sources.observations.")
    least: float | None = Field(None, description="Smallest plausible value, in the unit of the series.")
    most: float | None = Field(None, description="Largest plausible value, in the unit of the series.")
    frozen_after: int | None = Field(None, ge=1, le=10_000, description="Repeats in a row that may happen.")
    grid: str | None = Field(None, description="Distance of events, such as 8h, for round-times.")
    max_age: str | None = Field(None, description="Age of the event, such as 5d, that ends its use.")
    like: str | None = Field(None, description="Another series of the registry in the same unit to compare.")
    optional: bool = Field(False, description="Whether it is left out where the asset has no such file.")

    @field_validator("delay", "grid", "max_age")
    @classmethod
    def _duration(cls, text: str | None) -> str | None:
        try:
            return text if text is None else (timeframe_ns(text), text)[1]
        except InputError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.file is None and self.web is None:
            raise ValueError("needs a file or a web source")
        if (self.low is None) != (self.high is None):
            raise ValueError("needs both low and high, or neither")
        return self

    @property
    def treatment(self) -> Treatment:
        """How the rows are judged."""
        return Treatment(
            self.available,
            availability(self.available),
            self.rules,
            self.least,
            self.most,
            self.frozen_after,
            None if self.grid is None else timeframe_ns(self.grid),
            0 if self.delay is None else timeframe_ns(self.delay),
        )


class ExternalConfig(Config):
    """The external series of a job."""

    folder: str = Field("data/external", description="Folder of the files.")
    asset: str = Field(
        "BTC",
        pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$",
        description="What {asset} stands for, in paths and symbols.",
    )
    names: tuple[str, ...] | Literal["all"] = Field("all", description="Series to read; all is every one.")
    live: bool = Field(False, description="Whether servers are asked for what the files do not have.")
    timerange: str = Field(
        "20170101-", description="Events to ask servers for where there is no file, such as 20200101-."
    )
    retries: int = Field(5, ge=0, le=100, description="Further attempts per request.")
    longest_wait_s: float = Field(300.0, ge=0, description="Longest wait a server may ask for, seconds.")
    timeout_s: float = Field(20.0, gt=0, le=600, description="Seconds without a byte that fail an attempt.")
    longest_reply_mb: int = Field(32, ge=1, le=1_024, description="Longest reply, mebibytes.")
    requests_per_second: float = Field(1.0, gt=0, le=100, description="To one server, at most.")
    series: dict[str, SeriesConfig] = Field({}, description="The registry: name to series.")

    def of_asset(self, asset: str) -> Self:
        """Return the same settings for another asset.

        Raises
        ------
        ConfigError
            If it is no name of an asset.
        """
        return validate(type(self), {**self.model_dump(), "asset": asset}, "external")

    def web(self) -> Web:
        """Return the client of the settings."""
        patience = Patience(retries=self.retries, longest_wait_s=self.longest_wait_s)
        return Web(
            patience,
            timeout_s=self.timeout_s,
            max_bytes=self.longest_reply_mb * 2**20,
            requests_per_second=self.requests_per_second,
        )

    def chosen(self) -> dict[str, SeriesConfig]:
        """Return the series asked for, by name.

        Raises
        ------
        ConfigError
            If a name is not in the registry, does not carry its unit, or a rule is wrong.
        """
        names = tuple(self.series) if self.names == "all" else self.names
        for name in names:
            if name not in self.series:
                known = did_you_mean(name, sorted(self.series))
                raise ConfigError(f"external.names: {name} is no series of the registry{known}")
            one = self.series[name]
            check_name(name, one.unit)
            one.treatment  # noqa: B018  # judged before the first file is opened
            if one.like is not None and one.like not in names:
                raise ConfigError(
                    f"external.series.{name}.like is {one.like}; it must be one of the series that are read"
                )
        return {name: self.series[name] for name in names}


def read_series(
    config: ExternalConfig, web: Web | None = None, now_ns: int | None = None
) -> tuple[list[tuple[ExternalSeries, SeriesReport]], tuple[str, ...]]:
    """Return the series with their reports, and the names of optional ones that are not there.

    Parameters
    ----------
    config : ExternalConfig
    web : Web, optional
        The way to servers; by default as configured.
    now_ns : int, optional
        The present, nanoseconds UTC; what a server says of later is not over yet and left out.

    Raises
    ------
    ConfigError, DataError
        If a setting, a file or a reply is wrong.
    """
    now_ns = time.time_ns() if now_ns is None else now_ns
    web = (web or config.web()) if config.live else None
    files: dict[str, Any] = {}
    found: dict[str, tuple[ExternalSeries, SeriesReport]] = {}
    missing = []
    for name, one in config.chosen().items():
        path = _path(config, one)
        from_web = web is not None and one.web is not None
        if path is None and not from_web:
            if one.optional:
                missing.append(name)
                continue
            raise _no_source(config, name, one)
        if path is not None:
            found[name] = series_of(name, *_of_file(path, name, one, files))
        if from_web:
            found[name] = _live(config, name, one, web, now_ns, found.get(name))
    for name, one in config.chosen().items():
        if one.like in found and name in found:
            series, report = found[name]
            factor = check_units(found[one.like][0], series)
            note = f"{name} is {factor:.4g} times {one.like} (median of common events)"
            found[name] = series, replace(report, notes=(*report.notes, note))
    return list(found.values()), tuple(missing)


def external_series(
    config: ExternalConfig, web: Web | None = None, now_ns: int | None = None
) -> tuple[ExternalSeries, ...]:
    """Return the series of a config; see :func:`read_series` for what can be wrong."""
    return tuple(series for series, _ in read_series(config, web, now_ns)[0])


class ExternalJoin:
    """A stage: the newest known value of each series, which expires by the age of its event.

    Row t uses values with ``available_at <= time[t]`` alone; the stage keeps no memory.

    Parameters
    ----------
    series : sequence of ExternalSeries
        At least one; names must differ.
    max_age_ns : sequence of int or None
        One per series; None keeps a value for ever.
    """

    warmup = 0

    def __init__(self, series: Sequence[ExternalSeries], max_age_ns: Sequence[int | None]) -> None:
        AsOfJoin(series)  # at least one, names differ
        self.series, self.max_age_ns = tuple(series), tuple(max_age_ns)
        self.names = tuple(one.name for one in self.series)
        self._joins = [AsOfJoin([one], age) for one, age in zip(series, max_age_ns, strict=True)]

    def fresh(self) -> Self:
        """Return the stage itself; there is no memory to empty."""
        return type(self)(self.series, self.max_age_ns)

    def update(self, new: Table) -> Table:
        """Return the value of each series known at each row; NaN before the first and after the last."""
        return Table(new.time, np.hstack([join.update(new).values for join in self._joins]), self.names)


def external_join(
    config: ExternalConfig, web: Web | None = None, now_ns: int | None = None, *, events: bool = False
) -> ExternalJoin:
    """Return the stage that joins the series of a config to any clock.

    Parameters
    ----------
    config, web, now_ns
        As for :func:`read_series`.
    events : bool
        Whether the time of each value's event, seconds since 1970, is joined as ``<name>.event``: features
        of :mod:`market.features.cross` read the age of a value from it.
    """
    series = external_series(config, web, now_ns)
    if not series:
        raise DataError(f"{config.folder}: has none of the external series for the asset {config.asset}")
    ages = [config.series[one.name].max_age for one in series]
    ages_ns = [None if age is None else timeframe_ns(age) for age in ages]
    if events:
        series, ages_ns = (*series, *(one.events() for one in series)), ages_ns * 2
    return ExternalJoin(series, ages_ns)


def external_table(
    config: ExternalConfig, bars: Bars | Table, web: Web | None = None, now_ns: int | None = None
) -> Table:
    """Return the external series on the clock of some bars: one row per bar, as known at its close."""
    return external_join(config, web, now_ns).update(bars)


def _path(config: ExternalConfig, one: SeriesConfig) -> str | None:
    if one.file is None:
        return None
    asset = config.asset
    paths = [
        Path(config.folder) / one.file.replace("{asset}", name)
        for name in (asset, asset.lower(), asset.upper())
    ]
    return next((str(path) for path in paths if path.exists()), None)


def _no_source(config: ExternalConfig, name: str, one: SeriesConfig) -> Exception:
    if one.file is None:
        return ConfigError(f"external.series.{name}: has only a web source; set external.live to true")
    path = Path(config.folder) / one.file.replace("{asset}", config.asset.lower())
    return DataError(f"{path}: there is no such file for {name} of the asset {config.asset}")


def _of_file(
    path: str, name: str, one: SeriesConfig, files: dict[str, Any]
) -> tuple[Observations, Treatment]:
    from market.sources.external_files import (  # pyarrow: only when there is a file to read
        Columns,
        file_observations,
        news_of_file,
        read_file,
    )

    raw = read_file(path, files)
    if one.news is not None:
        news = news_of_file(raw, one.time, one.value, one.rules)
        return news_observations(news, one.news), _for_windows(one.treatment)
    columns = Columns(one.value or name, one.time, one.published, one.low, one.high, one.fund, one.file_unit)
    return file_observations(raw, columns, one.unit, one.rules), one.treatment


def _for_windows(treatment: Treatment) -> Treatment:
    # The rules of a news series are about headlines, and have done their work when there are windows.
    return replace(treatment, rules=())


def _live(
    config: ExternalConfig,
    name: str,
    one: SeriesConfig,
    web: Web,
    now_ns: int,
    history: tuple[ExternalSeries, SeriesReport] | None,
) -> tuple[ExternalSeries, SeriesReport]:
    source = SERIES_SOURCES.create(one.web.name, one.web.settings)
    start_ns, end_ns = timerange_ns(config.timerange)
    end_ns = now_ns if end_ns is None else min(end_ns, now_ns)
    if history is not None:
        start_ns = int(history[0].event_time.max()) - OVERLAP_NS
    elif start_ns is None:
        raise ConfigError(f"external.timerange {config.timerange!r} has no start; write one, like 20200101-")
    rows = source.observations(web, config.asset, start_ns, end_ns)
    factor = _web_factor(name, one, source)
    rows = replace(rows, value=rows.value * factor)
    treatment = _for_windows(one.treatment) if isinstance(source.config, NewsConfig) else one.treatment
    fresh, report = series_of(name, rows, treatment)
    over = fresh.available_at <= now_ns
    notes = report.notes
    if not over.all():
        # Today's value still changes; what is stored under its day must be the one that stays.
        notes += (f"{int((~over).sum())} values are not final yet and left out",)
        fresh = ExternalSeries(
            fresh.event_time[over], fresh.available_at[over], fresh.value[over], fresh.name
        )
    if history is None:
        return fresh, replace(report, used=len(fresh), notes=notes)
    series, revised = continued(history[0], fresh, now_ns)
    if revised:
        notes += (f"{revised} values differ from the file and count as revisions from now on",)
    rules = {rule: history[1].rules.get(rule, 0) + count for rule, count in report.rules.items()}
    origin = f"{history[1].origin} and {report.origin}"
    used = len(series)
    return series, SeriesReport(
        name, origin, report.available, history[1].rows + report.rows, used, rules, history[1].notes + notes
    )


def _web_factor(name: str, one: SeriesConfig, source: Any) -> float:
    told = getattr(source, "unit", None)
    return 1.0 if told is None else conversion(told, one.unit)


def continued(history: ExternalSeries, fresh: ExternalSeries, now_ns: int) -> tuple[ExternalSeries, int]:
    """Return a series with what a server knows beyond it, and how many values the server has revised.

    Events after the last of the history join under their own rule. A value that differs from the history is a
    revision: nobody knew it before, so it becomes a further row that is available now.

    Raises
    ------
    DataError
        If the two share no event, or differ by more than 2 % in the median: then they are two quantities.
    """
    place = f"{history.name}: file and server"
    try:
        factor = check_units(history, fresh)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    if abs(factor - 1) > _SAME:
        raise DataError(
            f"{place} differ by a factor {factor:.3g}; one series must have one definition: give the "
            f"server's a name of its own"
        )
    latest = {}
    for event, value in zip(history.event_time.tolist(), history.value.tolist(), strict=True):
        latest[event] = value  # rows are in order of availability: the last one is the newest revision
    last = int(history.event_time.max())
    new = fresh.event_time > last
    known = np.array([latest.get(event, np.nan) for event in fresh.event_time.tolist()])
    late = ~new & np.isnan(known)  # an event the file lacks: it is news from now on
    revised = ~new & (np.abs(fresh.value - known) > 1e-6 * np.maximum(np.abs(fresh.value), np.abs(known)))
    newest = np.zeros(len(fresh), bool)
    newest[list({event: row for row, event in enumerate(fresh.event_time.tolist())}.values())] = True
    late, revised = late & newest, revised & newest
    take = new | late | revised
    available = np.where(new, fresh.available_at, np.maximum(fresh.available_at, now_ns))
    return (
        ExternalSeries(
            np.concatenate([history.event_time, fresh.event_time[take]]),
            np.concatenate([history.available_at, available[take]]),
            np.concatenate([history.value, fresh.value[take]]),
            history.name,
        ),
        int(np.count_nonzero(revised | late)),
    )
