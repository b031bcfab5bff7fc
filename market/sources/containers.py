"""A path becomes the bytes of one table, safely: no device, no bomb, nothing executed, nothing extracted.

The kind of a file is read from its first bytes, never from its name: a renamed pickle is refused like any
other file that is not a table, and a Parquet file called ``.csv`` is read as what it is.
"""

import gzip
import hashlib
import io
import os
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from market.table import DataError

MAX_FILE_BYTES = 512 * 2**20
MAX_TEXT_BYTES = 256 * 2**20  # text costs about three times its size while it is parsed
MAX_RATIO = 100  # price tables compress 3 to 20 times; a thousandfold is a bomb
_SMALL_BYTES = 2**20  # a small constant table may compress better than MAX_RATIO and harms nobody
_CHUNK_BYTES = 2**20
_UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Parameters
    ----------
    place : str
        The path as given, for messages.
    kind : str
        ``csv``, ``json``, ``parquet`` or ``feather``.
    body : bytes
        Decompressed, without a byte-order mark.
    sha256 : str
        Of the file as it lies on disk.
    notes : tuple of str
        What was found on the way, for the quality report.
    """

    place: str
    kind: str
    body: bytes
    sha256: str
    notes: tuple[str, ...] = ()


def open_content(path: str | Path) -> Content:
    """Return what a file holds, after every check that needs no parsing.

    Raises
    ------
    DataError
        If the path is missing, is no regular file, is too large, expands too much, is cut short, or holds
        no kind of table that is read here.
    """
    place = str(path)
    stored = _read_regular(Path(path), place)
    sha256 = hashlib.sha256(stored).hexdigest()
    if not stored:
        raise DataError(f"{place}: is empty; it must hold a table of bars")
    body, notes = stored, []
    if stored[:2] == b"\x1f\x8b":
        body = _gunzip(stored, place)
        notes.append("gzip")
    elif stored[:4] == b"PK\x03\x04":
        body, member = _unzip(stored, place)
        notes.append(f"zip member {member}")
    kind = _kind(body, place, packed=bool(notes))
    suffixes = {suffix.lower() for suffix in Path(path).suffixes}
    named = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".feather": "feather"}
    claimed = {named[suffix] for suffix in suffixes if suffix in named}
    if claimed and kind not in claimed:
        notes.append(f"named {Path(path).suffix} but holds {kind}")
    if kind in ("csv", "json"):
        if body.startswith(_UTF8_BOM):
            body = body[len(_UTF8_BOM) :]
        _check_text(body, place)
    return Content(place, kind, body, sha256, tuple(notes))


def _read_regular(path: Path, place: str) -> bytes:
    # Opened first and examined through the descriptor, so that the file cannot be swapped in between;
    # O_NONBLOCK keeps a FIFO without a writer from hanging the open.
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        raise DataError(f"{place}: no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{place}: cannot be opened ({reason})") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{place}: is {_file_type(found.st_mode)}; it must be a regular file")
        if found.st_size > MAX_FILE_BYTES:
            raise DataError(
                f"{place}: has {found.st_size} bytes; files of up to {MAX_FILE_BYTES} are read, "
                f"split it by year or month"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return _bounded(file, MAX_FILE_BYTES, place, "grew while it was read")
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror or error})") from None
    finally:
        os.close(descriptor)


def _file_type(mode: int) -> str:
    for check, name in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if check(mode):
            return name
    return "not a regular file"


def _bounded(stream: BinaryIO, limit: int, place: str, rule: str) -> bytes:
    chunks, size = [], 0
    while chunk := stream.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > limit:
            raise DataError(f"{place}: {rule} (more than {limit} bytes)")
        chunks.append(chunk)
    return b"".join(chunks)


def _expanded_limit(compressed_bytes: int) -> int:
    return min(MAX_TEXT_BYTES, max(_SMALL_BYTES, MAX_RATIO * compressed_bytes))


def _gunzip(stored: bytes, place: str) -> bytes:
    rule = f"expands too far from {len(stored)} bytes"
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(stored)) as stream:
            return _bounded(stream, _expanded_limit(len(stored)), place, rule)
    except EOFError:
        raise DataError(f"{place}: the gzip stream is cut short; fetch the file again") from None
    except (OSError, zlib.error) as error:
        raise DataError(f"{place}: the gzip stream is damaged ({error}); fetch the file again") from None


def _unzip(stored: bytes, place: str) -> tuple[bytes, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(stored)) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) != 1:
                raise DataError(f"{place}: holds {len(members)} files; a zip must hold exactly one table")
            with archive.open(members[0]) as stream:
                limit = _expanded_limit(len(stored))
                rule = f"expands too far from {len(stored)} bytes"
                return _bounded(stream, limit, place, rule), ascii(members[0].filename)[1:-1]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise DataError(f"{place}: the zip cannot be read ({error}); fetch the file again") from None


def _kind(body: bytes, place: str, packed: bool) -> str:
    if body[:4] == b"PAR1" or body[:4] == b"PARE":
        kind = "parquet"
    elif body[:6] == b"ARROW1" or body[:4] == b"FEA1":
        kind = "feather"
    else:
        start = body[:4096].removeprefix(_UTF8_BOM).lstrip()
        return "json" if start[:1] in (b"[", b"{") else "csv"
    if packed:
        raise DataError(f"{place}: holds a packed {kind} file; unpack it first")
    return kind


def _check_text(body: bytes, place: str) -> None:
    if not body.strip():
        raise DataError(f"{place}: holds no text; it must hold a table of bars")
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{place}: is UTF-16 text; save it as UTF-8")
    at = body.find(b"\0")
    if at >= 0:
        raise DataError(
            f"{place}: line {_line(body, at)} holds a NUL byte; it must be a text table in UTF-8, JSON, "
            f"Parquet or Feather"
        )
    if len(body) > MAX_TEXT_BYTES:
        raise DataError(
            f"{place}: has {len(body)} bytes of text; at most {MAX_TEXT_BYTES} are read, split it or save it "
            f"as Parquet"
        )
    if not body.isascii():
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{place}: line {_line(body, error.start)} is not UTF-8 (byte {body[error.start]:#04x}); "
                f"it must be a text table in UTF-8, JSON, Parquet or Feather"
            ) from None


def _line(body: bytes, at: int) -> int:
    return body.count(b"\n", 0, at) + 1
