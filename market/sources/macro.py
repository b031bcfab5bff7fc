"""Macro series from their servers: FRED with its revisions, FRED without a key, and the chart API of Yahoo.

Yahoo's API is undocumented and may end any day; it is here because the dollar index has no other free source.
"""

import csv
import io
from dataclasses import replace

from pydantic import Field

from configs.load import Config
from market.sources.availability import NS_PER_DAY
from market.sources.observations import SERIES_SOURCES, Observations
from market.sources.web import Web, day_text, stamp_ns, value_of
from market.table import DataError

PAGE_ROWS = 100_000
_MOST_PAGES = 100
# One request may span 2,000 publications, and some series have one every day of the week.
_VINTAGE_DAYS = 5 * 365


class FredConfig(Config):
    """Settings of one series of FRED's API."""

    series: str = Field(description="Identifier, for example DGS10.")
    vintages: bool = Field(
        False, description="Whether every revision is a row, with the day on which it was published."
    )
    base: str = Field(
        "https://api.stlouisfed.org/fred/series/observations", description="Address of the API."
    )
    key_variable: str = Field("FRED_API_KEY", description="Environment variable that holds the key.")


@SERIES_SOURCES.register("fred")
class Fred:
    """A series of FRED; with ``vintages`` as it was known on each day (ALFRED)."""

    Config = FredConfig

    def __init__(self, config: FredConfig) -> None:
        self.config = config

    def observations(self, web: Web, asset: str, start_ns: int, end_ns: int) -> Observations:
        """Return the days of the range; with vintages each carries its publication day."""
        config = self.config
        place = f"FRED {config.series}"
        query = {
            "series_id": config.series,
            "file_type": "json",
            "observation_start": day_text(start_ns),
            "observation_end": day_text(end_ns),
        }
        if not config.vintages:
            return web.observations(place, [row[:2] for row in self._rows(web, query)], start_ns, end_ns)
        rows: list[tuple[int, float, int]] = []
        known: dict[int, float] = {}
        first, today = start_ns // NS_PER_DAY, web.now_ns() // NS_PER_DAY
        for begin in range(first, max(today, first) + 1, _VINTAGE_DAYS):
            window = {
                "realtime_start": day_text(begin * NS_PER_DAY),
                "realtime_end": day_text((begin + _VINTAGE_DAYS - 1) * NS_PER_DAY),
            }
            for event, value, published in sorted(self._rows(web, query | window), key=lambda row: row[2]):
                # Each window dates what was known before it to its own first day: that is no publication.
                if event in known and (known[event] == value or value != value):
                    continue
                known[event] = value
                rows.append((event, value, published))
        return web.observations(place, [row[:2] for row in rows], start_ns, end_ns, [row[2] for row in rows])

    def _rows(self, web: Web, query: dict[str, object]) -> list[tuple[int, float, int]]:
        # Event, value and publication day, page by page.
        config = self.config
        place = f"FRED {config.series}"
        secrets = web.secret(config.key_variable, "api_key", required=True)
        rows: list[tuple[int, float, int]] = []
        for _ in range(_MOST_PAGES):
            reply = web.json(config.base, query | {"limit": PAGE_ROWS, "offset": len(rows)}, secrets=secrets)
            page = web.field(reply, "observations", list, config.base)
            rows += [
                (
                    stamp_ns(row, "date", place),
                    value_of(row, "value", place),
                    stamp_ns(row, "realtime_start", place),
                )
                for row in page
            ]
            if not page or len(rows) >= web.field(reply, "count", int, config.base):
                return rows
        raise DataError(f"{place}: sent {_MOST_PAGES} pages and announces more; ask for a shorter range")


class FredGraphConfig(Config):
    """Settings of one series of FRED's graph files, which need no key and know no revisions."""

    series: str = Field(description="Identifier, for example VIXCLS.")
    base: str = Field("https://fred.stlouisfed.org/graph/fredgraph.csv", description="Address of the file.")


@SERIES_SOURCES.register("fred-graph")
class FredGraph:
    """A series of FRED as its newest revision."""

    Config = FredGraphConfig

    def __init__(self, config: FredGraphConfig) -> None:
        self.config = config

    def observations(self, web: Web, asset: str, start_ns: int, end_ns: int) -> Observations:
        """Return the days of the range."""
        config = self.config
        place = f"FRED {config.series}"
        query = {"id": config.series, "cosd": day_text(start_ns), "coed": day_text(end_ns)}
        try:
            text = web.fetch(config.base, query).decode("utf-8-sig")
            table = list(csv.DictReader(io.StringIO(text), strict=True))
        except (UnicodeDecodeError, csv.Error):
            raise DataError(f"{place}: sent what is no CSV table") from None
        # The column of dates was renamed once already.
        day = next((name for name in ("observation_date", "DATE") if table and name in table[0]), None)
        if day is None or config.series not in table[0]:
            start = ascii(text[:40])
            raise DataError(f"{place}: sent {start}...; the table must have a date and {config.series}")
        rows = [(stamp_ns(row, day, place), value_of(row, config.series, place)) for row in table]
        return web.observations(place, rows, start_ns, end_ns)


class YahooConfig(Config):
    """Settings of one symbol of Yahoo's chart API."""

    symbol: str = Field(description="Symbol, for example DX-Y.NYB or GLD.")
    base: str = Field(
        "https://query1.finance.yahoo.com/v8/finance/chart", description="Address without the symbol."
    )


@SERIES_SOURCES.register("yahoo")
class Yahoo:
    """Daily closes of one symbol, not adjusted for dividends: an adjusted past changes with each one."""

    Config = YahooConfig

    def __init__(self, config: YahooConfig) -> None:
        self.config = config

    def observations(self, web: Web, asset: str, start_ns: int, end_ns: int) -> Observations:
        """Return the trading days of the range, each stamped with its 00:00 UTC."""
        import urllib.parse

        config = self.config
        place = f"Yahoo {config.symbol}"
        url = f"{config.base}/{urllib.parse.quote(config.symbol, safe='')}"
        query = {
            "interval": "1d",
            "period1": start_ns // 1_000_000_000,
            "period2": end_ns // 1_000_000_000,
            "events": "div,splits",
        }
        reply = web.json(url, query)
        result = web.field(reply, "chart.result.0", dict, url)
        stamps = web.field(result, "timestamp", list, url)
        offset_s = web.field(result, "meta.gmtoffset", int, url)
        if abs(offset_s) > 86_400:
            raise DataError(f"{place}: sent a zone {offset_s} s from UTC; it must be within a day")
        columns = web.field(result, "indicators.quote.0", dict, url)
        closes = web.field(columns, "close", list, url)
        if len(stamps) != len(closes):
            raise DataError(f"{place}: sent {len(stamps)} times and {len(closes)} closes; one per day")
        rows = []
        for stamp, close in zip(stamps, closes, strict=True):
            # Stamped with the opening bell, as a moment; the event is the day at the exchange.
            ns = stamp_ns({"timestamp": stamp}, "timestamp", place) + offset_s * 1_000_000_000
            rows.append((ns - ns % NS_PER_DAY, value_of({"close": close}, "close", place)))
        found = web.observations(place, rows, start_ns, end_ns)
        events = result.get("events")
        if not isinstance(events, dict) or "dividends" not in events:
            return found
        paid = len(web.field(result, "events.dividends", dict, url))
        what = f"{config.symbol} paid {paid} distributions in this time, and its prices are not adjusted"
        return replace(found, unadjusted=(len(found), what))
