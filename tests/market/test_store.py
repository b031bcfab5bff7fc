import json
import os

import numpy as np
import pytest

from market.bars import OHLCV, Bars
from market.quality import quality
from market.store import BarStore, folder_name, join
from market.table import DataError

HOUR_NS = 3_600 * 10**9
T0 = 1_672_531_200 * 10**9


def make(n=50, symbol="BTC/USDT", first=0, names=OHLCV, seed=0):
    rng = np.random.default_rng(seed)
    close = 100 + rng.random(first + n)[first:]
    values = np.column_stack([close, close + 1, close - 1, close, close])
    values = np.column_stack([values] + [close] * (len(names) - 5))
    return Bars(T0 + (first + 1 + np.arange(n)) * HOUR_NS, values, names, symbol, HOUR_NS)


def test_bars_come_back_bit_for_bit_with_their_manifest(tmp_path):
    store, bars = BarStore(tmp_path / "data"), make(names=(*OHLCV, "trades"))
    path = store.save(bars, quality(bars, source="x.csv", sha256="ab", repairs={"sort": 3}))
    back = store.load("BTC/USDT", "1h")
    assert back.fingerprint() == bars.fingerprint()
    assert (back.symbol, back.names, back.interval_ns) == (bars.symbol, bars.names, bars.interval_ns)
    manifest = store.manifest("BTC/USDT", "1h")
    assert manifest["quality"]["source"] == "x.csv"
    assert manifest["quality"]["sha256"] == "ab"
    assert manifest["quality"]["repairs"] == {"sort": 3}
    assert path.is_relative_to(tmp_path / "data" / "bars" / "BTC-USDT")
    assert store.keys() == [("BTC/USDT", "1h")]
    assert ("BTC/USDT", "1h") in store
    assert ("BTC/USDT", "4h") not in store


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    store = BarStore(tmp_path)
    store.save(make(50))
    store.save(make(60))
    store.save(make(60))
    assert len(store.load("BTC/USDT", "1h")) == 60
    assert len(list((tmp_path / "bars" / "BTC-USDT").iterdir())) == 2
    store.remove("BTC/USDT", "1h")
    assert list((tmp_path / "bars" / "BTC-USDT").iterdir()) == []


def test_a_killed_save_leaves_the_old_bars(tmp_path, monkeypatch):
    store = BarStore(tmp_path)
    old = make(50)
    store.save(old)
    replace, left = os.replace, []

    def killed(source, target):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    for renames in (0, 1):  # killed before the data file is in place, and before the manifest is
        left[:] = [None] * renames
        with pytest.raises(KeyboardInterrupt):
            store.save(make(60))
        assert store.load("BTC/USDT", "1h").fingerprint() == old.fingerprint()
    monkeypatch.setattr(os, "replace", replace)
    store.save(make(60))
    assert len(store.load("BTC/USDT", "1h")) == 60
    assert not list((tmp_path / "bars" / "BTC-USDT").glob(".*"))


def test_every_changed_byte_of_the_data_is_refused(tmp_path):
    store, bars = BarStore(tmp_path), make(200)
    path = store.save(bars)
    body, rng, unharmed = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(150):
        changed = bytearray(body)
        changed[int(rng.integers(0, len(body)))] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(bytes(changed))
        try:
            back = store.load("BTC/USDT", "1h")
        except DataError:
            continue
        # A bit of the footer that no value depends on: the very same bars, or it would be a lie.
        assert back.fingerprint() == bars.fingerprint()
        unharmed += 1
    assert unharmed < 75
    for size in (0, 10, len(body) // 2, len(body) - 1):
        path.write_bytes(body[:size])
        with pytest.raises(DataError, match="cannot be read"):
            store.load("BTC/USDT", "1h")
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        store.load("BTC/USDT", "1h")


def test_other_valid_bars_in_place_of_the_stored_ones_are_refused(tmp_path):
    store = BarStore(tmp_path)
    path = store.save(make(50))
    other = BarStore(tmp_path / "other").save(make(50, seed=1))
    path.write_bytes(other.read_bytes())
    with pytest.raises(DataError, match="fingerprints differ"):
        store.load("BTC/USDT", "1h")


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("file", "../../../secret.parquet", "no name of this store"),
        ("file", "/etc/passwd", "no name of this store"),
        ("symbol", "ETH/USDT", "describes ETH/USDT 1h"),
        ("version", 99, "in version 99"),
        ("fingerprint", None, "fingerprint is missing"),
        ("rows", "many", "rows is missing or of the wrong kind"),
    ],
)
def test_a_changed_manifest_is_refused(tmp_path, key, value, rule):
    store = BarStore(tmp_path)
    store.save(make())
    path = tmp_path / "bars" / "BTC-USDT" / "1h.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DataError, match=rule):
        store.load("BTC/USDT", "1h")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"file": 3}'])
def test_a_damaged_manifest_is_refused(tmp_path, text):
    store = BarStore(tmp_path)
    store.save(make())
    (tmp_path / "bars" / "BTC-USDT" / "1h.json").write_text(text)
    with pytest.raises(DataError, match="ingest the bars again"):
        store.load("BTC/USDT", "1h")
    store.save(make())
    assert len(store.load("BTC/USDT", "1h")) == 50


@pytest.mark.parametrize(
    "symbol",
    [
        *("", ".", "..", "../x", "a/..", "a/../b", "/etc", "//", "a//b", "...", "../../etc/passwd", "..:x"),
        *("a\\b", "a\0b", "a b", "ä", "-rf", "~", "$HOME", "%2e%2e", "a" * 65, "a\n", "CON?", "*", "\u2215"),
    ],
)
def test_symbols_that_could_leave_the_store_are_refused(tmp_path, symbol):
    with pytest.raises(DataError, match="cannot be stored"):
        folder_name(symbol)
    with pytest.raises(DataError, match="cannot be stored"):
        BarStore(tmp_path / "store").save(make(symbol=symbol))
    assert list(tmp_path.iterdir()) == []


def test_symbols_of_ccxt_have_their_folder():
    assert folder_name("BTC/USDT") == "BTC-USDT"
    assert folder_name("BTC/USDT:USDT") == "BTC-USDT-USDT"
    assert folder_name("BRK.B") == "BRK.B"


def test_a_folder_that_is_a_link_out_of_the_store_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store" / "bars").mkdir(parents=True)
    (tmp_path / "store" / "bars" / "BTC-USDT").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leads out of the store"):
        BarStore(tmp_path / "store").save(make())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_is_not_stored_is_named_with_what_is(tmp_path):
    store = BarStore(tmp_path)
    with pytest.raises(DataError, match="no BTC/USDT 1h is stored; stored: nothing"):
        store.load("BTC/USDT", "1h")
    store.save(make())
    with pytest.raises(DataError, match="no ETH/USDT 1h is stored; stored: BTC/USDT 1h"):
        store.load("ETH/USDT", "1h")
    with pytest.raises(DataError, match=r"timeframe '../x' is not known"):
        store.load("BTC/USDT", "../x")


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        BarStore(tmp_path / "file").save(make())


def test_joined_bars_are_the_union_and_conflicts_are_refused():
    whole = make(100)
    assert join(whole[:60], whole[40:]).fingerprint() == whole.fingerprint()
    assert join(whole[60:], whole[:60]).fingerprint() == whole.fingerprint()
    values = whole.values.copy()
    values[45, 4] += 1
    other = Bars(whole.time, values, whole.names, whole.symbol, whole.interval_ns)
    with pytest.raises(DataError, match=r"volume at .* is .* in one source"):
        join(whole[:60], other[40:])
    assert join(whole[:60], other[40:], keep="first").fingerprint() == whole.fingerprint()
    assert join(whole[:60], other[40:], keep="last").fingerprint() == other.fingerprint()
    with pytest.raises(DataError, match="cannot be joined"):
        join(whole, make(10, symbol="ETH/USDT"))
