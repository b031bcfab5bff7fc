"""The client of data servers: what it asks, how long it waits, what it refuses, and what it never shows."""

import gzip
import urllib.parse
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest

from configs.load import ConfigError
from market.sources.exchange import Patience
from market.sources.web import Web, stamp_ns, value_of
from market.table import DataError
from tests.market.web_stub import (
    DAY,
    SECRET,
    client,
    ns,
    source,
)


def test_only_https_is_asked(waits):
    web = Web(Patience(sleep=waits.sleep))
    for url in (
        "http://127.0.0.1/x",
        "ftp://example.org/x",
        "file:///etc/hostname",
        "https://user:word@example.org/x",
        "https://example.org/x?api_key=1",
        "https:///x",
        "https://example.org:port/x",
    ):
        with pytest.raises(ConfigError, match=r"^address "):
            web.fetch(url)
    assert web.requests == 0


@pytest.mark.parametrize("status", [408, 418, 425, 429, 500, 502, 503])
def test_what_may_pass_is_tried_again_with_growing_waits(stub, waits, status):
    stub.faults = [(status, {}, b"busy")] * 2
    stub.routes["/x"] = lambda query: {"ok": 1}
    assert client(waits).json(f"{stub.base}/x") == {"ok": 1}
    assert [wait for wait in waits if wait >= 1] == [1.0, 2.0]
    assert len(stub.requests) == 3


@pytest.mark.parametrize("status", [301, 302, 400, 401, 403, 404, 451])
def test_what_will_not_pass_is_not_tried_again(stub, waits, status):
    stub.faults = [(status, {"Location": f"{stub.base}/y"}, b"go away")]
    stub.routes["/y"] = lambda query: {"leaked": query}
    with pytest.raises(DataError, match=rf"127.0.0.1:\d+/x: refused \(HTTP {status}: go away\)"):
        client(waits).json(f"{stub.base}/x", secrets={"api_key": SECRET})
    assert [path for path, _, _ in stub.requests] == ["/x"]  # a redirect is not followed with the key


def test_the_server_says_how_long_to_wait(stub, waits):
    stub.routes["/x"] = lambda query: {}
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    stub.faults = [(429, {"Retry-After": "7"}, b""), (503, {"Retry-After": later}, b"")]
    client(waits).json(f"{stub.base}/x")
    named = [wait for wait in waits if wait >= 1]
    assert named[0] == 7.0
    assert 25.0 <= named[1] <= 30.0
    stub.faults = [(429, {"Retry-After": "3600"}, b"")]
    with pytest.raises(DataError, match="asks to wait 3600 s"):
        client(waits).json(f"{stub.base}/x")
    stub.faults = [(503, {}, b"")] * 4
    with pytest.raises(DataError, match=r"does not answer \(HTTP 503\); try again later"):
        client(waits).json(f"{stub.base}/x")


def test_a_server_that_is_not_there_is_told_in_one_sentence(waits):
    with pytest.raises(DataError, match="does not answer") as error:
        client(waits).json("http://127.0.0.1:9/x")
    assert "\n" not in str(error.value)
    assert [wait for wait in waits if wait >= 1] == [1.0, 2.0, 4.0]


def test_a_reply_that_is_cut_short_is_tried_again(stub, waits):
    stub.routes["/x"] = lambda query: {"ok": 1}
    stub.faults = [(200, {"Content-Length": "100"}, b'{"ok": 9}')]
    assert client(waits).json(f"{stub.base}/x") == {"ok": 1}
    packed = gzip.compress(b'{"ok": 2}')
    stub.faults = [
        (200, {"Content-Encoding": "gzip"}, packed[:-6]),
        (200, {"Content-Encoding": "gzip"}, packed),
    ]
    assert client(waits).json(f"{stub.base}/x") == {"ok": 2}


def test_a_reply_that_is_too_long_is_refused_packed_or_not(stub, waits):
    web = client(waits, max_bytes=10_000)
    stub.routes["/x"] = lambda query: b"1" * 10_000
    assert len(web.fetch(f"{stub.base}/x")) == 10_000
    stub.routes["/x"] = lambda query: b"1" * 10_001
    with pytest.raises(DataError, match="sends more than 10000 bytes"):
        web.fetch(f"{stub.base}/x")
    bomb = gzip.compress(b"1" * 5_000_000)
    assert len(bomb) < 10_000
    stub.faults = [(200, {"Content-Encoding": "gzip"}, bomb)]
    with pytest.raises(DataError, match="sends more than 10000 bytes"):
        web.fetch(f"{stub.base}/x")
    stub.faults = [(200, {"Content-Encoding": "br"}, b"x")]
    with pytest.raises(DataError, match="packed as 'br'"):
        web.fetch(f"{stub.base}/x")


def test_a_reply_that_drips_for_ever_is_refused(stub, waits):
    def slow(query):
        waits.now += 1_000.0  # while the reply is under way
        return b"x" * 100

    web = client(waits)
    stub.routes["/x"] = slow
    clock = iter([0.0, 0.0, 1_000.0])
    web.clock = lambda: next(clock)
    with pytest.raises(DataError, match="sends too slowly"):
        web.fetch(f"{stub.base}/x")


def test_requests_to_one_server_keep_their_distance(stub, waits):
    stub.routes["/x"] = lambda query: {}
    web = client(waits, requests_per_second=2.0)
    for _ in range(4):
        web.json(f"{stub.base}/x")
    assert waits == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("body", [b"<html>captcha</html>", b"", b'{"a": NaN}', b'{"a": 1', b"[" * 100_000])
def test_a_reply_that_is_no_json_is_refused(stub, waits, body):
    stub.routes["/x"] = lambda query: body
    with pytest.raises(DataError, match=r"127.0.0.1:\d+/x: sent .*; the reply must be JSON"):
        client(waits).json(f"{stub.base}/x")


def test_a_key_appears_in_no_message(stub, waits, monkeypatch):
    monkeypatch.setenv("STUB_KEY", SECRET)
    quoted = urllib.parse.quote_plus(SECRET)
    for status, echo in ((400, SECRET), (503, quoted), (200, SECRET)):
        stub.faults = [(status, {}, f"bad {echo}".encode())] * 4
        fred = source("fred", series="DGS10", base=f"{stub.base}/fred", key_variable="STUB_KEY")
        with pytest.raises(DataError) as error:
            fred.observations(client(waits), "BTC", 0, DAY)
        assert SECRET not in str(error.value)
        assert quoted not in str(error.value)
        assert "bad ***" in str(error.value)
        assert error.value.__cause__ is None
    assert stub.requests[0][1]["api_key"] == SECRET  # and it was sent
    monkeypatch.delenv("STUB_KEY")
    with pytest.raises(ConfigError, match="STUB_KEY is not set"):
        fred.observations(client(waits), "BTC", 0, DAY)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2024-01-02", "2024-01-02"),
        ("2024-01-02T00:00:00.000000000Z", "2024-01-02"),
        ("2024-01-02T01:00:00+01:00", "2024-01-02"),
        (1_704_153_600, "2024-01-02"),
        ("1704153600", "2024-01-02"),
        (1_704_153_600_000, "2024-01-02"),
    ],
)
def test_times_of_replies_are_read_in_their_forms(cell, expected):
    assert stamp_ns({"t": cell}, "t", "x") == ns(expected)


@pytest.mark.parametrize(
    "cell",
    [None, "yesterday", True, -(10**13), 10**16, 1.0e30, 10**400, [], {}, "2024-13-01", "0001-01-01", "inf"],
)
def test_what_is_no_time_is_refused(cell):
    with pytest.raises(DataError, match="it must be a time"):
        stamp_ns({"t": cell}, "t", "x")


@pytest.mark.parametrize("cell", ["yesterday", True, [], {}, 10**400, "1,5"])
def test_what_is_no_number_is_refused(cell):
    with pytest.raises(DataError, match="it must be a number"):
        value_of({"t": cell}, "t", "x")


@pytest.mark.parametrize("cell", [None, "", " ", ".", "null"])
def test_marks_for_no_value_are_nulls(cell):
    assert np.isnan(value_of({"t": cell}, "t", "x"))
