"""The layouts people have, read to the same bars; and hostile files, refused at once."""

import gzip
import json
import os
import time
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from configs.load import ConfigError
from market.bars import OHLCV
from market.sources import readers
from market.sources.files import FileSource, read_bars
from market.sources.layouts import symbol_of, timeframe_of
from market.sources.source import SOURCES
from market.table import DataError
from tests.market.mutators import HOUR_NS, NOW_NS, PRICES, clean_frame, write_csv


@pytest.fixture
def frame():
    return clean_frame(np.random.default_rng(5), 48)


@pytest.fixture
def expected(frame):
    values = np.column_stack([frame[name] for name in OHLCV])
    return np.array(frame["time"]) * 1_000_000 + HOUR_NS, values


def read(path, **options):
    return read_bars(path, **({"symbol": "BTC/USDT", "now_ns": NOW_NS} | options))


def check(path, expected, **options):
    bars, report = read(path, **options)
    time_ns, values = expected
    np.testing.assert_array_equal(bars.time, time_ns)
    np.testing.assert_array_equal(bars.values[:, :5], values)
    assert bars.interval_ns == HOUR_NS
    return report


def binance_rows(frame, unit=1, first_micro=None):
    rows = []
    for i, stamp in enumerate(frame["time"]):
        factor = 1000 if first_micro is not None and i >= first_micro else unit
        prices = [frame[name][i] for name in OHLCV]
        close_time = (stamp + 3_600_000) * factor - 1
        rows.append([stamp * factor, *prices, close_time, prices[3] * prices[4], 100 + i, 1.0, 2.0, 0])
    return rows


def write_rows(rows, path, header=None):
    lines = [",".join(header)] if header else []
    path.write_text("\n".join(lines + [",".join(map(str, row)) for row in rows]) + "\n")
    return path


BINANCE_HEADER = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count"),
    *("taker_buy_volume", "taker_buy_quote_volume", "ignore"),
)


@pytest.mark.parametrize("header", [None, BINANCE_HEADER])
@pytest.mark.parametrize("unit", [1, 1000])
def test_binance_dumps_in_ms_and_in_microseconds(frame, expected, tmp_path, header, unit):
    path = write_rows(binance_rows(frame, unit), tmp_path / "BTCUSDT-1h-2023-01.csv", header)
    report = check(path, expected, symbol=None)
    assert report.symbol == "BTC/USDT"
    assert report.partial_bars == 0
    assert any("layout binance" in note for note in report.notes)


def test_binance_zip_as_it_is_downloaded(frame, expected, tmp_path):
    write_rows(binance_rows(frame), tmp_path / "x.csv")
    with zipfile.ZipFile(tmp_path / "BTCUSDT-1h-2023-01.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "x.csv", "BTCUSDT-1h-2023-01.csv")
    check(tmp_path / "BTCUSDT-1h-2023-01.zip", expected)


def test_binance_answers_hold_numbers_as_text(frame, expected, tmp_path):
    rows = [
        [cell if i in (0, 6, 8) else str(cell) for i, cell in enumerate(row)] for row in binance_rows(frame)
    ]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    check(tmp_path / "x.json", expected)


def test_extra_columns_are_kept_when_asked_for_and_only_then(frame, expected, tmp_path):
    path = write_rows(binance_rows(frame), tmp_path / "x.csv")
    bars, _ = read(path, columns={"quote_volume": "quote_volume", "trades": "8"})
    assert bars.names == (*OHLCV, "quote_volume", "trades")
    np.testing.assert_array_equal(bars.column("trades"), 100 + np.arange(48))
    assert read(path)[0].names == OHLCV


def test_a_partial_binance_bar_is_reported_and_an_impossible_one_refused(frame, tmp_path):
    rows = binance_rows(frame)
    rows[7][6] = rows[7][0] + 14_800
    assert read(write_rows(rows, tmp_path / "x.csv"))[1].partial_bars == 1
    rows[7][6] = rows[7][0] + 7_200_000
    with pytest.raises(DataError, match=r"line 8: close_time lies 7200.001 s after the open"):
        read(write_rows(rows, tmp_path / "x.csv"))


def test_freqtrade_feather_json_and_parquet(frame, expected, tmp_path):
    table = pd.DataFrame(frame).rename(columns={"time": "date"})
    table["date"] = pd.to_datetime(table["date"], unit="ms", utc=True)
    table.to_feather(tmp_path / "BTC_USDT-1h.feather")
    table.to_parquet(tmp_path / "BTC_USDT-1h.parquet")
    (tmp_path / "BTC_USDT-1h.json").write_text(
        json.dumps([list(row) for row in zip(*frame.values(), strict=True)])
    )
    for suffix in ("feather", "parquet", "json"):
        report = check(tmp_path / f"BTC_USDT-1h.{suffix}", expected, symbol=None)
        assert report.symbol == "BTC/USDT"
        assert report.timeframe == "1h"


def test_ccxt_arrays_and_records_and_lines(frame, expected, tmp_path):
    rows = [list(row) for row in zip(*frame.values(), strict=True)]
    (tmp_path / "arrays.json").write_text(json.dumps(rows))
    (tmp_path / "lines.json").write_text("\n".join(json.dumps(row) for row in rows))
    records = [dict(zip(("timestamp", *OHLCV), row, strict=True)) for row in rows]
    (tmp_path / "records.json").write_text(json.dumps(records))
    for name in ("arrays", "lines", "records"):
        check(tmp_path / f"{name}.json", expected)


def test_tradingview_in_seconds_and_in_iso(frame, expected, tmp_path):
    seconds = {
        "time": [stamp // 1000 for stamp in frame["time"]],
        **{name: frame[name] for name in PRICES},
        "Volume": frame["volume"],
        "RSI": ["" if i < 14 else 50.0 for i in range(48)],
    }
    report = check(write_csv(seconds, tmp_path / "BINANCE_BTCUSDT, 60.csv"), expected)
    assert any("layout tradingview" in note for note in report.notes)
    stamps = pd.to_datetime(frame["time"], unit="ms", utc=True)
    iso = seconds | {"time": [stamp.strftime("%Y-%m-%dT%H:%M:%SZ") for stamp in stamps]}
    check(write_csv(iso, tmp_path / "iso.csv"), expected)
    local = stamps.tz_convert("Europe/Berlin")
    offsets = seconds | {"time": [stamp.isoformat() for stamp in local]}
    check(write_csv(offsets, tmp_path / "offsets.csv"), expected)
    bars, _ = read(tmp_path / "iso.csv", columns={"rsi": "RSI"})
    assert np.isnan(bars.column("rsi")[:14]).all()
    assert (bars.column("rsi")[14:] == 50).all()


def yahoo(tmp_path, ratio):
    days = pd.bdate_range("2023-01-02", periods=30)
    rng = np.random.default_rng(0)
    close = (100 * np.exp(np.cumsum(rng.normal(0, 0.01, 30)))).round(2)
    open_ = np.concatenate([[100.0], close[:-1]])
    table = pd.DataFrame({"Date": days.strftime("%Y-%m-%d"), "Open": open_})
    table["High"], table["Low"] = np.maximum(open_, close) + 1, np.minimum(open_, close) - 1
    table["Close"], table["Adj Close"], table["Volume"] = close, close * ratio, 1000
    table.to_csv(tmp_path / "SPY.csv", index=False)
    return tmp_path / "SPY.csv", close


def test_yahoo_days_are_stamped_with_their_end(tmp_path):
    path, close = yahoo(tmp_path, np.ones(30))
    bars, report = read_bars(path, now_ns=NOW_NS)
    assert (bars.label, report.rows) == ("SPY 1d", 30)
    assert bars.time[0] == pd.Timestamp("2023-01-03", tz="UTC").value
    np.testing.assert_array_equal(bars.column("close"), close)
    assert report.missing_bars == 10  # five weekends


def test_yahoo_dividends_are_told_and_adjusted_only_by_name(tmp_path):
    ratio = np.where(np.arange(30) < 10, 0.95, 1.0)
    path, close = yahoo(tmp_path, ratio)
    bars, report = read_bars(path, now_ns=NOW_NS)
    assert any("not adjusted for dividends" in note and "0.95" in note for note in report.notes)
    np.testing.assert_array_equal(bars.column("close"), close)
    bars, report = read_bars(path, now_ns=NOW_NS, repairs=["adjust-dividends"])
    np.testing.assert_allclose(bars.column("close"), close * ratio, rtol=1e-12)
    assert report.repairs == {"adjust-dividends": 10}


def test_bitfinex_order_is_read_by_name_and_suggested_otherwise(frame, expected, tmp_path):
    rows = zip(*(frame[name] for name in ("time", "open", "close", "high", "low", "volume")), strict=True)
    path = write_rows(list(rows), tmp_path / "x.csv")
    check(path, expected, layout="bitfinex")
    with pytest.raises(DataError, match="--layout bitfinex"):
        read(path)


def test_any_table_is_read_with_a_column_map(frame, expected, tmp_path):
    table = {
        "when": frame["time"],
        "first": frame["open"],
        "top": frame["high"],
        "bottom": frame["low"],
        "last": frame["close"],
        "units": frame["volume"],
    }
    path = write_csv(table, tmp_path / "x.csv")
    columns = dict(zip(("time", *OHLCV), table, strict=True))
    check(path, expected, columns=columns)
    with pytest.raises(DataError, match="no column is the time; columns are when, first"):
        read(path)
    del columns["volume"]
    with pytest.raises(DataError, match=r"volume is missing.*--column volume=NAME or --repair zero-volume"):
        read(path, columns=columns)
    bars, report = read(path, columns=columns, repairs=["zero-volume"])
    assert report.repairs == {"zero-volume": 48}
    assert (bars.column("volume") == 0).all()
    headless = write_csv(table, tmp_path / "y.csv", header=False)
    check(headless, expected, columns={name: str(i) for i, name in enumerate(("time", *OHLCV))})


@pytest.mark.parametrize("last_unit", [0, 1])
def test_stamps_of_closes_are_taken_as_closes(frame, expected, tmp_path, last_unit):
    table = frame | {"time": [stamp + 3_600_000 - last_unit for stamp in frame["time"]]}
    path = write_csv(table, tmp_path / "x.csv")
    check(path, expected, columns={"close_time": "time"})


def test_two_possible_time_columns_are_refused_with_the_option_to_give(frame, expected, tmp_path):
    stamps = pd.to_datetime(frame["time"], unit="ms")
    table = {"unix": frame["time"], "date": [str(stamp) for stamp in stamps]} | {n: frame[n] for n in OHLCV}
    path = write_csv(table, tmp_path / "x.csv")
    with pytest.raises(
        DataError, match="columns date and unix could each be the time; go on with --column time="
    ):
        read(path)
    check(path, expected, columns={"time": "unix"})


def test_rows_of_several_symbols_need_the_choice_of_one(frame, expected, tmp_path):
    both = {name: frame[name] * 2 for name in frame} | {"symbol": ["BTCUSDT"] * 48 + ["ETHUSDT"] * 48}
    path = write_csv(both, tmp_path / "all.csv")
    with pytest.raises(DataError, match=r"holds 2 symbols .BTCUSDT, ETHUSDT."):
        read(path, symbol=None)
    check(path, expected, symbol="ETHUSDT")


def test_dates_without_a_zone_are_utc_and_say_so(frame, expected, tmp_path):
    stamps = pd.to_datetime(frame["time"], unit="ms")
    path = write_csv(frame | {"time": [str(stamp) for stamp in stamps]}, tmp_path / "x.csv")
    report = check(path, expected)
    assert "dates carry no zone: read as UTC" in report.notes


def test_a_pandas_index_is_a_time_column(frame, expected, tmp_path):
    table = pd.DataFrame(frame).drop(columns="time")
    table.index = pd.to_datetime(frame["time"], unit="ms", utc=True)
    table.rename_axis("timestamp").to_parquet(tmp_path / "x.parquet")
    check(tmp_path / "x.parquet", expected)


def test_names_of_files_suggest_symbol_and_timeframe(frame, tmp_path):
    assert symbol_of("BTCUSDT-1h-2024-01") == "BTC/USDT"
    assert symbol_of("btcusdt_binance_spot_1h") == "BTC/USDT"
    assert symbol_of("BTC_USDT_USDT-1h-futures") == "BTC/USDT:USDT"
    assert symbol_of("eurusd_1h") == "EUR/USD"
    assert symbol_of("goog_1d") == "GOOG"
    assert timeframe_of("btcusdt_binance_spot_1h") == "1h"
    assert timeframe_of("BTCUSDT") is None
    path = write_csv(frame, tmp_path / "BTCUSDT-4h.csv")
    assert "the name says 4h but the bars are 1h" in read(path)[1].notes


def test_unknown_names_of_options_suggest_the_known_ones(frame, tmp_path):
    path = write_csv(frame, tmp_path / "x.csv")
    with pytest.raises(ConfigError, match="did you mean binance"):
        read(path, layout="binanse")
    with pytest.raises(ConfigError, match=r"--repair srt.*did you mean sort"):
        read(path, repairs=["srt"])
    with pytest.raises(ConfigError, match=r"--accept outlier:.*did you mean outliers"):
        read(path, accept=["outlier"])
    with pytest.raises(DataError, match="--column open=opn: no such column; did you mean open"):
        read(path, columns={"open": "opn"})


def test_binance_may_change_its_unit_on_2025_01_01_and_nobody_else(tmp_path):
    frame = clean_frame(np.random.default_rng(5), 48)
    first = int(pd.Timestamp("2024-12-31", tz="UTC").value) // 1_000_000
    frame["time"] = [first + 3_600_000 * i for i in range(48)]
    now_ns = pd.Timestamp("2025-03-01", tz="UTC").value
    path = write_rows(binance_rows(frame, first_micro=24), tmp_path / "x.csv")
    bars, report = read(path, now_ns=now_ns)
    assert bars.time[-1] == pd.Timestamp("2025-01-02", tz="UTC").value
    assert report.missing_bars == 0
    assert report.partial_bars == 0
    with pytest.raises(DataError, match=r"line 26: 0 is .*stamps must have one unit"):
        read(write_rows(binance_rows(frame, first_micro=25), tmp_path / "y.csv"), now_ns=now_ns)
    with pytest.raises(DataError, match="stamps must have one unit"):
        read(
            path, now_ns=now_ns, layout="generic", columns={n: str(i) for i, n in enumerate(("time", *OHLCV))}
        )


def test_the_source_by_name_reads_the_same_bars(frame, tmp_path):
    path = write_csv(frame, tmp_path / "x.csv")
    source = SOURCES.create("files", {"path": str(path), "symbol": "BTC/USDT"})
    assert isinstance(source, FileSource)
    bars, _ = source.bars()
    assert bars.fingerprint() == read(path)[0].fingerprint()


def test_shifted_opens_would_be_noticed(frame, expected, tmp_path):
    # Negative control of every check above: bars stamped with their open are not what is expected.
    path = write_csv(frame | {"time": [stamp - 3_600_000 for stamp in frame["time"]]}, tmp_path / "x.csv")
    with pytest.raises(AssertionError):
        check(path, expected)


def hostile(folder):
    import pickle

    class Gadget:
        def __reduce__(self):
            return (os.system, (f"touch {folder / 'executed'}",))

    gadget = pickle.dumps(Gadget())
    for suffix in ("csv", "json", "parquet", "feather", "csv.gz", "zip", "txt", "pkl"):
        yield f"pickle as {suffix}", f"x.{suffix}", gadget
    yield "deep JSON", "x.json", b"[" * 100_000
    yield "deep object", "x.json", b'{"a":' * 100_000
    yield "JSON of empty lists", "x.json", b"[" + b"[]," * 4_100_000 + b"[]]"
    yield "JSON of one key twice", "x.json", b'[{"open":1,"open":2}]'
    yield "long number", "x.json", b"[[" + b"9" * 10_000 + b",1,1,1,1,1]]"
    yield "npy of objects", "x.csv", b"\x93NUMPY\x01\x00v\x00{'descr': '|O'" + b" " * 90 + gadget
    yield "gzip of gzip bomb", "x.csv.gz", gzip.compress(gzip.compress(b"0" * 20_000_000))
    table = pa.table({"open": pa.array(np.zeros(400_000))})
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({f"c{i}": table["open"][:1] for i in range(1_500)}), sink)
    yield "too many columns", "x.parquet", sink.getvalue().to_pybytes()
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({f"c{i}": table["open"] for i in range(3)}), sink)
    yield "parquet bomb", "x.parquet", sink.getvalue().to_pybytes()
    sink = pa.BufferOutputStream()
    pyarrow.feather.write_feather(
        pa.table({f"c{i}": table["open"] for i in range(3)}), sink, compression="zstd"
    )
    yield "feather bomb", "x.feather", sink.getvalue().to_pybytes()


def test_hostile_files_are_refused_within_seconds_and_execute_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_CELLS", 1_000_000)
    for name, file, body in hostile(tmp_path):
        path = tmp_path / file
        path.write_bytes(body)
        started = time.perf_counter()
        with pytest.raises(DataError) as refusal:
            read(path)
        assert time.perf_counter() - started < 5, name
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value)) < 500, name
    assert not (tmp_path / "executed").exists()
