"""Funding rates and open interest of perpetual contracts, from an exchange through ccxt (extra ``live``)."""

from typing import Any

from pydantic import Field

from configs.load import Config, ConfigError
from market.bars import timeframe_ns
from market.sources.exchange import asked_wait_s, connect
from market.sources.observations import SERIES_SOURCES, Observations
from market.sources.web import Web, stamp_ns, value_of
from market.table import DataError, utc

_NS_PER_MS = 1_000_000


class _Pages:
    # One method of ccxt, asked page by page: an exchange forgets, repeats and limits.

    def __init__(self, exchange: str, method: str, symbol: str, web: Web) -> None:
        self.client = connect(exchange)
        self.place = f"{exchange} {method} {symbol}"
        self.method = getattr(self.client, method, None)
        has = getattr(self.client, "has", None) or {}
        told = "".join(part.capitalize() if i else part for i, part in enumerate(method.split("_")))
        if self.method is None or has.get(told, True) in (False, None):
            raise ConfigError(f"exchange {exchange}: ccxt offers no {method} there; choose another exchange")
        self.symbol = symbol
        self.web = web

    def rows(
        self, start_ns: int, end_ns: int, window_ns: int, limit: int, value: str, **params: Any
    ) -> list[tuple[int, float]]:
        """Return time and value from the start of the range to its end or a page beyond, by time."""
        found: dict[int, float] = {}
        at = start_ns
        while at < end_ns:
            page = self._page(since=at // _NS_PER_MS, limit=limit, **params)
            fresh = {stamp_ns(row, "timestamp", self.place): value_of(row, value, self.place) for row in page}
            fresh = {ns: one for ns, one in fresh.items() if ns >= at}
            if page and not fresh:
                raise DataError(
                    f"{self.place}: was asked from {utc(at)} and sent only older rows; it cannot be paged"
                )
            found |= fresh
            # An empty answer is a hole, or the time before the listing.
            at = max(fresh) + _NS_PER_MS if fresh else at + window_ns
        return sorted(found.items())

    def _page(self, **query: Any) -> list[dict[str, Any]]:
        patience = self.web.patience
        for attempt in range(patience.retries + 1):
            if not getattr(self.client, "enableRateLimit", False):
                patience.sleep(getattr(self.client, "rateLimit", 0) / 1_000)
            try:
                answer = self.method(self.symbol, **query)
            except Exception as error:
                wait_s = asked_wait_s(error, self.client)
                said = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
                if wait_s is None:
                    if any(kind.__module__.startswith("ccxt") for kind in type(error).__mro__):
                        raise DataError(f"{self.place}: refused ({type(error).__name__}: {said})") from error
                    raise
                wait_s = wait_s or patience.first_wait_s * 2**attempt
                if attempt == patience.retries or wait_s > patience.longest_wait_s:
                    raise DataError(f"{self.place}: does not answer ({said}); try again later") from error
                patience.sleep(wait_s)
                continue
            if not isinstance(answer, list):
                raise DataError(f"{self.place}: sent {type(answer).__name__}; it must send a list of rows")
            return answer
        raise AssertionError("unreachable: the last attempt returns or raises")


class FundingConfig(Config):
    """Settings of the funding rates of one perpetual contract."""

    exchange: str = Field("binance", description="Name of a ccxt exchange.")
    symbol: str = Field("{asset}/USDT:USDT", description="Contract as ccxt writes it.")
    interval: str = Field("8h", description="Time between settlements, to step over holes.")
    page_rows: int = Field(100, ge=1, le=1_000, description="Rows per request; some venues fail above 100.")


@SERIES_SOURCES.register("funding")
class Funding:
    """Settled funding rates, fraction of the notional per settlement; positive: longs pay."""

    Config = FundingConfig

    def __init__(self, config: FundingConfig) -> None:
        self.config = config

    def observations(self, web: Web, asset: str, start_ns: int, end_ns: int) -> Observations:
        """Return the settlements of the range."""
        config = self.config
        symbol = config.symbol.replace("{asset}", asset.upper())
        pages = _Pages(config.exchange, "fetch_funding_rate_history", symbol, web)
        window_ns = config.page_rows * timeframe_ns(config.interval)
        rows = pages.rows(start_ns, end_ns, window_ns, config.page_rows, "fundingRate")
        return web.observations(pages.place, rows, start_ns, end_ns)


class OpenInterestConfig(Config):
    """Settings of the open interest of one perpetual contract."""

    exchange: str = Field("binance", description="Name of a ccxt exchange.")
    symbol: str = Field("{asset}/USDT:USDT", description="Contract as ccxt writes it.")
    timeframe: str = Field("1h", description="Distance of snapshots.")
    measure: str = Field(
        "value",
        pattern="^(value|amount)$",
        description="value in the quote currency, or amount in contracts or coins.",
    )
    keeps: str | None = Field(
        "30d", description="How far back the exchange remembers; older snapshots are not asked for."
    )
    page_rows: int = Field(100, ge=1, le=1_000, description="Rows per request.")


@SERIES_SOURCES.register("open-interest")
class OpenInterest:
    """Snapshots of the open interest of one exchange; Binance keeps a month of them and no more."""

    Config = OpenInterestConfig

    def __init__(self, config: OpenInterestConfig) -> None:
        self.config = config

    def observations(self, web: Web, asset: str, start_ns: int, end_ns: int) -> Observations:
        """Return the snapshots of the range."""
        config = self.config
        symbol = config.symbol.replace("{asset}", asset.upper())
        pages = _Pages(config.exchange, "fetch_open_interest_history", symbol, web)
        window_ns = config.page_rows * timeframe_ns(config.timeframe)
        if config.keeps is not None:
            # An hour less: what is asked for at the edge is refused as too old.
            start_ns = max(start_ns, end_ns - timeframe_ns(config.keeps) + timeframe_ns("1h"))
        key = {"value": "openInterestValue", "amount": "openInterestAmount"}[config.measure]
        rows = pages.rows(start_ns, end_ns, window_ns, config.page_rows, key, timeframe=config.timeframe)
        return web.observations(pages.place, rows, start_ns, end_ns)
