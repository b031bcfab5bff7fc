"""On-chain figures under the names of Coin Metrics, and their community API (v4, no key, non-commercial)."""

from pydantic import Field

from configs.load import Config
from market.sources.observations import SERIES_SOURCES, Observations
from market.sources.web import Web, day_text, stamp_ns, value_of
from market.table import DataError

# Metrics whose name does not end with their unit.
_UNITS = {
    "BlkSizeByte": "bytes",
    "BlkSizeMeanByte": "bytes",
    "CapMVRVCur": "ratio",
    "CapMVRVFF": "ratio",
    "DiffMean": "difficulty",
    "DiffLast": "difficulty",
    "HashRate": "TH/s",
    "HashRate30d": "TH/s",
    "IssContPctAnn": "percent",
    "NVTAdj": "ratio",
    "NVTAdj90": "ratio",
    "NVTAdjFF": "ratio",
    "PriceBTC": "BTC",
    "ROI1yr": "percent",
    "ROI30d": "percent",
    "SplyCur": "coins",
    "SplyExpFut10yr": "coins",
    "SplyExpFut10yrCMBI": "coins",
    "SplyFF": "coins",
    "VelCur1yr": "ratio",
    "VtyDayRet180d": "ratio",
    "VtyDayRet30d": "ratio",
    "VtyDayRet60d": "ratio",
}
_ENDINGS = {"USD": "USD", "Ntv": "coins", "Cnt": "count"}
PAGE_ROWS = 10_000


def coin_metrics_unit(metric: str) -> str | None:
    """Return the unit of a Coin Metrics metric; None where the name is not one of theirs."""
    if metric in _UNITS:
        return _UNITS[metric]
    if not (metric[:1].isupper() and metric.isalnum()):
        return None
    return next((unit for ending, unit in _ENDINGS.items() if metric.endswith(ending)), None)


class CoinMetricsConfig(Config):
    """Settings of one metric of Coin Metrics."""

    metric: str = Field(description="Name of the metric, for example AdrActCnt.")
    asset: str = Field("{asset}", description="Asset as Coin Metrics writes it, for example btc.")
    base: str = Field(
        "https://community-api.coinmetrics.io/v4/timeseries/asset-metrics", description="Address of the API."
    )
    key_variable: str | None = Field(
        None, description="Environment variable with the key of the paid API; the community's needs none."
    )


@SERIES_SOURCES.register("coinmetrics")
class CoinMetrics:
    """A daily metric of one asset; days are stamped with their 00:00 UTC."""

    Config = CoinMetricsConfig

    def __init__(self, config: CoinMetricsConfig) -> None:
        self.config = config

    @property
    def unit(self) -> str | None:
        """Unit of the metric."""
        return coin_metrics_unit(self.config.metric)

    def observations(self, web: Web, asset: str, start_ns: int, end_ns: int) -> Observations:
        """Return the days of the range, page by page."""
        config = self.config
        secrets = web.secret(config.key_variable, "api_key")
        query = {
            "assets": config.asset.replace("{asset}", asset.lower()),
            "metrics": config.metric,
            "frequency": "1d",
            "start_time": day_text(start_ns),
            "end_time": day_text(end_ns),
            "paging_from": "start",
            "page_size": PAGE_ROWS,
        }
        place = f"Coin Metrics {config.metric} of {query['assets']}"
        rows, seen = [], set()
        while True:
            reply = web.json(config.base, query, secrets=secrets)
            page = web.field(reply, "data", list, config.base)
            rows += [(stamp_ns(row, "time", place), value_of(row, config.metric, place)) for row in page]
            token = reply.get("next_page_token")
            if not token:
                break
            if token in seen or not isinstance(token, str):
                raise DataError(f"{place}: the server sends one page again and again; try again later")
            seen.add(token)
            query["next_page_token"] = token
        return web.observations(place, rows, start_ns, end_ns)
