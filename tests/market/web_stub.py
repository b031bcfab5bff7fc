"""A server on 127.0.0.1 for tests of live series, and a client whose waits take no time."""

import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from configs.load import validate
from market.sources.exchange import Patience
from market.sources.observations import SERIES_SOURCES
from market.sources.series import ExternalConfig
from market.sources.web import Web

HOUR = 3_600_000_000_000
DAY = 24 * HOUR
SECRET = "canary-7f3a+9/="


def ns(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


class Stub:
    """What the server answers: a function per path, given the query, or a list of answers to come first."""

    def __init__(self):
        self.routes = {}
        self.faults = []  # (status, headers, body) to answer next
        self.requests = []
        self.base = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self):
        stub = self.server.stub
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        stub.requests.append((url.path, query, dict(self.headers)))
        if stub.faults:
            status, headers, body = stub.faults.pop(0)
        elif url.path in stub.routes:
            status, headers, body = 200, {}, stub.routes[url.path](query)
        else:
            status, headers, body = 404, {}, b"no such page"
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serving() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


def fresh_stub(running: ThreadingHTTPServer) -> Stub:
    running.stub = Stub()
    running.stub.base = f"http://127.0.0.1:{running.server_address[1]}"
    return running.stub


class Waits(list):
    """Sleeps that happened, on a clock that they move."""

    now = 0.0

    def sleep(self, seconds):
        self.append(seconds)
        self.now += seconds

    def clock(self):
        return self.now


def client(waits, **options):
    patience = Patience(retries=3, longest_wait_s=60.0, sleep=waits.sleep)
    options = {"requests_per_second": 100.0, "timeout_s": 5.0, "clock": waits.clock} | options
    return Web(patience, insecure_hosts=("127.0.0.1",), **options)


def source(name, **options):
    return SERIES_SOURCES.create(name, options)


def live_config(tmp_path, registry, **options):
    document = {"folder": str(tmp_path), "live": True, "timerange": "20240101-", "series": registry}
    return validate(ExternalConfig, document | options, "test")
