"""Bars from an exchange, page by page and politely, through ccxt or any object with its ``fetch_ohlcv``.

An exchange forgets, repeats, limits and answers nothing without saying why. What it does not send is reported
as missing, never filled; the bar that has not closed yet is dropped.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from pydantic import Field

from configs.load import Config, ConfigError, InputError, did_you_mean
from market.bars import OHLCV, Bars, between, timeframe_ns, timerange_ns
from market.quality import QualityReport, quality
from market.repair import clean
from market.rows import Remedies, Rows
from market.sources.source import SOURCES
from market.table import DataError, utc

_NS_PER_MS = 1_000_000
GRACE_NS = 10 * 1_000_000_000  # clocks differ by seconds: a bar counts as closed a little later
KEEP_PAGES = 20
_TEMPORARY = {
    "NetworkError",
    "RequestTimeout",
    "RateLimitExceeded",
    "DDoSProtection",
    "ExchangeNotAvailable",
    "OnMaintenance",
}


Page = tuple[np.ndarray, np.ndarray]  # open times int64 (n,) in nanoseconds, values float64 (n, 5)


class Client(Protocol):
    """What is used of a ccxt exchange."""

    def fetch_ohlcv(
        self, symbol: str, timeframe: str, since: int | None, limit: int | None
    ) -> Sequence[Sequence[float]]:
        """Return rows ``[open time in ms, open, high, low, close, volume]`` from ``since`` on."""
        ...


@dataclass
class Patience:
    """How often and how long to try again.

    Parameters
    ----------
    retries : int
        Attempts after the first, per request.
    longest_wait_s : float
        A longer wait asked for by the exchange ends the download; it can be resumed later.
    first_wait_s : float
        Wait before the first further attempt where the exchange names none; it doubles each time.
    sleep : callable
        Given seconds.
    """

    retries: int = 5
    longest_wait_s: float = 300.0
    first_wait_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep


@dataclass
class _Paging:
    # What one download has done so far.
    exchange: Any
    place: str
    symbol: str
    timeframe: str
    patience: Patience
    requests: int = 0
    retried: int = 0
    empty_answers: int = 0
    unfinished: bool = False
    pages: list[Page] = field(default_factory=list)


def connect(name: str) -> Any:
    """Return the ccxt exchange of a name, with its own rate limit on.

    Raises
    ------
    ConfigError
        If ccxt is not installed, or knows no such exchange.
    """
    try:
        import ccxt
    except ImportError:
        raise ConfigError(
            f"exchange {name}: needs ccxt; install it with: pip install 'regime-conductor[live]'"
        ) from None
    if name not in ccxt.exchanges:
        raise ConfigError(f"exchange {name}: ccxt knows no such exchange{did_you_mean(name, ccxt.exchanges)}")
    return getattr(ccxt, name)({"enableRateLimit": True})


def download(
    exchange: str | Client,
    symbol: str,
    timeframe: str,
    start_ns: int,
    end_ns: int | None = None,
    *,
    known: Sequence[Bars] = (),
    repairs: Sequence[str] = (),
    accept: Sequence[str] = (),
    page_bars: int = 1_000,
    patience: Patience | None = None,
    keep: Callable[[Bars], None] | None = None,
    now_ns: Callable[[], int] = time.time_ns,
) -> tuple[Bars, QualityReport]:
    """Return the bars of a time range and their quality report.

    Parameters
    ----------
    exchange : str or Client
        Name of a ccxt exchange, or an object with its ``fetch_ohlcv``.
    symbol, timeframe : str
        As ccxt writes them: ``BTC/USDT``, ``1h``.
    start_ns, end_ns : int
        Nanoseconds UTC; bars that open from ``start_ns`` on and close by ``end_ns``; None is the present.
    known : sequence of Bars
        Unbroken stretches that are there already and are not asked for again.
    repairs, accept : sequence of str
        Named remedies, as for files.
    page_bars : int
        Bars per request; the exchange may send fewer.
    patience : Patience, optional
        How often to try again.
    keep : callable, optional
        Given the bars of the current stretch every 20 pages and when the download ends early, so that the
        next one continues there.
    now_ns : callable
        The clock, nanoseconds UTC.

    Raises
    ------
    ConfigError
        If the exchange is not known, or does not have the timeframe.
    DataError
        If it refuses, stays unreachable, asks to wait too long, or sends what cannot be bars.
    """
    name = exchange if isinstance(exchange, str) else getattr(exchange, "id", type(exchange).__name__)
    client = connect(exchange) if isinstance(exchange, str) else exchange
    interval_ns = timeframe_ns(timeframe)
    offered = getattr(client, "timeframes", None)
    if offered and timeframe not in offered:
        raise ConfigError(f"{name}: has no timeframe {timeframe}{did_you_mean(timeframe, list(offered))}")
    paging = _Paging(client, f"{name} {symbol} {timeframe}", symbol, timeframe, patience or Patience())
    remedies = Remedies(repairs, accept)
    present = now_ns()
    end_ns = present if end_ns is None else min(end_ns, present)
    blocks = [block for one in known if len(block := between(one, start_ns, end_ns))]
    for block in blocks:
        if (block.symbol, block.interval_ns, block.names) != (symbol, interval_ns, OHLCV):
            raise DataError(f"{paging.place}: the known bars are {block.label}; they must be of one kind")
    found = [(block.time - interval_ns, block.values) for block in blocks]
    for first_ns, last_ns in _stretches(blocks, start_ns, end_ns, interval_ns):
        paging.pages = []
        try:
            for _ in _pages(paging, first_ns, last_ns, interval_ns, page_bars, now_ns):
                if keep is not None and len(paging.pages) % KEEP_PAGES == 0:
                    _kept(paging, keep, remedies, interval_ns, present)
        except BaseException:
            if keep is not None and paging.pages:
                # The failure is what the user must see; rows that are no bars are simply not kept.
                with contextlib.suppress(InputError):
                    _kept(paging, keep, remedies, interval_ns, present)
            raise
        found += paging.pages
    if not found:
        raise DataError(
            f"{paging.place}: nothing was sent for {utc(start_ns)} to {utc(end_ns)}; is that before the "
            f"listing?"
        )
    order = sorted(range(len(found)), key=lambda i: found[i][0][0])
    return _checked(paging, [found[i] for i in order], remedies, interval_ns, present, name)


def _stretches(blocks: Sequence[Bars], start_ns: int, end_ns: int, interval_ns: int) -> list[tuple[int, int]]:
    asked, at = [], start_ns + -start_ns % interval_ns
    for block in sorted(blocks, key=lambda block: int(block.time[0])):
        if at < block.time[0] - interval_ns:
            asked.append((at, int(block.time[0]) - interval_ns))
        at = max(at, int(block.time[-1]))
    if at + interval_ns <= end_ns:
        asked.append((at, end_ns))
    return asked


def _pages(
    paging: _Paging, first_ns: int, last_ns: int, interval_ns: int, page_bars: int, now_ns: Callable[[], int]
) -> Iterator[None]:
    at, again, unsure = first_ns, False, 0  # empty answers count as holes once bars follow
    while at + interval_ns <= last_ns:
        stamps, values = _request(paging, at, page_bars)
        inside = (stamps >= at) & (stamps + interval_ns <= last_ns)
        closed = stamps + interval_ns + GRACE_NS <= now_ns()
        if ((stamps >= at) & (stamps < last_ns) & ~closed).any():
            paging.unfinished = True
        if inside.any() and not (inside & closed).any():
            return
        if (inside & closed).any():
            paging.empty_answers, unsure = paging.empty_answers + unsure, 0
            chosen = inside & closed
            paging.pages.append((stamps[chosen], values[chosen]))
            at, again = int(stamps[chosen].max()) + interval_ns, False
            yield
        elif stamps.size and stamps.max() < at:
            raise DataError(
                f"{paging.place}: was asked for bars from {utc(at)} and sent bars up to {utc(stamps.max())}; "
                f"it cannot go back that far"
            )
        elif stamps.size and (stamps >= at).all():
            return  # the next bar it has lies after the stretch
        elif paging.pages and not again:
            again = True  # an empty answer amid data may be an accident: ask once more
        else:
            unsure += 1
            at, again = at + page_bars * interval_ns, False


def _request(paging: _Paging, since_ns: int, limit: int) -> Page:
    client, patience = paging.exchange, paging.patience
    for attempt in range(patience.retries + 1):
        if paging.requests and not getattr(client, "enableRateLimit", False):
            patience.sleep(getattr(client, "rateLimit", 0) / 1_000)
        paging.requests += 1
        try:
            answer = client.fetch_ohlcv(paging.symbol, paging.timeframe, since_ns // _NS_PER_MS, limit)
        except Exception as error:
            wait_s = asked_wait_s(error, client)
            if wait_s is None:
                raise _refused(paging, error) from error
            wait_s = wait_s or patience.first_wait_s * 2**attempt
            if attempt == patience.retries or wait_s > patience.longest_wait_s:
                asks = (
                    f"asks to wait {wait_s:.0f} s" if wait_s > patience.longest_wait_s else "does not answer"
                )
                raise DataError(
                    f"{paging.place}: {asks} ({_said(error)}); run again later, it goes on from there"
                ) from error
            paging.retried += 1
            patience.sleep(wait_s)
            continue
        return _answer_rows(paging, answer)
    raise AssertionError("unreachable: the last attempt returns or raises")


def asked_wait_s(error: Exception, client: Any) -> float | None:
    """Return the seconds to wait after an error; 0 where none are named, None if no attempt is worth it."""
    status = getattr(error, "code", None)
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(status, int) and status not in (418, 429) and status < 500:
        return None
    if not names & _TEMPORARY and not isinstance(error, OSError):
        return None
    headers = getattr(error, "headers", None) or getattr(client, "last_response_headers", None) or {}
    for key, value in headers.items():
        if key.lower() == "retry-after":
            with contextlib.suppress(ValueError):
                return max(0.0, float(value))
    return 0.0


def _refused(paging: _Paging, error: Exception) -> Exception:
    ours = any(kind.__module__.startswith("ccxt") for kind in type(error).__mro__)
    if ours or isinstance(error, OSError):
        return DataError(f"{paging.place}: refused ({type(error).__name__}: {_said(error)})")
    return error


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def _answer_rows(paging: _Paging, answer: Any) -> Page:
    try:
        stamps = np.array([int(row[0]) for row in answer], dtype=np.int64) * _NS_PER_MS
        values = [[np.nan if cell is None else float(cell) for cell in row[1:6]] for row in answer]
        return stamps, np.array(values, dtype=np.float64).reshape(len(values), 5)
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise DataError(
            f"{paging.place}: sent what is no list of time, open, high, low, close, volume ({_said(error)})"
        ) from error


def _kept(
    paging: _Paging, keep: Callable[[Bars], None], remedies: Remedies, interval_ns: int, present_ns: int
) -> None:
    trial = Remedies(remedies.repaired, remedies.accepted)
    bars, _ = _checked(paging, paging.pages, trial, interval_ns, present_ns, "")
    keep(bars)


def _checked(
    paging: _Paging,
    pages: Sequence[Page],
    remedies: Remedies,
    interval_ns: int,
    present_ns: int,
    source: str,
) -> tuple[Bars, QualityReport]:
    stamps = np.concatenate([stamps for stamps, _ in pages])
    values = np.concatenate([values for _, values in pages])
    rows = Rows(paging.place, np.arange(1, stamps.size + 1), stamps, values, OHLCV)
    rows, interval_ns, _ = clean(rows, remedies, interval_ns=interval_ns, now_ns=present_ns)
    bars = Bars(rows.open_time + interval_ns, rows.values, OHLCV, paging.symbol, interval_ns)
    notes = [f"{paging.requests} requests, {paging.retried} repeated"]
    if paging.empty_answers:
        notes.append(
            f"{paging.empty_answers} empty answers amid bars: the exchange has none there, or says so"
        )
    if paging.unfinished:
        notes.append("the bar that has not closed yet is left out")
    return bars, quality(
        bars, repairs=remedies.repaired, accepted=remedies.accepted, notes=tuple(notes), source=source
    )


class ExchangeConfig(Config):
    """Settings of bars from an exchange."""

    exchange: str = Field(description="Name of a ccxt exchange, for example binance.")
    symbol: str = Field(description="As ccxt writes it: BTC/USDT, or BTC/USDT:USDT for a perpetual.")
    timeframe: str = Field("1h", description="Length of a bar.")
    timerange: str = Field(description="Such as 20190101-20240630; an empty end is the present.")
    repairs: tuple[str, ...] = Field((), description="Named repairs; nothing is repaired unasked.")
    accept: tuple[str, ...] = Field((), description="Named oddities to accept.")
    page_bars: int = Field(1_000, ge=1, le=10_000, description="Bars per request.")
    retries: int = Field(5, ge=0, le=100, description="Further attempts per request.")
    longest_wait_s: float = Field(300.0, ge=0, description="A longer wait ends the download for now.")


@SOURCES.register("exchange")
class ExchangeSource:
    """Bars of one symbol from one exchange."""

    Config = ExchangeConfig

    def __init__(self, config: ExchangeConfig) -> None:
        self.config = config

    def bars(
        self, known: Sequence[Bars] = (), keep: Callable[[Bars], None] | None = None
    ) -> tuple[Bars, QualityReport]:
        """Return the bars of the time range; see :func:`download` for what is known and kept."""
        config = self.config
        start_ns, end_ns = timerange_ns(config.timerange)
        if start_ns is None:
            raise ConfigError(
                f"timerange {config.timerange!r} has no start; write one, for example 20190101-"
            )
        return download(
            config.exchange,
            config.symbol,
            config.timeframe,
            start_ns,
            end_ns,
            known=known,
            repairs=config.repairs,
            accept=config.accept,
            page_bars=config.page_bars,
            patience=Patience(config.retries, config.longest_wait_s),
            keep=keep,
        )
