"""The way out to data servers: https only, patient, polite, and never more than was asked for.

Every live series goes through :class:`Web`. It tries again where that may help, waits as long as the server
says, keeps a distance between requests to one server, and gives up on replies that are too long or too slow.
Keys come from the environment and appear in no message.
"""

import contextlib
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from configs.load import ConfigError
from market.sources.exchange import Patience
from market.sources.observations import Observations
from market.table import DataError

_CHUNK_BYTES = 65_536
_TEMPORARY_STATUS = frozenset({408, 418, 425, 429})
_NS_PER_SECOND = 1_000_000_000
_FIRST_NS, _LAST_NS = -2_208_988_800 * _NS_PER_SECOND, 9_183_110_400 * _NS_PER_SECOND  # 1900 to 2261
AGENT = "regime-conductor (market data client)"


class Web:
    """A polite client of data servers.

    Parameters
    ----------
    patience : Patience, optional
        How often and how long to try again; also how to sleep.
    timeout_s : float
        Seconds without a byte after which an attempt has failed.
    longest_s : float
        Seconds after which a reply is too slow, however steadily it drips.
    max_bytes : int
        Longest reply, before and after decompression.
    requests_per_second : float
        To one server, at most.
    insecure_hosts : tuple of str
        Hosts that may be asked without encryption: the loopback, in tests.
    clock : callable
        Monotonic seconds.
    now_ns : callable
        The present, nanoseconds UTC.
    """

    def __init__(
        self,
        patience: Patience | None = None,
        *,
        timeout_s: float = 20.0,
        longest_s: float = 120.0,
        max_bytes: int = 32 * 2**20,
        requests_per_second: float = 1.0,
        insecure_hosts: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.patience = patience or Patience()
        self.timeout_s = timeout_s
        self.longest_s = longest_s
        self.max_bytes = max_bytes
        self.distance_s = 1.0 / requests_per_second
        self.insecure_hosts = insecure_hosts
        self.clock = clock
        self.now_ns = now_ns
        self.requests = 0
        self._next: dict[str, float] = {}
        self._opener: Any = None

    def secret(self, variable: str | None, parameter: str, required: bool = False) -> dict[str, str]:
        """Return a query parameter whose value is a secret of the environment.

        Raises
        ------
        ConfigError
            If it is required and the variable is not set.
        """
        value = os.environ.get(variable, "") if variable else ""
        if value:
            return {parameter: value}
        if required:
            raise ConfigError(f"environment variable {variable} is not set; it must hold the key of the API")
        return {}

    def fetch(
        self, url: str, query: Mapping[str, Any] | None = None, *, secrets: Mapping[str, str] | None = None
    ) -> bytes:
        """Return the body of a reply.

        Parameters
        ----------
        url : str
            https address without query.
        query : mapping, optional
            Query parameters.
        secrets : mapping, optional
            Further ones that no message may show.

        Raises
        ------
        ConfigError
            If the address is not https.
        DataError
            If the server refuses, stays unreachable, asks to wait too long, or sends too much or too slowly.
        """
        import http.client
        import urllib.parse
        import urllib.request

        place, host = self._place(url)
        secrets = dict(secrets or {})
        text = urllib.parse.urlencode({**(query or {}), **secrets})
        request = urllib.request.Request(  # noqa: S310  # _place allows https alone
            f"{url}?{text}" if text else url,
            headers={"User-Agent": AGENT, "Accept-Encoding": "gzip", "Accept": "*/*"},
        )
        self._opener = self._opener or _opener(direct=bool(self.insecure_hosts))
        for attempt in range(self.patience.retries + 1):
            self._keep_distance(host)
            self.requests += 1
            try:
                with self._opener.open(request, timeout=self.timeout_s) as reply:
                    return self._body(reply, place)
            except (OSError, http.client.HTTPException) as error:
                wait_s = _wait_s(error)
                said = _hidden(_said(error), secrets)
                if hasattr(error, "close"):
                    error.close()
                if wait_s is None:
                    raise DataError(f"{place}: refused ({said})") from None
                wait_s = wait_s or self.patience.first_wait_s * 2**attempt
                if wait_s > self.patience.longest_wait_s:
                    raise DataError(
                        f"{place}: asks to wait {wait_s:.0f} s ({said}); try again later"
                    ) from None
                if attempt == self.patience.retries:
                    raise DataError(f"{place}: does not answer ({said}); try again later") from None
                self.patience.sleep(wait_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def json(
        self, url: str, query: Mapping[str, Any] | None = None, *, secrets: Mapping[str, str] | None = None
    ) -> Any:
        """Return a reply that is JSON; see :meth:`fetch`.

        Raises
        ------
        DataError
            If it is none.
        """
        body = self.fetch(url, query, secrets=secrets)
        try:
            return json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            start = ascii(_hidden(body[:40].decode("utf-8", "replace"), secrets or {}))
            raise DataError(f"{self._place(url)[0]}: sent {start}...; the reply must be JSON") from None

    def field(self, reply: Any, path: str, kind: type, url: str) -> Any:
        """Return what a reply holds under a dotted path of keys and positions.

        Raises
        ------
        DataError
            If it is not there, or of another kind.
        """
        found = reply
        for key in path.split("."):
            if isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                raise DataError(f"{self._place(url)[0]}: the reply has no {path}; has the API changed?")
        if not isinstance(found, kind):
            raise DataError(
                f"{self._place(url)[0]}: {path} is {type(found).__name__}, not {kind.__name__}; has the API "
                f"changed?"
            )
        return found

    @staticmethod
    def observations(
        place: str,
        rows: Sequence[tuple[int, float]],
        start_ns: int,
        end_ns: int,
        published: Sequence[int] | None = None,
    ) -> Observations:
        """Return rows of time and value as observations, those of ``[start_ns, end_ns)`` alone.

        Raises
        ------
        DataError
            If there are none.
        """
        event = np.array([row[0] for row in rows], np.int64)
        value = np.array([row[1] for row in rows], np.float64)
        given = Observations(
            place, event, value, None if published is None else np.array(published, np.int64)
        )
        chosen = given.take((event >= start_ns) & (event < end_ns))
        if not len(chosen):
            raise DataError(f"{place}: nothing was sent for {day_text(start_ns)} to {day_text(end_ns)}")
        return chosen

    def _place(self, url: str) -> tuple[str, str]:
        import urllib.parse

        try:
            parts = urllib.parse.urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ConfigError(f"address {url[:60]!a}: is no address") from None
        place = f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"
        safe = parts.scheme == "https" or (parts.scheme == "http" and host in self.insecure_hosts)
        if not safe or not host or parts.username is not None or parts.query or parts.fragment:
            raise ConfigError(f"address {place}: must be https://server/path, without user and query")
        return place, host

    def _keep_distance(self, host: str) -> None:
        now = self.clock()
        due = self._next.get(host, now)
        if due > now:
            self.patience.sleep(due - now)
        self._next[host] = max(due, now) + self.distance_s

    def _body(self, reply: Any, place: str) -> bytes:
        end = self.clock() + self.longest_s
        encoding = (reply.headers.get("Content-Encoding") or "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            raise DataError(f"{place}: the reply is packed as {encoding!a}; it must be plain or gzip")
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
        chunks, size, received = [], 0, 0
        # read1 returns what has come; read would wait for a full chunk while the clock runs.
        while chunk := reply.read1(_CHUNK_BYTES):
            received += len(chunk)
            if unpack is not None:
                chunk = _unpacked(unpack, chunk, self.max_bytes + 1)
            size += len(chunk)
            if max(size, received) > self.max_bytes:
                raise DataError(f"{place}: sends more than {self.max_bytes} bytes; ask for a shorter range")
            if self.clock() > end:
                raise DataError(f"{place}: sends too slowly (more than {self.longest_s:g} s)")
            chunks.append(chunk)
        announced = reply.headers.get("Content-Length")
        if (unpack is not None and not unpack.eof) or (
            announced is not None and announced.isdigit() and received < int(announced)
        ):
            raise ConnectionError("the reply was cut short")
        return b"".join(chunks)


def _unpacked(unpack: Any, chunk: bytes, most: int) -> bytes:
    try:
        return unpack.decompress(chunk, most)
    except zlib.error:
        raise ConnectionError("the reply is damaged") from None


def _opener(direct: bool) -> Any:
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        # A key in the query must not travel to another server, nor https become http.
        def redirect_request(self, *_: Any) -> None:
            return None

    handlers: list[Any] = [NoRedirect()]
    if direct:  # the loopback is not behind a proxy
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _wait_s(error: Exception) -> float | None:
    # None: another attempt would not help. 0: it may, and the server names no time.
    status = getattr(error, "code", None)
    if isinstance(status, int):
        if status not in _TEMPORARY_STATUS and status < 500:
            return None
        return _retry_after(error.headers.get("Retry-After") if error.headers else None)
    reason = getattr(error, "reason", error)
    names = {kind.__name__ for kind in type(reason).__mro__}
    return None if "SSLCertVerificationError" in names else 0.0


def _retry_after(text: str | None) -> float:
    import email.utils

    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, float(text))
    with contextlib.suppress(ValueError, TypeError):
        until = email.utils.parsedate_to_datetime(text)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    return 0.0


def _said(error: Exception) -> str:
    status = getattr(error, "code", None)
    if isinstance(status, int):
        words = ""
        with contextlib.suppress(Exception):  # an explanation is welcome and never worth a failure
            words = " ".join(error.read(2_000).decode("utf-8", "replace").split())[:160]
        return f"HTTP {status}{f': {ascii(words)[1:-1]}' if words else ''}"
    text = str(getattr(error, "reason", error)) or type(error).__name__
    return " ".join(text.split())[:160]


def _hidden(text: str, secrets: Mapping[str, str]) -> str:
    import urllib.parse

    for value in secrets.values():
        for form in {value, urllib.parse.quote(value), urllib.parse.quote_plus(value)}:
            text = text.replace(form, "***")
    return text


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def day_text(ns: int) -> str:
    """Return the UTC day of a time as ``2024-06-30``."""
    return str(np.datetime64(int(ns), "ns").astype("datetime64[D]"))


def stamp_ns(row: Any, key: str, place: str) -> int:
    """Return the time of a row in nanoseconds UTC: seconds or milliseconds since 1970, or ISO text.

    Raises
    ------
    DataError
        If it is none, or lies beyond the years 1900 to 2261.
    """
    cell = row.get(key) if isinstance(row, dict) else None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if isinstance(cell, bool):
            raise TypeError
        if isinstance(cell, str) and not cell.strip().isdigit():
            ns = _iso_ns(cell.strip())
        else:
            count = int(cell)
            ns = count * (_NS_PER_SECOND if abs(count) < 10**11 else 1_000_000)
        if _FIRST_NS <= ns <= _LAST_NS:
            return ns
    raise DataError(f"{place}: sent {key} {ascii(cell)[:60]}; it must be a time")


def _iso_ns(text: str) -> int:
    zone = ""
    if text.endswith("Z"):
        text, zone = text[:-1], "+00:00"
    whole, _, part = text.partition(".")
    # Nanoseconds are cut: no source here has more than microseconds to say.
    moment = datetime.fromisoformat(f"{whole}.{part[:6]:0<6}{zone}" if part else f"{whole}{zone}")
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000) * 1_000


def value_of(row: Any, key: str, place: str) -> float:
    """Return a number of a row; NaN where the source says that it has none.

    Raises
    ------
    DataError
        If it is neither a number nor a mark for none.
    """
    cell = row.get(key) if isinstance(row, dict) else None
    if cell is None or (isinstance(cell, str) and cell.strip() in ("", ".", "null", "NaN")):
        return math.nan
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if not isinstance(cell, bool):
            return float(cell)
    raise DataError(f"{place}: sent {key} {ascii(cell)[:60]}; it must be a number")
