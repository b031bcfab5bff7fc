"""``python -m market.ingest`` end to end: what is stored, what is printed, and how it ends."""

import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import market.sources.exchange
from market.ingest import main
from market.store import BarStore
from tests.market.mutators import clean_frame, write_csv
from tests.market.test_exchange import HOUR_MS, Client, venue  # noqa: F401 - a fixture


def ended(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def frame():
    return clean_frame(np.random.default_rng(1), 100)


def part(frame, first, last):
    return {name: column[first:last] for name, column in frame.items()}


def nothing_stored(folder):
    return not list(folder.rglob("*.parquet")) and not list(folder.rglob("*.json"))


def test_a_file_is_checked_stored_and_reported(folder, frame, capsys):
    path = write_csv(frame, folder / "BTCUSDT-1h.csv")
    assert ended(path) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for part_of_it in (
        "BTC/USDT 1h",
        "100 from 2023-01-02T01:00:00Z",
        "layout tradingview",
        "stored in data",
    ):
        assert part_of_it in out
    bars = BarStore("data").load("BTC/USDT", "1h")
    np.testing.assert_array_equal(bars.column("close"), frame["close"])
    manifest = BarStore("data").manifest("BTC/USDT", "1h")
    assert manifest["quality"]["source"] == str(path)
    assert len(manifest["quality"]["sha256"]) == 64


def test_json_is_json_and_check_stores_nothing(folder, frame, capsys):
    path = write_csv(frame, folder / "BTCUSDT.csv")
    assert ended(path, "--json", "--check") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["symbol"], report["rows"], report["stored"]) == ("BTC/USDT", 100, None)
    assert nothing_stored(folder)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothere.csv"], "error: nothere.csv: no such file"),
        ([], "needs either files or an exchange"),
        (["x.csv", "--exchange", "binance"], "needs either files or an exchange"),
        (["--exchange", "binance"], "needs a symbol and a timerange"),
        (["bad.csv"], "line 12: close is '-'; it must be a number"),
        (["x.csv", "--repair", "srot"], "--repair srot: no such name; did you mean sort?"),
        (["x.csv", "--layout", "yaho"], "did you mean yahoo?"),
        (["x.csv", "--symbol", "../../etc"], "symbol '../../etc' cannot be stored"),
        (["x.csv", "--timeframe", "1 hour"], "timeframe '1 hour' is not known"),
        (["x.csv", "--column", "open"], "--column open: must look like open=o"),
        (["x.csv", "--column", "open=x1"], "--column open=x1: no such column"),
        (["x.csv", "--set", "layuot=yahoo"], "layuot is not a setting; did you mean layout?"),
        (["x.csv", "--set", "existing=maybe"], "existing is 'maybe'"),
        (["x.csv", "--timerange", "20200101-20200201"], "holds none of the bars"),
        (["x.csv", "--config", "none.yaml"], "none.yaml: no such config file"),
        (["x.csv", "--bogus"], "No such option: --bogus"),
        (["x.csv", "--store", "x.csv"], "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence_status_2_and_nothing_half_written(folder, frame, capsys, arguments, says):
    write_csv(frame, folder / "x.csv")
    frame["close"][10] = "-"
    write_csv(frame, folder / "bad.csv")
    assert ended(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1
    assert nothing_stored(folder)


def test_repairs_are_counted_printed_and_kept_in_the_manifest(folder, frame, capsys):
    for column in frame.values():
        column.insert(50, column[50])
    path = write_csv(frame, folder / "BTCUSDT.csv")
    assert ended(path) == 2
    assert "--repair drop-duplicates" in capsys.readouterr().err
    assert ended(path, "--repair", "drop-duplicates") == 0
    assert "drop-duplicates: 1 row" in capsys.readouterr().out
    assert BarStore("data").manifest("BTC/USDT", "1h")["quality"]["repairs"] == {"drop-duplicates": 1}


def test_files_of_months_are_joined_and_a_second_intake_needs_the_word(folder, frame, capsys):
    first = write_csv(part(frame, 0, 40), folder / "BTCUSDT-1h-2023-01.csv")
    second = write_csv(part(frame, 40, 70), folder / "BTCUSDT-1h-2023-02.csv")
    third = write_csv(part(frame, 60, 100), folder / "BTCUSDT-1h-2023-03.csv")
    assert ended(second, first) == 0
    assert len(BarStore("data").load("BTC/USDT", "1h")) == 70
    assert ended(first, second) == 0  # the same bars again change nothing
    assert ended(third) == 2
    assert "is stored already with other bars (70 rows)" in capsys.readouterr().err
    assert ended(third, "--existing", "extend") == 0
    assert len(BarStore("data").load("BTC/USDT", "1h")) == 100
    assert ended(third, "--existing", "replace") == 0
    assert len(BarStore("data").load("BTC/USDT", "1h")) == 40


def test_two_markets_under_one_name_are_noticed_at_the_seam(folder, frame, capsys):
    other = part(frame, 40, 100)
    for name in ("open", "high", "low", "close"):
        other[name] = [value / 10 for value in other[name]]
    first = write_csv(part(frame, 0, 40), folder / "BTCUSDT-a.csv")
    second = write_csv(other, folder / "BTCUSDT-b.csv")
    assert ended(first, second) == 2
    assert "the price changes by a factor of 0.09" in capsys.readouterr().err
    assert nothing_stored(folder)


def test_the_remedies_are_listed(capsys):
    assert ended("--remedies") == 0
    out = capsys.readouterr().out
    assert "--repair sort" in out
    assert "--accept jumps" in out


def test_an_exchange_is_downloaded_kept_when_it_breaks_and_continued(folder, venue, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(market.sources.exchange, "connect", lambda name: Client(venue.url))
    patience = functools.partial(market.sources.exchange.Patience, sleep=lambda seconds: None)
    monkeypatch.setattr(market.sources.exchange, "Patience", patience)
    arguments = [
        "--exchange",
        "stub",
        "--symbol",
        "BTC/USDT",
        "--timeframe",
        "1h",
        "--timerange",
        "20230102-",
    ]
    arguments += ["--set", "page_bars=100", "--set", "retries=1"]
    answered = []

    def breaking(rows, since):
        answered.append(since)
        return (503, {}) if len(answered) > 3 else rows

    venue.extra = breaking
    assert ended(*arguments) == 2
    assert "run again later" in capsys.readouterr().err
    assert ("BTC/USDT", "1h") not in BarStore("data")
    assert len(BarStore("data/partial").load("BTC/USDT", "1h")) == 300
    venue.extra, venue.requests = None, []
    assert ended(*arguments) == 0
    bars = BarStore("data").load("BTC/USDT", "1h")
    np.testing.assert_array_equal(bars.values, [row[1:] for row in venue.rows])
    assert int(venue.requests[0]["startTime"]) == venue.first_ms + 300 * HOUR_MS
    assert ("BTC/USDT", "1h") not in BarStore("data/partial")
    assert BarStore("data").manifest("BTC/USDT", "1h")["exchange"] == "stub"
    assert ended(*[word.replace("stub", "other") for word in arguments]) == 2
    assert "is stored from stub" in capsys.readouterr().err


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys, market.ingest\n"
        "heavy = {'numba', 'numpy', 'pandas', 'pyarrow', 'pydantic', 'sklearn', 'torch', 'ccxt'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_module_runs_as_a_command(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", "market.ingest", "nothere.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: nothere.csv: no such file\n")
