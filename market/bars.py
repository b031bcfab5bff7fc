"""``Bars``: a table that begins open, high, low, close, volume. ``Panel``: several symbols on one clock."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import numpy as np

from market.table import DataError, Table, utc

OHLCV = ("open", "high", "low", "close", "volume")
NS_PER_SECOND = 1_000_000_000
NS_PER_YEAR = 365 * 86_400 * NS_PER_SECOND  # crypto trades every day: 365 days, said wherever it is used


@dataclass(frozen=True, eq=False)
class Bars(Table):
    """Bars of one symbol.

    Parameters
    ----------
    time : int64 (n,)
        **Close** of each bar, nanoseconds UTC.
    values : float64 (n, 5 + extra)
        open, high, low, close [quote currency], volume [base currency], then any extra columns.
    names : tuple of str
        Begins with ``OHLCV``.
    symbol : str
        For example ``BTC/USDT``.
    interval_ns : int
        Length of a bar, nanoseconds.

    Raises
    ------
    DataError
        If a price is not finite and positive, low and high do not enclose open and close, a volume is
        negative or not finite, or a bar does not close on a whole second.
    """

    symbol: str = ""
    interval_ns: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.names[:5] != OHLCV:
            raise DataError(f"{self.label}: columns begin {self.names[:5]}; they must begin {OHLCV}")
        if self.interval_ns <= 0:
            raise DataError(f"{self.label}: interval is {self.interval_ns} ns; it must be positive")
        self._check(self.values[:, :5])

    @property
    def label(self) -> str:
        """Symbol and timeframe, for messages and titles: ``BTC/USDT 1h``."""
        return f"{self.symbol or 'bars'} {timeframe_text(self.interval_ns)}"

    @property
    def bars_per_year(self) -> float:
        """Bars in a year of 365 days."""
        return NS_PER_YEAR / self.interval_ns

    def fingerprint(self) -> str:
        """Return the SHA-256 of symbol, interval and every value: the identity of these data."""
        digest = hashlib.sha256(f"{self.symbol}|{self.interval_ns}|{','.join(self.names)}".encode())
        digest.update(self.time.astype("<i8").tobytes())
        digest.update(self.values.astype("<f8").tobytes())
        return digest.hexdigest()

    def _check(self, values: np.ndarray) -> None:
        prices = values[:, :4]
        rules = (
            (~(np.isfinite(prices) & (prices > 0)), "prices must be positive and finite"),
            (prices > values[:, 1:2], "no price may lie above the high"),
            (prices < values[:, 2:3], "no price may lie below the low"),
            (
                ~(np.isfinite(values[:, 4:5]) & (values[:, 4:5] >= 0)),
                "volume must be zero or more, and finite",
            ),
        )
        for wrong, rule in rules:
            if wrong.any():
                row, column = (int(i) for i in np.argwhere(wrong)[0])
                name = OHLCV[4 if wrong.shape[1] == 1 else column]
                value = values[row, OHLCV.index(name)]
                raise DataError(
                    f"{self.label}: {name} is {value:g} at {utc(self.time[row])} (row {row}); {rule}"
                )
        off = self.time % min(self.interval_ns, NS_PER_SECOND) != 0
        if off.any():
            row = int(np.argmax(off))
            raise DataError(f"{self.label}: row {row} closes at {self.time[row]} ns, not on a whole second")


@dataclass(frozen=True, eq=False)
class Panel:
    """Several symbols on one clock.

    Parameters
    ----------
    bars : mapping of str to Bars
        By symbol; every clock is a subset of ``time``.
    time : int64 (n,)
        The union of the clocks.
    present : bool (n, a)
        Whether a symbol has a bar at a time; symbols in the order of ``bars``.
    """

    bars: Mapping[str, Bars]
    time: np.ndarray
    present: np.ndarray

    @classmethod
    def of(cls, *bars: Bars) -> Self:
        """Return a panel of bars with equal intervals and different symbols."""
        if not bars:
            raise DataError("a panel needs the bars of at least one symbol")
        symbols = [one.symbol for one in bars]
        if len(set(symbols)) != len(symbols):
            raise DataError(f"panel: symbols {symbols} repeat; each symbol has one set of bars")
        if len({one.interval_ns for one in bars}) != 1:
            raise DataError(f"panel: timeframes {[one.label for one in bars]} differ; they must be equal")
        time = np.unique(np.concatenate([one.time for one in bars]))
        present = np.column_stack([np.isin(time, one.time, assume_unique=True) for one in bars])
        time.flags.writeable = present.flags.writeable = False
        return cls(dict(zip(symbols, bars, strict=True)), time, present)


_UNITS = (("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def timeframe_text(interval_ns: int) -> str:
    """Return an interval as traders write it: ``1h``, ``15m``, ``1d``."""
    seconds, rest = divmod(interval_ns, NS_PER_SECOND)
    if rest or seconds <= 0:
        return f"{interval_ns}ns"
    unit, size = next((unit, size) for unit, size in _UNITS if seconds % size == 0)
    return f"{seconds // size}{unit}"


def timeframe_ns(text: str) -> int:
    """Return the nanoseconds of a timeframe such as ``1h``.

    Raises
    ------
    DataError
        If the text is not a whole number followed by s, m, h, d or w.
    """
    sizes = dict(_UNITS)
    number, unit = text[:-1], text[-1:]
    known = unit in sizes and number.isascii() and number.isdigit() and 0 < len(number) <= 9
    if not known or not 0 < int(number) * sizes[unit] * NS_PER_SECOND < 2**63:
        raise DataError(
            f"timeframe {text!r} is not known; write a number and s, m, h, d or w, for example 1h"
        )
    return int(number) * sizes[unit] * NS_PER_SECOND


def timerange_ns(text: str) -> tuple[int | None, int | None]:
    """Return start and end of a range such as ``20190101-20240630`` as nanoseconds UTC.

    The end is exclusive, either side may be empty, and a side may carry hours: ``20190101T12``. A bar
    belongs to the range when its whole span does: opens at or after the start, closes at or before the end.

    Raises
    ------
    DataError
        If the text is no such range, or ends before it starts.
    """
    sides = text.split("-")
    if len(sides) != 2 or not any(sides):
        raise DataError(f"timerange {text!r} must look like 20190101-20240630; either side may be empty")
    start, end = (_instant_ns(side, text) if side else None for side in sides)
    if start is not None and end is not None and start >= end:
        raise DataError(f"timerange {text!r} ends before it starts")
    return start, end


def between(bars: Bars, start: int | None, end: int | None) -> Bars:
    """Return the bars whose whole span lies between two times; see :func:`timerange_ns`."""
    first = 0 if start is None else int(np.searchsorted(bars.time, start + bars.interval_ns, side="left"))
    last = len(bars) if end is None else int(np.searchsorted(bars.time, end, side="right"))
    return bars[first : max(first, last)]


_INSTANT = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)?)?", re.ASCII)


def _instant_ns(side: str, text: str) -> int:
    match = _INSTANT.fullmatch(side)
    try:
        moment = datetime(*(int(part or 0) for part in match.groups()), tzinfo=UTC)
    except (AttributeError, ValueError):
        raise DataError(
            f"timerange {text!r}: {side!r} is not a date; write YYYYMMDD, for example 20190101"
        ) from None
    return int(moment.timestamp()) * NS_PER_SECOND
