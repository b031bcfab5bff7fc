"""Which column of a file is which: the layouts people have, found by their header or width, or named."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from configs.load import ConfigError, did_you_mean
from market.bars import OHLCV
from market.sources.readers import RawTable
from market.table import DataError


@dataclass(frozen=True)
class Layout:
    """How a kind of file writes bars. All of them stamp a bar with its open.

    Parameters
    ----------
    about : str
        What writes such files.
    header : mapping of str to str
        House name to header name, lower case and with ``_`` for spaces; empty when such files have none.
    positions : tuple of str
        House names by position for files without a header; empty when such files always have one.
    switches_unit : bool
        Whether stamps go from ms to µs on 2025-01-01.
    """

    about: str
    header: Mapping[str, str]
    positions: tuple[str, ...] = ()
    switches_unit: bool = False


_SAME = {name: name for name in OHLCV}
LAYOUTS = {
    "binance": Layout(
        "Binance kline dumps and answers, 12 columns",
        {**_SAME, "time": "open_time", "close_time": "close_time"},
        (
            "time",
            *OHLCV,
            "close_time",
            "quote_volume",
            "trades",
            "taker_buy_volume",
            "taker_buy_quote_volume",
        ),
        switches_unit=True,
    ),
    "freqtrade": Layout("freqtrade JSON, Feather and Parquet", {**_SAME, "time": "date"}, ("time", *OHLCV)),
    "ccxt": Layout("ccxt fetch_ohlcv arrays", {}, ("time", *OHLCV)),
    "bitfinex": Layout(
        "Bitfinex candles: open, close, high, low",
        {},
        ("time", "open", "close", "high", "low", "volume"),
    ),
    "yahoo": Layout("Yahoo Finance CSV", {**_SAME, "time": "date", "adjusted": "adj_close"}),
    "tradingview": Layout("TradingView export", {**_SAME, "time": "time"}),
    "generic": Layout("any table with a header that names time, open, high, low, close and volume", _SAME),
}
_TIME_NAMES = ("timestamp", "time", "date", "datetime", "open_time", "opentime", "unix", "ts", "index")
_ALIASES = {
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c"),
    "volume": ("volume", "vol", "v"),
}
_SYMBOL_NAMES = ("symbol", "ticker", "pair", "tic")


@dataclass(frozen=True)
class Assignment:
    """The columns of one file by their house names.

    Parameters
    ----------
    layout : str
        Name of the layout.
    columns : mapping of str to str
        House name to column of the file: the five of bars, ``time`` or ``close_time``, and whatever else is
        wanted.
    extra : tuple of str
        House names of the extra columns that were asked for.
    switches_unit : bool
        See :class:`Layout`.
    symbol_column : str or None
        Column that names the symbol of each row.
    note : str
        What the choice rests on.
    """

    layout: str
    columns: Mapping[str, str]
    extra: tuple[str, ...]
    switches_unit: bool
    symbol_column: str | None
    note: str


def assign(raw: RawTable, layout: str, asked: Mapping[str, str]) -> Assignment:
    """Return which column is which.

    Parameters
    ----------
    raw : RawTable
        The file.
    layout : str
        A name of ``LAYOUTS``, or ``auto``.
    asked : mapping of str to str
        House name to column of the file (its name, or its position from 0 where there is no header); wins
        over the layout. ``close_time`` instead of ``time`` says that stamps are closes; names that are not
        of bars become extra columns.

    Raises
    ------
    ConfigError
        If there is no such layout.
    DataError
        If a column is missing or could be several; the message says which option to give.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise ConfigError(f"--layout {layout}: no such layout{did_you_mean(layout, ['auto', *LAYOUTS])}")
    plain = {}
    for name in raw.names:
        plain.setdefault(_plain(name), []).append(name)
    chosen, why = (layout, "as given") if layout != "auto" else _detect(raw, plain, asked)
    known = LAYOUTS[chosen]
    columns = _named(raw, chosen, plain, asked) if raw.headed else _positioned(raw, chosen, asked)
    for house, column in asked.items():
        columns[house] = _find(raw, house, column, plain)
    if "close_time" in asked and "time" not in asked:
        columns.pop("time", None)
    if "time" not in columns and "close_time" not in columns:
        raise DataError(
            f"{raw.place}: no column is the time; columns are {', '.join(raw.names)}; go on with "
            f"--column time=NAME (opens) or --column close_time=NAME"
        )
    missing = [name for name in OHLCV[:4] if name not in columns]
    if missing:
        raise DataError(
            f"{raw.place}: column {missing[0]} is missing; columns are {', '.join(raw.names)}; go on with "
            f"--column {missing[0]}=NAME"
        )
    reserved = {*OHLCV, "time", "close_time", "adjusted"}
    symbol_column = next((plain[name][0] for name in _SYMBOL_NAMES if name in plain), None)
    return Assignment(
        chosen,
        columns,
        tuple(name for name in asked if name not in reserved),
        known.switches_unit,
        symbol_column,
        f"layout {chosen}: {why}",
    )


def _detect(raw: RawTable, plain: Mapping[str, list[str]], asked: Mapping[str, str]) -> tuple[str, str]:
    if not raw.headed:
        width = len(raw.names)
        if {"open", "high", "low", "close"} <= asked.keys() and {"time", "close_time"} & asked.keys():
            return "generic", "columns as given"
        if width == 12:
            return "binance", "12 columns without a header"
        if width == 6:
            return "ccxt", "6 columns without a header"
        raise DataError(
            f"{raw.place}: has {width} columns and no header; go on with --column time=0 --column open=1 and "
            f"so on, or --layout {' or '.join(name for name, known in LAYOUTS.items() if known.positions)}"
        )
    if {"open_time", "close_time", "open"} <= plain.keys():
        return "binance", "header names open_time and close_time"
    if {"date", "adj_close"} <= plain.keys():
        return "yahoo", "header names Date and Adj Close"
    if set(plain) == {"date", *OHLCV}:
        return "freqtrade", "header is date, open, high, low, close, volume"
    if raw.names[:5] == ("time", *OHLCV[:4]):
        return "tradingview", "header begins time, open, high, low, close"
    return "generic", f"header is {', '.join(raw.names[:12])}{', ...' if len(raw.names) > 12 else ''}"


def _named(
    raw: RawTable, layout: str, plain: Mapping[str, list[str]], asked: Mapping[str, str]
) -> dict[str, str]:
    known = LAYOUTS[layout]
    if not known.header:
        raise DataError(f"{raw.place}: has a header, and files of layout {layout} have none")
    columns = {}
    for house in ("time", "close_time", *OHLCV, "adjusted"):
        if house in asked:
            continue
        if layout == "generic":
            names = _ALIASES.get(house, _TIME_NAMES if house == "time" else (house,))
            if house == "close_time" and any(name in plain for name in _TIME_NAMES):
                continue  # opens are there as well, and are the house rule
            if house == "adjusted" or (house == "time" and "close_time" in asked):
                continue
        else:
            names = (known.header[house],) if house in known.header else ()
        found = [name for wanted in names for name in plain.get(wanted, ())]
        if len(found) > 1:
            raise DataError(
                f"{raw.place}: columns {' and '.join(found)} could each be the {house}; go on with "
                f"--column {house}=NAME"
            )
        if found:
            columns[house] = found[0]
    return columns


def _positioned(raw: RawTable, layout: str, asked: Mapping[str, str]) -> dict[str, str]:
    positions = LAYOUTS[layout].positions
    if layout == "generic":
        return {}
    if not positions:
        raise DataError(f"{raw.place}: has no header, and files of layout {layout} have one")
    if len(raw.names) < 6:
        raise DataError(
            f"{raw.place}: has {len(raw.names)} columns; layout {layout} has {len(positions)} or more"
        )
    kept = {"time", "close_time", *OHLCV}
    return {house: str(i) for i, house in enumerate(positions[: len(raw.names)]) if house in kept}


def _find(raw: RawTable, house: str, column: str, plain: Mapping[str, list[str]]) -> str:
    if column in raw.names:
        return column
    if not raw.headed and column in (positions := LAYOUTS["binance"].positions) and len(raw.names) == 12:
        return str(positions.index(column))
    alike = plain.get(_plain(column), [])
    if len(alike) == 1:
        return alike[0]
    raise DataError(
        f"{raw.place}: --column {house}={column}: no such column{did_you_mean(column, list(raw.names))}"
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", "_", name.strip().lower())


_QUOTES = ("FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USD", "EUR", "GBP", "JPY", "TRY", "BTC", "ETH", "BNB")


def symbol_of(stem: str) -> str:
    """Return the symbol a file name suggests, as ccxt writes it: ``BTCUSDT-1h-2024-01`` gives ``BTC/USDT``.

    >>> symbol_of("btcusdt_binance_spot_1h"), symbol_of("BTC_USDT_USDT-1h-futures"), symbol_of("GOOG")
    ('BTC/USDT', 'BTC/USDT:USDT', 'GOOG')
    """
    words = [word for word in re.split(r"[^A-Za-z0-9]+", stem) if word]
    upper = [word.upper() for word in words]
    if not upper:
        return "BARS"
    for quote in _QUOTES:
        if upper[0].endswith(quote) and len(upper[0]) > len(quote) + 1:
            return f"{upper[0][: -len(quote)]}/{quote}"
    if len(upper) > 1 and upper[1] in _QUOTES:
        settled = f":{upper[2]}" if len(upper) > 2 and upper[2] in _QUOTES else ""
        return f"{upper[0]}/{upper[1]}{settled}"
    return upper[0]


def timeframe_of(stem: str) -> str | None:
    """Return the timeframe a file name mentions, such as ``1h``, or None."""
    found = [word for word in re.split(r"[^A-Za-z0-9]+", stem) if re.fullmatch(r"[1-9]\d{0,3}[smhdw]", word)]
    return found[0] if len(found) == 1 else None
