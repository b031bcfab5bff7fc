"""Live series against a stub on 127.0.0.1 that answers in recorded shapes, and against odd ones."""

import json
import urllib.parse

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.load import ConfigError, InputError
from market.sources import derivatives
from market.sources.observations import SERIES_SOURCES
from market.sources.onchain import coin_metrics_unit
from market.sources.series import read_series
from market.sources.web import Web
from market.table import DataError
from tests.market.web_stub import (
    DAY,
    HOUR,
    SECRET,
    client,
    live_config,
    ns,
    source,
)

# Servers, in the shapes they answer in.


def fear_greed(query):
    assert query == {"limit": "0", "format": "json"}
    days = ["2024-01-03", "2024-01-02", "2024-01-01"]  # newest first
    return {
        "name": "Fear and Greed Index",
        "data": [
            {
                "value": str(70 - i),
                "value_classification": "Greed",
                "timestamp": str(ns(day) // 10**9),
                **({"time_until_update": "68499"} if i == 0 else {}),
            }
            for i, day in enumerate(days)
        ],
        "metadata": {"error": None},
    }


def test_fear_and_greed(stub, waits):
    stub.routes["/fng/"] = fear_greed
    rows = source("fear-greed", base=f"{stub.base}/fng/").observations(
        client(waits), "BTC", ns("2024-01-02"), ns("2024-02-01")
    )
    assert rows.event_time.tolist() == [ns("2024-01-02"), ns("2024-01-03")]
    assert rows.value.tolist() == [69, 70]


def coin_metrics(query):
    assert query["assets"] == "btc"
    assert query["frequency"] == "1d"
    assert query["start_time"] == "2024-01-01"
    first = 0 if "next_page_token" not in query else 2
    days = [f"2024-01-0{i + 1}T00:00:00.000000000Z" for i in range(3)]
    rows = [
        {"asset": "btc", "time": day, query["metrics"]: None if i == 1 else f"{900_000 + i}.5"}
        for i, day in enumerate(days)
    ][first : first + 2]
    page = {"data": rows}
    if not first:
        page |= {"next_page_token": "0.MjAyNA", "next_page_url": "https://elsewhere.invalid/"}
    return page


def test_coin_metrics_page_by_page(stub, waits):
    stub.routes["/v4"] = coin_metrics
    metric = source("coinmetrics", metric="AdrActCnt", base=f"{stub.base}/v4")
    rows = metric.observations(client(waits), "BTC", ns("2024-01-01"), ns("2024-02-01"))
    np.testing.assert_array_equal(rows.value, [900_000.5, np.nan, 900_002.5])
    assert rows.event_time.tolist() == [ns(f"2024-01-0{day}") for day in (1, 2, 3)]
    assert [request[1].get("next_page_token") for request in stub.requests] == [None, "0.MjAyNA"]
    # A server that repeats its page would never end.
    stub.routes["/v4"] = lambda query: {"data": [], "next_page_token": "same"}
    with pytest.raises(DataError, match="sends one page again and again"):
        metric.observations(client(waits), "BTC", 0, DAY)


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        ("AdrActCnt", "count"),
        ("TxTfrValAdjUSD", "USD"),
        ("FeeTotNtv", "coins"),
        ("HashRate", "TH/s"),
        ("CapMVRVCur", "ratio"),
        ("DiffMean", "difficulty"),
        ("SplyCur", "coins"),
        ("close", None),
        ("open_interest_USD", None),
    ],
)
def test_names_of_coin_metrics_tell_their_unit(metric, unit):
    assert coin_metrics_unit(metric) == unit


def test_every_metric_of_the_files_has_a_unit(shared_data):
    for asset in ("btc", "eth", "ltc"):
        names = pq.read_schema(shared_data / "onchain" / f"{asset}_coinmetrics_1d.parquet").names
        assert [name for name in names if name != "timestamp" and coin_metrics_unit(name) is None] == []


# Published on, about, value: as FRED remembers them.
VINTAGES = [
    ("2024-01-03", "2024-01-02", "3.95"),
    ("2024-01-04", "2024-01-03", "."),
    ("2024-01-05", "2024-01-04", "3.99"),
    ("2024-01-10", "2024-01-02", "3.96"),
    ("2029-06-01", "2024-01-04", "4.01"),
    ("2029-06-01", "2029-05-31", "2.50"),
]


def fred(query):
    """What FRED says of a window of publications: it cuts their spans at the window, as ALFRED does."""
    start, end = query["realtime_start"], query["realtime_end"]
    assert (ns(end) - ns(start)) // DAY < 2_000, "more vintages than one request may have"
    rows = []
    for published, day, value in VINTAGES:
        later = [other for other, about, _ in VINTAGES if about == day and other > published]
        until = min(later, default="9999-12-31")
        if published <= end and until > start:
            cut = max(published, start)
            rows.append({"realtime_start": cut, "realtime_end": until, "date": day, "value": value})
    rows.sort(key=lambda row: (row["date"], row["realtime_start"]))
    at, limit = int(query["offset"]), 3
    return {"count": len(rows), "offset": at, "limit": limit, "observations": rows[at : at + limit]}


def test_fred_with_its_revisions(stub, waits, monkeypatch, tmp_path):
    monkeypatch.setenv("FRED_API_KEY", SECRET)
    stub.routes["/fred"] = fred
    web = {"name": "fred", "series": "DGS10", "vintages": True, "base": f"{stub.base}/fred"}
    spec = {"unit": "percent", "available": "published-day", "web": web, "rules": ["drop-nulls"]}
    config = live_config(tmp_path, {"us10y_pct": spec})
    now = ns("2031-01-01")
    [(series, report)], _ = read_series(config, client(waits, now_ns=lambda: now), now)
    assert report.rules == {"drop-nulls": 1}
    assert report.rows == len(VINTAGES)  # a window adds no publication of its own
    got = list(zip(series.event_time, series.available_at, series.value, strict=True))
    assert got == [
        (ns("2024-01-02"), ns("2024-01-04T05:00:00"), 3.95),
        (ns("2024-01-04"), ns("2024-01-06T05:00:00"), 3.99),
        (ns("2024-01-02"), ns("2024-01-11T05:00:00"), 3.96),
        (ns("2024-01-04"), ns("2029-06-02T04:00:00"), 4.01),
        (ns("2029-05-31"), ns("2029-06-02T04:00:00"), 2.5),
    ]
    windows = {query["realtime_start"] for _, query, _ in stub.requests}
    assert len(windows) == 2
    # Negative control: the newest revision alone, under the date of its event, would be known too early.
    assert dict(zip(series.event_time, series.value, strict=True))[ns("2024-01-02")] == 3.96


@pytest.mark.parametrize("column", ["observation_date", "DATE"])
def test_fred_without_a_key(stub, waits, column):
    def graph(query):
        assert query == {"id": "VIXCLS", "cosd": "2024-01-01", "coed": "2024-01-10"}
        return f"{column},VIXCLS\n2024-01-01,\n2024-01-02,13.20\n2024-01-03,.\n2024-01-04,14.13\n".encode()

    stub.routes["/graph.csv"] = graph
    fred = source("fred-graph", series="VIXCLS", base=f"{stub.base}/graph.csv")
    rows = fred.observations(client(waits), "BTC", ns("2024-01-01"), ns("2024-01-10"))
    np.testing.assert_array_equal(rows.value, [np.nan, 13.2, np.nan, 14.13])
    for body in (b"<html>error</html>", b"DATE,DGS10\n2024-01-02,1\n", b"\xff\xfe"):
        stub.routes["/graph.csv"] = lambda query, body=body: body
        with pytest.raises(DataError, match="FRED VIXCLS: sent"):
            fred.observations(client(waits), "BTC", ns("2024-01-01"), ns("2024-01-10"))


def chart(symbol, dividends=None):
    # Days open at 14:30 UTC in New York; the last one is still under way.
    stamps = [ns(f"2024-01-0{day}T14:30:00") // 10**9 for day in (2, 3, 4)]
    result = {
        "meta": {"symbol": symbol, "gmtoffset": -18_000, "exchangeTimezoneName": "America/New_York"},
        "timestamp": stamps,
        "indicators": {
            "quote": [
                {"close": [191.1, None, 189.5], "open": [1, 2, 3], "low": [1, 2, 3], "high": [1, 2, 3]}
            ],
            "adjclose": [{"adjclose": [191.1, None, 189.5]}],
        },
    }
    if dividends:
        result["events"] = {"dividends": dividends}
    return {"chart": {"result": [result], "error": None}}


def test_yahoo_closes_by_the_day_of_the_exchange(stub, waits):
    stub.routes["/chart/GLD"] = lambda query: chart("GLD")
    yahoo = source("yahoo", symbol="GLD", base=f"{stub.base}/chart")
    rows = yahoo.observations(client(waits), "BTC", ns("2024-01-01"), ns("2024-01-10"))
    assert rows.event_time.tolist() == [ns(f"2024-01-0{day}") for day in (2, 3, 4)]
    np.testing.assert_array_equal(rows.value, [191.1, np.nan, 189.5])
    assert rows.unadjusted is None
    stub.routes["/chart/%5EGSPC"] = lambda query: chart("^GSPC")
    source("yahoo", symbol="^GSPC", base=f"{stub.base}/chart").observations(
        client(waits), "BTC", ns("2024-01-01"), ns("2024-01-10")
    )
    error = {"chart": {"result": None, "error": {"code": "Not Found"}}}
    stub.routes["/chart/GLD"] = lambda query: error
    with pytest.raises(DataError, match=r"/chart/GLD: the reply has no chart.result.0; has the API changed"):
        yahoo.observations(client(waits), "BTC", ns("2024-01-01"), ns("2024-01-10"))


def test_distributions_in_a_reply_need_the_rule(stub, waits, tmp_path):
    paid = {"1704290400": {"amount": 0.5, "date": 1704290400}}
    stub.routes["/chart/UUP"] = lambda query: chart("UUP", paid)
    spec = {
        "unit": "USD",
        "available": "us-close",
        "web": {"name": "yahoo", "symbol": "UUP", "base": f"{stub.base}/chart"},
        "rules": ["drop-nulls"],
    }
    now = ns("2024-02-01")
    with pytest.raises(DataError, match=r"UUP paid 1 distributions .* go on with the rule unadjusted-prices"):
        read_series(live_config(tmp_path, {"dollar_etf_usd": spec}), client(waits), now)
    spec["rules"].append("unadjusted-prices")
    [(_, report)], _ = read_series(live_config(tmp_path, {"dollar_etf_usd": spec}), client(waits), now)
    assert report.rules["unadjusted-prices"] == 3


def test_a_day_that_is_not_over_is_left_out(stub, waits, tmp_path):
    stub.routes["/chart/GLD"] = lambda query: chart("GLD")
    spec = {
        "unit": "USD",
        "available": "us-close",
        "web": {"name": "yahoo", "symbol": "GLD", "base": f"{stub.base}/chart"},
        "rules": ["drop-nulls"],
    }
    config = live_config(tmp_path, {"gold_etf_usd": spec})
    [(series, report)], _ = read_series(config, client(waits), ns("2024-01-04T20:59:59"))
    assert series.value.tolist() == [191.1]
    assert report.notes[-1] == "1 values are not final yet and left out"
    [(series, _)], _ = read_series(config, client(waits), ns("2024-01-04T21:00:00"))
    assert series.value.tolist() == [191.1, 189.5]


def test_a_file_is_continued_by_its_server(stub, waits, tmp_path):
    stub.routes["/fng/"] = fear_greed
    time = ns("2023-12-25") + DAY * np.arange(8)  # to 2024-01-01
    values = np.array([60, 61, 62, 63, 64, 65, 66, 68.0])
    path = tmp_path / "fear.parquet"
    pq.write_table(pa.table({"timestamp": pa.array(time, pa.timestamp("ns", "UTC")), "v": values}), path)
    spec = {
        "unit": "index",
        "available": "shortly-after",
        "file": "fear.parquet",
        "value": "v",
        "web": {"name": "fear-greed", "base": f"{stub.base}/fng/"},
    }
    config = live_config(tmp_path, {"fear_greed_index": spec})
    [(series, report)], _ = read_series(config, client(waits), ns("2024-02-01"))
    assert len(series) == 10
    assert series.value[-2:].tolist() == [69, 70]
    assert series.available_at[-1] == ns("2024-01-03T00:10:00")
    assert "fear.parquet" in report.origin
    assert "alternative.me" in report.origin
    # Not live, the server is not asked.
    before = len(stub.requests)
    [(series, _)], _ = read_series(config.model_copy(update={"live": False}), client(waits))
    assert (len(series), len(stub.requests)) == (8, before)
    # What the server has revised since is a row of its own.
    revised = fear_greed({"limit": "0", "format": "json"})
    revised["data"].append({"value": "62", "timestamp": str(ns("2023-12-28") // 10**9)})
    stub.routes["/fng/"] = lambda query: revised
    [(series, report)], _ = read_series(config, client(waits), ns("2024-02-01"))
    assert series.value[series.available_at == ns("2024-02-01")].tolist() == [62]
    assert series.value[series.event_time == ns("2023-12-28")].tolist() == [63, 62]
    assert report.notes[-1] == "1 values differ from the file and count as revisions from now on"
    # A server with another quantity is refused.
    pq.write_table(pa.table({"timestamp": pa.array(time, pa.timestamp("ns", "UTC")), "v": values / 2}), path)
    with pytest.raises(DataError, match=r"file and server differ by a factor 1\.98"):
        read_series(config, client(waits), ns("2024-02-01"))


# Whatever a server sends.

RECORDED = {
    "fear-greed": fear_greed({"limit": "0", "format": "json"}),
    "coinmetrics": {"data": [{"asset": "btc", "time": "2024-01-02T00:00:00Z", "AdrActCnt": "1"}]},
    "fred": {
        "count": 1,
        "observations": [{"realtime_start": "2024-01-03", "date": "2024-01-02", "value": "3.95"}],
    },
    "yahoo": chart("GLD", {"1": {"amount": 1}}),
    "news": {
        "Data": [
            {"published_on": 1_704_164_400, "title": "Crash", "body": "y"},
            {"published_on": 1_704_153_600, "title": "Rally", "body": "x"},
        ]
    },
}
SETTINGS = {
    "coinmetrics": {"metric": "AdrActCnt"},
    "fred": {"series": "DGS10", "vintages": True, "key_variable": "STUB_KEY"},
    "yahoo": {"symbol": "GLD"},
    "news": {"measure": "count", "window": "2h"},
}
ODD = [None, True, -1, 0, 10**30, 10**400, 1e300, "", "x", "2024-01-02", "9999-12-31", "nan", "inf"]
ODD += [[], {}, [[]]]


def places(value, path=()):
    """The path of every value inside a reply."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def replaced(value, path, odd):
    if not path:
        return odd
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], odd)
    return copy


class Says(Web):
    """A client whose server always says the same, through JSON as it would."""

    def __init__(self, reply):
        super().__init__(now_ns=lambda: ns("2024-02-01"))
        self.reply = reply

    def json(self, url, query=None, *, secrets=None):
        return json.loads(json.dumps(self.reply))


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_the_recorded_shapes_are_understood(name, monkeypatch):
    monkeypatch.setenv("STUB_KEY", SECRET)
    rows = source(name, **SETTINGS.get(name, {})).observations(
        Says(RECORDED[name]), "BTC", ns("2024-01-01"), ns("2024-01-10")
    )
    assert len(rows) >= 1


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_no_reply_ends_in_a_traceback(name, monkeypatch):
    monkeypatch.setenv("STUB_KEY", SECRET)
    one = source(name, **SETTINGS.get(name, {}))
    refused = []
    for path in places(RECORDED[name]):
        for odd in ODD:
            reply = replaced(RECORDED[name], path, odd)
            try:
                rows = one.observations(Says(reply), "BTC", ns("2024-01-01"), ns("2024-01-10"))
            except InputError as error:
                refused.append(str(error))
            else:
                inside = (rows.event_time >= ns("2024-01-01")) & (rows.event_time < ns("2024-01-10"))
                assert len(rows) >= 1
                assert inside.all()
    assert len(refused) > 20
    assert not any("\n" in told for told in refused)


def test_a_source_that_trusts_its_server_is_caught():
    # Negative control: read as most clients read it, a reply ends in all kinds of tracebacks.
    def trusting(reply):
        return [(int(row["timestamp"]) * 10**9, float(row["value"])) for row in reply["data"]]

    recorded = RECORDED["fear-greed"]
    assert len(trusting(recorded)) == 3
    found = set()
    for path in places(recorded):
        try:
            trusting(replaced(recorded, path, [[]]))
        except Exception as error:
            found.add(type(error).__name__)
    assert "TypeError" in found
    assert "DataError" not in found


# Exchanges, through the methods of ccxt.


class Perpetual:
    """A ccxt exchange as far as it is used; settlements every eight hours from its listing on."""

    id = "stub"
    enableRateLimit = True  # noqa: N815  # ccxt's name
    has = {"fetchFundingRateHistory": True, "fetchOpenInterestHistory": True}  # noqa: RUF012

    def __init__(self, listed, settled, page=50):
        self.rows = [
            {
                "info": {},
                "symbol": "BTC/USDT:USDT",
                "fundingRate": 0.0001 * (i % 3),
                "openInterestAmount": 1_000.0 + i,
                "openInterestValue": 4e7 + i,
                "timestamp": listed // 10**6 + i * 8 * 3_600_000 + (6 if i % 2 else 0),
                "datetime": "",
            }
            for i in range(settled)
        ]
        self.page = page
        self.calls = []
        self.faults = []

    def fetch_funding_rate_history(self, symbol, since=None, limit=None):
        self.calls.append((symbol, since, limit))
        if self.faults:
            raise self.faults.pop(0)
        return [row for row in self.rows if row["timestamp"] >= since][: min(limit, self.page)]

    def fetch_open_interest_history(self, symbol, timeframe="1h", since=None, limit=None):
        assert timeframe == "8h"
        # Like some venues: only what lies within the window asked for.
        end = since + limit * 8 * 3_600_000
        return [row for row in self.rows if since <= row["timestamp"] < end]


class NetworkError(Exception):
    """Named like ccxt's."""


def test_funding_is_paged_through_ccxt(waits, monkeypatch, tmp_path):
    exchange = Perpetual(ns("2024-01-01"), 120)
    exchange.faults = [NetworkError("reset by peer"), TimeoutError("slow")]
    monkeypatch.setattr(derivatives, "connect", lambda name: exchange)
    spec = {
        "unit": "fraction",
        "available": "settlement",
        "web": {"name": "funding", "exchange": "stub"},
        "rules": ["round-times"],
        "grid": "8h",
    }
    config = live_config(tmp_path, {"funding_8h_fraction": spec}, asset="btc")
    now = ns("2024-02-09T04:00:00")
    [(series, report)], _ = read_series(config, client(waits), now)
    assert len(series) == 118  # those settled by then
    assert (np.diff(series.event_time) == 8 * HOUR).all()
    assert series.event_time[0] == series.available_at[0] == ns("2024-01-01")
    assert report.rules["round-times"] == 59
    assert waits == [1.0, 2.0]
    assert {call[0] for call in exchange.calls} == {"BTC/USDT:USDT"}
    assert len(exchange.calls) == 2 + 3  # two faults, three pages


def test_open_interest_is_paged_over_the_time_before_the_listing(waits, monkeypatch):
    exchange = Perpetual(ns("2024-02-01"), 30)
    monkeypatch.setattr(derivatives, "connect", lambda name: exchange)
    for measure, first in (("value", 4e7), ("amount", 1_000.0)):
        options = {"timeframe": "8h", "measure": measure, "page_rows": 20, "keeps": None}
        interest = source("open-interest", exchange="stub", **options)
        rows = interest.observations(client(waits), "BTC", ns("2024-01-01"), ns("2024-03-01"))
        assert rows.value.tolist() == [first + i for i in range(30)]
    # What the exchange does not keep is not asked for: it would refuse the whole.
    interest = source("open-interest", exchange="stub", timeframe="8h", keeps="4d")
    rows = interest.observations(client(waits), "BTC", ns("2024-01-01"), ns("2024-02-11"))
    assert rows.event_time[0] // HOUR * HOUR == ns("2024-02-07T08:00:00")


def test_an_exchange_that_cannot_is_told_so(waits, monkeypatch):
    exchange = Perpetual(ns("2024-01-01"), 10)
    monkeypatch.setattr(derivatives, "connect", lambda name: exchange)
    funding = source("funding", exchange="stub")
    exchange.has = {"fetchFundingRateHistory": False}
    with pytest.raises(ConfigError, match="exchange stub: ccxt offers no fetch_funding_rate_history there"):
        funding.observations(client(waits), "BTC", 0, DAY)
    exchange.has = {}
    for answer, said in (("nonsense", "it must send a list"), ([{"timestamp": None}], "it must be a time")):
        exchange.fetch_funding_rate_history = lambda *_, answer=answer, **__: answer
        with pytest.raises(DataError, match=said):
            funding.observations(client(waits), "BTC", ns("2024-01-01"), ns("2024-01-02"))
    old = [{"timestamp": ns("2023-01-01") // 10**6, "fundingRate": 0.1}]
    exchange.fetch_funding_rate_history = lambda *_, **__: old
    with pytest.raises(DataError, match="sent only older rows; it cannot be paged"):
        funding.observations(client(waits), "BTC", ns("2024-01-01"), ns("2024-01-02"))
    exchange.fetch_funding_rate_history = lambda *_, **__: []
    with pytest.raises(DataError, match="nothing was sent for 2024-01-01"):
        funding.observations(client(waits), "BTC", ns("2024-01-01"), ns("2024-01-02"))


def test_an_exchange_that_stays_silent_is_given_up(waits, monkeypatch):
    exchange = Perpetual(ns("2024-01-01"), 10)
    exchange.faults = [NetworkError("reset by peer")] * 10
    monkeypatch.setattr(derivatives, "connect", lambda name: exchange)
    with pytest.raises(DataError, match=r"does not answer \(reset by peer\)"):
        source("funding", exchange="stub").observations(client(waits), "BTC", 0, ns("2024-01-02"))
    assert waits == [1.0, 2.0, 4.0]
    # What is no fault of the network is a bug, and shows itself.
    exchange.faults = [KeyError("bug")]
    with pytest.raises(KeyError):
        source("funding", exchange="stub").observations(client(waits), "BTC", 0, ns("2024-01-02"))


def test_without_ccxt_the_extra_is_named(monkeypatch, waits):
    monkeypatch.setitem(__import__("sys").modules, "ccxt", None)
    with pytest.raises(
        ConfigError, match=r"needs ccxt; install it with: pip install 'regime-conductor\[live\]'"
    ):
        source("funding").observations(client(waits), "BTC", 0, DAY)


LINEAR = {
    "symbols": [
        {
            "symbol": "BTCUSDT", "pair": "BTCUSDT", "contractType": "PERPETUAL", "status": "TRADING",
            "deliveryDate": 4133404800000, "onboardDate": 1569398400000, "baseAsset": "BTC",
            "quoteAsset": "USDT", "marginAsset": "USDT", "pricePrecision": 2, "quantityPrecision": 3,
            "baseAssetPrecision": 8, "quotePrecision": 8, "underlyingType": "COIN", "filters": [],
            "orderTypes": ["LIMIT", "MARKET"], "timeInForce": ["GTC"],
        }
    ]
}  # fmt: skip


def test_ccxt_itself_fetches_funding_and_open_interest_from_the_stub(stub, waits, monkeypatch):
    ccxt = pytest.importorskip("ccxt", reason="needs the extra live")
    exchange = ccxt.binance({"enableRateLimit": False, "options": {"fetchMarkets": {"types": ["linear"]}}})
    exchange.options["fetchCurrencies"] = exchange.has["fetchCurrencies"] = False
    exchange.rateLimit = 0
    for name, url in exchange.urls["api"].items():
        if isinstance(url, str):
            exchange.urls["api"][name] = stub.base + urllib.parse.urlsplit(url).path
    first, step = ns("2024-01-01") // 10**6, 8 * 3_600_000

    def settled(query):
        assert query["symbol"] == "BTCUSDT"
        stamps = [first + i * step + 6 for i in range(60)]
        chosen = [stamp for stamp in stamps if stamp >= int(query["startTime"])][: int(query["limit"])]
        return [
            {"symbol": "BTCUSDT", "fundingTime": stamp, "fundingRate": "0.00010000", "markPrice": "42000.1"}
            for stamp in chosen
        ]

    def interest(query):
        assert query["period"] == "1h"
        start = int(query["startTime"])
        stamps = range(start + -start % 3_600_000, int(query["endTime"]), 3_600_000)
        return [
            {
                "symbol": "BTCUSDT", "sumOpenInterest": "75375.617", "timestamp": stamp,
                "sumOpenInterestValue": "3248828883.71",
            }
            for stamp in stamps
        ]  # fmt: skip

    stub.routes["/fapi/v1/exchangeInfo"] = lambda query: LINEAR
    stub.routes["/fapi/v1/fundingRate"] = settled
    stub.routes["/futures/data/openInterestHist"] = interest
    monkeypatch.setattr(derivatives, "connect", lambda name: exchange)
    exchange.load_markets()
    stub.faults = [(429, {"Retry-After": "3"}, b'{"code": -1003, "msg": "busy"}')]
    funding = source("funding", page_rows=25)
    rows = funding.observations(client(waits), "BTC", ns("2024-01-01"), ns("2024-01-21"))
    assert len(rows) == 60
    assert set(rows.value) == {0.0001}
    assert 3.0 in waits
    rows = source("open-interest").observations(client(waits), "BTC", ns("2024-01-01"), ns("2024-01-08"))
    assert len(rows) == 7 * 24
    assert rows.value[0] == 3_248_828_883.71
    with pytest.raises(DataError, match=r"refused .BadSymbol"):
        source("funding", symbol="NO/SUCH:X").observations(client(waits), "BTC", 0, DAY)


@pytest.mark.parametrize("name", sorted(SERIES_SOURCES))
def test_every_source_has_settings_with_descriptions_and_secure_addresses(name):
    config = SERIES_SOURCES.get(name).Config
    for field in config.model_fields.values():
        assert field.description
    base = config.model_fields.get("base")
    assert base is None or base.default.startswith("https://")
    assert SERIES_SOURCES.get(name).__doc__


@pytest.mark.network
@pytest.mark.parametrize("name", ["fear-greed", "coinmetrics", "fred-graph"])
def test_the_real_servers_still_answer_in_the_recorded_shapes(name):
    options = {"coinmetrics": {"metric": "AdrActCnt"}, "fred-graph": {"series": "DGS10"}}.get(name, {})
    rows = source(name, **options).observations(Web(), "BTC", ns("2024-01-01"), ns("2024-02-01"))
    assert len(rows) > 15
    assert np.isfinite(rows.value).any()
