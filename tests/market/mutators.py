"""The input mutators: each spoils one clean file, and says what reading it must come to.

Here are those of whole files and containers; ``row_mutators.py`` adds those of times and values, 71 in all.

``benign`` files load to the same fingerprint as the clean one; ``refused`` ones raise a ``DataError`` that
says why, and where a remedy is named it must load with the remedy's count in the report; ``flagged`` ones
load with a warning.
"""

import gzip
import json
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

HOUR_NS = 3_600 * 1_000_000_000
START = datetime(2023, 1, 2, tzinfo=UTC)
NOW_NS = int(datetime(2023, 6, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
N_BARS = 240
PRICES = ("open", "high", "low", "close")


@dataclass
class Case:
    """A spoiled file and how to read it."""

    path: Path
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mutator:
    name: str
    shelf: str
    outcome: str
    make: Callable[[np.random.Generator, Path], Case]
    says: str = ""
    remedy: dict[str, Any] | None = None
    restores: bool = False


MUTATORS: dict[str, Mutator] = {}


def mutator(shelf: str, outcome: str, says: str = "", remedy: dict | None = None, restores: bool = False):
    def register(make):
        name = make.__name__
        assert name not in MUTATORS
        MUTATORS[name] = Mutator(name, shelf, outcome, make, says, remedy, restores)
        return make

    return register


def clean_frame(rng: np.random.Generator, n_bars: int = N_BARS) -> dict[str, list]:
    """Return hourly bars as lists: ``time`` in ms (opens), then the five columns; cent prices."""
    close = 20_000 * np.exp(np.cumsum(rng.normal(0, 0.004, n_bars)))
    open_ = np.concatenate([[20_000.0], close[:-1]])
    top, bottom = np.maximum(open_, close), np.minimum(open_, close)
    high = top * np.exp(np.abs(rng.normal(0, 0.002, n_bars)))
    low = bottom * np.exp(-np.abs(rng.normal(0, 0.002, n_bars)))
    start_ms = int(START.timestamp()) * 1000
    frame = {"time": [start_ms + 3_600_000 * i for i in range(n_bars)]}
    for name, values in zip(PRICES, (open_, high, low, close), strict=True):
        frame[name] = [float(value) for value in values.round(2)]
    frame["volume"] = [float(value) for value in (rng.lognormal(6, 1, n_bars) + 1).round(3)]
    return frame


def write_csv(frame: dict[str, list], path: Path, delimiter: str = ",", header: bool = True) -> Path:
    lines = [delimiter.join(frame)] if header else []
    for row in zip(*frame.values(), strict=True):
        lines.append(delimiter.join("" if cell is None else str(cell) for cell in row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return path


CONTAINERS = ("csv", "csv.gz", "zip", "records", "lines", "parquet", "feather", "arrays")


def write_any(rng: np.random.Generator, frame: dict[str, list], folder: Path, named: bool = False) -> Path:
    """Write a frame in a container of the generator's choice; ``named`` asks for one with column names."""
    kind = rng.choice(CONTAINERS[:-1] if named else CONTAINERS)
    if kind == "csv":
        return write_csv(frame, folder / "bars.csv")
    if kind == "csv.gz":
        plain = write_csv(frame, folder / "plain.csv")
        (folder / "bars.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
        return folder / "bars.csv.gz"
    if kind == "zip":
        plain = write_csv(frame, folder / "plain.csv")
        with zipfile.ZipFile(folder / "bars.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(plain, "bars.csv")
        return folder / "bars.zip"
    rows = [list(row) for row in zip(*frame.values(), strict=True)]
    if kind == "arrays":
        (folder / "bars.json").write_text(json.dumps(rows))
        return folder / "bars.json"
    records = [dict(zip(frame, row, strict=True)) for row in rows]
    if kind == "records":
        (folder / "bars.json").write_text(json.dumps(records))
        return folder / "bars.json"
    if kind == "lines":
        (folder / "bars.jsonl").write_text("\n".join(json.dumps(record) for record in records))
        return folder / "bars.jsonl"
    table = pa.table({name: pa.array(column) for name, column in frame.items()})
    if kind == "parquet":
        pyarrow.parquet.write_table(table, folder / "bars.parquet")
        return folder / "bars.parquet"
    pyarrow.feather.write_feather(table, folder / "bars.feather")
    return folder / "bars.feather"


def spoiled(shelf: str, outcome: str, says: str = "", remedy: dict | None = None, restores: bool = False):
    """Register a mutator of the frame; the container is any."""

    def register(change):
        def make(rng: np.random.Generator, folder: Path) -> Case:
            frame = clean_frame(rng)
            options = change(rng, frame) or {}
            return Case(write_any(rng, frame, folder), options)

        make.__name__ = change.__name__
        mutator(shelf, outcome, says, remedy, restores)(make)
        return change

    return register


def csv_text(rng: np.random.Generator, folder: Path) -> tuple[Path, str]:
    path = write_csv(clean_frame(rng), folder / "bars.csv")
    return path, path.read_text()


def some_row(rng: np.random.Generator) -> int:
    return int(rng.integers(20, N_BARS - 20))


# File


@mutator("file", "refused", "is empty")
def empty(rng, folder):
    (folder / "bars.csv").write_bytes(b"")
    return Case(folder / "bars.csv")


@mutator("file", "refused", "no rows")
def header_only(rng, folder):
    (folder / "bars.csv").write_text("time,open,high,low,close,volume\n")
    return Case(folder / "bars.csv")


@mutator("file", "refused", "one row", remedy={"timeframe": "1h"})
def one_row(rng, folder):
    path, text = csv_text(rng, folder)
    path.write_text("\n".join(text.split("\n")[:2]))
    return Case(path)


@mutator("file", "benign")
def byte_order_mark(rng, folder):
    path, text = csv_text(rng, folder)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    return Case(path)


@mutator("file", "refused", "UTF-16")
def utf_16(rng, folder):
    path, text = csv_text(rng, folder)
    path.write_bytes(text.encode("utf-16"))
    return Case(path)


@mutator("file", "refused", "not UTF-8")
def latin_1(rng, folder):
    path, text = csv_text(rng, folder)
    path.write_bytes(text.replace("volume", "volume,währung", 1).encode("latin-1"))
    return Case(path)


@mutator("file", "refused", "NUL byte")
def nul_bytes(rng, folder):
    path, text = csv_text(rng, folder)
    at = int(rng.integers(100, len(text) - 100))
    path.write_bytes(text[:at].encode() + b"\0\0\0" + text[at:].encode())
    return Case(path)


@mutator("file", "benign")
def carriage_returns(rng, folder):
    path, text = csv_text(rng, folder)
    path.write_bytes(text.replace("\n", "\r" if rng.random() < 0.5 else "\r\n").encode())
    return Case(path)


@mutator("file", "benign")
def semicolons(rng, folder):
    return Case(write_csv(clean_frame(rng), folder / "bars.csv", ";"))


@mutator("file", "benign")
def tabs(rng, folder):
    return Case(write_csv(clean_frame(rng), folder / "bars.csv", "\t"))


@mutator("file", "refused", "--repair decimal-comma", {"repairs": ["decimal-comma"]}, restores=True)
def decimal_commas(rng, folder):
    frame = clean_frame(rng)
    for name in (*PRICES, "volume"):
        frame[name] = [f"{value:.3f}".replace(".", ",") for value in frame[name]]
    return Case(write_csv(frame, folder / "bars.csv", ";", header=bool(rng.random() < 0.5)))


@mutator("file", "refused", "--repair thousands-comma", {"repairs": ["thousands-comma"]}, restores=True)
def thousands_separators(rng, folder):
    frame = clean_frame(rng)
    for name in PRICES:
        frame[name] = [f'"{value:,.2f}"' for value in frame[name]]
    return Case(write_csv(frame, folder / "bars.csv"))


@mutator("file", "benign")
def quoted_numbers(rng, folder):
    frame = {name: [f'"{cell}"' for cell in column] for name, column in clean_frame(rng).items()}
    return Case(write_csv(frame, folder / "bars.csv"))


@mutator("file", "refused", r"line \d+ has \d fields; every line must have 6", {"repairs": ["drop-bad-rows"]})
def ragged_rows(rng, folder):
    path, text = csv_text(rng, folder)
    lines = text.split("\n")
    row = some_row(rng)
    lines[row] = lines[row].rpartition(",")[0] if rng.random() < 0.5 else lines[row] + ",7"
    path.write_text("\n".join(lines))
    return Case(path)


@mutator("file", "refused", "column (open|high|low|close|volume) is missing|no column is the time")
def missing_column(rng, folder):
    frame = clean_frame(rng)
    del frame[rng.choice(list(frame))]
    return Case(write_csv(frame, folder / "bars.csv"))


@mutator("file", "benign")
def extra_column(rng, folder):
    frame = clean_frame(rng)
    frame["remark"] = ["x"] * N_BARS
    frame = {name: frame[name] for name in ("time", "remark", *PRICES, "volume")}
    return Case(write_any(rng, frame, folder, named=True))


@mutator("file", "refused", "columns close and close could each be the close")
def duplicate_names(rng, folder):
    path, text = csv_text(rng, folder)
    path.write_text(
        text.replace("volume", "volume,close", 1).replace("\n", ",1.0\n").replace("close,1.0", "close")
    )
    return Case(path)


@mutator("file", "benign")
def shuffled_columns(rng, folder):
    frame = clean_frame(rng)
    order = list(frame)
    rng.shuffle(order)
    path = write_csv({name: frame[name] for name in order}, folder / "bars.csv")
    return Case(path)


@mutator("file", "benign")
def no_header(rng, folder):
    return Case(write_csv(clean_frame(rng), folder / "bars.csv", header=False))


@mutator("file", "refused", "is a comment", {"repairs": ["drop-comments"]}, restores=True)
def comment_lines(rng, folder):
    path, text = csv_text(rng, folder)
    lines = text.split("\n")
    lines.insert(int(rng.integers(0, 30)), "# exported by a friend")
    path.write_text("\n".join(lines))
    return Case(path)


@mutator("file", "refused", "bytes; a line of a table has at most")
def single_line_of_100_mb(rng, folder):
    (folder / "bars.csv").write_bytes(b"time,open,high,low,close,volume\n" + b"1," * 50_000_000)
    return Case(folder / "bars.csv")


@mutator("file", "benign")
def wrong_extension(rng, folder):
    frame = clean_frame(rng)
    table = pa.table({name: pa.array(column) for name, column in frame.items()})
    pyarrow.parquet.write_table(table, folder / "bars.csv")
    return Case(folder / "bars.csv")


# Container


@mutator("container", "refused", "cut short")
def truncated_gzip(rng, folder):
    text = csv_text(rng, folder)[1]
    packed = gzip.compress(text.encode())
    (folder / "bars.csv.gz").write_bytes(packed[: int(rng.integers(20, len(packed) - 8))])
    return Case(folder / "bars.csv.gz")


def parquet_file(rng, folder, **changed) -> Path:
    columns = {name: pa.array(column) for name, column in clean_frame(rng).items()}
    for name, change in changed.items():
        columns[name] = change(columns[name])
    pyarrow.parquet.write_table(pa.table(columns), folder / "bars.parquet")
    return folder / "bars.parquet"


@mutator("container", "refused", "Parquet file cannot be read")
def truncated_parquet(rng, folder):
    path = parquet_file(rng, folder)
    body = path.read_bytes()
    path.write_bytes(body[: int(rng.integers(10, len(body) - 1))])
    return Case(path)


@mutator("container", "refused", "Parquet file cannot be read")
def bad_footer(rng, folder):
    path = parquet_file(rng, folder)
    body = path.read_bytes()
    path.write_bytes(body[:-8] + struct.pack("<I", int(rng.integers(2**20, 2**31))) + b"PAR1")
    return Case(path)


@mutator("container", "refused", "column open is (large_)?binary")
def object_columns(rng, folder):
    return Case(parquet_file(rng, folder, open=lambda c: pa.array([str(v).encode() for v in c.to_pylist()])))


@mutator("container", "benign")
def decimal128(rng, folder):
    def change(column):
        return column.cast(pa.string()).cast(pa.decimal128(20, 2))

    return Case(parquet_file(rng, folder, **dict.fromkeys(PRICES, change)))


@mutator("container", "benign")
def categorical(rng, folder):
    return Case(parquet_file(rng, folder, close=lambda c: c.cast(pa.string()).dictionary_encode()))


@mutator("container", "refused", "column low is list")
def nested_list(rng, folder):
    return Case(parquet_file(rng, folder, low=lambda c: pa.array([[v] for v in c.to_pylist()])))


@mutator("container", "refused", "close is nan", {"repairs": ["drop-bad-rows"]})
def dictionary_with_nulls(rng, folder):
    row = some_row(rng)

    def change(column):
        cells = [None if i == row else str(v) for i, v in enumerate(column.to_pylist())]
        return pa.array(cells).dictionary_encode()

    return Case(parquet_file(rng, folder, close=change))


@mutator("container", "refused", "expands too far")
def zip_bomb(rng, folder):
    zeros = b"time,open\n" + b"0" * 300_000_000
    if rng.random() < 0.5:
        (folder / "bars.csv.gz").write_bytes(gzip.compress(zeros, 1))
        return Case(folder / "bars.csv.gz")
    with zipfile.ZipFile(folder / "bars.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("bars.csv", zeros)
    return Case(folder / "bars.zip")


@mutator("container", "refused", "it must be a regular file|cannot be opened")
def no_regular_file(rng, folder):
    path = folder / "bars.csv"
    kind = rng.choice(["fifo", "device", "folder"])
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return Case(path)
