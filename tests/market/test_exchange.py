"""Downloads against a stub exchange on 127.0.0.1 that forgets, repeats, limits and breaks as real ones do."""

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from configs.load import ConfigError
from market.sources.exchange import ExchangeConfig, ExchangeSource, Patience, connect, download
from market.table import DataError
from tests.market.mutators import clean_frame

HOUR_MS, MS = 3_600_000, 1_000_000
HOUR_NS = HOUR_MS * MS


class Venue:
    """What the stub serves, and how it misbehaves."""

    def __init__(self, n_bars=500):
        frame = clean_frame(np.random.default_rng(3), n_bars)
        self.rows = [list(row) for row in zip(*frame.values(), strict=True)]
        self.first_ms = self.rows[0][0]
        self.now_ms = self.rows[-1][0] + 2 * HOUR_MS
        self.page = 100
        self.windowed = False  # answers only [since, since + limit bars), so that holes come as empty lists
        self.faults = []  # (status, headers) to answer next
        self.fault_every = 0
        self.requests = []
        self.extra = None  # changes an answer

    def answer(self, query):
        self.requests.append(query)
        if self.faults:
            return self.faults.pop(0)
        if self.fault_every and len(self.requests) % self.fault_every == 0:
            return 503, {}
        since, limit = int(query["startTime"]), min(int(query["limit"]), self.page)
        rows = [row for row in self.rows if row[0] >= since]
        if self.windowed:
            rows = [row for row in rows if row[0] < since + limit * HOUR_MS]
        rows = rows[:limit]
        return self.extra(rows, since) if self.extra else rows


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        venue = self.server.venue
        if url.path.endswith("/klines"):
            answer = venue.answer(query)
        else:
            answer = EXCHANGE_INFO if url.path.endswith("/exchangeInfo") else {}
        status, headers, body = 200, {}, answer
        if isinstance(answer, tuple):
            (status, headers), body = answer, {"code": -1003, "msg": "busy"}
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        pass


class Client:
    """A minimal client with the one method of ccxt that is used."""

    id = "stub"

    def __init__(self, url):
        self.url = url
        self.rateLimit = 50
        self.timeframes = {"1h": "1h", "1d": "1d"}

    def fetch_ohlcv(self, symbol, timeframe, since, limit):
        query = urllib.parse.urlencode(
            {"symbol": symbol.replace("/", ""), "interval": timeframe, "startTime": since, "limit": limit}
        )
        with urllib.request.urlopen(f"{self.url}/api/v3/klines?{query}", timeout=5) as reply:
            return json.load(reply)


@pytest.fixture
def venue():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.venue = Venue()
    server.venue.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.venue
    server.shutdown()
    server.server_close()
    thread.join()


class Slept(list):
    def patience(self, **more):
        return Patience(sleep=self.append, **more)


def fetch(venue, first=0, last=None, slept=None, **more):
    slept = Slept() if slept is None else slept
    last_ns = None if last is None else (venue.first_ms + last * HOUR_MS) * MS
    options = {"page_bars": 100, "patience": slept.patience(), "now_ns": lambda: venue.now_ms * MS} | more
    start_ns = (venue.first_ms + first * HOUR_MS) * MS
    return download(Client(venue.url), "BTC/USDT", "1h", start_ns, last_ns, **options)


def same(bars, rows):
    np.testing.assert_array_equal(bars.time, [(row[0] + HOUR_MS) * MS for row in rows])
    np.testing.assert_array_equal(bars.values, [row[1:] for row in rows])


def test_pages_are_joined_into_exactly_the_bars_of_the_exchange(venue):
    slept = Slept()
    bars, report = fetch(venue, slept=slept)
    same(bars, venue.rows)
    assert (bars.label, report.missing_bars) == ("BTC/USDT 1h", 0)
    asked = [int(query["startTime"]) for query in venue.requests]
    assert asked[:6] == [venue.first_ms + page * 100 * HOUR_MS for page in range(6)]
    assert len(asked) == 7  # the bar still missing at the end is asked for once more
    assert set(slept) == {0.05}  # its rate limit, before every request but the first
    assert len(slept) == len(venue.requests) - 1


def test_only_the_time_range_is_returned(venue):
    bars, _ = fetch(venue, 50, 250)
    same(bars, venue.rows[50:250])


def test_the_bar_that_has_not_closed_is_left_out_and_told(venue):
    venue.now_ms = venue.rows[-1][0] + HOUR_MS // 2
    bars, report = fetch(venue)
    same(bars, venue.rows[:-1])
    assert "the bar that has not closed yet is left out" in report.notes
    venue.now_ms = venue.rows[-1][0] + HOUR_MS + 3_000  # closed 3 s ago by a clock that may be fast
    same(fetch(venue)[0], venue.rows[:-1])


@pytest.mark.parametrize("windowed", [False, True])
def test_silent_holes_are_crossed_and_reported_not_filled(venue, windowed):
    venue.windowed = windowed
    del venue.rows[120:390]
    bars, report = fetch(venue)
    same(bars, venue.rows)
    assert [(gap.bars) for gap in report.gaps] == [270]
    assert any("empty" in note for note in report.notes) == windowed


def test_years_before_the_listing_are_crossed(venue):
    venue.windowed = True
    bars, _ = fetch(venue, first=-1_000)
    same(bars, venue.rows)


def test_an_accidental_empty_answer_is_asked_again(venue):
    calls = []

    def sometimes(rows, since):
        calls.append(since)
        return [] if len(calls) == 3 else rows

    venue.extra = sometimes
    bars, report = fetch(venue)
    same(bars, venue.rows)
    assert report.missing_bars == 0


@pytest.mark.parametrize("status", [429, 418, 500, 503])
def test_limits_and_failures_are_waited_for(venue, status):
    venue.faults = [(status, {"Retry-After": "7"}), (status, {})]
    slept = Slept()
    bars, report = fetch(venue, slept=slept)
    same(bars, venue.rows)
    assert [wait for wait in slept if wait != 0.05] == [7.0, 2.0]
    assert any("2 repeated" in note for note in report.notes)


def test_attempts_are_bounded(venue):
    venue.faults = [(503, {})] * 100
    slept = Slept()
    with pytest.raises(DataError, match=r"stub BTC/USDT 1h: does not answer .*run again later"):
        fetch(venue, slept=slept, patience=slept.patience(retries=3))
    assert [wait for wait in slept if wait != 0.05] == [1, 2, 4]
    assert len(venue.requests) == 4


def test_a_ban_that_is_too_long_ends_the_download_at_once(venue):
    venue.faults = [(418, {"Retry-After": "7200"})]
    slept = Slept()
    with pytest.raises(DataError, match="asks to wait 7200 s"):
        fetch(venue, slept=slept)
    assert slept == []


def test_a_refusal_is_not_repeated(venue):
    venue.faults = [(404, {})]
    with pytest.raises(DataError, match=r"refused .*404"):
        fetch(venue)
    assert len(venue.requests) == 1


def test_a_broken_download_is_kept_and_continued_where_it_ended(venue):
    kept, answered = [], []

    def breaking(rows, since):
        answered.append(since)
        return (503, {}) if len(answered) > 3 else rows

    venue.extra = breaking
    with pytest.raises(DataError, match="run again later"):
        fetch(venue, keep=kept.append, patience=Slept().patience(retries=1))
    same(kept[-1], venue.rows[:300])
    venue.extra, venue.requests = None, []
    bars, _ = fetch(venue, known=[kept[-1]])
    same(bars, venue.rows)
    assert int(venue.requests[0]["startTime"]) == venue.first_ms + 300 * HOUR_MS


def test_known_bars_in_the_middle_are_not_asked_for_again(venue):
    middle, _ = fetch(venue, 150, 350)
    venue.requests = []
    bars, _ = fetch(venue, known=[middle])
    same(bars, venue.rows)
    asked = {int(query["startTime"]) for query in venue.requests}
    assert not asked & {venue.first_ms + at * HOUR_MS for at in range(150, 350)}


def test_an_interrupt_keeps_what_is_there(venue):
    kept = []

    clock = iter(range(10**9))

    def now_ns():
        if next(clock) == 4:
            raise KeyboardInterrupt
        return venue.now_ms * MS

    with pytest.raises(KeyboardInterrupt):
        fetch(venue, keep=kept.append, now_ns=now_ns)
    assert len(kept[-1]) in (200, 300)


def test_an_exchange_that_ignores_the_start_is_noticed(venue):
    venue.extra = lambda rows, since: venue.rows[:100]
    with pytest.raises(DataError, match="cannot go back that far"):
        fetch(venue, first=200)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda rows: [row[:3] for row in rows], "no list of time, open"),
        (lambda rows: {"rows": rows}, "no list of time, open"),
        (lambda rows: [["soon", *row[1:]] for row in rows], "no list of time, open"),
        (lambda rows: [[row[0], None, *row[2:]] for row in rows], "open is nan"),
        (lambda rows: [[row[0], row[1], row[4], row[2], row[3], row[5]] for row in rows], "another order"),
        (lambda rows: rows[:5] + rows[4:], "repeats the bar"),
        (lambda rows: [*rows[:5], [*rows[4][:5], 9.9], *rows[5:]], "second bar of"),
        (lambda rows: [[row[0] + 14_000, *row[1:]] for row in rows], "off the 1h grid|irregular"),
        (
            lambda rows: [*rows[:9], [rows[9][0], *(1000 * p for p in rows[9][1:5]), 1], *rows[10:]],
            "print this far",
        ),
    ],
)
def test_what_cannot_be_bars_is_refused(venue, spoil, says):
    venue.extra = lambda rows, since: spoil(rows) if since == venue.first_ms else rows
    with pytest.raises(DataError, match=says):
        fetch(venue)


def test_nothing_at_all_is_said_plainly(venue):
    venue.rows = []
    with pytest.raises(DataError, match="nothing was sent for 2023-01-02"):
        fetch(venue, last=50)


def test_unknown_timeframes_and_exchanges_suggest_the_known_ones(venue):
    with pytest.raises(ConfigError, match="stub: has no timeframe 2h"):
        download(Client(venue.url), "BTC/USDT", "2h", 0)
    source = ExchangeSource(ExchangeConfig(exchange="x", symbol="BTC/USDT", timerange="-20240101"))
    with pytest.raises(ConfigError, match="has no start"):
        source.bars()


def test_without_ccxt_the_extra_to_install_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ccxt", None)
    with pytest.raises(ConfigError, match=r"pip install 'regime-conductor\[live\]'"):
        connect("binance")


def test_a_download_that_lost_a_page_would_be_noticed(venue):
    # Negative control: the comparison above fails when one page of rows is dropped.
    del venue.rows[100:200]
    bars, _ = fetch(venue)
    with pytest.raises(AssertionError):
        same(bars, Venue().rows)


EXCHANGE_INFO = {
    "timezone": "UTC",
    "serverTime": 0,
    "rateLimits": [],
    "symbols": [
        {
            "symbol": "BTCUSDT",
            "status": "TRADING",
            "baseAsset": "BTC",
            "baseAssetPrecision": 8,
            "quoteAsset": "USDT",
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "orderTypes": ["LIMIT", "MARKET"],
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": [],
            "permissions": ["SPOT"],
            "permissionSets": [["SPOT"]],
        }
    ],
}


def test_ccxt_itself_downloads_from_the_stub(venue):
    ccxt = pytest.importorskip("ccxt", reason="needs the extra live")
    client = ccxt.binance({"enableRateLimit": False, "options": {"fetchMarkets": {"types": ["spot"]}}})
    client.options["fetchCurrencies"] = False
    client.has["fetchCurrencies"] = False
    client.rateLimit = 0
    for name, url in client.urls["api"].items():
        if isinstance(url, str):
            path = urllib.parse.urlsplit(url).path
            client.urls["api"][name] = venue.url + path
    venue.faults = [(429, {"Retry-After": "3"})]
    slept = Slept()
    bars, report = download(
        client,
        "BTC/USDT",
        "1h",
        venue.first_ms * MS,
        page_bars=100,
        patience=slept.patience(),
        now_ns=lambda: venue.now_ms * MS,
    )
    same(bars, venue.rows)
    assert report.missing_bars == 0
    assert 3.0 in slept
    with pytest.raises(DataError, match=r"refused .BadSymbol"):
        download(client, "NO/SUCH", "1h", venue.first_ms * MS, now_ns=lambda: venue.now_ms * MS)


def test_ccxt_names_its_exchanges():
    pytest.importorskip("ccxt", reason="needs the extra live")
    assert connect("binance").enableRateLimit
    with pytest.raises(ConfigError, match="did you mean binance"):
        connect("binanse")
