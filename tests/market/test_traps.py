"""The 18 traps of the development data, each real, each caught; skipped where the data are not at hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from market.bars import Bars, Panel, timeframe_ns
from market.external import AsOfJoin, ExternalSeries, unit_factor
from market.quality import quality
from market.resample import resample
from market.sources.files import read_bars
from market.sources.parsing import times
from market.sources.readers import RawTable
from market.store import join
from market.table import DataError
from tests.market.mutators import NOW_NS, clean_frame, write_csv
from tests.market.test_files import binance_rows, write_rows

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
DAY_NS = 86_400 * 10**9
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs the development data, which are not shipped")


def ohlcv(name, **options):
    return read_bars(DATA / "ohlcv" / f"{name}.parquet", **options)


def frame_of(folder, name):
    return pd.read_parquet(DATA / folder / f"{name}.parquet")


def ns(column):
    return pd.to_datetime(column, utc=True).to_numpy(dtype="datetime64[ns]").astype(np.int64)


def daily(folder, name, column, delay_ns=DAY_NS):
    table = frame_of(folder, name)
    return ExternalSeries.delayed(ns(table["timestamp"]), table[column].to_numpy(float), column, delay_ns)


@pytest.mark.parametrize(
    ("name", "gaps", "missing"),
    [
        ("btcusdt_binance_spot_1h", 28, 128),
        ("ethusdt_binance_spot_1h", 28, 128),
        ("ltcusdt_binance_spot_1h", 27, 122),
        ("btcusdt_binance_spot_1m_2018-02", 3, 2_060),
        ("btcusdt_binance_spot_1m_2020-03", 1, 128),
    ],
)
def test_trap_1_outages_load_and_are_listed(name, gaps, missing):
    bars, report = ohlcv(name)
    assert (len(report.gaps), report.missing_bars) == (gaps, missing)
    assert any("missing" in warning for warning in report.warnings)
    assert sum(gap.bars for gap in report.gaps) == missing
    assert len(bars) + missing == (bars.time[-1] - bars.time[0]) // bars.interval_ns + 1


def test_trap_1_the_longest_outage_is_2011_minutes():
    _, report = ohlcv("btcusdt_binance_spot_1m_2018-02")
    longest = max(report.gaps, key=lambda gap: gap.bars)
    assert longest.bars == 2_011
    assert longest.after == pd.Timestamp("2018-02-08 00:29", tz="UTC").value


def test_trap_2_resampling_minutes_without_trades_gives_the_candles_of_the_exchange():
    minutes, report = ohlcv("btcusdt_binance_spot_1m_2017-08")
    assert report.zero_volume_bars == 6_974
    hours, _ = ohlcv("btcusdt_binance_spot_1h")
    ours = resample(minutes, "1h")
    theirs = hours[: hours.row_at(ours.time[-1])]
    np.testing.assert_array_equal(ours.time, theirs.time)
    np.testing.assert_array_equal(ours.values[:, :4], theirs.values[:, :4])
    np.testing.assert_allclose(ours.values[:, 4], theirs.values[:, 4], rtol=1e-12)
    # Negative control: with every minute, traded or not, the opens are wrong.
    first = np.unique((minutes.time - 1) // 3_600_000_000_000, return_index=True)[1]
    assert (minutes.values[first, 0] != theirs.values[:, 0]).sum() > 50


def test_trap_3_a_frozen_feed_is_reported():
    _, report = ohlcv("btcusdt_binance_spot_1m_2017-08")
    assert max(still.bars for still in report.standstills) == 81
    assert any("standstill" in warning for warning in report.warnings)
    with pytest.raises(DataError, match=r"the same bar repeats for 3 bars.*--accept frozen"):
        ohlcv("btcusd_bitfinex_spot_1m_2013-04_2013-07", timeframe="1m", accept=["outliers"])


def test_trap_4_partial_bars_are_counted():
    _, report = ohlcv("btcusdt_binance_spot_1h")
    assert report.partial_bars == 31
    assert report.zero_volume_bars == 4


def test_trap_5_erroneous_prints_are_refused_and_clipped_or_dropped_by_name():
    with pytest.raises(DataError, match=r"low is 19\.9 at 2013-04-10.*8 such rows.*--repair clip-outliers"):
        ohlcv("btcusd_bitfinex_spot_1h")
    clipped, report = ohlcv("btcusd_bitfinex_spot_1h", repairs=["clip-outliers"])
    assert report.repairs == {"clip-outliers": 8}
    raw = frame_of("ohlcv", "btcusd_bitfinex_spot_1h")
    changed = np.flatnonzero(clipped.column("low") != raw["low"])
    # Every print that the data page names, two more, and the flash crash to 200 of 2014-02-10.
    assert set(raw["low"][changed].round(2)) == {0.01, 1.0, 1.06, 13.0, 15.0, 19.9, 20.0, 200.0}
    np.testing.assert_array_equal(np.delete(clipped.column("low"), changed), np.delete(raw["low"], changed))
    dropped, report = ohlcv("btcusd_bitfinex_spot_1h", repairs=["drop-outliers"])
    assert len(dropped) == len(clipped) - 8


def test_trap_5_an_honest_crash_is_no_erroneous_print():
    _, report = ohlcv("btcusdt_binance_spot_1m_2020-03")
    assert report.rows == 44_512


def test_trap_6_silent_holes_of_months_are_listed():
    _, report = ohlcv("btcusd_bitfinex_spot_1h", repairs=["clip-outliers"])
    days = sorted(round(gap.bars / 24) for gap in report.gaps)[-4:]
    assert days[-3:] == [31, 40, 61]
    assert (len(report.gaps), report.missing_bars) == (107, 3_487)


def test_trap_7_the_order_of_bitfinex_is_noticed_and_named(tmp_path):
    raw = frame_of("ohlcv", "btcusd_bitfinex_spot_1h")[40_000:40_500]
    stamps = ns(raw["timestamp"]) // 1_000_000
    rows = list(zip(stamps, *(raw[c] for c in ("open", "close", "high", "low", "volume")), strict=True))
    path = write_rows(rows, tmp_path / "x.csv")
    with pytest.raises(DataError, match=r"another order.*--layout bitfinex"):
        read_bars(path, symbol="BTC/USD")
    bars, _ = read_bars(path, symbol="BTC/USD", layout="bitfinex")
    np.testing.assert_array_equal(bars.values[:, :4], raw[["open", "high", "low", "close"]])


def test_trap_8_usd_and_usdt_are_different_markets():
    dollars, _ = ohlcv("btcusd_bitfinex_spot_1h", repairs=["clip-outliers"])
    tethers, _ = ohlcv("btcusdt_binance_spot_1h")
    assert (dollars.symbol, tethers.symbol) == ("BTC/USD", "BTC/USDT")
    with pytest.raises(DataError, match="cannot be joined"):
        join(dollars, tethers)
    panel = Panel.of(dollars, tethers)
    assert set(panel.bars) == {"BTC/USD", "BTC/USDT"}


@pytest.mark.parametrize(("name", "bars"), [("btcusdt_binance_perp_1h", 9), ("ethusdt_binance_perp_1h", 3)])
def test_trap_9_bars_of_a_launch_are_reported(name, bars):
    _, report = ohlcv(name)
    assert report.launch_bars == bars
    assert any("before regular trading" in warning for warning in report.warnings)
    assert ohlcv("ltcusdt_binance_spot_1h")[1].launch_bars == 0


def test_trap_10_funding_defaults_and_zeros_are_told_and_stamps_rounded():
    funding = daily("derivatives", "ltcusdt_binance_funding_8h", "funding_rate", 0)
    told = " ".join(funding.oddities())
    assert "312 of 4904 values are exactly 0" in told
    assert "are 0.0001, perhaps a default" in told
    late = ExternalSeries.delayed(funding.event_time + 6_000_000, funding.value, "funding_rate", 0)
    np.testing.assert_array_equal(late.rounded(timeframe_ns("8h")).event_time, funding.event_time)
    far = ExternalSeries.delayed(funding.event_time + 3_600 * 10**9, funding.value, "funding_rate", 0)
    with pytest.raises(DataError, match="off the grid"):
        far.rounded(timeframe_ns("8h"))


def test_trap_11_typing_errors_of_the_vix_are_refused():
    path = DATA / "macro" / "vix_1d.parquet"
    with pytest.raises(DataError, match=r"row .*high must enclose.*47 such rows"):
        read_bars(path, repairs=["zero-volume"])
    with pytest.raises(DataError, match=r"high is 36.56 at 2005-07-25.*while the market stands at 10.77"):
        read_bars(path, repairs=["zero-volume", "drop-bad-rows"])
    bars, report = read_bars(path, repairs=["zero-volume", "drop-bad-rows", "clip-outliers"])
    assert report.repairs == {"zero-volume": 8_702, "drop-bad-rows": 47, "clip-outliers": 1}
    assert len(bars) == 8_702 - 47


def test_trap_12_rows_that_are_no_observations_are_dropped():
    dxy = daily("macro", "dxy_1d", "dxy")
    assert len(dxy) == 2_885 - 498
    sunday = pd.Timestamp("2024-06-24 00:00", tz="UTC").value  # Sunday's row would be known by now
    hours = np.arange(sunday - 3 * DAY_NS, sunday + 1, DAY_NS // 24)
    bars = Bars(
        hours,
        np.tile([2.0, 3.0, 1.0, 2.0, 1.0], (hours.size, 1)),
        symbol="X",
        interval_ns=DAY_NS // 24,
        names=("open", "high", "low", "close", "volume"),
    )
    joined = AsOfJoin([dxy]).update(bars)
    assert np.isfinite(joined.values).all()
    assert any(
        "steps differ" in oddity for oddity in daily("sentiment", "fear_greed_1d", "fear_greed", 0).oddities()
    )


def test_trap_13_false_zeros_are_told():
    reserve = daily("onchain", "btc_flows_1d", "fund_reserve_btc")
    zeros = int((reserve.value == 0).sum())
    assert zeros >= 216
    assert any(f"{zeros} of" in oddity and "exactly 0" in oddity for oddity in reserve.oddities())


def test_trap_14_another_unit_is_a_factor_of_a_thousand():
    ours = daily("onchain", "btc_network_1d", "hashrate_ths")
    other = ExternalSeries.delayed(ours.event_time, ours.value * 1000, "hashrate_ghs", DAY_NS)
    assert unit_factor(ours, other) == pytest.approx(1000)
    sparse = daily("onchain", "btc_activity_sparse", "active_addresses")
    full = daily("onchain", "btc_coinmetrics_1d", "AdrActCnt")
    assert unit_factor(full, sparse) == pytest.approx(0.75, abs=0.05)


def test_trap_15_day_first_dates_are_refused_until_named():
    import pyarrow as pa

    from market.rows import Remedies

    news = frame_of("sentiment", "crypto_news_2021-10_2022-07")
    text = pa.array(news["date_raw"].astype(str).tolist())
    raw = RawTable("news.csv", ("date",), (text,), np.arange(1, len(text) + 1), "line", True)
    with pytest.raises(DataError, match=r"day and month cannot be told apart.*--repair day-first"):
        times(raw, "date", Remedies())
    with pytest.raises(DataError, match="must be ISO dates"):
        times(raw, "date", Remedies(["month-first"]))
    stamps = times(raw, "date", Remedies(["day-first"]))
    np.testing.assert_array_equal(stamps.ns, ns(news["timestamp"]))


def test_trap_16_an_unadjusted_dividend_shows_as_an_outlier():
    _, report = read_bars(DATA / "macro" / "etf_1d.parquet", symbol="UUP", repairs=["sort"])
    day = pd.Timestamp("2023-12-19", tz="UTC").value
    falls = [one for one in report.outliers if one.time == day]
    assert {one.what for one in falls} >= {"gap"}
    assert falls[0].change == pytest.approx(-0.06, abs=0.005)


def test_trap_17_irregular_snapshots_are_told():
    book = frame_of("orderbook", "btcusd_coinbase_l15_1m_2021-04-17")
    series = ExternalSeries.delayed(ns(book["timestamp"]), book["spread"].to_numpy(float), "spread", 0)
    assert any("steps differ from the usual" in oddity for oddity in series.oddities())


def test_trap_18_microseconds_are_seen_by_their_magnitude(tmp_path):
    frame = clean_frame(np.random.default_rng(0), 48)
    millis = write_rows(binance_rows(frame), tmp_path / "ms.csv")
    micros = write_rows(binance_rows(frame, 1000), tmp_path / "us.csv")
    first, second = (read_bars(path, symbol="X", now_ns=NOW_NS)[0] for path in (millis, micros))
    assert first.fingerprint() == second.fingerprint()
    later = write_csv(frame | {"time": [stamp * 1000 for stamp in frame["time"]]}, tmp_path / "x.csv")
    assert read_bars(later, symbol="X", now_ns=NOW_NS)[0].fingerprint() == first.fingerprint()


def test_the_shared_hourly_files_simply_work_and_quickly():
    import time

    for name in ("btc", "eth", "ltc"):
        started = time.perf_counter()
        bars, report = ohlcv(f"{name}usdt_binance_spot_1h")
        assert time.perf_counter() - started < 1.0  # 0.1 s when the machine is not shared
        assert report.rows == len(bars) > 57_000
        assert (report.repairs, report.accepted) == ({}, {})
        assert quality(bars).gaps == report.gaps
